"""One weights file of a base model: here already, or on the Hub."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gradience.audit.base.weights import TensorFacts
from gradience.errors import TensorFileError
from gradience.tensors.fingerprint import sampled_digest
from gradience.tensors.opening import open_tensor_file
from gradience.tensors.stored import StoredTensor
from gradience.tensors.tensor_file import TensorFile

Progress = Callable[[str, int, int], None]


@dataclass(eq=False, slots=True, kw_only=True)
class Shard:
    """A weights file, opened when needed and kept open.

    Attributes
    ----------
    name : str
        Relative to the model, with forward slashes.
    fetch : callable
        Gives its local path; may download.
    prefix : str
        What stands before its tensor names in the model: a pipeline's folder.
    header : callable, optional
        Gives shapes and types without having the file; None when the file is here.
    only : frozenset of str, optional
        Tensors that the index places in this file; None for all that it holds.
    """

    name: str
    fetch: Callable[[], Path]
    prefix: str = ""
    header: Callable[[], Mapping[str, TensorFacts] | None] | None = None
    only: frozenset[str] | None = None
    _file: TensorFile | None = field(default=None, init=False)

    @property
    def path(self) -> Path | None:
        """Where the file is, once it was opened."""
        return None if self._file is None else self._file.path

    def facts(self) -> dict[str, TensorFacts]:
        """Shape and type of each tensor, by its name in the model.

        Raises
        ------
        TensorFileError
            If the file is damaged, or lacks a tensor that its index promises.
        """
        known = self.header() if self.header else None
        if known is None:
            stored = self.open().tensors
            known = {n: TensorFacts(shape=t.shape, dtype=t.dtype) for n, t in stored.items()}
        for missing in (self.only or frozenset()) - known.keys():
            raise TensorFileError(
                f"{self.name} does not hold {missing}, which its index places there",
                remedy="Download the model again; the index names every file that belongs to it.",
            )
        return {self.prefix + name: facts for name, facts in known.items()}

    def tensor(self, name: str) -> StoredTensor:
        """A tensor by its name in the model."""
        return self.open().tensors[name.removeprefix(self.prefix)]

    def open(self) -> TensorFile:
        """The open file; fetched on first use."""
        if self._file is None:
            self._file = open_tensor_file(self.fetch())
        return self._file

    def identity(self) -> str:
        """What tells this file's content from another's without reading all of it.

        A file in a Hub cache is a link to a blob that is named by its hash; any other is sampled.
        """
        path = self.fetch()
        return _blob_hash(path) or sampled_digest(path)

    def close(self) -> None:
        """Unmap the file, if it was opened."""
        if self._file is not None:
            self._file.close()
            self._file = None


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
    absent : mapping of str to str
        Tensors in shards that are not here and may not be downloaded, and the shard.
    """

    model: str
    name: str
    revision: str | None
    shards: tuple[Shard, ...]
    tied: bool | None
    absent: Mapping[str, str] = field(default_factory=dict)


def _blob_hash(path: Path) -> str:
    """The hash by which the Hub's cache names a file; empty for a file outside of one.

    In both layouts of the cache a snapshot's file links to `<repo>/blobs/<etag>`; since 1.32 that
    is a link again, into a store shared by all repositories. The etag of a large file is its
    sha256, of a small one its git hash.
    """
    if not path.is_symlink():
        return ""
    blob = path.readlink()
    size = path.stat().st_size
    is_hash = len(blob.name) in (40, 64) and set(blob.name) <= set("0123456789abcdef")
    return f"{blob.name} {size}" if blob.parent.name == "blobs" and is_hash else ""
