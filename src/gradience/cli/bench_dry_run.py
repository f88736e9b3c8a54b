"""`gradience bench --dry-run`: the trials, what they cost, and the power of the test."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.visible import visible
from gradience.errors import ExitCode
from gradience.units import parse_duration, parse_size

if TYPE_CHECKING:
    from gradience.bench.plan.adopt import Accept
    from gradience.bench.plan.forecast import Forecast
    from gradience.bench.plan.prepare import Prepared
    from gradience.bench.records import Bench
    from gradience.bench.settings import BenchSettings


def dry_run(
    settings: "BenchSettings",
    output_dir: Path,
    *,
    accept: "tuple[Accept, ...]",
    measure: str | None,
    as_json: bool,
) -> int:
    """Show what a run would do; nothing is written to the output directory.

    Returns
    -------
    int
        The exit code: 5 where one trial alone is above the budget.
    """
    from gradience import artifacts  # noqa: PLC0415 - as all below: `--help` need not pay
    from gradience.bench.plan.forecast import FORECAST_SCHEMA  # noqa: PLC0415
    from gradience.bench.plan.forecast_report import page  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    seconds = None if measure is None else parse_duration(measure).total_seconds()
    found = _forecast(settings, output_dir, accept=accept, seconds=seconds)
    if as_json:
        click.echo(artifacts.encode(FORECAST_SCHEMA, found, now=datetime.now(UTC)), nl=False)
    else:
        show(page(found))
    return int(ExitCode.STORAGE_REFUSED if found.over else ExitCode.OK)


def ran_through(
    done: "Bench", settings: "BenchSettings", output_dir: Path, *, command: Sequence[str]
) -> None:
    """After a smoke run: that the config runs, and what the real one will take.

    Parameters
    ----------
    done : Bench
        What the smoke run was.
    settings, output_dir, command
        Of the real one.
    """
    from gradience.bench.plan.forecast_report import total  # noqa: PLC0415

    found = _forecast(settings, output_dir, accept=(), seconds=None)
    told = [
        f"The config runs through: all {len(done.trials)} trials of the smoke run are done. Their "
        "verdicts mean nothing.",
        f"A real run has {sum(row.trials for row in found.rows)} trials. {total(found)}",
        f"  {shlex.join(command)}",
    ]
    if found.seconds is None:
        told.append(f"  {shlex.join((*command, '--dry-run', '--measure', '2m'))}  # how long")
    for line in told:
        click.echo(visible(line), err=True)


def _forecast(
    settings: "BenchSettings",
    output_dir: Path,
    *,
    accept: "tuple[Accept, ...]",
    seconds: float | None,
) -> "Forecast":
    """What a run will take; with `seconds`, a probe is timed for so long."""
    from gradience.bench.ledger import Ledger  # noqa: PLC0415
    from gradience.bench.plan.forecast import forecast  # noqa: PLC0415
    from gradience.bench.plan.prepare import is_binary, prepare, slots_of  # noqa: PLC0415
    from gradience.bench.report.judged import history  # noqa: PLC0415

    prepared = prepare(settings, output_dir, accept=accept)
    ledger = Ledger(output_dir)
    budget = settings.disk_budget
    return forecast(
        prepared.bench,
        results=ledger.results(prepared.bench.trials),
        shapes=prepared.shapes,
        items=prepared.items,
        slots=slots_of(settings, os.environ),
        binary=is_binary(settings),
        budget=None if budget is None else parse_size(budget),
        measured=None if seconds is None else _measured(prepared, seconds),
        refused=prepared.refused,
        history=history(ledger.with_look(ledger.with_history(prepared.bench), at_all=True)),
    )


def _measured(prepared: "Prepared", seconds: float) -> Mapping[str, float]:
    from gradience.bench.plan.measure import measured_seconds  # noqa: PLC0415
    from gradience.cli.progress import progress_bar  # noqa: PLC0415

    with progress_bar(shown=sys.stderr.isatty()) as progress:
        return measured_seconds(prepared.bench, seconds=seconds, progress=progress)
