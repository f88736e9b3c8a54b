"""What a cache kind is: where it lies, what it holds, and how its directory is read as entries.

A kind says what the names in a directory mean. It never walks the disk itself: the scan has done so
once for all kinds, and hands over a tree.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gradience.storage.inventory.records import (
    AtimePolicy,
    Damage,
    Entry,
    LastUsedFrom,
    Recovery,
)
from gradience.storage.inventory.scan import Directory, File
from gradience.storage.inventory.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One cache directory that was scanned, and what its kind may ask.

    Attributes
    ----------
    kind : str
        Name of the kind.
    tree : Directory
    now : float
        Seconds since 1970.
    atime : str
        What the mount does with access times.
    uses : mapping of str to float
        Our own record: path to when a program run under Gradience used it.
    beside : sequence of (str, Directory)
        Every cache of this inventory: kind and tree.
    """

    kind: str
    tree: Directory
    now: float
    atime: AtimePolicy = "unknown"
    uses: Mapping[str, float] = field(default_factory=dict)
    beside: Sequence[tuple[str, Directory]] = ()

    def below(self, path: str) -> Directory | None:
        """The directory of that absolute path in the tree."""
        found: Directory | None = self.tree
        for part in path[len(self.tree.path) + 1 :].split("/"):
            found = found.child(part) if found is not None and part else found
        return found

    def age(self, mtime: float) -> float:
        """Seconds since a time, never negative: clocks of network mounts run ahead."""
        return max(0.0, self.now - mtime)


Listing = tuple[list[Entry], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Names that removing an entry removes, together or not at all.

    Attributes
    ----------
    names : tuple of str
        Relative to the root of the cache, in the order in which they go.
    frees_bytes : int
        Forecast.
    guard : str
        Whose protocol protects them: a name of `storage.change.guards.GUARDS`.
    verb : str
        "delete" where it may go to the trash instead; otherwise the verb that does it.
    """

    names: tuple[str, ...]
    frees_bytes: int
    guard: str = ""
    verb: str = "delete"


def piece_of(look: Look, path: str, file: File, *, guard: str = "") -> Piece:
    """One file."""
    name = path.removeprefix(f"{look.tree.path}/")
    return Piece(names=(name,), frees_bytes=file.frees_bytes, guard=guard)


def whole_entry(look: Look, found: Entry) -> list[Piece]:
    """An entry that is one file or directory, and nothing else is in it."""
    name = found.path.removeprefix(f"{look.tree.path}/")
    return [Piece(names=(name,), frees_bytes=found.frees_bytes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKind:
    """A kind of cache.

    Attributes
    ----------
    title : str
        What a heading calls it.
    holds : str
        One sentence: what the directory holds and who puts it there.
    recoverable : str
        "download", "rebuild", "lost" or "unknown": what can be had back after deletion.
    how : str
        How.
    variable : str
        The name in `places.PLACES` that says where it lies; "" for what lies below project roots.
    entries : callable
        Reads a scanned tree: the entries, and the version of the layout ("" where there is one).
    keep : callable
        Below which directories the names of files are wanted: takes a path relative to the root.
    pieces : callable
        What removing an entry, or a part of one, removes. Not asked for "bookkeeping".
    """

    title: str
    holds: str
    recoverable: Recovery
    how: str
    variable: str
    entries: Callable[[Look], Listing]
    keep: Callable[[str], bool]
    pieces: Callable[[Look, Entry], list[Piece]] = whole_entry


def never(_: str) -> bool:
    """Keep no names: sums are enough."""
    return False


def always(_: str) -> bool:
    """Keep every name."""
    return True


def last_used(look: Look, tally: Tally, path: str) -> tuple[float | None, LastUsedFrom]:
    """When something was last used, and which clock says so.

    Our own record wins where it is newer. An access time is believed unless the mount never writes
    one (noatime); under relatime it is right to the day. A file that was never read since it was
    written has an access time at or below its write time: then the write time is the answer.
    """
    recorded = look.uses.get(path)
    used, source = (tally.mtime, "mtime")
    if look.atime != "never" and tally.atime > tally.mtime:
        used, source = tally.atime, "atime"
    if recorded is not None and recorded > used:
        return recorded, "record"
    return (used or None), ("atime" if source == "atime" else "mtime")


def entry(
    look: Look,
    tally: Tally,
    *,
    what: str,
    name: str,
    path: str,
    recoverable: Recovery,
    how: str,
    repo_type: str = "",
    revision: str = "",
    refs: Sequence[str] = (),
    belongs_to: str = "",
    damage: Sequence[Damage] = (),
    parts: Sequence[Entry] = (),
) -> Entry:
    """An entry with the numbers of its tally."""
    used, source = last_used(look, tally, path)
    return Entry(
        kind=look.kind,
        what=what,
        name=name,
        path=path,
        physical_bytes=tally.physical_bytes,
        logical_bytes=tally.logical,
        shared_bytes=tally.shared_bytes,
        frees_bytes=tally.frees_bytes,
        files=tally.files,
        inodes=tally.inodes,
        recoverable=recoverable,
        how=how,
        last_used=used,
        last_used_from=source,
        repo_type=repo_type,
        revision=revision,
        refs=tuple(refs),
        belongs_to=belongs_to,
        damage=tuple(damage),
        parts=tuple(parts),
    )


def read_text(path: str, limit: int = 4096) -> str | None:
    """The first bytes of a small regular file as text; None if it cannot be read.

    Opened without following links and without waiting: a pipe that was put in place of a ref must
    not hang us. The access time stays as it was where we own the file (O_NOATIME, open(2)):
    looking must not make things look used.
    """
    try:
        descriptor = _open_quietly(path)
    except OSError:
        return None
    try:
        pieces = []
        while limit > 0 and (piece := os.read(descriptor, limit)):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _open_quietly(path: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)
