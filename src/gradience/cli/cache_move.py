"""`gradience cache move` and `merge`: parse, settle what was cut off, plan, ask, carry out."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from gradience.cli.acting import Asked, acting, new_id, settle, unfinished_at
from gradience.cli.visible import visible
from gradience.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from gradience.storage.change.records import Plan


@click.command(short_help="Move a cache, and leave a link.")
@click.argument("old", type=click.Path(path_type=Path), metavar="SRC")
@click.argument("new", type=click.Path(path_type=Path), metavar="DST")
@click.option("--abandon", is_flag=True, help="Remove what an unfinished move has copied so far.")
@acting
def move(
    *,
    old: Path,
    new: Path,
    abandon: bool,
    **asked: Unpack[Asked],
) -> int:
    """Move the cache directory SRC to DST, and leave a link at SRC.

    DST is the new place itself: nothing is there yet, or an empty directory. On one disk it is one
    rename. To another disk everything is copied, compared byte by byte, then swapped with a link in
    one step; only then do the old bytes go. Cut off, the same command goes on. A full disk, or a
    process with a file of it open, leaves everything as it was.

    \b
    gradience cache move ~/.cache/huggingface/hub /data/hf/hub
    gradience cache move ~/.cache/huggingface/hub /data/hf/hub --dry-run
    gradience cache move /data/hf/hub ~/.cache/huggingface/hub      # and back

    Exit codes: 0 done; 1 it stayed where it was; 2 usage; 5 in use, no room, the disk refused.
    """
    return _carry("move", *places_of("move", old, new), abandon=abandon, **asked)


@click.command(short_help="Bring a hub cache into another, and leave a link.")
@click.argument("old", type=click.Path(path_type=Path), metavar="SRC")
@click.argument("new", type=click.Path(path_type=Path), metavar="DST")
@click.option("--abandon", is_flag=True, help="Forget a merge that was cut off; what came stays.")
@acting
def merge(
    *,
    old: Path,
    new: Path,
    abandon: bool,
    **asked: Unpack[Asked],
) -> int:
    """Bring what only the hub cache SRC has into the hub cache DST, and make SRC a link to it.

    Nothing in DST is changed, only added: on one disk by links, without a copied byte; to another
    disk by copies. Then everything of SRC must be in DST with the same bytes, or SRC stays as it is
    and the difference is named. Of a ref, which names a commit, that of DST stands, unless
    only that of SRC leads to a revision. Cut off, the same command goes on. Where nothing is at DST
    it is a move.

    \b
    gradience cache merge ~/.cache/huggingface/hub /data/hf/hub
    gradience cache merge ~/.cache/huggingface/hub /data/hf/hub --dry-run

    Exit codes: 0 done; 1 it stayed where it was; 2 usage; 5 in use, no room, the disk refused.
    """
    source, target = places_of("merge", old, new)
    if source == target and os.path.lexists(target):
        click.echo(visible(f"{old} and {new} are one directory already"), err=True)
        return int(ExitCode.OK)
    return _carry("merge", source, target, abandon=abandon, **asked)


def _carry(way: str, source: str, target: str, *, abandon: bool, **asked: Unpack[Asked]) -> int:
    """Go on with what was cut off, or give it up; else plan, ask, carry out."""
    if abandon and (asked["dry_run"] or asked["plan_file"]):
        raise UsageError("--abandon makes no plan", remedy="Leave one of the two options out.")
    if abandon:
        return _abandon(way, source, target)
    if over(source, target, settles=not (asked["dry_run"] or asked["plan_file"])):
        return int(ExitCode.OK)
    return settle(plan_for(way, source, target), **asked)


def _abandon(way: str, source: str, target: str) -> int:
    from gradience.storage.change.move import resume  # noqa: PLC0415
    from gradience.units import format_size  # noqa: PLC0415

    freed = resume.abandon(source, target)
    done = f"removed the unfinished copy: {format_size(freed)}"
    forgotten = f"forgot the unfinished merge: what came to {target} stays"
    click.echo(visible(forgotten if way == "merge" else done), err=True)
    return int(ExitCode.OK)


def over(source: str, target: str, *, settles: bool) -> bool:
    """Whether one is a link to the other already; what an earlier try left is settled first.

    Else it is named, and where it came so far that nothing can be planned, that is all.
    """
    from gradience import system  # noqa: PLC0415
    from gradience.storage.change.move import resume  # noqa: PLC0415

    unfinished = [] if settles else unfinished_at((source, target))
    if settles:
        for note in resume.resume(source, target, system.holders):
            click.echo(visible(note), err=True)
    if not (Path(target).parent.is_dir() and Path(source).parent.is_dir()):
        return False
    done = resume.moved(source, target) or any(found.placed for found in unfinished)
    if done and not unfinished:
        click.echo(visible(f"{source} is a link to {target} already"), err=True)
    return done


def plan_for(way: str, source: str, target: str) -> "Plan":
    """The plan of a move or a merge; both places are absolute."""
    from gradience import system  # noqa: PLC0415
    from gradience.storage.change.move.merge import plan_merge  # noqa: PLC0415
    from gradience.storage.change.move.plan import Wish, plan_move  # noqa: PLC0415

    now = datetime.now(UTC)
    wish = Wish(
        old=source,
        new=target,
        change=new_id(now),
        now=now.timestamp(),
        holders=system.holders(),
        environ=os.environ,
        home=Path.home(),
    )
    return plan_merge(wish) if way == "merge" else plan_move(wish)


def places_of(way: str, old: Path, new: Path) -> tuple[str, str]:
    """The two places of a move or a merge, absolute; a merge goes into what a link leads to."""
    return _place(old), os.path.realpath(new) if way == "merge" else _place(new)


def _place(path: Path) -> str:
    """The links above resolved, the last part as it is."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the last part
    return str(Path(os.path.realpath(absolute.parent)) / absolute.name)
