"""Where norms of base weights are computed: a device takes weights and gives intervals.

The bounds are the same everywhere; what differs is how a weight is read and multiplied.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from gradience.audit.base.rows import StoredRows
from gradience.audit.base.spectral_norm import Crew, Goal, NormInterval, spectral_norm
from gradience.audit.base.weights import BaseWeight
from gradience.blas import one_thread, threads
from gradience.errors import MissingExtraError, UnmeasurableError, UsageError
from gradience.system.cpus import usable_cores

Opener = Callable[[BaseWeight], StoredRows]
Result = tuple[BaseWeight, NormInterval | UnmeasurableError]


class Device(Protocol):
    """Where norms are computed."""

    @property
    def name(self) -> str:
        """Such as `cpu` or `cuda:0`."""
        ...

    @property
    def step_numbers(self) -> int:
        """About how many numbers to hand over at a time; what is measured is then remembered."""
        ...

    def order(self, weights: Sequence[BaseWeight]) -> list[BaseWeight]:
        """The order to hand them over in, which is that in which they are opened."""
        ...

    def intervals(
        self, weights: Sequence[BaseWeight], opener: Opener, goal: Goal
    ) -> Iterator[Result]:
        """The interval of every weight, or why it has none, in any order.

        Parameters
        ----------
        weights : sequence of BaseWeight
        opener : callable
            Opens a weight; whoever opens it releases it.
        goal : Goal

        Raises
        ------
        BaseModelError
            If a shard cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The cores of this machine: one weight at a time, its rows shared out among threads."""

    threads: int = 1
    name: str = "cpu"
    # Half a second of work.
    step_numbers: int = 1 << 27

    def order(self, weights: Sequence[BaseWeight]) -> list[BaseWeight]:
        """As they come."""
        return list(weights)

    def intervals(
        self, weights: Sequence[BaseWeight], opener: Opener, goal: Goal
    ) -> Iterator[Result]:
        """See `Device.intervals`; in order."""
        many = self.threads > 1
        # Threads of our own and threads of BLAS would be more than there are cores.
        with (
            one_thread({}) if many else nullcontext(),
            ThreadPoolExecutor(self.threads) if many else nullcontext() as pool,
        ):
            for weight in weights:
                crew = Crew(pool=pool, threads=self.threads)
                yield weight, measured_here(opener(weight), goal, crew)


ONE_THREAD = Cpu()


def measured_here(stored: StoredRows, goal: Goal, crew: Crew) -> NormInterval | UnmeasurableError:
    """The interval of one open weight on the CPU, or why it has none; releases the weight."""
    try:
        return spectral_norm(stored, goal, crew=crew)
    except UnmeasurableError as error:
        return error
    finally:
        stored.release()


# NVIDIA's driver, AMD's, and Windows' below WSL: without one torch need not be asked.
_DRIVERS = ("nvidiactl", "kfd", "dxg")
# What the cores do in the seconds that importing torch and starting CUDA take.
_WORTH_A_GPU = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChoice:
    """Which device was asked for, and what the CPU may use.

    Attributes
    ----------
    name : str
        `cpu`; `cuda` or `cuda:1`; `auto` for CUDA where torch finds one and the work is worth it.
    threads : int
        For the CPU.
    """

    name: str = "cpu"
    threads: int = 1

    def device(self, numbers: int) -> Device:
        """The device for weights of that many numbers in all.

        Raises
        ------
        MissingExtraError
            If CUDA was asked for and torch is not installed.
        UsageError
            If CUDA was asked for and torch finds none, or there is no such device.
        """
        cpu = Cpu(threads=self.threads)
        if self.name == "cpu":
            return cpu
        if self.name == "auto" and (numbers < _WORTH_A_GPU or not has_gpu()):
            return cpu
        if find_spec("torch") is None:
            if self.name == "auto":
                return cpu
            raise MissingExtraError(
                f"--device {self.name} needs torch, and it is not installed",
                remedy="Install the torch build of this machine, then: pip install "
                "'gradience[torch]'; or use --device cpu.",
            )
        # Imported here: torch takes seconds, and only this path needs it.
        from gradience.audit.base.torch_device import cuda, cuda_if_any  # noqa: PLC0415

        if self.name == "auto":
            return cuda_if_any(cpu) or cpu
        return cuda(self.name, cpu)


ON_CPU = DeviceChoice()


def has_gpu(dev: Path = Path("/dev")) -> bool:
    """Whether a driver of a GPU is there that torch may know as CUDA; costs nothing to ask.

    Parameters
    ----------
    dev : Path
        Where devices are listed.
    """
    return any((dev / name).exists() for name in _DRIVERS)


def choice(name: str, environ: Mapping[str, str]) -> DeviceChoice:
    """The device of that name, with the cores that this process may use.

    Parameters
    ----------
    name : str
        `auto`, `cpu`, `cuda` or `cuda:1`.
    environ : mapping of str to str
        Thread variables of BLAS set there are the number of threads.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    check_device(name)
    return DeviceChoice(name=name, threads=threads(environ, usable_cores()))


def check_device(name: str, *, has_base: bool = True) -> None:
    """Refuse what is no name of a device, and a GPU that would have nothing to do.

    Parameters
    ----------
    name : str
    has_base : bool
        Whether the weights of a base model are at hand: nothing else is computed on a device.
        Without them `auto` and `cpu` promise nothing that is not kept.

    Raises
    ------
    UsageError
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UsageError(
            f"there is no device {name!r}", remedy="Name auto, cpu, cuda, or one such as cuda:1."
        )
    if name.startswith("cuda") and not has_base:
        raise UsageError(
            f"{name} would have nothing to do: norms of a base model are all that is computed on a "
            "device, and no base model is named",
            remedy="Name the base model with --base-model, or leave --device out.",
        )
