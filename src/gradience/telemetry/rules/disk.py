"""A disk that will be full before the run ends."""

from collections.abc import Iterator

from gradience.storage.watch.forecast import Forecast, Sample, forecast
from gradience.telemetry.finding_kinds import DISK_FILLING
from gradience.telemetry.records import Alarm, Event, RunStart, TrainStep
from gradience.telemetry.rules.alarm import alarm
from gradience.units import format_seconds, format_size

WINDOW_SECONDS = 900.0
_SPAN_SECONDS = 300.0  # less than this may be one checkpoint
_FEWEST = 5


class DiskTrend:
    """Tells once for a part of a run."""

    def __init__(self, start: RunStart) -> None:
        self._start = start
        self._samples: list[Sample] = []
        self._told = False

    def see(self, event: Event) -> Iterator[Alarm]:
        """What this line shows."""
        if not isinstance(event, TrainStep) or event.disk_free_bytes is None or self._told:
            return
        free = event.disk_free_bytes
        self._samples = within([*self._samples, sample(event)])
        found = trend(self._samples, free)
        if found.seconds_to_full is None or found.per_second is None:
            return
        left = self._seconds_left(event)
        if left is not None and found.seconds_to_full < left:
            self._told = True
            message = (
                f"{format_size(free)} are left and go at {format_size(round(found.per_second))} a "
                f"second: full in {format_seconds(found.seconds_to_full)}, while the run has "
                f"{format_seconds(left)} to go"
            )
            yield alarm(DISK_FILLING, event.step, message)

    def _seconds_left(self, event: TrainStep) -> float | None:
        begun = self._start.resumed_from_step or 0
        end = self._start.max_steps
        if end is None or event.step is None or event.step <= begun:
            return None
        gone = (event.ts - self._start.ts).total_seconds()
        return gone / (event.step - begun) * (end - event.step)


def sample(event: TrainStep) -> Sample:
    """What is used, but for a constant."""
    return Sample(seconds=event.ts.timestamp(), used=-(event.disk_free_bytes or 0))


def within(samples: list[Sample]) -> list[Sample]:
    """The samples of the last quarter of an hour."""
    return [s for s in samples if samples[-1].seconds - s.seconds <= WINDOW_SECONDS]


def trend(samples: list[Sample], free: int) -> Forecast:
    """Where it goes; unknown before there are five samples over five minutes."""
    enough = len(samples) >= _FEWEST and samples[-1].seconds - samples[0].seconds >= _SPAN_SECONDS
    return forecast(samples if enough else [], free, window=WINDOW_SECONDS)
