"""What a cleaning could remove, one by one, as facts for the rules that choose. Pure.

In a hub cache that is a revision; elsewhere a dataset, a checkpoint, a directory of compiled code.
What nothing uses (parts of downloads, blobs without a link, refs to nothing) is one candidate per
place, apart from the rest: it is never missed, so it needs no rule to be chosen.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from gradience.storage.change.hub_pieces import Hub
from gradience.storage.inventory.caches.kind import Look
from gradience.storage.inventory.records import Cache, Damage, Entry
from gradience.storage.inventory.selection import listed, settled
from gradience.storage.inventory.take import Survey

JUNK = frozenset(
    {
        "orphan_blob",
        "incomplete",
        "temporary",
        "stale_ref",
        "unreadable_ref",
        "broken_link",
        "broken_store_link",
        "empty_snapshot",
        "no_snapshots",
        "orphan_store_blob",
    }
)
"""Damage that nothing uses, and nobody misses."""
PARTS = ("map_results", "optimizer_state")
"""Some of the files of a directory that is itself a candidate, or belongs to one."""
FOREIGN = "other"
"""What lies in a cache and is none of it: named where it would be asked for, never taken."""
_SOME_FILES = ("downloads", "local_dir")
"""Things whose path is a directory in which other things lie too."""
_NOT_CHOSEN = ("bookkeeping", "trash", "store", "link", "directory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One thing that could go.

    Attributes
    ----------
    cache : int
        Index of its cache in the survey.
    entry : Entry
        Of the inventory: for junk, the entry it was found in.
    repo : str
        For a revision, and for junk of a repository: the path of the repository.
    junk : tuple of Damage
        What nothing uses; empty for a sound thing.
    name : str
        What to call it.
    run : str
        What `keep_last` counts in: a repository, a training run.
    """

    cache: int
    entry: Entry
    name: str
    repo: str = ""
    junk: tuple[Damage, ...] = ()
    run: str = ""

    @property
    def key(self) -> tuple[int, str, str, bool]:
        """Tells it from every other candidate of the survey."""
        return self.cache, self.entry.path, self.name, bool(self.junk)

    @property
    def is_whole(self) -> bool:
        """Whether all that lies at its path goes with it."""
        return not self.junk and self.entry.what not in (*PARTS, *_SOME_FILES)

    @property
    def what(self) -> str:
        """What it is, in a word."""
        return "junk" if self.junk else self.entry.what

    @property
    def kind(self) -> str:
        """Its kind of cache."""
        return self.entry.kind

    @property
    def frees_bytes(self) -> int:
        """What it would free alone."""
        return sum(d.physical_bytes for d in self.junk) if self.junk else self.entry.frees_bytes


def candidates(survey: Survey, min_age: float) -> list[Candidate]:
    """Everything that could be removed; of junk, what is older than `min_age` seconds."""
    found: list[Candidate] = []
    for index, cache in enumerate(survey.inventory.caches):
        for entry in listed(cache):
            found += _of_entry(index, entry, min_age)
    return found


def within(path: str, above: Collection[str]) -> bool:
    """Whether a path is one of these, or lies below one."""
    while path:
        if path in above:
            return True
        path = path.rpartition("/")[0]
    return False


def _of_entry(index: int, entry: Entry, min_age: float) -> Iterator[Candidate]:
    junk = tuple(d for d in entry.damage if d.code in JUNK and settled(d, min_age))
    hub = entry.kind == "hub"
    if junk and entry.what != FOREIGN:
        yield Candidate(
            cache=index,
            entry=entry,
            name=entry.name,
            repo=entry.path if hub and entry.what == "repo" else "",
            junk=junk,
        )
    if entry.what in _NOT_CHOSEN:
        return
    if hub and entry.what != FOREIGN:
        for part in entry.parts:
            if part.what == "revision":
                yield Candidate(
                    cache=index,
                    entry=part,
                    name=f"{entry.name}@{part.revision[:12]}",
                    repo=entry.path,
                    run=entry.path,
                )
        return
    run = entry.path.rpartition("/")[0] if entry.what == "checkpoint" else ""
    yield Candidate(cache=index, entry=entry, name=entry.name, run=run)
    for part in (p for e in (entry, *entry.parts) for p in e.parts):
        if part.what in PARTS:
            yield Candidate(cache=index, entry=part, name=f"{entry.name}: {part.name}")


def hubs(survey: Survey) -> dict[int, Hub]:
    """The hub caches of a survey, by index."""
    return {i: Hub.read(look) for i, look in enumerate(survey.looks) if look.kind == "hub"}


def young(candidate: Candidate, look: Look, min_age: float) -> bool:
    """Whether it was written or read so recently that somebody may be busy with it."""
    if candidate.junk:
        return False
    used = candidate.entry.last_used
    return used is not None and look.age(used) < min_age


def downloading(cache: Cache, min_age: float) -> dict[str, Damage]:
    """Repositories into which a download is under way, by path, with the part that shows it."""
    found: dict[str, Damage] = {}
    for entry in cache.entries:
        for damage in entry.damage:
            if damage.code == "incomplete" and not settled(damage, min_age):
                found[entry.path] = damage
    return found


def newest_first(found: list[Candidate]) -> dict[str, list[Candidate]]:
    """Candidates of each run, the newest first: checkpoints by step, revisions by last use."""
    runs: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in found:
        if candidate.run:
            runs[candidate.run].append(candidate)
    for members in runs.values():
        members.sort(key=_newness, reverse=True)
    return runs


def _newness(candidate: Candidate) -> tuple[bool, int, float]:
    entry = candidate.entry
    step = entry.name.rpartition("-")[2] if entry.what == "checkpoint" else ""
    return bool(entry.refs), int(step) if step.isdigit() else 0, entry.last_used or 0.0
