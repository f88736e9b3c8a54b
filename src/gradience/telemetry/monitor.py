"""A run's lines to its summary. Pure: the time arrives as an argument."""

from collections.abc import Iterable
from datetime import datetime
from statistics import median
from typing import Any

import msgspec

from gradience.telemetry.finding_kinds import LINES_LOST, MONITOR, RUN_FAILED, RUN_SILENT
from gradience.telemetry.records import (
    Alarm,
    Alert,
    Curve,
    Disk,
    Eval,
    Event,
    Metrics,
    Recommendation,
    RunEnd,
    RunStart,
    RunSummary,
    Status,
    TrainStep,
)
from gradience.telemetry.rules import Watch
from gradience.telemetry.rules.alarm import alarm
from gradience.telemetry.rules.disk import sample, trend, within
from gradience.telemetry.rules.throughput import Pace
from gradience.units import format_seconds

AUDIT = "audit"
"""The kind of `metrics` that `gradience audit --append` writes."""

_RECENT = 10
_SILENT_SECONDS = 600.0
_SILENT_TIMES = 20.0


class Monitor:
    """Reads the lines of one run, in order."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._start: RunStart | None = None
        self._first: Event | None = None
        self._last: Event | None = None
        self._end: RunEnd | None = None
        self._watch: Watch | None = None
        self._pace = Pace()
        self._parts = 0
        self._lost = 0
        self._steps: list[TrainStep] = []
        self._evals: list[Eval] = []
        self._paces: list[tuple[int, float]] = []
        self._gaps: list[float] = []
        self._alarms: list[Alarm] = []
        self._recommendations: list[Recommendation] = []
        self._audit: dict[str, Any] = {}

    def see(self, event: Event) -> None:
        """Take a line in."""
        if self._last is not None and isinstance(event, Metrics) and event.kind == AUDIT:
            self._audit = event.values  # written by another process: no sign of life
            return
        if isinstance(event, RunStart):
            self._begin(event)
        elif isinstance(event, RunEnd):
            self._end, self._lost = event, self._lost + event.lost_lines
        else:
            self._take(event)
        self._first = self._first or event
        if self._last is not None and not isinstance(event, RunStart):
            self._gaps.append((event.ts - self._last.ts).total_seconds())
        self._last = event

    def _begin(self, start: RunStart) -> None:
        self._start, self._end = start, None
        self._watch, self._pace = Watch(start), Pace()
        self._parts += 1
        step = start.resumed_from_step
        if step is not None:
            self._steps = [e for e in self._steps if _at_most(e.step, step)]
            self._evals = [e for e in self._evals if _at_most(e.step, step)]
            self._alarms = [a for a in self._alarms if _at_most(a.step, step)]
            self._paces = [pace for pace in self._paces if pace[0] <= step]

    def _take(self, event: Event) -> None:
        found = self._watch.see(event) if self._watch else ()
        self._alarms += [a for a in found if not self._has(a.code, a.step)]
        pace = self._pace.see(event)
        if isinstance(event, TrainStep):
            self._steps.append(event)
            if pace is not None and event.step is not None:
                self._paces.append((event.step, pace))
        elif isinstance(event, Eval):
            self._evals.append(event)
        elif isinstance(event, Alert) and not self._has(event.code, event.step):
            self._alarms.append(
                Alarm(
                    code=event.code,
                    severity=event.severity,
                    message=event.message,
                    remedy=event.remedy,
                    step=event.step,
                )
            )
        elif isinstance(event, Recommendation):
            same = [r for r in self._recommendations if r.code == event.code]
            self._recommendations = [r for r in self._recommendations if r not in same]
            self._recommendations.append(event)
        elif isinstance(event, Metrics) and event.kind == AUDIT:
            self._audit = event.values

    def _has(self, code: str, step: int | None) -> bool:
        return any(a.code == code and a.step == step for a in self._alarms)

    def summary(self, path: str, *, now: datetime) -> RunSummary:
        """What the lines so far say.

        Parameters
        ----------
        path : str
            Of the log, as it is shown.
        now : datetime
            Aware; tells a run that is silent from one that is going on.
        """
        assert self._first is not None
        assert self._last is not None
        status = self._status(now)
        seconds = median(p for _, p in self._paces) if self._paces else None
        rate = 1 / seconds if seconds else None
        step = max((e.step for e in [*self._steps, *self._evals] if e.step is not None), default=0)
        if self._end is not None and self._end.step is not None:
            step = self._end.step
        end = self._start.max_steps if self._start else None
        left = max(0, end - step) * seconds if end and seconds else None
        norms = [e.grad_norm for e in self._steps if e.grad_norm is not None]
        return RunSummary(
            path=path,
            run_id=self.run_id,
            status=status,
            reason=self._end.reason if self._end else "",
            started=self._first.ts,
            last=self._last.ts,
            step=step,
            max_steps=end,
            parts=max(1, self._parts),
            config=self._start.config if self._start else {},
            # Beside a NaN gradient the Trainer's filter has made a loss of 0 up.
            train=_curve((e.step, e.loss) for e in self._steps if "grad_norm" not in e.not_finite),
            eval=_curve((e.step, e.loss) for e in self._evals),
            eval_metrics=self._evals[-1].metrics if self._evals else {},
            gap=self._gap(),
            grad_norm_median=median(norms) if norms else None,
            grad_norm_max=max(norms, default=None),
            steps_per_second=rate,
            tokens_per_second=self._tokens(),
            seconds_left=left if status == "running" else None,
            disk=self._disk(),
            alarms=(*self._alarms, *self._closing(status, now)),
            recommendations=tuple(self._recommendations),
            audit=self._audit,
            lost_lines=self._lost,
        )

    def _status(self, now: datetime) -> Status:
        if self._end is not None:
            return self._end.status
        assert self._last is not None
        usual = median(self._gaps) if self._gaps else 0.0
        quiet = (now - self._last.ts).total_seconds()
        return "silent" if quiet > max(_SILENT_SECONDS, _SILENT_TIMES * usual) else "running"

    def _closing(self, status: Status, now: datetime) -> Iterable[Alarm]:
        assert self._last is not None
        step = self._end.step if self._end else None
        if status == "failed" and self._end is not None:
            yield alarm(RUN_FAILED, step, self._end.reason or "the run ended with an error")
        if status == "silent":
            quiet = format_seconds((now - self._last.ts).total_seconds())
            yield alarm(RUN_SILENT, step, f"the last line is {quiet} old, and is no end")
        if self._lost:
            yield alarm(LINES_LOST, step, f"the disk refused {self._lost} lines")

    def _gap(self) -> float | None:
        last = self._evals[-1] if self._evals else None
        if last is None or last.loss is None:
            return None
        seen = [e for e in self._steps if e.loss is not None and _at_most(e.step, last.step)]
        recent = seen[-_RECENT:]
        # While the loss falls, what was logged before the last evaluation but one is too high.
        if len(self._evals) > 1:
            earlier = self._evals[-2].step
            recent = [e for e in recent if not _at_most(e.step, earlier)] or recent[-1:]
        losses = [e.loss for e in recent if e.loss is not None]
        return last.loss - median(losses) if losses else None

    def _tokens(self) -> float | None:
        """Per second, from the first to the last count of this process; evaluations included."""
        begun = self._start.ts if self._start else None
        counts = [
            e for e in self._steps if e.tokens_seen is not None and (not begun or e.ts >= begun)
        ]
        if len(counts) < 2:
            return None
        first, last = counts[0], counts[-1]
        seconds = (last.ts - first.ts).total_seconds()
        tokens = (last.tokens_seen or 0) - (first.tokens_seen or 0)
        return tokens / seconds if seconds > 0 else None

    def _disk(self) -> Disk | None:
        seen = [e for e in self._steps if e.disk_free_bytes is not None]
        if not seen:
            return None
        free = seen[-1].disk_free_bytes or 0
        found = trend(within([sample(e) for e in seen]), free)
        return Disk(
            free_bytes=free,
            bytes_per_second=found.per_second,
            seconds_to_full=found.seconds_to_full,
        )


class Log:
    """Reads the lines of a file that may hold several runs; the last one counts."""

    def __init__(self, run_id: str = "") -> None:
        self._asked = run_id
        self._runs: dict[str, Monitor] = {}
        self._last = ""

    def see(self, events: Iterable[Event]) -> None:
        """Take lines in."""
        for event in events:
            if event.run_id not in self._runs:
                self._runs[event.run_id] = Monitor(event.run_id)
            self._runs[event.run_id].see(event)
            self._last = event.run_id

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs in the file, in the order of their first lines."""
        return tuple(self._runs)

    def summary(self, path: str, *, now: datetime, torn: int, unknown: int) -> RunSummary | None:
        """Of the run that was asked for, or the one that wrote last; None if it is not there."""
        chosen = self._asked or self._last
        if chosen not in self._runs:
            return None
        others = tuple(run for run in self._runs if run != chosen)
        found = self._runs[chosen].summary(path, now=now)
        return msgspec.structs.replace(
            found, torn_lines=torn, unknown_lines=unknown, other_runs=others
        )


def _at_most(step: int | None, limit: int | None) -> bool:
    return step is None or limit is None or step <= limit


def _curve(points: Iterable[tuple[int | None, float | None]]) -> Curve | None:
    known = [(step, loss) for step, loss in points if step is not None and loss is not None]
    if not known:
        return None
    return Curve(
        first=known[0], best=min(known, key=lambda p: p[1]), last=known[-1], count=len(known)
    )


__all__ = ["AUDIT", "MONITOR", "Log", "Monitor"]
