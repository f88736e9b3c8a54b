"""Show a plan, ask, carry it out, show the receipt: the same for every command that changes."""

import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from gradience.cli.cache import host_and_places
from gradience.cli.visible import visible
from gradience.errors import ArtifactError, ExitCode, StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gradience.storage.change.move.ends import Unfinished
    from gradience.storage.change.records import Plan, Receipt


class Asked(TypedDict):
    """What the options of `acting` say; `settle` takes them as they are."""

    dry_run: bool
    yes: bool
    as_json: bool
    plan_file: Path | None
    show_all: bool


def acting(command: "Callable[..., int]") -> "Callable[..., int]":
    """The options of a command that makes a plan and may carry it out."""
    options = [
        click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing."),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            help="Print the plan (with --dry-run) or the receipt as JSON.",
        ),
        click.option(
            "--plan",
            "plan_file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write the plan to FILE, and change nothing: `gradience cache apply FILE` does.",
        ),
        click.option("--all", "show_all", is_flag=True, help="All rows, not only the first."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def new_id(now: datetime) -> str:
    """A name for a change: when, and four random digits."""
    return f"{now:%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


def settle(
    plan: "Plan",
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    plan_file: Path | None = None,
    show_all: bool = False,
    in_place: bool = False,
    agreed: "Callable[[Plan], None] | None" = None,
) -> int:
    """Show a plan, and carry it out once that is agreed; the exit code.

    Parameters
    ----------
    agreed : callable, optional
        Given the plan after that, before anything is changed.
    """
    from gradience.storage.change.records import PLAN_SCHEMA  # noqa: PLC0415

    if plan_file is not None:
        from gradience import files  # noqa: PLC0415

        files.replace(plan_file, encoded(PLAN_SCHEMA, plan))
        click.echo(f"wrote {plan_file}", err=True)
    if dry_run or plan_file is not None:
        _show_plan(plan, as_json=as_json, show_all=show_all)
        return int(ExitCode.OK)
    if not plan.actions:
        if as_json:
            _show_receipt(_nothing(plan), as_json=True)
        else:
            _show_plan(plan, as_json=False, show_all=show_all)
        return int(ExitCode.OK)
    if not as_json:
        _show_plan(plan, as_json=False, show_all=show_all)
    if not yes:
        _ask()
    if agreed is not None:
        agreed(plan)
    receipt = carry_out(plan, in_place=in_place)
    _show_receipt(receipt, as_json=as_json)
    return int(ExitCode.OK if receipt.complete else ExitCode.BAD_NEWS)


def carry_out(plan: "Plan", *, in_place: bool = False) -> "Receipt":
    """Apply a plan, with a bar where somebody looks."""
    from gradience import system  # noqa: PLC0415
    from gradience.cli.progress import progress_bar  # noqa: PLC0415
    from gradience.storage.change.apply import apply  # noqa: PLC0415
    from gradience.storage.change.move.run import move  # noqa: PLC0415

    with progress_bar(shown=sys.stderr.isatty()) as progress:
        if any(action.verb in ("move", "merge") for action in plan.actions):
            return move(
                plan,
                holders=system.holders,
                environ=os.environ,
                home=Path.home(),
                progress=progress,
            )
        return apply(plan, holders=system.holders, in_place=in_place, progress=progress)


def encoded(schema: str, record: object) -> bytes:
    """A plan or a receipt as a file."""
    from gradience import artifacts  # noqa: PLC0415

    return artifacts.encode(schema, record, now=datetime.now(UTC))


def all_roots(also: tuple[str, ...], projects: tuple[Path, ...]) -> list[str]:
    """The directories that commands which change may touch, without links."""
    return [os.path.realpath(path) for path in _all_named(also, projects)]


def _all_named(also: tuple[str, ...], projects: tuple[Path, ...]) -> list[Path]:
    from gradience.storage.inventory.places import places  # noqa: PLC0415

    machine, named = host_and_places(also)
    known = places(machine["environ"], machine["home"], host=machine["host"])
    wanted = [*(place.path for place in (*named, *known)), *(p.absolute() for p in projects)]
    return list(dict.fromkeys(wanted))


def tell_unfinished(also: tuple[str, ...], projects: tuple[Path, ...]) -> None:
    """Say which moves and merges of the directories of a command were cut off."""
    unfinished_at(map(str, _all_named(also, projects)))


def unfinished_at(places: "Iterable[str]") -> "list[Unfinished]":
    """Say which moves and merges from or to these places were cut off."""
    from gradience.storage.change.move.unfinished import find  # noqa: PLC0415

    found = find(places)
    for one in found:
        click.echo(visible(one.words), err=True)
        click.echo(visible(f"hint: {one.remedy}"), err=True)
    return found


def settle_roots(roots: "Iterable[str]") -> None:
    """Finish or take back what a change that was cut off left behind, and say so.

    A root where that cannot be done is named; it keeps no other from being changed.
    """
    from gradience import system  # noqa: PLC0415
    from gradience.storage.change.recover import recover  # noqa: PLC0415

    for root in roots:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            try:
                notes = recover(root, system.holders)
            except StorageError as error:
                notes = [*error.details, str(error), f"hint: {error.remedy}"]
            for note in notes:
                click.echo(visible(note), err=True)


def _ask() -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was changed: there is no terminal to ask on",
            remedy="Give --yes to carry it out, or --dry-run to only look.",
        )
    click.confirm("Carry it out?", abort=True, err=True)


def _show_plan(plan: "Plan", *, as_json: bool, show_all: bool) -> None:
    from gradience.storage.change.records import PLAN_SCHEMA  # noqa: PLC0415

    if as_json:
        click.echo(encoded(PLAN_SCHEMA, plan), nl=False)
        return
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.change.report import plan_page  # noqa: PLC0415

    show(plan_page(plan, limit=None) if show_all else plan_page(plan))


def _show_receipt(receipt: "Receipt", *, as_json: bool) -> None:
    from gradience.storage.change.records import RECEIPT_SCHEMA  # noqa: PLC0415

    if as_json:
        click.echo(encoded(RECEIPT_SCHEMA, receipt), nl=False)
        return
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.change.report import receipt_page  # noqa: PLC0415

    show(receipt_page(receipt))


def _nothing(plan: "Plan") -> "Receipt":
    from gradience.storage.change.records import Receipt  # noqa: PLC0415

    return Receipt(
        plan=plan.id, title=plan.title, outcomes=(), freed=0, planned=0, disks=(), seconds=0.0
    )


def read_plan(path: Path) -> "Plan":
    """A plan from a file.

    Raises
    ------
    ArtifactError
        If the file cannot be read, or is no plan.
    """
    from gradience import artifacts  # noqa: PLC0415
    from gradience.storage.change.records import PLAN_SCHEMA, Plan  # noqa: PLC0415

    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}",
            remedy="Make a plan: gradience cache clean --plan plan.json",
        ) from error
    return artifacts.decode(data, PLAN_SCHEMA, Plan, source=str(path))
