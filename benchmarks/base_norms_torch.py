"""Norms of a whole base through torch, beside one read of its weights: on a GPU, or without one.

Three parts, each with its device beside its numbers:

1. A synthetic 7B base is drawn on the device, shape by shape, so that neither the disk nor the bus
   is timed: the algorithm against one read of the same bytes from the device's own memory. `upload`
   says what bringing them there takes on top. One matrix of each shape also goes to the CPU, and
   the two intervals must meet.
2. With `--rivals`, torch's svdvals and svd_lowrank on one matrix of each shape, times its number.
3. Layers of a base in files are measured as `gradience norms measure --device` does, there and on
   the CPU, and every pair of intervals must meet.

It exits with 1 where two intervals do not meet, and with `--out DIR` leaves report.json there.

    python benchmarks/base_norms_torch.py --rivals --out gpu      # CUDA: 32 layers, 14 GB; minutes
    python benchmarks/base_norms_torch.py --device cpu --layers 1 --shrink 4 --files 1
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from base_norms import write_base
from gradience.audit.base.devices import Device, DeviceChoice
from gradience.audit.base.known import Settings, recalled_or_measured
from gradience.audit.base.source import open_base
from gradience.audit.base.spectral_norm import Goal, NormInterval, spectral_norm
from gradience.audit.base.torch_device import cuda, full_precision, host
from gradience.audit.base.torch_lanczos import intervals_of_batch
from gradience.audit.norms.matrices import matrices
from gradience.blas import threads
from gradience.system.cpus import usable_cores
from shapes import LAYERS, MODULES

_OUTLIERS = 48
_SHARE_OF_MEMORY = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All matrices of one shape; seconds."""

    shape: tuple[int, int]
    matrices: int
    nbytes: int
    upload: float
    read: float
    norms: float
    passes: int
    left_to_cpu: int
    meets_cpu: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another way to the largest singular values of all matrices; seconds, by one of each shape."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Layers of a base in files, measured on the device and on the CPU; seconds."""

    layers: int
    nbytes: int
    here: float
    cpu: float
    apart: int


@dataclass(slots=True, kw_only=True)
class Report:
    """What one run found."""

    device: str
    torch: str
    cpu_threads: int
    layers: int
    shrink: int
    made_at: str
    rows: list[Row] = field(default_factory=list)
    rivals: list[Rival] = field(default_factory=list)
    files: Files | None = None
    peak_bytes: int = 0

    @property
    def agrees(self) -> bool:
        """Whether every interval that was computed twice meets its double."""
        return all(row.meets_cpu for row in self.rows) and not (self.files and self.files.apart)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A `DeviceChoice` that is made already: torch on the CPU has no name there."""

    chosen: Device

    def device(self, numbers: int) -> Device:
        """The device, whatever the work."""
        return self.chosen


def trained_like(count: int, m: int, n: int, device: str) -> torch.Tensor:
    """A Gaussian bulk under outliers that decay as a power: (count, m, n) bfloat16."""
    W = torch.empty((count, m, n), dtype=torch.bfloat16, device=device)
    sigma = 4 * 0.02 * (m**0.5 + n**0.5) * torch.arange(1, _OUTLIERS + 1, device=device) ** -0.6
    for at in range(count):
        left = torch.randn((m, _OUTLIERS), device=device) / m**0.5
        right = torch.randn((_OUTLIERS, n), device=device) / n**0.5
        W[at] = 0.02 * torch.randn((m, n), device=device) + (left * sigma) @ right
    return W


def on_gpu(device: str) -> bool:
    return device != "cpu"


def seconds(device: str, act: Callable[[], object]) -> float:
    """Seconds of an act, to its end on the device."""
    if on_gpu(device):
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    act()
    if on_gpu(device):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def read_once(W: torch.Tensor) -> None:
    """Touch every byte, and do no more with it."""
    W.view(torch.int16).view(torch.int64).amax()


def meet(one: NormInterval, other: NormInterval) -> bool:
    return max(one.lower, other.lower) <= min(one.upper, other.upper) * (1 + 1e-9)


def batches(count: int, m: int, n: int, device: str) -> Iterator[int]:
    """How many matrices fit on the device at once, until all had their turn."""
    free = torch.cuda.mem_get_info(device)[0] if on_gpu(device) else 1 << 31
    most = max(1, int(free * _SHARE_OF_MEMORY) // (4 * m * n))
    for start in range(0, count, most):
        yield min(most, count - start)


def measure(count: int, m: int, n: int, device: str) -> Row:
    """The norms of all matrices of one shape, and one read of them."""
    nbytes = upload = read = took = 0.0
    found: list[NormInterval | None] = []
    meets = True
    for size in batches(count, m, n, device):
        W = trained_like(size, m, n, device)
        nbytes += W.nbytes
        first = W[0].cpu()
        upload += size * seconds(device, lambda first=first: first.to(device, copy=True))
        read_once(W)  # the first call of a kernel loads it
        read += seconds(device, lambda W=W: read_once(W))
        before = len(found)
        with full_precision():
            intervals_of_batch(W[:1], Goal())
            took += seconds(device, lambda W=W: found.extend(intervals_of_batch(W, Goal())))
        one = found[before]
        if one is not None and before == 0:
            meets = meet(one, spectral_norm(first.float().numpy(), environ=os.environ))
        del W
    done = [interval for interval in found if interval is not None]
    return Row(
        shape=(m, n),
        matrices=count,
        nbytes=int(nbytes),
        upload=upload,
        read=read,
        norms=took,
        passes=max((interval.passes for interval in done), default=0),
        left_to_cpu=len(found) - len(done),
        meets_cpu=meets,
    )


def compare(shapes: Counter[tuple[int, int]], device: str) -> list[Rival]:
    """torch's own ways on one matrix of each shape, times the number of them."""
    ways: dict[str, Callable[[torch.Tensor], object]] = {
        "torch.svd_lowrank": lambda W: torch.svd_lowrank(W.float())[1][0],
        "torch.linalg.svdvals": lambda W: torch.linalg.svdvals(W.float())[0],
    }
    totals = dict.fromkeys(ways, 0.0)
    for (m, n), count in shapes.items():
        W = trained_like(1, m, n, device)[0]
        for name, act in ways.items():
            act(W[:256, :256])  # loads what it needs
            totals[name] += count * seconds(device, lambda W=W, act=act: act(W))
    return [Rival(name=name, seconds=took) for name, took in totals.items()]


def in_files(layers: int, shrink: int, device: str) -> Files:
    """Measure layers of a 7B base in files, on the device and on the CPU."""
    chosen = cuda(device, host().cpu) if on_gpu(device) else host()
    cores = threads(os.environ, usable_cores())
    ways = {"here": Fixed(chosen), "cpu": DeviceChoice(name="cpu", threads=cores)}
    with tempfile.TemporaryDirectory() as place:
        directory = write_base(Path(place) / "base", layers, shrink=shrink)
        took, norms = {}, {}
        for name, devices in ways.items():
            with open_base(directory) as base:
                weights, _ = matrices(base.tensors)
                settings = Settings(Path(place) / name, datetime.now(UTC), devices=devices)  # type: ignore[arg-type]
                start = time.perf_counter()
                known = recalled_or_measured(weights, base, settings)
                took[name], norms[name] = time.perf_counter() - start, known.norms
    pairs = [(norms["here"][key], norms["cpu"][key]) for key in norms["cpu"]]
    apart = sum(max(a.lower, b.lower) > min(a.upper, b.upper) * (1 + 1e-9) for a, b in pairs)
    return Files(
        layers=layers, nbytes=known.nbytes, here=took["here"], cpu=took["cpu"], apart=apart
    )


def show(report: Report) -> None:
    """Print what was found."""
    print(f"{report.layers} of {LAYERS} layers, sides divided by {report.shrink}")
    head = f"{'shape':>16}{'matrices':>10}{'MB':>9}{'upload s':>10}{'read s':>9}{'norms s':>9}"
    print(f"{head}{'x read':>8}{'passes':>8}")
    for row in report.rows:
        note = f"   {row.left_to_cpu} left to the CPU" if row.left_to_cpu else ""
        note += "" if row.meets_cpu else "   DOES NOT MEET THE CPU"
        print(
            f"{f'{row.shape[0]} x {row.shape[1]}':>16}{row.matrices:>10}{row.nbytes / 1e6:>9.0f}"
            f"{row.upload:>10.3f}{row.read:>9.4f}{row.norms:>9.3f}"
            f"{row.norms / row.read:>8.1f}{row.passes:>8}{note}"
        )
    nbytes, upload, read, norms = (
        sum(getattr(row, name) for row in report.rows)
        for name in ("nbytes", "upload", "read", "norms")
    )
    count = sum(row.matrices for row in report.rows)
    print(
        f"{'all':>16}{count:>10}{nbytes / 1e6:>9.0f}{upload:>10.3f}{read:>9.4f}{norms:>9.3f}"
        f"{norms / read:>8.1f}"
    )
    print(
        f"the norms of {nbytes / 1e9:.2f} GB take {norms:.3f} s on {report.device}: "
        f"{norms / read:.1f} times one read from its own memory, {norms / upload:.1f} times the "
        "upload"
    )
    if report.peak_bytes:
        print(f"peak memory on the device {report.peak_bytes / 1e9:.1f} GB")
    for rival in report.rivals:
        print(
            f"{rival.name}: {rival.seconds:.1f} s, {rival.seconds / norms:.1f} times as long, no "
            "bound; one matrix of each shape, times their number"
        )
    if report.files:
        files = report.files
        print(
            f"{files.layers} layers in files, {files.nbytes / 1e9:.2f} GB: {files.here:.2f} s on "
            f"the device, {files.cpu:.2f} s on the CPU; {files.apart} intervals do not meet"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the norms of a synthetic 7B base in torch")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--shrink", type=int, default=1, help="divide both sides of every weight")
    parser.add_argument("--rivals", action="store_true", help="time torch's own ways too")
    parser.add_argument(
        "--files", type=int, default=2, metavar="N", help="layers in files; 0: none"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.json there")
    options = parser.parse_args()
    report = Report(
        device=torch.cuda.get_device_name(options.device) if on_gpu(options.device) else "CPU",
        torch=torch.__version__,
        cpu_threads=torch.get_num_threads(),
        layers=options.layers,
        shrink=options.shrink,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    print(f"{report.device}, torch {report.torch}, {report.cpu_threads} CPU threads", flush=True)
    shapes: Counter[tuple[int, int]] = Counter()
    for m, n in MODULES.values():
        shapes[m // options.shrink, n // options.shrink] += options.layers
    report.rows = [measure(count, m, n, options.device) for (m, n), count in shapes.items()]
    report.rivals = compare(shapes, options.device) if options.rivals else []
    if options.files:
        report.files = in_files(options.files, options.shrink, options.device)
    if on_gpu(options.device):
        report.peak_bytes = torch.cuda.max_memory_allocated(options.device)
    show(report)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    raise SystemExit(0 if report.agrees else 1)


if __name__ == "__main__":
    main()
