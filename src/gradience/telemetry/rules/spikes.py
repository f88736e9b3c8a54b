"""A gradient far above the others.

Norms of gradients spread by factors, so their spread is measured in logarithms.
"""

import math
from collections import deque
from collections.abc import Iterator
from statistics import median

from gradience.page import number
from gradience.telemetry.finding_kinds import GRADIENT_SPIKE
from gradience.telemetry.records import Alarm, Event, RunStart, TrainStep
from gradience.telemetry.rules.alarm import alarm

_WINDOW = 50
_FEWEST = 10
_TIMES = 10.0
_DEVIATIONS = 6.0
_MAD_TO_SIGMA = 1.4826  # of a normal distribution


class Spikes:
    """Tells of the first of a burst."""

    def __init__(self, start: RunStart) -> None:
        self._logs: deque[float] = deque(maxlen=_WINDOW)
        self._inside = False

    def see(self, event: Event) -> Iterator[Alarm]:
        """What this line shows; a line without a gradient norm shows nothing."""
        if not isinstance(event, TrainStep) or not event.grad_norm:
            return
        log = math.log(event.grad_norm)
        if len(self._logs) < _FEWEST:
            self._logs.append(log)
            return
        middle = median(self._logs)
        spread = _MAD_TO_SIGMA * median(abs(x - middle) for x in self._logs)
        spike = log - middle > max(math.log(_TIMES), _DEVIATIONS * spread)
        if spike and not self._inside:
            times = math.exp(log - middle)
            message = (
                f"the gradient norm is {number(event.grad_norm)}, {times:.0f} times its median of "
                f"{number(math.exp(middle))}"
            )
            yield alarm(GRADIENT_SPIKE, event.step, message)
        self._inside = spike
        self._logs.append(log)  # a new level, if it stays, is the usual one in the end
