"""Utilization: effective rank over the rank that was allocated."""

from gradience.audit.facts import LayerFacts
from gradience.audit.metrics.effective_rank import effective_rank
from gradience.audit.metrics.metric import Metric
from gradience.errors import UnmeasurableError


def utilization(facts: LayerFacts) -> float:
    """Effective rank (Roy & Vetterli) over allocated rank: in (0, 1], 1 for a flat spectrum.

    A low value has more than one cause: too much rank, but also a learning rate or an alpha that
    is too small for the rank (rsLoRA, arXiv 2312.03732).

    Raises
    ------
    UnmeasurableError
        If every singular value is zero, or the change has more directions than the rank allows:
        DoRA's, which rescales every row of the base weight.
    """
    if facts.spectrum().size > facts.rank:
        raise UnmeasurableError(
            "the change is not of low rank: DoRA rescales every row of the base weight",
            remedy="Audit without a base model for the rank of the direction B @ A.",
        )
    return effective_rank(facts) / facts.rank


UTILIZATION = Metric(
    title="utilization",
    definition="effective_rank / allocated rank. Low has several causes; it is no proof that a "
    "smaller rank is safe.",
    source="Roy & Vetterli, EUSIPCO 2007, over the configured rank",
    measure=utilization,
    column=True,
)
