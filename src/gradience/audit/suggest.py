"""Truncations worth a try, each with the exact error it has on the change. Pure.

Cutting a spectrum after its k-th value leaves sqrt(sum_{i>k} s_i^2), and no matrix of rank k does
better (Eckart & Young, 1936). That is the error of the change, not of the model: the bench tests
the claim.
"""

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from gradience.audit.aggregate import percentile
from gradience.audit.metrics.energy_rank import SHARES, smallest_rank
from gradience.audit.records import LayerAudit, Suggestion, TruncationRule
from gradience.audit.servers import cleared, server_rank

_UNIFORM: dict[TruncationRule, int] = {
    "uniform_median": 50,
    "uniform_p90": 90,
    "uniform_max": 100,
}
RULES: tuple[TruncationRule, ...] = ("per_module", *_UNIFORM)


class _Spectrum(msgspec.Struct, frozen=True, kw_only=True):
    """One layer's spectrum as truncation needs it.

    Attributes
    ----------
    tails : (k + 1,) float64
        Squared norm that is left after keeping i values; the first is the whole.
    """

    layer: LayerAudit
    values: NDArray[np.float64]
    tails: NDArray[np.float64]

    def error(self, rank: int) -> float:
        """||dW - dW_k||_F / ||dW||_F; 0 for a change of zero."""
        return math.sqrt(self.tails[rank] / self.tails[0]) if self.tails[0] > 0 else 0.0

    def parameters(self, rank: int) -> int:
        """Of the layer cut to `rank`: two plain factors, and a bias where it has one.

        A fused layer of groups becomes plain when it is cut, so its parameters do not shrink in
        proportion to the rank.
        """
        plain = sum(self.layer.shape)
        lora = self.layer.method == "lora"
        bias = self.layer.parameters - self.layer.rank * plain if lora else 0
        return rank * plain + max(0, bias)


def suggest(layers: Sequence[LayerAudit], other_bytes: int) -> tuple[Suggestion, ...]:
    """Truncations that make at least one module smaller, by energy and rule.

    Parameters
    ----------
    layers : sequence of LayerAudit
        An adapter with a layer that is no product of two thin factors (LoHa, LoKr, DoRA), or has
        no known spectrum, or with a change of zero throughout, gets no suggestion.
    other_bytes : int
        Bytes of the adapter outside of its factors; they count for a server's limit on size.
    """
    spectra = [_spectrum(layer) for layer in layers if _truncatable(layer)]
    if len(spectra) < len(layers) or not any(s.tails[0] > 0 for s in spectra):
        return ()
    before = sum(layer.parameters for layer in layers)
    return tuple(
        suggestion
        for share in SHARES
        for suggestion in _at_share(share, spectra, other_bytes)
        if suggestion.parameters < before
    )


def truncation_error(layer: LayerAudit, rank: int) -> float:
    """||dW - dW_k||_F / ||dW||_F for k = `rank`; 0 for a change of zero."""
    return _spectrum(layer).error(rank)


def _truncatable(layer: LayerAudit) -> bool:
    """Two thin factors with a known spectrum: LoHa and LoKr have no rank to cut."""
    return layer.method in ("lora", "adalora") and bool(layer.singular_values)


def _spectrum(layer: LayerAudit) -> _Spectrum:
    values = np.asarray(layer.singular_values)
    # From the smallest up, so that a tail is not lost in the rounding of a head.
    squares = np.square(values)[::-1]
    tails = np.concatenate([[0.0], np.cumsum(squares)])[::-1]
    return _Spectrum(layer=layer, values=values, tails=tails)


def _at_share(share: float, spectra: Sequence[_Spectrum], other_bytes: int) -> Iterator[Suggestion]:
    own = _energy_ranks(share, [s.values for s in spectra])
    most = [len(s.values) for s in spectra]
    for rule in RULES:
        yield _suggestion(rule, share, _ruled(rule, own, most), spectra, other_bytes)


def ranks_at(
    share: float, rule: TruncationRule, spectra: Sequence[NDArray[np.float64]]
) -> list[int]:
    """The rank that a rule gives each module: what a suggestion says, and what a truncation does.

    Parameters
    ----------
    share : float
        Share of the energy sum s_i^2 to keep.
    rule : str
        per_module: each module's own energy rank. Else one rank for all, from those: their median,
        90th percentile or maximum, rounded up, and never above what a module has.
    spectra : sequence of (k,) float64
        Singular values of each module, descending.

    Examples
    --------
    >>> spectra = [np.array([3.0, 1.0]), np.ones(10)]
    >>> ranks_at(0.9, "per_module", spectra), ranks_at(0.9, "uniform_max", spectra)
    ([1, 9], [2, 9])
    """
    return _ruled(rule, _energy_ranks(share, spectra), [len(values) for values in spectra])


def _energy_ranks(share: float, spectra: Sequence[NDArray[np.float64]]) -> list[int]:
    return [max(1, smallest_rank(values, share)) for values in spectra]


def _ruled(rule: TruncationRule, own: list[int], most: Sequence[int]) -> list[int]:
    """Ranks by a rule, from the energy rank of each module and the most that it has."""
    if rule == "per_module":
        return own
    rank = math.ceil(percentile(sorted(own), _UNIFORM[rule]) - 1e-9)
    return [min(rank, limit) for limit in most]


def _suggestion(
    rule: TruncationRule,
    share: float,
    ranks: Sequence[int],
    spectra: Sequence[_Spectrum],
    other_bytes: int,
) -> Suggestion:
    pairs = list(zip(spectra, ranks, strict=True))
    worst_error, worst = max((s.error(k), s.layer.name) for s, k in pairs)
    lost = math.fsum(s.tails[k] for s, k in pairs)
    parameters = [s.parameters(k) for s, k in pairs]
    layers = [s.layer for s in spectra]
    nbytes = sum(n * a.nbytes // a.parameters for n, a in zip(parameters, layers, strict=True))
    now = (max(a.rank for a in layers), sum(a.nbytes for a in layers) + other_bytes)
    largest = max(ranks)
    return Suggestion(
        action="truncate",
        rule=rule,
        energy=share,
        rank=largest,
        ranks={s.layer.name: k for s, k in pairs} if rule == "per_module" else {},
        relative_error=math.sqrt(lost / math.fsum(s.tails[0] for s in spectra)),
        worst_error=worst_error,
        worst_module=worst,
        parameters=sum(parameters),
        nbytes=nbytes,
        server_rank_before=server_rank(now[0]),
        server_rank=server_rank(largest),
        clears=tuple(cleared(now, (largest, nbytes + other_bytes))),
    )
