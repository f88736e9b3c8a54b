"""`gradience env`: the export lines for a machine, and nothing else, on standard output."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradience.storage.environment.exports.export import Export
    from gradience.storage.environment.machine import Machine
    from gradience.storage.environment.profile import Installed
    from gradience.storage.environment.records import Environment


@click.command()
@click.option("--platform", metavar="NAME", help="Kind of machine. [default: detected]")
@click.option(
    "--root", metavar="DIR", help="Start from this directory, in place of the platform's own."
)
@click.option(
    "--format",
    "format_name",
    metavar="FORMAT",
    help="bash, zsh, fish, powershell, dotenv, dockerfile, compose, k8s, systemd or slurm. "
    "[default: that of $SHELL]",
)
@click.option(
    "--transfer",
    type=click.Choice(["auto", "plain", "fast"]),
    default="auto",
    show_default=True,
    help="Downloads: plain HTTP; as fast as the installed client can; or what that client does "
    "best by itself.",
)
@click.option("--no-create", is_flag=True, help="Make no directories.")
@click.option("--install", "wanted", flag_value="install", help="Set it in every new shell.")
@click.option("--uninstall", "wanted", flag_value="uninstall", help="Take that back.")
@click.option("--explain", "wanted", flag_value="explain", help="Show each variable, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON, and nothing else.")
def env(
    *,
    platform: str | None,
    root: str | None,
    format_name: str | None,
    transfer: str,
    no_create: bool,
    wanted: str | None,
    as_json: bool,
) -> int:
    """Print the environment that puts every cache in its place on this machine.

    Weights, data and W&B's files go to the big disk, compile caches and temporary files to a local
    one; the login token stays where it is. Only lines for the shell go to standard output. They set
    HF_HOME, HF_HUB_CACHE, HF_DATASETS_CACHE, HF_XET_CACHE, HF_TOKEN_PATH, TORCH_HOME,
    TORCHINDUCTOR_CACHE_DIR, TORCH_EXTENSIONS_DIR, TRITON_CACHE_DIR, TMPDIR, WANDB_DIR,
    WANDB_CACHE_DIR, WANDB_DATA_DIR, WANDB_ARTIFACT_DIR and GRADIENCE_CACHE_DIR; --transfer may add
    a switch. Each directory that they name is made, unless the format is for elsewhere (dockerfile,
    compose, k8s, systemd, slurm).

    \b
    eval "$(gradience env)"
    gradience env --explain
    gradience env --install                 # for every new shell; --uninstall takes it back
    gradience env --root /data/me
    gradience env --platform docker --format dockerfile >> Dockerfile

    Platforms: runpod, runpod_serverless, vast, lambda, paperspace, colab, kaggle, sagemaker, modal,
    hf_spaces, databricks, slurm, kubernetes, wsl, docker, local.
    """
    from gradience.storage.environment.choose import absolute, environment  # noqa: PLC0415
    from gradience.storage.environment.exports import EXPORTS  # noqa: PLC0415
    from gradience.storage.environment.machine import read_machine  # noqa: PLC0415
    from gradience.storage.environment.profile import SHELLS  # noqa: PLC0415

    if wanted == "uninstall":
        return _uninstall()
    machine = read_machine(os.environ)
    export = EXPORTS[format_name or _default_format(machine.environ, wanted)]
    if wanted == "install" and export.name not in SHELLS:
        raise UsageError(
            f"--install writes for {', '.join(SHELLS)}, not for {export.name}",
            remedy="Redirect the output to a file in place of it.",
        )
    chosen = environment(
        machine,
        platform=platform or (export.platform or None),
        root=absolute(root, machine.home, machine.host.cwd) if root is not None else None,
        choice=transfer,  # type: ignore[arg-type]  # click has checked it
        elsewhere=bool(export.platform),
    )
    if as_json:
        _print_json(chosen, machine)
    elif wanted == "explain":
        _explain(chosen, machine)
    else:
        _export(chosen, export, machine, create=not no_create, installing=wanted == "install")
    return 0


def _export(
    chosen: "Environment", export: "Export", machine: "Machine", *, create: bool, installing: bool
) -> None:
    text = export.render(chosen.layout)
    if create and export.where == "here":
        _create(chosen)
    _notes(chosen)
    if installing:
        from gradience.storage.environment import profile  # noqa: PLC0415

        shell = export.name
        _say_installed(profile.install(chosen.layout, shell, machine.environ, machine.home))
    else:
        click.echo(text, nl=False)


def _create(chosen: "Environment") -> None:
    from gradience.storage.environment.directories import create_directories  # noqa: PLC0415

    if chosen.here:
        for path in create_directories(chosen.layout):
            click.echo(f"made {path}", err=True)
    else:
        click.echo(f"{chosen.reason} No directory was made; --root DIR makes them.", err=True)


def _notes(chosen: "Environment") -> None:
    from gradience.storage.environment.explain import move_notes  # noqa: PLC0415

    for line in (*chosen.notes, *move_notes(chosen.left_behind)):
        click.echo(line, err=True)


def _explain(chosen: "Environment", machine: "Machine") -> None:
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.storage.environment.explain import page  # noqa: PLC0415

    show(page(chosen, machine.environ))
    _notes(chosen)


def _print_json(chosen: "Environment", machine: "Machine") -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.storage.environment.explain import SCHEMA, report  # noqa: PLC0415

    data = artifacts.encode(SCHEMA, report(chosen, machine.environ), now=datetime.now(UTC))
    click.echo(data, nl=False)


def _uninstall() -> int:
    from gradience.storage.environment import profile  # noqa: PLC0415

    done = profile.uninstall(os.environ, Path.home())
    _say_installed(done)
    if done.written or done.removed:
        click.echo(
            "The directories that it named stay, with what is in them; `gradience doctor` finds "
            "what is left there.",
            err=True,
        )
    else:
        click.echo("nothing was installed.", err=True)
    return 0


def _say_installed(done: "Installed") -> None:
    for path in done.written:
        click.echo(f"wrote {path}", err=True)
    for path in done.removed:
        click.echo(f"removed {path}", err=True)
    for path in done.unchanged:
        click.echo(f"{path} is as it should be", err=True)
    for line in done.overrides:
        click.echo(f"comes later, and wins: {line}", err=True)
    if done.written and not done.removed:
        click.echo("New shells have it; this one: exec $SHELL", err=True)


def _default_format(environ: "Mapping[str, str]", wanted: str | None) -> str:
    """The user's shell; to print, plain POSIX lines do where it is none of those we know."""
    if wanted == "install":
        from gradience.storage.environment.profile import shell_of  # noqa: PLC0415

        return shell_of(environ)
    name = Path(environ.get("SHELL", "")).name
    return {"zsh": "zsh", "fish": "fish", "pwsh": "powershell"}.get(name, "bash")
