"""From layers to groups: statistics by module type, by block, and over all. Pure."""

import math
from collections.abc import Callable, Iterable, Sequence

from gradience.audit.metrics import METRICS
from gradience.audit.records import AdapterAudit, Concentration, Group, LayerAudit, Stats

_TYPES = ("attention", "mlp", "embedding", "other")


def stats(values: Sequence[float]) -> Stats:
    """Statistics of at least one number.

    Percentiles interpolate linearly (type 7 of Hyndman and Fan, The American Statistician 50(4),
    1996): one rule everywhere.

    Examples
    --------
    >>> stats([1.0, 2.0, 10.0]).median
    2.0
    """
    ordered = sorted(values)
    return Stats(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        median=percentile(ordered, 50),
        p10=percentile(ordered, 10),
        p90=percentile(ordered, 90),
        max=ordered[-1],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Percentile of ascending numbers, interpolated linearly: numpy's default, without its cost.

    Examples
    --------
    >>> percentile([1.0, 2.0, 10.0], 90)
    8.4
    """
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def stats_of(layers: Iterable[LayerAudit]) -> dict[str, Stats]:
    """Statistics of every metric that was measured on at least one of the layers."""
    layers = tuple(layers)
    columns = {name: [a.metrics[name] for a in layers if name in a.metrics] for name in METRICS}
    return {name: stats(values) for name, values in columns.items() if values}


def energy(layer: LayerAudit) -> float:
    """||dW||_F^2, 0 where it could not be measured."""
    return layer.metrics.get("frobenius_norm", 0.0) ** 2


def by_type(layers: Sequence[LayerAudit]) -> tuple[Group, ...]:
    """Groups by module type, in a fixed order."""
    groups = _grouped(layers, lambda layer: layer.module_type)
    return tuple(sorted(groups, key=lambda g: _TYPES.index(g.name)))


def types_and_all(audit: AdapterAudit) -> tuple[Group, ...]:
    """The groups by type and, where there are several, one of all layers below them."""
    if len(audit.by_type) < 2:
        return audit.by_type
    everything = Group(
        name="all",
        layers=len(audit.layers),
        parameters=audit.parameters,
        energy_share=1.0 if any(g.energy_share for g in audit.by_type) else None,
        stats=audit.overall,
    )
    return (*audit.by_type, everything)


def by_block(layers: Sequence[LayerAudit]) -> tuple[Group, ...]:
    """Groups by block, in the order of the model; layers outside of any block are left out."""
    return _grouped(layers, lambda layer: layer.block)


def _grouped(
    layers: Sequence[LayerAudit], key: Callable[[LayerAudit], str | None]
) -> tuple[Group, ...]:
    total = sum(map(energy, layers))
    members: dict[str, list[LayerAudit]] = {}
    for layer in layers:
        if (name := key(layer)) is not None:
            members.setdefault(name, []).append(layer)
    return tuple(
        Group(
            name=name,
            layers=len(group),
            parameters=sum(layer.parameters for layer in group),
            energy_share=sum(map(energy, group)) / total if total > 0 else None,
            stats=stats_of(group),
        )
        for name, group in members.items()
    )


def concentration(blocks: Sequence[Group]) -> Concentration | None:
    """How the energy is spread over the blocks; None where there is none to spread.

    References
    ----------
    Rhoades, Federal Reserve Bulletin 79, 1993 (the Herfindahl-Hirschman index).
    """
    shares = sorted((b.energy_share for b in blocks if b.energy_share is not None), reverse=True)
    inside = sum(shares)
    if inside == 0.0:
        return None
    shares = [share / inside for share in shares]
    return Concentration(
        blocks=len(shares),
        hhi=sum(share**2 for share in shares),
        top1_share=shares[0],
        top3_share=sum(shares[:3]),
    )
