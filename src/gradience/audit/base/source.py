"""Where the tensors of a base model are, without reading them.

Opening lists names, shapes and types from headers; data is mapped, or a shard downloaded, when a
tensor is asked for. A model directory is data: its JSON is parsed, no code of it is ever run.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

from gradience.audit.base import hub, local
from gradience.audit.base.shards import Found, Progress, Shard
from gradience.audit.base.weights import TensorFacts
from gradience.errors import BaseModelError, TensorFileError
from gradience.paths import nearest
from gradience.tensors.stored import StoredTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model, open for reading one tensor at a time; a context manager.

    Attributes
    ----------
    model : str
        As given, without its revision.
    name : str
        A short name to file under: the last part of a path.
    revision : str or None
        Commit of a Hub model.
    fingerprint : str
        `blake3:...` of what the files are; another content has another fingerprint. For a Hub
        model the commit decides, which git derives from the content of every file.
    tensors : mapping of str to TensorFacts
        Every tensor; those of a pipeline carry their folder's name in front.
    tied : bool or None
        `tie_word_embeddings` of its config; None when there is none.
    absent : mapping of str to str
        Tensors of which only the name is known, and the shard that holds them: not in the Hub's
        cache while nothing may be downloaded.
    """

    model: str
    name: str
    revision: str | None
    fingerprint: str
    tensors: Mapping[str, TensorFacts]
    tied: bool | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    _shards: Mapping[str, Shard] = field(default_factory=dict, repr=False, compare=False)

    def tensor(self, name: str) -> StoredTensor:
        """One tensor by name; a shard that is not here is downloaded.

        Raises
        ------
        KeyError
            If the base has no such tensor.
        BaseModelError
            If its shard cannot be had, or is damaged.
        """
        try:
            return self._shards[name].tensor(name)
        except TensorFileError as error:
            raise BaseModelError(
                f"base model {self.model}: {error}", remedy=error.remedy
            ) from error

    def opened_files(self) -> tuple[Path, ...]:
        """The files whose weights were read."""
        paths = {shard.path for shard in self._shards.values()}
        return tuple(sorted(path for path in paths if path is not None))

    def close(self) -> None:
        """Unmap every file that was opened."""
        for shard in set(self._shards.values()):
            shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_base(
    base_model_id: str | os.PathLike[str],
    *,
    allow_download: bool = True,
    progress: Progress | None = None,
) -> BaseModel:
    """Open a base model for reading.

    Parameters
    ----------
    base_model_id : str or path
        A directory as transformers or diffusers write it, a safetensors or `.bin` file, an index
        file, or a Hub id `org/name[@revision]`; a path that exists wins over a Hub id.
    allow_download : bool
        False takes only what the Hub cache holds; so does HF_HUB_OFFLINE=1.
    progress : callable, optional
        Told ("download <shard>", done, total) around each download.

    Raises
    ------
    BaseModelError
        If it is not there, holds no weights, is gated, is not cached while offline, is in a
        format whose numbers are not those of the weights (GGUF), or is damaged. Names the model,
        the path, the reason and the remedy.
    MissingExtraError
        If it is a torch checkpoint and torch is not installed.
    """
    path = Path(base_model_id)
    try:
        if isinstance(base_model_id, os.PathLike) or _exists(base_model_id):
            found = local.find(path)
        else:
            found = _on_hub(str(base_model_id), allow_download, progress)
        return _opened(found)
    except TensorFileError as error:
        raise BaseModelError(f"base model {base_model_id}: {error}", remedy=error.remedy) from error


def _on_hub(base_model_id: str, allow_download: bool, progress: Progress | None) -> Found:
    """A Hub model; where there is none, say which path could have been meant."""
    try:
        return hub.find(base_model_id, allow_download=allow_download, progress=progress)
    except BaseModelError as error:
        close = nearest(Path(base_model_id)) if base_model_id else None
        if close is None:
            raise
        raise BaseModelError(
            str(error), remedy=f"Did you mean the path {close}? Else: {error.remedy}"
        ) from error


def _exists(text: str) -> bool:
    """Whether a text names something on this disk; an empty one does not name this directory."""
    try:
        return text != "" and Path(text).exists()
    except OSError:
        return False


def _opened(found: Found) -> BaseModel:
    """List the tensors of every shard."""
    owners: dict[str, Shard] = {}
    tensors: dict[str, TensorFacts] = {}
    for shard in found.shards:
        facts = shard.facts()
        owners.update(dict.fromkeys(facts, shard))
        tensors.update(facts)
    if not tensors and not found.absent:
        raise BaseModelError(
            f"base model {found.model} holds no tensors",
            remedy="Name the model that was fine-tuned.",
        )
    # A commit is derived from the content of every file; without one, the files are looked at.
    told = [f"{shard.name} {found.revision or shard.identity()}" for shard in found.shards]
    told += sorted(f"{shard} {found.revision}" for shard in set(found.absent.values()))
    return BaseModel(
        model=found.model,
        name=found.name,
        revision=found.revision,
        fingerprint=f"blake3:{blake3(chr(10).join(sorted(told)).encode()).hexdigest()}",
        tensors=tensors,
        tied=found.tied,
        absent=found.absent,
        _shards=owners,
    )
