"""One attempt at a trial, in a directory of its own.

On a cluster two attempts at one trial can be alive at once: a node that is taken for lost goes on,
a job is requeued while its old process still writes. So none of them touches the trial's directory.
Each works where nobody else does; the driver takes over what came of the one that counts, and its
`result.json` last.
"""

import importlib.metadata
import os
import platform
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gradience import artifacts, files
from gradience.bench.executors.executor import Job
from gradience.bench.executors.gpus import visible_gpus
from gradience.bench.executors.local import LEASH, LocalExecutor
from gradience.bench.ledger import TrialPaths
from gradience.bench.plan.fingerprints import ROOTS, code_fingerprint
from gradience.bench.records import TRIAL_SCHEMA, Trial
from gradience.bench.settings import Device

_TELL_SECONDS = 1.0
_PARTS = ("adapter", "step0", "result.json")
"""What a trial leaves, in the order in which it is taken over."""

_CARRIED = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "GRADIENCE_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a node is asked to run.

    Attributes
    ----------
    trial : bytes
        Content of `trial.json`.
    name : str
    device : str
        `cpu` or `cuda`.
    threads : int
        For BLAS and OpenMP.
    environ : mapping
        Variables of the driver that hold on every node.
    command : tuple of str or None
        In place of the trial's own process.
    """

    trial: bytes
    name: str
    device: Device
    threads: int
    environ: Mapping[str, str]
    command: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What is new of an attempt.

    Attributes
    ----------
    at : int
        Where `log` begins in the attempt's log.
    log : bytes
    progress : bytes
        Content of `progress.json`; empty where there is none.
    ended : str or None
        How its process ended, in the last news.
    """

    at: int
    log: bytes
    progress: bytes
    ended: str | None = None


def carried(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables of the driver that hold on every node: where models are, offline mode, threads."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_CARRIED) or name == "OMP_NUM_THREADS"
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What every node of a cluster is told alike.

    Attributes
    ----------
    threads : int
        Of each trial.
    environ : mapping
        Of the driver.
    command : sequence of str, optional
        In place of the trial's own process.
    """

    threads: int
    environ: Mapping[str, str]
    command: Sequence[str] | None = None

    def of(self, job: Job) -> Order:
        """What a node is told of a job."""
        return Order(
            trial=TrialPaths(job.directory).trial.read_bytes(),
            name=job.name,
            device=job.device,
            threads=self.threads,
            environ=carried(self.environ),
            command=None if self.command is None else tuple(self.command),
        )


def new_token() -> str:
    """A name for the directory of an attempt, which no other has."""
    return secrets.token_hex(4)


def attempt(order: Order, directory: Path, needs: Sequence[Path]) -> Iterator[News]:
    """Run a trial here, and tell of it about every second; the last news says how it ended.

    However this is left, no process of the trial stays behind.

    Parameters
    ----------
    order : Order
    directory : Path
        Of this attempt alone.
    needs : sequence of Path
        Directories of the trials it starts from.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    paths = TrialPaths(directory)
    files.replace(paths.trial, order.trial)
    strange = other_software(order)
    if strange:
        with files.appending(paths.log) as log:
            log.write(f"$ {order.name}\nerror: {strange}\n".encode())
        yield replace(news_of(directory, 0), ended="it was not started")
        return
    executor = LocalExecutor(
        slots=1,
        threads=order.threads,
        gpus=visible_gpus(os.environ)[:1] if order.device == "cuda" else (),
        environ={**os.environ, **order.environ},
        command=LEASH if order.command is None else order.command,
    )
    at, ended = 0, None
    try:
        executor.submit(
            Job(
                trial=order.name,
                name=order.name,
                directory=directory,
                needs=tuple(needs),
                device=order.device,
            )
        )
        while ended is None:
            ended = next((end.message for end in executor.ended(_TELL_SECONDS)), None)
            news = news_of(directory, at)
            at += len(news.log)
            yield replace(news, ended=ended)
    finally:
        executor.close()


def news_of(directory: Path, at: int) -> News:
    """What an attempt wrote into its log from a position on, and where it is."""
    paths = TrialPaths(directory)
    try:
        with paths.log.open("rb") as log:
            log.seek(at)
            text = log.read()
    except OSError:
        text = b""
    try:
        progress = paths.progress.read_bytes()
    except OSError:
        progress = b""
    return News(at=at, log=text, progress=progress)


def other_software(order: Order) -> str:
    """How this node differs from what the trial's numbers rest on; empty where it does not."""
    spec = artifacts.decode(order.trial, TRIAL_SCHEMA, Trial, source="trial.json").spec
    there = {name: _version(name) for name in spec.versions}
    told = [
        f"{name} {there[name] or 'missing'}, not {wanted}"
        for name, wanted in spec.versions.items()
        if there[name] != wanted
    ]
    if not told and code_fingerprint(ROOTS) != spec.code:
        told = ["another release of Gradience"]
    if not told:
        return ""
    return f"node {platform.node()} has other software than the driver ({'; '.join(told)})"


def _version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


class Follower:
    """Brings what is new of an attempt into the trial's own log and progress, on the driver."""

    def __init__(self, paths: TrialPaths) -> None:
        self._paths = paths
        self._progress = b""
        self.at = 0

    def tell(self, news: News) -> None:
        """Add what is not there yet.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        fresh = news.log[max(0, self.at - news.at) :]
        if fresh:
            with files.appending(self._paths.log) as log:
                log.write(fresh)
            self.at += len(fresh)
        if news.progress and news.progress != self._progress:
            files.replace(self._paths.progress, news.progress)
            self._progress = news.progress


def contents(directory: Path, parts: Sequence[str] = _PARTS) -> dict[str, bytes]:
    """The files of an attempt that count, by their path below its directory, the result last."""
    found: dict[str, bytes] = {}
    for part in parts:
        path = directory / part
        inner = sorted(path.rglob("*")) if path.is_dir() else [path]
        found |= {str(f.relative_to(directory)): f.read_bytes() for f in inner if f.is_file()}
    return found


def write_contents(directory: Path, found: Mapping[str, bytes]) -> None:
    """Write files that were carried, in their order: the result last.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    for name, data in found.items():
        files.replace(directory / name, data)


def take_over(attempt_directory: Path, directory: Path) -> None:
    """Move what an attempt made into the trial's directory, on one file system, the result last.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    for part in _PARTS:
        if (attempt_directory / part).exists():
            files.move(attempt_directory / part, directory / part)
