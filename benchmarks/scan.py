"""How long the inventory takes, beside `du -s`, a bare scandir walk and `hf cache ls`.

    python benchmarks/scan.py                       # 300 repos x 3 revisions x 40 files
    python benchmarks/scan.py --repos 30 --runs 3   # a small one
    python benchmarks/scan.py --cold                # as root: drops the page cache before each run
    python benchmarks/scan.py --repos 30 --latency 1    # on a volume that takes 1 ms to answer

The synthetic cache is that of ../shared/tools/gen_cache.py, made below a temporary directory. Every
figure is a median of runs that take turns, so that a busy machine slows all alike: read the ratios.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from caches import both_layouts
from gradience.storage.inventory.take import take
from slow_mount import slow_mount

DROP = Path("/proc/sys/vm/drop_caches")


def main() -> None:
    arguments = parse()
    for out, layout in both_layouts(arguments.repos, arguments.dir):
        measure(out, layout, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repos", type=int, default=300)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--cold", action="store_true", help="also with an empty page cache")
    parser.add_argument(
        "--latency",
        type=float,
        metavar="MS",
        help="as root: also through a mount that takes so long for each answer",
    )
    parser.add_argument("--dir", help="where to make the cache")
    return parser.parse_args()


def measure(out: Path, layout: str, arguments: argparse.Namespace) -> None:
    hub = out / "hf" / "hub"
    names = bare_walk(str(hub))
    assert inventory(hub, out) == int(subprocess.check_output(["du", "-s", "-B1", hub]).split()[0])
    print(f"\n{layout}: {names} names; bytes on disk equal those of du")
    report("warm", turns(ways(hub, out), arguments.runs, prepare=None))
    if not arguments.cold and arguments.latency is None:
        return
    if os.geteuid() != 0 or not os.access(DROP, os.W_OK):
        print("  cold, latency: need root and /proc/sys/vm/drop_caches")
        return
    if arguments.cold:
        report("cold", turns(ways(hub, out), 3, prepare=drop))
    if arguments.latency is not None:
        with (
            tempfile.TemporaryDirectory() as mount,
            slow_mount(hub, Path(mount), arguments.latency / 1000) as slow,
        ):
            late = turns(ways(slow, out), 3, prepare=drop)
        report(f"{arguments.latency:g} ms for each answer", late)


def ways(hub: Path, out: Path) -> dict[str, Callable[[], object]]:
    """What is compared, by name."""
    environ = {"HF_HUB_CACHE": str(hub)}
    found: dict[str, Callable[[], object]] = {
        "gradience: inventory": lambda: inventory(hub, out),
        "gradience cache ls (command)": lambda: run(gradience(), environ, out),
        "du -s": lambda: run(["du", "-s", str(hub)], environ, out),
        "scandir + lstat (bare walk)": lambda: bare_walk(str(hub)),
    }
    hf = shutil.which("hf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hf:
        found["hf cache ls (command)"] = lambda: run([hf, "cache", "ls"], environ, out)
    return found


def inventory(hub: Path, out: Path) -> int:
    environ = {"HF_HUB_CACHE": str(hub)}
    found = take(environ=environ, home=out / "home", now=datetime.now(UTC), kinds=["hub"])
    return found.physical_bytes


def gradience() -> list[str]:
    return [sys.executable, "-m", "gradience", "cache", "ls", "--kind", "hub", "--json"]


def run(command: list[str], environ: dict[str, str], out: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    kept |= environ | {"HOME": str(out / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        command, env=kept, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )


def bare_walk(root: str) -> int:
    count, stack = 0, [root]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                count += 1
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
    return count


def drop() -> None:
    os.sync()
    DROP.write_text("3\n")


Times = dict[str, tuple[list[float], list[float]]]


def turns(
    ways: dict[str, Callable[[], object]], runs: int, *, prepare: Callable[[], None] | None
) -> Times:
    """Seconds and CPU seconds of each way, one after the other in each of the runs."""
    times: Times = {name: ([], []) for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            if prepare is not None:
                prepare()
            cpu, start = cpu_seconds(), time.perf_counter()
            way()
            times[name][0].append(time.perf_counter() - start)
            times[name][1].append(cpu_seconds() - cpu)
    return times


def cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def report(state: str, times: Times) -> None:
    base = statistics.median(times["du -s"][0])
    base_cpu = statistics.median(times["du -s"][1])
    print(f"  {state:32} median s    min s    CPU s    x du  x du (CPU)")
    for name, (seconds, cpu) in times.items():
        middle, work = statistics.median(seconds), statistics.median(cpu)
        ratios = f"{middle / base:7.2f} {work / base_cpu:11.2f}"
        print(f"  {name:32} {middle:8.3f} {min(seconds):8.3f} {work:8.3f} {ratios}")
    print(json.dumps({state: {n: statistics.median(s) for n, (s, _) in times.items()}}))


if __name__ == "__main__":
    main()
