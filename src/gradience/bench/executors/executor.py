"""What every place to run trials offers: four methods, and no opinion on what a trial is.

The driver decides which trial may start; an executor starts it, says when it ended, and ends it on
demand. The trial's directory is the only channel: when a trial is reported as ended, its directory
on the driver's machine holds what it wrote, however that came about (a shared disk, or by value).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from gradience.bench.settings import Device, ExecutorSettings
from gradience.configs.decode import decode

TRIAL_MODULE = "gradience.bench.trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at a trial.

    Attributes
    ----------
    trial : str
        Its id.
    name : str
        For people: `truncate-r8 seed 1`.
    directory : Path
        Absolute; holds `trial.json` before the start, and `result.json` after a success.
    needs : tuple of Path
        Directories of the trials whose adapters it starts from; it only reads there.
    device : str
        `cpu` or `cuda`.
    """

    trial: str
    name: str
    directory: Path
    needs: tuple[Path, ...]
    device: Device

    def arguments(self) -> tuple[str, ...]:
        """What stands after `python -m gradience.bench.trial`."""
        named = (part for need in self.needs for part in ("--needs", str(need)))
        return (str(self.directory), *named)

    def command(self) -> tuple[str, ...]:
        """The process of the trial, for an executor that starts it as it is."""
        return (sys.executable, "-m", TRIAL_MODULE, *self.arguments())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job that no longer runs.

    Attributes
    ----------
    trial : str
    message : str
        What the executor itself knows of its end: an exit code, a signal, a lost node. Whether the
        trial is done, its `result.json` says.
    """

    trial: str
    message: str


class Executor(Protocol):
    """Runs jobs side by side.

    Attributes
    ----------
    slots : int
        How many jobs it will take at once.
    """

    slots: int

    def submit(self, job: Job) -> None:
        """Start a job, or queue it; returns at once.

        Raises
        ------
        GradienceError
            If it cannot be started.
        """
        ...

    def ended(self, seconds: float) -> Sequence[Ended]:
        """The jobs that ended since the last call; waits at most so long for the first."""
        ...

    def stop(self, trial: str) -> None:
        """End a job now, with every process it started; `ended` then reports it."""
        ...

    def close(self) -> None:
        """End every job and let go of what is held; nothing runs when it returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorKind:
    """A place to run trials, as the registry lists it.

    Attributes
    ----------
    name, summary : str
    open : callable
        From (settings, environ, log) to an executor. `environ` is the driver's environment; `log`
        takes sentences for the user, such as "3 GPUs, one trial on each".
    check : callable
        Problems of the settings in words, naming key and value; imports nothing heavy.
    options : msgspec struct type
        What `ExecutorSettings.options` may hold.
    expected : callable
        From the driver's environment to the trials at once where `workers` is not given, as far as
        can be told without opening it.
    """

    name: str
    summary: str
    open: "Callable[[ExecutorSettings, Mapping[str, str], Callable[[str], None]], Executor]"
    check: Callable[[ExecutorSettings], Sequence[str]]
    options: type[msgspec.Struct]
    expected: Callable[[Mapping[str, str]], int]


class NoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For an executor that has none."""


def option_problems(settings: ExecutorSettings, kind: type[msgspec.Struct]) -> list[str]:
    """What is wrong with `executor.options`: unknown keys with the nearest name, wrong types."""
    return [
        f"options{problem.path.removeprefix('$')}: {problem.message}"
        for problem in decode(settings.options, kind).problems
    ]
