"""`gradience cache verify`: parse, check, print, exit."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.cache import host_and_places, places
from gradience.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from gradience.storage.verify.records import Verification


@click.command(short_help="Check files against known sizes and hashes.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@places(kinds=False)
@click.option("--deep", is_flag=True, help="Read every file and hash it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def verify(
    *,
    names: tuple[str, ...],
    also: tuple[str, ...],
    projects: tuple[Path, ...],
    deep: bool,
    as_json: bool,
) -> int:
    """Check files against what the caches themselves know: sizes, headers, hashes. No network.

    NAME is a shell pattern for repos, such as 'meta-llama/*'. Without --deep only sizes, headers
    and a few pages are read, which finds truncated and zero-filled files. Exits with 1 where a file
    is not what it should be.

    \b
    gradience cache verify
    gradience cache verify 'org/*' --deep
    gradience cache verify --project ~/models --json
    """
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.verify.report import page  # noqa: PLC0415

    found = _verify(names, also, projects, deep=deep)
    if names and not found.files and not found.problems:
        raise UsageError(
            f"no repo in the caches is named {' or '.join(names)}, so nothing was checked",
            remedy="`gradience cache ls` lists the names; patterns need quotes.",
        )
    if as_json:
        click.echo(_artifact(found), nl=False)
    else:
        show(page(found))
    return int(ExitCode.BAD_NEWS if found.problems else ExitCode.OK)


def _verify(
    names: tuple[str, ...], also: tuple[str, ...], projects: tuple[Path, ...], *, deep: bool
) -> "Verification":
    from gradience.cli.progress import progress_bar  # noqa: PLC0415
    from gradience.storage.verify.run import verify as check  # noqa: PLC0415

    machine, named = host_and_places(also)
    with progress_bar(shown=sys.stderr.isatty()) as progress:
        return check(
            **machine,
            projects=[project.absolute() for project in projects],
            also=named,
            names=names,
            deep=deep,
            progress=progress,
        )


def _artifact(found: "Verification") -> bytes:
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.storage.inventory.records import for_json  # noqa: PLC0415
    from gradience.storage.verify.records import SCHEMA  # noqa: PLC0415

    return artifacts.encode(SCHEMA, for_json(found), now=datetime.now(UTC))
