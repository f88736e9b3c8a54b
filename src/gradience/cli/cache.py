"""`gradience cache`: look at every cache of the machine."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradience.cli.lazy import LazyGroup
from gradience.errors import ExitCode, UsageError
from gradience.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradience.page import Page
    from gradience.storage.inventory.records import Inventory

COMMANDS: Registry[click.Command] = Registry(
    "command",
    {
        "ls": "gradience.cli.cache:ls",
        "du": "gradience.cli.cache:du",
        "clean": "gradience.cli.cache_clean:clean",
        "apply": "gradience.cli.cache_apply:apply_plan",
        "dedupe": "gradience.cli.cache_dedupe:dedupe",
        "move": "gradience.cli.cache_move:move",
        "merge": "gradience.cli.cache_move:merge",
        "share": "gradience.cli.cache_share:share",
        "undo": "gradience.cli.cache_undo:undo",
        "verify": "gradience.cli.cache_verify:verify",
        "watch": "gradience.cli.cache_watch:watch",
    },
)
_FEW = 40  # rows without --all


@click.group(cls=LazyGroup, table=COMMANDS)
def cache() -> None:
    """See what lies in the caches of this machine, and remove what is not needed.

    \b
    gradience cache ls                  # every repo, dataset, checkpoint, the largest first
    gradience cache du                  # every cache: what it holds, whether it can be had again
    gradience cache verify --deep       # hash files against what the caches themselves say
    gradience cache watch               # free space and growth, live
    gradience cache clean --dry-run     # what nothing uses
    gradience cache dedupe --dry-run    # equal files in several caches, by known hashes
    gradience cache move SRC DST        # to another disk, and a link stays
    gradience cache merge SRC DST       # into a cache that has content, and a link stays
    gradience cache share DIR --group G # one cache for the users of a group
    gradience cache undo                # bring back what went to the trash
    """


def places(*, kinds: bool = True) -> "Callable[[Callable[..., int]], Callable[..., int]]":
    """The options that say which directories to look at."""
    options = [
        click.option(
            "--at",
            "also",
            multiple=True,
            metavar="KIND=DIR",
            help="Look at DIR too, as a cache of this kind. May be given more than once.",
        ),
        click.option(
            "--project",
            "projects",
            multiple=True,
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help="Look below DIR for local_dir downloads and Trainer checkpoints.",
        ),
    ]
    if kinds:
        options.append(
            click.option(
                "--kind",
                "kinds",
                multiple=True,
                metavar="KIND",
                help="Only caches of this kind, such as hub or datasets; docs/cache.md lists them.",
            )
        )

    def add(command: "Callable[..., int]") -> "Callable[..., int]":
        for option in options:
            command = option(command)
        return command

    return add


@click.command(short_help="List every repo, dataset and checkpoint.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@places()
@click.option(
    "--by",
    type=click.Choice(["repo", "kind", "age"]),
    default="repo",
    show_default=True,
    help="One row per repo (or dataset, checkpoint...), per kind of cache, or per age.",
)
@click.option(
    "--sort",
    type=click.Choice(["size", "frees", "age", "files", "name"]),
    default="size",
    show_default=True,
)
@click.option("--idle", metavar="DURATION", help="Only what was not used for so long: 30d, 12h.")
@click.option("--larger", metavar="SIZE", help="Only what takes so much: 10GB.")
@click.option("--damaged", is_flag=True, help="Only what has damage.")
@click.option("--tree", "as_tree", is_flag=True, help="Revisions and builds below their repo.")
@click.option("--all", "show_all", is_flag=True, help="All rows, not only the first.")
@click.option("--json", "as_json", is_flag=True, help="Print the inventory as JSON, all of it.")
def ls(
    *,
    names: tuple[str, ...],
    also: tuple[str, ...],
    projects: tuple[Path, ...],
    kinds: tuple[str, ...],
    by: str,
    sort: str,
    idle: str | None,
    larger: str | None,
    damaged: bool,
    as_tree: bool,
    show_all: bool,
    as_json: bool,
) -> int:
    """List what lies in the caches: every repo, dataset and checkpoint, damaged ones too.

    NAME is a shell pattern for names, such as 'meta-llama/*'.

    \b
    gradience cache ls --sort age --idle 30d
    gradience cache ls 'org/*' --tree
    gradience cache ls --by kind
    gradience cache ls --kind hub --damaged --json
    """
    from gradience.storage.inventory import report  # noqa: PLC0415
    from gradience.storage.inventory.selection import select  # noqa: PLC0415
    from gradience.units import parse_duration, parse_size  # noqa: PLC0415

    span = parse_duration(idle) if idle is not None else None
    floor = parse_size(larger) if larger is not None else 0
    everything = _take(also, projects, kinds)
    found = select(
        everything,
        names=names,
        idle=span,
        at_least=floor,
        damaged=damaged,
        sort=sort,
    )
    limit = None if show_all else _FEW
    if as_json:
        return _json(found)
    if everything.caches and not found.caches:
        return _show(everything, report.no_match(everything, names))
    if as_tree:
        return _show(found, report.tree(found, limit=limit))
    if by == "kind":
        return _show(found, report.by_kind(found))
    if by == "age":
        return _show(found, report.by_age(found))
    return _show(found, report.by_entry(found, limit=limit, sort=sort))


@click.command(short_help="Show what each cache takes and holds.")
@places()
@click.option("--json", "as_json", is_flag=True, help="Print the inventory as JSON, all of it.")
def du(
    *, also: tuple[str, ...], projects: tuple[Path, ...], kinds: tuple[str, ...], as_json: bool
) -> int:
    """Show what each cache takes, what it holds, and whether that can be had again.

    \b
    gradience cache du
    gradience cache du --project ~/runs --json
    """
    from gradience.storage.inventory import report  # noqa: PLC0415

    found = _take(also, projects, kinds)
    return _json(found) if as_json else _show(found, report.usage(found))


def host_and_places(
    also: tuple[str, ...],
) -> tuple[dict[str, Any], "list[Any]"]:
    """What the library asks of this machine: environment, home, clock; and the places of `--at`."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.storage.environment.host import this_host  # noqa: PLC0415
    from gradience.storage.inventory.caches import CACHES  # noqa: PLC0415
    from gradience.storage.inventory.places import Place  # noqa: PLC0415

    named = []
    for value in also:
        kind, equals, path = value.partition("=")
        if not equals or not path:
            raise UsageError(
                f"--at {value}: not KIND=DIR", remedy="Write it as --at hub=/mnt/old/hub."
            )
        CACHES[kind]
        if not Path(path).is_dir():
            raise UsageError(
                f"--at {value}: {path} is no directory", remedy="Name one that is there."
            )
        named.append(Place(kind=kind, path=Path(path).absolute(), chosen_by="--at"))
    machine = {
        "environ": os.environ,
        "home": Path.home(),
        "now": datetime.now(UTC),
        "host": this_host(),
    }
    return machine, named


def _take(also: tuple[str, ...], projects: tuple[Path, ...], kinds: tuple[str, ...]) -> "Inventory":
    from gradience import paths, uses  # noqa: PLC0415
    from gradience.cli.acting import tell_unfinished  # noqa: PLC0415 - which imports this module
    from gradience.storage.inventory.take import take  # noqa: PLC0415

    machine, named = host_and_places(also)
    machine["uses"] = uses.recall(paths.cache_dir(os.environ, Path.home()))
    absolute = [project.absolute() for project in projects]
    tell_unfinished(also, projects)
    if sys.stderr.isatty():
        from gradience.cli.progress import progress_bar  # noqa: PLC0415

        with progress_bar(shown=True) as progress:
            return take(**machine, projects=absolute, also=named, kinds=kinds, progress=progress)
    return take(**machine, projects=absolute, also=named, kinds=kinds)


def _show(found: "Inventory", page: "Page") -> int:
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.inventory.report import nothing  # noqa: PLC0415

    show(page if found.caches else nothing(found))
    return int(ExitCode.OK)


def _json(found: "Inventory") -> int:
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.storage.inventory.records import SCHEMA, for_json  # noqa: PLC0415

    content = for_json(found)
    click.echo(
        artifacts.encode(SCHEMA, content, now=datetime.fromtimestamp(found.made, UTC)), nl=False
    )
    return int(ExitCode.OK)
