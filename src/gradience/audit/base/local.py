"""A base model on this disk: a directory, a weights file or an index."""

from functools import partial
from pathlib import Path

from gradience.audit.base.layout import weights_files, why_none
from gradience.audit.base.shards import Found, LocalFile, Shard, by_shard
from gradience.errors import BaseModelError, TensorFileError
from gradience.tensors.index import open_index
from gradience.tensors.regular import read_regular
from gradience.tensors.strict_json import strict_json_object

MAX_CONFIG_BYTES = 10_000_000
"""Of a config.json that is read."""


def find(path: Path) -> Found:
    """The weights files of a model at a path.

    Raises
    ------
    BaseModelError
        If there is nothing, or no weights.
    TensorFileError
        If an index is damaged.
    """
    config = (path if path.is_dir() else path.parent) / "config.json"
    shards = _shards_at(path)
    name = path.resolve().name
    return Found(model=str(path), name=name, revision=None, shards=shards, tied=tied(config))


def _shards_at(path: Path) -> tuple[Shard, ...]:
    if path.is_dir():
        names = listing(path)
        files = weights_files(names)
        if not files:
            reason, remedy = why_none(names)
            raise BaseModelError(f"base model {path}: {reason}", remedy=remedy)
        return tuple(
            shard for file in files for shard in shards_of(path / file.name, prefix=file.prefix)
        )
    if not path.exists():
        raise BaseModelError(
            f"base model {path}: there is no such file or directory",
            remedy="Name a model directory, a weights file, or a Hub id such as org/name.",
        )
    if path.suffix == ".gguf":
        reason, remedy = why_none([path.name])
        raise BaseModelError(f"base model {path}: {reason}", remedy=remedy)
    return shards_of(path)


def shards_of(path: Path, *, prefix: str = "") -> tuple[Shard, ...]:
    """The one file, or those that an index lists."""
    folder = f"{prefix.removesuffix('.')}/" if prefix else ""
    if not path.name.endswith(".json"):
        file = LocalFile(fetch=partial(Path, path))
        return (Shard(name=folder + path.name, file=file, prefix=prefix),)
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


def tied(config: Path) -> bool | None:
    """`tie_word_embeddings` of a config.json; None when there is none to read."""
    try:
        data = read_regular(config, limit=MAX_CONFIG_BYTES)
    except TensorFileError:
        return None
    return tied_in(config, data)


def tied_in(config: Path | str, data: bytes) -> bool | None:
    """`tie_word_embeddings` of the text of a config.json; None when it cannot be read.

    transformers 4 leaves the key out where it is True, the default; models of several parts keep
    it in the part that is the language model.
    """
    try:
        found = strict_json_object(config, data, what="config")
    except TensorFileError:
        # The config is a hint, never needed: without one, names and shapes decide alone.
        return None
    text = found.get("text_config")
    for part in (text if isinstance(text, dict) else {}, found):
        if isinstance(part.get("tie_word_embeddings"), bool):
            return bool(part["tie_word_embeddings"])
    return True


def listing(path: Path) -> list[str]:
    """Files in the directory and one level below, where a pipeline keeps its components."""
    return [
        found.relative_to(path).as_posix()
        for pattern in ("*", "*/*")
        for found in path.glob(pattern)
        if found.is_file()
    ]
