"""NaN and infinity, in the loss or in the gradient.

The Trainer replaces a NaN loss by the mean of those before (`logging_nan_inf_filter`, on by
default), so that the gradient norm is often the only number that tells.
"""

from collections.abc import Iterator

from gradience.telemetry.finding_kinds import GRADIENT_NOT_FINITE, LOSS_NOT_FINITE
from gradience.telemetry.records import Alarm, Eval, Event, RunStart, TrainStep
from gradience.telemetry.rules import training
from gradience.telemetry.rules.alarm import alarm

_LOSSES = ("loss", "eval_loss")
_SCALER_MAY_SKIP = 2  # logged steps in a row


class NotFinite:
    """Tells of the first of a row."""

    def __init__(self, start: RunStart) -> None:
        self._patience = _SCALER_MAY_SKIP if training(start).get("fp16") else 0
        self._gradients = 0
        self._told: set[str] = set()

    def see(self, event: Event) -> Iterator[Alarm]:
        """What this line shows."""
        if not isinstance(event, TrainStep | Eval):
            return
        for name in _LOSSES:
            if name in event.not_finite and name not in self._told:
                self._told.add(name)
                what = "training" if name == "loss" else "evaluation"
                found = event.not_finite[name]
                yield alarm(LOSS_NOT_FINITE, event.step, f"the {what} loss is {found}")
        if event.loss is not None:
            self._told.discard("loss" if isinstance(event, TrainStep) else "eval_loss")
        if isinstance(event, TrainStep):
            yield from self._gradient(event)

    def _gradient(self, event: TrainStep) -> Iterator[Alarm]:
        found = event.not_finite.get("grad_norm")
        if found is None:
            self._gradients = 0 if event.grad_norm is not None else self._gradients
            return
        self._gradients += 1
        if self._gradients == self._patience + 1:
            row = f" at {self._gradients} logged steps in a row" if self._patience else ""
            yield alarm(GRADIENT_NOT_FINITE, event.step, f"the gradient norm is {found}{row}")
