"""Races: real libraries use caches in other processes while Gradience changes them.

In each round huggingface_hub downloads a revision that shares files with an older one, `datasets`
builds Arrow files, safetensors reads mapped weights; meanwhile the older revision and an old build
are cleaned away or put into the trash and brought back, copies are deduplicated, two hubs become
one, or all of it is moved. Some rounds kill the change at a step. Then huggingface_hub loads
everything that stayed.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

import factories_moves as moves
from factories_caches import HubMaker, commit_of
from factories_changes import DyingJournal, carry_out, dedupe_plan
from gradience import system
from gradience.errors import StorageError
from gradience.storage.change import trash
from gradience.storage.change.choose import Rule
from gradience.storage.change.clean import plan_clean
from gradience.storage.change.move.resume import abandon, resume
from gradience.storage.change.protect import Facts
from gradience.storage.change.records import Plan
from gradience.storage.change.recover import recover
from gradience.storage.change.remote import unasked
from gradience.storage.inventory.take import survey
from hub_server import Hub, Repo

WORKERS = Path(__file__).parent / "race_workers.py"
OLD, NEW, KEPT = commit_of("a"), commit_of("b"), commit_of("c")
DAY = 86400.0
ROWS = list(range(40))


def tensor(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, 60_000, np.uint8)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


FILES = {
    "w.safetensors": save({"w": tensor(0)}),
    "config.json": b"{}",
    "sub/v.bin": b"v" * 20_000,
}
OLD_FILES = {**FILES, "old.bin": b"o" * 50_000, "old.safetensors": save({"w": tensor(1)})}
KEPT_FILES = {
    "w.safetensors": save({"w": tensor(2)}),
    "train.jsonl": b"".join(b'{"x": %d}\n' % x for x in ROWS),
}
EXPECTED = re.compile("another process changes|lies in .* now: File exists")
"""Why an act fails beside others: a second cleaner, or what was downloaded again meanwhile."""
STATES = ("done", "skipped", "undone", "failed")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A round.

    Attributes
    ----------
    broken : str
        What must never be; "" if nothing was.
    came_of_it : str
        Of the change: done, skipped, undone, refused, killed.
    """

    broken: str
    came_of_it: str


class Worker:
    """A process of `race_workers.py`."""

    def __init__(self, role: str, environ: dict[str, str]) -> None:
        self.role = role
        self.process = subprocess.Popen(
            [sys.executable, str(WORKERS), role],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **request: Any) -> None:
        """Begin a piece of work."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for its end; an `error` says what a user would have seen."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found: dict[str, Any] = (
            json.loads(line) if line else {"error": f"it died: {self.process.wait()}"}
        )
        if "error" in found:
            found["error"] = f"{self.role}: {found['error']}"
        return found

    def does(self, **request: Any) -> dict[str, Any]:
        """Do a piece of work."""
        self.ask(**request)
        return self.answer()


@dataclass(frozen=True, kw_only=True)
class Racers:
    """Everybody who takes part."""

    client: Worker
    loader: Worker
    reader: Worker
    changers: tuple[Worker, Worker]


def repo() -> Repo:
    """What the server has of `org/m`: the newer revision."""
    return Repo(FILES, commit=NEW)


@contextmanager
def racers(hub: Hub, home: Path) -> Iterator[Racers]:
    """The processes, which a race needs all of."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    own |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    with ExitStack() as running:
        made = []
        for role in ("client", "loader", "reader", "changer", "changer"):
            worker = Worker(role, kept | own)
            running.enter_context(worker.process)
            running.callback(worker.process.kill)
            made.append(worker)
        for worker in made:
            assert worker.answer() == {}
        client, loader, reader, one, other = made
        yield Racers(client=client, loader=loader, reader=reader, changers=(one, other))


@dataclass(frozen=True, kw_only=True)
class Caches:
    """The caches of one round: a home with a hub and a datasets cache, and a second hub."""

    place: Path
    other: Path

    @property
    def home(self) -> Path:
        return self.place / "hf"

    @property
    def hub(self) -> Path:
        return self.home / "hub"

    @property
    def datasets(self) -> Path:
        return self.home / "datasets"

    @property
    def second(self) -> Path:
        return self.place / "second"

    @property
    def far(self) -> Path:
        return self.other / "far"

    @property
    def roots(self) -> tuple[Path, ...]:
        return self.hub, self.datasets, self.second

    def make(self, *, shared: bool) -> None:
        """Two revisions, one of them old and unused; an old build; and a second hub like it."""
        self.home.mkdir(parents=True)
        for where in (self.hub, self.second):
            hub = HubMaker(where, shared=shared)
            hub.add("org/m", "a", OLD_FILES, ref="v1")
            hub.add("org/kept", "c", KEPT_FILES)
        build = self.datasets / "org___old" / "default" / "0.0.0" / "0123456789abcdef"
        build.mkdir(parents=True)
        (build / "old-train.arrow").write_bytes(b"x" * 30_000)
        (build / "dataset_info.json").write_text("{}")
        then = time.time() - 60 * DAY
        for path in self.place.rglob("*"):
            os.utime(path, (then, then), follow_symlinks=False)

    def snapshot(self, hub: Path, name: str, commit: str) -> Path:
        return hub / f"models--org--{name}" / "snapshots" / commit

    def trouble(self, *, both_kept: bool) -> str:
        """What no change may leave: links to nothing, and things of its own.

        But a move leaves the old and the new place where somebody wrote to both.
        """
        dangling = [p for hub in (self.hub, self.second) for p in links_to_nothing(hub)]
        if dangling:
            return f"links to nothing: {dangling}"
        own = [p for root in (self.place, self.other) for p in root.rglob(".*gradience*")]
        return f"left behind: {own}" if own and not both_kept else ""


def links_to_nothing(hub: Path) -> Iterator[Path]:
    for path in hub.glob("models--*/**/*"):
        if path.is_symlink() and not path.exists():
            yield path


# The changes, in a process of their own.


def change(what: str, place: str, other: str, die_at: int | None = None) -> dict[str, Any]:
    """Make a change, and say what came of it."""
    caches = Caches(place=Path(place), other=Path(other))
    try:
        return {"state": CHANGES[what](caches, die_at)}
    except StorageError as error:
        both = "both are kept" in str(error)
        return {"state": "both kept" if both else "refused", "why": str(error)}


def clean_all(caches: Caches, *, verb: str = "delete") -> Plan:
    """The old revision and the old build go."""
    places = {"HF_HUB_CACHE": str(caches.hub), "HF_DATASETS_CACHE": str(caches.datasets)}
    found = survey(
        environ=places, home=caches.place, now=datetime.now(UTC), kinds=["hub", "datasets"]
    )
    rules = [
        Rule(revisions=[OLD]),
        Rule(kinds=["datasets"], idle=timedelta(days=30)),
    ]
    facts = Facts(holders=system.holders(), needed={}, min_age=900.0)
    name = f"test-{os.getpid()}"
    return plan_clean(found, rules, facts, change=name, free={}, ask=unasked, verb=verb)


def applied(plan: Plan, die_at: int | None) -> str:
    if not plan.actions:
        return "nothing"
    journal: dict[str, Any] = {}
    if die_at is not None:
        journal["new_journal"] = lambda: DyingJournal(die_at)
    receipt = carry_out(plan, holders=system.holders, **journal)
    for outcome in receipt.outcomes:
        if outcome.state == "failed" and not any(map(EXPECTED.search, outcome.reasons)):
            raise AssertionError(outcome.reasons)
    found = {outcome.state for outcome in receipt.outcomes}
    return next(state for state in reversed(STATES) if state in found)


def _clean(caches: Caches, die_at: int | None) -> str:
    return applied(clean_all(caches), die_at)


def _trash(caches: Caches, die_at: int | None) -> str:
    state = applied(clean_all(caches, verb="trash"), die_at)
    _bring_back(caches)
    return state


def _bring_back(caches: Caches) -> None:
    """Undo; what was downloaded again meanwhile is not overwritten, and the old of it goes."""
    for thing in trash.find(map(str, caches.roots)):
        stayed = trash.bring_back(thing).stayed
        if other := [why for why in stayed if not why.endswith("something has that name by now")]:
            raise AssertionError(other)
        if stayed:
            trash.empty(trash.find([thing.root])[0])


def _dedupe(caches: Caches, die_at: int | None) -> str:
    return applied(dedupe_plan(caches.hub, caches.second, holders=system.holders()), die_at)


def _move(caches: Caches, die_at: int | None) -> str:
    new = caches.other / caches.place.name
    return _carried(moves.planned(caches.home, new, holders=system.holders()), die_at)


def _merge(caches: Caches, die_at: int | None) -> str:
    """The second hub comes into the one that is downloaded into."""
    return _join(caches.second, caches.hub, die_at)


def _merge_far(caches: Caches, die_at: int | None) -> str:
    """The hub that is downloaded into comes into one on another disk."""
    far = HubMaker(caches.far, shared=(caches.hub / "blobs").is_dir())
    far.add("org/kept", "c", KEPT_FILES)
    return _join(caches.hub, caches.far, die_at)


def _join(old: Path, new: Path, die_at: int | None) -> str:
    return _carried(moves.planned(old, new, holders=system.holders(), merges=True), die_at)


def _carried(plan: Plan, die_at: int | None) -> str:
    reached = {} if die_at is None else {"reached": moves.dying(die_at)}
    (outcome,) = moves.carry_out(plan, holders=system.holders, **reached).outcomes
    return outcome.state


def _settle(caches: Caches, die_at: int | None) -> str:
    """What the next command does first; then trash comes back, and unfinished copies go."""
    ends = [
        (caches.home, caches.other / caches.place.name),
        (caches.second, caches.hub),
        (caches.hub, caches.far),
    ]
    for old, new in ends:
        resume(str(old), str(new), system.holders)
    for root in (caches.home, *caches.roots):
        recover(str(root), system.holders)
    _bring_back(caches)
    for old, new in ends:
        if new.with_name(f".{new.name}.gradience-move").exists():
            abandon(str(old), str(new))
    return "settled"


CHANGES: dict[str, Callable[[Caches, int | None], str]] = {
    "clean": _clean,
    "dedupe": _dedupe,
    "merge": _merge,
    "merge_far": _merge_far,
    "move": _move,
    "settle": _settle,
    "trash": _trash,
}
KINDS = ("clean", "trash", "dedupe", "move", "merge", "merge_far", "two")
"""Of rounds: one change, or two of the first three at once."""


def round_of(racers: Racers, kind: str, place: Path, other: Path, chance: random.Random) -> Ended:
    """One round of a race."""
    caches = Caches(place=place, other=other)
    caches.make(shared=chance.random() < 0.5)
    whats = chance.choices(("clean", "trash", "dedupe"), k=2) if kind == "two" else [kind]
    die_at = chance.randrange(40) if chance.random() < 0.25 else None
    _start_users(racers, caches, chance)
    changers = racers.changers[: len(whats)]
    for changer, what in zip(changers, whats, strict=True):
        after = chance.uniform(0.0, 0.06)
        changer.ask(what=what, place=str(place), other=str(other), after=after, die_at=die_at)
        die_at = None  # one of two, at most
    came = [changer.answer() for changer in changers]
    used = {w.role: w.answer() for w in (racers.client, racers.loader, racers.reader)}
    half_way = any(one.get("state") == "killed" for one in came)
    # What was downloaded through the link of a merge that was then taken back is in the other.
    half_way |= kind.startswith("merge") and any(one.get("state") == "undone" for one in came)
    settled = racers.changers[0].does(what="settle", place=str(place), other=str(other))
    if half_way:  # a user may see anything then
        used = {"client": racers.client.does(hub=str(caches.hub), load=[], download="org/m")}
    state = "+".join(sorted(one.get("state", "?") for one in came))
    both_kept = settled.get("state") == "both kept"
    why = _broken([*came, settled, *used.values()])
    why = why or _checked(racers, caches, both_kept=both_kept)
    if kind == "trash" and not caches.snapshot(caches.hub, "m", OLD).is_dir():
        why = why or "it did not come back from the trash"
    return Ended(broken=why and f"{'+'.join(whats)} {state}: {why}", came_of_it=state)


def _start_users(racers: Racers, caches: Caches, chance: random.Random) -> None:
    def after() -> float:
        return chance.uniform(0.0, 0.25)

    kept = caches.snapshot(caches.hub, "kept", KEPT)
    also_kept = caches.snapshot(chance.choice((caches.hub, caches.second)), "kept", KEPT)
    may_go = caches.snapshot(caches.hub, "m", OLD)
    racers.client.ask(hub=str(caches.hub), load=[("org/m", NEW)], download="org/m", after=after())
    racers.loader.ask(data=str(kept / "train.jsonl"), cache=str(caches.datasets), after=after())
    racers.reader.ask(
        kept=(str(also_kept / "w.safetensors"), digest(tensor(2).tobytes())),
        may_go=(str(may_go / "old.safetensors"), digest(tensor(1).tobytes())),
        seconds=chance.uniform(0.0, 0.2),
        hold=chance.random() < 0.4,
        after=after(),
    )


def _broken(answers: Sequence[dict[str, Any]]) -> str:
    """What somebody saw that must never be."""
    return next((str(answer["error"]) for answer in answers if "error" in answer), "")


def _checked(racers: Racers, caches: Caches, *, both_kept: bool) -> str:
    """Why not everything is there that has to be."""
    if why := caches.trouble(both_kept=both_kept):
        return why
    expected = {}
    for hub in (caches.hub, caches.second):
        stays = [("m", NEW, FILES), ("m", OLD, OLD_FILES), ("kept", KEPT, KEPT_FILES)]
        whole = {
            f"org/{name}@{commit}": {n: digest(d) for n, d in files.items()}
            for name, commit, files in stays
            if commit == KEPT or caches.snapshot(hub, name, commit).exists()
        }
        load = [key.split("@") for key in whole]
        answer = racers.client.does(hub=str(hub), load=load)
        if answer.get("loaded") != whole:
            return str(answer.get("error") or f"other bytes in {hub}")
        expected[hub] = whole
    if f"org/m@{NEW}" not in expected[caches.hub]:
        return "what was downloaded is not there"
    return ""
