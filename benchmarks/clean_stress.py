"""Thousands of rounds of what must never break: the real client downloads while a clean removes.

    python benchmarks/clean_stress.py                 # 2000 rounds, about half an hour
    python benchmarks/clean_stress.py --rounds 100

In each round the real huggingface_hub client fetches a revision, in a process of its own, from a
loop-back server, while an older revision of the repository that shares files with it is cleaned
away; then the client reads every file back without a network. In every third round the cleaner is
killed at a step of its own, and the next change settles what it left. Says what broke, and exits 1.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from factories_caches import HubMaker, commit_of
from factories_changes import clean_plan, dies, nobody
from factories_races import FILES, client, repo, round_of
from gradience.storage.change.recover import recover
from hub_server import serve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    broken: list[str] = []
    kinds: Counter[str] = Counter()
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        serve(org__m=repo()) as hub,
        client(hub, Path(name, "home")) as process,
    ):
        for number in range(arguments.rounds):
            place = Path(name, str(number))
            kind = "killed" if number % 3 == 2 else "raced"
            kinds[kind] += 1
            what = killed(place, chance) if kind == "killed" else round_of(process, place, chance)
            if what:
                broken.append(f"round {number} ({kind}): {what}")
                print(broken[-1], flush=True)
            shutil.rmtree(place)
            if number % 50 == 49:
                print(f"{number + 1} rounds, {len(broken)} broken", flush=True)
    seconds = time.monotonic() - start
    print(f"{dict(kinds)} rounds in {seconds:.0f} s, {len(broken)} broken")
    sys.exit(bool(broken))


def killed(place: Path, chance: random.Random) -> str:
    """Kill a clean at some step; after the next change everything kept must be whole."""
    hub = HubMaker(place, shared=chance.random() < 0.5)
    stays = hub.add("org/m", "b", FILES)
    hub.add("org/m", "a", {**FILES, "old.bin": b"o" * 5000}, ref="v1")
    dies(clean_plan(hub.hub, revisions=[commit_of("a")]), chance.randrange(70))
    recover(str(hub.hub), nobody)
    dangling = [p for p in place.glob("models--*/*/**/*") if not p.exists()]
    if dangling:
        return f"dangling: {dangling}"
    wrong = [name for name, data in FILES.items() if (stays / name).read_bytes() != data]
    whole = (hub.repo("org/m") / "refs" / "v1").exists() == stays.with_name(commit_of("a")).exists()
    return f"lost: {wrong}" if wrong else "" if whole else "a ref without its snapshot"


if __name__ == "__main__":
    main()
