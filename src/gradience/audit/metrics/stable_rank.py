"""Stable rank: how many directions carry the energy, judged by the strongest one."""

import numpy as np

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric


def stable_rank(facts: LayerFacts) -> float:
    """Squared Frobenius norm over squared spectral norm: from 1 to the rank.

    Raises
    ------
    UnmeasurableError
        If every singular value is zero.

    References
    ----------
    Rudelson & Vershynin, J. ACM 54(4), 2007 ("numerical rank").

    Examples
    --------
    >>> facts = LayerFacts(values=np.array([2.0, 1.0]), spectral=2.0, frobenius=5**0.5, rank=2)
    >>> stable_rank(facts)
    1.25
    """
    s = facts.spectrum()
    return float(np.sum(np.square(s / s[0])))


STABLE_RANK = Metric(
    title="stable rank",
    definition="sum(s_i^2) / s_1^2. Low for nearly every LoRA; not a suggestion of a rank.",
    source="Rudelson & Vershynin, J. ACM 54(4), 2007",
    measure=stable_rank,
    unit="rank",
    column=True,
)
