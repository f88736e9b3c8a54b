"""`gradience bench init`: a commented config to start from."""

from pathlib import Path

import click

from gradience.cli.visible import visible
from gradience.errors import UsageError


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("bench.yaml"))
@click.option("--stdout", is_flag=True, help="Print the config, and write no file.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def init(*, file: Path, stdout: bool, force: bool) -> None:
    """Write a commented config, with every key, to FILE [bench.yaml].

    \b
    gradience bench init
    gradience bench init sst2.yaml
    gradience bench init --stdout | less

    Exit codes: 0 done; 2 FILE is there already; 5 the disk refused.
    """
    from importlib.resources import files as resources  # noqa: PLC0415 - `--help` need not pay

    from gradience import files  # noqa: PLC0415

    text = resources("gradience.bench.config").joinpath("starter.yaml").read_bytes()
    if stdout:
        click.echo(text, nl=False)
        return
    if file.exists() and not force:
        raise UsageError(f"{file} is there already", remedy="Name another file, or add --force.")
    files.replace(file, text)
    name = visible(str(file))
    click.echo(f"wrote {name}. Edit it, then:", err=True)
    click.echo(f"  gradience bench --config {name} --output-dir out --dry-run", err=True)
