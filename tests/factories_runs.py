"""Lines of a run's log, as a callback writes them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from gradience.telemetry.records import SCHEMA, Eval, Event, RunEnd, RunStart, TrainStep

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def make_line(kind: type[Event], step: int | None, seconds: float, /, **facts: object) -> Event:
    at = BEGUN + timedelta(seconds=seconds)
    return kind(schema=SCHEMA, ts=at, run_id=str(facts.pop("run_id", "r1")), step=step, **facts)


def make_start(seconds: float = 0, **facts: object) -> RunStart:
    return make_line(RunStart, 0, seconds, written_by="test", max_steps=1000, **facts)


def make_steps(losses: Iterable[float], *, first: int = 1, **facts: object) -> list[Event]:
    """One logged step a second."""
    return [
        make_line(TrainStep, first + i, first + i, loss=loss, grad_norm=1.0, **facts)
        for i, loss in enumerate(losses)
    ]


def make_eval(step: int, loss: float) -> Event:
    return make_line(Eval, step, step, loss=loss)


def make_end(step: int, status: str = "finished", **facts: object) -> RunEnd:
    return make_line(RunEnd, step, step, status=status, seconds=float(step), **facts)


def write_log(path: Path, *events: Event) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    return path
