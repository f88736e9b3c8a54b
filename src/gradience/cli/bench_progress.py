"""A bench while it runs: bars on a terminal, a line now and then elsewhere."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from gradience.cli.visible import visible
from gradience.units import format_seconds

if TYPE_CHECKING:
    from gradience.bench.driver.progress import RunningTrial, Snapshot

_LINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Shown:
    """Where a run tells how far it is, and what the user should know."""

    watch: "Callable[[Snapshot], None]"
    notice: Callable[[str], None]


@contextmanager
def bench_progress(stream: TextIO) -> Iterator[Shown]:
    """Show a run on a stream for the length of the block."""
    if not stream.isatty():
        yield Shown(plain_lines(lambda line: click.echo(line, file=stream)), _notice)
        return
    with _bars() as shown:
        yield shown


@contextmanager
def interruptible(output_dir: Path) -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, and both say how to go on."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"What is done is kept in {visible(str(output_dir))}; the same command goes on.",
            err=True,
        )
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def plain_lines(
    write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> "Callable[[Snapshot], None]":
    """A watcher that writes a line when a trial ends, and at most every ten seconds otherwise."""
    told = (-1, -1)
    due = 0.0

    def watch(snapshot: "Snapshot") -> None:
        nonlocal told, due
        counts = (snapshot.done, snapshot.failed)
        if counts == told and (clock() < due or not snapshot.running):
            return
        told, due = counts, clock() + _LINE_SECONDS
        write(line(snapshot))

    return watch


def line(snapshot: "Snapshot") -> str:
    """A snapshot in one line."""
    failed = f", {snapshot.failed} failed" if snapshot.failed else ""
    parts = [f"{snapshot.done} of {snapshot.total} trials done{failed}"]
    parts += [f"{trial.name}: {_where(trial)}" for trial in snapshot.running]
    if snapshot.left:
        parts.append(f"{_left(snapshot)} left")
    return "; ".join(parts)


def _where(trial: "RunningTrial") -> str:
    left = f", {format_seconds(trial.left)} left" if trial.left else ""
    stage = f"{trial.stage} {trial.done}/{trial.total}" if trial.stage else "starting"
    return f"{stage}{left}"


def _left(snapshot: "Snapshot") -> str:
    more = "more than " if snapshot.at_least else "about "
    return more + format_seconds(snapshot.left or 0.0)


def _notice(sentence: str) -> None:
    click.echo(visible(sentence), err=True)


@contextmanager
def _bars() -> Iterator[Shown]:
    # Imported here: 50 ms that a pipe need not pay.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
        transient=True,
    ) as bars:
        whole = bars.add_task("trials", total=1, left="")
        running: dict[str, Any] = {}

        def watch(snapshot: "Snapshot") -> None:
            left = f"{_left(snapshot)} left" if snapshot.left else ""
            failed = f"{snapshot.failed} failed  " if snapshot.failed else ""
            ended = snapshot.done + snapshot.failed
            bars.update(whole, completed=ended, total=snapshot.total, left=failed + left)
            for gone in running.keys() - {trial.id for trial in snapshot.running}:
                bars.remove_task(running.pop(gone))
            for trial in snapshot.running:
                if trial.id not in running:
                    running[trial.id] = bars.add_task(trial.name, total=1, left="")
                bars.update(
                    running[trial.id],
                    description=f"{trial.name}: {trial.stage or 'starting'}",
                    completed=trial.done,
                    total=max(trial.total, 1),
                    left=f"{format_seconds(trial.left)} left" if trial.left else "",
                )

        yield Shown(watch, lambda sentence: console.print(Text(visible(sentence))))
