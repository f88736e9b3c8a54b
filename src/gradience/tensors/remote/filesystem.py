"""A file of any fsspec file system, read by range: `s3://`, `gs://`, `az://` and the rest.

fsspec knows no condition on a read, so that the file is still the one whose beginning was read is
asked before and after each tensor: fsspec's own key of its properties (ETag, generation, size,
time, whatever the store has) must be the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any, TypeVar

from gradience.errors import GradienceError, MissingExtraError, RefusedError, TransferError
from gradience.tensors.remote.range_file import (
    PAUSES,
    Interrupted,
    Patience,
    Told,
    changed,
    stopped,
)

# One request to the store: it comes whole, so progress and a stop are as fine as this.
_PIECE = 1 << 24

# What stores call it: S3, Google, Azure, the Hub.
_VERSIONS = frozenset({"etag", "versionid", "version_id", "generation", "md5hash", "blob_id"})

T = TypeVar("T")


@dataclass(eq=False, slots=True, kw_only=True)
class FilesystemFile:
    """One file of a file system; implements `RangeFile`.

    Attributes
    ----------
    fs : fsspec.AbstractFileSystem
    path : str
        As the file system writes it, without the protocol.
    name : str
        For the reader.
    pauses : tuple of float
        Seconds between tries that brought nothing.
    """

    fs: Any = field(repr=False)
    path: str
    name: str
    pauses: tuple[float, ...] = PAUSES
    _size: int | None = field(default=None, init=False)
    _key: str = field(default="", init=False, repr=False)
    _versioned: bool = field(default=False, init=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        self._know()
        assert self._size is not None  # `_know` knows it, or raised
        return self._size

    @property
    def validator(self) -> str:
        """fsspec's key of what the store says of the file."""
        self._know()
        return self._key

    @property
    def names_version(self) -> bool:
        """Whether the store gives a version or a digest, and not size and time alone."""
        self._know()
        return self._versioned

    def head(self, most: int) -> bytes:
        """The first bytes; see `RangeFile`."""
        end = min(most, self.size)
        if end == 0:
            return b""
        patience = Patience(name=self.name, stop=Event(), pauses=self.pauses)
        data = self._patiently(partial(self._piece, 0, end), patience)
        self._check_same(patience)
        return data

    def whole(self, limit: int) -> bytes:
        """All of a small file.

        Raises
        ------
        TransferError
            If it cannot be had, or is larger than `limit` bytes.
        """
        if self.size > limit:
            raise TransferError(
                f"{self.name} has {self.size} bytes, more than the {limit} of such a file",
                remedy="Check that it is the file that was meant.",
            )
        return self.head(limit)

    def read_into(self, begin: int, buffer: memoryview, *, told: Told, stop: Event) -> None:
        """Fill the buffer; see `RangeFile`."""
        patience = Patience(name=self.name, stop=stop, pauses=self.pauses)
        for start in range(0, len(buffer), _PIECE):
            if stop.is_set():
                raise stopped(self.name)
            end = min(start + _PIECE, len(buffer))
            piece = partial(self._piece, begin + start, begin + end)
            buffer[start:end] = self._patiently(piece, patience)
            told(end - start)
        self._check_same(patience)

    def _know(self) -> None:
        if self._size is None:
            patience = Patience(name=self.name, stop=Event(), pauses=self.pauses)
            self._size, self._key = self._patiently(self._facts, patience)

    def _facts(self) -> tuple[int, str]:
        self.fs.invalidate_cache(self.path)
        info = self.fs.info(self.path)
        self._versioned = any(key.lower() in _VERSIONS and info[key] for key in info)
        size = info["size"]
        if type(size) is not int:
            raise TransferError(
                f"{self.name}: its store does not say how large it is",
                remedy="Download the file, and name it on this disk.",
            )
        return size, str(self.fs.ukey(self.path))

    def _check_same(self, patience: Patience) -> None:
        size, key = self._patiently(self._facts, patience)
        if (size, key) != (self._size, self._key):
            what = "its store names another version of it"
            if size != self._size:
                what = f"it has {size} bytes where it had {self._size}"
            raise changed(self.name, what)

    def _piece(self, begin: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=begin, end=end)
        if len(data) != end - begin:
            raise Interrupted(f"it gives {len(data)} bytes where {end - begin} were asked for")
        return data

    def _patiently(self, act: Callable[[], T], patience: Patience) -> T:
        while True:
            try:
                return translated(act, self.name)
            except Interrupted as trouble:
                patience.wait(trouble, progress=False)


def filesystem(url: str, name: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises
    ------
    MissingExtraError
        If fsspec or the package of that protocol is not installed.
    TransferError
        If there is no such protocol, or the store refuses the login.
    """
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only for a URL of a store
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is read through fsspec, which is not installed", remedy="pip install fsspec"
        ) from error
    try:
        fs, path = translated(partial(url_to_fs, url), name)
    except Interrupted as trouble:
        raise TransferError(
            f"{name}: {trouble.reason}", remedy="Check the address and the login of the store."
        ) from trouble
    return fs, path


def translated(act: Callable[[], T], name: str) -> T:
    """What a store does, with what it may raise as our own.

    Raises
    ------
    Interrupted
        If another try may go better.
    RefusedError, MissingExtraError
        If none will.
    """
    try:
        return act()
    except (GradienceError, Interrupted):
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"{name}: {error}", remedy="pip install what that sentence names."
        ) from error
    except FileNotFoundError as error:
        raise RefusedError(f"{name} is not there", remedy="Check the address.") from error
    except PermissionError as error:
        raise RefusedError(
            f"{name} may not be read with this login", remedy="Check the login of the store."
        ) from error
    except Exception as error:
        # Every store raises the classes of its own SDK; each is reported.
        text = " ".join(str(error).split())[:200]
        raise Interrupted(f"its store failed ({type(error).__name__}: {text})") from error
