"""The norms of the base weights of an adapter: matched, recalled or measured, and remembered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gradience.adapter.records import LoraLayer
from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.finding_kinds import (
    BASE_MODEL_MISMATCH,
    BASE_NORMS_MISSING,
    BASE_NORMS_UNCHECKED,
    BASE_NORMS_WIDE,
    BASE_WEIGHTS_MISSING,
    BASE_WEIGHTS_QUANTISED,
    BASE_WEIGHTS_UNMEASURABLE,
)
from gradience.audit.base.known import Known, Settings, recalled_or_measured
from gradience.audit.base.match import ending, match
from gradience.audit.base.norms_file import in_full, named
from gradience.audit.base.norms_only import NormsOnly
from gradience.audit.base.rows import StoredRows, TransposedRows, rows
from gradience.audit.base.source import BaseModel, KnownBy
from gradience.audit.base.unpack import stands_for
from gradience.audit.base.weights import BaseWeight, Matches
from gradience.findings import Finding, FindingKind


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
    return _by_layer(matches, known, base, settings)


def _by_layer(matches: Matches, known: Known, base: BaseModel, settings: Settings) -> BaseNorms:
    """What is known of weights, as what is known of layers."""
    norms: dict[str, BaseNorm] = {}
    without: dict[str, str] = {}
    for label, weight in matches.found.items():
        if weight.key in known.norms:
            norms[label] = known.norms[weight.key]
        else:
            without[label] = known.reasons[weight.key]
    lacking = {k: why for k, why in without.items() if matches.found[k].key in known.not_told}
    damaged = {k: why for k, why in without.items() if k not in lacking}
    return BaseNorms(
        by_layer=norms,
        unmatched={label: why.message for label, why in matches.unmatched.items()} | without,
        weights=matches.found,
        model=base.model,
        revision=base.revision,
        fingerprint=base.fingerprint,
        known_by=base.known_by,
        findings=(
            *_unmatched(matches),
            *_grouped(BASE_NORMS_MISSING, lacking),
            *_grouped(BASE_WEIGHTS_UNMEASURABLE, damaged),
            *_unchecked(norms, base, settings),
            *_wide(norms, settings.goal.width),
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
            raise base.not_here(shard, f"the weight of {layer.label}")


def _read_again(layers: Sequence[LoraLayer], matches: Matches) -> list[BaseWeight]:
    """The weights that are read for more than their norm: DoRA's change is made of them."""
    return [
        matches.found[layer.label]
        for layer in layers
        if layer.magnitude is not None and layer.label in matches.found
    ]


def _unmatched(matches: Matches) -> Iterator[Finding]:
    """What matching brought up."""
    if matches.verdict:
        yield BASE_MODEL_MISMATCH.found(matches.verdict)
        return
    packed = {k: u.message for k, u in matches.unmatched.items() if u.reason == "quantised"}
    missing = {k: u.message for k, u in matches.unmatched.items() if u.reason != "quantised"}
    yield from _grouped(BASE_WEIGHTS_QUANTISED, packed)
    yield from _grouped(BASE_WEIGHTS_MISSING, missing)


def _grouped(kind: FindingKind, group: Mapping[str, str]) -> Iterator[Finding]:
    """One finding for all layers that it concerns; nothing where it concerns none."""
    if group:
        first = next(iter(group.values()))
        more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
        yield kind.found(f"{first}{more}", modules=group)


def _unchecked(
    by_layer: Mapping[str, BaseNorm], base: BaseModel, settings: Settings
) -> Iterator[Finding]:
    """Norms that a file told and nobody checked."""
    told = {label: norm.told_by for label, norm in by_layer.items() if norm.told_by}
    if not told:
        return
    sources = dict.fromkeys(told.values())
    # What is in the cache is named by its model: the file it came from may be gone.
    source = settings.given.source if settings.given else named(base.name, base.revision)
    model = "MODEL" if isinstance(base, NormsOnly) else in_full(base.model, base.revision)
    checked = len(by_layer) - len(told)
    word = f"on the word of {', '.join(sources)}"
    command = f"gradience norms import {source} --base-model {model}"
    yield BASE_NORMS_UNCHECKED.found(
        f"{checked} of {len(by_layer)} base norms were measured or checked against the weights; "
        f"the other {len(told)} stand {word}"
        if checked
        else f"the base norms of {len(told)} modules stand {word}: nobody held them against the "
        "weights",
        modules=told if checked else (),
        remedy=f"Check the others, where the model can be read: {command} --all"
        if checked
        else f"Check a sample once (or all: --all), where the model can be read: {command}",
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
