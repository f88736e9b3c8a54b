"""Planning and cleaning a large hub cache, beside `hf cache prune --dry-run`, which only plans.

    python benchmarks/clean.py                     # 300 repos x 3 revisions x 40 files
    python benchmarks/clean.py --repos 30 --runs 2
    python benchmarks/clean.py --quiet 'taskset -c 0'   # before the command of each run

The synthetic cache is that of ../shared/tools/gen_cache.py, below a temporary directory. Planning
is timed in runs that take turns with `hf`, as whole processes; cleaning everything is done once for
each layout, since nothing is left after it.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from caches import both_layouts

PLAN = ["clean", "--kind", "hub", "--idle", "0s", "--min-age", "0s", "--force", "--offline"]
MEASURED = [sys.executable, "-S", str(Path(__file__).with_name("measured.py"))]
Taken = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repos", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dir", help="where to make the cache")
    parser.add_argument("--quiet", type=shlex.split, default=[], help="put before each command")
    arguments = parser.parse_args()
    for out, layout in both_layouts(arguments.repos, arguments.dir):
        measure(out, layout, arguments.runs, arguments.quiet)


def measure(out: Path, layout: str, runs: int, quiet: Sequence[str]) -> None:
    hub = out / "hf" / "hub"
    print(f"\n{layout}: {names_below(hub)} names")
    ways = {
        "gradience: what nothing uses": gradience("clean", "--kind", "hub", "--dry-run"),
        "gradience: everything": gradience(*PLAN, "--dry-run"),
    }
    hf = shutil.which("hf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hf:
        ways["hf cache prune --dry-run"] = [hf, "cache", "prune", "--dry-run"]
    taken: dict[str, list[Taken]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, command in ways.items():
            taken[way].append(run([*quiet, *MEASURED, *command], out))
    print(f"  {'plan':30} median s    min s    CPU s  peak MB")
    for way, found in taken.items():
        row(way, found)
    row("gradience: clean everything", [run([*quiet, *MEASURED, *gradience(*PLAN, "--yes")], out)])
    print(f"  {names_below(hub)} names left")


def names_below(hub: Path) -> int:
    return sum(len(dirs) + len(files) for _, dirs, files in os.walk(hub))


def gradience(*words: str) -> list[str]:
    return [sys.executable, "-m", "gradience", "cache", *words]


def run(command: Sequence[str], out: Path) -> Taken:
    """What a process took, as `measured.py` says."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    kept |= {"HF_HOME": str(out / "hf"), "HOME": str(out / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    taken: Taken = json.loads(done.stdout)
    if taken["code"] not in (0, 1):  # 1: something of the plan stayed
        sys.exit(f"{shlex.join(command)} ended with {taken['code']}")
    return taken


def row(way: str, found: Sequence[Taken]) -> None:
    seconds = [one["seconds"] for one in found]
    cpu = statistics.median(one["cpu_seconds"] for one in found)
    peak = max(one["peak_bytes"] for one in found) / 1e6
    print(
        f"  {way:30} {statistics.median(seconds):8.3f} {min(seconds):8.3f} {cpu:8.3f} {peak:8.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
