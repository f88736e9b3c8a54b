"""`gradience cache undo`: bring back what went to the trash, or empty it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.acting import all_roots, settle_roots
from gradience.cli.cache import places
from gradience.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradience.page import Page
    from gradience.storage.change.trash import Returned, Trash


@click.command(short_help="Bring back, or empty, the trash.")
@click.argument("change", required=False, metavar="[ID]")
@places(kinds=False)
@click.option("--list", "as_list", is_flag=True, help="Show what is in the trash.")
@click.option(
    "--empty", "emptying", is_flag=True, help="Remove it for good, which frees its bytes."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask before it is emptied.")
def undo(
    *,
    change: str | None,
    also: tuple[str, ...],
    projects: tuple[Path, ...],
    as_list: bool,
    emptying: bool,
    yes: bool,
) -> int:
    """Bring back what `gradience cache clean --trash` set aside; the last change, or ID.

    Things lie in `.gradience/` of the cache they came from, so they take as much of a disk and a
    quota as before. What has the name of a thing by now is not overwritten.

    \b
    gradience cache undo --list
    gradience cache undo
    gradience cache undo --empty --yes

    Exit codes: 0 done; 1 something stayed in the trash; 2 usage; 5 the disk refused.
    """
    from gradience.storage.change.trash import bring_back, choose, empty, find  # noqa: PLC0415

    roots = all_roots(also, projects)
    settle_roots(roots)
    found = find(roots)
    if as_list or not (change or any(trash.stranger is None for trash in found)):
        return _show(_listed(found))
    chosen = choose(found, change)
    if emptying and not yes:
        _ask(chosen)
    done = [empty(trash) if emptying else bring_back(trash) for trash in chosen]
    return _show_done(chosen, done, emptying=emptying)


def _ask(chosen: "Sequence[Trash]") -> None:
    import sys  # noqa: PLC0415

    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was removed: there is no terminal to ask on", remedy="Give --yes."
        )
    names = ", ".join(trash.id for trash in chosen)
    click.confirm(f"Remove the trash {names} for good?", abort=True, err=True)


def _listed(found: "Sequence[Trash]") -> "Page":
    from gradience.page import Table, Text  # noqa: PLC0415
    from gradience.storage.change.records import text_of  # noqa: PLC0415

    if not found:
        return (Text(text="The trash is empty.", tone="good"),)
    rows = []
    for trash in found:
        made = "-"
        if trash.plan is not None:
            made = f"{datetime.fromtimestamp(trash.plan.made, UTC):%Y-%m-%d %H:%M} UTC"
        items = [item.name for item in trash.plan.items] if trash.plan is not None else []
        what = ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
        if trash.stranger is not None:
            what = f"left alone: {trash.stranger.why}"
        number = str(len(trash.names) or "?")
        rows.append((trash.id, text_of(trash.root), number, made, what or "?"))
    return (
        Table(
            title="Trash",
            head=("id", "in", "names", "made", "what"),
            rows=tuple(rows),
            left=frozenset({0, 1, 3, 4}),
        ),
    )


def _show_done(chosen: "Sequence[Trash]", done: "Sequence[Returned]", *, emptying: bool) -> int:
    from gradience.page import Text  # noqa: PLC0415
    from gradience.storage.change.trash import dangling  # noqa: PLC0415
    from gradience.units import format_size  # noqa: PLC0415

    lines = []
    for trash, result in zip(chosen, done, strict=True):
        words = f"Freed {format_size(result.freed)}" if emptying else "Brought back"
        lines.append(
            Text(
                text=f"{trash.id}: {words}, {result.things} name{'s' * (result.things != 1)}.",
                tone="warn" if result.stayed else "good",
            )
        )
        lines += [Text(text=f"stayed: {reason}", tone="warn") for reason in result.stayed]
        lines += [
            Text(text=f"a link to what is not there: {name}", tone="warn")
            for name in ([] if emptying else dangling(trash))
        ]
    _show(tuple(lines))
    return int(ExitCode.BAD_NEWS if any(r.stayed for r in done) else ExitCode.OK)


def _show(page: "Page") -> int:
    from gradience.cli.render import show  # noqa: PLC0415

    show(page)
    return int(ExitCode.OK)
