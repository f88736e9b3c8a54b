"""`gradience compress`: parse, call the library, print, exit."""

from pathlib import Path
from typing import Any

import click

from gradience.cli.visible import visible
from gradience.cli.whole import Whole

_RULES = ("per_module", "uniform_median", "uniform_p90", "uniform_max")


@click.command()
@click.argument("path", metavar="PATH")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the smaller adapter goes: a directory that is not there, or is empty.",
)
@click.option("--rank", type=Whole(min=1), metavar="N", help="The most any module keeps.")
@click.option(
    "--energy",
    type=click.FloatRange(min=0, max=1, min_open=True),
    metavar="SHARE",
    help="Share of the sum of squared singular values to keep, such as 0.9.",
)
@click.option(
    "--rule",
    type=click.Choice(_RULES),
    default="per_module",
    show_default=True,
    help="What --energy makes of the modules' ranks: each its own, or one for all.",
)
@click.option("--dtype", type=click.Choice(["bf16"]), help="Store the factors in this type.")
@click.option(
    "--top",
    type=Whole(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="How many of the modules that lose most to show.",
)
@click.option("--dry-run", is_flag=True, help="Compute everything, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else.")
def compress(*, path: str, out: Path, top: int, dry_run: bool, as_json: bool, **wish: Any) -> None:
    """Make a LoRA adapter smaller, with the error of the change that this has.

    PATH names one adapter in PEFT's format: a directory, or a Hub id such as org/name@revision.
    Ranks are cut by SVD, without training; heads, biases and embeddings are carried over byte by
    byte, and every module keeps its scale. PEFT loads the result.

    \b
    gradience compress runs/my-adapter --out small --rank 8
    gradience compress runs/my-adapter --out small --energy 0.95 --dry-run
    gradience compress runs/my-adapter --out half --dtype bf16

    Exit codes: 0 done; 2 usage, or DIR holds something; 3 an adapter that cannot be read, or whose
    rank cannot be changed; 5 the disk refused.
    """
    # Imported here: numpy takes a tenth of a second that `--help` need not pay.
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.compress.records import SCHEMA  # noqa: PLC0415
    from gradience.compress.report import page  # noqa: PLC0415
    from gradience.compress.run import Wish  # noqa: PLC0415
    from gradience.compress.run import compress as run  # noqa: PLC0415

    done = run(
        path,
        out,
        Wish(**wish),
        dry_run=dry_run,
        notice=lambda sentence: click.echo(visible(sentence), err=True),
    )
    if as_json:
        click.echo(artifacts.encode(SCHEMA, done, now=datetime.now(UTC)), nl=False)
    else:
        show(page(done, top=top))
