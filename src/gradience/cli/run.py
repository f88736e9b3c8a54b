"""`gradience run`: a program of any kind, with its disks looked after."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradience.cli.preflight import answer, run_options, settings_of
from gradience.cli.visible import visible
from gradience.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradience.storage.guard.records import Cleaner
    from gradience.storage.outside.policy import Policy
    from gradience.storage.outside.records import Outcome
    from gradience.storage.preflight.settings import RunSettings


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML: when to ask the program to stop, how, and what may be done first.",
)
@click.option(
    "--preflight",
    "config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Look first whether the run fits: a file as `gradience preflight` takes it.",
)
@click.option(
    "--on-full",
    type=click.Choice(["stop", "warn"]),
    default="stop",
    show_default=True,
    help="Where the preflight says that it does not fit.",
)
@click.option(
    "--json",
    "record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write how it ended to FILE: standard output is the command's own.",
)
@click.option("--no-env", is_flag=True, help="Set no variables and make no caches' directories.")
@run_options
@click.option("--offline", is_flag=True, help="Do not ask the Hub: what is cached must do.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def run(
    *,
    policy_file: Path | None,
    config: Path | None,
    on_full: str,
    record: Path | None,
    no_env: bool,
    offline: bool,
    command: tuple[str, ...],
    **flags: Any,
) -> int:
    """Run COMMAND, and ask it to stop while its disk has room for a last save.

    Input, output and signals are the command's own. Before a disk is full: what the policy allows
    is cleaned, a reserve is released, then the program is asked by a signal or a file. Nothing is
    killed. A summary goes to standard error. Options of `gradience preflight` make it look first.

    \b
    What it changes:
        variables     for COMMAND alone, those of `gradience env` for whose place no variable
                      decides yet; it names them. None with --no-env, `environment: false`, or
                      where caches lie elsewhere by now
        directories   of these variables, --output-dir and `watch` are made
        reserve       a file without a name on each disk, until COMMAND is asked or ends
        stop_file     is made when COMMAND is asked

    \b
    gradience run -- python train.py --output_dir runs/a
    gradience run --output-dir runs/a --policy policy.yaml --json run.json -- ./train.sh
    gradience run --preflight args.json -- accelerate launch train.py args.json

    \b
    A policy, with what is the default but for clean and stop_file:
        stop_below: 2GB           # or a tenth of the room, where that is less
        ballast: 1GB              # held, and released when the program is asked
        signal: TERM
        grace: 60s
        clean: [--idle, 30d]      # arguments of `gradience cache clean`
        stop_file: runs/a/STOP    # asked by this file, after the grace by the signal

    Exit codes: the command's own, 128 + n for a signal; 2 usage; 5 does not fit; 126, 127 where the
    command cannot be run.
    """
    from gradience.storage.outside import run as outside  # noqa: PLC0415 - `--help` need not pay

    policy = _policy(policy_file)
    environ = dict(os.environ) if no_env or not policy.environment else _environment()
    asked = _to_ask(config, flags)
    if asked is not None:
        _preflight(asked, environ, online=not offline, refuses=on_full == "stop")
    places = _places(policy, asked.output_dir if asked else flags["output_dir"])
    outcome = outside.run(
        command,
        policy,
        places,
        environ=environ,
        home=Path.home(),
        clean=_cleaner(policy, places),
        say=_say,
    )
    return _told(outcome, record)


def _write(record: Path, outcome: "Outcome") -> None:
    """Write how it ended; on a disk that refuses, the exit code stays that of the command."""
    from datetime import UTC, datetime  # noqa: PLC0415 - `--help` need not pay

    from gradience import artifacts, files  # noqa: PLC0415 - as above
    from gradience.storage.outside.records import SCHEMA  # noqa: PLC0415 - as above

    try:
        files.replace(record, artifacts.encode(SCHEMA, outcome, now=datetime.now(UTC)))
    except StorageError as error:
        _say(str(error))


def _say(line: str) -> None:
    click.echo(f"gradience run: {visible(line)}", err=True)


def _told(outcome: "Outcome", record: Path | None) -> int:
    """The exit code, with how it came to it; nothing is told of a command that was never run."""
    from gradience.storage.outside.words import summary  # noqa: PLC0415 - `--help` need not pay

    for line in summary(outcome) if outcome.disks else ():
        _say(line)
    if record is not None:
        _write(record, outcome)
    return outcome.code


def _to_ask(config: Path | None, flags: dict[str, Any]) -> "RunSettings | None":
    """What is to be run, where a file or a flag beside the output directory says so."""
    given = {name for name, value in flags.items() if value is not None}
    return None if config is None and given <= {"output_dir"} else settings_of(config, flags)


def _preflight(
    settings: "RunSettings", environ: "Mapping[str, str]", *, online: bool, refuses: bool
) -> None:
    """Ask whether it fits, and say so.

    Raises
    ------
    StorageError
        If it does not, and that is a reason not to start.
    """
    from gradience.storage.preflight import report  # noqa: PLC0415 - `--help` need not pay
    from gradience.storage.preflight.forecast import sentence  # noqa: PLC0415 - as above

    found = answer(settings, online=online, environ=environ)
    _say(f"preflight: {report.answer(found)}")
    for disk in found.disks:
        if disk.verdict != "fits":
            _say(sentence(disk, found.schedule))
    for line in (*(f"not known: {line}" for line in found.unknown), *found.advice):
        _say(line)
    if found.verdict == "no" and refuses:
        raise StorageError(
            "the run does not fit, so it was not started",
            remedy="See `gradience preflight` for the arithmetic; --on-full warn starts it anyway.",
        )


def _environment() -> dict[str, str]:
    """The environment with what `gradience env` would set, where no variable decides yet."""
    from gradience.storage.environment.choose import environment  # noqa: PLC0415
    from gradience.storage.environment.directories import create_directories  # noqa: PLC0415
    from gradience.storage.environment.machine import read_machine  # noqa: PLC0415
    from gradience.storage.environment.readers import undecided  # noqa: PLC0415

    machine = read_machine(os.environ)
    chosen = environment(machine)
    missing = undecided(chosen.layout.values, os.environ, machine.home, host=machine.host)
    if not missing or not chosen.here:
        return dict(os.environ)
    if chosen.left_behind:
        _say("caches lie elsewhere by now, so no variable was set: see `gradience env --explain`.")
        return dict(os.environ)
    layout = chosen.layout
    create_directories(
        replace(layout, settings=tuple(s for s in layout.settings if s.name in missing))
    )
    _say(f"set as by `gradience env`, below {layout.root}: {', '.join(missing)}.")
    return {**os.environ, **missing}


def _places(policy: "Policy", output: str | None) -> list[Path]:
    """Directories to watch, one for each disk; those that are not there yet are made."""
    from gradience import files  # noqa: PLC0415 - `--help` need not pay
    from gradience.paths import as_path  # noqa: PLC0415 - as above

    found: dict[int, Path] = {}
    for name in policy.watch or (output or os.curdir,):
        path = as_path(name, Path.home()).absolute()
        files.make_dir(path)
        found.setdefault(path.stat().st_dev, path)
    return list(found.values())


def _policy(file: Path | None) -> "Policy":
    """The policy of a file, with what it allows to be cleaned looked at before anything starts."""
    from gradience.storage.guard.cleaning import check_arguments  # noqa: PLC0415 - as below
    from gradience.storage.outside.policy import read_policy  # noqa: PLC0415 - as below

    policy = read_policy(file)
    if policy.clean is not None:
        check_arguments(policy.clean, os.environ)
    return policy


def _cleaner(policy: "Policy", places: list[Path]) -> "Cleaner | None":
    """Runs the cleaning that the policy allows."""
    from gradience.storage.guard.cleaning import cleaner  # noqa: PLC0415 - `--help` need not pay

    if policy.clean is None:
        return None
    return cleaner(
        policy.clean, places, environ=os.environ, home=Path.home(), seconds=policy.grace_seconds
    )
