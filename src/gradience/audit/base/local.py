"""A base model on this disk: a directory, a weights file or an index."""

import os
from functools import partial
from pathlib import Path

from gradience.audit.base.config import MAX_CONFIG_BYTES, read_config
from gradience.audit.base.layout import split_names, weights_files, why_none
from gradience.audit.base.shards import Found, LocalFile, Shard, by_shard
from gradience.errors import BaseModelError, TensorFileError
from gradience.tensors.index import open_index
from gradience.tensors.regular import read_regular


def find(path: Path) -> Found:
    """The weights files of a model at a path.

    Raises
    ------
    BaseModelError
        If there is nothing, or no weights.
    TensorFileError
        If an index is damaged.
    """
    config = read_config(partial(_small, path if path.is_dir() else path.parent))
    shards = _shards_at(path)
    # What the user calls it: a link, and a blob of the Hub cache behind one, have other names.
    name = Path(os.path.abspath(path)).name  # noqa: PTH100 - takes `..` away and follows no link
    return Found(
        model=str(path),
        name=name,
        revision=None,
        shards=shards,
        tied=config.tied,
        quantisation=config.quantisation,
    )


def _shards_at(path: Path) -> tuple[Shard, ...]:
    if path.is_dir():
        names = listing(path)
        files = weights_files(names)
        if not files:
            none = why_none(names)
            remedy = (
                f"Name the file itself, such as {path / none.file}." if none.file else none.remedy
            )
            raise BaseModelError(f"base model {path}: {none.reason}", remedy=remedy)
        return tuple(
            shard for file in files for shard in shards_of(path / file.name, prefix=file.prefix)
        )
    if not path.exists():
        raise BaseModelError(
            f"base model {path}: there is no such file or directory",
            remedy="Name a model directory, a weights file, or a Hub id such as org/name.",
        )
    return shards_of(path)


def shards_of(path: Path, *, prefix: str = "") -> tuple[Shard, ...]:
    """The one file, or those that an index lists."""
    folder = f"{prefix.removesuffix('.')}/" if prefix else ""
    if not path.name.endswith(".json"):
        return tuple(
            Shard(
                name=folder + name,
                file=LocalFile(fetch=partial(Path, path.with_name(name))),
                prefix=prefix,
            )
            for name in split_names(path.name) or (path.name,)
        )
    index = open_index(path)
    if index.missing_shards:
        raise TensorFileError(
            f"{path}: {len(index.missing_shards)} of its {len(index.shards)} shards are missing: "
            + ", ".join(index.missing_shards[:5]),
            remedy="Download the model again; the index names every file that belongs to it.",
        )
    return tuple(
        Shard(
            name=folder + name,
            file=LocalFile(fetch=partial(Path, index.shard_path(name))),
            prefix=prefix,
            only=tensors,
        )
        for name, tensors in by_shard(index.weight_map).items()
    )


def _small(folder: Path, name: str) -> bytes | None:
    """A config of a directory; None when there is none that can be read."""
    try:
        return read_regular(folder / name, limit=MAX_CONFIG_BYTES)
    except TensorFileError:
        return None


def listing(path: Path) -> list[str]:
    """Files in the directory and one level below, where a pipeline keeps its components."""
    return [
        found.relative_to(path).as_posix()
        for pattern in ("*", "*/*")
        for found in path.glob(pattern)
        if found.is_file()
    ]
