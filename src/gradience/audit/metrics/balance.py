"""Balance: how the change is shared between the two factors."""

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.metric import Metric
from gradience.errors import UnmeasurableError


def balance(facts: LayerFacts) -> float:
    """||B||_F / ||A||_F. B starts at zero, so it grows as training proceeds.

    Raises
    ------
    UnmeasurableError
        If the change is not a product of two factors, or A is zero.
    """
    if facts.left_norm is None or facts.right_norm is None:
        raise UnmeasurableError(
            "the change is not a product of two factors", remedy="Use the norms of the change."
        )
    if facts.right_norm == 0.0:
        raise UnmeasurableError("A is zero", remedy="Check that this module was trained.")
    return facts.left_norm / facts.right_norm


BALANCE = Metric(
    title="||B|| / ||A||",
    definition="||B||_F / ||A||_F of the stored factors, before scaling.",
    source="Hayou, Ghosh & Yu, LoRA+, arXiv 2402.12354 (why the two factors learn differently)",
    measure=balance,
)
