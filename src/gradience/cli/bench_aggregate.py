"""`gradience bench aggregate`: parse, join, print, exit."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.visible import visible
from gradience.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from gradience.bench.report.aggregate import Benches


@click.command()
@click.argument(
    "directories",
    nargs=-1,
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR...",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write bench.json, bench.md and bench.html of the joined bench there.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the reports as JSON, and nothing else."
)
def aggregate(*, directories: tuple[Path, ...], output_dir: Path | None, as_json: bool) -> int:
    """Join runs: the seeds of one bench from several machines, or several benches side by side.

    Each DIR is the output directory of a bench. Runs that differ in nothing but their seeds and
    their machine are one bench, and are judged as one with all their seeds; others are shown side
    by side. Runs of one bench must share the claim, and nothing is judged while trials that one of
    them planned wait. Nothing in a DIR is changed.

    \b
    gradience bench aggregate machine-a/out machine-b/out
    gradience bench aggregate runs/* --json > benches.json
    gradience bench aggregate a/out b/out --output-dir joined

    Exit codes: 0 done; 2 nothing to join, or different claims; 3 not a bench, or results that
    cannot be compared; 4 scipy is missing; 5 the disk refused.
    """
    # Imported here: numpy and its kin take a tenth of a second that `--help` need not pay.
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.bench.report.aggregate import SCHEMA  # noqa: PLC0415
    from gradience.bench.report.aggregate import aggregate as join  # noqa: PLC0415
    from gradience.bench.report.side_by_side import page  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    joined, now = join(directories), datetime.now(UTC)
    if output_dir is not None:
        _write(joined, directories, output_dir, now)
    if as_json:
        click.echo(artifacts.encode(SCHEMA, joined, now=now), nl=False)
    else:
        show(page(joined))
    return 0


def _write(
    joined: "Benches", directories: tuple[Path, ...], output_dir: Path, now: "datetime"
) -> None:
    from gradience.bench.report.write import write  # noqa: PLC0415

    if len(joined.reports) > 1:
        raise UsageError(
            f"these directories hold {len(joined.reports)} benches, and --output-dir takes one",
            remedy="Name the directories of one bench, or use --json.",
        )
    if output_dir.resolve() in {directory.resolve() for directory in directories}:
        raise UsageError(
            f"--output-dir {output_dir} is one of the directories that are joined",
            remedy="Name another: the report of a run stays that of its own trials.",
        )
    if (output_dir / "settings.json").exists():
        raise UsageError(
            f"--output-dir {output_dir} is the directory of a bench",
            remedy="Name another: the report of a run stays that of its own trials.",
        )
    written = write(joined.reports[0], output_dir, now=now)
    for path in written.paths:
        click.echo(f"wrote {visible(str(path))}", err=True)
    if written.missing:
        click.echo(written.missing, err=True)
