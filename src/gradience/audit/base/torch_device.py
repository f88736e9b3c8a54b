"""The same algorithm through torch, for many matrices of one shape at once: on a GPU.

A GPU reads a weight in microseconds, so what costs is starting work on it: all matrices of one
shape go through a step together. Bases and products stay on the device; the coefficients, a few
numbers per matrix, come back, and the bounds are computed from them by the same code as on a CPU.

A matrix that is not of the common kind (NaN, zero, of low rank, with a basis that is exhausted) is
handed to the CPU, whose recurrence deals with all of them.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradience.audit.base.devices import ONE_THREAD, Cpu, Opener, Result
from gradience.audit.base.row_blocks import Array
from gradience.audit.base.spectral_norm import SMALL, Goal, NormInterval
from gradience.audit.base.torch_lanczos import intervals_of_batch
from gradience.audit.base.weights import BaseWeight
from gradience.errors import UsageError

# Beside the weights there must be room for what is widened and for the bases.
_SHARE_OF_MEMORY = 0.5
_WIDEST = 4  # bytes of a number, but for float64, which is rare and may take more than its share
_STEP_NUMBERS = 1 << 32
_HOST_BYTES = 1 << 28
_BLOCK_ROWS = 1024
# ml_dtypes and torch name the same bits; float8 is widened to the float16 that holds it exactly.
_AS_STORED = {
    "bfloat16": ("int16", torch.bfloat16),
    "float16": ("float16", torch.float16),
    "float32": ("float32", torch.float32),
    "float64": ("float64", torch.float64),
}
_IN_FLOAT16 = frozenset({"float8_e4m3fn", "float8_e5m2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchDevice:
    """A torch device: `cuda:0`, or `cpu` to run this path where there is no GPU.

    Attributes
    ----------
    name : str
    batch_bytes : int
        Stored bytes of the matrices that are on the device at once.
    cpu : Cpu
        Takes what this path does not.
    """

    name: str
    batch_bytes: int
    cpu: Cpu = ONE_THREAD

    @property
    def step_numbers(self) -> int:
        """Enough for the matrices of one shape to come together; some seconds of work."""
        return min(self.batch_bytes, _STEP_NUMBERS)

    def order(self, weights: Sequence[BaseWeight]) -> list[BaseWeight]:
        """Matrices of one shape and type together."""
        return [weight for members in _alike(weights) for weight in members]

    def intervals(
        self, weights: Sequence[BaseWeight], opener: Opener, goal: Goal
    ) -> Iterator[Result]:
        """See `Device.intervals`; matrices of one shape and type together."""
        for members in _alike(weights):
            shape = members[0].stored_shape
            at_once = max(1, self.batch_bytes // (_WIDEST * shape[0] * shape[1]))
            for start in range(0, len(members), at_once):
                yield from self._together(members[start : start + at_once], opener, goal)

    def _together(
        self, weights: Sequence[BaseWeight], opener: Opener, goal: Goal
    ) -> Iterator[Result]:
        """The intervals of matrices of one shape: here as many as possible, the rest on the CPU."""
        found: dict[BaseWeight, NormInterval] | None = {}
        if min(weights[0].stored_shape) > SMALL:
            found = self._here_if_it_fits(weights, opener, goal)
        half = len(weights) // 2
        if found is None and half:
            yield from self._together(weights[:half], opener, goal)
            yield from self._together(weights[half:], opener, goal)
            return
        # A single matrix that does not fit is left over.
        found = found or {}
        yield from found.items()
        left = [weight for weight in weights if weight not in found]
        yield from self.cpu.intervals(left, opener, goal)

    def _here_if_it_fits(
        self, weights: Sequence[BaseWeight], opener: Opener, goal: Goal
    ) -> dict[BaseWeight, NormInterval] | None:
        """Those that the device can do, in one batch; None where its memory did not do."""
        try:
            loaded, W = self._load(weights, opener)
            with full_precision():
                found = intervals_of_batch(W, goal) if loaded else []
        except RuntimeError as error:
            if not _has_no_room(error):
                raise
            # Somebody else is on the device. What to do about it is done elsewhere: the error has
            # the frames that hold what did fit, and here it is not yet over.
            return None
        pairs = zip(loaded, found, strict=True)
        return {weight: interval for weight, interval in pairs if interval is not None}

    def _load(
        self, weights: Sequence[BaseWeight], opener: Opener
    ) -> tuple[list[BaseWeight], torch.Tensor]:
        """The weights on the device, stacked; those of a type that torch has not are left out."""
        loaded: list[BaseWeight] = []
        W = torch.empty(0)
        for weight in weights:
            stored = opener(weight)
            try:
                row = 0
                for block in stored.blocks(_BLOCK_ROWS):
                    host_block = _as_tensor(block)
                    if host_block is not None and not len(W):
                        shape = (len(weights), *stored.shape)
                        W = torch.empty(shape, dtype=host_block.dtype, device=self.name)
                    fits = tuple(W.shape[1:]) == stored.shape
                    if host_block is None or not fits or host_block.dtype != W.dtype:
                        break
                    W[len(loaded), row : row + len(block)] = host_block.to(self.name)
                    row += len(block)
                if row == stored.shape[0]:
                    loaded.append(weight)
            finally:
                stored.release()
        return loaded, W[: len(loaded)]


def _alike(weights: Sequence[BaseWeight]) -> list[list[BaseWeight]]:
    """Matrices of one shape and type, in the order of the first of each."""
    alike: defaultdict[tuple[tuple[int, int], str], list[BaseWeight]] = defaultdict(list)
    for weight in weights:
        alike[weight.stored_shape, weight.dtype].append(weight)
    return list(alike.values())


def _as_tensor(block: Array) -> torch.Tensor | None:
    """A block in a type of torch that holds it exactly; None where there is none."""
    if block.dtype.name in _IN_FLOAT16:
        block = block.astype(np.float16)
    if block.dtype.name not in _AS_STORED:
        return None
    view, dtype = _AS_STORED[block.dtype.name]
    # A copy: torch warns of memory that it may not write to, and a block may be reused.
    return torch.from_numpy(np.array(block).view(view)).view(dtype)


def cuda(name: str, cpu: Cpu) -> TorchDevice:
    """The CUDA device of that name.

    Raises
    ------
    UsageError
        If torch finds no such device, or it cannot be used.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(name.partition(":")[2] or 0)
    if number >= count:
        raise UsageError(
            f"--device {name}: torch {torch.__version__} finds {count} CUDA devices",
            remedy="Use --device cpu, or install a torch build for the driver of this machine.",
        )
    device = f"cuda:{number}"
    try:
        free, _ = torch.cuda.mem_get_info(device)
    except RuntimeError as error:  # full, taken by one process alone, or fallen off the bus
        raise UsageError(
            f"--device {name} cannot be used: {str(error).partition(chr(10))[0]}",
            remedy="See with nvidia-smi who is on it; or use --device cpu.",
        ) from error
    return TorchDevice(name=device, batch_bytes=int(free * _SHARE_OF_MEMORY), cpu=cpu)


def cuda_if_any(cpu: Cpu) -> TorchDevice | None:
    """The first CUDA device, or None if there is none that can be used."""
    try:
        return cuda("cuda", cpu) if torch.cuda.is_available() else None
    except UsageError:
        return None


def host(cpu: Cpu = ONE_THREAD, *, batch_bytes: int = _HOST_BYTES) -> TorchDevice:
    """This path on the CPU: for tests, and for its benchmark where there is no GPU."""
    return TorchDevice(name="cpu", batch_bytes=batch_bytes, cpu=cpu)


def _has_no_room(error: RuntimeError) -> bool:
    """Whether a device had too little memory: torch says so, or the library below it."""
    words = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in words
        or "STATUS_ALLOC_FAILED" in words
    )


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in float32 proper: TF32 keeps ten bits, and the bounds do not allow for that."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # chosen by the newer switches: torch then refuses to hear of this one
        with _full_precision_by_backend():
            yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _full_precision_by_backend() -> Iterator[None]:
    all_backends: Any = torch.backends  # these of it have no types
    backends = (all_backends.cuda.matmul, all_backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
