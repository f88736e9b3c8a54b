"""Real drivers with real processes, killed at any moment: nothing is lost, nothing counts twice."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gradience
from factories_driver import FakeExecutor, make_project, settings_of
from gradience.bench.ledger import Ledger
from gradience.bench.run import RunOptions, run_bench

TRIAL = """
import sys, time
from pathlib import Path
from gradience.bench.executors.leash import hold
hold(0)
from factories_driver import make_up
from gradience.bench.ledger import TrialPaths
paths = TrialPaths(Path(sys.argv[1]))
print("at work", flush=True)
time.sleep(0.1)
assert not paths.result.exists(), "it was done already"
make_up(paths)
"""

DRIVER = f"""
import os, sys
from pathlib import Path
from factories_driver import settings_of
from gradience.bench.executors.local import LocalExecutor
from gradience.bench.run import RunOptions, run_bench
command = (sys.executable, "-c", {TRIAL!r})
executor = LocalExecutor(slots=2, threads=1, gpus=(), environ=os.environ, command=command)
settings = settings_of(Path(sys.argv[1]), "seeds=[0]")
run_bench(settings, Path(sys.argv[2]), RunOptions(executor=executor))
"""


def start(config: Path, out: Path) -> "subprocess.Popen[str]":
    paths = [str(Path(__file__).parents[1]), str(Path(gradience.__file__).parents[1])]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(config), str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        text=True,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_bench_whose_driver_is_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, seed: int
) -> None:
    config, out, undisturbed = make_project(tmp_path), tmp_path / "out", tmp_path / "undisturbed"
    when = random.Random(seed)
    for _ in range(2):
        driver = start(config, out)
        time.sleep(when.uniform(0.2, 2.5))
        driver.kill()
        driver.communicate()
    last = start(config, out)
    assert last.wait(timeout=120) == 0, last.communicate()
    last.communicate()
    settings = settings_of(config, "seeds=[0]")
    bench = run_bench(settings, undisturbed, RunOptions(executor=FakeExecutor()))
    results = Ledger(out).results(bench.trials)
    assert results == Ledger(undisturbed).results(bench.trials)
    assert len(results) == len(bench.trials)
    left = {path.name for path in out.glob("trials/*/*")}
    assert left <= {"trial.json", "result.json", "adapter", "step0", "log.txt", "running"}
    for trial in bench.trials:  # nobody did it once more after it was done
        assert "it was done already" not in Ledger(out).paths(trial.id).log.read_text()
