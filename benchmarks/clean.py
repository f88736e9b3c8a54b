"""Planning and cleaning a large hub cache, beside `hf cache prune --dry-run`, which only plans.

    python benchmarks/clean.py                     # 300 repos x 3 revisions x 40 files
    python benchmarks/clean.py --repos 30 --runs 2

The synthetic cache is that of ../shared/tools/gen_cache.py, below a temporary directory. Planning
is timed in runs that take turns with `hf`, as whole processes; cleaning everything is done once for
each layout, since nothing is left after it.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from caches import both_layouts

PLAN = ["clean", "--kind", "hub", "--idle", "0s", "--min-age", "0s", "--force", "--offline"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repos", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dir", help="where to make the cache")
    arguments = parser.parse_args()
    for out, layout in both_layouts(arguments.repos, arguments.dir):
        measure(out, layout, arguments.runs)


def measure(out: Path, layout: str, runs: int) -> None:
    hub = out / "hf" / "hub"
    names = sum(len(dirs) + len(files) for _, dirs, files in os.walk(hub))
    print(f"\n{layout}: {names} names")
    ways = {
        "gradience: what nothing uses": gradience("clean", "--kind", "hub", "--dry-run"),
        "gradience: everything": gradience(*PLAN, "--dry-run"),
    }
    hf = shutil.which("hf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hf:
        ways["hf cache prune --dry-run"] = [hf, "cache", "prune", "--dry-run"]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    memory: dict[str, float] = {}
    for _ in range(runs):
        for way, command in ways.items():
            took, peak = run(command, out)
            seconds[way].append(took)
            memory[way] = peak
    print(f"  {'plan':30} median s    min s    peak MB")
    for way, took in seconds.items():
        print(f"  {way:30} {statistics.median(took):8.3f} {min(took):8.3f} {memory[way]:10.0f}")
    took, peak = run(gradience(*PLAN, "--yes"), out)
    left = sum(len(dirs) + len(files) for _, dirs, files in os.walk(hub))
    print(f"  {'clean everything':30} {took:8.3f} {'':8} {peak:10.0f}   {left} names left")


def gradience(*words: str) -> list[str]:
    return [sys.executable, "-m", "gradience", "cache", *words]


def run(command: list[str], out: Path) -> tuple[float, float]:
    """Seconds, and the peak memory in MB, of a process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    kept |= {"HF_HOME": str(out / "hf"), "HOME": str(out / "home"), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=kept, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, used = os.wait4(process.pid, 0)
    scale = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, peak_bytes(used, scale) / 1e6


def peak_bytes(used: resource.struct_rusage, scale: int) -> int:
    return used.ru_maxrss * scale


if __name__ == "__main__":
    main()
