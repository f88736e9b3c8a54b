"""One weights file of a base model: here, to be downloaded whole, or read by range where it is."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gradience.audit.base.weights import TensorFacts
from gradience.errors import TensorFileError
from gradience.tensors.gguf_file import is_gguf, open_gguf
from gradience.tensors.opening import open_tensor_file
from gradience.tensors.stored import StoredTensor
from gradience.tensors.tensor_file import TensorFile

if TYPE_CHECKING:
    from gradience.tensors.remote.lookahead import Span

Progress = Callable[[str, int, int], None]


class ShardFile(Protocol):
    """Where the bytes of a shard come from."""

    @property
    def path(self) -> Path | None:
        """The local file, once it was opened; None where there is none."""
        ...

    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor, not yet read; opens the file on first use."""
        ...

    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself; opens it on first use."""
        ...

    def span(self, name: str, index: int | None) -> "Span | None":
        """What must come over the network for a tensor, or one entry of it; None if nothing."""
        ...

    def identity(self) -> str:
        """What tells this file's content from another's without reading all of it."""
        ...

    def known_by(self) -> Literal["hash", "version", "sample"]:
        """What `identity` stands on."""
        ...

    def check_same(self) -> None:
        """Refuse a file that was written to since it was opened: `identity` is of what it was.

        Raises
        ------
        TensorFileError
        """
        ...

    def close(self) -> None:
        """Let go of the file, if it was opened."""
        ...


@dataclass(eq=False, slots=True, kw_only=True)
class LocalFile:
    """A file on this disk, or one that is on it once `fetch` was called; a `ShardFile`.

    What is read, what it is known by and whether it was written to are all asked of one open file:
    the name may come to mean another at any time.
    """

    fetch: Callable[[], Path]
    _file: TensorFile | None = field(default=None, init=False)
    _identity: str = field(default="", init=False)

    @property
    def path(self) -> Path | None:
        """Where it is, once it was opened."""
        return None if self._file is None else self._file.path

    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor, mapped when read."""
        return self._opened().tensors

    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself."""
        return self._opened().metadata

    def span(self, name: str, index: int | None) -> None:
        """Nothing comes over the network."""

    def identity(self) -> str:
        """A file in a Hub cache links to a blob that is named by its hash; any other is sampled."""
        self._opened()
        return self._identity

    def known_by(self) -> Literal["hash", "sample"]:
        """See `ShardFile`."""
        return "hash" if self._opened().sampled is None else "sample"

    def check_same(self) -> None:
        """See `ShardFile`; a file that was replaced by another stays mapped, and is what it was."""
        if self._file is None:
            return
        before = self._file.status
        try:
            now = self._file.path.stat()
        except OSError:
            return  # deleted, and still mapped
        written = (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
        if os.path.samestat(before, now) and written:
            raise TensorFileError(
                f"{self._file.path} was written to while it was read",
                remedy="Wait until it is written, then try again.",
            )

    def close(self) -> None:
        """Unmap the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> TensorFile:
        if self._file is None:
            path = self.fetch()
            blob = _blob(path)
            opening = open_gguf if is_gguf(path) else open_tensor_file
            file = opening(path, sample=blob is None)
            self._identity = file.sampled or _hash_of(blob, file)
            self._file = file
        return self._file


@dataclass(eq=False, slots=True, kw_only=True)
class Shard:
    """A weights file, opened when needed and kept open.

    Attributes
    ----------
    name : str
        Relative to the model, with forward slashes.
    file : ShardFile
    prefix : str
        What stands before its tensor names in the model: a pipeline's folder.
    only : frozenset of str, optional
        Tensors that the index places in this file; None for all that it holds.
    """

    name: str
    file: ShardFile
    prefix: str = ""
    only: frozenset[str] | None = None

    def facts(self) -> dict[str, TensorFacts]:
        """Shape and type of each tensor, by its name in the model.

        Raises
        ------
        TensorFileError
            If the file is damaged, or lacks a tensor that its index promises.
        """
        stored = self.file.tensors()
        for missing in (self.only or frozenset()) - stored.keys():
            raise TensorFileError(
                f"{self.name} does not hold {missing}, which its index places there",
                remedy="Download the model again; the index names every file that belongs to it.",
            )
        return {
            self.prefix + name: TensorFacts(shape=tensor.shape, dtype=tensor.dtype)
            for name, tensor in stored.items()
        }

    def tensor(self, name: str) -> StoredTensor:
        """A tensor by its name in the model."""
        return self.file.tensors()[name.removeprefix(self.prefix)]

    def span(self, name: str, index: int | None) -> "Span | None":
        """What must come over the network for a tensor, by its name in the model."""
        return self.file.span(name.removeprefix(self.prefix), index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A base model that was found: its files, not yet looked into.

    Attributes
    ----------
    model : str
        As the user named it, without its revision.
    name : str
        A short name to file under: the last part of a path.
    revision : str or None
        Commit of a Hub model.
    shards : tuple of Shard
    tied : bool or None
        `tie_word_embeddings` of its config; None when there is none.
    quantisation : mapping
        `quantization_config` of its config; empty when there is none.
    absent : mapping of str to str
        Tensors in shards that are not here and may not be downloaded, and the shard.
    """

    model: str
    name: str
    revision: str | None
    shards: tuple[Shard, ...]
    tied: bool | None
    quantisation: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def by_shard(weight_map: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """The tensors that an index places in each shard; shards in the order of their names."""
    names: dict[str, set[str]] = {shard: set() for shard in sorted(set(weight_map.values()))}
    for tensor, shard in weight_map.items():
        names[shard].add(tensor)
    return {shard: frozenset(tensors) for shard, tensors in names.items()}


def _blob(path: Path) -> Path | None:
    """The blob of the Hub's cache that a snapshot's file links to; None for a file outside of one.

    In both layouts of the cache that is `<repo>/blobs/<etag>`; since 1.32 it is a link again, into
    a store shared by all repositories. The etag of a large file is its sha256, of a small one its
    git hash.
    """
    if not path.is_symlink():
        return None
    blob = path.parent / path.readlink()
    is_hash = len(blob.name) in (40, 64) and set(blob.name) <= set("0123456789abcdef")
    return blob if blob.parent.name == "blobs" and is_hash else None


def _hash_of(blob: Path | None, file: TensorFile) -> str:
    """The hash that names an open blob.

    Raises
    ------
    TensorFileError
        If the link has come to lead to another while it was followed.
    """
    with suppress(OSError):  # gone by now: it cannot be told
        if blob is not None and os.path.samestat(blob.stat(), file.status):
            return f"{blob.name} {file.nbytes}"
    file.close()
    raise TensorFileError(
        f"{file.path} was replaced by another file while it was being opened", remedy="Try again."
    )
