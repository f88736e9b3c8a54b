"""Norms on a device that shares no memory with the host, each beside those of torch on the CPU.

`python far_norms.py` prints a line of JSON. A process of its own, because of `factories_far`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from factories_far import FAR, FarDevice
from factories_matrices import MATRICES, Array, gaussian
from factories_weights import measured
from gradience.audit.base.devices import ONE_THREAD, Opener, Result
from gradience.audit.base.spectral_norm import Goal
from gradience.audit.base.torch_device import TorchDevice, host
from gradience.audit.base.weights import BaseWeight

ROOMY = 1 << 28


@dataclass
class Noting:
    """The CPU, which remembers what was left to it."""

    name: str = "cpu"
    step_numbers: int = ONE_THREAD.step_numbers
    left: list[str] = field(default_factory=list)

    def order(self, weights: Sequence[BaseWeight]) -> list[BaseWeight]:
        return ONE_THREAD.order(weights)

    def intervals(
        self, weights: Sequence[BaseWeight], opener: Opener, goal: Goal
    ) -> Iterator[Result]:
        self.left += [weight.key for weight in weights]
        yield from ONE_THREAD.intervals(weights, opener, goal)


def on_far(arrays: dict[str, Array], memory: int = 1 << 40) -> dict[str, Any]:
    """What came of some arrays."""
    cpu = Noting()
    with FarDevice(memory) as far:
        there = measured(TorchDevice(name=FAR, batch_bytes=ROOMY, cpu=cpu), arrays)  # type: ignore[arg-type]
    here = measured(host(batch_bytes=ROOMY), arrays)
    stayed = [name for name in arrays if name not in cpu.left]
    return {
        "apart": [name for name in arrays if there[name] != here[name]],
        "stayed": stayed,
        "nbytes": sum(array.nbytes for array in arrays.values()),
        "passes": sum(there[name].passes for name in stayed),
        "over": far.crossed["over"],
        "back": far.crossed["back"],
        "most": far.most,
        "left_over": far.taken,
    }


def main() -> None:
    """What was ever trouble, in the common types; then some matrices with less and less room."""
    found = {}
    for dtype in (np.float64, np.float32, ml_dtypes.bfloat16):
        arrays = {name: make().astype(dtype) for name, make in MATRICES.items()}
        found[np.dtype(dtype).name] = on_far(arrays)
    some = {str(seed): gaussian(400, 300, seed).astype(np.float32) for seed in range(8)}
    found["roomy"] = on_far(some)
    found["tight"] = on_far(some, memory=int(found["roomy"]["most"] * 0.4))
    found["no room"] = on_far(some, memory=1000)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
