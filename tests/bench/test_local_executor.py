"""Trials as processes of this machine: real ones, with real signals."""

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
from gradience.bench.executors.executor import Ended, Job
from gradience.bench.executors.gpus import visible_gpus
from gradience.bench.executors.local import LocalExecutor, open_local
from gradience.bench.ledger import TrialPaths
from gradience.bench.settings import ExecutorSettings
from gradience.errors import StorageError, UsageError

SOURCE = str(Path(gradience.__file__).parents[1])
HELD = "from gradience.bench.executors.leash import hold\nhold(0)\n"


def job(root: Path, name: str = "a", device: str = "cpu") -> Job:
    (root / name).mkdir(parents=True, exist_ok=True)
    return Job(trial=name, name=name, directory=root / name, needs=(), device=device)


def executor(code: str, **options: object) -> LocalExecutor:
    """Runs Python code, with the trial's directory in `here`, on the leash."""
    start = "import os, subprocess, sys, time\nfrom pathlib import Path\nhere = Path(sys.argv[1])\n"
    program = start + HELD + textwrap.dedent(code)
    given = {"slots": 1, "threads": 1, "gpus": (), "environ": dict(os.environ), **options}
    return LocalExecutor(command=(sys.executable, "-c", program), **given)


@pytest.fixture
def opened() -> Iterator[Callable[..., LocalExecutor]]:
    made: list[LocalExecutor] = []

    def make(code: str, **options: object) -> LocalExecutor:
        made.append(executor(code, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def end(running: LocalExecutor) -> Ended:
    (ended,) = running.ended(20.0)
    return ended


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} still lives"
        time.sleep(0.02)


def test_a_trial_writes_into_its_directory_and_its_log(tmp_path: Path, opened) -> None:
    running = opened("(here / 'result.json').write_text('x'); print('hello')")
    running.submit(job(tmp_path))
    assert end(running) == Ended(trial="a", message="its process ended with exit code 0")
    assert (tmp_path / "a" / "result.json").read_text() == "x"
    log = TrialPaths(tmp_path / "a").log.read_text()
    assert log.startswith("$ ")
    assert log.endswith("hello\n")


def test_the_log_keeps_every_attempt(tmp_path: Path, opened) -> None:
    running = opened("print('once')")
    for _ in range(2):
        running.submit(job(tmp_path))
        end(running)
    assert TrialPaths(tmp_path / "a").log.read_text().count("once") == 2


def test_an_exit_code_and_a_signal_are_told_apart(tmp_path: Path, opened) -> None:
    running = opened("sys.exit(6)")
    running.submit(job(tmp_path))
    assert end(running).message == "its process ended with exit code 6"
    running = opened("os.kill(os.getpid(), 9)")
    running.submit(job(tmp_path))
    assert "ended by SIGKILL (the system may have run out of memory" in end(running).message


def test_each_trial_sees_its_own_gpu_and_its_share_of_cores(tmp_path: Path, opened) -> None:
    code = """
    told = [os.environ[n] for n in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONHASHSEED")]
    (here / "told").write_text(" ".join(told))
    time.sleep(0.5)
    """
    running = opened(code, slots=2, threads=3, gpus=("GPU-a", "GPU-b"))
    for name in "ab":
        running.submit(job(tmp_path, name, "cuda"))
    gone = 0
    while gone < 2:
        gone += len(running.ended(5.0))
    told = [(tmp_path / name / "told").read_text() for name in "ab"]
    assert told == ["GPU-a 3 0", "GPU-b 3 0"]
    running.submit(job(tmp_path, "c", "cuda"))
    end(running)
    assert (tmp_path / "c" / "told").read_text().startswith("GPU-")  # one that was given back


def test_the_users_offline_mode_and_smaller_thread_count_hold(tmp_path: Path, opened) -> None:
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    code = (
        "(here / 'told').write_text(os.environ['HF_HUB_OFFLINE'] + os.environ['OMP_NUM_THREADS'])"
    )
    running = opened(code, threads=8, environ=environ)
    running.submit(job(tmp_path))
    end(running)
    assert (tmp_path / "a" / "told").read_text() == "11"


SPAWNS = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(here / "child.tmp").write_text(str(child.pid))
(here / "child.tmp").rename(here / "child")
time.sleep(60)
"""


def test_a_stopped_trial_takes_its_children_along(tmp_path: Path, opened) -> None:
    running = opened(SPAWNS)
    running.submit(job(tmp_path))
    wait_for(tmp_path / "a" / "child")
    running.stop("a")
    assert "SIGTERM" in end(running).message
    wait_until_dead(int((tmp_path / "a" / "child").read_text()))


def test_closing_ends_everything(tmp_path: Path, opened) -> None:
    running = opened(SPAWNS, slots=2)
    for name in "ab":
        running.submit(job(tmp_path, name))
    for name in "ab":
        wait_for(tmp_path / name / "child")
    running.close()
    for name in "ab":
        wait_until_dead(int((tmp_path / name / "child").read_text()))


def test_a_child_that_outlives_its_trial_is_ended_with_it(tmp_path: Path, opened) -> None:
    running = opened(SPAWNS.removesuffix("time.sleep(60)\n"))
    running.submit(job(tmp_path))
    end(running)
    wait_until_dead(int((tmp_path / "a" / "child").read_text()))


DRIVER = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_local_executor import SPAWNS, executor, job
running = executor(SPAWNS)
running.submit(job(Path(sys.argv[1])))
running.ended(60.0)
"""


def test_a_killed_driver_leaves_nobody_at_work(tmp_path: Path, opened) -> None:
    code = DRIVER.format(tests=str(Path(__file__).parent))
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": SOURCE}
    )
    wait_for(tmp_path / "a" / "child")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    # A second driver at once: it waits for the lock, and finds nobody.
    second = opened("print('mine')")
    second.submit(job(tmp_path))
    assert not alive(int((tmp_path / "a" / "child").read_text()))
    assert end(second).message.endswith("exit code 0")


def test_a_trial_that_still_runs_elsewhere_is_not_started_twice(tmp_path: Path, opened) -> None:
    first, second = opened("time.sleep(60)"), opened("print()", patience=0.1)
    first.submit(job(tmp_path))
    with pytest.raises(StorageError, match="still holds"):
        second.submit(job(tmp_path))


def test_gpus_come_from_the_users_choice_first() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2, 3"}) == ("2", "3")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == ()


def test_a_gpu_that_is_asked_for_and_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="shows no GPU"):
        open_local(ExecutorSettings(device="cuda"), {"CUDA_VISIBLE_DEVICES": ""}, print)


def test_workers_are_held_to_the_gpus_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_local(
        ExecutorSettings(device="cuda", workers=5), {"CUDA_VISIBLE_DEVICES": "0,1"}, print
    )
    assert opened.slots == 2
    assert "5 workers were asked for and there are 2 GPUs" in capsys.readouterr().out
