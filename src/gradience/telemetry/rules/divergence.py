"""A loss that gives back what it won.

The median of five logged losses is held against the best such median before, and against the first.
The noise of a loss is taken from the differences of neighbours, which a trend hardly moves.
"""

from collections import deque
from collections.abc import Iterator
from statistics import median

from gradience.page import number
from gradience.telemetry.finding_kinds import LOSS_DIVERGED
from gradience.telemetry.records import Alarm, Event, RunStart, TrainStep
from gradience.telemetry.rules.alarm import alarm

_WINDOW = 5
_DIFFERENCES = 50
_HALF = 0.5
_RISE = 1.5  # of the best; what moves less is no divergence, however little was won
_NOISES = 3.0
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_SQRT2 = 2.0**0.5  # a difference of two has twice the variance of one

# Their loss is a surrogate around zero that rises as the policy moves: it says nothing.
_SURROGATES = ("GRPO", "PPO", "RLOO", "REINFORCE")


class Divergence:
    """Tells once, and again only after the loss has come back."""

    def __init__(self, start: RunStart) -> None:
        trainer = str(start.config.get("trainer", "")).upper()
        self._judges = not any(name in trainer for name in _SURROGATES)
        self._window: deque[float] = deque(maxlen=_WINDOW)
        self._differences: deque[float] = deque(maxlen=_DIFFERENCES)
        self._first: float | None = None
        self._best: tuple[float, int | None] | None = None
        self._told = False

    def see(self, event: Event) -> Iterator[Alarm]:
        """What this line shows."""
        if not self._judges or not isinstance(event, TrainStep) or event.loss is None:
            return
        if self._window:
            self._differences.append(abs(event.loss - self._window[-1]))
        self._window.append(event.loss)
        if event.loss <= 0:
            self._judges = False  # no likelihood: ratios of it mean nothing
        if len(self._window) < _WINDOW:
            return
        now = median(self._window)
        if self._first is None or self._best is None or now < self._best[0]:
            self._first = now if self._first is None else self._first
            self._best = (now, event.step)
            self._told = False
            return
        best, step = self._best
        won = max(self._first - best, 0.0)
        if not self._far(now, best, won):
            self._told = self._told and now > best + _HALF * won
            return
        if not self._told:
            self._told = True
            message = (
                f"the loss is {number(now)} (median of {_WINDOW}), after {number(best)} "
                f"at step {step}"
            )
            yield alarm(LOSS_DIVERGED, event.step, message)

    def _far(self, now: float, best: float, won: float) -> bool:
        noise = _MAD_TO_SIGMA * median(self._differences) / _SQRT2
        return now > max(best + _HALF * won, _RISE * best, best + _NOISES * noise)
