"""Trials as Slurm jobs, through submitit: arrays where several are ready, requeued when preempted.

The output directory must be seen by every node. A job works in `slurm/` below the trial's
directory, where `job.json` names it: a driver that was killed is followed by one that finds its
jobs again and waits for them. One that ends in any other way takes its jobs along.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gradience import files
from gradience.bench.executors.attempt import (
    Follower,
    Order,
    Orders,
    attempt,
    new_token,
    news_of,
    take_over,
)
from gradience.bench.executors.executor import Ended, ExecutorKind, Job, option_problems
from gradience.bench.ledger import TrialPaths
from gradience.bench.settings import ExecutorSettings
from gradience.errors import UsageError, of_an_extra
from gradience.units import parse_duration, parse_size

_POLL_SECONDS = 1.0
_CANCEL_SECONDS = 15.0
_LATE_SECONDS = 30.0
"""A result may show on a network disk that long after Slurm says that its job is over."""
_PREEMPTION_SECONDS = 10.0
_DEFAULT_SLOTS = 16


class SlurmOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How trials run on Slurm.

    Attributes
    ----------
    cluster : str
        `slurm`, or `local`: submitit's processes of this machine, to try a config out.
    time : str
        Limit of a job, such as `4h`. A trial that reaches it begins again, `retries` times.
    cpus : int
        Cores of a trial.
    memory : str or None
        Of a job, such as `16GB`.
    gres : str or None
        Which GPU, as `sbatch` has it: `gpu:a100:1`. By default any, on `cuda`.
    partition, account, qos, constraint, nodelist, exclude, comment : str or None
        As `sbatch` has them.
    array_parallelism : int
        Jobs of an array that run at once.
    retries : int
        How often a trial may reach its time limit and begin again.
    setup : tuple of str
        Shell commands before the trial: `module load cuda`.
    additional : mapping
        More options of `sbatch`, by their long names.
    """

    cluster: str = "slurm"
    time: str = "4h"
    cpus: int = 4
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    comment: str | None = None
    array_parallelism: int = 256
    retries: int = 3
    setup: tuple[str, ...] = ()
    additional: dict[str, Any] = {}


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a trial, as `job.json` has it."""

    job: str
    cluster: str


@dataclass(frozen=True, slots=True)
class _Place:
    """What jobs keep of a trial, below its directory."""

    directory: Path

    @property
    def submitted(self) -> Path:
        return self.directory / "job.json"

    @property
    def current(self) -> Path:
        """Names the directory of the attempt that was started last."""
        return self.directory / "current"

    def attempt(self) -> Path | None:
        try:
            return self.directory / self.current.read_text(encoding="utf-8")
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class Attempts:
    """The function of a job: one attempt each time that Slurm starts it."""

    order: Order
    directory: Path
    needs: tuple[Path, ...]

    def __call__(self) -> tuple[str, str]:
        """The directory of the attempt, by name, and how its process ended."""
        token = new_token()
        files.replace(_Place(self.directory).current, token.encode())
        ended = ""
        for news in attempt(self.order, self.directory / token, self.needs):
            ended = news.ended or ended
        if "was ended by SIGTERM" in ended:
            # Slurm signals every process of a job, and a trial dies of what submitit ignores. If
            # this is a preemption, the signal that requeues is still to come.
            time.sleep(_PREEMPTION_SECONDS)
        return token, ended

    def checkpoint(self) -> Any:
        """What submitit runs after a preemption or a timeout: the trial from its beginning."""
        import submitit  # noqa: PLC0415 - an extra

        return submitit.helpers.DelayedSubmission(self)


@dataclass(slots=True, kw_only=True)
class _Running:
    job: Job
    handle: Any
    attempt: Path | None = None
    follower: Follower | None = None
    over_since: float | None = None
    stopped: bool = False


class SlurmExecutor:
    """Runs trials as jobs of Slurm.

    Parameters
    ----------
    cluster : str
        As submitit names it.
    parameters : mapping
        Of submitit's AutoExecutor.
    retries : int
        After timeouts.
    slots : int
    orders : Orders
    log : callable
        Takes sentences for the user.
    """

    def __init__(
        self,
        *,
        cluster: str,
        parameters: Mapping[str, Any],
        retries: int,
        slots: int,
        orders: Orders,
        log: Callable[[str], None],
    ) -> None:
        self.slots = slots
        self._submitit = import_submitit()
        self._cluster = cluster
        self._parameters = parameters
        self._retries = retries
        self._orders = orders
        self._log = log
        self._queued: list[Job] = []
        self._running: dict[str, _Running] = {}
        self._folders: set[Path] = set()

    def submit(self, job: Job) -> None:
        """Queue a job for the next array; one that an earlier driver submitted is found again."""
        place = _Place(job.directory / "slurm")
        known = _submitted(place)
        if known is None:
            files.remove_tree(place.directory)
            self._queued.append(job)
            return
        kind = self._submitit.SlurmJob if known.cluster == "slurm" else self._submitit.LocalJob
        self._folders.add(_folder(job))
        handle = kind(folder=_folder(job), job_id=known.job)
        self._running[job.trial] = _Running(job=job, handle=handle)
        self._log(f"{job.name} was submitted before as job {known.job}: waiting for that one.")

    def ended(self, seconds: float) -> Sequence[Ended]:
        """The jobs that ended; everything that was queued since is submitted first, at once."""
        self._flush()
        deadline = time.monotonic() + seconds
        while True:
            looked = [self._look(running) for running in list(self._running.values())]
            gone = [ended for ended in looked if ended is not None]
            left = deadline - time.monotonic()
            if gone or left <= 0:
                return gone
            time.sleep(min(left, _POLL_SECONDS))

    def _flush(self) -> None:
        """Submit what is queued: one job, or an array."""
        queued, self._queued = self._queued, []
        if not queued:
            return
        attempts = [
            Attempts(
                order=self._orders.of(job),
                directory=job.directory / "slurm",
                needs=job.needs,
            )
            for job in queued
        ]
        try:
            with _interrupts_for_children():
                handles = self._executor(_folder(queued[0])).submit_array(attempts)
        except (RuntimeError, OSError) as error:  # all that submitit raises is a RuntimeError
            raise UsageError(
                f"the cluster {self._cluster!r} took no job: {_words(error)}",
                remedy="Correct executor.options; `sbatch` and `sinfo` on this machine tell more.",
            ) from error
        for job, handle in zip(queued, handles, strict=True):
            known = Submitted(job=str(handle.job_id), cluster=self._cluster)
            files.replace(_Place(job.directory / "slurm").submitted, msgspec.json.encode(known))
            self._running[job.trial] = _Running(job=job, handle=handle)

    def _executor(self, folder: Path) -> Any:
        executor = self._submitit.AutoExecutor(
            folder=folder,
            cluster=self._cluster,
            **{f"{self._cluster}_max_num_timeout": self._retries},
        )
        self._folders.add(folder)
        executor.update_parameters(**self._parameters)
        return executor

    def _look(self, running: _Running) -> Ended | None:
        """Bring the news of a job; take over what it made when it is over."""
        handle = running.handle
        over = _is_over(handle)
        self._follow(running)
        if not over:
            running.over_since = None
            return None
        if not handle.paths.result_pickle.exists():
            now = time.monotonic()
            running.over_since = running.over_since or now
            late = self._cluster == "slurm" and not running.stopped
            if late and now - running.over_since < _LATE_SECONDS:
                return None
            return self._drop(running, f"its job {handle.job_id} ended as {handle.state}")
        error = handle.exception()
        if error is not None:
            return self._drop(running, f"its job {handle.job_id} failed: {_words(error)}")
        token, ended = handle.result()
        # First: a driver killed half-way through must not be followed by one that finds half of it.
        files.remove(_Place(running.job.directory / "slurm").submitted)
        take_over(running.job.directory / "slurm" / token, running.job.directory)
        return self._drop(running, ended)

    def _follow(self, running: _Running) -> None:
        current = _Place(running.job.directory / "slurm").attempt()
        if current is None:
            return
        if current != running.attempt or running.follower is None:
            running.attempt = current
            running.follower = Follower(TrialPaths(running.job.directory))
        running.follower.tell(news_of(current, running.follower.at))

    def _drop(self, running: _Running, message: str) -> Ended:
        """Forget a job, and what it took on the disk."""
        files.remove_tree(running.job.directory / "slurm")
        del self._running[running.job.trial]
        return Ended(trial=running.job.trial, message=message)

    def stop(self, trial: str) -> None:
        """Cancel a job."""
        if trial in self._running:
            self._cancel([self._running[trial]])

    def close(self) -> None:
        """Cancel every job, and remove what submitit keeps of them."""
        running = list(self._running.values())
        self._cancel(running)
        for one in running:
            self._drop(one, "")
        self._queued.clear()
        for folder in self._folders:
            files.remove_tree(folder)

    def _cancel(self, chosen: Sequence[_Running]) -> None:
        """Cancel jobs and wait for a while until they are gone; what is late writes nowhere."""
        for running in chosen:
            running.stopped = True
            _end(running.handle)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while time.monotonic() < deadline:
            if all(_is_over(running.handle, force=True) for running in chosen):
                return
            time.sleep(_POLL_SECONDS)


def import_submitit() -> Any:
    """The library.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    with of_an_extra(
        "the executor 'slurm' needs submitit, which is not installed",
        remedy="pip install 'gradience[slurm]'",
    ):
        import submitit  # noqa: PLC0415 - an extra
    return submitit


@contextmanager
def _interrupts_for_children() -> Iterator[None]:
    """Let processes that are started here be interrupted, though this one may ignore it.

    What nohup or a shell starts in the background ignores SIGINT and hands that on, and it is by
    SIGINT that submitit cancels its own jobs. A handler is not handed on: whatever is executed has
    the default again. Signals belong to the main thread; from another, nothing is changed.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: None)  # still none for this process
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _folder(job: Job) -> Path:
    """Where submitit keeps its pickles and logs: `slurm/` of the output directory."""
    return job.directory.parents[1] / "slurm"


def _submitted(place: _Place) -> Submitted | None:
    """The job that an earlier driver submitted for a trial."""
    try:
        return msgspec.json.decode(place.submitted.read_bytes(), type=Submitted)
    except (OSError, msgspec.DecodeError):
        return None


def _is_over(handle: Any, *, force: bool = False) -> bool:
    """Whether a job runs no more. Of a local one that was found again, its process tells."""
    if _is_orphan(handle):
        return handle.paths.result_pickle.exists() or not _lives(int(handle.job_id))
    return bool(handle.done(force_check=force))


def _end(handle: Any) -> None:
    if not _is_orphan(handle):
        handle.cancel(check=False)
    elif _lives(int(handle.job_id)):
        os.kill(int(handle.job_id), signal.SIGINT)  # what submitit sends to its own


def _is_orphan(handle: Any) -> bool:
    return hasattr(handle, "_process") and handle._process is None


def _lives(pid: int) -> bool:
    """Whether a process is submitit's still: its number may be another's by now."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"submitit" in command


def _words(error: Exception) -> str:
    """The last words of a traceback, or of a command that failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    told = [line for line in lines if not line.startswith(("You can check", "- /"))]
    return told[-1] if told else type(error).__name__


# Opening.


def check(settings: ExecutorSettings) -> Sequence[str]:
    """Problems of the settings in words."""
    problems = option_problems(settings, SlurmOptions)
    if problems:
        return problems
    options = msgspec.convert(settings.options, SlurmOptions)
    if options.cluster not in ("slurm", "local"):
        problems.append(f"options.cluster: {options.cluster!r}; write 'slurm' or 'local'")
    for name, parse in (("time", parse_duration), ("memory", parse_size)):
        value = getattr(options, name)
        try:
            parse(value or "1m" if name == "time" else value or "1")
        except UsageError as error:
            problems.append(f"options.{name}: {error}; {error.remedy}")
    problems += [
        f"options.{name}: {getattr(options, name)}; write {low} or more"
        for name, low in (("cpus", 1), ("array_parallelism", 1), ("retries", 0))
        if getattr(options, name) < low
    ]
    return problems


def parameters_of(options: SlurmOptions, device: str | None) -> dict[str, Any]:
    """What submitit's AutoExecutor is told."""
    plain = ("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude", "comment")
    given = {f"slurm_{name}": getattr(options, name) for name in plain}
    return {
        "name": "gradience",
        "timeout_min": max(1, round(parse_duration(options.time).total_seconds() / 60)),
        "cpus_per_task": options.cpus,
        "gpus_per_node": 1 if device == "cuda" and options.gres is None else None,
        "mem_gb": None if options.memory is None else parse_size(options.memory) / 2**30,
        "slurm_array_parallelism": options.array_parallelism,
        "slurm_setup": list(options.setup) or None,
        "slurm_additional_parameters": options.additional or None,
        **given,
    }


def open_slurm(
    settings: ExecutorSettings, environ: Mapping[str, str], log: Callable[[str], None]
) -> SlurmExecutor:
    """An executor for a cluster of Slurm.

    Raises
    ------
    MissingExtraError
        If submitit is not installed.
    UsageError
        If this machine cannot submit jobs.
    """
    options = msgspec.convert(settings.options, SlurmOptions)
    if options.cluster == "slurm" and shutil.which("sbatch", path=environ.get("PATH")) is None:
        raise UsageError(
            "there is no `sbatch` on this machine, so it cannot submit jobs to Slurm",
            remedy="Start the bench on a login node; options.cluster 'local' tries a config out.",
        )
    slots = settings.workers or _DEFAULT_SLOTS
    log(f"Up to {slots} jobs at once, {options.cpus} cores each, for {options.time} at most.")
    return SlurmExecutor(
        cluster=options.cluster,
        parameters=parameters_of(options, settings.device),
        retries=options.retries,
        slots=slots,
        orders=Orders(threads=options.cpus, environ=environ),
        log=log,
    )


SLURM = ExecutorKind(
    name="slurm",
    summary="jobs of Slurm, through submitit",
    open=open_slurm,
    check=check,
    options=SlurmOptions,
    expected=lambda environ: _DEFAULT_SLOTS,
)
