"""`gradience doctor`: parse, call the library, print, exit."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.fail_on import fail_on_option
from gradience.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from gradience.storage.doctor.facts import Unfinished
    from gradience.storage.doctor.gather import Machine
    from gradience.storage.doctor.records import Diagnosis

_FEW = 3  # libraries are asked within a second or two


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--project",
    "projects",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Look below DIR for checkpoints and downloads too. May be given more than once.",
)
@click.option(
    "--python",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="The interpreter whose libraries are asked. [default: that of the command, else this one]",
)
@click.option(
    "--library",
    "only",
    multiple=True,
    metavar="NAME",
    help="Ask this library alone. May be given more than once. [default: all that are installed]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON alone.")
@fail_on_option(default=("error",), page="docs/doctor.md")
@click.option("--no-cache", is_flag=True, help="Ask every library again.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def doctor(
    *,
    projects: tuple[Path, ...],
    python: Path | None,
    only: tuple[str, ...],
    as_json: bool,
    fail_on: tuple[str, ...],
    no_cache: bool,
    command: tuple[str, ...],
) -> int:
    """Find out where each library's bytes really go, and what is wrong with that.

    Every installed library is asked in a process of its own, with this environment. With COMMAND
    (or the path of a script) it is read, never run, and what that program will use is shown. Each
    finding ends with the command that mends it.

    \b
    gradience doctor
    gradience doctor --project runs/
    gradience doctor -- HF_HOME=/data/hf python train.py --output_dir out
    gradience doctor --fail-on warning --json > doctor.json   # in CI
    """
    # Imported here: `--help` need not pay for them.
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.cli.progress import progress_bar  # noqa: PLC0415
    from gradience.findings import check_fail_on, failing  # noqa: PLC0415
    from gradience.storage.doctor.finding_kinds import DOCTOR  # noqa: PLC0415
    from gradience.storage.doctor.run import diagnose  # noqa: PLC0415

    check_fail_on(fail_on, DOCTOR, page="docs/doctor.md")
    now = datetime.now(UTC)
    with progress_bar(shown=sys.stderr.isatty()) as progress:
        diagnosis = diagnose(
            _machine(python, now),
            command=command,
            projects=projects,
            named_python=python is not None,
            only=only,
            use_cache=not no_cache,
            progress=progress or _tell,
            find_unfinished=_unfinished,
        )
    _show(diagnosis, as_json=as_json, now=now)
    matched = failing(diagnosis.plain_findings(), fail_on)
    return int(ExitCode.BAD_NEWS if matched else ExitCode.OK)


def _unfinished(places: "Iterable[str]") -> "list[Unfinished]":
    from gradience.storage.change.move.unfinished import find  # noqa: PLC0415 - as above
    from gradience.storage.doctor.facts import Unfinished  # noqa: PLC0415

    return [
        Unfinished(words=each.words, command=each.command, places=(each.old, each.new))
        for each in find(places)
    ]


def _tell(stage: str, done: int, total: int) -> None:
    """One line where no bar is drawn, before what takes seconds the first time."""
    from gradience.storage.doctor.probe import ASKING  # noqa: PLC0415 - as above

    if stage == ASKING and done == 0 and total > _FEW:
        click.echo(
            f"asking {total} libraries where they write, each in a process of its own; what they "
            "say is remembered",
            err=True,
        )


def _machine(python: Path | None, now: "datetime") -> "Machine":
    from gradience.storage.doctor.gather import Machine  # noqa: PLC0415
    from gradience.storage.environment.host import working_directory  # noqa: PLC0415

    umask = os.umask(0o077)
    os.umask(umask)
    return Machine(
        environ=dict(os.environ),
        home=Path.home(),
        cwd=working_directory(),
        python=python or Path(sys.executable),
        now=now,
        umask=umask,
    )


def _show(diagnosis: "Diagnosis", *, as_json: bool, now: "datetime") -> None:
    if as_json:
        from gradience import artifacts  # noqa: PLC0415
        from gradience.storage.doctor.records import SCHEMA  # noqa: PLC0415
        from gradience.storage.inventory.records import for_json  # noqa: PLC0415

        click.echo(artifacts.encode(SCHEMA, for_json(diagnosis), now=now), nl=False)
    else:
        from gradience.cli.render import show  # noqa: PLC0415
        from gradience.storage.doctor.report import page  # noqa: PLC0415

        show(page(diagnosis))
