"""`gradience monitor`: what a run's log says, once or while it grows."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.fail_on import fail_on_option
from gradience.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from gradience.cli.looks import Forms
    from gradience.telemetry.follow import Followed, Look
    from gradience.telemetry.records import RunSummary

_EVERY_SECONDS = 1.0


@click.command()
@click.argument("log", type=click.Path(path_type=Path), metavar="LOG")
@click.option("--follow", "-f", is_flag=True, help="Look again every second until the run ends.")
@click.option("--run", "run_id", default="", metavar="ID", help="One run of several in the file.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, nothing else.")
@fail_on_option(default=("warning",), what="an alert")
def monitor(
    *, log: Path, follow: bool, run_id: str, as_json: bool, fail_on: tuple[str, ...]
) -> int:
    """Say how a training run goes: loss, gap, gradients, throughput, disk, and what is wrong.

    LOG is the run.jsonl that GradienceCallback writes, or the output_dir that holds it. Works while
    the run is going on and after it was killed.

    \b
    gradience monitor out/run.jsonl
    gradience monitor out --follow
    gradience monitor out --fail-on error && python next_stage.py
    gradience monitor out --json | jq .content.alarms

    Exit codes: 0 no alert; 1 an alert of --fail-on; 2 usage; 3 no log that can be read.
    """
    from gradience.cli.looks import shown  # noqa: PLC0415 - `--help` need not pay
    from gradience.findings import check_fail_on, failing  # noqa: PLC0415
    from gradience.telemetry.finding_kinds import MONITOR  # noqa: PLC0415
    from gradience.telemetry.follow import Followed  # noqa: PLC0415

    check_fail_on(fail_on, MONITOR, page="docs/findings.md")
    followed = Followed(log, run_id)
    last: RunSummary | None = None
    forms = _forms(indent=0 if follow else 2)
    with shown(forms, as_json=as_json, page_once=not follow) as show:
        try:
            for look in _looks(followed, follow=follow):
                last = look.summary
                show(look)
        except KeyboardInterrupt:
            if last is None:
                raise
    if last is None:
        raise UsageError(
            f"{followed.path} has no run {run_id!r}" if run_id else f"{followed.path} has no lines",
            remedy=f"It has {', '.join(followed.run_ids)}."
            if followed.run_ids
            else "The run has not begun; --follow waits for it.",
        )
    return int(ExitCode.BAD_NEWS if failing(last.alarms, fail_on) else ExitCode.OK)


def _looks(followed: "Followed", *, follow: bool) -> "Iterator[Look]":
    from datetime import UTC, datetime  # noqa: PLC0415 - as above

    while True:
        look = followed.look(now=datetime.now(UTC), ended=not follow)
        if look is not None:
            yield look
        if not follow or (look is not None and look.summary.status not in ("running", "silent")):
            return
        time.sleep(_EVERY_SECONDS)


def _forms(*, indent: int) -> "Forms[Look]":
    from datetime import UTC, datetime  # noqa: PLC0415 - as above

    from gradience import artifacts  # noqa: PLC0415
    from gradience.cli.looks import Forms  # noqa: PLC0415
    from gradience.telemetry.records import SUMMARY_SCHEMA  # noqa: PLC0415
    from gradience.telemetry.report import line, page  # noqa: PLC0415

    def json(look: "Look") -> bytes:
        if not look.events:
            return b""
        return artifacts.encode(SUMMARY_SCHEMA, look.summary, now=datetime.now(UTC), indent=indent)

    return Forms(
        json=json,
        page=lambda look: page(look.summary),
        lines=lambda look: map(line, look.events),
    )
