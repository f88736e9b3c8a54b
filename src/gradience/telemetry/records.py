"""The lines of a run's log, and what a reader makes of them.

Every line carries `schema`, `ts`, `run_id`, `event` and `step`; the rest depends on the event. A
number that was NaN or infinite is absent, and named in `not_finite`: JSON has no word for it.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

from gradience.findings import Finding, Severity

SCHEMA = "gradience.vnext.telemetry/v1"
SUMMARY_SCHEMA = "gradience.monitor/v1"
NAME = "run.jsonl"

Ended = Literal["finished", "stopped", "failed"]
Status = Literal["running", "silent", "finished", "stopped", "failed"]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """What every line carries.

    Attributes
    ----------
    schema : str
        `gradience.vnext.telemetry/v1`.
    ts : datetime
        UTC.
    run_id : str
        The same before and after a resume; another one for a run that began anew.
    step : int or None
        The optimizer step, where there is one.
    """

    schema: str
    ts: datetime
    run_id: str
    step: int | None


class RunStart(Line, frozen=True, kw_only=True, omit_defaults=True, tag="run_start"):
    """A process begins to train.

    Attributes
    ----------
    config : mapping
        `trainer`, `training` (its arguments), `adapter` (of PEFT), `model`; long texts redacted.
    max_steps : int or None
        Where the run will end.
    resumed_from_step : int or None
        What an earlier part logged beyond this step did not count in the end.
    """

    written_by: str
    config: dict[str, Any] = {}
    max_steps: int | None = None
    resumed_from_step: int | None = None


class TrainStep(Line, frozen=True, kw_only=True, omit_defaults=True, tag="train_step"):
    """What the Trainer logged about training.

    Attributes
    ----------
    loss : float or None
        Mean since the step logged before.
    grad_norm : float or None
        Of this step, before clipping.
    tokens_seen : int or None
    disk_free_bytes : int or None
        What can still be written; only when it was looked at anew.
    metrics : mapping
        Every other number.
    not_finite : mapping
        Name of a number to what stood there: `nan`, `inf` or `-inf`.
    """

    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    epoch: float | None = None
    tokens_seen: int | None = None
    disk_free_bytes: int | None = None
    metrics: dict[str, float] = {}
    not_finite: dict[str, str] = {}


class Eval(Line, frozen=True, kw_only=True, omit_defaults=True, tag="eval"):
    """An evaluation; `loss` is `eval_loss`, `metrics` the other numbers."""

    loss: float | None = None
    metrics: dict[str, float] = {}
    not_finite: dict[str, str] = {}


class Metrics(Line, frozen=True, kw_only=True, omit_defaults=True, tag="metrics"):
    """Facts of one kind, such as an audit's summary, or a checkpoint that was saved."""

    kind: str
    values: dict[str, Any] = {}


class Alert(Line, frozen=True, kw_only=True, omit_defaults=True, tag="alert"):
    """Something is wrong with the run; `code` is listed in docs/findings.md."""

    code: str
    severity: Severity
    message: str
    remedy: str = ""


class Recommendation(Line, frozen=True, kw_only=True, omit_defaults=True, tag="recommendation"):
    """Something could be better; `source` says who found so."""

    code: str
    message: str
    remedy: str = ""
    source: str = ""


class RunEnd(Line, frozen=True, kw_only=True, omit_defaults=True, tag="run_end"):
    """The process ends its training.

    Attributes
    ----------
    reason : str
        The error, or why it was stopped.
    seconds : float
        Since its `run_start`.
    lost_lines : int
        Lines that the disk refused.
    """

    status: Ended
    seconds: float
    reason: str = ""
    lost_lines: int = 0


Event = RunStart | TrainStep | Eval | Metrics | Alert | Recommendation | RunEnd


class Alarm(Finding, frozen=True, kw_only=True, omit_defaults=True):
    """A finding about a run, at a step."""

    step: int | None = None


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A loss over a run; each value with its step."""

    first: tuple[int, float]
    best: tuple[int, float]
    last: tuple[int, float]
    count: int


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What can still be written, and how that changes; None where it does not."""

    free_bytes: int
    bytes_per_second: float | None = None
    seconds_to_full: float | None = None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a log says about one run. What the log does not tell is absent.

    Attributes
    ----------
    status : str
        `silent`: no end was logged, and nothing else for longer than lines usually are apart.
    parts : int
        Processes that trained it: one more than it was resumed.
    gap : float or None
        Last evaluation loss less the training loss at that time: the median of the last ten values
        logged since the evaluation before it.
    grad_norm_median, grad_norm_max : float or None
    steps_per_second, tokens_per_second : float or None
        Median over the logged steps, without evaluations and saves.
    seconds_left : float or None
        Of the training steps alone.
    lost_lines : int
        Lines that the disk refused.
    torn_lines : int
        Lines that were not whole, in the whole file.
    unknown_lines : int
        Lines of events that a newer release wrote.
    other_runs : tuple of str
        Runs in the same file.
    """

    path: str
    run_id: str
    status: Status
    started: datetime
    last: datetime
    step: int = 0
    parts: int = 1
    reason: str = ""
    max_steps: int | None = None
    config: dict[str, Any] = {}
    train: Curve | None = None
    eval: Curve | None = None
    eval_metrics: dict[str, float] = {}
    gap: float | None = None
    grad_norm_median: float | None = None
    grad_norm_max: float | None = None
    steps_per_second: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    disk: Disk | None = None
    alarms: tuple[Alarm, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    audit: dict[str, Any] = {}
    lost_lines: int = 0
    torn_lines: int = 0
    unknown_lines: int = 0
    other_runs: tuple[str, ...] = ()
