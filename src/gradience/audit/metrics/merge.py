"""Merge rounding: what packing a merged weight again adds, beside what the adapter changed.

A base weight that is packed lies on the numbers its format can hold. Merged, the sum is rounded to
them again: a change well below half a step leaves every code as it was, and the merge is undone.
"""

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric
from gradience.errors import UnmeasurableError


def merge_rounding(facts: LayerFacts) -> float:
    """Rounding of the packed format over ||dW||_F.

    Above 1 the rounding is larger than the change. Of a change whose entries are normal, on evenly
    spaced numbers, 98 % survives at 0.6, 62 % at 1, 14 % at 1.5 and 1 % at 2: the share of it that
    the rounded change has in its direction, <Q(W + dW) - W, dW> / ||dW||^2.

    Raises
    ------
    UnmeasurableError
        If the base weight is not packed, or nothing changed.
    """
    if facts.base is None or facts.base.rounding is None:
        raise UnmeasurableError(
            facts.no_base if facts.base is None else "the base weight is not packed",
            remedy="Merge into it as it is: nothing is rounded but to its type.",
        )
    if facts.frobenius == 0.0:
        raise UnmeasurableError("the change is zero", remedy="Check that this module was trained.")
    return facts.base.rounding / facts.frobenius


MERGE_ROUNDING = Metric(
    title="merge rounding",
    definition="sqrt(sum(step^2) / 12) / ||dW||_F, with the step of the packed format at each "
    "number of the base weight: the error of packing the merged weight again, over the change. "
    "Only where the base weight is packed.",
    source="Bennett, Spectra of Quantized Signals, Bell Syst. Tech. J. 27(3), 1948 (step^2 / 12)",
    measure=merge_rounding,
    needs_base=True,
    needs_packed=True,
)
