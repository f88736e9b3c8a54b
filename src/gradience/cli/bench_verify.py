"""`gradience bench verify`: parse, compute again, print, exit."""

from pathlib import Path

import click

from gradience.errors import ExitCode


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def verify(*, directory: Path, as_json: bool) -> int:
    """Compute the verdicts of a bench again, from the per-item scores of its trials alone.

    DIR is the output directory of a bench. Every number of bench.json that decides is computed from
    trials/*/result.json and compared, as are the digests of the scores, the ids of the trials, the
    controls, and the claim in settings.json. Needs scipy, and neither torch nor the network.

    \b
    gradience bench verify out
    gradience bench verify out --json

    Exit codes: 0 the report holds; 1 it does not: what differs is named; 3 there is no readable
    bench.json; 4 scipy is missing.
    """
    # Imported here: numpy and its kin take a tenth of a second that `--help` need not pay.
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.bench.report.verification import page  # noqa: PLC0415
    from gradience.bench.report.verify import SCHEMA  # noqa: PLC0415
    from gradience.bench.report.verify import verify as check  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    found = check(directory)
    if as_json:
        click.echo(artifacts.encode(SCHEMA, found, now=datetime.now(UTC)), nl=False)
    else:
        show(page(found))
    return int(ExitCode.BAD_NEWS if found.differences else ExitCode.OK)
