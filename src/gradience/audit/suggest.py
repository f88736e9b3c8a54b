"""Truncations worth a try, each with the exact error it has on the change. Pure.

Cutting a spectrum after its k-th value leaves sqrt(sum_{i>k} s_i^2), and no matrix of rank k does
better (Eckart & Young, 1936). That is the error of the change, not of the model: the bench tests
the claim.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gradience.audit.metrics.energy_rank import SHARES, smallest_rank
from gradience.audit.records import LayerAudit, Suggestion
from gradience.audit.servers import cleared, server_rank

_UNIFORM = {"uniform_median": 50, "uniform_p90": 90, "uniform_max": 100}


def suggest(layers: Sequence[LayerAudit], other_bytes: int) -> tuple[Suggestion, ...]:
    """Truncations that make at least one module smaller, by energy and rule.

    Parameters
    ----------
    layers : sequence of LayerAudit
        Only those whose change is a product of two factors with a known spectrum can be truncated;
        an adapter with any other, or with a change of zero, gets no suggestion.
    other_bytes : int
        Bytes of the adapter outside of its factors; they count for a server's limit on size.
    """
    if not layers or not all(_truncatable(layer) for layer in layers):
        return ()
    found = []
    for share in SHARES:
        own = {a.name: smallest_rank(np.asarray(a.singular_values), share) for a in layers}
        found.append(_suggestion("per_module", share, own, layers, other_bytes))
        for rule, percentile in _UNIFORM.items():
            rank = max(1, math.ceil(np.percentile(list(own.values()), percentile) - 1e-9))
            ranks = {a.name: min(rank, a.rank) for a in layers}
            found.append(_suggestion(rule, share, ranks, layers, other_bytes))
    before = sum(layer.parameters for layer in layers)
    return tuple(s for s in found if s.parameters < before)


def truncation_error(layer: LayerAudit, rank: int) -> float:
    """||dW - dW_k||_F / ||dW||_F for k = `rank`."""
    s = np.asarray(layer.singular_values)
    return _tail(s, rank) / math.sqrt(_energy(s))


def _truncatable(layer: LayerAudit) -> bool:
    """Two thin factors and a change: LoHa and LoKr have no rank to cut, a zero nothing to keep."""
    return (
        layer.method in ("lora", "adalora")
        and bool(layer.singular_values)
        and layer.singular_values[0] > 0
    )


def _suggestion(
    rule: str,
    share: float,
    ranks: Mapping[str, int],
    layers: Sequence[LayerAudit],
    other_bytes: int,
) -> Suggestion:
    errors = {a.name: truncation_error(a, ranks[a.name]) for a in layers}
    worst = max(errors, key=lambda name: errors[name])
    spectra = [(np.asarray(a.singular_values), ranks[a.name]) for a in layers]
    lost = math.fsum(_tail(s, k) ** 2 for s, k in spectra)
    nbytes = sum(_parameters(a, ranks[a.name]) * a.nbytes // a.parameters for a in layers)
    now = (max(a.rank for a in layers), sum(a.nbytes for a in layers) + other_bytes)
    largest = max(ranks.values())
    return Suggestion(
        action="truncate",
        rule=rule,  # type: ignore[arg-type]
        energy=share,
        rank=largest,
        ranks=dict(ranks) if rule == "per_module" else {},
        relative_error=math.sqrt(lost / math.fsum(_energy(s) for s, _ in spectra)),
        worst_error=errors[worst],
        worst_module=worst,
        parameters=sum(_parameters(a, ranks[a.name]) for a in layers),
        nbytes=nbytes,
        server_rank_before=server_rank(now[0]),
        server_rank=server_rank(largest),
        clears=tuple(cleared(now, (largest, nbytes + other_bytes))),
    )


def _parameters(layer: LayerAudit, rank: int) -> int:
    """Of the layer cut to `rank`: two plain factors, and a bias where it has one.

    A fused layer of groups becomes plain when it is cut, so its parameters do not shrink in
    proportion to the rank.
    """
    plain = sum(layer.shape)
    bias = layer.parameters - layer.rank * plain if layer.method == "lora" else 0
    return rank * plain + max(0, bias)


def _energy(s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return math.fsum(np.square(s))


def _tail(s: np.ndarray[tuple[int], np.dtype[np.float64]], rank: int) -> float:
    return math.sqrt(math.fsum(np.square(s[rank:])))
