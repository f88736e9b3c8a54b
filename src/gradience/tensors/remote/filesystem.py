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

from gradience.errors import (
    GradienceError,
    MissingExtraError,
    RefusedError,
    TransferError,
    of_an_extra,
)
from gradience.tensors.remote.range_file import (
    OPENING_PAUSES,
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

# The extra that brings the package of a protocol; of any other fsspec names the package.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}

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
    _known: "_Facts | None" = field(default=None, init=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._facts().size

    @property
    def validator(self) -> str:
        """fsspec's key of what the store says of the file."""
        return self._facts().key

    @property
    def names_version(self) -> bool:
        """Whether the store gives a version or a digest, and not size and time alone."""
        return self._facts().versioned

    def head(self, most: int) -> bytes:
        """The first bytes; see `RangeFile`."""
        end = min(most, self.size)
        if end == 0:
            return b""
        data = self._patiently(partial(self._piece, 0, end), Event(), OPENING_PAUSES)
        self._check_same(Event())
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
        for start in range(0, len(buffer), _PIECE):
            if stop.is_set():
                raise stopped(self.name)
            end = min(start + _PIECE, len(buffer))
            piece = partial(self._piece, begin + start, begin + end)
            buffer[start:end] = self._patiently(piece, stop)
            told(end - start)
        self._check_same(stop)

    def _facts(self) -> "_Facts":
        """What the store said of the file when it was first asked."""
        if self._known is None:
            self._known = self._patiently(self._facts_now, Event(), OPENING_PAUSES)
        return self._known

    def _facts_now(self) -> "_Facts":
        self.fs.invalidate_cache(self.path)
        info = self.fs.info(self.path)
        if type(info["size"]) is not int:
            raise TransferError(
                f"{self.name}: its store does not say how large it is",
                remedy="Download the file, and name it on this disk.",
            )
        return _Facts(
            size=info["size"],
            key=str(self.fs.ukey(self.path)),
            versioned=any(key.lower() in _VERSIONS and info[key] for key in info),
        )

    def _check_same(self, stop: Event) -> None:
        before, now = self._facts(), self._patiently(self._facts_now, stop)
        if now != before:
            what = "its store names another version of it"
            if now.size != before.size:
                what = f"it has {now.size} bytes where it had {before.size}"
            raise changed(self.name, what)

    def _piece(self, begin: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=begin, end=end)
        if len(data) != end - begin:
            raise Interrupted(f"it gives {len(data)} bytes where {end - begin} were asked for")
        return data

    def _patiently(self, act: Callable[[], T], stop: Event, tries: int | None = None) -> T:
        patience = Patience(name=self.name, stop=stop, pauses=self.pauses[:tries])
        while True:
            try:
                return translated(act, self.name)
            except Interrupted as trouble:
                patience.wait(trouble, progress=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a store says of a file: of two contents these differ."""

    size: int
    key: str
    versioned: bool


def filesystem(url: str, name: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises
    ------
    MissingExtraError
        If fsspec or the package of that protocol is not installed.
    TransferError
        If there is no such protocol, or the store refuses the login.
    """
    with of_an_extra(
        f"{name} is read through fsspec, which is not installed", remedy="pip install fsspec"
    ):
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only for a URL of a store
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
        extra = _EXTRAS.get(name.partition("://")[0])
        raise MissingExtraError(
            f"{name}: {error}",
            remedy=f'pip install "gradience[{extra}]"'
            if extra
            else "pip install what that sentence names.",
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
