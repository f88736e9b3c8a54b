"""Trials on a Ray cluster: a task each, started again elsewhere when its node is lost.

A task is a stream of news that ends with what the trial made: moved on a disk that all nodes
share, or carried back by value through Ray's object store. Retries are ours and not Ray's: each has
a directory of its own, the user is told, and a trial that exhausts the memory is not run for ever.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from gradience import files
from gradience.bench.executors import ray_session
from gradience.bench.executors.attempt import (
    Follower,
    News,
    Order,
    Orders,
    attempt,
    contents,
    new_token,
    take_over,
    write_contents,
)
from gradience.bench.executors.executor import Ended, ExecutorKind, Job, option_problems
from gradience.bench.executors.gpus import visible_gpus
from gradience.bench.executors.ray_session import Session
from gradience.bench.ledger import TrialPaths
from gradience.bench.settings import ExecutorSettings
from gradience.errors import GradienceError, UsageError
from gradience.system.cpus import usable_cores
from gradience.units import format_size, parse_size

_POLL_SECONDS = 0.2
_CANCEL_SECONDS = 10.0

Contents = Mapping[str, bytes]


class RayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How trials run on Ray.

    Attributes
    ----------
    address : str or None
        Of a cluster, seen from a node of it: `auto`, or `host:6379`. By default a cluster of this
        machine that lasts as long as the bench.
    num_cpus : int or None
        Cores of a trial. By default those of the smallest node, shared by its GPUs where it has
        some.
    num_gpus : float or None
        GPUs of a trial: 1, or a share of one. By default 1 on `cuda` and none on `cpu`.
    memory : str or None
        Bytes to set aside for a trial, such as `8GB`.
    retries : int
        How often a trial is started again whose node was lost.
    transfer : str or None
        `shared`: the output directory is the same on every node. `value`: what a trial needs and
        makes is carried through the cluster. By default `value` with an address, `shared` without.
    """

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: float | None = None
    memory: str | None = None
    retries: int = 3
    transfer: Literal["shared", "value"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Where an attempt works on a disk that every node sees."""

    directory: Path
    needs: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What an attempt starts from, by value."""

    needs: tuple[Contents, ...]


@dataclass(slots=True, kw_only=True)
class _Running:
    job: Job
    stream: Any
    place: Shared | Carried
    follower: Follower
    losses: int
    ending: str | None = None
    made: Contents | None = None
    stopped: bool = False


class RayExecutor:
    """Runs trials as tasks of a Ray cluster.

    Parameters
    ----------
    session : Session
        Closed with the executor.
    slots : int
    resources : mapping
        Of a task: num_cpus, num_gpus, memory.
    orders : Orders
    shared : bool
        Whether every node sees the trials' directories.
    retries : int
    log : callable
        Takes sentences for the user.
    """

    def __init__(
        self,
        *,
        session: Session,
        slots: int,
        resources: Mapping[str, float],
        orders: Orders,
        shared: bool,
        retries: int,
        log: Callable[[str], None],
    ) -> None:
        self.slots = slots
        self._session = session
        self._ray = session.ray
        self._orders = orders
        self._shared = shared
        self._retries = retries
        self._log = log
        self._task = self._ray.remote(
            num_returns="streaming", max_retries=0, scheduling_strategy="SPREAD", **resources
        )(on_node)
        self._running: dict[str, _Running] = {}

    def submit(self, job: Job) -> None:
        """Queue a job; Ray starts it where there is room."""
        self._start(job, losses=0)

    def _start(self, job: Job, losses: int) -> None:
        place: Shared | Carried
        if self._shared:
            # Below work/, which the next attempt and the end of the trial both clear away.
            own = TrialPaths(job.directory).work / new_token()
            place = Shared(directory=own, needs=job.needs)
        else:
            place = Carried(needs=tuple(contents(d, ("adapter", "step0")) for d in job.needs))
        self._running[job.trial] = _Running(
            job=job,
            stream=self._task.options(name=job.name).remote(self._orders.of(job), place),
            place=place,
            follower=Follower(TrialPaths(job.directory)),
            losses=losses,
        )

    def ended(self, seconds: float) -> Sequence[Ended]:
        """The jobs that ended; what they made is in their directories."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            gone = self._look(left)
            if gone or time.monotonic() >= deadline:
                return gone

    def _look(self, seconds: float) -> list[Ended]:
        """Take one piece of news of every job that has some."""
        streams = {running.stream: trial for trial, running in self._running.items()}
        if not streams:
            time.sleep(min(seconds, _POLL_SECONDS))
            return []
        ready, _ = self._ray.wait(
            list(streams), num_returns=len(streams), timeout=min(seconds, _POLL_SECONDS)
        )
        found = (self._take(streams[stream]) for stream in ready)
        return [ended for ended in found if ended is not None]

    def _take(self, trial: str) -> Ended | None:
        running = self._running[trial]
        try:
            news = self._ray.get(next(running.stream))
        except StopIteration:
            return self._end(running)
        except self._ray.exceptions.TaskCancelledError:
            return self._drop(running, "it was stopped")
        except self._ray.exceptions.RayTaskError as error:
            return self._drop(running, f"its node could not run it: {_last_line(error)}")
        except self._ray.exceptions.RayError as error:
            return self._lose(running, error)
        if isinstance(news, News):
            running.follower.tell(news)
            running.ending = running.ending or news.ended
        else:
            running.made = news
        return None

    def _end(self, running: _Running) -> Ended:
        """A stream that came to its end: take over what the attempt made."""
        if isinstance(running.place, Shared):
            take_over(running.place.directory, running.job.directory)
        else:
            write_contents(running.job.directory, running.made or {})
        return self._drop(running, running.ending or "its task ended without a word")

    def _lose(self, running: _Running, error: Exception) -> Ended | None:
        """A node or a worker is gone: once more, elsewhere."""
        job, why = running.job, type(error).__name__
        if running.stopped or running.losses >= self._retries:
            times = f", {running.losses + 1} times" if running.losses else ""
            return self._drop(running, f"its node or worker was lost{times} ({why})")
        losses = running.losses + 1
        self._log(
            f"{job.name} lost its node or worker ({why}): started again, "
            f"{losses} of {self._retries} retries."
        )
        self._start(job, losses)
        return None

    def _drop(self, running: _Running, message: str) -> Ended:
        del self._running[running.job.trial]
        return Ended(trial=running.job.trial, message=message)

    def stop(self, trial: str) -> None:
        """End a job: first asked, so that its node is left clean, then killed."""
        if trial in self._running:
            self._cancel([self._running[trial]])

    def close(self) -> None:
        """End every job, and the cluster if it is ours."""
        self._cancel(list(self._running.values()))
        self._running.clear()
        self._session.close()

    def _cancel(self, chosen: Sequence[_Running]) -> None:
        for force in (False, True):
            for running in chosen:
                running.stopped = True
                self._ray.cancel(running.stream, force=force)
            done = [running.stream.completed() for running in chosen]
            if not done:
                return
            _, alive = self._ray.wait(done, num_returns=len(done), timeout=_CANCEL_SECONDS)
            if not alive:
                return


def on_node(order: Order, place: Shared | Carried) -> Iterator[News | Contents]:
    """Run an attempt on a node: its news, and what it made where that has to be carried."""
    with _directories(place) as (directory, needs):
        yield from attempt(order, directory, needs)
        if isinstance(place, Carried):
            yield contents(directory)


@contextlib.contextmanager
def _directories(place: Shared | Carried) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    if isinstance(place, Shared):
        yield place.directory, place.needs
        return
    with tempfile.TemporaryDirectory(prefix="gradience-trial-") as name:
        root = Path(name)
        needs = []
        for i, found in enumerate(place.needs):
            write_contents(root / f"need-{i}", found)
            needs.append(root / f"need-{i}")
        files.make_dir(root / "trial")
        yield root / "trial", tuple(needs)


def _last_line(error: Exception) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason")


# Opening.


def check(settings: ExecutorSettings) -> Sequence[str]:
    """Problems of the settings in words."""
    problems = option_problems(settings, RayOptions)
    if problems:
        return problems
    options = msgspec.convert(settings.options, RayOptions)
    if options.address is not None and options.address.startswith("ray://"):
        problems.append(
            f"options.address: {options.address!r} is a Ray client's; start the bench on a node of "
            "the cluster and write 'auto'"
        )
    if options.num_cpus is not None and options.num_cpus < 1:
        problems.append(f"options.num_cpus: {options.num_cpus}; write 1 or more")
    if options.num_gpus is not None and not 0 < options.num_gpus <= 1:
        problems.append(
            f"options.num_gpus: {options.num_gpus:g}; a trial uses one GPU, or a share of one"
        )
    if options.retries < 0:
        problems.append(f"options.retries: {options.retries}; write 0 or more")
    if options.memory is not None:
        try:
            parse_size(options.memory)
        except UsageError as error:
            problems.append(f"options.memory: {error}; {error.remedy}")
    return problems


def open_ray(
    settings: ExecutorSettings, environ: Mapping[str, str], log: Callable[[str], None]
) -> RayExecutor:
    """An executor for a cluster, with as many slots as it has room for trials.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    UsageError
        If the cluster does not answer, or none of its nodes has room for a trial.
    """
    options = msgspec.convert(settings.options, RayOptions)
    if options.address is None:
        gpus = visible_gpus(environ) if settings.device != "cpu" else ()
        session = ray_session.start(cores=usable_cores(), gpus=gpus)
    else:
        session = ray_session.connect(options.address)
    try:
        nodes = [node["Resources"] for node in session.ray.nodes() if node["Alive"]]
        wanted = resources_of(options, settings, nodes)
        slots = settings.workers or room_for(nodes, wanted)
        if slots == 0:
            raise UsageError(
                f"no node of the Ray cluster has room for a trial of {_told(wanted)}",
                remedy="Run `ray status`; lower num_cpus, num_gpus or memory in "
                "executor.options, or write `workers` for a cluster that grows on demand.",
            )
    except GradienceError:
        session.close()
        raise
    shared = options.transfer == "shared" or (options.transfer is None and options.address is None)
    log(
        f"{slots} {'trial' if slots == 1 else 'trials'} at a time on {len(nodes)} Ray "
        f"{'node' if len(nodes) == 1 else 'nodes'}, {_told(wanted)} each."
    )
    return RayExecutor(
        session=session,
        slots=slots,
        resources=wanted,
        orders=Orders(threads=int(wanted["num_cpus"]), environ=environ),
        shared=shared,
        retries=options.retries,
        log=log,
    )


def resources_of(
    options: RayOptions, settings: ExecutorSettings, nodes: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """What a trial asks of its node: by default the smallest node, or its part for each GPU."""
    on_gpu = settings.device == "cuda"
    fit = [n for n in nodes if n.get("CPU", 0) >= 1 and (not on_gpu or n.get("GPU", 0) >= 1)]
    shares = [int(n["CPU"] // (n["GPU"] if on_gpu else 1)) for n in fit]
    wanted: dict[str, float] = {"num_cpus": options.num_cpus or max(1, min(shares, default=1))}
    if on_gpu:
        wanted["num_gpus"] = 1 if options.num_gpus is None else options.num_gpus
    if options.memory is not None:
        wanted["memory"] = parse_size(options.memory)
    return wanted


def room_for(nodes: Sequence[Mapping[str, float]], wanted: Mapping[str, float]) -> int:
    """How many trials all nodes have room for.

    Examples
    --------
    >>> room_for([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}], {"num_cpus": 2, "num_gpus": 0.5})
    4
    """
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return sum(
        min(int(node.get(names[key], 0.0) // amount) for key, amount in wanted.items())
        for node in nodes
    )


def _told(wanted: Mapping[str, float]) -> str:
    words = [f"{wanted['num_cpus']:g} {'core' if wanted['num_cpus'] == 1 else 'cores'}"]
    if "num_gpus" in wanted:
        words.append("a GPU" if wanted["num_gpus"] == 1 else f"{wanted['num_gpus']:g} of a GPU")
    if "memory" in wanted:
        words.append(format_size(int(wanted["memory"])))
    return ", ".join(words)


RAY = ExecutorKind(
    name="ray",
    summary="tasks of a Ray cluster",
    open=open_ray,
    check=check,
    options=RayOptions,
    expected=lambda environ: max(1, len(visible_gpus(environ))),
)
