"""An evaluation loss that rises while the training loss falls."""

from collections import deque
from collections.abc import Iterator
from statistics import median

from gradience.page import number
from gradience.telemetry.finding_kinds import OVERFITTING
from gradience.telemetry.records import Alarm, Eval, Event, RunStart, TrainStep
from gradience.telemetry.rules.alarm import alarm

_WINDOW = 10
_RISE = 1.05
_IN_A_ROW = 2


class Overfitting:
    """Tells once, and again only after a new best evaluation."""

    def __init__(self, start: RunStart) -> None:
        self._train: deque[float] = deque(maxlen=_WINDOW)
        self._best: tuple[float, int | None, float] | None = None
        self._last = 0.0
        self._rises = 0
        self._told = False

    def see(self, event: Event) -> Iterator[Alarm]:
        """What this line shows."""
        if isinstance(event, TrainStep) and event.loss is not None:
            self._train.append(event.loss)
        if not isinstance(event, Eval) or event.loss is None or not self._train:
            return
        train = median(self._train)
        self._rises = self._rises + 1 if self._best and event.loss > self._last else 0
        self._last = event.loss
        if self._best is None or event.loss < self._best[0]:
            self._best = (event.loss, event.step, train)
            self._told = False
            return
        best, step, train_then = self._best
        risen = self._rises >= _IN_A_ROW and event.loss > _RISE * best > 0
        if risen and train < train_then and not self._told:
            self._told = True
            message = (
                f"the evaluation loss rose to {number(event.loss)} from {number(best)} at step "
                f"{step}, while the training loss fell to {number(train)}"
            )
            yield alarm(OVERFITTING, event.step, message)
