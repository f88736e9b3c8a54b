"""`gradience norms import` and `verify`: norms from elsewhere, held against the base in hand."""

import os
from typing import TYPE_CHECKING

import click

from gradience.cli.download import download_options, progress_and_terms
from gradience.cli.norms import artifact, cache_at, cache_option, device_option, devices, notice
from gradience.cli.whole import Whole
from gradience.errors import ExitCode, UsageError
from gradience.paths import is_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gradience.audit.base.known import Progress
    from gradience.audit.base.norms_only import GivenNorms
    from gradience.audit.norms.verify import Check

_SAMPLE = 8


def sample_options(command: "Callable[..., int]") -> "Callable[..., int]":
    """The options that say how many weights are measured again."""
    size = click.option(
        "--sample",
        type=Whole(min=1),
        default=_SAMPLE,
        show_default=True,
        metavar="N",
        help="How many weights of the base model are measured again.",
    )
    every = click.option("--all", "every", is_flag=True, help="Measure all of them again.")
    return size(every(command))


@click.command("import")
@click.argument("source", metavar="MODEL|FILE|URL|ID[@REV]")
@click.option(
    "--base-model",
    metavar="DIR|FILE|ID[@REV]|URL",
    help="The base model in hand: a sample of its weights is measured again and must agree. They "
    "may lie in other files than those the norms were measured on.",
)
@sample_options
@cache_option
@device_option
@download_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def import_(
    *,
    source: str,
    base_model: str | None,
    sample: int,
    every: bool,
    directory: "Path | None",
    device: str,
    max_download: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Add norms from a file, a URL or a Hub repository to the cache.

    With --base-model a sample of them is measured again and must agree, or nothing is added; those
    of the sample count as checked. The others, and all of them without --base-model, are kept on
    the word of their file, and every audit that uses them says so. A MODEL whose norms are kept
    already is checked further.

    \b
    gradience norms import norms/org-name.json --base-model org/name
    gradience norms import https://example.org/base_norms.json --base-model /models/copy --all
    gradience norms import org/norms

    Exit codes: 0 done; 1 the numbers are not those of the base model; 2 usage; 3 no readable norms
    or base model; 5 the disk or your limit refused.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.audit.base.source import open_base  # noqa: PLC0415
    from gradience.audit.norms import keep, report, travel  # noqa: PLC0415
    from gradience.audit.norms.library import in_cache  # noqa: PLC0415
    from gradience.audit.norms.records import KEPT_SCHEMA  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    if base_model is None:
        _refuse_a_check(device)
    place, now = cache_at(directory), datetime.now(UTC)
    given = travel.fetch(in_cache(place, source), notice=notice)
    if base_model is None:
        kept = keep.bring(given, place, now=now)
    else:
        with (
            progress_and_terms(max_download=max_download, yes=yes) as (progress, terms),
            open_base(base_model, terms=terms, progress=progress) as base,
        ):
            how = _check(None if every else sample, device=device, progress=progress)
            kept = keep.bring_checked(given, base, how, place, now=now)
    if as_json:
        artifact(KEPT_SCHEMA, kept)
    else:
        show(report.brought(kept))
    return int(ExitCode.BAD_NEWS if kept.path is None else ExitCode.OK)


def _refuse_a_check(device: str) -> None:
    """Refuse options that say how norms are checked, where there is nothing to check them against.

    Raises
    ------
    UsageError
    """
    from click.core import ParameterSource  # noqa: PLC0415 - only to tell a default from a wish

    from gradience.audit.base.devices import check_device  # noqa: PLC0415

    check_device(device, has_base=False)
    source_of = click.get_current_context().get_parameter_source
    for option, name in (("--all", "every"), ("--sample", "sample")):
        if source_of(name) is not ParameterSource.DEFAULT:
            raise UsageError(
                f"{option} says how many norms are held against the weights of a base model, and "
                "no base model is named",
                remedy=f"Name the base model with --base-model, or leave {option} out.",
            )


def _check(
    sample: int | None,
    *,
    device: str,
    progress: "Progress | None",
    prove: int = 0,
    seed: int | None = None,
) -> "Check":
    from gradience.audit.norms.verify import Check  # noqa: PLC0415

    return Check(
        sample=sample,
        prove=prove,
        # Another one each time, short enough to be typed again.
        seed=int.from_bytes(os.urandom(3)) if seed is None else seed,
        devices=devices(device),
        progress=progress,
        notice=notice,
    )


@click.command()
@click.argument("source", metavar="MODEL|FILE|URL|ID[@REV]")
@click.option(
    "--base-model",
    metavar="DIR|FILE|ID[@REV]|URL",
    help="The base model. [default: the directory that was named, else the model and revision that "
    "the norms name]",
)
@sample_options
@click.option(
    "--prove",
    type=Whole(min=0),
    default=0,
    metavar="N",
    help="Prove the upper bound of N of the sample, the cheapest ones: no chance in it. Takes "
    "seconds each.",
)
@click.option(
    "--seed",
    type=Whole(min=0),
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
    directory: "Path | None",
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
    from gradience.audit.norms.verify import verify as checked  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    place = in_cache(cache_at(directory), source)
    given = travel.fetch(place, notice=notice)
    # The directory of a base model, whose norms are kept: it is at hand.
    at_hand = source if is_directory(source) and place != source else None
    model = base_model or at_hand or _named_base(given)
    with (
        progress_and_terms(max_download=max_download, yes=yes) as (progress, terms),
        open_base(model, terms=terms, progress=progress) as base,
    ):
        how = _check(
            None if every else sample, device=device, progress=progress, prove=prove, seed=seed
        )
        found = checked(given, base, how)
    if as_json:
        artifact(VERIFY_SCHEMA, found)
    else:
        show(report.verified(found))
    good = found.numbers_agree and found.same_base
    return int(ExitCode.OK if good else ExitCode.BAD_NEWS)


def _named_base(given: "GivenNorms") -> str:
    from gradience.audit.base.norms_file import in_full  # noqa: PLC0415

    told = given.content
    if told.revision is None:
        raise UsageError(
            f"{given.source} names no revision of {told.model}, so which files are meant is open",
            remedy="Name the base model with --base-model.",
        )
    return in_full(told.model, told.revision)
