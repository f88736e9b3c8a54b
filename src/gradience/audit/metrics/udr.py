"""UDR: how large the change is beside the weight it changes.

The headline divides by the rigorous lower bound of the base norm, so it never understates.
"""

import math

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric
from gradience.errors import UnmeasurableError


def udr(facts: LayerFacts) -> float:
    """||dW||_2 / ||W_base||_2.

    Raises
    ------
    UnmeasurableError
        If the norm of the base weight is not known, or zero.
    """
    return facts.spectral / facts.base_norms().lower


def udr_frobenius(facts: LayerFacts) -> float:
    """||dW||_F / ||W_base||_F.

    Raises
    ------
    UnmeasurableError
        If the norm of the base weight is not known, or zero.
    """
    return facts.frobenius / facts.base_norms().frobenius


def sdi(facts: LayerFacts) -> float:
    """log10(UDR).

    Raises
    ------
    UnmeasurableError
        If UDR is not defined, or zero.
    """
    ratio = udr(facts)
    if ratio == 0.0:
        raise UnmeasurableError("UDR is zero", remedy="Check that this module was trained.")
    return math.log10(ratio)


UDR = Metric(
    title="UDR",
    definition="||dW||_2 / ||W_base||_2, the update-to-base ratio of spectral norms.",
    source="a health and anomaly number; compare Yang et al., A Spectral Condition for Feature "
    "Learning, arXiv 2310.17813",
    measure=udr,
    needs_base=True,
    column=True,
)
UDR_FROBENIUS = Metric(
    title="UDR (Frobenius)",
    definition="||dW||_F / ||W_base||_F.",
    source="as UDR, in the Frobenius norm",
    measure=udr_frobenius,
    needs_base=True,
)
SDI = Metric(
    title="SDI",
    definition="log10(UDR).",
    source="as UDR, on a logarithmic scale",
    measure=sdi,
    needs_base=True,
)
