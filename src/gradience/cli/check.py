"""`gradience check`: a configuration judged before it burns compute."""

from pathlib import Path

import click

from gradience.cli.fail_on import fail_on_option
from gradience.errors import ExitCode


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH...",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, nothing else.")
@fail_on_option(default=("warning",))
def check(*, paths: tuple[Path, ...], as_json: bool, fail_on: tuple[str, ...]) -> int:
    """Judge a PEFT and training configuration before it burns compute.

    PATH is an adapter_config.json (LoraConfig.save_pretrained writes one), TrainingArguments as
    JSON, a bench or TRL config in YAML, a run.jsonl, or a directory that holds one of them. Several
    are judged together: the learning rate beside the adapter. Each finding says where it is from.

    \b
    gradience check adapter_config.json training_args.json
    gradience check sft.yaml
    gradience check out/run.jsonl
    gradience check bench.yaml --fail-on error   # in CI

    Exit codes: 0 nothing to object to; 1 a finding of --fail-on; 2 usage; 3 a file that is broken.
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - `--help` need not pay

    from gradience import artifacts  # noqa: PLC0415
    from gradience.check.finding_kinds import CHECK  # noqa: PLC0415
    from gradience.check.judge import verdict  # noqa: PLC0415
    from gradience.check.read import read_setup  # noqa: PLC0415
    from gradience.check.records import SCHEMA  # noqa: PLC0415
    from gradience.check.report import page  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415
    from gradience.findings import check_fail_on, failing  # noqa: PLC0415

    check_fail_on(fail_on, CHECK, page="docs/findings.md")
    found = verdict(read_setup(paths), [str(path) for path in paths])
    if as_json:
        click.echo(artifacts.encode(SCHEMA, found, now=datetime.now(UTC)), nl=False)
    else:
        show(page(found))
    return int(ExitCode.BAD_NEWS if failing(found.findings, fail_on) else ExitCode.OK)
