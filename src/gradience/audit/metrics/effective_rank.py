"""Effective rank: the exponential of an entropy. Two are in use; each has its own name here."""

import numpy as np
from numpy.typing import NDArray

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric


def effective_rank(facts: LayerFacts) -> float:
    """exp of the Shannon entropy of s_i / sum(s): from 1 to the rank.

    Raises
    ------
    UnmeasurableError
        If every singular value is zero.

    References
    ----------
    Roy & Vetterli, EUSIPCO 2007, "The effective rank".
    """
    s = facts.spectrum()
    return _exp_entropy(s / s.sum())


def effective_rank_energy(facts: LayerFacts) -> float:
    """exp of the Shannon entropy of s_i^2 / sum(s^2): from 1 to the rank.

    Raises
    ------
    UnmeasurableError
        If every singular value is zero.
    """
    energy = np.square(facts.spectrum() / facts.spectrum()[0])
    return _exp_entropy(energy / energy.sum())


def _exp_entropy(p: NDArray[np.float64]) -> float:
    p = p[p > 0.0]
    return float(np.exp(-np.sum(p * np.log(p))))


EFFECTIVE_RANK = Metric(
    title="effective rank",
    definition="exp(H(p)) with p_i = s_i / sum(s): the entropy of the singular values.",
    source="Roy & Vetterli, EUSIPCO 2007",
    measure=effective_rank,
    unit="rank",
    column=True,
)
EFFECTIVE_RANK_ENERGY = Metric(
    title="effective rank (energy)",
    definition="exp(H(p)) with p_i = s_i^2 / sum(s^2): the entropy of the energies.",
    source="Roy & Vetterli, EUSIPCO 2007, applied to squared singular values; "
    "the participation entropy of PCA",
    measure=effective_rank_energy,
    unit="rank",
)
