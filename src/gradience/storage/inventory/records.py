"""The nouns of an inventory: what lies in which cache, and what deleting it would free.

Bytes are physical: the blocks of an inode, counted once however many names and links lead to it.
`frees_bytes` is what deleting that one thing alone would give back, so the parts of a thing need
not add up to it: a blob that two revisions use is freed by deleting both, and by neither alone.
"""

from typing import Any, Literal

import msgspec

SCHEMA = "gradience.inventory/v1"

Recovery = Literal["download", "rebuild", "lost", "unknown"]
LastUsedFrom = Literal["atime", "mtime", "record"]
AtimePolicy = Literal["strict", "daily", "never", "unknown"]

DAMAGE: dict[str, str] = {
    "broken_link": "A link in a snapshot leads to a blob that is not there.",
    "broken_store_link": "A repo's blob leads to a shared blob that is not there.",
    "foreign_link": "A link leads out of its repository, to something that is no blob of it.",
    "stale_ref": "A ref names a commit of which no snapshot is there.",
    "unreadable_ref": "A ref holds no commit hash.",
    "orphan_blob": "No snapshot links to this blob.",
    "orphan_store_blob": "No repository links to this shared blob.",
    "no_manifest": "A shared blob has no .refs manifest: the hub's own tools never delete it.",
    "incomplete": "A download that did not end.",
    "empty_snapshot": "A snapshot without a single file.",
    "no_snapshots": "A repository without snapshots.",
    "zero_filled": "A file that should hold weights and holds no data at all.",
    "truncated": "A file shorter than its own header, or the listing of its commit, says.",
    "temporary": "A temporary file of a writer that did not end.",
    "unknown_layout": "A layout version this release does not know: left alone.",
    "unreadable": "The file system did not let us read this.",
    "broken_checkpoint": "A checkpoint that a resume would choose and fail on.",
}


class Damage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong with an entry.

    Attributes
    ----------
    code : str
        A key of `DAMAGE`.
    path : str
        The file or directory concerned.
    message : str
        What was found, with names and numbers.
    physical_bytes : int
        Bytes on disk that belong to the damage: of an orphan, of a part of a download.
    age_seconds : float or None
        Since the last write, for what a writer may still be busy with.
    held : bool or None
        Whether a process holds the lock of this download now; None where no lock can tell.
    """

    code: str
    path: str
    message: str
    physical_bytes: int = 0
    age_seconds: float | None = None
    held: bool | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that can be looked at, kept or deleted: a repo, a revision, a build, a checkpoint.

    Attributes
    ----------
    kind : str
        The cache kind it lies in: a name of `storage.inventory.caches.CACHES`.
    what : str
        What it is, one word: "repo", "revision", "build", "map_results", "checkpoint"...
    name : str
        What a user calls it: `org/name`, a commit hash, a dataset.
    path : str
        Where it lies. Bytes that are no UTF-8 are surrogates, as `os.fsdecode` makes them.
    physical_bytes : int
        Blocks of every inode it reaches (files, directories, links), each once.
    logical_bytes : int
        Sum of the sizes of the files it reaches, each inode once; above `physical_bytes` for sparse
        or compressed files.
    shared_bytes : int
        The part of `physical_bytes` that something outside this entry reaches too: another entry,
        or a hard link somewhere else.
    frees_bytes : int
        What the file system would give back if this entry alone were deleted.
    files : int
        Distinct regular files it reaches.
    inodes : int
        Files, directories and links that deleting it would remove.
    recoverable : str
        "download": it can be had again from where it came; "rebuild": a program makes it again;
        "lost": nowhere else; "unknown".
    how : str
        How to get it back, or why it cannot be had back.
    last_used : float or None
        Seconds since 1970, UTC.
    last_used_from : str
        Which of the clocks that is: see `Cache.atime`.
    repo_type : str
        "model", "dataset" or "space", for what comes from the Hub.
    revision : str
        The commit hash of a revision.
    refs : tuple of str
        Branches and tags that name the revision (all of them, for a repo).
    belongs_to : str
        The dataset or repo that it was made from, where that is another name.
    damage : tuple of Damage
        Empty for a sound entry. A damaged entry is listed with the rest, never hidden.
    parts : tuple of Entry
        What it consists of, where a part can be deleted by itself.
    """

    kind: str
    what: str
    name: str
    path: str
    physical_bytes: int
    logical_bytes: int
    shared_bytes: int
    frees_bytes: int
    files: int
    inodes: int
    recoverable: Recovery
    how: str
    last_used: float | None = None
    last_used_from: LastUsedFrom = "mtime"
    repo_type: str = ""
    revision: str = ""
    refs: tuple[str, ...] = ()
    belongs_to: str = ""
    damage: tuple[Damage, ...] = ()
    parts: tuple["Entry", ...] = ()


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A path that could not be looked at, and why."""

    path: str
    reason: str


class Cache(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One cache directory and what lies in it.

    Attributes
    ----------
    kind : str
        A name of `storage.inventory.caches.CACHES`.
    title : str
        What a heading calls that kind.
    root : str
        Absolute.
    chosen_by : str
        The variable or rule that leads there: "HF_HUB_CACHE", "default", "--project".
    holds : str
        One sentence: what this directory holds.
    recoverable : str
        As of an entry.
    how : str
        As of an entry.
    entries : tuple of Entry
        The largest first.
    physical_bytes : int
        Of the whole directory, each inode once; equals `du -s` unless another cache lies inside,
        which is counted by itself.
    logical_bytes : int
    shared_bytes : int
        The part of `physical_bytes` that lies behind hard links leading out of this directory.
    frees_bytes : int
        What deleting the whole directory would give back.
    files : int
    inodes : int
    device : int
        `st_dev`: caches with one number share one disk.
    layout : str
        Version of the layout, where there are several: "repo blobs", "shared blobs v1".
    atime : str
        What the mount does with access times: "strict", "daily" (relatime), "never" (noatime).
    unreadable : tuple of Unreadable
        At most a hundred.
    unreadable_count : int
        All of them.
    """

    kind: str
    root: str
    chosen_by: str
    holds: str
    recoverable: Recovery
    how: str
    entries: tuple[Entry, ...]
    physical_bytes: int
    logical_bytes: int
    shared_bytes: int
    frees_bytes: int
    files: int
    inodes: int
    device: int
    title: str = ""
    layout: str = ""
    atime: AtimePolicy = "unknown"
    unreadable: tuple[Unreadable, ...] = ()
    unreadable_count: int = 0


class Inventory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every cache that was looked at.

    Attributes
    ----------
    caches : tuple of Cache
        Only those whose directory is there.
    absent : mapping of str to str
        Kind to the directory that is not there.
    closed : tuple of Unreadable
        Directories that could not be looked at: whether a cache is there is not known.
    physical_bytes : int
        Of all caches together, each inode once.
    logical_bytes : int
    made : float
        When, in seconds since 1970, UTC.
    seconds : float
        How long looking took.
    threads : int
        How many threads read directories: 1 where the disk answered from memory.
    """

    caches: tuple[Cache, ...]
    absent: dict[str, str]
    physical_bytes: int
    logical_bytes: int
    made: float
    seconds: float
    threads: int
    closed: tuple[Unreadable, ...] = ()


def for_json(record: msgspec.Struct) -> Any:
    """A record whose strings are all UTF-8, as JSON wants them.

    A file name that is not UTF-8 is written with its bytes escaped (`caf\\xe9`), which names the
    file to a reader and cannot be opened; nearly always the record itself comes back.
    """
    try:
        msgspec.json.encode(record)
    except UnicodeEncodeError:
        return _escaped(msgspec.to_builtins(record))
    return record


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value
