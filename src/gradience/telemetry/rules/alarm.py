"""A finding at a step."""

import msgspec

from gradience.findings import FindingKind
from gradience.telemetry.records import Alarm


def alarm(kind: FindingKind, step: int | None, message: str) -> Alarm:
    """A finding of this kind, at this step."""
    return Alarm(step=step, **msgspec.structs.asdict(kind.found(message)))
