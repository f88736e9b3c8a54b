"""Thousands of rounds of what must never break: real libraries at work while caches are changed.

    python benchmarks/clean_stress.py                         # 2000 rounds of each kind
    python benchmarks/clean_stress.py --rounds 100 --kind move
    python benchmarks/clean_stress.py --dir /mnt/btrfs        # caches there, where reflinks are

A round is one of `factories_races`: huggingface_hub, datasets and safetensors in processes of their
own, and a clean, a trash and its undo, a dedupe, a move, or two of them at once, a quarter of them
killed at a step. Lanes do rounds side by side. Says what broke, and exits 1.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from factories_races import KINDS, racers, repo, round_of
from hub_server import serve

FAR = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2000, help="of each kind")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=3)
    parser.add_argument("--dir", help="where the caches lie")
    parser.add_argument("--minutes", type=float, default=60, help="begin no round after that")
    parser.add_argument("--lane", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kinds = arguments.kind or list(KINDS)
    if arguments.lane is not None:
        lane(arguments, kinds)
        return
    start = time.monotonic()
    ended, broken = together(arguments, kinds)
    for kind in kinds:
        came = ", ".join(f"{n} {state}" for state, n in ended[kind].most_common())
        print(f"{kind:7} {ended[kind].total():6} rounds: {came}")
    print(f"{time.monotonic() - start:.0f} s, {broken} broken")
    sys.exit(bool(broken))


def together(
    arguments: argparse.Namespace, kinds: list[str]
) -> tuple[dict[str, Counter[str]], int]:
    """Run the lanes; what the rounds of each kind came to, and how many broke something."""
    lanes = [
        subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], "--lane", str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(arguments.lanes)
    ]
    ended: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    broken = 0
    for process in lanes:
        said, _ = process.communicate()
        found = json.loads(said)
        for kind, came in found["ended"].items():
            ended[kind] += Counter(came)
        broken += found["broken"]
    return ended, broken


def lane(arguments: argparse.Namespace, kinds: list[str]) -> None:
    """Its share of the rounds of each kind, in turns; every other lane has the disks swapped."""
    ended: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    broken = 0
    until = time.monotonic() + 60 * arguments.minutes
    disks = [arguments.dir, FAR]
    here, there = reversed(disks) if arguments.lane % 2 else disks
    with (
        tempfile.TemporaryDirectory(dir=here) as near,
        tempfile.TemporaryDirectory(dir=there) as far,
        serve(org__m=repo()) as hub,
        racers(hub, Path(near, "home")) as everybody,
    ):
        for number in range(arguments.lane, arguments.rounds, arguments.lanes):
            if time.monotonic() > until:
                break
            chance = random.Random(f"{arguments.seed} {number}")
            for kind in kinds:
                place, elsewhere = Path(near, "caches"), Path(chance.choice((near, far)), "moved")
                elsewhere.mkdir()
                end = round_of(everybody, kind, place, elsewhere, chance)
                ended[kind][end.came_of_it] += 1
                if end.broken:
                    broken += 1
                    print(f"round {number}, {kind}: {end.broken}", file=sys.stderr, flush=True)
                shutil.rmtree(place)
                shutil.rmtree(elsewhere)
            if number % 100 < arguments.lanes:
                print(f"round {number}, {broken} broken", file=sys.stderr, flush=True)
    print(json.dumps({"ended": ended, "broken": broken}))


if __name__ == "__main__":
    main()
