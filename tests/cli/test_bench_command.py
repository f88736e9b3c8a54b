"""`gradience bench` as a user meets it: help, mistakes, a dry run, real runs that are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from factories_bench import save_bert, write_reviews
from factories_driver import FakeExecutor, make_project, settings_of
from gradience.bench.config.load import load
from gradience.bench.driver.progress import RunningTrial, Snapshot
from gradience.bench.ledger import Ledger
from gradience.bench.records import BenchReport, Control, Verdict
from gradience.bench.run import RunOptions, run_bench
from gradience.bench.settings import BenchSettings, ClaimSettings
from gradience.bench.tasks import TASKS
from gradience.cli.bench import bench, claim_failed
from gradience.cli.bench_progress import line, plain_lines
from gradience.errors import GradienceError, UsageError

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "bench"
SHARED = ROOT.parent / "shared" / "data"


def gradience(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradience", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )


# Help and mistakes.


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom gradience.cli.main import main\n"
        "try:\n    main(['bench', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'rich', 'yaml', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for name in ("init", "verify", "aggregate", "--config", "--dry-run", "Exit codes"):
        assert name in done.stdout


def refused(*arguments: str) -> UsageError:
    found = CliRunner().invoke(bench, list(arguments))
    assert isinstance(found.exception, UsageError), found.output
    return found.exception


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    assert "--config is missing" in str(refused())
    assert "--output-dir is missing" in str(refused("--config", "x.yaml"))
    assert "verify does not take --smoke" in str(refused("--smoke", "verify", "x"))
    config = str(make_project(tmp_path))
    run = ("--config", config, "--output-dir", str(tmp_path / "out"))
    assert "--measure goes with --dry-run" in str(refused(*run, "--measure", "1m"))
    told = refused(*run, "--fail-on", "truncate-r5")
    assert "--fail-on truncate-r5" in str(told)
    assert "truncate-r4" in told.remedy
    assert not (tmp_path / "out").exists()


def test_a_bad_config_exits_with_2_and_names_every_problem(tmp_path: Path) -> None:
    config = make_project(tmp_path)
    config.write_text(config.read_text().replace("alpha: 16", "alpah: 16"))
    done = gradience(
        "bench", "--config", config, "--output-dir", tmp_path / "out", "--set", "seeds=[0, 0]"
    )
    assert done.returncode == 2
    assert "$.lora.alpah: unknown key; did you mean 'alpha'?" in done.stderr
    assert "$.lora.alpha: missing" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("hint: docs/bench.md")


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    config = make_project(tmp_path)
    arguments = ["bench", "--config", config, "--output-dir", tmp_path / "out", "--dry-run"]
    page = gradience(*arguments)
    assert page.returncode == 0
    assert "16 trials, 0 of them done" in page.stdout
    assert "at a level of 0.025 (that of the claim, shared by 2 ladders), if" in flat(page.stdout)
    looks = gradience(
        *arguments, "--set", "claim.looks=3", "--set", "variants=[{action: truncate, ranks: [4]}]"
    )
    assert "at a level of 0.0167 (that of the claim, shared by 3 looks), if" in flat(looks.stdout)
    content = json.loads(gradience(*arguments, "--json").stdout)
    assert content["schema"] == "gradience.bench_forecast/v1"
    assert sum(row["trials"] for row in content["content"]["rows"]) == 16
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_what_does_not_fit_the_budget_exits_as_the_run_would(tmp_path: Path) -> None:
    config = make_project(tmp_path)
    run = (
        "bench",
        "--config",
        config,
        "--output-dir",
        tmp_path / "out",
        "--set",
        "disk_budget=1KB",
    )
    done = gradience(*run, "--dry-run")
    assert (done.returncode, "It does not fit" in done.stdout) == (5, True), done.stderr


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_dry_run_says_that_it_would_be_one_more_look_or_another_claim(tmp_path: Path) -> None:
    config, out = make_project(tmp_path), tmp_path / "out"
    run_bench(settings_of(config), out, RunOptions(executor=FakeExecutor()))

    def told(*overrides: str) -> list[str]:
        sets = [part for override in overrides for part in ("--set", override)]
        run = ["--config", str(config), "--output-dir", str(out), "--dry-run", *sets]
        page = CliRunner().invoke(bench, run, standalone_mode=False, catch_exceptions=False)
        content = json.loads(CliRunner().invoke(bench, [*run, "--json"]).stdout)["content"]
        notes = content.get("history", [])
        assert all(f"The report will say: {note}" in flat(page.stdout) for note in notes)
        return notes

    assert told() == []
    [look] = told("seeds=[0,1,2,3]")
    assert look.startswith("This is look 2: verdicts were computed here before")
    assert "The claim allows for one, so the level of 0.05 does not hold" in look
    [claim] = told("claim.margin=0.1")
    assert claim.startswith("The claim was changed after there were results: before, it was")
    assert "margin 0.025" in claim
    assert Ledger(out).bench().looks == ((0, 1),)  # a dry run is none


# init and the examples.


def test_init_writes_a_config_and_never_over_another(tmp_path: Path) -> None:
    assert gradience("bench", "init", cwd=tmp_path).returncode == 0
    written = (tmp_path / "bench.yaml").read_text()
    assert gradience("bench", "init", "--stdout").stdout == written
    (tmp_path / "bench.yaml").write_text("mine")
    again = gradience("bench", "init", cwd=tmp_path)
    assert again.returncode == 2
    assert (tmp_path / "bench.yaml").read_text() == "mine"


def starter(tmp_path: Path, *, uncomment: bool = False) -> Path:
    make_project(tmp_path)
    text = gradience("bench", "init", "--stdout").stdout
    if uncomment:
        text = "\n".join(uncommented(line) for line in text.splitlines())
    (tmp_path / "starter.yaml").write_text(text)
    return tmp_path / "starter.yaml"


def uncommented(text: str) -> str:
    """A line whose default is taken for what it says; notes stay notes."""
    body = text.lstrip(" #")
    is_key = text.lstrip().startswith("# ") and body.partition(":")[0].isidentifier()
    # What only a model of the Hub has, and what excludes what stands above.
    return text.replace("# ", "", 1) if is_key and not body.startswith(OTHERS) else text


OTHERS = ("revision", "energies")


def test_the_starter_means_something_once_its_files_are_there(tmp_path: Path) -> None:
    settings = load(starter(tmp_path), home=tmp_path, cwd=tmp_path)
    assert settings.model.id == "org/model"
    assert [ladder.action for ladder in settings.variants] == ["truncate", "heal", "retrain"]


def test_the_defaults_that_the_starter_shows_are_the_defaults(tmp_path: Path) -> None:
    plain = load(starter(tmp_path), home=tmp_path, cwd=tmp_path)
    shown = load(starter(tmp_path, uncomment=True), ["disk_budget="], home=tmp_path, cwd=tmp_path)
    assert shown.train == plain.train
    assert (shown.claim, shown.evaluation, shown.lora) == (
        plain.claim,
        plain.evaluation,
        plain.lora,
    )
    assert (shown.executor, shown.model) == (plain.executor, plain.model)


def test_the_starter_shows_every_key_and_task() -> None:
    text = gradience("bench", "init", "--stdout").stdout
    kinds: list[type] = [BenchSettings]
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            assert f"{field.name}:" in text, field.name
            inner = getattr(field.type, "__args__", (field.type,))[0]
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                kinds.append(inner)
    assert len(kinds) == 9
    assert all(name in text for name in TASKS)


@pytest.mark.parametrize("name", ["tiny", "sst2_minilm", "gsm8k"])
def test_an_example_can_be_meant(name: str, tmp_path: Path) -> None:
    overrides = []
    if name == "tiny":
        overrides = [f"model.id={make_project(tmp_path).parent / 'model'}"]
    elif not SHARED.is_dir():
        pytest.skip("the data of this example is not here")
    try:
        load(EXAMPLES / f"{name}.yaml", overrides, home=tmp_path, cwd=tmp_path)
    except GradienceError as error:
        if "is not installed" in str(error):
            pytest.skip("the base model of this example is not here")
        raise


# What is told on the way.


def snapshot(done: int, *running: RunningTrial) -> Snapshot:
    return Snapshot(total=9, done=done, failed=1, running=running, elapsed=1.0, left=75.0)


def test_a_line_says_what_runs_and_how_long_it_takes() -> None:
    trial = RunningTrial(id="a", name="heal-r2 seed 1", stage="train", done=5, total=50, left=20.0)
    assert line(snapshot(3, trial)) == (
        "3 of 9 trials done, 1 failed; heal-r2 seed 1: train 5/50, 20.0 s left; "
        "about 1 min 15 s left"
    )


def test_plain_lines_come_when_a_trial_ends_and_rarely_otherwise() -> None:
    now, lines = [0.0], []
    watch = plain_lines(lines.append, clock=lambda: now[0])
    trial = RunningTrial(id="a", name="probe seed 0")
    for second in range(60):
        now[0] = float(second)
        watch(snapshot(second // 25, trial))
    assert len(lines) == 7  # at 0, 10, 20; 25 and 35, 45; 50


# Exit codes.


def verdict(variant: str, decision: str) -> Verdict:
    """Only its decision matters here."""
    empty = {"str": "", "float": 0.0, "int": 0}
    fields = [f for f in msgspec.structs.fields(Verdict) if f.required]
    values = {f.name: empty.get(getattr(f.type, "__name__", ""), {}) for f in fields}
    return Verdict(**{**values, "variant": variant, "decision": decision})


def report(*decisions: str, control: bool | None = True) -> BenchReport:
    return BenchReport(
        name="x",
        claim=ClaimSettings(margin=0.1),
        metric="accuracy",
        binary=True,
        results=(),
        scores=(),
        verdicts=tuple(verdict(f"v{i}", d) for i, d in enumerate(decisions)),
        controls=(Control(variant="c", expectation="", passed=control, observed=""),),
        failures=(),
        notes=(),
        versions={},
    )


@pytest.mark.parametrize(
    ("decisions", "fail_on", "failed"),
    [
        (("SAFE", "NOT SAFE"), (), False),
        (("NOT SAFE", "UNDERPOWERED"), (), True),
        (("SAFE", "NOT SAFE"), ("any",), True),
        (("SAFE", "SAFE"), ("any",), False),
        (("SAFE", "NOT SAFE"), ("v0",), False),
        (("SAFE", "NOT SAFE"), ("v0", "v1"), True),
        (("NOT SAFE",), ("never",), False),
        (("SAFE",), ("v1",), True),  # which has no verdict
    ],
)
def test_the_exit_code_is_the_claim_that_was_asked_for(
    decisions: tuple[str, ...], fail_on: tuple[str, ...], failed: bool
) -> None:
    assert claim_failed(report(*decisions), fail_on) == failed


def test_a_failed_control_is_a_failed_claim() -> None:
    assert claim_failed(report("SAFE", control=False), ())
    assert not claim_failed(report("SAFE", control=None), ())


# Real runs.


def real_project(tmp_path: Path) -> Path:
    """The smallest real bench: a random BERT, a probe, one variant, and the controls."""
    save_bert(tmp_path / "model")
    for i, side in enumerate(("train", "test")):
        write_reviews(tmp_path / f"{side}.tsv", 40, seed=i)
    config = """
name: smallest
model: {id: model}
task: {name: classification, train: [train.tsv], test: [test.tsv]}
lora: {rank: 4, alpha: 8, targets: [query, value]}
train: {learning_rate: 5e-3, batch_size: 8, steps: 4, max_length: 32}
variants: [{action: truncate, ranks: [2]}]
seeds: [0]
claim: {margin: 0.1}
executor: {device: cpu}
"""
    columns = "options: {columns: [text, label]}"
    (tmp_path / "bench.yaml").write_text(config.replace("[test.tsv]}", f"[test.tsv], {columns}}}"))
    return tmp_path / "bench.yaml"


def wait_until(ready, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_real_run_that_is_killed_goes_on_and_a_third_run_does_nothing(tmp_path: Path) -> None:
    config, out = real_project(tmp_path), tmp_path / "out"
    command = ["bench", "--config", str(config), "--output-dir", str(out)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [sys.executable, "-m", "gradience", *command],
        env=environ,
        text=True,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: len(list(out.glob("trials/*/result.json"))) >= 2, first)
    done = {path: path.read_bytes() for path in out.glob("trials/*/result.json")}
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = gradience(*command, env=environ)
    assert second.returncode == 1, second.stderr  # one seed proves nothing
    assert "UNDERPOWERED" in second.stdout
    assert all(path.read_bytes() == content for path, content in done.items())
    assert len(list(out.glob("trials/*/result.json"))) == 6
    before = {path: path.stat().st_mtime_ns for path in out.glob("trials/**/*")}
    third = gradience(*command, env=environ)
    assert third.stdout == second.stdout
    assert {path: path.stat().st_mtime_ns for path in out.glob("trials/**/*")} == before
    assert gradience("bench", "verify", out).returncode == 0
    # A smoke run beside it leaves the real one as it is.
    report = (out / "bench.json").read_bytes()
    smoke = gradience(*command, "--smoke", "--executor", "local", env=environ)
    assert smoke.returncode == 0
    assert "The config runs through: all 6 trials of the smoke run are done." in smoke.stderr
    assert "A real run has 6 trials. All trials keep " in smoke.stderr
    assert (out / "bench.json").read_bytes() == report
    assert "(smoke)" in (out / "smoke" / "bench.json").read_text()
    assert gradience("bench", "verify", out).returncode == 0


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_says_how_to_go_on_and_a_failed_trial_exits_with_6(
    tmp_path: Path,
) -> None:
    config, out = real_project(tmp_path), tmp_path / "out"
    command = ["bench", "--config", str(config), "--output-dir", str(out)]
    first = subprocess.Popen(
        [sys.executable, "-m", "gradience", *command], text=True, stderr=subprocess.PIPE
    )
    wait_until(lambda: list(out.glob("trials/*/log.txt")), first)
    first.send_signal(signal.SIGTERM)  # as Ctrl-C, which a test in the background may not get
    told = first.communicate()[1]
    assert first.returncode == 130
    assert "the same command goes on" in told
    (tmp_path / "model" / "tokenizer.json").write_text("no tokenizer")
    second = gradience(*command)
    assert second.returncode == 6
    assert "failed: probe seed 0: " in second.stderr
    assert "it needs probe seed 0, which failed" in second.stderr
