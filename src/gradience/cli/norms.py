"""`gradience norms`: norms of base models on their own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradience.cli.download import download_options, progress_and_terms
from gradience.cli.lazy import LazyGroup
from gradience.cli.visible import visible
from gradience.errors import ExitCode, UsageError
from gradience.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradience.audit.base.devices import DeviceChoice

COMMANDS: Registry[click.Command] = Registry(
    "command",
    {
        "ls": "gradience.cli.norms:ls",
        "show": "gradience.cli.norms:show",
        "measure": "gradience.cli.norms:measure",
        "export": "gradience.cli.norms:export",
        "import": "gradience.cli.norms_check:import_",
        "verify": "gradience.cli.norms_check:verify",
        "match": "gradience.cli.norms_match:match",
        "rm": "gradience.cli.norms_rm:rm",
    },
)


@click.group(cls=LazyGroup, table=COMMANDS)
def norms() -> None:
    """Keep, carry and check the norms of base models: one small file stands for a base in UDR.

    \b
    gradience norms measure org/name            # every weight of a base, once
    gradience norms export org/name --out norms.json
    gradience audit runs/my-adapter --base-norms-from norms.json    # no base model needed
    gradience norms verify norms.json --base-model org/name
    gradience norms match runs/my-adapter       # whose base is it?
    """


def cache_option(command: "Callable[..., int]") -> "Callable[..., int]":
    """The option that says where norms are kept."""
    return click.option(
        "--base-norms-cache",
        "directory",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where norms of base models are kept. [default: $GRADIENCE_CACHE_DIR/base_norms]",
    )(command)


def device_option(command: "Callable[..., int]") -> "Callable[..., int]":
    """The option that says where norms are computed."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]",
        help="Where norms are computed; CUDA needs torch.",
    )(command)


def cache_at(directory: Path | None) -> Path:
    """The directory of the cache, its default included."""
    from gradience import paths  # noqa: PLC0415

    home = Path.home()
    if directory is not None:
        return paths.as_path(directory, home)
    return paths.base_norms_dir(os.environ, home)


def devices(name: str) -> "DeviceChoice":
    """The device of that name, with the cores that this process may use."""
    from gradience.audit.base.devices import choice  # noqa: PLC0415

    return choice(name, os.environ)


def notice(sentence: str) -> None:
    """Say on standard error what takes long."""
    click.echo(visible(sentence), err=True)


@click.command()
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON, and nothing else.")
def ls(*, directory: Path | None, as_json: bool) -> int:
    """List the base models whose norms are kept.

    \b
    gradience norms ls
    gradience norms ls --json
    """
    from gradience.audit.norms import library, report  # noqa: PLC0415
    from gradience.audit.norms.records import LIST_SCHEMA  # noqa: PLC0415
    from gradience.cli.render import show as draw  # noqa: PLC0415

    found = library.listing(cache_at(directory))
    if as_json:
        artifact(LIST_SCHEMA, found)
    else:
        draw(report.listed(found))
    return int(ExitCode.OK)


@click.command()
@click.argument("name", metavar="MODEL|FILE")
@cache_option
@click.option("--all", "every", is_flag=True, help="All weights, not only those of largest norm.")
@click.option("--json", "as_json", is_flag=True, help="Print the file of norms itself.")
def show(*, name: str, directory: Path | None, every: bool, as_json: bool) -> int:
    """Show the norms of one base model.

    MODEL is a name as `gradience norms ls` lists it, with or without the start of its revision
    (org/name@a1b2), the start of its fingerprint, or the name of a file there.

    \b
    gradience norms show org/name
    gradience norms show norms.json --all
    """
    from gradience.audit.base.cache import unchecked  # noqa: PLC0415
    from gradience.audit.base.norms_file import LARGEST  # noqa: PLC0415
    from gradience.audit.norms import library, report  # noqa: PLC0415
    from gradience.cli.render import show as draw  # noqa: PLC0415
    from gradience.tensors.regular import read_regular  # noqa: PLC0415

    path = library.find(cache_at(directory), name)
    content = library.read(path)
    if as_json:
        click.echo(read_regular(path, limit=LARGEST), nl=False)
    else:
        on_word = unchecked(path, content)
        draw(report.shown(content, source=str(path), every=every, unchecked=on_word))
    return int(ExitCode.OK)


@click.command()
@click.argument("base_model", metavar="DIR|FILE|ID[@REV]|URL")
@cache_option
@device_option
@download_options
@click.option(
    "--width",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=1e-3,
    show_default=True,
    help="Relative width asked of the certified interval of each norm.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
def measure(
    *,
    base_model: str,
    directory: Path | None,
    device: str,
    max_download: str | None,
    yes: bool,
    width: float,
    as_json: bool,
) -> int:
    """Measure every weight of a base model once, and keep the norms.

    An audit measures what its adapter changes; this measures all, for every adapter to come. What
    is kept already is not measured again, unless it stands on the word of a file: then what is
    measured takes its place, and what was told wrong is named. What was measured is kept if the
    run is stopped. A base that is not on this disk is read by range, and only its norms are
    written.

    \b
    gradience norms measure mistralai/Mistral-7B-v0.1
    gradience norms measure /models/mine --device cuda
    gradience norms measure s3://bucket/models/mine --max-download 20GB

    Exit codes: 0 done; 1 a weight has no norm, or none could be measured; 2 usage; 3 a base model
    that cannot be read; 4 a missing extra; 5 the disk or your limit refused.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.audit.base.known import Settings  # noqa: PLC0415
    from gradience.audit.base.source import open_base  # noqa: PLC0415
    from gradience.audit.base.spectral_norm import Goal  # noqa: PLC0415
    from gradience.audit.norms import report  # noqa: PLC0415
    from gradience.audit.norms.keep import measure_base  # noqa: PLC0415
    from gradience.audit.norms.records import KEPT_SCHEMA  # noqa: PLC0415
    from gradience.cli.render import show as draw  # noqa: PLC0415

    with (
        progress_and_terms(max_download=max_download, yes=yes) as (progress, terms),
        open_base(base_model, terms=terms, progress=progress) as base,
    ):
        settings = Settings(
            cache_at(directory),
            datetime.now(UTC),
            Goal(width=width),
            devices(device),
            progress=progress,
            notice=notice,
        )
        kept = measure_base(base, settings)
    if as_json:
        artifact(KEPT_SCHEMA, kept)
    else:
        draw(report.measured(kept, model=base_model))
    return int(ExitCode.BAD_NEWS if kept.unmeasurable or not kept.weights else ExitCode.OK)


@click.command()
@click.argument("name", metavar="MODEL|FILE")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write; base_norms.json is the name that a Hub repository carries it under.",
)
@click.option(
    "--name",
    "called",
    metavar="ID[@REV]",
    help="Write this as the name of the model, where it was measured from a directory.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@cache_option
def export(*, name: str, out: Path, called: str | None, force: bool, directory: Path | None) -> int:
    """Write the norms of one base model to a file that a team commits or a Hub repository carries.

    MODEL is a name as `gradience norms ls` lists it, or the name of a file there. What is written
    holds the norms with their bounds, the fingerprint of the model, and the name, shape and type of
    each of its tensors; no weight.

    \b
    gradience norms export org/name --out norms/org-name.json
    gradience audit runs/my-adapter --base-norms-from norms/org-name.json
    gradience norms export org/name --out base_norms.json && hf upload org/repo base_norms.json
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.audit.base.norms_file import believable, named  # noqa: PLC0415
    from gradience.audit.base.norms_only import given  # noqa: PLC0415
    from gradience.audit.norms import library, travel  # noqa: PLC0415
    from gradience.units import format_size  # noqa: PLC0415

    if out.exists() and not force:
        raise UsageError(f"{out} is there already", remedy="Name another file, or add --force.")
    path = library.find(cache_at(directory), name)
    content = library.read(path)
    # What nobody would believe elsewhere is not written.
    given(content, source=str(path), digest="")
    if called:
        content = travel.renamed(content, called)
    size = travel.export(out, content, now=datetime.now(UTC))
    click.echo(
        f"wrote {visible(str(out))}: {len(content.norms)} norms of "
        f"{visible(named(content.model, content.revision))}, {format_size(size)}"
    )
    # As they stand in this file: those of another name, which an audit would take, are not written.
    told = sum(bool(norm.told_by) for norm in believable(content.norms)[0].values())
    if told:
        notice(f"{told} of them are on the word of another file: nobody checked them here")
    return int(ExitCode.OK)


def artifact(schema: str, content: Any) -> None:
    """Print a result as JSON."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415

    click.echo(artifacts.encode(schema, content, now=datetime.now(UTC)), nl=False)
