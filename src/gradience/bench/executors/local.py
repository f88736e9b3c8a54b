"""Trials on this machine: a process each, with a GPU or an even share of the cores.

Nothing to install and nothing that stays: each trial is a process group that ends with the driver
(`leash`), and a lock that its processes inherit says whether one of them still lives.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gradience import files
from gradience.bench.executors.environment import trial_environment
from gradience.bench.executors.executor import Ended, ExecutorKind, Job, NoOptions
from gradience.bench.executors.gpus import visible_gpus
from gradience.bench.ledger import TrialPaths
from gradience.bench.settings import ExecutorSettings
from gradience.errors import StorageError, UsageError
from gradience.system.cpus import usable_cores

LEASH = (sys.executable, "-m", "gradience.bench.executors.leash")
_POLL_SECONDS = 0.05
_TERM_SECONDS = 5.0
_ORPHAN_SECONDS = 10.0


@dataclass(slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    gpu: str | None


class LocalExecutor:
    """Runs trials as processes of this machine.

    Parameters
    ----------
    slots : int
        Trials at once.
    threads : int
        Of each trial, for BLAS and OpenMP.
    gpus : sequence of str
        One for each slot, or none at all.
    environ : mapping
        Of the driver.
    command : sequence of str
        What a job's arguments are appended to; it must end when its standard input does.
    patience : float
        Seconds to wait for processes of a killed driver, which end by themselves.
    """

    def __init__(
        self,
        *,
        slots: int,
        threads: int,
        gpus: Sequence[str],
        environ: Mapping[str, str],
        command: Sequence[str] = LEASH,
        patience: float = _ORPHAN_SECONDS,
    ) -> None:
        self.slots = slots
        self._threads = threads
        self._free_gpus = list(gpus)
        self._environ = environ
        self._command = tuple(command)
        self._patience = patience
        self._running: dict[str, _Running] = {}

    def submit(self, job: Job) -> None:
        """Start the process of a job."""
        paths = TrialPaths(job.directory)
        lock = self._hold(paths, job)
        gpu = self._free_gpus.pop(0) if job.device == "cuda" and self._free_gpus else None
        environ = trial_environment(self._environ, threads=self._threads, gpu=gpu)
        command = [*self._command, *job.arguments()]
        try:
            with files.appending(paths.log) as log:
                log.write(f"$ {' '.join(job.command())}\n".encode())
                log.flush()
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environ,
                    start_new_session=True,
                    pass_fds=(lock,),
                )
        finally:
            os.close(lock)  # the child has its own: the lock lives as long as it does
        self._running[job.trial] = _Running(process=process, gpu=gpu)

    def ended(self, seconds: float) -> Sequence[Ended]:
        """The jobs that ended; their whole group is gone."""
        deadline = time.monotonic() + seconds
        while True:
            gone = [trial for trial, r in self._running.items() if r.process.poll() is not None]
            if gone or time.monotonic() >= deadline:
                return [self._reap(trial) for trial in gone]
            time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def stop(self, trial: str) -> None:
        """End a job: first asked, then killed."""
        running = self._running.get(trial)
        if running is None:
            return
        _signal(running.process, signal.SIGTERM)
        try:
            running.process.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(running.process, signal.SIGKILL)
            running.process.wait()

    def close(self) -> None:
        """End every job, all at once."""
        for running in self._running.values():
            _signal(running.process, signal.SIGTERM)
        for trial in list(self._running):
            self.stop(trial)
            self._reap(trial)

    def _hold(self, paths: TrialPaths, job: Job) -> int:
        """The lock of a trial's directory; processes of a killed driver get a while to end."""
        deadline = time.monotonic() + self._patience
        while (descriptor := files.hold(paths.lock)) is None:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{job.name}: a process of an earlier run still holds {paths.lock}",
                    remedy=f"Find it with `fuser {paths.lock}` and end it; then start again.",
                )
            time.sleep(_POLL_SECONDS)
        return descriptor

    def _reap(self, trial: str) -> Ended:
        running = self._running.pop(trial)
        # What it started and left behind must not write into a directory that is called done.
        _signal(running.process, signal.SIGKILL)
        if running.process.stdin is not None:
            running.process.stdin.close()
        if running.gpu is not None:
            self._free_gpus.append(running.gpu)
        return Ended(trial=trial, message=_cause(running.process.returncode))


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the whole group; one that is gone already needs none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _cause(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    memory = " (the system may have run out of memory: see `dmesg`)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{memory}"


def check(settings: ExecutorSettings) -> Sequence[str]:
    """Problems of the settings in words."""
    return [
        f"options.{name}: the local executor has no options; remove it" for name in settings.options
    ]


def open_local(
    settings: ExecutorSettings, environ: Mapping[str, str], log: Callable[[str], None]
) -> LocalExecutor:
    """An executor for this machine: a slot per GPU, or on CPU as many as `workers` says.

    Raises
    ------
    UsageError
        If GPUs are asked for and there is none.
    """
    cores = usable_cores()
    gpus = visible_gpus(environ) if settings.device != "cpu" else ()
    if settings.device == "cuda" and not gpus:
        raise UsageError(
            "executor.device is 'cuda', and this machine shows no GPU",
            remedy="Run `nvidia-smi`; unset CUDA_VISIBLE_DEVICES; or write device: cpu.",
        )
    slots = settings.workers or max(1, len(gpus))
    if gpus and slots > len(gpus):
        log(f"{slots} workers were asked for and there are {len(gpus)} GPUs: one trial on each.")
        slots = len(gpus)
    threads = max(1, cores // slots)
    where = f"a GPU each ({', '.join(gpus[:slots])})" if gpus else f"{threads} of {cores} cores"
    log(f"{slots} {'trial' if slots == 1 else 'trials'} at a time, {where}.")
    return LocalExecutor(slots=slots, threads=threads, gpus=gpus, environ=environ)


LOCAL = ExecutorKind(
    name="local",
    summary="processes of this machine",
    open=open_local,
    check=check,
    options=NoOptions,
    expected=lambda environ: max(1, len(visible_gpus(environ))),
)
