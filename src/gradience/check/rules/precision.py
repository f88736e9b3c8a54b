"""Number formats."""

import re
from collections.abc import Iterator

from gradience.check.finding_kinds import FP16_OVERFLOWS, TWO_PRECISIONS
from gradience.check.records import Setup
from gradience.findings import Finding

_TRAINED_IN_BF16 = re.compile(r"(^|[/\-_])(m?t5|flan-t5|ul2|gemma-?3)([\-_.]|$)", re.IGNORECASE)


def precision(setup: Setup) -> Iterator[Finding]:
    """Findings about fp16 and bf16."""
    if setup.training.get("fp16") is True and setup.training.get("bf16") is True:
        yield TWO_PRECISIONS.found("bf16 and fp16 are both on")
    base = setup.adapter.base_model if setup.adapter else None
    if setup.training.get("fp16") is True and base and _TRAINED_IN_BF16.search(base):
        yield FP16_OVERFLOWS.found(f"fp16 is on, and the base model is {base}")
