"""Did it learn anything, and is it whole? Findings from the measured layers. Pure."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from gradience.audit.aggregate import percentile
from gradience.audit.base.finding_kinds import MERGE_ROUNDED_AWAY
from gradience.audit.finding_kinds import (
    DEAD_MODULES,
    EMBEDDING_DOMINATES,
    HEAD_DOMINATES,
    LARGE_CHANGE,
    MISSING_LAYERS,
    OUTLIER_MODULES,
    OVERWHELMING_CHANGE,
    UNTOUCHED,
    ZERO_FILLED,
)
from gradience.audit.records import ByteUse, LayerAudit, Verdict
from gradience.findings import Finding

# A module is an outlier ten times from the median of its type, and five robust deviations: the
# first alone would flag wide but regular spreads, the second alone tight ones.
_OUTLIER_DECADES = 1.0
_OUTLIER_DEVIATIONS = 5.0
_OUTLIER_MEMBERS = 8
_MAD_TO_SIGMA = 1.4826  # of a normal distribution

# Blocks that carry a module, as a share of all, above which its absence elsewhere is news.
_REGULAR = 0.75
# Gaps are news in a stack of at least so many blocks, of which at least one in so many is there.
_FEWEST_BLOCKS = 3
_SPARSEST = 32


def verdict(findings: Sequence[Finding]) -> Verdict:
    """broken for an error, look for a warning, else healthy."""
    gravest = max((f.severity.weight for f in findings), default=0)
    return ("healthy", "look", "broken")[gravest]


def health(
    layers: Sequence[LayerAudit],
    byte_use: ByteUse,
    *,
    zero_factors: Sequence[str],
    chosen_blocks: bool,
    base_moved: bool = False,
) -> Iterator[Finding]:
    """Findings about what was learned and what is missing.

    Parameters
    ----------
    layers : sequence of LayerAudit
    byte_use : ByteUse
    zero_factors : sequence of str
        Layers whose two factors are both all zeros.
    chosen_blocks : bool
        The config names blocks to adapt or patterns: gaps between blocks are meant.
    base_moved : bool
        The initialisation moved part of the base into the factors, so that their size says nothing.
    """
    yield from zeros(layers, zero_factors)
    yield from _outliers(layers)
    yield from _missing(layers, chosen_blocks=chosen_blocks)
    if not base_moved:
        yield from _large(layers)
    yield from _rounded_away(layers)
    yield from _bytes(byte_use)


def zeros(layers: Sequence[LayerAudit], zero_factors: Sequence[str]) -> Iterator[Finding]:
    """Findings about modules whose change is exactly zero; `zero_factors` as in `health`."""
    zero = [a.name for a in layers if a.metrics.get("spectral_norm") == 0.0]
    if zero_factors:
        yield ZERO_FILLED.found(
            f"{len(zero_factors)} of {len(layers)} modules hold only zeros, in both factors: "
            f"{_names(zero_factors)}",
            modules=zero_factors,
        )
    dead = [name for name in zero if name not in set(zero_factors)]
    if dead and len(zero) == len(layers):
        yield UNTOUCHED.found(f"all {len(layers)} modules have a change of exactly zero")
    elif dead:
        yield DEAD_MODULES.found(
            f"{len(dead)} of {len(layers)} modules have a change of exactly zero: {_names(dead)}",
            modules=dead,
        )


def _outliers(layers: Sequence[LayerAudit]) -> Iterator[Finding]:
    for module_type in sorted({a.module_type for a in layers}):
        norms = {
            a.name: math.log10(a.metrics["spectral_norm"])
            for a in layers
            if a.module_type == module_type and a.metrics.get("spectral_norm", 0.0) > 0.0
        }
        if len(norms) < _OUTLIER_MEMBERS:
            continue
        median = percentile(sorted(norms.values()), 50)
        deviations = sorted(abs(v - median) for v in norms.values())
        sigma = _MAD_TO_SIGMA * percentile(deviations, 50)
        limit = max(_OUTLIER_DECADES, _OUTLIER_DEVIATIONS * sigma)
        far = {name: v - median for name, v in norms.items() if abs(v - median) > limit}
        if far:
            worst = max(far, key=lambda name: abs(far[name]))
            yield OUTLIER_MODULES.found(
                f"{len(far)} of {len(norms)} {module_type} modules are far from the median change; "
                f"{worst} is {10 ** far[worst]:.3g} times it",
                modules=far,
            )


def _missing(layers: Sequence[LayerAudit], *, chosen_blocks: bool) -> Iterator[Finding]:
    for stack, blocks in _stacks(layers).items():
        absent = [] if chosen_blocks else [f"{stack}.{index}" for index in _gaps(blocks)]
        for part in sorted({part for parts in blocks.values() for part in parts}):
            without = [index for index, parts in sorted(blocks.items()) if part not in parts]
            if without and 1 - len(without) / len(blocks) >= _REGULAR:
                absent += [f"{stack}.{index}.{part}" for index in without]
        if absent:
            yield MISSING_LAYERS.found(
                f"{stack} has no weights for {_names(absent)}, where its other blocks have them",
                modules=absent,
            )


def _gaps(blocks: Collection[int]) -> list[int]:
    """Numbers below the highest that no block has, where most likely every block has one."""
    last = max(blocks)
    if len(blocks) < _FEWEST_BLOCKS or last >= _SPARSEST * len(blocks):
        return []
    return sorted(set(range(last)) - set(blocks))


def _stacks(layers: Sequence[LayerAudit]) -> Mapping[str, dict[int, set[str]]]:
    """Stack of blocks to block number to the modules below it."""
    stacks: dict[str, dict[int, set[str]]] = {}
    for layer in layers:
        if layer.block is None:
            continue
        stack, _, index = layer.block.replace("_", ".").rpartition(".")
        part = layer.name[len(layer.block) + 1 :]
        stacks.setdefault(stack, {}).setdefault(int(index), set()).add(part)
    return stacks


def _large(layers: Sequence[LayerAudit]) -> Iterator[Finding]:
    ratios = {a.name: a.metrics["udr"] for a in layers if "udr" in a.metrics}
    for limit, found in ((10, OVERWHELMING_CHANGE), (1, LARGE_CHANGE)):
        large = {name: ratio for name, ratio in ratios.items() if ratio > limit}
        if large:
            worst = max(large, key=lambda name: large[name])
            yield found.found(
                f"UDR > {limit} in {len(large)} of {len(layers)} modules; {worst} has "
                f"{large[worst]:.3g}",
                modules=large,
            )
            return


def _rounded_away(layers: Sequence[LayerAudit]) -> Iterator[Finding]:
    """Where packing the merged weight again errs by more than the change."""
    ratios = {a.name: a.metrics["merge_rounding"] for a in layers if "merge_rounding" in a.metrics}
    lost = {name: ratio for name, ratio in ratios.items() if ratio > 1}
    if lost:
        worst = max(lost, key=lambda name: lost[name])
        yield MERGE_ROUNDED_AWAY.found(
            f"merged into the packed base, {len(lost)} of {len(layers)} modules are rounded by "
            f"more than they changed; {worst} by {lost[worst]:.3g} times its change",
            modules=lost,
        )


def _bytes(use: ByteUse) -> Iterator[Finding]:
    for kind, found in (("head", HEAD_DOMINATES), ("embedding", EMBEDDING_DOMINATES)):
        share = use.by_kind.get(kind, 0) / use.tensors if use.tensors else 0.0
        if share > 0.5:
            yield found.found(f"{share:.0%} of the bytes are of kind {kind}")


def _names(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
