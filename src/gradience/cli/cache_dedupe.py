"""`gradience cache dedupe`: look, plan, ask, carry out."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from gradience.cli.acting import (
    Asked,
    acting,
    all_roots,
    new_id,
    settle,
    settle_roots,
    tell_unfinished,
)
from gradience.cli.cache import host_and_places, places

if TYPE_CHECKING:
    from gradience.storage.change.records import Plan

OLLAMA = click.option(
    "--ollama",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="ollama's models.  [$OLLAMA_MODELS, ~/.ollama/models, /usr/share/ollama/.ollama/models]",
)


@click.command(short_help="Let equal files share their bytes.")
@places(kinds=False)
@OLLAMA
@acting
def dedupe(
    *,
    also: tuple[str, ...],
    projects: tuple[Path, ...],
    ollama: Path | None,
    **asked: Unpack[Asked],
) -> int:
    """Let equal files in hub caches, `local_dir` downloads and ollama's store share their bytes.

    They are found by the hashes that their names and notes carry, and compared byte by byte before
    anything changes. Where the file system has reflinks (btrfs, XFS) they stay separate files; else
    a hard link is made where owner and mode are equal and nobody writes in place. What stays as it
    is, is listed with the reason.

    \b
    gradience cache dedupe --dry-run
    gradience cache dedupe --at hub=/mnt/old/hub --project ~/models
    gradience cache dedupe --yes --json

    Exit codes: 0 done; 1 something of the plan stayed; 2 usage; 5 the disk refused.
    """
    stores = ollama_stores(ollama)
    if not (asked["dry_run"] or asked["plan_file"]):
        settle_roots([*all_roots(also, projects), *map(os.path.realpath, stores)])
    tell_unfinished(also, projects)
    return settle(plan_for(also, projects, stores), **asked)


def ollama_stores(named: Path | None) -> tuple[Path, ...]:
    """Where ollama keeps models: the place that was named, or its usual ones."""
    from gradience.storage.change import ollama  # noqa: PLC0415

    return (named.absolute(),) if named else ollama.stores(os.environ, Path.home())


def plan_for(also: tuple[str, ...], projects: tuple[Path, ...], stores: tuple[Path, ...]) -> "Plan":
    """The plan of a deduplication of everything that was named."""
    from gradience import system  # noqa: PLC0415
    from gradience.cli.progress import progress_bar  # noqa: PLC0415
    from gradience.storage.change.copies import groups  # noqa: PLC0415
    from gradience.storage.change.dedupe import plan_dedupe  # noqa: PLC0415
    from gradience.storage.inventory.take import survey  # noqa: PLC0415

    machine, named = host_and_places(also)
    with progress_bar(shown=sys.stderr.isatty()) as progress:
        found = survey(
            **machine,
            projects=[project.absolute() for project in projects],
            also=named,
            kinds=("hub", "project"),
            progress=progress,
        )
    now = datetime.now(UTC)
    return plan_dedupe(
        groups(found, stores), change=new_id(now), now=now.timestamp(), holders=system.holders()
    )
