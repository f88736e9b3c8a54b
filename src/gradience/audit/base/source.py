"""Where the tensors of a base model are, without reading them.

Opening lists names, shapes and types from headers; data is mapped, or fetched by range, when a
tensor is asked for. A model directory is data: its JSON is parsed, no code of it is ever run.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from blake3 import blake3

from gradience.audit.base import local
from gradience.audit.base.packed.format import PackedWeight
from gradience.audit.base.shards import Found, Progress, Shard
from gradience.audit.base.terms import BYTES_STAGE, Terms, hf_download
from gradience.audit.base.unpack import aliases, notes, unpack
from gradience.audit.base.weights import BaseWeight, Part, TensorFacts
from gradience.errors import BaseModelError, TensorFileError
from gradience.paths import exists, nearest
from gradience.tensors.gguf_file import ARCHITECTURE
from gradience.tensors.stored import Array, StoredTensor
from gradience.units import format_size

if TYPE_CHECKING:
    from gradience.tensors.remote.lookahead import LookAhead

KnownBy = Literal["commit", "hash", "version", "sample", "told"]
"""What tells one content of a base from another, the surest first. `commit`: of the Hub, derived
from every byte. `hash`: the name of a blob in the Hub's cache, derived from every byte. `version`:
what a server or store calls this content (a strong ETag, a generation). `sample`: sizes, headers
and blocks at fixed places; an edit of a few numbers between them is not seen. `told`: the base is
not here, and this is the fingerprint that a file of norms gives."""

_AT_ONCE = 8
_LARGEST_NOTE = 1 << 16


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
        model the commit decides, which git derives from the content of every file. At any other
        address it is, of each file, the address, the size, the header and what the server or store
        says of the version (ETag, generation); one that says nothing certain is sampled.
    known_by : KnownBy
        What the fingerprint stands on; the weakest of all files.
    tensors : mapping of str to TensorFacts
        Every tensor, packed ones as what they stand for; those of a pipeline carry their folder's
        name in front.
    tied : bool or None
        `tie_word_embeddings` of its config; None when there is none.
    quantisation : mapping
        `quantization_config` of its config; empty when there is none.
    packed : mapping of str to PackedWeight
        Those of `tensors` that are packed.
    refused : mapping of str to str
        Parameters that are packed and cannot be read, and why.
    aliases : mapping of str to str
        Names in the running model of tensors that have others here (GGUF).
    absent : mapping of str to str
        Tensors of which only the name is known, and the shard that holds them: not in the Hub's
        cache while nothing may be downloaded.
    """

    model: str
    name: str
    revision: str | None
    fingerprint: str
    known_by: KnownBy
    tensors: Mapping[str, TensorFacts]
    tied: bool | None = None
    quantisation: Mapping[str, Any] = field(default_factory=dict)
    packed: Mapping[str, PackedWeight] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    _shards: Mapping[str, Shard] = field(default_factory=dict, repr=False, compare=False)
    _ahead: "LookAhead | None" = field(default=None, repr=False, compare=False)
    _terms: Terms = field(default_factory=Terms, repr=False, compare=False)

    def expect(self, weights: Iterable[BaseWeight]) -> str:
        """Say what will be read, in order: the next is fetched while one is in use.

        Parameters
        ----------
        weights : iterable of BaseWeight
            One that is read twice is listed twice.

        Returns
        -------
        str
            What will come over the network, in a sentence; empty when nothing will.

        Raises
        ------
        DownloadRefusedError
            If that is more than may.
        """
        if self._ahead is None:
            return ""
        stored = [s for weight in weights for part in weight.parts for s in self._stored(part)]
        spans = [self._shards[s.tensor].span(s.tensor, s.index) for s in stored]
        away = [span for span in spans if span is not None]
        nbytes = sum(span.nbytes for span in away)
        here = f" ({len(spans) - len(away)} in the cache)" if len(away) < len(spans) else ""
        what = f"{len(away)} of {len(spans)} tensors of base model {self.model}{here}"
        self._terms.take(nbytes, what)
        self._ahead.expect(away)
        if not away:
            return ""
        sampled = (
            "; its server names no version of it, so it is known by its size, date, header and "
            "blocks of each file"
        )
        return (
            f"reading {format_size(nbytes)}, {what}, over the network; none of it is written"
            f"{sampled if self.known_by == 'sample' else ''}"
        )

    def _stored(self, part: Part) -> Iterator[Part]:
        """The stored tensors that a part is read from: all that a packed one consists of."""
        packed = self.packed.get(part.tensor)
        if packed is None:
            yield part
        else:
            for role, name in packed.members.items():
                alone = role in packed.stacked
                yield Part(tensor=name, index=part.index if alone else None)

    def tensor(self, name: str) -> StoredTensor:
        """One tensor by its stored name; what is not here is fetched when it is read.

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
            raise _of_base(self.model, error) from error

    def not_here(self, shard: str, what: str) -> BaseModelError:
        """The error of a shard that holds something, is not here, and may not be fetched."""
        return BaseModelError(
            f"base model {self.model}: {shard}, which holds {what}, is not in the cache, and "
            "nothing may be downloaded",
            remedy="Go online (unset HF_HUB_OFFLINE), or run: "
            f"{hf_download(self.model, self.revision)}",
        )

    def check_same(self) -> None:
        """Refuse files that were written to since they were opened: the fingerprint is not theirs.

        Raises
        ------
        BaseModelError
            Names the file.
        """
        try:
            for shard in set(self._shards.values()):
                shard.file.check_same()
        except TensorFileError as error:
            raise _of_base(self.model, error) from error

    def opened_files(self) -> tuple[Path, ...]:
        """The files whose weights were read."""
        paths = {shard.file.path for shard in self._shards.values()}
        return tuple(sorted(path for path in paths if path is not None))

    def close(self) -> None:
        """Let go of every file that was opened, and stop what is on its way."""
        if self._ahead is not None:
            self._ahead.close()
        for shard in set(self._shards.values()):
            shard.file.close()

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
    terms: Terms | None = None,
    progress: Progress | None = None,
) -> BaseModel:
    """Open a base model for reading.

    Parameters
    ----------
    base_model_id : str or path
        A directory as transformers or diffusers write it, a safetensors, `.bin` or GGUF file, an
        index file, a Hub id `org/name[@revision]`, or the address of a safetensors file, an index
        or a directory: https or any protocol of fsspec. A path that exists wins.
    allow_download : bool
        False takes only what is on this disk or in the Hub cache; so does HF_HUB_OFFLINE=1.
    terms : Terms, optional
        What may come over the network; without them anything by range, and no file whole.
    progress : callable, optional
        Told (stage, done, total): "headers of ..." and "download ..." in files, `BYTES_STAGE`.

    Raises
    ------
    BaseModelError
        If it is not there, holds no weights, is gated, is not cached while offline, is in a
        format that is not read, or is damaged. Names the model, the path, the reason and the
        remedy.
    DownloadRefusedError
        If a torch checkpoint or a GGUF file would have to be downloaded, and may not.
    MissingExtraError
        If it is a torch checkpoint and torch is not installed, GGUF and gguf is not, or in a
        store whose package is not.
    """
    terms = Terms() if terms is None else terms
    path = Path(base_model_id)
    try:
        if isinstance(base_model_id, os.PathLike) or exists(base_model_id):
            return _opened(local.find(path), terms)
        return _remote(str(base_model_id), allow_download, terms, progress)
    except TensorFileError as error:
        raise _of_base(_named(base_model_id), error) from error


def _named(base_model_id: str | os.PathLike[str]) -> str:
    """The base as errors show it: an address without its secrets."""
    text = str(base_model_id)
    if "://" not in text:
        return text
    from gradience.tensors.remote.session import shown_url  # noqa: PLC0415 - only for an address

    return shown_url(text)


def _of_base(name: str, error: TensorFileError) -> BaseModelError:
    """The error of a file as that of the base, which is named once."""
    said = str(error).removeprefix(f"{name}: ")
    return BaseModelError(f"base model {name}: {said}", remedy=error.remedy)


def _remote(text: str, allow_download: bool, terms: Terms, progress: Progress | None) -> BaseModel:
    """A model that is no path: an address, else a Hub id."""
    # Imported here, as what is below: threads and clients that a local base need not pay.
    from gradience.tensors.remote.lookahead import LookAhead  # noqa: PLC0415

    ahead = LookAhead(partial(progress, BYTES_STAGE) if progress else None)
    if "://" in text:
        found = _at_address(text, allow_download, ahead)
    else:
        found = _on_hub(text, allow_download, ahead, terms, progress)
    return _opened(found, terms, ahead, progress)


def _at_address(text: str, allow_download: bool, ahead: "LookAhead") -> Found:
    from gradience.audit.base import web  # noqa: PLC0415 - only for an address

    if not allow_download:
        raise BaseModelError(
            f"base model {_named(text)} is not on this disk, and nothing may be fetched",
            remedy="Name a local copy.",
        )
    return web.find(text, ahead=ahead)


def _on_hub(
    text: str, allow_download: bool, ahead: "LookAhead", terms: Terms, progress: Progress | None
) -> Found:
    """A Hub model; where there is none, say which path could have been meant."""
    from gradience.audit.base import hub  # noqa: PLC0415 - only for a Hub id

    find = partial(hub.find, text, allow_download=allow_download, ahead=ahead, terms=terms)
    try:
        return find(progress=progress)
    except BaseModelError as error:
        close = nearest(Path(text)) if text else None
        if close is None:
            raise
        raise BaseModelError(
            str(error), remedy=f"Did you mean the path {close}? Else: {error.remedy}"
        ) from error


def _opened(
    found: Found,
    terms: Terms,
    ahead: "LookAhead | None" = None,
    progress: Progress | None = None,
) -> BaseModel:
    """List the tensors of every shard."""
    owners: dict[str, Shard] = {}
    tensors: dict[str, TensorFacts] = {}
    headers = _headers(found, progress) if ahead else map(Shard.facts, found.shards)
    for shard, facts in zip(found.shards, headers, strict=True):
        owners.update(dict.fromkeys(facts, shard))
        tensors.update(facts)
    if not tensors and not found.absent:
        raise BaseModelError(
            f"base model {found.model} holds no tensors",
            remedy="Name the model that was fine-tuned.",
        )
    told_by = _notes(owners, away=ahead is not None)
    unpacked = unpack(tensors, found.quantisation, told_by.__getitem__)
    metadata = {k: v for shard in found.shards for k, v in shard.file.metadata().items()}
    # A commit is derived from the content of every file; without one, the files are looked at.
    told = [f"{shard.name} {found.revision or shard.file.identity()}" for shard in found.shards]
    told += sorted(f"{shard} {found.revision}" for shard in set(found.absent.values()))
    return BaseModel(
        model=found.model,
        name=found.name,
        revision=found.revision,
        fingerprint=f"blake3:{blake3(chr(10).join(sorted(told)).encode()).hexdigest()}",
        known_by="commit" if found.revision else _weakest(found.shards),
        tensors=unpacked.facts,
        # A GGUF file without an output layer is of a tied model (llama.cpp `llama-model.cpp`).
        tied=found.tied if found.tied is not None or not metadata.get(ARCHITECTURE) else True,
        quantisation=found.quantisation,
        packed=unpacked.packed,
        refused=unpacked.refused,
        aliases=aliases(tensors, metadata),
        absent=found.absent,
        _shards=owners,
        _ahead=ahead,
        _terms=terms,
    )


def _weakest(shards: Iterable[Shard]) -> KnownBy:
    """What the least certain file of a model is known by."""
    kinds: list[KnownBy] = [shard.file.known_by() for shard in shards]
    return max(kinds, key=get_args(KnownBy).index)


def _notes(owners: Mapping[str, Shard], *, away: bool) -> dict[str, Array]:
    """The small tensors that say how others are packed; elsewhere asked for a few at a time."""
    names = notes(owners)
    stored = [owners[name].tensor(name) for name in names]
    if not away:
        return dict(zip(names, map(_note, stored), strict=True))
    from gradience.tensors.remote.daemons import in_daemons  # noqa: PLC0415 - only for elsewhere

    asked = in_daemons(_note, stored, at_once=_AT_ONCE)
    return {name: note.result() for name, note in zip(names, asked, strict=True)}


def _note(stored: StoredTensor) -> Array:
    """A small tensor, in memory of its own.

    Raises
    ------
    TensorFileError
        If it is not small: it is read before anybody was asked.
    """
    if stored.nbytes > _LARGEST_NOTE:
        raise TensorFileError(
            f"{stored.name} of {format_size(stored.nbytes)} should say in a few bytes how a weight "
            "is packed",
            remedy="Download the model again, or name another one.",
        )
    try:
        return stored.read().copy()
    finally:
        stored.release()


def _headers(found: Found, progress: Progress | None) -> Iterator[Mapping[str, TensorFacts]]:
    """What each header says, elsewhere asked for a few at a time."""
    from gradience.tensors.remote.daemons import in_daemons  # noqa: PLC0415 - only for elsewhere

    total = len(found.shards)
    for done, facts in enumerate(in_daemons(Shard.facts, found.shards, at_once=_AT_ONCE), start=1):
        yield facts.result()
        if progress:
            progress(f"headers of {found.model}", done, total)
