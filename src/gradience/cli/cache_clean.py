"""`gradience cache clean`: parse, plan, ask, carry out."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradience.cli.acting import acting, all_roots, new_id, settle, settle_roots, tell_unfinished
from gradience.cli.cache import host_and_places, places
from gradience.cli.sections import Sectioned
from gradience.cli.whole import Whole
from gradience.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradience.storage.change.choose import Rule
    from gradience.storage.change.records import Plan
    from gradience.storage.inventory.take import Survey

_EMERGENCY = (
    "inductor",
    "triton",
    "torch_extensions",
    "xet",
    "pip",
    "uv",
    "modules",
    "dataset_extracted",
)
"""Kinds that are made again without anybody noticing much; small trees, scanned in seconds."""

_WITH_JUNK = ("hub", "datasets", "dataset_downloads")
"""Kinds of which an emergency takes what nothing uses, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the options ask for."""

    also: tuple[str, ...]
    projects: tuple[Path, ...]
    needed_by: tuple[Path, ...]
    kinds: tuple[str, ...]
    rules: "tuple[Rule, ...]"
    min_age: float
    force: bool
    offline: bool
    trash: bool
    named: tuple[str, ...] = ()


_SECTIONS = {
    "What goes": (
        "idle",
        "larger",
        "keep_last",
        "revisions",
        "kinds",
        "max_size",
        "min_free",
        "junk",
        "only_junk",
        "policy",
        "pick",
        "emergency",
    ),
    "What stays": ("needed_by", "min_age", "force", "offline"),
    "Where": ("also", "projects"),
    "How": ("dry_run", "yes", "trash", "plan_file", "as_json", "show_all"),
}


@click.command(
    cls=Sectioned, sections=_SECTIONS, short_help="Remove what nothing uses, and what you ask for."
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@places()
@click.option("--idle", metavar="DURATION", help="Not used for so long: 30d, 12h.")
@click.option("--larger", metavar="SIZE", help="Takes so much or more: 10GB.")
@click.option(
    "--revision",
    "revisions",
    multiple=True,
    metavar="COMMIT",
    help="This one, by its commit.",
)
@click.option(
    "--keep-last",
    type=Whole(min=0),
    metavar="N",
    help="All but the last N revisions of each repo, or checkpoints of each run.",
)
@click.option("--max-size", metavar="SIZE", help="The least valuable, until all takes no more.")
@click.option("--min-free", metavar="SIZE", help="The least valuable, until so much is free.")
@click.option(
    "--junk/--no-junk",
    default=True,
    help="With or without what nothing uses: orphans, abandoned downloads, refs to nothing.",
)
@click.option("--only-junk", is_flag=True, help="Nothing but that, where names and kinds fit.")
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Ordered rules from pyproject.toml, TOML or YAML.",
)
@click.option(
    "--needed-by",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep what configs, scripts and adapters below DIR name. --project does so too.",
)
@click.option("--min-age", metavar="DURATION", help="Leave alone what is younger.  [15m]")
@click.option(
    "--force",
    is_flag=True,
    help="Also what is pinned, needed, young, gated, private or the only copy.",
)
@click.option("--offline", is_flag=True, help="Do not ask the Hub whether it has the revisions.")
@click.option("--trash", is_flag=True, help="Move it to the trash, which frees nothing yet.")
@click.option(
    "--emergency",
    is_flag=True,
    help="The disk is full: what is made again, in seconds, without a byte to spare.",
)
@click.option("--pick", is_flag=True, help="Browse and mark on a screen (pip: gradience[pick]).")
@acting
def clean(*, names: tuple[str, ...], emergency: bool, pick: bool, **options: Any) -> int:
    """Remove what nothing uses, and what you ask for; show the plan and ask first.

    Without an option: what nothing uses, in every cache. NAME is a shell pattern, such as 'org/*'.
    Names, --kind, --idle, --larger, --keep-last and --revision must all hold. What is open in a
    process, mapped, or being downloaded is never removed.

    \b
    gradience cache clean                          # orphans, abandoned downloads, refs to nothing
    gradience cache clean --idle 60d --dry-run     # and what was not used for two months
    gradience cache clean --min-free 100GB --yes   # the least valuable, until 100 GB are free
    gradience cache clean 'org/*' --keep-last 1    # all but the newest revision of each
    gradience cache clean --kind project --project ~/runs --keep-last 2
    gradience cache clean --policy pyproject.toml --yes
    gradience cache clean --idle 60d --plan plan.json; gradience cache apply plan.json

    Exit codes: 0 done; 1 something of the plan stayed; 2 usage; 5 the disk refused.
    """
    acts = {key: options.pop(key) for key in ("dry_run", "yes", "as_json", "plan_file", "show_all")}
    if emergency:
        options["offline"] = True
    wish = _wish(names, emergency=emergency, **options)
    if not (acts["dry_run"] or acts["plan_file"]):
        settle_roots(all_roots(wish.also, wish.projects))
    tell_unfinished(wish.also, wish.projects)
    plan = _pick(wish) if pick else _plan(wish)
    return settle(plan, in_place=emergency, **acts)


def _wish(
    names: tuple[str, ...],
    *,
    emergency: bool,
    also: tuple[str, ...],
    projects: tuple[Path, ...],
    kinds: tuple[str, ...],
    needed_by: tuple[Path, ...],
    policy: Path | None,
    min_age: str | None,
    force: bool,
    offline: bool,
    trash: bool,
    **asked: Any,
) -> Wish:
    from gradience.storage.change.policy import DEFAULT_MIN_AGE, read_policy  # noqa: PLC0415
    from gradience.units import parse_duration  # noqa: PLC0415

    if asked.get("only_junk") and not asked["junk"]:
        raise UsageError("--only-junk and --no-junk leave nothing", remedy="Leave one out.")
    if emergency and trash:
        raise UsageError(
            "--trash frees nothing, and --emergency needs room now", remedy="Leave one out."
        )
    if policy is not None:
        given = [
            name
            for name, value in asked.items()
            if value not in (None, ()) and value is not (name == "junk")
        ]
        if names or kinds or given:
            raise UsageError(
                "--policy says itself what goes; other choices cannot be combined with it",
                remedy="Write them into the policy as a rule.",
            )
        read = read_policy(policy)
        rules = tuple(rule.rule() for rule in read.rules)
        min_age = min_age or read.min_age
    else:
        rules = _rules(names, kinds, emergency=emergency, **asked)
        kinds = tuple({kind: None for rule in rules for kind in rule.kinds})
    age = parse_duration(min_age or DEFAULT_MIN_AGE).total_seconds()
    absolute = tuple(project.absolute() for project in projects)
    return Wish(
        also=also,
        projects=absolute,
        needed_by=(*absolute, *(path.absolute() for path in needed_by)),
        kinds=kinds,
        rules=rules,
        min_age=age,
        force=force,
        offline=offline,
        trash=trash,
        named=names,
    )


def _rules(
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    *,
    emergency: bool,
    idle: str | None,
    larger: str | None,
    revisions: tuple[str, ...],
    keep_last: int | None,
    max_size: str | None,
    min_free: str | None,
    junk: bool,
    only_junk: bool = False,
) -> "tuple[Rule, ...]":
    from dataclasses import replace  # noqa: PLC0415

    from gradience.storage.change.policy import PolicyRule  # noqa: PLC0415

    rule = PolicyRule(
        names=names,
        kinds=kinds or (_EMERGENCY if emergency else ()),
        idle=idle,
        larger=larger,
        keep_last=keep_last,
        max_size=max_size,
        min_free=min_free,
        junk=junk,
    ).rule()
    rule = replace(
        rule, revisions=tuple(revision.lower() for revision in revisions), sound=not only_junk
    )
    if emergency and not kinds:
        return rule, replace(rule, kinds=_WITH_JUNK, sound=False)
    return (rule,)


def _plan(wish: Wish) -> "Plan":
    survey = look(wish)
    _check_names(survey, wish.named)
    return plan_for(wish, survey, wish.rules)


def plan_to_free(nbytes: int) -> "Plan":
    """The plan of `gradience cache clean --min-free`, without asking the Hub."""
    wish = _wish(
        (),
        emergency=False,
        also=(),
        projects=(),
        kinds=(),
        needed_by=(),
        policy=None,
        min_age=None,
        force=False,
        offline=True,
        trash=False,
        idle=None,
        larger=None,
        revisions=(),
        keep_last=None,
        max_size=None,
        min_free=str(nbytes),
        junk=True,
    )
    return _plan(wish)


def _pick(wish: Wish) -> "Plan":
    """Mark on a screen; what was marked is the rule."""
    from gradience.cli.cache_pick import pick  # noqa: PLC0415 - Textual takes its time

    survey = look(wish)
    return plan_for(wish, survey, pick(survey, wish.min_age))


def look(wish: Wish) -> "Survey":
    """Look at the caches."""
    from gradience import paths, uses  # noqa: PLC0415
    from gradience.cli.progress import progress_bar  # noqa: PLC0415
    from gradience.storage.inventory.take import survey  # noqa: PLC0415

    machine, named = host_and_places(wish.also)
    machine["uses"] = uses.recall(paths.cache_dir(os.environ, Path.home()))
    with progress_bar(shown=sys.stderr.isatty()) as progress:
        return survey(
            **machine,
            projects=wish.projects,
            also=named,
            kinds=wish.kinds,
            progress=progress,
        )


def plan_for(wish: Wish, survey: "Survey", rules: "Sequence[Rule]") -> "Plan":
    """The plan of a cleaning."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import system  # noqa: PLC0415
    from gradience.storage.change import mounts  # noqa: PLC0415
    from gradience.storage.change.clean import plan_clean  # noqa: PLC0415
    from gradience.storage.change.needs import needs, revisions_of  # noqa: PLC0415
    from gradience.storage.change.protect import Facts  # noqa: PLC0415
    from gradience.storage.change.remote import fates, unasked  # noqa: PLC0415

    needed, complete = needs(wish.needed_by, revisions_of(survey.inventory))
    notes = [] if complete else ["Not every file of the projects was read: there are too many."]
    return plan_clean(
        survey,
        rules,
        Facts(
            holders=system.holders(),
            needed=needed,
            needed_by=tuple(map(str, wish.needed_by)),
            min_age=wish.min_age,
            force=wish.force,
            not_ours=tuple(os.path.realpath(place) for place in ("/", Path.home(), Path())),
        ),
        change=new_id(datetime.now(UTC)),
        free=_free(survey, rules),
        ask=unasked if wish.offline else fates,
        verb="trash" if wish.trash else "delete",
        notes=[*notes, *mounts.notes(survey.inventory.caches)],
    )


def _check_names(survey: "Survey", patterns: "Sequence[str]") -> None:
    """What was named must be there: "nothing to do" is no answer to a typo."""
    from gradience.storage.change.candidates import candidates  # noqa: PLC0415
    from gradience.storage.inventory.selection import fits, nearest  # noqa: PLC0415

    known = {candidate.name.partition("@")[0] for candidate in candidates(survey, 0.0)}
    for pattern in patterns:
        if not any(fits(name, (pattern,)) for name in known):
            close = nearest(pattern, known)
            raise UsageError(
                f"nothing in the caches is named {pattern}",
                remedy=f"Did you mean {close!r}? " * bool(close)
                + "`gradience cache ls` lists the names; patterns need quotes.",
            )


def _free(survey: "Survey", rules: "Sequence[Rule]") -> "Mapping[int, int]":
    """What can still be written on each disk, where a rule asks for it: quotas counted."""
    from gradience.storage.room.headroom import headroom  # noqa: PLC0415

    found: dict[int, int] = {}
    for cache in survey.inventory.caches if any(r.min_free is not None for r in rules) else ():
        if cache.device not in found:
            room = headroom(cache.root, environ=os.environ, home=Path.home()).bytes
            found[cache.device] = sys.maxsize if room is None else room
    return found
