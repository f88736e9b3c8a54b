"""`gradience norms rm`: norms that are not wanted any more."""

import sys
from typing import TYPE_CHECKING

import click

from gradience.cli.norms import cache_at, cache_option
from gradience.cli.visible import visible
from gradience.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="MODEL...")
@cache_option
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rm(*, names: tuple[str, ...], directory: "Path | None", dry_run: bool, yes: bool) -> int:
    """Remove norms of base models from the cache.

    MODEL is a name as `gradience norms ls` lists it, with or without the start of its revision
    (org/name@a1b2), the start of its fingerprint, or the name of a file there. Norms that were
    measured are measured again when they are next wanted, which reads the base model once more.

    \b
    gradience norms rm org/name --dry-run
    gradience norms rm org/name@a1b2 bad.json --yes

    Exit codes: 0 done; 2 no such norms, or nobody to ask; 5 the disk refused.
    """
    from gradience.audit.norms import library, report  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    place = cache_at(directory)
    paths = list(dict.fromkeys(library.kept(place, name) for name in names))
    show(report.removals(library.listing(place), [path.name for path in paths]))
    if dry_run:
        return int(ExitCode.OK)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "nothing was removed: there is no terminal to ask on", remedy="Give --yes."
            )
        click.confirm(f"Remove these {len(paths)}?", abort=True, err=True)
    for path in paths:
        library.remove(path)
        click.echo(f"removed {visible(path.name)}")
    return int(ExitCode.OK)
