"""`gradience norms import` and `verify`: norms from elsewhere, held against the base in hand."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.download import download_options, progress_and_terms
from gradience.cli.norms import artifact, cache_at, cache_option, device_option, devices, notice
from gradience.cli.visible import visible
from gradience.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from gradience.audit.base.norms_only import GivenNorms
    from gradience.audit.base.source import BaseModel
    from gradience.audit.base.terms import Terms
    from gradience.audit.run import ProgressReport

_SAMPLE = 8


@click.command("import")
@click.argument("source", metavar="FILE|URL|ID[@REV]")
@click.option(
    "--base-model",
    metavar="DIR|FILE|ID[@REV]|URL",
    help="The base model in hand: its fingerprint must be that of the norms. A copy of other files "
    "is accepted when a sample of its weights, measured again, agrees.",
)
@cache_option
@device_option
@download_options
def import_(
    *,
    source: str,
    base_model: str | None,
    directory: Path | None,
    device: str,
    max_download: str | None,
    yes: bool,
) -> int:
    """Add norms from a file, a URL or a Hub repository to the cache.

    \b
    gradience norms import norms/org-name.json
    gradience norms import https://example.org/base_norms.json --base-model /models/copy

    Exit codes: 0 done; 1 the numbers are not those of the base model; 3 no readable norms.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.audit.norms import keep, report, travel  # noqa: PLC0415
    from gradience.audit.norms.library import in_cache  # noqa: PLC0415
    from gradience.audit.norms.verify import quiet  # noqa: PLC0415
    from gradience.audit.norms.verify import verify as check  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    place = cache_at(directory)
    given = travel.fetch(in_cache(place, source), notice=notice)
    checked = None
    with (
        progress_and_terms(max_download=max_download, yes=yes) as (progress, terms),
        _opened(base_model, terms, progress) as base,
    ):
        other = base if base and base.fingerprint != given.content.fingerprint else None
        if other is not None:
            checked = check(
                given,
                other,
                sample=_SAMPLE,
                seed=_drawn(),
                devices=devices(device),
                progress=progress or quiet,
                notice=notice,
            )
        if checked is None or checked.numbers_agree:
            kept = keep.bring(given, place, base=other, now=datetime.now(UTC))
    if checked is not None and not checked.numbers_agree:
        show(report.verified(checked))
        return int(ExitCode.BAD_NEWS)
    how = f"; {len(checked.checked)} were measured again and agree" if checked else ""
    click.echo(f"{kept.weights} norms are in {visible(str(kept.path))}{how}")
    return int(ExitCode.OK)


@click.command()
@click.argument("source", metavar="MODEL|FILE|URL|ID[@REV]")
@click.option(
    "--base-model",
    metavar="DIR|FILE|ID[@REV]|URL",
    help="The base model. [default: the model and revision that the norms name]",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=_SAMPLE,
    show_default=True,
    metavar="N",
    help="How many weights are measured again.",
)
@click.option("--all", "every", is_flag=True, help="Measure all of them again.")
@click.option(
    "--prove",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Prove the upper bound of N of the sample, the cheapest ones: no chance in it. Takes "
    "seconds each.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Of the sample and the starts. [default: another each time]",
)
@cache_option
@device_option
@download_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def verify(
    *,
    source: str,
    base_model: str | None,
    sample: int,
    every: bool,
    prove: int,
    seed: int | None,
    directory: Path | None,
    device: str,
    max_download: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Check norms against the base model: its fingerprint, and a sample measured again.

    The sample starts from other random vectors, so that a wrong number and an unlucky start both
    show. --prove needs no luck: a Cholesky factorisation in float64 shows that no singular value
    is above the bound.

    \b
    gradience norms verify norms.json --base-model org/name
    gradience norms verify org/name --prove 2
    gradience norms verify norms.json --all --json

    Exit codes: 0 all that was checked is right; 1 it is not, or the base is another; 3 no readable
    norms or base model.
    """
    from gradience.audit.base.source import open_base  # noqa: PLC0415
    from gradience.audit.norms import report, travel  # noqa: PLC0415
    from gradience.audit.norms.library import in_cache  # noqa: PLC0415
    from gradience.audit.norms.records import VERIFY_SCHEMA  # noqa: PLC0415
    from gradience.audit.norms.verify import quiet  # noqa: PLC0415
    from gradience.audit.norms.verify import verify as check  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    given = travel.fetch(in_cache(cache_at(directory), source), notice=notice)
    model = base_model or _named_base(given)
    with (
        progress_and_terms(max_download=max_download, yes=yes) as (progress, terms),
        open_base(model, terms=terms, progress=progress) as base,
    ):
        found = check(
            given,
            base,
            sample=None if every else sample,
            prove=prove,
            seed=_drawn() if seed is None else seed,
            devices=devices(device),
            progress=progress or quiet,
            notice=notice,
        )
    if as_json:
        artifact(VERIFY_SCHEMA, found)
    else:
        show(report.verified(found))
    good = found.numbers_agree and found.same_base
    return int(ExitCode.OK if good else ExitCode.BAD_NEWS)


def _opened(
    base_model: str | None, terms: "Terms", progress: "ProgressReport | None"
) -> "BaseModel | nullcontext[None]":
    if base_model is None:
        return nullcontext()
    from gradience.audit.base.source import open_base  # noqa: PLC0415

    return open_base(base_model, terms=terms, progress=progress)


def _drawn() -> int:
    """A seed that is another one each time, short enough to be typed again."""
    return int.from_bytes(os.urandom(3))


def _named_base(given: "GivenNorms") -> str:
    told = given.content
    if told.revision is None:
        raise UsageError(
            f"{given.source} names no revision of {told.model}, so which files are meant is open",
            remedy="Name the base model with --base-model.",
        )
    return f"{told.model}@{told.revision}"
