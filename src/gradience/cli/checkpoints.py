"""`gradience checkpoints`: what resumes, what is broken and why, what may go."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.lazy import LazyGroup
from gradience.cli.whole import Whole
from gradience.errors import ExitCode, UsageError
from gradience.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradience.storage.checkpoints.records import Listing, Removal

COMMANDS: Registry[click.Command] = Registry(
    "command",
    {
        "ls": "gradience.cli.checkpoints:ls",
        "verify": "gradience.cli.checkpoints:verify",
        "prune": "gradience.cli.checkpoints:prune",
    },
)


@click.group(cls=LazyGroup, table=COMMANDS)
def checkpoints() -> None:
    """See which checkpoints of a training run resume, what is broken, and remove what may go.

    \b
    gradience checkpoints ls runs/            # every run below, and what a resume would take
    gradience checkpoints verify out --deep   # read every byte
    gradience checkpoints prune out --keep 2  # shows a plan and asks
    """


def runs(command: "Callable[..., int]") -> "Callable[..., int]":
    """The argument that says where to look."""
    return click.argument(
        "directories",
        nargs=-1,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="[DIR]...",
    )(command)


@click.command()
@runs
@click.option("--json", "as_json", is_flag=True, help="Print the listing as JSON, nothing else.")
def ls(*, directories: tuple[Path, ...], as_json: bool) -> int:
    """List the checkpoints at and below DIR (default: here): step, size, whether a resume works.

    \b
    gradience checkpoints ls
    gradience checkpoints ls runs/my-run --json
    """
    import time  # noqa: PLC0415

    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.checkpoints.report import listing  # noqa: PLC0415

    found = _find(directories)
    if as_json:
        return _json(found)
    show(listing(found, now=time.time()))
    return int(ExitCode.OK)


@click.command()
@runs
@click.option("--deep", is_flag=True, help="Read every byte: checksums, and weights of zeros.")
@click.option("--json", "as_json", is_flag=True, help="Print the listing as JSON, nothing else.")
def verify(*, directories: tuple[Path, ...], deep: bool, as_json: bool) -> int:
    """Check every checkpoint at and below DIR (default: here), and say what is broken and why.

    Without --deep only names, sizes, headers and the ends of archives are read. Exits with 1 where
    one is broken.

    \b
    gradience checkpoints verify runs/my-run
    gradience checkpoints verify runs/my-run/checkpoint-500 --deep
    """
    import time  # noqa: PLC0415

    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.checkpoints.report import verification  # noqa: PLC0415

    found = _find(directories, deep=deep)
    if as_json:
        _json(found)
    else:
        show(verification(found, now=time.time()))
    broken = any(not c.complete for run in found.runs for c in run.checkpoints)
    return int(ExitCode.BAD_NEWS if broken else ExitCode.OK)


@click.command()
@runs
@click.option(
    "--keep",
    type=Whole(min=1),
    default=1,
    show_default=True,
    help="How many complete checkpoints of each run stay.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON, nothing else.")
def prune(
    *, directories: tuple[Path, ...], keep: int, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Remove older checkpoints, broken ones, and what unfinished saves left, below DIR.

    Never removed: the newest complete checkpoint, the best one, what a process has open, and
    anything of a run that is going on. What is incomplete stays for two minutes after it was last
    written: a run without GradienceCallback tells nobody that it saves. Shows the plan and asks;
    exits with 1 where something was left.

    \b
    gradience checkpoints prune runs --keep 2 --dry-run
    gradience checkpoints prune runs/my-run --yes
    """
    import time  # noqa: PLC0415

    from gradience.storage.checkpoints import prune as rules  # noqa: PLC0415
    from gradience.storage.checkpoints.records import Listing  # noqa: PLC0415

    found = _find(directories)
    now = time.time()
    planned = rules.plan(found.runs, keep=keep, now=now)
    alone = rules.left_alone(found.runs, keep=keep, now=now)
    if dry_run or not planned:
        return _outcome(Listing(runs=found.runs, removals=planned), alone, as_json=as_json)
    if not yes:
        _ask(planned, alone, as_json=as_json)
    return _remove(found, planned, alone, keep=keep, as_json=as_json)


def _ask(planned: "tuple[Removal, ...]", alone: tuple[str, ...], *, as_json: bool) -> None:
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.checkpoints.report import removals  # noqa: PLC0415
    from gradience.units import plural  # noqa: PLC0415

    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{plural(len(planned), 'thing')} would be removed, and nobody can be asked",
            remedy="Look at the plan with --dry-run, then say --yes.",
        )
    show(removals(planned, alone, heading="To be removed"))
    click.confirm(f"Remove these {len(planned)}?", abort=True, err=True)


def _remove(
    found: "Listing",
    planned: "tuple[Removal, ...]",
    alone: tuple[str, ...],
    *,
    keep: int,
    as_json: bool,
) -> int:
    from gradience.cli.progress import progress_bar  # noqa: PLC0415
    from gradience.storage.checkpoints.apply import prune as apply  # noqa: PLC0415
    from gradience.storage.checkpoints.records import Listing  # noqa: PLC0415

    with progress_bar(shown=sys.stderr.isatty()) as progress:
        done, freed = apply(planned, keep=keep, progress=progress)
    listing = Listing(runs=found.runs, removals=done, freed_bytes=freed)
    return _outcome(listing, alone, as_json=as_json)


def _outcome(found: "Listing", alone: tuple[str, ...], *, as_json: bool) -> int:
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.page import Text  # noqa: PLC0415
    from gradience.storage.checkpoints.report import removals  # noqa: PLC0415
    from gradience.units import format_size  # noqa: PLC0415

    if as_json:
        _json(found)
    else:
        freed = found.freed_bytes
        heading = "Would be removed" if freed is None else "Removed"
        show(removals(found.removals, alone, heading=heading))
        if freed is not None:
            show((Text(text=f"{format_size(freed)} freed."),))
    left = any(removal.done is False for removal in found.removals)
    return int(ExitCode.BAD_NEWS if left else ExitCode.OK)


def _find(directories: tuple[Path, ...], *, deep: bool = False) -> "Listing":
    from gradience import system  # noqa: PLC0415
    from gradience.cli.progress import progress_bar  # noqa: PLC0415
    from gradience.storage.checkpoints.find import find  # noqa: PLC0415
    from gradience.storage.checkpoints.records import Listing  # noqa: PLC0415

    with progress_bar(shown=sys.stderr.isatty()) as progress:
        where = directories or (Path(),)
        return Listing(runs=find(where, deep=deep, holders=system.holders(), progress=progress))


def _json(found: "Listing") -> int:
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.storage.checkpoints.records import SCHEMA  # noqa: PLC0415
    from gradience.storage.inventory.records import for_json  # noqa: PLC0415

    click.echo(artifacts.encode(SCHEMA, for_json(found), now=datetime.now(UTC)), nl=False)
    return int(ExitCode.OK)
