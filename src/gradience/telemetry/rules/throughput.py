"""Steps that take longer than they did."""

from collections.abc import Iterator
from datetime import datetime
from statistics import median

from gradience.telemetry.finding_kinds import THROUGHPUT_DROP
from gradience.telemetry.records import Alarm, Event, RunStart, TrainStep
from gradience.telemetry.rules.alarm import alarm
from gradience.units import format_seconds

_RECENT = 5
_FEWEST = 20
_MOST = 200  # before the recent ones
_TIMES = 2.0
_SHORTEST_SECONDS = 0.01  # below it, what is measured is the machine's noise


class Pace:
    """Seconds per step between two logged steps with nothing but training in between."""

    def __init__(self) -> None:
        self._before: tuple[int, datetime] | None = None

    def see(self, event: Event) -> float | None:
        """Seconds per step up to this line; None where that cannot be told."""
        if not isinstance(event, TrainStep) or event.step is None:
            self._before = None  # an evaluation or a save takes its own time
            return None
        before, self._before = self._before, (event.step, event.ts)
        if before is None or event.step <= before[0]:
            return None
        return max(0.0, (event.ts - before[1]).total_seconds()) / (event.step - before[0])


class Throughput:
    """Tells once, and again only after the pace has come back."""

    def __init__(self, start: RunStart) -> None:
        self._pace = Pace()
        self._seconds: list[float] = []
        self._told = False

    def see(self, event: Event) -> Iterator[Alarm]:
        """What this line shows."""
        seconds = self._pace.see(event)
        if seconds is None:
            return
        self._seconds = [*self._seconds[-(_MOST + _RECENT - 1) :], seconds]
        if len(self._seconds) < _FEWEST + _RECENT:
            return
        usual, now = median(self._seconds[:-_RECENT]), median(self._seconds[-_RECENT:])
        slow = now > max(_TIMES * usual, _SHORTEST_SECONDS)
        if slow and not self._told:
            message = f"a step takes {format_seconds(now)}, before {format_seconds(usual)}"
            yield alarm(THROUGHPUT_DROP, event.step, message)
        self._told = slow
