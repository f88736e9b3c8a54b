"""Are the files in the caches what they should be? Answered offline, from what the caches know.

Sizes and headers come first: a truncated or zero-filled file is found without reading it. `deep`
reads everything and hashes it; the names of blobs say what must come out.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from gradience.storage.environment.readers import Host
from gradience.storage.inventory.caches import CACHES
from gradience.storage.inventory.caches.kind import Look
from gradience.storage.inventory.places import Place, places
from gradience.storage.inventory.scan import Progress, Root, reason_of, scan
from gradience.storage.verify.contents import digest, shallow_problem
from gradience.storage.verify.expected import (
    Expectations,
    Item,
    hub_expectations,
    project_expectations,
)
from gradience.storage.verify.records import Problem, Unchecked, Verification
from gradience.storage.verify.shards import missing_shards

_THREADS = 4  # hashing leaves Python; more threads only fight over the disk
_KEPT = 100
_QUICK_BYTES = 64 << 20
_CLOCKS_DIFFER = 1.0  # seconds that a note may be older than the file it is of: as the hub


def verify(
    *,
    environ: Mapping[str, str],
    home: Path,
    now: datetime,
    host: Host | None = None,
    projects: Sequence[Path] = (),
    also: Sequence[Place] = (),
    names: Sequence[str] = (),
    deep: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Hold the files of hub caches and `local_dir` downloads against what the caches say of them.

    Parameters
    ----------
    environ, home, now, host, projects, also
        As of `inventory.take`.
    names : sequence of str
        Shell patterns for repos; all by default.
    deep : bool
        Hash contents too. Reads everything once, at the speed of the disk or of SHA-256.
    progress : callable, optional
        Called with a stage, a number done and a number in all (megabytes while hashing).
    """
    wanted = [
        *(p for p in (*also, *places(environ, home, host=host)) if p.kind == "hub"),
        *(p for p in also if p.kind == "project"),
        *(Place(kind="project", path=path, chosen_by="--project") for path in projects),
    ]
    found = scan([Root(os.fspath(p.path), CACHES[p.kind].keep) for p in wanted], progress=progress)
    looks = [
        Look(kind=place.kind, tree=tree, now=now.timestamp())
        for place, tree in zip(wanted, found.trees, strict=True)
        if tree is not None
    ]
    refused = [pair for pairs in found.unreadable.values() for pair in pairs]
    return check(looks, refused, names=names, deep=deep, progress=progress)


def check(
    looks: Sequence[Look],
    refused: Sequence[tuple[str, str]],
    *,
    names: Sequence[str] = (),
    deep: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """As `verify`, of trees that were scanned already.

    Parameters
    ----------
    looks : sequence of Look
        Hub caches and projects; other kinds say nothing of their files.
    refused : sequence of (str, str)
        Paths that could not be read, and why.
    """
    everything = Expectations([], [], {})
    roots = []
    for look in looks:
        if look.kind not in ("hub", "project"):
            continue
        roots.append(look.tree.path)
        part = hub_expectations(look) if look.kind == "hub" else project_expectations(look)
        everything.items += part.items
        everything.problems += part.problems
        everything.partial |= part.partial
    run = _Run(_only(everything, names), progress)
    for path, reason in refused:
        run.refuse(path, reason)
    return run.all(tuple(roots), deep=deep)


def _only(found: Expectations, names: Sequence[str]) -> Expectations:
    if not names:
        return found

    def wanted(owner: str) -> bool:
        return any(fnmatchcase(owner, pattern) for pattern in names)

    items = [item for item in found.items if wanted(item.owner)]
    paths = {item.owner.replace("/", "--") for item in items}
    return Expectations(
        items,
        [problem for problem in found.problems if wanted(problem.owner)],
        {path: n for path, n in found.partial.items() if any(f"--{p}/" in path for p in paths)},
    )


class _Run:
    """One verification under way."""

    def __init__(self, found: Expectations, progress: Progress | None) -> None:
        self.found = found
        self.progress = progress
        self.problems = list(found.problems)
        self.unchecked: list[Unchecked] = []
        self.bytes_read = 0
        self.by_hash = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.total = 0

    def all(self, roots: tuple[str, ...], *, deep: bool) -> Verification:
        items = self.found.items
        sound = [item for item in items if self.shallow(item)]
        if deep:
            self.hash_all([item for item in sound if item.digest])
        for item in sound:
            if not item.digest and item.size is None:
                self.refuse(item.path, "nothing says what it should be")
        return Verification(
            roots=roots,
            files=len(items),
            by_size=sum(item.size is not None for item in items),
            by_hash=self.by_hash,
            bytes_read=self.bytes_read,
            partial=self.found.partial,
            problems=tuple(sorted(self.problems, key=lambda p: (p.owner, p.path, p.code))),
            unchecked=tuple(self.unchecked[:_KEPT]),
            unchecked_count=len(self.unchecked),
            deep=deep,
        )

    def shallow(self, item: Item) -> bool:
        """Whether a file is sound as far as its size, header and first pages tell."""
        try:
            wrong = shallow_problem(item) or missing_shards(item)
            if wrong is not None and wrong[0] == "zero_filled" and self.is_meant(item):
                wrong = None
        except OSError as error:
            self.refuse(item.path, reason_of(error))
            return False
        # The hub's own rule (_local_folder.py): a file newer than its note is not the download.
        noted = item.noted
        if wrong is None and noted is not None and item.file.mtime - _CLOCKS_DIFFER > noted:
            wrong = "changed_locally", "it is newer than the note of its download"
        if wrong is None:
            return True
        self.blame(item, *wrong)
        return False

    def is_meant(self, item: Item) -> bool:
        """Whether zeros are what the file should hold; only a hash that is quick is asked."""
        quick = bool(item.digest) and item.file.size <= _QUICK_BYTES
        return quick and digest(item, lambda _: None, self.stop) == item.digest

    def hash_all(self, items: Sequence[Item]) -> None:
        self.total = sum(item.file.size for item in items)
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for _ in pool.map(self.hash_one, items):
                    pass
            finally:
                self.stop.set()  # Ctrl-C: the other threads must not read a terabyte to its end.

    def hash_one(self, item: Item) -> None:
        try:
            found = digest(item, self.read, self.stop)
        except OSError as error:
            self.refuse(item.path, reason_of(error))
            return
        if self.stop.is_set():
            return
        with self.lock:
            self.by_hash += 1
        if found != item.digest:
            self.blame(
                item, "wrong_hash", f"{item.algorithm} {found[:16]}..., not {item.digest[:16]}..."
            )

    def read(self, count: int) -> None:
        with self.lock:
            self.bytes_read += count
            if self.progress is not None:
                self.progress("hashing (MB)", self.bytes_read // 10**6, self.total // 10**6)

    def refuse(self, path: str, reason: str) -> None:
        with self.lock:
            self.unchecked.append(Unchecked(path=path, reason=reason))

    def blame(self, item: Item, code: str, message: str) -> None:
        with self.lock:
            self.problems.append(
                Problem(
                    code=code,
                    path=item.path,
                    owner=item.owner,
                    names=tuple(item.names[:5]),
                    message=message,
                )
            )
