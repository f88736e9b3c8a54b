"""Trials on Ray: a real cluster of three nodes, one of which is killed, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gradience
from factories_driver import NOW, FakeExecutor, make_project, settings_of
from gradience.bench.executors.attempt import Order, attempt, take_over
from gradience.bench.executors.ray import RayOptions, check, resources_of, room_for
from gradience.bench.ledger import Ledger
from gradience.bench.plan.prepare import prepare
from gradience.bench.report.judged import judged
from gradience.bench.run import RunOptions, run_bench
from gradience.bench.settings import ExecutorSettings

TESTS = Path(__file__).parents[1]
ENVIRON = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(Path(gradience.__file__).parents[1])]),
}


def ran(*command: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**ENVIRON, **environ},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_bench_survives_the_loss_of_a_node_and_gives_what_it_gives_without_ray(
    tmp_path: Path,
) -> None:
    config, out, plain = make_project(tmp_path), tmp_path / "out", tmp_path / "plain"
    script = str(Path(__file__).with_name("ray_bench.py"))
    told = ran(script, str(config), str(out), RAY_AUTH_MODE="disabled")
    bench = run_bench(settings_of(config, "seeds=[0]"), plain, RunOptions(executor=FakeExecutor()))
    expected = Ledger(plain).results(bench.trials)
    happened = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    for transfer, seen in zip(("value", "shared"), happened, strict=True):
        assert any("lost its node or worker" in sentence for sentence in seen["told"]), seen
        assert not any("failed" in sentence for sentence in seen["told"]), seen
        assert "train" in seen["stages"]  # progress comes across
        assert not seen["open"]
        ledger = Ledger(out / transfer)
        assert ledger.results(bench.trials) == expected
        assert judged(out / transfer).verdicts == judged(plain).verdicts
        left = {path.name for path in ledger.root.glob("trials/*/*")}
        assert left == {"trial.json", "log.txt", "adapter", "step0", "result.json"}
        logs = [ledger.paths(trial.id).log.read_text() for trial in bench.trials]
        assert all(log.endswith("at work\ndone\n") for log in logs)
        assert any(log.count("at work") > 1 for log in logs)  # the attempt that was lost


WRITER = """
import sys, time
from pathlib import Path
here = Path(sys.argv[1])
while here.name == "lost" and not (here / "go").exists():
    time.sleep(0.05)
(here / "adapter").mkdir()
(here / "adapter" / "weights").write_text(here.name)
(here / "result.json").write_text(here.name)
"""


def test_an_attempt_that_was_given_up_never_writes_into_the_trial(tmp_path: Path) -> None:
    prepared = prepare(
        settings_of(make_project(tmp_path)), tmp_path / "out", accept=(), environ=os.environ
    )
    ledger = Ledger(tmp_path / "out")
    ledger.write_bench(prepared.bench, now=NOW)
    paths = ledger.paths(prepared.bench.trials[0].id)
    order = Order(
        trial=paths.trial.read_bytes(),
        name="probe",
        device="cpu",
        threads=1,
        environ={},
        command=(sys.executable, "-c", WRITER),
    )
    lost = attempt(order, paths.work / "lost", ())
    next(lost)  # it is at work when the second begins
    assert [news.ended for news in attempt(order, paths.work / "second", ())][-1]
    take_over(paths.work / "second", paths.directory)
    (paths.work / "lost" / "go").touch()
    assert [news.ended for news in lost][-1]  # and the first goes on to its end after that
    assert paths.result.read_text() == "second"
    assert (paths.adapter / "weights").read_text() == "second"
    ledger.end(prepared.bench.trials[0].id)
    assert not paths.work.exists()


def test_a_trial_takes_the_smallest_node_or_its_part_for_each_gpu() -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 1.0}, {"memory": 9.0}]
    cpu, gpu = ExecutorSettings(device="cpu"), ExecutorSettings(device="cuda")
    assert resources_of(RayOptions(), cpu, nodes) == {"num_cpus": 8}
    wanted = resources_of(RayOptions(), gpu, nodes)
    assert wanted == {"num_cpus": 8, "num_gpus": 1}
    assert room_for(nodes, wanted) == 5
    asked = resources_of(RayOptions(num_cpus=2, num_gpus=0.5, memory="1GB"), gpu, nodes)
    assert asked == {"num_cpus": 2, "num_gpus": 0.5, "memory": 10**9}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"adress": "auto"}, "options.adress: unknown key; did you mean 'address'?"),
        ({"address": "ray://head:10001"}, "options.address: 'ray://head:10001' is a Ray client's"),
        ({"num_gpus": 2}, "options.num_gpus: 2; a trial uses one GPU"),
        ({"num_cpus": 0}, "options.num_cpus: 0; write 1 or more"),
        ({"transfer": "copy"}, "options.transfer: 'copy' is none of its values"),
        ({"memory": "lots"}, "options.memory: "),
        ({"retries": -1}, "options.retries: -1; write 0 or more"),
    ],
)
def test_options_that_cannot_be_meant_are_told(options: dict[str, Any], told: str) -> None:
    (problem,) = check(ExecutorSettings(name="ray", options=options))
    assert problem.startswith(told)


@pytest.mark.parametrize(("name", "library"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_library_is_named_with_its_extra(name: str, library: str) -> None:
    code = f"""
import sys
sys.modules[{library!r}] = None  # as if it were not installed
from gradience.bench.executors import EXECUTORS
from gradience.bench.settings import ExecutorSettings
from gradience.errors import MissingExtraError
settings = ExecutorSettings(name={name!r}, device="cpu", options={{}})
if {name!r} == "slurm":
    settings = ExecutorSettings(name="slurm", options={{"cluster": "local"}})
try:
    EXECUTORS[{name!r}].open(settings, {{}}, print)
except MissingExtraError as error:
    print(error.remedy)
"""
    assert ran("-c", code).splitlines()[-1] == f"pip install 'gradience[{name}]'"
