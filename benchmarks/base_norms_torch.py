"""Norms of a whole base through torch, beside one read of its weights: on a GPU, or without one.

The weights are drawn on the device, with the shapes of a 7B model, so that neither the disk nor the
bus is timed: what is compared is the algorithm with one read of the same bytes from the device's
own memory. `upload` says what bringing them there takes on top. Every number carries its device.

    python benchmarks/base_norms_torch.py                  # CUDA: all 32 layers
    python benchmarks/base_norms_torch.py --layers 1 --shrink 4    # what a CPU does in a minute
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable

import torch

from gradience.audit.base.spectral_norm import Goal
from gradience.audit.base.torch_device import full_precision
from gradience.audit.base.torch_lanczos import intervals_of_batch
from shapes import LAYERS, MODULES

_OUTLIERS = 48


def trained_like(count: int, m: int, n: int, device: str) -> torch.Tensor:
    """A Gaussian bulk under outliers that decay as a power: (count, m, n) bfloat16."""
    W = torch.empty((count, m, n), dtype=torch.bfloat16, device=device)
    sigma = 4 * 0.02 * (m**0.5 + n**0.5) * torch.arange(1, _OUTLIERS + 1, device=device) ** -0.6
    for at in range(count):
        left = torch.randn((m, _OUTLIERS), device=device) / m**0.5
        right = torch.randn((_OUTLIERS, n), device=device) / n**0.5
        W[at] = 0.02 * torch.randn((m, n), device=device) + (left * sigma) @ right
    return W


def seconds(device: str, act: Callable[[], object]) -> float:
    """Seconds of an act, to its end on the device."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    act()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def read_once(W: torch.Tensor) -> None:
    """Touch every byte, and do no more with it."""
    W.view(torch.int16).view(torch.int64).amax()


def measure(count: int, m: int, n: int, device: str) -> tuple[int, float, float, float, int]:
    """Bytes, and seconds of an upload, one read, and the norms; how many the CPU would take."""
    W = trained_like(count, m, n, device)
    host = W[0].cpu()
    upload = count * seconds(device, lambda: host.to(device, copy=True))
    read_once(W)  # the first call of a kernel loads it
    read = seconds(device, lambda: read_once(W))
    found: list[object] = []
    with full_precision():
        intervals_of_batch(W[:1], Goal())
        took = seconds(device, lambda: found.extend(intervals_of_batch(W, Goal())))
    return W.nbytes, upload, read, took, sum(one is None for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the norms of a synthetic 7B base in torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--shrink", type=int, default=1, help="divide both sides of every weight")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device != "cpu" else "CPU"
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
    print(f"{options.layers} of {LAYERS} layers, sides divided by {options.shrink}")
    print(f"{'shape':>16}{'matrices':>10}{'MB':>9}{'upload s':>10}{'read s':>9}{'norms s':>9}")
    total = [0.0] * 4
    for (m, n), kinds in Counter(MODULES.values()).items():
        m, n = m // options.shrink, n // options.shrink  # noqa: PLW2901 - the shape measured
        count = kinds * options.layers
        nbytes, upload, read, took, left = measure(count, m, n, options.device)
        row = (nbytes / 1e6, upload, read, took)
        total = [a + b for a, b in zip(total, row, strict=True)]
        note = f"   {left} left to the CPU" if left else ""
        cells = f"{row[0]:>9.0f}{row[1]:>10.3f}{row[2]:>9.4f}{row[3]:>9.3f}"
        print(f"{f'{m} x {n}':>16}{count:>10}{cells}{note}")
    print(f"{'all':>26}{total[0]:>9.0f}{total[1]:>10.3f}{total[2]:>9.4f}{total[3]:>9.3f}")
    print(
        f"the norms take {total[3] / total[2]:.0f} times one read from the device's memory, "
        f"{total[3] / total[1]:.1f} times the upload"
    )


if __name__ == "__main__":
    main()
