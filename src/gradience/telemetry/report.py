"""A run's summary as a page: record to text, pure."""

from itertools import groupby
from typing import Any

from gradience.page import Page, Table, Text, Tone, number, percent
from gradience.telemetry.records import Alarm, Curve, Event, RunSummary
from gradience.units import format_seconds, format_size

_TONES: dict[str, Tone] = {"error": "bad", "warning": "warn", "info": "plain"}
_STATUS_TONES: dict[str, Tone] = {"finished": "good", "running": "good"}
_MOST_STEPS = 5
_AUDITED = ("stable_rank_median", "energy_rank_90_median", "utilization_median")
_SHOWN = ("learning_rate", "per_device_train_batch_size", "lr_scheduler_type")


def page(run: RunSummary) -> Page:
    """What a log says about a run: how far, how well, how fast, and what is wrong."""
    parts: list[Text | Table] = [
        Text(text=_headline(run), tone=_STATUS_TONES.get(run.status, "bad")),
        *(Text(text=line, tone="dim") for line in _setting(run)),
    ]
    curves = [(name, curve) for name, curve in _curves(run) if curve is not None]
    if curves:
        rows = tuple((name, *map(_at, (c.first, c.best, c.last))) for name, c in curves)
        parts.append(Table(title="", head=("loss", "first", "best", "last"), rows=rows))
    parts += [Text(text=line) for line in _facts(run)]
    parts += _alarms(run)
    for advice in run.recommendations:
        parts.append(Text(text=f"{advice.code}: {advice.message}"))
        parts.append(Text(text=f"  {advice.remedy}", tone="dim"))
    parts += [Text(text=line, tone="dim") for line in _about_the_file(run)]
    return tuple(parts)


def line(event: Event) -> str:
    """One event as one line, for a log that is followed."""
    known = {
        field: getattr(event, field)
        for field in event.__struct_fields__
        if field not in ("schema", "ts", "run_id", "step", "config", "written_by")
    }
    words = [
        f"{name}={_short(value)}" for name, value in known.items() if value not in (None, {}, "")
    ]
    step = "" if event.step is None else f" step {event.step}"
    kind = event.__struct_config__.tag
    return f"{event.ts:%H:%M:%S}{step} {kind} {' '.join(words)}".rstrip()


def _short(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    return str(value)


def _headline(run: RunSummary) -> str:
    words = {"silent": "silent since", "running": "running, at"}
    where = f"{words.get(run.status, f'{run.status} at')} step {run.step}"
    if run.max_steps:
        where += f" of {run.max_steps} ({percent(run.step / run.max_steps)})"
    if run.seconds_left is not None:
        where += f", {format_seconds(run.seconds_left)} to go"
    if run.parts > 1:
        where += f", resumed {run.parts - 1} time{'s' if run.parts > 2 else ''}"
    return f"Run {run.run_id}: {where}."


def _setting(run: RunSummary) -> list[str]:
    training, adapter = run.config.get("training"), run.config.get("adapter")
    words = [str(run.config[name]) for name in ("model", "trainer") if run.config.get(name)]
    if isinstance(adapter, dict):
        words += [f"{name} {adapter[name]}" for name in ("r", "lora_alpha") if name in adapter]
    if isinstance(training, dict):
        words += [f"{name} {training[name]}" for name in _SHOWN if name in training]
    return [", ".join(words)] if words else []


def _curves(run: RunSummary) -> tuple[tuple[str, Curve | None], ...]:
    return (("training", run.train), ("evaluation", run.eval))


def _at(point: tuple[int, float]) -> str:
    step, value = point
    return f"{number(value)} at {step}"


def _facts(run: RunSummary) -> list[str]:
    found = []
    if run.gap is not None:
        found.append(f"gap (evaluation - training)  {number(run.gap)}")
    if run.grad_norm_median is not None:
        found.append(
            f"gradient norm                {number(run.grad_norm_median)} median, "
            f"{number(run.grad_norm_max)} largest"
        )
    if run.steps_per_second is not None:
        tokens = f", {number(run.tokens_per_second)} tokens/s" if run.tokens_per_second else ""
        found.append(f"throughput                   {number(run.steps_per_second)} steps/s{tokens}")
    if run.disk is not None:
        found.append(f"disk                         {_disk(run)}")
    if run.audit:
        found.append(f"audit                        {_audit(run.audit)}")
    return found


def _audit(values: dict[str, Any]) -> str:
    summary = values.get("summary", {})
    words = [f"{values.get('verdict')}, rank {values.get('max_rank')}"]
    words += [f"{name} {_short(summary[name])}" for name in _AUDITED if name in summary]
    return ", ".join(words)


def _disk(run: RunSummary) -> str:
    assert run.disk is not None
    words = f"{format_size(run.disk.free_bytes)} can be written"
    rate = run.disk.bytes_per_second
    if rate is None:
        return words
    if run.disk.seconds_to_full is None:
        return f"{words}, {'growing' if rate < 0 else 'steady'}"
    return (
        f"{words}, {format_size(round(rate))} a second less, full in "
        f"{format_seconds(run.disk.seconds_to_full)}"
    )


def _alarms(run: RunSummary) -> list[Text | Table]:
    if not run.alarms:
        return [Text(text="No alert.", tone="good")]
    by_code = sorted(run.alarms, key=lambda a: (-a.severity.weight, a.code))
    parts: list[Text | Table] = []
    for code, members in groupby(by_code, key=lambda a: a.code):
        same = list(members)
        words = f"{same[0].severity}: {_said(same)}{_where(same)} [{code}]"
        parts.append(Text(text=words, tone=_TONES[same[0].severity]))
        parts.append(Text(text=f"  {same[-1].remedy}", tone="dim"))
    return parts


def _said(same: list[Alarm]) -> str:
    return same[0].message if len(same) == 1 else f"{same[-1].message} (the last of {len(same)})"


def _where(same: list[Alarm]) -> str:
    steps = [str(a.step) for a in same if a.step is not None]
    if not steps:
        return ""
    more = f" and {len(steps) - _MOST_STEPS} more" if len(steps) > _MOST_STEPS else ""
    return f", at step {', '.join(steps[:_MOST_STEPS])}{more}"


def _about_the_file(run: RunSummary) -> list[str]:
    found = []
    if run.torn_lines:
        found.append(f"{run.torn_lines} line(s) of {run.path} were cut off and skipped.")
    if run.unknown_lines:
        found.append(f"{run.unknown_lines} line(s) were written by a newer gradience and skipped.")
    if run.other_runs:
        found.append(f"Other runs in the file, for --run: {', '.join(run.other_runs)}.")
    return found
