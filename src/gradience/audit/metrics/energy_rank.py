"""Energy rank: the smallest rank that keeps a share of the squared Frobenius norm.

By Eckart and Young, truncating to it leaves a relative Frobenius error of sqrt(1 - share) at most.
It says how well the change is approximated, and nothing about the loss of the model.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric

SHARES = (0.90, 0.95, 0.99)

# A share that is met up to rounding is met: without it a flat spectrum of 10 needs 10 for 90 %.
_ROUNDING = 1e-12


def smallest_rank(values: NDArray[np.float64], share: float) -> int:
    """Smallest k with sum_{i<=k} s_i^2 >= share * sum s_i^2; 0 for a zero spectrum.

    Examples
    --------
    >>> smallest_rank(np.array([3.0, 1.0]), 0.90), smallest_rank(np.array([3.0, 1.0]), 0.95)
    (1, 2)
    >>> smallest_rank(np.ones(10), 0.90)
    9
    """
    if values.size == 0 or values[0] == 0.0:
        return 0
    cumulative = np.square(values / values[0]).cumsum()
    return int(np.count_nonzero(cumulative / cumulative[-1] < share - _ROUNDING)) + 1


def energy_rank(facts: LayerFacts, share: float) -> float:
    """`smallest_rank` of a weight that changed.

    Raises
    ------
    UnmeasurableError
        If every singular value is zero.
    """
    return float(smallest_rank(facts.spectrum(), share))


def _metric(share: float, *, column: bool) -> Metric:
    return Metric(
        title=f"rank@{share:.0%}",
        definition=f"Smallest k whose first k singular values hold {share:.0%} of sum(s_i^2).",
        source="Eckart & Young, Psychometrika 1(3), 1936",
        measure=partial(energy_rank, share=share),
        unit="rank",
        column=column,
    )


ENERGY_RANK_90 = _metric(0.90, column=True)
ENERGY_RANK_95 = _metric(0.95, column=False)
ENERGY_RANK_99 = _metric(0.99, column=True)
