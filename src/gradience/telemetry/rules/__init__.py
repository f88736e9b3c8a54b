"""What can be wrong with a run, one module each: the same rules watch it and read its log.

A rule is made anew for every process that trains, sees its lines in order, and remembers no more
than a window. What it reports belongs to the line that it was shown: a value of an earlier line is
never judged again.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from gradience.registry import Registry
from gradience.telemetry.records import Alarm, Event, RunStart


class Rule(Protocol):
    """Looks at the lines of one process, in order."""

    def __init__(self, start: RunStart) -> None: ...

    def see(self, event: Event, /) -> Iterator[Alarm]:
        """What this line shows to be wrong."""
        ...


RULES: Registry[type[Rule]] = Registry(
    "rule",
    {
        "not_finite": "gradience.telemetry.rules.not_finite:NotFinite",
        "divergence": "gradience.telemetry.rules.divergence:Divergence",
        "spikes": "gradience.telemetry.rules.spikes:Spikes",
        "overfitting": "gradience.telemetry.rules.overfitting:Overfitting",
        "throughput": "gradience.telemetry.rules.throughput:Throughput",
        "disk": "gradience.telemetry.rules.disk:DiskTrend",
    },
)


class Watch:
    """All rules over the lines of one process."""

    def __init__(self, start: RunStart) -> None:
        self._rules = [rule(start) for rule in RULES.values()]

    def see(self, event: Event) -> tuple[Alarm, ...]:
        """What this line shows to be wrong."""
        return tuple(alarm for rule in self._rules for alarm in rule.see(event))


def training(start: RunStart) -> Mapping[str, Any]:
    """The training arguments in a config snapshot."""
    found = start.config.get("training")
    return found if isinstance(found, Mapping) else {}
