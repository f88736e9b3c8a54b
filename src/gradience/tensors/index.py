"""A model in several files: which one holds which tensor, opened only when it is asked for.

The index is written by whoever made the model, so a name in it is a name and never a path to
follow out of the directory. Names are judged as they are written: in the Hub's cache every shard
is a symbolic link to `../../blobs/...`, and that is where it belongs.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import msgspec

from gradience.errors import TensorFileError, shown
from gradience.tensors.opening import open_tensor_file
from gradience.tensors.regular import read_regular
from gradience.tensors.stored import StoredTensor
from gradience.tensors.strict_json import strict_json_object
from gradience.tensors.tensor_file import TensorFile

MAX_INDEX_BYTES = 100_000_000
"""Of an index that is read; the largest models need a tenth of it."""

_AGAIN = "Download the model again; the index names every file that belongs to it."


class ShardIndex(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors of a sharded model; a context manager that closes the shards it opened.

    Attributes
    ----------
    path : Path
        The index file.
    weight_map : mapping of str to str
        Name of a tensor to name of the shard that holds it, relative to the index.
    metadata : mapping
        What the index says beside: `total_size` for most.
    """

    path: Path
    weight_map: Mapping[str, str]
    metadata: Mapping[str, Any]
    _open: dict[str, TensorFile] = msgspec.field(default_factory=dict)

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards, each once, in the order of the index."""
        return tuple(dict.fromkeys(self.weight_map.values()))

    @property
    def missing_shards(self) -> tuple[str, ...]:
        """Names of the shards that are not there."""
        return tuple(name for name in self.shards if not self.shard_path(name).exists())

    def shard_path(self, shard: str) -> Path:
        """Where a shard lies: beside the index."""
        return self.path.parent / shard

    def tensor(self, name: str) -> StoredTensor:
        """One tensor by name; opens its shard on first use.

        Raises
        ------
        KeyError
            If the index has no such tensor.
        TensorFileError
            If its shard is missing (all that are missing are named), cannot be opened, or does
            not hold it.
        """
        shard = self.weight_map[name]
        found = self._shard(shard).tensors.get(name)
        if found is None:
            raise TensorFileError(
                f"{self.path}: {shown(name)} should be in {shown(shard)}, which does not hold it",
                remedy=_AGAIN,
            )
        return found

    def _shard(self, shard: str) -> TensorFile:
        if shard not in self._open:
            if not self.shard_path(shard).exists():
                raise self._missing()
            self._open[shard] = open_tensor_file(self.shard_path(shard))
        return self._open[shard]

    def _missing(self) -> TensorFileError:
        missing = self.missing_shards
        some = ", ".join(missing[:5]) + (", ..." if missing[5:] else "")
        return TensorFileError(
            f"{self.path}: {len(missing)} of its {len(self.shards)} shards are missing: {some}",
            remedy=_AGAIN,
        )

    def close(self) -> None:
        """Close the shards that were opened."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_index(path: str | os.PathLike[str]) -> ShardIndex:
    """Read `model.safetensors.index.json` or `pytorch_model.bin.index.json`; opens no shard.

    Raises
    ------
    TensorFileError
        If it is missing, too large, not such an index, names a tensor twice, or names a shard
        outside its directory.
    """
    path = Path(path)
    weight_map, metadata = parse_index(path, read_regular(path, limit=MAX_INDEX_BYTES))
    return ShardIndex(path=path, weight_map=weight_map, metadata=metadata)


def parse_index(path: Path | str, data: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """The weight map and the metadata of an index.

    Parameters
    ----------
    path : Path or str
        For the errors.
    data : bytes

    Raises
    ------
    TensorFileError
        As `open_index`.
    """
    found = strict_json_object(path, data, what="index")
    weight_map = found.get("weight_map")
    if not isinstance(weight_map, dict):
        raise TensorFileError(
            f"{path} has no weight_map: {shown(weight_map)} where an object should be",
            remedy="Name the *.index.json of the model, not its config.",
        )
    for name, shard in weight_map.items():
        _check_shard_name(path, name, shard)
    metadata = found.get("metadata")
    return weight_map, metadata if isinstance(metadata, dict) else {}


def _check_shard_name(path: Path | str, name: str, shard: object) -> None:
    if not isinstance(shard, str):
        raise TensorFileError(
            f"{path}: the shard of {shown(name)} is {shown(shard)}, not a file name", remedy=_AGAIN
        )
    pure = PurePosixPath(shard)
    # A backslash and a colon part directories and drives on Windows.
    leaves = pure.is_absolute() or ".." in pure.parts or any(c in shard for c in "\\:\0")
    if leaves or not pure.parts:
        raise TensorFileError(
            f"{path}: the shard of {shown(name)} is {shown(shard)}, which is not a file in the "
            "directory of the index",
            remedy="Do not use this model: an index that points elsewhere is damaged or hostile.",
        )
