"""The spectral audit of a 7B-shaped adapter, beside what else one would do.

All contenders take turns on the same file in the page cache, so that a busy machine is busy for
all of them; medians are printed, and ratios to reading the bytes once, which travel between
machines as absolute times do not. Whole processes count their imports and their peak memory.

    python benchmarks/audit.py [--ranks 16 64] [--dtypes bf16 fp32] [--repeats 5] [--quick]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradience.adapter.delta import Delta, Matrix, Product
from gradience.audit.spectrum import Spectrum, spectra
from gradience.blas import THREAD_VARIABLES, one_thread
from gradience.tensors.opening import open_tensor_file
from gradience.tensors.stored import StoredTensor
from shapes import DTYPES, LAYERS, MODULES, write_adapter

HERE = Path(__file__).resolve().parent
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run.

    Attributes
    ----------
    seconds : float
        By the clock on the wall.
    cpu_seconds : float
        User and system time of all threads: what a busy machine distorts least.
    peak_bytes : int or None
        Peak resident memory of a whole process.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A way to the answer, or a part of it."""

    name: str
    run: Callable[[], Run]


def in_process(act: Callable[[], object]) -> Run:
    """Time a function here."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return Run(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)


def whole_process(command: list[str], environ: Mapping[str, str]) -> Run:
    """Time a command from start to exit, with its own peak memory."""
    launcher = [sys.executable, "-S", str(HERE / "measured.py")]
    done = subprocess.run(
        launcher + command, env=environ, capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    if measured.pop("code") not in (0, 1):  # 1: done, with findings
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return Run(**measured)


def read_bytes(path: Path) -> None:
    """Read the file once into a reused buffer."""
    buffer = bytearray(_MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def products(tensors: Mapping[str, StoredTensor]) -> list[tuple[Delta, float]]:
    """The modules of the file, as the audit sees them."""

    def matrix(tensor: StoredTensor) -> Matrix:
        rows, columns = tensor.shape
        return Matrix(shape=(rows, columns), load=tensor.read, release=tensor.release)

    return [
        (Product(left=matrix(tensors[name.replace("lora_A", "lora_B")]), right=matrix(A)), 2.0)
        for name, A in tensors.items()
        if "lora_A" in name
    ]


def only_spectra(path: Path) -> list[Spectrum]:
    """Spectra from the factors in the file, and nothing else."""
    with open_tensor_file(path) as file:
        found = spectra(products(file.tensors))
    return [one for one in found if isinstance(one, Spectrum)]


def dense_svd(path: Path, layers: int) -> tuple[float, int]:
    """Seconds that forming B @ A and a float32 SVD would take, and how many modules were timed.

    Timed on the key and value projections of the first layer, the smallest; the others are
    extrapolated by m n min(m, n), which flatters the large ones.
    """
    with open_tensor_file(path) as file:
        first = [
            delta
            for (delta, _), name in zip(
                products(file.tensors), [n for n in file.tensors if "lora_A" in n], strict=True
            )
            if ".layers.0." in name and ("k_proj" in name or "v_proj" in name)
        ]
        took = work = 0.0
        for delta in first:
            assert isinstance(delta, Product)
            B, A = (side.load().astype(np.float32) for side in (delta.left, delta.right))
            start = time.perf_counter()
            np.linalg.svd(B @ A, compute_uv=False)
            took += time.perf_counter() - start
            work += cost(*delta.shape)
    return took * layers * sum(cost(m, n) for m, n in MODULES.values()) / work, len(first)


def cost(m: int, n: int) -> float:
    """Operations of a dense SVD, up to a constant."""
    return float(m) * n * min(m, n)


def contenders(path: Path) -> list[Contender]:
    """Everyone who takes a turn; the first is the unit.

    Whole processes find their modules compiled, as those of an installed package are.
    """
    unlike = {*THREAD_VARIABLES, "PYTHONDONTWRITEBYTECODE"}
    plain = {name: value for name, value in os.environ.items() if name not in unlike}
    plain["GRADIENCE_CACHE_DIR"] = str(path.parent / "cache")
    single = plain | dict.fromkeys(THREAD_VARIABLES, "1")
    audit = [sys.executable, "-m", "gradience", "audit", str(path.parent), "--json"]
    anew = [*audit, "--no-cache"]
    rival = [sys.executable, str(HERE / "torch_gram.py"), str(path)]
    imports = [sys.executable, "-c", "import numpy, ml_dtypes"]
    torch = [sys.executable, "-c", "import torch"]
    return [
        Contender(name="read the bytes", run=lambda: in_process(lambda: read_bytes(path))),
        Contender(name="spectra, one thread", run=lambda: in_process(lambda: only_spectra(path))),
        Contender(name="import numpy, ml_dtypes", run=lambda: whole_process(imports, plain)),
        Contender(name="gradience audit", run=lambda: whole_process(anew, plain)),
        Contender(name="the same, remembered", run=lambda: whole_process(audit, plain)),
        Contender(name="import torch", run=lambda: whole_process(torch, plain)),
        Contender(name="torch, one thread", run=lambda: whole_process(rival, single)),
        Contender(name="torch, its default", run=lambda: whole_process(rival, plain)),
    ]


def compare(path: Path, title: str, *, repeats: int, layers: int) -> None:
    """Print one table."""
    size = path.stat().st_size
    rivals = contenders(path)
    runs: dict[str, list[Run]] = {rival.name: [] for rival in rivals}
    with one_thread(os.environ):
        found = only_spectra(path)
        for turn in range(repeats + 1):
            for rival in rivals:
                run = rival.run()
                if turn:  # the first one compiles modules, and fills caches
                    runs[rival.name].append(run)
        dense, timed = dense_svd(path, layers)
    print(f"\n{title}: {len(found)} modules, {size / 1e6:.0f} MB, medians of {repeats}")
    print(f"{'':26}{'wall s':>9}{'cpu s':>9}{'peak MB':>9}{'x reading':>11}")
    unit = statistics.median(run.seconds for run in runs[rivals[0].name])
    for name, times in runs.items():
        wall = statistics.median(run.seconds for run in times)
        cpu = statistics.median(run.cpu_seconds for run in times)
        peaks = [run.peak_bytes for run in times if run.peak_bytes is not None]
        peak = f"{statistics.median(peaks) / 1e6:.0f}" if peaks else ""
        print(f"{name:26}{wall:9.3f}{cpu:9.3f}{peak:>9}{wall / unit:11.1f}")
    print(f"{'dense SVD, extrapolated':26}{dense:9.0f}{'':9}{'':9}{dense / unit:11.0f}")
    print(f"  from {timed} modules of 1024 x 4096 in float32, by m n min(m, n)")
    methods = sorted({one.method for one in found})
    worst = max(one.relative_error for one in found)
    print(f"  by {', '.join(methods)}; largest error bound of a spectrum {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the spectral audit of a 7B-shaped adapter")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), default=["bf16", "fp32"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="four layers, three repeats")
    options = parser.parse_args()
    layers, repeats = (4, min(3, options.repeats)) if options.quick else (LAYERS, options.repeats)
    for rank in options.ranks:
        for dtype in options.dtypes:
            with tempfile.TemporaryDirectory() as place:
                path = write_adapter(Path(place), rank=rank, dtype=dtype, layers=layers)
                compare(path, f"r = {rank}, {dtype}", repeats=repeats, layers=layers)


if __name__ == "__main__":
    main()
