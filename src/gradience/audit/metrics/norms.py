"""Norms of the scaled change, in units of the base weight."""

import numpy as np

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric


def spectral_norm(facts: LayerFacts) -> float:
    """s_1: the largest amplification of any input direction; 0 for an untrained module."""
    return facts.spectral


def frobenius_norm(facts: LayerFacts) -> float:
    """sqrt(sum(s_i^2)); 0 for an untrained module."""
    return facts.frobenius


def nuclear_norm(facts: LayerFacts) -> float:
    """sum(s_i).

    Raises
    ------
    UnmeasurableError
        If every singular value is zero, or only the norms are known.
    """
    return float(np.sum(facts.spectrum()))


SPECTRAL_NORM = Metric(
    title="||dW||_2",
    definition="s_1, the spectral norm of the scaled change.",
    source="Golub & Van Loan, Matrix Computations, 2.3",
    measure=spectral_norm,
    unit="weight",
    column=True,
)
FROBENIUS_NORM = Metric(
    title="||dW||_F",
    definition="sqrt(sum(s_i^2)), the Frobenius norm of the scaled change.",
    source="Golub & Van Loan, Matrix Computations, 2.3",
    measure=frobenius_norm,
    unit="weight",
)
NUCLEAR_NORM = Metric(
    title="||dW||_*",
    definition="sum(s_i), the nuclear norm of the scaled change.",
    source="Fazel, PhD thesis, Stanford 2002",
    measure=nuclear_norm,
    unit="weight",
)
