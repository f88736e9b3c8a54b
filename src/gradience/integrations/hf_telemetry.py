"""The log of a Trainer's run: its events to lines of `run.jsonl`, and alerts while it goes on.

Only the first process writes. Nothing in here raises into the training: what the disk refuses is
counted by the log.
"""

import logging
import math
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerState, TrainingArguments

from gradience import __version__
from gradience.check.judge import judge
from gradience.check.read import setup_of
from gradience.errors import GradienceError
from gradience.findings import FindingKind, Severity
from gradience.integrations.hf_state import is_peft, unwrapped
from gradience.storage.guard.records import GuardEvent
from gradience.telemetry.finding_kinds import (
    CHECKPOINT_SET_ASIDE,
    DISK_ROOM,
    GUARD_HINDERED,
    SAVE_FAILED,
    STOPPED_BY_FULL_DISK,
)
from gradience.telemetry.log import RunLog, last_run_id
from gradience.telemetry.records import (
    NAME,
    Alert,
    Eval,
    Event,
    Metrics,
    Recommendation,
    RunEnd,
    RunStart,
    TrainStep,
)
from gradience.telemetry.redact import finite, shortened
from gradience.telemetry.rules import Watch

_log = logging.getLogger("gradience.telemetry")

_OWN_FIELDS = ("loss", "grad_norm", "learning_rate", "epoch")
_GRAVE: dict[str, FindingKind] = {
    "aside": CHECKPOINT_SET_ASIDE,
    "failed": SAVE_FAILED,
    "shared": GUARD_HINDERED,
    "stopped": STOPPED_BY_FULL_DISK,
    "unguarded": GUARD_HINDERED,
    "unswept": GUARD_HINDERED,
}


class Telemetry:
    """Writes what happens to a run.

    Parameters
    ----------
    where : bool, str or Path
        The file; True for `run.jsonl` in the run's `output_dir`, False for none.
    allow_text : collection of str
        Keys whose texts may be longer than 256 characters.
    """

    def __init__(self, where: bool | str | Path, *, allow_text: Collection[str] = ()) -> None:
        self._where = where
        self._allow_text = allow_text
        self._log: RunLog | None = None
        self._watch: Watch | None = None
        self._begun = 0.0
        self._early: list[GuardEvent] = []
        self._free: int | None = None

    # ---- what happens

    def begin(self, trainer: Trainer, args: TrainingArguments, state: TrainerState) -> None:
        """Open the log with a snapshot of the config; a resumed run goes on with its own name."""
        if self._where is False or not state.is_world_process_zero:
            return
        path = Path(str(args.output_dir)) / NAME if self._where is True else Path(str(self._where))
        resumed = state.global_step if state.global_step > 0 else None
        run_id = last_run_id(path) if resumed is not None else ""
        self._log = RunLog(path, run_id=run_id, allow_text=self._allow_text)
        self._begun = time.monotonic()
        start = self._add(
            RunStart,
            state,
            written_by=f"gradience {__version__}",
            config=_config(trainer, args),
            max_steps=state.max_steps if state.max_steps > 0 else None,
            resumed_from_step=resumed,
        )
        assert isinstance(start, RunStart)
        self._watch = Watch(start)
        self._recommend(start.config, state)
        early, self._early = self._early, []
        for event in early:
            self.guarded(event)

    def logged(self, state: TrainerState, logs: Mapping[str, Any], free: int | None) -> None:
        """Write what the Trainer logs; what an evaluation logs comes with `evaluated`.

        Parameters
        ----------
        free : int, optional
            Bytes that can be written, as they were last seen.
        """
        if self._log is None or any(name.startswith("eval_") for name in logs):
            return
        numbers, bad = finite(_numbers(logs))
        if "loss" not in logs:
            kind = "train_end" if "train_runtime" in logs else "log"
            self._add(Metrics, state, kind=kind, values={**numbers, **bad})
            return
        own = {name: numbers.pop(name) for name in _OWN_FIELDS if name in numbers}
        # Only a new look is news: the same value twice would bend the trend.
        news, self._free = (free if free != self._free else None), free
        facts = {"tokens_seen": _tokens(state, numbers), "disk_free_bytes": news}
        self._judged(TrainStep, state, metrics=numbers, not_finite=bad, **own, **facts)

    def evaluated(self, state: TrainerState, metrics: Mapping[str, Any]) -> None:
        """Write an evaluation."""
        if self._log is None:
            return
        numbers, bad = finite(_numbers(metrics))
        loss = numbers.pop("eval_loss", None)
        self._judged(Eval, state, loss=loss, metrics=numbers, not_finite=bad)

    def guarded(self, event: GuardEvent) -> None:
        """Write what the guard of the run did; a grave event is an alert."""
        if self._log is None:
            self._early.append(event)
        elif event.grave:
            kind = _GRAVE.get(event.kind, DISK_ROOM)
            self._alert(kind.code, kind.severity, event.message, kind.remedy, event.step)
        else:
            values = {"message": event.message, **event.facts}
            self._log.add(Metrics, step=event.step, kind=f"guard_{event.kind}", values=values)

    def end(self, state: TrainerState, error: BaseException | None, stopped: str) -> None:
        """Write how it ended, and close the log."""
        log, self._log, self._watch, self._early = self._log, None, None, []
        if log is None:
            return
        reason = f"{type(error).__name__}: {error}" if error else stopped
        log.add(
            RunEnd,
            step=state.global_step,
            status="failed" if error else "stopped" if stopped else "finished",
            seconds=time.monotonic() - self._begun,
            reason=_sentence(reason),
            lost_lines=log.lost,
        )
        log.close()

    # ---- lines

    def _recommend(self, config: Mapping[str, Any], state: TrainerState) -> None:
        """What `gradience check` would have said of this configuration."""
        try:
            findings = judge(setup_of(config, "the run"))
        except GradienceError:
            return  # an adapter of a kind that is not judged
        for finding in findings:
            if finding.severity != Severity.INFO:
                self._add(
                    Recommendation,
                    state,
                    code=finding.code,
                    message=finding.message,
                    remedy=finding.remedy,
                    source=finding.source,
                )

    def _add(self, kind: type[Event], state: TrainerState, /, **facts: Any) -> Event:
        assert self._log is not None
        return self._log.add(kind, step=state.global_step, **facts)

    def _judged(self, kind: type[Event], state: TrainerState, /, **facts: Any) -> None:
        event = self._add(kind, state, **facts)
        for alarm in self._watch.see(event) if self._watch else ():
            _log.warning("step %s: %s. %s", alarm.step, alarm.message, alarm.remedy)
            self._alert(alarm.code, alarm.severity, alarm.message, alarm.remedy, alarm.step)

    def _alert(
        self, code: str, severity: Severity, message: str, remedy: str, step: int | None
    ) -> None:
        assert self._log is not None
        self._log.add(
            Alert,
            step=step,
            code=code,
            severity=severity,
            message=_sentence(message),
            remedy=remedy,
        )


def _config(trainer: Trainer, args: Any) -> dict[str, Any]:
    """What decides the run: the Trainer, its arguments, the adapter, the model, the machine."""
    model = unwrapped(trainer)
    adapters = getattr(model, "peft_config", None) or {}
    inner = model.get_base_model() if is_peft(model) else model
    name = getattr(getattr(inner, "config", None), "name_or_path", "")
    found = {
        "trainer": type(trainer).__name__,
        "model": name or type(inner).__name__,
        "training": args.to_dict(),
        "world_size": args.world_size,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "host": os.uname().nodename,
    }
    if adapters:
        found["adapter"] = next(iter(adapters.values())).to_dict()
    return found


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """What is a number; the Trainer writes some as text, others as numpy's."""
    found = {}
    for name, value in logs.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        found[name] = number
    return found


def _tokens(state: TrainerState, numbers: Mapping[str, float]) -> int | None:
    """Seen so far: counted by the Trainer if it was asked to, or by TRL."""
    counted = numbers.get("num_tokens") or numbers.get("num_input_tokens_seen")
    if counted is None or not math.isfinite(counted):
        counted = state.num_input_tokens_seen or None
    return None if counted is None else int(counted)


def _sentence(text: str) -> str:
    """A message that is worth its place: cut where a config's text would be redacted."""
    first = text.partition("\n")[0]
    return first if shortened(first) == first else f"{first[:252]} ..."
