"""The certified spectral norm of a big weight, beside what else one would do.

Everything runs in one process, on the same matrices, with one BLAS thread, in turn; medians are
printed. Ratios travel between machines, absolute times do not. None of the others has a bound: the
column `error` says how far below the certified interval they ended (0 when inside).

`--whole N` writes N layers of a 7B base (32 are 14 GB) and measures all of it, as a user would: a
process of its own, all cores, with its peak memory; the others take one matrix of each module, on
all cores, times the number of layers. `--at DIR` keeps the base there for the next run.

    python benchmarks/base_norms.py [--quick] [--gaussian] [--full] [--whole N [--at DIR]]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from gradience.audit.base.spectral_norm import Crew, Goal, NormInterval, spectral_norm
from gradience.blas import one_thread
from gradience.system.cpus import usable_cores
from shapes import MODULES

HERE = Path(__file__).resolve().parent
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another way to the largest singular value, as a function of the stored weight."""

    name: str
    norm: Callable[[Array], float]


def gaussian(m: int, n: int) -> Array:
    """Independent entries: the flattest spectrum, the most passes."""
    W = np.random.default_rng(0).standard_normal((m, n), dtype=np.float32)
    return (0.02 * W).astype(ml_dtypes.bfloat16)


def trained_like(m: int, n: int, outliers: int = 48) -> Array:
    """A Gaussian bulk under outliers that decay as a power, the first four times its edge."""
    rng = np.random.default_rng(0)
    W = 0.02 * rng.standard_normal((m, n), dtype=np.float32)
    left = rng.standard_normal((m, outliers), dtype=np.float32) / np.float32(m**0.5)
    right = rng.standard_normal((outliers, n), dtype=np.float32) / np.float32(n**0.5)
    sigma = 4 * 0.02 * (m**0.5 + n**0.5) * np.arange(1, outliers + 1) ** -0.6
    W += (left * sigma.astype(np.float32)) @ right
    return W.astype(ml_dtypes.bfloat16)


def read_once(W: Array) -> float:
    """Touch every byte, and do no more with it."""
    return float(np.bitwise_or.reduce(W.view(np.uint64), axis=None))


def arpack(W: Array) -> float:
    """scipy's svds to the same relative accuracy, widening counted."""
    from scipy.sparse.linalg import svds  # type: ignore[import-untyped]  # noqa: PLC0415

    wide = W.astype(np.float32)
    start = np.random.default_rng(0).standard_normal(min(W.shape)).astype(np.float32)
    return float(svds(wide, k=1, tol=1e-3, v0=start, return_singular_vectors=False)[0])


def svd_lowrank(W: Array) -> float:
    """torch's randomised SVD at its defaults, widening counted."""
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    wide = torch.from_numpy(W.view(np.int16)).view(torch.bfloat16).float()
    return float(torch.svd_lowrank(wide)[1][0])


def one_thread_of_torch() -> None:
    """As BLAS has it."""
    with suppress(ImportError):
        import torch  # noqa: PLC0415

        torch.set_num_threads(1)


def full_svd(W: Array) -> float:
    """Every singular value, in float32: torch's where it is installed, else numpy's."""
    wide = W.astype(np.float32)
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return float(np.linalg.svd(wide, compute_uv=False)[0])
    return float(torch.linalg.svdvals(torch.from_numpy(wide))[0])


def on_all_cores(W: Array, threads: int) -> float:
    """Ours, the rows shared out among threads."""
    with ThreadPoolExecutor(threads) as pool:
        return spectral_norm(W, crew=Crew(pool=pool, threads=threads)).lower


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def peak_bytes(W: Array) -> int:
    """What the norm allocates at most, beside the weight."""
    tracemalloc.start()
    spectral_norm(W)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def medians(W: Array, rivals: list[Rival], rounds: int) -> tuple[float, float, dict[str, float]]:
    """Seconds of one read, of ours, and of each rival, taken in turn."""
    reads, ours = [], []
    others: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for seed in range(rounds):
        reads.append(seconds(partial(read_once, W)))
        ours.append(seconds(partial(spectral_norm, W, Goal(seed=seed))))
        for rival in rivals:
            others[rival.name].append(seconds(partial(rival.norm, W)))
    median = statistics.median
    return median(reads), median(ours), {name: median(took) for name, took in others.items()}


def row(name: str, took: float, read: float, ours: float, note: str) -> None:
    print(f"  {name:<22}{took * 1e3:>11.1f} ms{took / read:>9.0f} x{took / ours:>10.2f} x   {note}")


def below(estimate: float, interval: NormInterval) -> str:
    miss = max(0.0, 1.0 - estimate / interval.lower)
    return f"no bound; error {miss:.0e}" if miss else "no bound; error 0"


def whole(layers: int, at: Path | None) -> None:
    """Measure every weight of some layers of a 7B base, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        base = at or Path(place) / "base"
        if not base.exists():
            write_base(base, layers)
        size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
        read_files(base)  # from the disk, if need be: what is timed is in memory
        reading = seconds(partial(read_files, base))
        run = measured_whole(base, Path(place))
    print(f"\n{layers} layers of a 7B base, {size / 1e9:.2f} GB bf16, {usable_cores()} cores")
    print(f"  {'':<28}{'seconds':>9}{'one read':>11}")
    row_whole("one read of the files", reading, reading, "")
    note = f"certified; {run['cpu_seconds']:.1f} s CPU, peak {run['peak_bytes'] / 1e6:.0f} MB"
    row_whole("gradience norms measure", run["seconds"], reading, note)
    weights = {name: trained_like(*shape) for name, shape in MODULES.items()}
    for rival in available():
        took = layers * sum(seconds(partial(rival.norm, W)) for W in weights.values())
        row_whole(rival.name, took, reading, "no bound; one layer, times the layers")
    parts = [W[: W.shape[0] // 8, : W.shape[1] // 8] for W in weights.values()]
    took = layers * 8**3 * sum(seconds(partial(full_svd, part)) for part in parts)
    row_whole("svdvals", took, reading, "extrapolated (cubic) from an eighth of each side")


def row_whole(name: str, took: float, read: float, note: str) -> None:
    print(f"  {name:<28}{took:>9.2f}{took / read:>9.1f} x   {note}", flush=True)


def measured_whole(base: Path, cache: Path) -> dict[str, float]:
    """What `gradience norms measure` takes."""
    command = [sys.executable, "-m", "gradience", "norms", "measure", str(base)]
    done = subprocess.run(
        [sys.executable, "-S", str(HERE / "measured.py"), *command],
        env={**os.environ, "GRADIENCE_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    run: dict[str, float] = json.loads(done.stdout)
    if run["code"]:
        raise SystemExit(done.stderr)
    return run


def write_base(directory: Path, layers: int, *, shrink: int = 1) -> Path:
    """Layers with the shapes of a 7B model, a file each; the drawn weights of one serve all.

    `shrink` divides both sides of every weight.
    """
    directory.mkdir(parents=True)
    weights = {name: trained_like(m // shrink, n // shrink) for name, (m, n) in MODULES.items()}
    index = {}
    for layer in range(layers):
        tensors = {f"model.layers.{layer}.{name}.weight": W for name, W in weights.items()}
        file = f"model-{layer + 1:05}-of-{layers:05}.safetensors"
        save_file(tensors, directory / file)
        index |= dict.fromkeys(tensors, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return directory


def read_files(directory: Path) -> None:
    """Read every weights file once into a reused buffer."""
    buffer = bytearray(1 << 20)
    for path in directory.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def compare(name: str, W: Array, rivals: list[Rival], *, rounds: int, full: bool) -> None:
    """Print the table of one matrix."""
    interval = spectral_norm(W)
    estimates = {rival.name: rival.norm(W) for rival in rivals}
    read, ours, others = medians(W, rivals, rounds)
    print(f"\n{name} {W.shape[0]} x {W.shape[1]} bf16, {W.nbytes / 1e6:.0f} MB")
    print(f"  {'':<22}{'median':>14}{'one read':>11}{'ours':>12}")
    row("one read of the bytes", read, read, ours, "")
    note = f"{interval.passes} passes, width {interval.width:.0e}, {peak_bytes(W) / 1e6:.0f} MB"
    row("gradience, certified", ours, read, ours, note)
    cores = usable_cores()
    if cores > 1:
        took = statistics.median(seconds(partial(on_all_cores, W, cores)) for _ in range(rounds))
        row(f"gradience, {cores} threads", took, read, ours, "")
    for rival in rivals:
        row(rival.name, others[rival.name], read, ours, below(estimates[rival.name], interval))
    if full:
        row("svdvals", seconds(partial(full_svd, W)), read, ours, "measured once")
    else:
        part = W[: W.shape[0] // 8, : W.shape[1] // 8]
        took = statistics.median(seconds(partial(full_svd, part)) for _ in range(3)) * 8**3
        row("svdvals", took, read, ours, f"extrapolated (cubic) from {part.shape}")


def available() -> list[Rival]:
    """The rivals whose library is installed, imported here so that no timing pays for it."""
    found = []
    for rival in (
        Rival(name="ARPACK (svds)", norm=arpack),
        Rival(name="torch.svd_lowrank", norm=svd_lowrank),
    ):
        try:
            rival.norm(gaussian(32, 32))
        except ImportError as missing:
            print(f"{rival.name}: left out, {missing}")
        else:
            found.append(rival)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the certified spectral norm of base weights")
    parser.add_argument("--quick", action="store_true", help="an eighth of the size")
    parser.add_argument("--gaussian", action="store_true", help="add the worst case")
    parser.add_argument("--full", action="store_true", help="run the full SVD: up to a minute each")
    parser.add_argument("--whole", type=int, metavar="N", help="measure N layers of a 7B base")
    parser.add_argument("--at", type=Path, metavar="DIR", help="keep the base of --whole there")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions, of which the median")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.whole:
        whole(options.whole, options.at)
        return
    side, tall = (512, 1792) if options.quick else (4096, 14336)
    with one_thread(os.environ):
        rivals = available()
        one_thread_of_torch()
        for m in (side, tall):
            W = trained_like(m, side)
            compare("trained-like", W, rivals, rounds=options.rounds, full=options.full)
        if options.gaussian:
            W = gaussian(side, side)
            compare("Gaussian", W, rivals, rounds=options.rounds, full=options.full)


if __name__ == "__main__":
    main()
