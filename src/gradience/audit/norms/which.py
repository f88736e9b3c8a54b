"""Which of the known base models was an adapter trained on? Names and shapes decide, or say so."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from blake3 import blake3

from gradience.adapter.records import Adapter
from gradience.audit.base.match import match
from gradience.audit.base.norms_file import NormsFile
from gradience.audit.base.norms_only import tensors_of
from gradience.audit.base.source import open_base
from gradience.audit.base.terms import Terms
from gradience.audit.base.weights import Matches, TensorFacts
from gradience.audit.norms import library
from gradience.audit.norms.records import BaseMatch, Candidate, Unreadable
from gradience.errors import (
    BaseModelError,
    GradienceError,
    MissingExtraError,
    TensorFileError,
    UnreadableError,
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBase:
    """A base model of which names and shapes are known."""

    model: str
    revision: str | None
    fingerprint: str
    tensors: Mapping[str, TensorFacts]
    tied: bool | None
    known_from: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)


def rank(adapter: Adapter, known: Iterable[KnownBase | Unreadable]) -> BaseMatch:
    """The known base models, the likeliest first.

    Parameters
    ----------
    adapter : Adapter
    known : iterable of KnownBase or Unreadable
        One base may come from several places: it is one when its fingerprint is one.
    """
    unreadable: list[Unreadable] = []
    candidates: dict[str, Candidate] = {}
    for base in known:
        if isinstance(base, Unreadable):
            unreadable.append(base)
            continue
        seen = candidates.get(base.fingerprint)
        found = _candidate(adapter, base)
        if seen is not None:
            places = dict.fromkeys((*seen.known_from, *found.known_from))
            found = _with_places(
                max(seen, found, key=lambda c: (c.fits, c.recorded)), tuple(places)
            )
        candidates[base.fingerprint] = found
    order = sorted(
        candidates.values(),
        key=lambda c: (bool(c.why_not), -c.fits, -c.coverage, not c.recorded, c.model),
    )
    alike = _alike(order, len(adapter.layers))
    return BaseMatch(
        adapter=adapter.source,
        modules=len(adapter.layers),
        recorded_base=adapter.base_model,
        recorded_revision=adapter.base_revision,
        outcome="none" if not alike else "one" if alike == 1 else "several",
        alike=alike,
        candidates=tuple(order),
        unreadable=tuple(unreadable),
    )


def in_norms_cache(directory: Path) -> Iterator[KnownBase | Unreadable]:
    """The base models whose norms are kept."""
    listed = library.listing(directory)
    yield from listed.unreadable
    for entry in listed.entries:
        try:
            content = library.read(directory / entry.file)
        except UnreadableError as error:
            yield Unreadable(name=entry.file, message=str(error))
        else:
            yield in_norms(content, known_from="norms cache")


def in_norms(content: NormsFile, *, known_from: str) -> KnownBase:
    """The base model of a file of norms."""
    return KnownBase(
        model=content.model,
        revision=content.revision,
        fingerprint=content.fingerprint,
        tensors=tensors_of(content),
        tied=content.tied,
        aliases=content.aliases,
        known_from=(known_from,),
    )


def in_hub_cache(
    directory: Path, progress: Progress | None = None
) -> Iterator[KnownBase | Unreadable]:
    """Every revision of every model in a Hub cache that holds weights; headers are read alone.

    What is there and is no base (an adapter, a tokenizer, GGUF) is passed over in silence.
    """
    snapshots = sorted(directory.glob("models--*/snapshots/*"))
    for count, snapshot in enumerate(snapshots, start=1):
        repo = snapshot.parents[1].name.removeprefix("models--").replace("--", "/", 1)
        found = _in_cache(f"{repo}@{snapshot.name}")
        if found is not None:
            yield found
        if progress:
            progress("models in the Hub cache", count, len(snapshots))


def _in_cache(model: str) -> KnownBase | Unreadable | None:
    try:
        return opened(model, known_from="Hub cache", allow_download=False)
    except MissingExtraError as error:
        return Unreadable(name=model, message=str(error))
    except (BaseModelError, TensorFileError):
        return None


def opened(
    model: str, *, known_from: str, allow_download: bool = True, terms: Terms | None = None
) -> KnownBase:
    """A base model as `open_base` takes it; its headers are read alone.

    Raises
    ------
    BaseModelError
        If it cannot be opened.
    """
    with open_base(model, allow_download=allow_download, terms=terms) as base:
        return KnownBase(
            model=base.name if base.revision else base.model,
            revision=base.revision,
            fingerprint=base.fingerprint,
            tensors=base.tensors,
            tied=base.tied,
            aliases=base.aliases,
            known_from=(known_from,),
        )


def _candidate(adapter: Adapter, base: KnownBase) -> Candidate:
    try:
        found = match(
            adapter.layers,
            base.tensors,
            tied=base.tied,
            layer_replication=adapter.config.get("layer_replication"),
            aliases=base.aliases,
        )
    except GradienceError as error:
        found = Matches(verdict=str(error))
    packed = sum(why.reason == "quantised" for why in found.unmatched.values())
    why_not = found.verdict
    if not why_not and len(found.found) + packed < len(adapter.layers):
        why_not = next(why.message for why in found.unmatched.values() if why.reason != "quantised")
    return Candidate(
        model=base.model,
        revision=base.revision,
        fingerprint=base.fingerprint,
        known_from=base.known_from,
        fits=len(found.found) + packed,
        coverage=_coverage(found, base.tensors),
        signature=_signature(found),
        recorded=bool(adapter.base_model)
        and base.model.casefold() == str(adapter.base_model).casefold()
        and (not adapter.base_revision or adapter.base_revision == base.revision),
        why_not=why_not,
    )


def _coverage(found: Matches, tensors: Mapping[str, TensorFacts]) -> float:
    """Share of the weights of the adapted kinds that are adapted.

    An adapter on the first 32 of 40 blocks fits a model of 40; one of 32 is likelier.
    """
    adapted = {part.tensor for weight in found.found.values() for part in weight.parts}
    kinds = {_kind(name) for name in adapted}
    alike = [name for name, f in tensors.items() if len(f.shape) > 1 and _kind(name) in kinds]
    return len(adapted) / len(alike) if alike else 0.0


def _kind(name: str) -> str:
    """A tensor's name without the numbers of its block."""
    return ".".join(word for word in name.split(".") if not word.isdigit())


def _signature(found: Matches) -> str:
    """Digest of what the adapter changes: names and shapes, in order."""
    told = sorted({f"{w.key} {w.stored_shape}" for w in found.found.values()})
    return f"blake3:{blake3(chr(10).join(told).encode()).hexdigest()}" if told else ""


def _with_places(candidate: Candidate, places: tuple[str, ...]) -> Candidate:
    return msgspec.structs.replace(candidate, known_from=places)


def _alike(order: list[Candidate], modules: int) -> int:
    """How many of the first candidates names and shapes cannot tell apart; 0 if none fits."""
    if not order or order[0].why_not or order[0].fits < modules:
        return 0
    first = order[0]
    return sum(
        not c.why_not and (c.fits, round(c.coverage, 6)) == (first.fits, round(first.coverage, 6))
        for c in order
    )
