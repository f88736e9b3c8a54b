"""`gradience cache share`: look, plan, ask, carry out, and say how to take it back."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from gradience.cli.acting import Asked, acting, encoded, new_id, settle, settle_roots
from gradience.errors import UsageError

if TYPE_CHECKING:
    from gradience.storage.change.records import Plan
    from gradience.storage.change.share import Group


@click.command(short_help="One cache for a group, or several projects.")
@click.argument(
    "root", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR"
)
@click.option("--group", metavar="NAME", help="Share DIR with the users of this group.")
@click.option(
    "--link",
    "links",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Let PATH, not there yet or empty, be a link to DIR. May be given more than once.",
)
@acting
def share(
    *,
    root: Path,
    group: str | None,
    links: tuple[Path, ...],
    **asked: Unpack[Asked],
) -> int:
    """Let the users of a group, or several projects, use one cache directory.

    With --group every directory gets the group, setgid and write for it, every file what its owner
    may; a login stays its owner's alone. A plan that takes it back is written before.

    \b
    gradience cache share /srv/hf --group ml --dry-run
    sudo gradience cache share /srv/hf --group ml
    gradience cache share ~/.cache/huggingface/hub --link project-a/hub --link project-b/hub

    Exit codes: 0 done; 1 something of the plan stayed; 2 usage; 5 the disk refused.
    """
    from gradience.storage.change.share import plan_group, plan_links  # noqa: PLC0415

    if bool(group) == bool(links):
        raise UsageError("neither users nor projects", remedy="Give --group NAME or --link PATH.")
    changes = not (asked["dry_run"] or asked["plan_file"])
    place, now = os.path.realpath(root), datetime.now(UTC)
    if changes:
        settle_roots([os.path.dirname(place)])  # noqa: PTH120
    if group:
        plan = plan_group(place, _group(group), change=new_id(now), now=now.timestamp())
    else:
        absolute = [os.path.abspath(link) for link in links]  # noqa: PTH100 - the link itself
        plan = plan_links(place, absolute, change=new_id(now), now=now.timestamp())
    return settle(plan, agreed=keep_back, **asked)


def _group(name: str) -> "Group":
    import grp  # noqa: PLC0415 - not on every system

    from gradience.storage.change.share import Group  # noqa: PLC0415

    try:
        found = grp.getgrnam(name)
    except KeyError as error:
        raise UsageError(
            f"there is no group {name}", remedy=f"sudo groupadd {name}, or see `getent group`."
        ) from error
    if os.geteuid() != 0 and found.gr_gid not in (os.getegid(), *os.getgroups()):
        raise UsageError(
            f"this user is not in the group {name}, and may not give files to it",
            remedy=f"sudo usermod -aG {name} {os.environ.get('USER', '$USER')}, and log in again.",
        )
    return Group(name=name, number=found.gr_gid)


def again(planned: "Plan", now: float) -> "Plan":
    """The plan of the sharing that one from a file is about, made of what is there now."""
    from gradience.storage.change.records import path_of  # noqa: PLC0415
    from gradience.storage.change.share import plan_group, plan_links  # noqa: PLC0415

    item = planned.items[0]
    if item.kind == "directory":
        group = _group(item.what.removeprefix("group "))
        return plan_group(path_of(item.name), group, change=planned.id, now=now)
    links = [path_of(link.name) for link in planned.items]
    root = path_of(planned.actions[-1].target.partition(">")[2])
    if not Path(root).is_absolute() or not Path(root).is_dir():
        raise UsageError(f"the plan links to {root!r}, which is no directory", remedy="Plan again.")
    return plan_links(root, links, change=planned.id, now=now)


def keep_back(plan: "Plan") -> None:
    """Write the plan that takes sharing back, before anything is changed: to our own cache.

    A link is taken back by removing it.
    """
    from gradience import files, paths  # noqa: PLC0415
    from gradience.storage.change.records import PLAN_SCHEMA  # noqa: PLC0415
    from gradience.storage.change.share import back  # noqa: PLC0415

    if not any(action.verb == "mode" for action in plan.actions):
        return
    taken = back(plan)
    path = paths.cache_dir(os.environ, Path.home()) / "undo" / f"{taken.id}.json"
    files.replace(path, encoded(PLAN_SCHEMA, taken))
    click.echo(f"to take it back later: gradience cache apply {path}", err=True)
