"""Trials as jobs: submitit's own processes, and a Slurm of shell scripts that runs them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gradience
from factories_driver import NOW, make_project, settings_of
from gradience.bench.executors.attempt import Orders
from gradience.bench.executors.executor import Ended, Job
from gradience.bench.executors.slurm import (
    SlurmExecutor,
    SlurmOptions,
    check,
    open_slurm,
    parameters_of,
)
from gradience.bench.ledger import Ledger, TrialPaths
from gradience.bench.plan.prepare import prepare, slots_of
from gradience.bench.records import Trial
from gradience.bench.settings import ExecutorSettings
from gradience.errors import UsageError

PATHS = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(gradience.__file__).parents[1])])
START = """
import os, sys, time
from pathlib import Path
from gradience.bench.executors.leash import hold
hold(0)
from factories_driver import make_up
from gradience.bench.ledger import TrialPaths
here = Path(sys.argv[1])
trial = here.parents[1]
paths = TrialPaths(here)
print("at work", flush=True)
"""
MAKE = "make_up(paths)"


@pytest.fixture
def opened() -> Iterator[Callable[..., SlurmExecutor]]:
    made: list[SlurmExecutor] = []
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = PATHS  # of the jobs, which inherit it

    def make(code: str, **options: object) -> SlurmExecutor:
        given = {"cluster": "local", "time": "10m", **options}
        chosen = SlurmOptions(**given)
        made.append(
            SlurmExecutor(
                cluster=chosen.cluster,
                parameters=parameters_of(chosen, "cpu"),
                retries=chosen.retries,
                slots=4,
                orders=Orders(
                    threads=1,
                    environ=os.environ,
                    command=(sys.executable, "-c", START + textwrap.dedent(code)),
                ),
                log=lambda told: None,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def jobs(root: Path, count: int = 1) -> list[Job]:
    """Probes of as many seeds, with their files written."""
    seeds = f"seeds={list(range(count))}"
    out = root / "out"
    prepared = prepare(settings_of(make_project(root), seeds), out, accept=(), environ=os.environ)
    ledger = Ledger(out)
    ledger.write_bench(prepared.bench, now=NOW)
    probes = [trial for trial in prepared.bench.trials if not trial.needs]
    return [job_of(ledger, trial) for trial in probes]


def job_of(ledger: Ledger, trial: Trial) -> Job:
    directory = ledger.paths(trial.id).directory
    return Job(trial=trial.id, name=trial.name, directory=directory, needs=(), device="cpu")


def all_ended(executor: SlurmExecutor, count: int, seconds: float = 60.0) -> list[Ended]:
    gone: list[Ended] = []
    deadline = time.monotonic() + seconds
    while len(gone) < count:
        assert time.monotonic() < deadline, f"only {gone} ended"
        gone += executor.ended(1.0)
    return gone


def wait_for(path: Path, look: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        look()
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.1)


def test_a_job_leaves_its_result_and_its_log_and_nothing_else(tmp_path: Path, opened) -> None:
    (job,) = jobs(tmp_path)
    executor = opened(MAKE)
    executor.submit(job)
    assert all_ended(executor, 1)[0].message == "its process ended with exit code 0"
    executor.close()
    found = {path.name for path in job.directory.iterdir()}
    assert found == {"trial.json", "log.txt", "adapter", "step0", "result.json"}
    assert TrialPaths(job.directory).log.read_text().endswith("at work\n")
    assert not (tmp_path / "out" / "slurm").exists()


def test_a_failed_job_says_how_it_ended(tmp_path: Path, opened) -> None:
    (job,) = jobs(tmp_path)
    executor = opened("print('error: no head'); sys.exit(6)")
    executor.submit(job)
    assert all_ended(executor, 1)[0].message == "its process ended with exit code 6"
    assert not TrialPaths(job.directory).result.exists()
    assert "error: no head" in TrialPaths(job.directory).log.read_text()


def test_a_node_with_other_software_does_not_run_the_trial(tmp_path: Path, opened) -> None:
    (job,) = jobs(tmp_path)
    path = TrialPaths(job.directory).trial
    record = json.loads(path.read_text())
    record["content"]["spec"]["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    executor = opened(MAKE)
    executor.submit(job)
    all_ended(executor, 1)
    assert not TrialPaths(job.directory).result.exists()
    log = TrialPaths(job.directory).log.read_text()
    assert "has other software than the driver (torch" in log
    assert ", not 1.0)" in log


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_stopped_job_is_gone(tmp_path: Path, opened, end: str) -> None:
    (job,) = jobs(tmp_path)
    executor = opened("(trial / 'pid').write_text(str(os.getpid())); time.sleep(60)")
    executor.submit(job)
    wait_for(job.directory / "pid", lambda: executor.ended(0.0))
    pid = int((job.directory / "pid").read_text())
    executor.stop(job.trial) if end == "stop" else executor.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not TrialPaths(job.directory).result.exists()


def test_a_stopped_job_is_gone_where_interrupts_are_ignored() -> None:
    """The test above, as nohup and shells start what runs in the background."""
    test = f"{__file__}::{test_a_stopped_job_is_gone.__name__}"
    started = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *started],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


DRIVER = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_slurm_executor as here
executor = here.opened.__wrapped__().__next__()({code!r})
(job,) = here.jobs(Path(sys.argv[1]))
executor.submit(job)
while True:
    executor.ended(1.0)
"""


def test_a_killed_driver_is_followed_by_one_that_waits_for_its_jobs(tmp_path: Path, opened) -> None:
    code = "(trial / 'started').open('a').write('x'); time.sleep(4); make_up(paths)"
    program = DRIVER.format(tests=str(Path(__file__).parent), code=code)
    driver = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    wait_for(tmp_path / "out" / "trials")
    deadline = time.monotonic() + 60
    while not (started := list(tmp_path.glob("out/trials/*/started"))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (job,) = jobs(tmp_path)
    assert started == [job.directory / "started"]
    second = opened("sys.exit('this one is not needed')")
    second.submit(job)
    assert all_ended(second, 1)[0].message == "its process ended with exit code 0"
    assert TrialPaths(job.directory).result.exists()
    assert (job.directory / "started").read_text() == "x"


def test_a_job_that_was_interrupted_begins_again_and_ends_as_one_that_was_not(
    tmp_path: Path, opened
) -> None:
    (job,) = jobs(tmp_path)
    executor = opened(
        """
        first = not (trial / "pid").exists()
        (trial / "pid").write_text(str(os.getpid()))
        if first:
            (here / "half").write_text("done")
            time.sleep(60)
        make_up(paths)
        """
    )
    executor.submit(job)
    wait_for(job.directory / "pid", lambda: executor.ended(0.0))
    controller = executor._running[job.trial].handle.job_id
    children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)  # what Slurm sends before a time limit
    assert all_ended(executor, 1)[0].message == "its process ended with exit code 0"
    assert TrialPaths(job.directory).result.exists()
    assert TrialPaths(job.directory).log.read_text().count("at work") == 2


# A Slurm of shell scripts.

SBATCH = """#!/bin/bash
# Runs every task of the array at once, as Slurm does, and names the job.
id=$$
echo "$1 $(grep -o 'array=[^ ]*' "$1")" >> "$FAKE/calls"
cp "$1" "$FAKE/$id.sh"
last=$(grep -oP '(?<=array=0-)[0-9]+' "$1"); out=$(grep -oP '(?<=output=)[^ ]*' "$1")
for task in $(seq 0 ${last:-0}); do
  key=$id; export SLURM_JOB_ID=$((id + task))
  if [ -n "$last" ]; then
    key=${id}_$task; export SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$task
  fi
  echo "$key" > "$FAKE/key.$SLURM_JOB_ID"
  SLURM_NTASKS=1 setsid "$FAKE/run" "$key" "$FAKE/$id.sh" >/dev/null 2>&1 </dev/null &
done
echo "Submitted batch job $id"
"""
RUN = """#!/bin/bash
# A job: again as often as it asks for.
while :; do
  echo RUNNING > "$FAKE/state.$1"
  bash "$2" & echo $! > "$FAKE/pid.$1"; wait $!
  [ -e "$FAKE/requeue.$1" ] || break
  rm "$FAKE/requeue.$1"; echo REQUEUED > "$FAKE/state.$1"
done
[ -e "$FAKE/cancelled.$1" ] && echo "CANCELLED by 0" > "$FAKE/state.$1" && exit
echo COMPLETED > "$FAKE/state.$1"
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do
  case "$1" in --output|--error) shift 2 ;; *) shift ;; esac
done
exec "$@"
"""
SCONTROL = """#!/bin/bash
key=$(cat "$FAKE/key.${2%%_*}" 2>/dev/null || echo "$2"); [[ "$2" == *_* ]] && key=$2
touch "$FAKE/requeue.$key"
"""
SCANCEL = """#!/bin/bash
# `scancel JOB`, or `scancel JOB --signal NAME`.
job=$(cat "$FAKE/pid.$1")
if [ "$2" == --signal ]; then pkill "-$3" -P "$job" || kill "-$3" "$job"; exit 0; fi
touch "$FAKE/cancelled.$1"; kill -9 -- "-$(ps -o pgid= "$job" | tr -d ' ')"
echo "CANCELLED by 0" > "$FAKE/state.$1"
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
for file in "$FAKE"/state.*; do echo "${file##*/state.}|$(cat "$file")|here"; done
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Path]:
    """A directory with the calls that were made; its scripts stand first on PATH."""
    fake = tmp_path / "slurm-of-scripts"
    fake.mkdir()
    scripts = {"sbatch": SBATCH, "run": RUN, "srun": SRUN, "scontrol": SCONTROL}
    for name, text in {**scripts, "scancel": SCANCEL, "sacct": SACCT}.items():
        (fake / name).write_text(text)
        (fake / name).chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"], os.environ["FAKE"] = f"{fake}:{before}", str(fake)
    yield fake
    os.environ["PATH"] = before
    del os.environ["FAKE"]


def test_jobs_that_are_ready_together_are_one_array(tmp_path: Path, slurm: Path, opened) -> None:
    ready = jobs(tmp_path, 3)
    executor = opened(MAKE, cluster="slurm", array_parallelism=2)
    for job in ready:
        executor.submit(job)
    gone = all_ended(executor, 3)
    assert {end.message for end in gone} == {"its process ended with exit code 0"}
    assert all(TrialPaths(job.directory).result.exists() for job in ready)
    (call,) = (slurm / "calls").read_text().splitlines()
    assert call.endswith("array=0-2%2")


def test_a_preempted_job_is_requeued_by_slurm(tmp_path: Path, slurm: Path, opened) -> None:
    (job,) = jobs(tmp_path)
    executor = opened(
        """
        first = not (trial / "pid").exists()
        (trial / "pid").write_text(str(os.getpid()))
        if first:
            time.sleep(60)
        make_up(paths)
        """,
        cluster="slurm",
    )
    executor.submit(job)
    wait_for(job.directory / "pid", lambda: executor.ended(0.0))
    executor._running[job.trial].handle._interrupt()
    assert all_ended(executor, 1)[0].message == "its process ended with exit code 0"
    assert TrialPaths(job.directory).log.read_text().count("at work") == 2


def test_closing_cancels_slurm_jobs(tmp_path: Path, slurm: Path, opened) -> None:
    (job,) = jobs(tmp_path)
    executor = opened(
        "(trial / 'pid').write_text(str(os.getpid())); time.sleep(60)", cluster="slurm"
    )
    executor.submit(job)
    wait_for(job.directory / "pid", lambda: executor.ended(0.0))
    executor.close()
    pid = int((job.directory / "pid").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_forecast_counts_the_jobs_at_once(tmp_path: Path) -> None:
    settings = settings_of(make_project(tmp_path), "executor.name=slurm")
    assert slots_of(settings, os.environ) == 16
    assert slots_of(settings_of(tmp_path / "bench.yaml", "executor.workers=3"), os.environ) == 3


def test_options_become_those_of_sbatch() -> None:
    options = SlurmOptions(time="90m", memory="16GiB", partition="gpu", additional={"nice": 5})
    told = parameters_of(options, "cuda")
    assert (told["timeout_min"], told["mem_gb"], told["gpus_per_node"]) == (90, 16.0, 1)
    assert told["slurm_partition"] == "gpu"
    assert told["slurm_additional_parameters"] == {"nice": 5}
    assert parameters_of(SlurmOptions(gres="gpu:a100:1"), "cuda")["gpus_per_node"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"partion": "gpu"}, "options.partion: unknown key; did you mean 'partition'?"),
        ({"time": "soon"}, "options.time: "),
        ({"memory": "lots"}, "options.memory: "),
        ({"cpus": 0}, "options.cpus: 0; write 1 or more"),
        ({"cluster": "pbs"}, "options.cluster: 'pbs'; write 'slurm' or 'local'"),
    ],
)
def test_options_that_cannot_be_meant_are_told(options: dict[str, object], told: str) -> None:
    (problem,) = check(ExecutorSettings(name="slurm", options=options))
    assert problem.startswith(told)


def test_a_machine_without_slurm_is_told_so() -> None:
    with pytest.raises(UsageError, match="there is no `sbatch` on this machine"):
        open_slurm(ExecutorSettings(name="slurm"), {"PATH": "/nowhere"}, print)
