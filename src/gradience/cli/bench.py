"""`gradience bench`: is a smaller adapter really as good?"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gradience.cli.lazy import LazyGroup
from gradience.cli.visible import visible
from gradience.errors import ExitCode, UsageError
from gradience.registry import Registry

if TYPE_CHECKING:
    from gradience.bench.plan.adopt import Accept
    from gradience.bench.records import Bench, BenchReport, Failure
    from gradience.bench.settings import BenchSettings

COMMANDS: Registry[click.Command] = Registry(
    "command",
    {
        "init": "gradience.cli.bench_init:init",
        "verify": "gradience.cli.bench_verify:verify",
        "aggregate": "gradience.cli.bench_aggregate:aggregate",
    },
)

_FAIL_ON = ("none-safe", "any", "never")


@click.group(cls=LazyGroup, table=COMMANDS, invoke_without_command=True)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What to test, in YAML: docs/bench.md has every key.",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where trials and report go. What is done there already is not done again.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, such as train.steps=100 or variants.0.ranks=[8,4]; the value is YAML. "
    "May be given more than once.",
)
@click.option("--executor", metavar="NAME", help="Where trials run, in place of executor.name.")
@click.option(
    "--smoke",
    is_flag=True,
    help="Two seeds, a few steps and items, in DIR/smoke: see it run through. Its verdicts mean "
    "nothing, and do not make it exit with 1.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the trials, what they cost, and the power of the test; write nothing.",
)
@click.option(
    "--measure",
    metavar="TIME",
    help="With --dry-run: start a probe, time it for TIME (such as 2m) and stop it.",
)
@click.option("--retry-failed", is_flag=True, help="Run trials again that failed before.")
@click.option(
    "--accept",
    multiple=True,
    type=click.Choice(["code", "versions"]),
    help="Use results of another Gradience (code) or of other libraries (versions); the report "
    "says so.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="|".join((*_FAIL_ON, "VARIANT")),
    help="When to exit with 1: no variant is SAFE [default], any of them is not, this one is not. "
    "May be given more than once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print bench.json, and nothing else.")
@click.pass_context
def bench(
    ctx: click.Context,
    *,
    config: Path | None,
    output_dir: Path | None,
    overrides: tuple[str, ...],
    executor: str | None,
    smoke: bool,
    dry_run: bool,
    measure: str | None,
    retry_failed: bool,
    accept: tuple[Literal["code", "versions"], ...],
    fail_on: tuple[str, ...],
    as_json: bool,
) -> int | None:
    """Test a claim: this adapter could be smaller.

    For each seed a probe adapter is trained; then it is made smaller in every way that the config
    names, each is evaluated on the same items, and a test over seeds and items says SAFE, NOT SAFE
    or UNDERPOWERED. Stop it at any time, and the same command goes on.

    \b
    gradience bench init bench.yaml                               # a commented config
    gradience bench --config bench.yaml --output-dir out --dry-run
    gradience bench --config bench.yaml --output-dir out
    gradience bench --config bench.yaml --output-dir out --set seeds=[0,1,2,3,4]
    gradience bench verify out                                    # the verdict from the records

    Exit codes: 0 done; 1 no variant is SAFE (--fail-on), or a control failed; 2 usage or config;
    3 an unreadable model, file or result; 4 a missing extra; 5 no room; 6 a trial failed.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options(ctx)
        return None
    if config is None or output_dir is None:
        raise _missing("--config" if config is None else "--output-dir")
    whole = _settings(config, overrides, executor=executor)
    settings, root = _smoke(whole, output_dir) if smoke else (whole, output_dir)
    _check_fail_on(fail_on, settings)
    if dry_run:
        from gradience.cli.bench_dry_run import dry_run as show_forecast  # noqa: PLC0415

        return show_forecast(settings, root, accept=accept, measure=measure, as_json=as_json)
    if measure is not None:
        raise UsageError("--measure goes with --dry-run", remedy="Add --dry-run, or leave it out.")
    done = _run(settings, root, retry_failed=retry_failed, accept=accept)
    if not smoke:
        return _finish(done, root, fail_on=fail_on, as_json=as_json)
    # That it ran through is all that was asked.
    code = _finish(done, root, fail_on=fail_on or ("never",), as_json=as_json)
    if code != ExitCode.TRIAL_FAILED:
        from gradience.cli.bench_dry_run import ran_through  # noqa: PLC0415

        ran_through(done, whole, output_dir, command=_command(ctx.params))
    return code


def _missing(option: str) -> UsageError:
    return UsageError(
        f"{option} is missing",
        remedy="gradience bench --config FILE --output-dir DIR; `gradience bench init` writes "
        "a config.",
    )


def _refuse_options(ctx: click.Context) -> None:
    """`gradience bench --config x verify`: options of a run do not go with a subcommand."""
    given = [name for name, value in ctx.params.items() if value not in (None, False, ())]
    if given:
        raise UsageError(
            f"{ctx.invoked_subcommand} does not take --{given[0].replace('_', '-')}",
            remedy=f"See `gradience bench {ctx.invoked_subcommand} --help`.",
        )


def _settings(config: Path, overrides: tuple[str, ...], *, executor: str | None) -> "BenchSettings":
    # Imported here, as everything below: msgspec, yaml and numpy are 0.2 s that `--help` saves.
    from gradience.bench.config.load import load  # noqa: PLC0415

    if executor is not None:
        overrides = (*overrides, f"executor.name={executor}")
    return load(config, overrides, home=Path.home(), cwd=Path.cwd())


def _smoke(settings: "BenchSettings", output_dir: Path) -> "tuple[BenchSettings, Path]":
    """The smoke run of a bench, and where it goes: never where a real report is looked for."""
    from gradience.bench.config.load import smoke  # noqa: PLC0415
    from gradience.bench.ledger import SMOKE  # noqa: PLC0415

    return smoke(settings), output_dir / SMOKE


def _run(
    settings: "BenchSettings",
    output_dir: Path,
    *,
    retry_failed: bool,
    accept: "tuple[Accept, ...]",
) -> "Bench":
    from gradience.bench.run import RunOptions, run_bench  # noqa: PLC0415
    from gradience.cli.bench_progress import bench_progress, interruptible  # noqa: PLC0415

    with interruptible(output_dir), bench_progress(sys.stderr) as shown:
        options = RunOptions(
            retry_failed=retry_failed, accept=accept, watch=shown.watch, notice=shown.notice
        )
        return run_bench(settings, output_dir, options)


def _command(given: dict[str, Any]) -> list[str]:
    """What runs the bench itself, of the options that a smoke run of it was given."""
    command = ["gradience", "bench", "--config", str(given["config"])]
    command += ["--output-dir", str(given["output_dir"])]
    command += [part for override in given["overrides"] for part in ("--set", override)]
    return command + ([] if given["executor"] is None else ["--executor", given["executor"]])


def _finish(done: "Bench", output_dir: Path, *, fail_on: tuple[str, ...], as_json: bool) -> int:
    """Judge, write the report, show it, and say it in the exit code."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from gradience.bench.ledger import Ledger  # noqa: PLC0415
    from gradience.bench.report.judged import judged, lost_trials  # noqa: PLC0415
    from gradience.bench.report.page import page  # noqa: PLC0415
    from gradience.bench.report.write import write  # noqa: PLC0415
    from gradience.cli.render import show  # noqa: PLC0415

    failures = lost_trials(Ledger(output_dir), done)
    for failure in failures:
        click.echo(
            f"failed: {failure.variant} seed {failure.seed}: {visible(failure.message)} "
            f"(see {visible(str(output_dir / failure.log))})",
            err=True,
        )
    report = judged(output_dir)
    if report is not None:
        written = write(report, output_dir, now=datetime.now(UTC))
        if as_json:
            click.echo(written.paths[0].read_bytes(), nl=False)
        else:
            show(page(report))
        for sentence in filter(None, (_wrote(written.paths), written.missing)):
            click.echo(visible(sentence), err=True)
    return _exit_code(report, failures, fail_on)


def _wrote(paths: tuple[Path, ...]) -> str:
    return f"wrote {', '.join(map(str, paths))}"


def _exit_code(
    report: "BenchReport | None", failures: "tuple[Failure, ...]", fail_on: tuple[str, ...]
) -> int:
    """6 for a failed trial before 1 for a failed claim: what was not run was not claimed."""
    if failures:
        return int(ExitCode.TRIAL_FAILED)
    return int(ExitCode.BAD_NEWS if report and claim_failed(report, fail_on) else ExitCode.OK)


def claim_failed(report: "BenchReport", fail_on: tuple[str, ...]) -> bool:
    """Whether a report is bad news in the sense of `--fail-on`."""
    asked = set(fail_on) or {"none-safe"}
    if "never" in asked:
        return False
    decisions = {verdict.variant: verdict.decision for verdict in report.verdicts}
    safe = [decision == "SAFE" for decision in decisions.values()]
    return (
        any(control.passed is False for control in report.controls)
        or ("none-safe" in asked and not any(safe))
        or ("any" in asked and not all(safe))
        or any(decisions.get(name) != "SAFE" for name in asked - set(_FAIL_ON))
    )


def _check_fail_on(fail_on: tuple[str, ...], settings: "BenchSettings") -> None:
    from gradience.bench.plan.trials import variants  # noqa: PLC0415
    from gradience.configs.problems import meant  # noqa: PLC0415

    known = [*_FAIL_ON, *(v.name for v in variants(settings) if v.ladder)]
    for asked in fail_on:
        if asked not in known:
            hint = meant(asked, known)
            raise UsageError(
                f"--fail-on {asked}: no variant of this bench", remedy=hint[:1].upper() + hint[1:]
            )
