"""Condition: the largest singular value over the smallest one that the rank allocates."""

import numpy as np

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric
from gradience.errors import UnmeasurableError


def condition(facts: LayerFacts) -> float:
    """s_1 / s_k with k the number of singular values the factors can have.

    Raises
    ------
    UnmeasurableError
        If every singular value is zero, or the smallest cannot be told from zero.
    """
    s = facts.spectrum()
    # Rounding of a k-term float64 SVD reaches k * eps * s_1: below it a value is noise.
    if s[-1] <= 8 * s.size * np.finfo(np.float64).eps * s[0]:
        raise UnmeasurableError(
            "the smallest singular value cannot be told from zero: the rank is not fully used",
            remedy="See the energy ranks.",
        )
    return float(s[0] / s[-1])


CONDITION = Metric(
    title="condition",
    definition="s_1 / s_k with k the allocated rank; absent where s_k is zero to rounding.",
    source="Golub & Van Loan, Matrix Computations, 2.6",
    measure=condition,
)
