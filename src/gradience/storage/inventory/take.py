"""Everything in every cache: one pass over the disk, then one reading by each kind.

Each inode is counted once, whichever cache reaches it first by name; a cache inside another is
counted by itself and left out of the outer one.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ParamSpec

from gradience import paths
from gradience.storage.environment.readers import Host
from gradience.storage.inventory.caches import CACHES
from gradience.storage.inventory.caches.kind import Look, entry
from gradience.storage.inventory.places import Place, places
from gradience.storage.inventory.records import (
    AtimePolicy,
    Cache,
    Damage,
    Entry,
    Inventory,
    Unreadable,
)
from gradience.storage.inventory.scan import Progress, Root, Scan, scan
from gradience.storage.inventory.tally import Tally

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """An inventory, and the trees it was read from.

    Attributes
    ----------
    inventory : Inventory
    looks : tuple of Look
        One per cache of the inventory, in its order.
    """

    inventory: Inventory
    looks: tuple[Look, ...]


def survey(
    *,
    environ: Mapping[str, str],
    home: Path,
    now: datetime,
    host: Host | None = None,
    projects: Sequence[Path] = (),
    also: Sequence[Place] = (),
    kinds: Sequence[str] = (),
    uses: Mapping[str, float] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Look at every cache of this machine, and keep what was seen.

    Parameters
    ----------
    environ : mapping of str to str
        Decides where the caches lie, as it would for a program started with it.
    home : Path
    now : datetime
        Aware; ages count back from here.
    host : Host, optional
        Working directory, user and system, for the defaults of some libraries.
    projects : sequence of Path
        Directories below which to look for `local_dir` downloads and Trainer checkpoints.
    also : sequence of Place
        More directories to look at: caches that the environment does not lead to.
    kinds : sequence of str
        Look at these kinds only; all by default.
    uses : mapping of str to float, optional
        Our own record of last uses: path to seconds since 1970.
    threads : int, optional
        How many threads read directories; by default chosen by how fast the disk answers.
    progress : callable, optional
        Called with a stage, directories read, and directories known.

    Raises
    ------
    UnknownNameError
        If a kind is not in `CACHES`.
    """
    for kind in kinds:
        CACHES[kind]
    start = time.perf_counter()
    wanted = [
        *also,
        *(Place(kind="project", path=p, chosen_by="--project") for p in projects),
        *places(environ, home, host=host),
    ]
    chosen = [not kinds or place.kind in kinds for place in wanted]
    roots = [Root(os.fspath(p.path), CACHES[p.kind].keep) for p in wanted]
    with _collector_at_rest():
        # Those not asked for are opened and not read: a cache inside another must be known to be
        # left out of it.
        found = scan(roots, read=chosen, threads=threads, progress=progress)
        caches, looks, union = _read(wanted, found, now.timestamp(), uses or {})
    asked = [
        (place.kind, root.path, tree is not None)
        for place, root, tree, read in zip(wanted, roots, found.trees, chosen, strict=True)
        if read
    ]
    closed = {path: found.unreadable[path] for _, path, there in asked if not there}
    there = {kind for kind, path, there in asked if there or closed[path]}
    inventory = Inventory(
        caches=tuple(caches),
        absent={kind: path for kind, path, _ in asked if kind not in there},
        closed=tuple(Unreadable(path=p, reason=r) for each in closed.values() for p, r in each),
        physical_bytes=union.physical_bytes,
        logical_bytes=union.logical,
        made=now.timestamp(),
        seconds=time.perf_counter() - start,
        threads=found.threads,
    )
    return Survey(inventory=inventory, looks=tuple(looks))


def _inventory_of(look: Callable[P, Survey]) -> Callable[P, Inventory]:
    def take(*arguments: P.args, **options: P.kwargs) -> Inventory:
        """Look at every cache of this machine; the parameters are those of `survey`."""
        return look(*arguments, **options).inventory

    return take


take = _inventory_of(survey)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection meanwhile: a quarter of the time went into looking for cycles among
    hundreds of thousands of live records.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(
    wanted: Sequence[Place], found: Scan, now: float, uses: Mapping[str, float]
) -> tuple[list[Cache], list[Look], Tally]:
    """Let each kind read its tree; and count all of them together, each inode once."""
    pairs = [(p, tree) for p, tree in zip(wanted, found.trees, strict=True) if tree is not None]
    beside = [(place.kind, tree) for place, tree in pairs]
    union, caches, looks = Tally(), [], []
    for place, tree in pairs:
        tally = Tally().add_tree(tree)
        union.join(tally)
        look = Look(
            kind=place.kind,
            tree=tree,
            now=now,
            atime=atime_policy(tree.path),
            uses=uses,
            beside=beside,
        )
        caches.append(_cache(place, look, tally, found))
        looks.append(look)
    return caches, looks, union


def _cache(place: Place, look: Look, tally: Tally, found: Scan) -> Cache:
    kind = CACHES[place.kind]
    tree, root = look.tree, look.tree.root
    aside = list(_set_aside(look))
    entries, layout = kind.entries(look)
    entries += aside
    refused = found.unreadable[root.path]
    entries = [_with_refusals(e, refused) for e in entries]
    return Cache(
        kind=place.kind,
        title=kind.title,
        root=tree.path,
        chosen_by=place.chosen_by,
        holds=kind.holds,
        recoverable=kind.recoverable,
        how=kind.how,
        entries=tuple(sorted(entries, key=lambda e: (-e.physical_bytes, e.name))),
        physical_bytes=tally.physical_bytes,
        logical_bytes=tally.logical,
        shared_bytes=tally.shared_bytes,
        frees_bytes=tally.frees_bytes,
        files=tally.files,
        inodes=tally.inodes,
        device=tree.dev,
        layout=layout,
        atime=look.atime,
        unreadable=tuple(Unreadable(path=p, reason=r) for p, r in refused),
        unreadable_count=found.unreadable_count[root.path],
    )


def _set_aside(look: Look) -> Iterator[Entry]:
    """What `gradience cache clean` moved to the trash; taken out of the tree, which is not its."""
    own = look.tree.child(paths.SET_ASIDE)
    if own is not None:
        look.tree.dirs.remove(own)
        yield entry(
            look,
            Tally().add_tree(own),
            what="trash",
            name="trash of gradience",
            path=own.path,
            recoverable="unknown",
            how="`gradience cache undo` brings it back, `gradience cache undo --empty` removes it.",
        )


def _with_refusals(entry: Entry, refused: Sequence[tuple[str, str]]) -> Entry:
    """Note on an entry what of it could not be read: its numbers are lower bounds."""
    below = f"{entry.path}/"
    damage = [
        Damage(code="unreadable", path=path, message=f"{path}: {reason}")
        for path, reason in refused
        if path == entry.path or path.startswith(below)
    ]
    if not damage or entry.what == "bookkeeping":
        return entry
    return _replaced(entry, (*entry.damage, *damage))


def _replaced(entry: Entry, damage: tuple[Damage, ...]) -> Entry:
    import msgspec  # noqa: PLC0415 - only for a damaged entry

    return msgspec.structs.replace(entry, damage=damage)


def atime_policy(path: str) -> AtimePolicy:
    """What the mount below a path does with access times.

    Linux reports the mount's options with statvfs; relatime, the default, writes an access time
    when the last one is older than the last write or than a day. macOS reports nothing.
    """
    if not hasattr(os, "ST_RELATIME"):
        return "unknown"
    try:
        flags = os.statvfs(path).f_flag
    except OSError:
        return "unknown"
    if flags & os.ST_NOATIME:
        return "never"
    return "daily" if flags & os.ST_RELATIME else "strict"
