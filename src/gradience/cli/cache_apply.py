"""`gradience cache apply`: a plan from a file, made again from what is there, and carried out."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.acting import all_roots, read_plan, settle, settle_roots
from gradience.cli.cache import places
from gradience.cli.cache_dedupe import OLLAMA, ollama_stores
from gradience.errors import ArtifactError, ExitCode, StorageError, UsageError, shown

if TYPE_CHECKING:
    from gradience.storage.change.records import Plan


_MOVES = ("move", "merge")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A plan from a file, and the options of the command that carries it out."""

    plan: "Plan"
    also: tuple[str, ...]
    projects: tuple[Path, ...]
    needed_by: tuple[Path, ...]
    ollama: tuple[Path, ...]
    force: bool
    offline: bool

    @property
    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return datetime.now(UTC).timestamp()


@click.command("apply", short_help="Carry out a plan written with --plan.")
@click.argument("plan_file", type=click.Path(path_type=Path), metavar="FILE")
@places(kinds=False)
@click.option(
    "--needed-by",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep what is named below DIR, beside what the plan itself asks for.",
)
@click.option("--force", is_flag=True, help="Also what has come to be pinned, needed, used since.")
@click.option("--offline", is_flag=True, help="Do not ask the Hub whether it has the revisions.")
@OLLAMA
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the plan (with --dry-run) or the receipt as JSON.",
)
@click.option("--all", "show_all", is_flag=True, help="All rows, not only the first.")
def apply_plan(
    *,
    plan_file: Path,
    also: tuple[str, ...],
    projects: tuple[Path, ...],
    needed_by: tuple[Path, ...],
    force: bool,
    offline: bool,
    ollama: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    show_all: bool,
) -> int:
    """Carry out a plan that was written with --plan; `-` reads it from standard input.

    The caches are read again: the file says which things, what these are and what keeps them is
    seen now. So what has come into use, was changed, pinned, is needed by a project or no more
    served by the Hub stays, with the reason, and so does every name that is no part of the thing
    it is listed under. A plan reaches the caches of this environment, and those that are named with
    --at, --project and --ollama as they were when it was made; a file that asks for more is
    refused.

    \b
    gradience cache clean --idle 60d --plan plan.json
    gradience cache apply plan.json --dry-run
    gradience cache apply plan.json

    Exit codes: 0 done; 1 something of the plan stayed; 2 usage; 3 no plan; 5 the disk refused.
    """
    from gradience.storage.change.apply import check_id  # noqa: PLC0415

    asked = _Asked(
        plan=read_plan(plan_file),
        also=also,
        projects=projects,
        needed_by=needed_by,
        ollama=ollama_stores(ollama),
        force=force,
        offline=offline,
    )
    check_id(asked.plan)
    _check_places(asked.plan, plan_file)
    _check_reach(asked, plan_file)
    if not asked.plan.actions:
        raise UsageError(f"{plan_file} lists nothing to do", remedy="Make a new plan.")
    if asked.plan.title not in _AGAIN:
        raise UsageError(
            f"{plan_file} is a plan of {asked.plan.title!r}, which this release cannot carry out",
            remedy="Make it again with this release.",
        )
    if asked.plan.title in _MOVES and _was_cut_off(asked.plan, settles=not dry_run):
        return int(ExitCode.OK)
    if not dry_run:
        settle_roots(dict.fromkeys(os.path.realpath(path) for path in _roots(asked.plan)))
    plan = _AGAIN[asked.plan.title](asked)
    code = settle(
        plan, dry_run=dry_run, yes=yes, as_json=as_json, show_all=show_all, agreed=_before
    )
    stayed = not dry_run and len(plan.actions) < len(asked.plan.actions)
    return max(code, int(ExitCode.BAD_NEWS) if stayed else int(ExitCode.OK))


def _before(plan: "Plan") -> None:
    if plan.title == "share":
        from gradience.cli.cache_share import keep_back  # noqa: PLC0415

        keep_back(plan)


def _roots(plan: "Plan") -> list[str]:
    from gradience.storage.change.records import path_of  # noqa: PLC0415

    return [path_of(root) for root in plan.roots()]


def _check_reach(asked: _Asked, plan_file: Path) -> None:
    """A plan changes only what is a cache here, and items and acts belong together."""
    from gradience.storage.change.records import path_of  # noqa: PLC0415

    known = [*all_roots(asked.also, asked.projects), *map(os.path.realpath, asked.ollama)]
    for action in asked.plan.actions:
        if not 0 <= action.item < len(asked.plan.items):
            raise ArtifactError(
                f"{plan_file}: {action.where} belongs to no item", remedy="Make the plan again."
            )
        # A change of the cache's own directory (its rights, its place) is bounded by the one above.
        where = os.path.join(os.path.realpath(path_of(action.root)), action.name)  # noqa: PTH118
        if not any(where == root or where.startswith(f"{root}/") for root in known):
            raise UsageError(
                f"{plan_file} would change {action.where}, which is no part of a cache of this "
                "environment",
                remedy="If it is one, name it with --at KIND=DIR or --project DIR.",
            )


def _check_places(plan: "Plan", plan_file: Path) -> None:
    """Every path is written as plans have them, so that what is checked is what is meant."""
    from gradience.storage.change.records import is_place  # noqa: PLC0415

    places = [action.where for action in plan.actions]
    if plan.title in _MOVES:
        places += [action.target for action in plan.actions]
    if plan.title == "share":
        places += [item.name for item in plan.items]
    for place in places:
        if not is_place(place):
            raise ArtifactError(
                f"{plan_file}: {shown(place)} is no place as a plan has it",
                remedy="Make the plan again.",
            )


def _clean(asked: _Asked) -> "Plan":
    import msgspec  # noqa: PLC0415 - with the records

    from gradience.cli.cache_clean import Wish, look, plan_for  # noqa: PLC0415
    from gradience.storage.change.policy import DEFAULT_MIN_AGE  # noqa: PLC0415
    from gradience.storage.change.records import path_of  # noqa: PLC0415
    from gradience.storage.change.renew import renewed, rules  # noqa: PLC0415
    from gradience.units import parse_duration  # noqa: PLC0415

    plan = asked.plan
    needed_by = [*map(Path, map(path_of, plan.needed_by)), *asked.needed_by, *asked.projects]
    for directory in needed_by:
        if not directory.is_dir():
            raise StorageError(
                f"the plan keeps what {directory} needs, and that is not there now",
                remedy="Mount it, or make a new plan.",
            )
    wish = Wish(
        also=asked.also,
        projects=tuple(project.absolute() for project in asked.projects),
        needed_by=tuple(dict.fromkeys(path.absolute() for path in needed_by)),
        kinds=tuple(dict.fromkeys(item.kind for item in plan.items)),
        rules=(),
        min_age=plan.min_age,
        force=asked.force,
        offline=asked.offline,
        trash=any(action.verb == "trash" for action in plan.actions),
    )
    survey = look(wish)
    found = renewed(plan, plan_for(wish, survey, rules(plan, survey)))
    if plan.min_age >= parse_duration(DEFAULT_MIN_AGE).total_seconds():
        return found
    young = f"What is young is not spared: it was planned with --min-age {plan.min_age:g}s."
    return msgspec.structs.replace(found, notes=(*found.notes, young))


def _dedupe(asked: _Asked) -> "Plan":
    from gradience.cli.cache_dedupe import plan_for  # noqa: PLC0415
    from gradience.storage.change.renew import renewed  # noqa: PLC0415

    return renewed(asked.plan, plan_for(asked.also, asked.projects, asked.ollama))


def _was_cut_off(plan: "Plan", *, settles: bool) -> bool:
    """Whether a move or a merge had been begun, and nothing is left to be planned for."""
    from gradience.cli.cache_move import over  # noqa: PLC0415
    from gradience.storage.change.move.unfinished import find  # noqa: PLC0415

    both = _two_places(plan)
    return bool(find(both)) and over(*both, settles=settles)


def _move(asked: _Asked) -> "Plan":
    from gradience.cli.cache_move import plan_for  # noqa: PLC0415
    from gradience.storage.change.renew import renewed  # noqa: PLC0415

    return renewed(asked.plan, plan_for(asked.plan.title, *_two_places(asked.plan)))


def _two_places(plan: "Plan") -> tuple[str, str]:
    from gradience.cli.cache_move import places_of  # noqa: PLC0415
    from gradience.storage.change.records import path_of  # noqa: PLC0415

    action = plan.actions[0]  # a plan of the same title has no second one
    way = plan.title
    both = path_of(action.where), path_of(action.target)
    if action.verb != way or places_of(way, *map(Path, both)) != both:
        raise ArtifactError(
            f"the act on {action.where} is no {way} to {action.target} as the command plans it",
            remedy="Make the plan again.",
        )
    return both


def _share(asked: _Asked) -> "Plan":
    from gradience.cli.cache_share import again  # noqa: PLC0415
    from gradience.storage.change.renew import renewed  # noqa: PLC0415

    return renewed(asked.plan, again(asked.plan, asked.now))


def _share_back(asked: _Asked) -> "Plan":
    from gradience.storage.change.renew import renewed  # noqa: PLC0415
    from gradience.storage.change.share import plan_back  # noqa: PLC0415

    return renewed(asked.plan, plan_back(asked.plan, now=asked.now))


_AGAIN: dict[str, Callable[[_Asked], "Plan"]] = {
    "clean": _clean,
    "dedupe": _dedupe,
    "move": _move,
    "merge": _move,
    "share": _share,
    "share (back)": _share_back,
}
"""By the title of a plan: makes it again of what is there now."""
