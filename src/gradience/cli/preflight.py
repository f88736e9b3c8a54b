"""`gradience preflight`: where the bytes of a run will go, and whether they fit."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradience.cli.whole import Whole
from gradience.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradience.storage.change.records import Plan
    from gradience.storage.preflight.records import Cleaning, Preflight
    from gradience.storage.preflight.settings import RunSettings

_BENCH_KEYS = {"variants", "claim", "seeds"}
_PLAN_SECONDS = 30.0
_LISTS = ("targets", "modules_to_save")


_OPTIONS = (
    click.option(
        "--model", metavar="ID|DIR", help="Base model: a Hub id, @revision, or a directory."
    ),
    click.option("--dataset", metavar="ID|PATH", help="Dataset: a Hub id, a file or a directory."),
    click.option("--output-dir", metavar="DIR", help="Where checkpoints go.  [trainer_output]"),
    click.option("--adapter-rank", type=Whole(min=1), metavar="R", help="Train a LoRA."),
    click.option("--targets", metavar="NAMES", help="q_proj,v_proj, a regex, or all-linear."),
    click.option(
        "--modules-to-save", metavar="NAMES", help="Modules trained whole beside the LoRA."
    ),
    click.option(
        "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="In memory."
    ),
    click.option("--optimizer", metavar="NAME", help="As TrainingArguments.optim.  [adamw_torch]"),
    click.option("--steps", type=Whole(min=1), metavar="N", help="Optimizer steps."),
    click.option("--epochs", type=float, metavar="N", help="Where --steps is not given.  [3]"),
    click.option("--batch-size", type=Whole(min=1), metavar="N", help="Examples of a step."),
    click.option("--save-steps", type=float, metavar="N", help="Steps between saves.  [500]"),
    click.option("--save-strategy", type=click.Choice(["steps", "epoch", "no"]), help="[steps]"),
    click.option("--save-total-limit", type=Whole(min=1), metavar="N", help="[no limit]"),
    click.option(
        "--save-only-model", is_flag=True, default=None, help="No optimizer in checkpoints."
    ),
    click.option("--map-copies", type=Whole(min=0), metavar="N", help="By map().  [1]"),
    click.option("--export", type=click.Choice(["none", "model", "merged"]), help="In the end."),
    click.option("--compile", is_flag=True, default=None, help="The run compiles the model."),
)


def run_options(command: "Callable[..., int]") -> "Callable[..., int]":
    """The options that say what is to be run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@run_options
@click.option("--offline", is_flag=True, help="Do not ask the Hub: what is cached must do.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, nothing else.")
def preflight(*, config: Path | None, offline: bool, as_json: bool, **flags: Any) -> int:
    """Hold what a run will write against what each disk can take: quotas and inodes too.

    FILE holds a Trainer's arguments (TrainingArguments.to_json_string()), the config of a bench, or
    the long options below as YAML keys with underscores. Options go before FILE's values. Nothing
    is downloaded but headers.

    \b
    gradience preflight --model meta-llama/Llama-3.1-8B --adapter-rank 16 --targets q_proj,v_proj \\
        --dataset tatsu-lab/alpaca --steps 3000 --save-steps 200 --save-total-limit 2
    gradience preflight training_args.json --model ./base --output-dir /data/runs/a
    gradience preflight bench.yaml --output-dir runs/bench
    gradience preflight --offline --model ./base --steps 1000 --json

    Exit codes: 0 fits; 1 fits until a step, or something that decides is not known; 2 usage;
    3 the model of a bench lies in a package that is not installed; 5 does not fit.
    """
    from gradience.cli.render import show  # noqa: PLC0415 - `--help` need not pay
    from gradience.storage.preflight.report import page  # noqa: PLC0415 - as above

    found = answer(settings_of(config, flags), online=not offline)
    if as_json:
        _print_json(found)
    else:
        show(page(found))
    return exit_code(found)


def answer(
    settings: "RunSettings", *, online: bool, environ: "Mapping[str, str]" = os.environ
) -> "Preflight":
    """Ask, with an environment: by default that of this process."""
    from gradience.storage.environment.host import this_host  # noqa: PLC0415
    from gradience.storage.preflight.run import preflight as ask  # noqa: PLC0415

    home = Path(os.environ.get("HOME") or Path.home())
    return ask(
        settings, environ=environ, home=home, host=this_host(), online=online, planner=_cleaning
    )


def _cleaning(path: Path, wanted: int) -> "Cleaning":
    """What `gradience cache clean` would give on the disk that holds a path."""
    import msgspec  # noqa: PLC0415 - only where it is short

    from gradience.cli.cache_clean import plan_to_free  # noqa: PLC0415 - only where it is short
    from gradience.storage.preflight.records import Cleaning  # noqa: PLC0415 - as above
    from gradience.storage.room.headroom import headroom  # noqa: PLC0415 - as above
    from gradience.system.base import existing_parent  # noqa: PLC0415 - as above
    from gradience.units import format_size  # noqa: PLC0415 - as above

    place = existing_parent(path)
    room = headroom(place)
    told = Cleaning(
        path=str(room.mount.path),
        command=f"gradience cache clean --min-free {format_size(wanted).replace(' ', '')}",
    )
    plans: list[Plan] = []
    # In a thread: who holds a file on a file server that is gone cannot be found out.
    asking = threading.Thread(target=lambda: plans.append(plan_to_free(wanted)), daemon=True)
    asking.start()
    asking.join(_PLAN_SECONDS)
    if not plans:
        return told
    device = place.stat().st_dev
    actions = [a for a in plans[0].actions if Path(a.root).stat().st_dev == device]
    frees = sum(action.frees_bytes for action in actions)
    return msgspec.structs.replace(
        told,
        frees_bytes=frees,
        items=len({action.item for action in actions}),
        enough=room.bytes is not None and room.bytes + frees >= wanted,
    )


def exit_code(found: "Preflight") -> int:
    """0 fits, 5 does not, 1 for what lies between."""
    codes = {"fits": ExitCode.OK, "no": ExitCode.STORAGE_REFUSED}
    return int(codes.get(found.verdict, ExitCode.BAD_NEWS))


def settings_of(config: Path | None, flags: dict[str, Any]) -> "RunSettings":
    """What a file says, with the flags that were given in place of its values.

    Raises
    ------
    UsageError
        If there is neither, the file cannot be understood, or no run can be like that.
    """
    import msgspec  # noqa: PLC0415 - `--help` need not pay

    from gradience.storage.preflight.settings import RunSettings, check  # noqa: PLC0415 - as above

    given = {name: value for name, value in flags.items() if value is not None}
    if config is None and not given:
        raise UsageError(
            "nothing says what is to be run",
            remedy="Give --model and the like, or a FILE; see gradience preflight --help.",
        )
    for name in _LISTS:
        if name in given:
            given[name] = _names(given[name])
    settings = RunSettings() if config is None else _read(config, flags.get("output_dir"))
    settings = msgspec.structs.replace(settings, **given)
    check(settings)
    return settings


def _read(config: Path, output_dir: str | None) -> "RunSettings":
    from gradience.configs.read import as_record, read_mapping  # noqa: PLC0415 - not for `--help`
    from gradience.storage.preflight.settings import REMEDY, from_document  # noqa: PLC0415

    document = read_mapping(config, remedy=REMEDY)
    if not document.data.keys() >= _BENCH_KEYS:
        return from_document(document, source=str(config))
    from gradience.bench.plan.preflight import as_run  # noqa: PLC0415 - only for a bench
    from gradience.bench.settings import BenchSettings  # noqa: PLC0415 - as above

    settings = as_record(document, BenchSettings, source=str(config), remedy=REMEDY)
    return as_run(settings, output_dir or "bench_output", directory=config.parent, home=Path.home())


def _names(text: str) -> tuple[str, ...] | str:
    """Names with commas between them; what is no plain name is a regular expression."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    plain = all(name.replace(".", "").replace("_", "").isalnum() for name in names)
    return names if plain and names != ("all-linear",) else text


def _print_json(found: "Preflight") -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.storage.preflight.records import SCHEMA  # noqa: PLC0415

    click.echo(artifacts.encode(SCHEMA, found, now=datetime.now(UTC)), nl=False)
