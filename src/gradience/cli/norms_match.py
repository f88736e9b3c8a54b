"""`gradience norms match`: whose base is it?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.download import download_options, progress_and_terms
from gradience.cli.norms import artifact, cache_at, cache_option, notice
from gradience.errors import ExitCode

if TYPE_CHECKING:
    from gradience.audit.base.terms import Terms
    from gradience.audit.norms.records import Unreadable
    from gradience.audit.norms.which import KnownBase, Progress


@click.command()
@click.argument("adapter", metavar="ADAPTER")
@click.option(
    "--base-model",
    "base_models",
    multiple=True,
    metavar="DIR|FILE|ID[@REV]|URL",
    help="Look at this base model too. May be given more than once.",
)
@click.option(
    "--base-norms-from",
    "norms_from",
    multiple=True,
    metavar="FILE|URL|ID[@REV]",
    help="Look at the base model of exported norms too: whatever `gradience audit` takes. May be "
    "given more than once.",
)
@click.option("--no-hub-cache", is_flag=True, help="Do not look at the models in the Hub cache.")
@cache_option
@download_options
@click.option("--all", "every", is_flag=True, help="Show those that do not fit, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def match(
    *,
    adapter: str,
    base_models: tuple[str, ...],
    norms_from: tuple[str, ...],
    no_hub_cache: bool,
    directory: Path | None,
    max_download: str | None,
    yes: bool,
    every: bool,
    as_json: bool,
) -> int:
    """Rank the known base models by how well the adapter fits their names and shapes.

    Known are those whose norms are kept, those in the Hub cache, and those that are named. Models
    of one architecture and size are alike to this: where several fit, it says that it cannot tell.

    \b
    gradience norms match runs/my-adapter
    gradience norms match runs/my-adapter --base-model /models/a --base-model /models/b --all
    gradience norms match runs/my-adapter --base-norms-from org/norms

    Exit codes: 0 one known base fits; 1 none, or several alike; 3 no readable adapter or base.
    """
    from gradience.adapter.read import opened  # noqa: PLC0415
    from gradience.adapter.source import find_one  # noqa: PLC0415
    from gradience.audit.norms import report, which  # noqa: PLC0415
    from gradience.audit.norms.records import MATCH_SCHEMA  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    location = find_one(adapter, notice=notice)
    with (
        opened(location) as read,
        progress_and_terms(max_download=max_download, yes=yes) as (progress, terms),
    ):
        known = _known(
            base_models,
            norms_from,
            cache_at(directory),
            hub_cache=not no_hub_cache,
            terms=terms,
            progress=progress,
        )
        found = which.rank(read, known)
    if as_json:
        artifact(MATCH_SCHEMA, found)
    else:
        show(report.matched(found, every=every))
    return int(ExitCode.OK if found.outcome == "one" else ExitCode.BAD_NEWS)


def _known(
    base_models: tuple[str, ...],
    norms_from: tuple[str, ...],
    norms_cache: Path,
    *,
    hub_cache: bool,
    terms: "Terms",
    progress: "Progress | None",
) -> "Iterator[KnownBase | Unreadable]":
    from gradience.audit.norms import travel, which  # noqa: PLC0415

    for model in base_models:
        yield which.opened(model, known_from="named", terms=terms)
    for source in norms_from:
        yield which.in_norms(travel.fetch(source, notice=notice).content, known_from="named norms")
    yield from which.in_norms_cache(norms_cache)
    if hub_cache:
        from huggingface_hub import constants  # noqa: PLC0415 - 60 ms

        yield from which.in_hub_cache(Path(constants.HF_HUB_CACHE), progress)
