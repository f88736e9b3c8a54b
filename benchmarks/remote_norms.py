"""Norms of a base that is not here, beside the same file here, and beside downloading it first.

A Hub on the loop-back interface, in a process of its own, serves a model; whole processes of
`gradience audit` take turns, each with a fresh cache of norms, and medians are printed. `--rate`
holds the server to a network's rate. Written bytes are the kernel's count for the process
(write_bytes of /proc/<pid>/io, where there is one), the norms included.

    python benchmarks/remote_norms.py [--blocks 8] [--side 4096] [--rate 125] [--rounds 3]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from base_norms import trained_like

HERE = Path(__file__).resolve().parent
NAME = "model.layers.{}.self_attn.q_proj"

SERVER = """
import sys
from pathlib import Path
from hub_server import Behaviour, Repo, serve
rate = float(sys.argv[2]) * 1e6 or None
with serve(cdn=True, org__m=Repo({"model.safetensors": Path(sys.argv[1]).read_bytes()})) as hub:
    hub.misbehave = lambda asked: Behaviour(rate=rate)
    print(hub.url, flush=True)
    sys.stdin.read()
"""
DOWNLOAD = "import huggingface_hub as h; print(h.hf_hub_download('org/m', 'model.safetensors'))"
# Runs the command here, so that what this process wrote is what the command wrote.
COUNTED = """
import sys, resource, time
from pathlib import Path
start = time.perf_counter()
code = 0
try:
    if sys.argv[1] == "download":
        {download}
    else:
        from gradience.cli.main import main
        main(sys.argv[1:])
except SystemExit as done:
    code = done.code
def kept(name, key):
    path = Path("/proc/self") / name
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), -1)
usage = resource.getrusage(resource.RUSAGE_SELF)
# VmHWM and not ru_maxrss, which begins with the peak of the process that started this one.
print(code, time.perf_counter() - start, usage.ru_utime + usage.ru_stime,
      1024 * kept("status", "VmHWM"), kept("io", "write_bytes"), file=sys.stderr)
""".replace("{download}", DOWNLOAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one way took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    written_bytes: int


def write_model(directory: Path, *, blocks: int, side: int) -> tuple[Path, Path]:
    """A base of one file, and an adapter on every matrix of it."""
    W = trained_like(side, side)
    tensors = {f"{NAME.format(at)}.weight": np.roll(W, at, axis=0) for at in range(blocks)}
    model = directory / "model"
    model.mkdir()
    save_file(tensors, model / "model.safetensors")
    adapter = directory / "adapter"
    adapter.mkdir()
    rng = np.random.default_rng(0)
    factors = {}
    for at in range(blocks):
        for part, shape in (("A", (8, side)), ("B", (side, 8))):
            name = f"base_model.model.{NAME.format(at)}.lora_{part}.weight"
            factors[name] = rng.standard_normal(shape, dtype=np.float32) * 0.01
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return model, adapter


@contextmanager
def hub(file: Path, rate: float) -> Iterator[str]:
    """A Hub in a process of its own; gives its address."""
    path = str(HERE.parent / "tests")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(file), str(rate)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


def counted(arguments: list[str], environ: Mapping[str, str]) -> Run:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    code, seconds, cpu, peak, written = done.stderr.splitlines()[-1].split()
    if code not in ("0", "1"):
        raise SystemExit(f"{arguments}\n{done.stderr}")
    return Run(
        seconds=float(seconds),
        cpu_seconds=float(cpu),
        peak_bytes=int(peak),
        written_bytes=int(written),
    )


def audit(base: str, adapter: Path, environ: Mapping[str, str], scratch: Path) -> Run:
    """One audit with nothing remembered."""
    shutil.rmtree(scratch, ignore_errors=True)
    environ = {**environ, "HF_HOME": str(scratch / "hf"), "GRADIENCE_CACHE_DIR": str(scratch / "g")}
    return counted(["audit", str(adapter), "--base-model", base, "--no-cache"], environ)


def downloaded(adapter: Path, environ: Mapping[str, str], scratch: Path) -> Run:
    """Download, then audit what is in the cache."""
    shutil.rmtree(scratch, ignore_errors=True)
    environ = {**environ, "HF_HOME": str(scratch / "hf"), "GRADIENCE_CACHE_DIR": str(scratch / "g")}
    first = counted(["download"], environ)
    second = counted(["audit", str(adapter), "--base-model", "org/m", "--no-cache"], environ)
    return Run(
        seconds=first.seconds + second.seconds,
        cpu_seconds=first.cpu_seconds + second.cpu_seconds,
        peak_bytes=max(first.peak_bytes, second.peak_bytes),
        written_bytes=first.written_bytes + second.written_bytes,
    )


def show(ways: Mapping[str, list[Run]]) -> None:
    median = statistics.median
    base = median(run.seconds for run in ways["here"])
    print(f"  {'':<24}{'seconds':>9}{'x here':>8}{'CPU s':>8}{'peak':>10}{'written':>11}")
    for name, runs in ways.items():
        seconds = median(run.seconds for run in runs)
        peak = max(run.peak_bytes for run in runs) / 1e6
        written = max(run.written_bytes for run in runs) / 1e6
        cpu = median(run.cpu_seconds for run in runs)
        print(
            f"  {name:<24}{seconds:>9.2f}{seconds / base:>8.2f}{cpu:>8.2f}{peak:>7.0f} MB"
            f"{written:>8.1f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time norms of a base that is not here")
    parser.add_argument("--blocks", type=int, default=8, help="matrices in the model")
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of each")
    parser.add_argument("--rate", type=float, default=0, help="MB/s of the server; 0: as it can")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        directory, scratch = Path(root), Path(root) / "scratch"
        model, adapter = write_model(directory, blocks=options.blocks, side=options.side)
        size = (model / "model.safetensors").stat().st_size
        rate = f"{options.rate:g} MB/s" if options.rate else "as fast as it can"
        print(f"{options.blocks} x {options.side}^2 bf16, {size / 1e6:.0f} MB; server {rate}")
        with hub(model / "model.safetensors", options.rate) as url:
            environ = {
                **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
                "HF_ENDPOINT": url,
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "NO_PROXY": "127.0.0.1,localhost",
            }
            ways: dict[str, Callable[[], Run]] = {
                "here": lambda: audit(str(model), adapter, environ, scratch),
                "by range": lambda: audit("org/m", adapter, environ, scratch),
                "downloaded, then audited": lambda: downloaded(adapter, environ, scratch),
            }
            runs: dict[str, list[Run]] = {name: [] for name in ways}
            for _ in range(options.rounds):
                for name, act in ways.items():
                    runs[name].append(act())
        show(runs)


if __name__ == "__main__":
    main()
