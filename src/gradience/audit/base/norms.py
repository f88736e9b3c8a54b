"""The norms of the base weights of an adapter: matched, recalled or measured, and remembered."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from gradience.adapter.records import LoraLayer
from gradience.audit.base import cache
from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.devices import ON_CPU, DeviceChoice
from gradience.audit.base.finding_kinds import (
    BASE_MODEL_MISMATCH,
    BASE_NORMS_UNCHECKED,
    BASE_NORMS_WIDE,
    BASE_WEIGHTS_MISSING,
    BASE_WEIGHTS_QUANTISED,
    BASE_WEIGHTS_UNMEASURABLE,
)
from gradience.audit.base.match import ending, match
from gradience.audit.base.measured import measure
from gradience.audit.base.norms_file import is_of
from gradience.audit.base.norms_only import GivenNorms, NormsOnly
from gradience.audit.base.rows import StoredRows, TransposedRows, rows
from gradience.audit.base.source import BaseModel, KnownBy
from gradience.audit.base.spectral_norm import DEFAULT_GOAL, Goal
from gradience.audit.base.unpack import stands_for
from gradience.audit.base.weights import BaseWeight, Matches
from gradience.errors import BaseModelError
from gradience.findings import Finding

Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseNorms:
    """The base side of an audit.

    Attributes
    ----------
    by_layer : mapping of str to BaseNorm
        By label of the layer.
    unmatched : mapping of str to str
        Every other layer, with the reason in a sentence.
    weights : mapping of str to BaseWeight
        Where in the base the weight of each matched layer is.
    model, revision, fingerprint, known_by
        Of the base model.
    findings : tuple of Finding
    bytes_read : int
        Stored bytes of the weights that had to be measured; 0 when all were remembered.
    base : BaseModel
        For `rows`; usable until it is closed.
    """

    by_layer: Mapping[str, BaseNorm]
    unmatched: Mapping[str, str]
    weights: Mapping[str, BaseWeight]
    model: str
    revision: str | None
    fingerprint: str
    known_by: KnownBy
    findings: tuple[Finding, ...]
    bytes_read: int
    base: BaseModel = field(repr=False, compare=False)

    @property
    def has_weights(self) -> bool:
        """Whether `rows` can be asked: not where only norms of the base are here."""
        return not isinstance(self.base, NormsOnly)

    def rows(self, label: str) -> StoredRows | TransposedRows:
        """The base weight of a matched layer, as (out, in), streamed by rows.

        Raises
        ------
        KeyError
            If the layer has no base weight.
        BaseModelError
            If its shard cannot be had.
        """
        return rows(self.base, self.weights[label])


@dataclass(frozen=True, slots=True)
class Settings:
    """How norms come about.

    Attributes
    ----------
    cache_dir : Path
        Directory where they are remembered; made when missing.
    now : datetime
        Aware; written into the file.
    goal : Goal
        How finely to measure, and how surely.
    devices : DeviceChoice
        Where.
    given : GivenNorms, optional
        Norms of this base from elsewhere, used before any is measured.
    progress : callable, optional
        Told ("base norms", done, total).
    notice : callable, optional
        Told in a sentence what comes over the network.
    """

    cache_dir: Path
    now: datetime
    goal: Goal = DEFAULT_GOAL
    devices: DeviceChoice = ON_CPU
    given: GivenNorms | None = None
    progress: Progress | None = None
    notice: Notice | None = None


def base_norms(
    layers: Sequence[LoraLayer],
    base: BaseModel,
    settings: Settings,
    *,
    layer_replication: object = None,
) -> BaseNorms:
    """Norms of the base weight of every layer.

    Parameters
    ----------
    layers : sequence of LoraLayer
        Of one adapter: they are matched together.
    base : BaseModel
        From `open_base`.
    settings : Settings
    layer_replication : list of [start, end], optional
        As adapter_config.json says it; see `replication`.

    Raises
    ------
    BaseModelError, TransferError
        If a shard cannot be had; what was measured before is remembered. That the base does not
        fit, or that the cache cannot be written, is in `findings`.
    DownloadRefusedError
        If more would come over the network than may.
    AdapterConfigError
        If `layer_replication` is not a list of pairs.
    """
    matches = match(
        layers,
        base.tensors,
        tied=base.tied,
        layer_replication=layer_replication,
        refused=base.refused,
        aliases=base.aliases,
    )
    _check_complete(layers, base, matches)
    wanted = {weight.key: weight for weight in matches.found.values()}
    known = recalled_or_measured(wanted, base, settings, again=_read_again(layers, matches))
    by_layer = {
        label: known.norms[w.key] for label, w in matches.found.items() if w.key in known.norms
    }
    without = {
        label: known.reasons[w.key]
        for label, w in matches.found.items()
        if w.key not in known.norms
    }
    unmatched = {label: why.message for label, why in matches.unmatched.items()} | without
    return BaseNorms(
        by_layer=by_layer,
        unmatched=unmatched,
        weights=matches.found,
        model=base.model,
        revision=base.revision,
        fingerprint=base.fingerprint,
        known_by=base.known_by,
        findings=(
            *_findings(matches, without),
            *_unchecked(by_layer, base),
            *_wide(by_layer, settings.goal.width),
            *known.findings,
        ),
        bytes_read=known.nbytes,
        base=base,
    )


def _check_complete(layers: Sequence[LoraLayer], base: BaseModel, matches: Matches) -> None:
    """Refuse to call a weight missing that is in a shard which could not be looked at."""
    if not base.absent:
        return
    absent = {ending(stands_for(name)): base.absent[name] for name in base.absent}
    for layer in layers:
        why = matches.unmatched.get(layer.label)
        shard = absent.get(ending(f"{layer.name}.{layer.parameter}"))
        if shard and why and why.reason in ("no_tensor", "not_this_base"):
            raise BaseModelError(
                f"base model {base.model}: {shard}, which holds the weight of {layer.label}, is "
                "not in the cache, and nothing may be downloaded",
                remedy=f"Go online (unset HF_HUB_OFFLINE), or run: hf download {base.model}",
            )


@dataclass(frozen=True, slots=True)
class Known:
    """Norms and reasons by key of the weight, and how they came about."""

    norms: dict[str, BaseNorm]
    reasons: dict[str, str]
    findings: tuple[Finding, ...]
    nbytes: int


def recalled_or_measured(
    wanted: Mapping[str, BaseWeight],
    base: BaseModel,
    settings: Settings,
    *,
    again: Sequence[BaseWeight] = (),
) -> Known:
    """Recall what can be believed, measure the rest, remember it step by step.

    Parameters
    ----------
    wanted : mapping of str to BaseWeight
        By key.
    base : BaseModel
    settings : Settings
    again : sequence of BaseWeight
        Those that are read once more afterwards, by whoever asks.

    Raises
    ------
    DownloadRefusedError
        If more would come over the network than may.
    """
    identity = identity_of(base)
    path = cache.entry_path(settings.cache_dir, identity)
    recalled = _with_given(cache.recall(path, identity, wanted.values()), wanted, settings.given)
    goal = settings.goal
    todo = [w for w in wanted.values() if not recalled.serves(w, width=goal.width, eta=goal.eta)]
    norms, reasons = dict(recalled.norms), dict(recalled.reasons)
    if isinstance(base, NormsOnly):
        missing = {w.key: f"{base.source} has no norm of {w.key}" for w in todo}
        return Known(norms, missing | reasons, (), 0)
    total = sum(map(_numbers, todo))
    device = settings.devices.device(total)
    todo = device.order(todo)
    expected = base.expect([*todo, *again])
    if expected and settings.notice:
        settings.notice(expected)
    # The file is written as a whole each time: some hundred times, however large the base. What
    # came over a network may have taken minutes: a stop loses a thousandth of the work.
    least = total // 1000 if expected else max(device.step_numbers, total // 200)
    refused: Finding | None = None
    done = nbytes = 0
    for step in _steps(todo, least, even_if_empty=bool(recalled.doubts)):

        def tell(count: int, before: int = done) -> None:
            if settings.progress:
                settings.progress("base norms", before + count, len(todo))

        measured = measure(base, step, goal=goal, device=device, done=tell)
        base.check_same()
        done += len(step)
        nbytes += measured.nbytes
        norms |= measured.norms
        reasons |= measured.reasons
        refused = refused or cache.remember(
            path,
            identity,
            measured.norms,
            measured.reasons,
            forget=recalled.distrusted,
            now=settings.now,
        )
    doubts = (cache.corrupt(path, recalled.doubts),) if recalled.doubts else ()
    return Known(norms, reasons, (*doubts, *((refused,) if refused else ())), nbytes)


def _read_again(layers: Sequence[LoraLayer], matches: Matches) -> list[BaseWeight]:
    """The weights that are read for more than their norm: DoRA's change is made of them."""
    return [
        matches.found[layer.label]
        for layer in layers
        if layer.magnitude is not None and layer.label in matches.found
    ]


def _with_given(
    recalled: cache.Recalled, wanted: Mapping[str, BaseWeight], given: GivenNorms | None
) -> cache.Recalled:
    """What is remembered, and the norms that were brought along where they are better."""
    if given is None:
        return recalled
    fitting = {
        key: norm for key, norm in given.norms.items() if key in wanted and is_of(norm, wanted[key])
    }
    return replace(
        recalled,
        norms={**recalled.norms, **cache.better(fitting, recalled.norms)},
        reasons={**given.content.unmeasurable, **recalled.reasons},
    )


def identity_of(base: BaseModel) -> cache.Identity:
    """Under what the norms of a base model are kept."""
    return cache.Identity(
        model=base.name,
        revision=base.revision,
        fingerprint=base.fingerprint,
        tensors=base.tensors,
        tied=base.tied,
        refused=base.refused,
        aliases=base.aliases,
    )


def _numbers(weight: BaseWeight) -> int:
    return weight.stored_shape[0] * weight.stored_shape[1]


def _steps(
    todo: Iterable[BaseWeight], least: int, *, even_if_empty: bool
) -> Iterator[list[BaseWeight]]:
    """The weights in portions of at least so many numbers, each remembered once it is measured."""
    step: list[BaseWeight] = []
    numbers = 0
    for weight in todo:
        step.append(weight)
        numbers += _numbers(weight)
        if numbers >= least:
            yield step
            step, numbers, even_if_empty = [], 0, False
    if step or even_if_empty:
        yield step


def _findings(matches: Matches, without: Mapping[str, str]) -> list[Finding]:
    """What matching and measuring brought up."""
    if matches.verdict:
        return [BASE_MODEL_MISMATCH.found(matches.verdict)]
    found: list[Finding] = []
    packed = {k: u for k, u in matches.unmatched.items() if u.reason == "quantised"}
    missing = {k: u for k, u in matches.unmatched.items() if u.reason != "quantised"}
    for kind, group in (
        (BASE_WEIGHTS_QUANTISED, {label: u.message for label, u in packed.items()}),
        (BASE_WEIGHTS_MISSING, {label: u.message for label, u in missing.items()}),
        (BASE_WEIGHTS_UNMEASURABLE, dict(without)),
    ):
        if group:
            first = next(iter(group.values()))
            more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
            found.append(kind.found(f"{first}{more}", modules=group))
    return found


def _unchecked(by_layer: Mapping[str, BaseNorm], base: BaseModel) -> Iterator[Finding]:
    """Norms that a file told and nobody checked."""
    told = {label: norm.told_by for label, norm in by_layer.items() if norm.told_by}
    if not told:
        return
    sources = dict.fromkeys(told.values())
    source = base.source if isinstance(base, NormsOnly) else next(iter(sources))
    model = "MODEL" if isinstance(base, NormsOnly) else base.model
    yield BASE_NORMS_UNCHECKED.found(
        f"the base norms of {len(told)} of {len(by_layer)} modules stand on the word of "
        f"{', '.join(sources)}: nobody held them against the weights",
        modules=told if len(told) < len(by_layer) else (),
        remedy="Check a sample once, where the model can be read: "
        f"gradience norms import {source} --base-model {model}",
    )


def _wide(by_layer: Mapping[str, BaseNorm], asked: float) -> Iterator[Finding]:
    """Norms that are known too roughly for what was asked."""
    wide = {label: n.reached for label, n in by_layer.items() if n.is_much_wider(asked)}
    if wide:
        worst = max(wide, key=wide.__getitem__)
        yield BASE_NORMS_WIDE.found(
            f"the base norms of {len(wide)} modules are known less closely than the {asked:g} that "
            f"was asked for; that of {worst} lies between {by_layer[worst].lower:.3g} and "
            f"{by_layer[worst].upper:.3g}",
            modules=wide,
        )
