"""The nouns of a change: what is to be done and why, and what came of it.

A plan is a list of small acts on names, each with the fingerprint of what was found there. It can
be written to a file, read by a person, and carried out later: what differs by then is left alone.
Names that are no UTF-8 are written with their bytes escaped (`text_of`), so that a plan is JSON and
still names the file.
"""

import posixpath
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

PLAN_SCHEMA = "gradience.plan/v1"
RECEIPT_SCHEMA = "gradience.receipt/v1"

State = Literal["done", "skipped", "failed", "undone"]

_RAW = re.compile("[\udc80-\udcff%]")
_ESCAPED = re.compile("%([0-9A-F]{2})")


def text_of(path: str) -> str:
    """A path as JSON can carry it: bytes that are no UTF-8, and `%`, become `%XX`.

    Examples
    --------
    >>> text_of("caf\\udce9/50%")
    'caf%E9/50%25'
    """
    return _RAW.sub(lambda m: f"%{ord(m[0]) & 0xFF:02X}", path)


def path_of(text: str) -> str:
    """The path that `text_of` wrote.

    Examples
    --------
    >>> path_of("caf%E9/50%25") == "caf\\udce9/50%"
    True
    """
    return _ESCAPED.sub(lambda m: "%" if m[1] == "25" else chr(0xDC00 + int(m[1], 16)), text)


def is_place(text: str) -> bool:
    """Whether a text is an absolute path as `text_of` writes it, without detours.

    Examples
    --------
    >>> [is_place(text) for text in ("/a/50%25", "/a/%00", "/a/../b", "b")]
    [True, False, False, False]
    """
    path = path_of(text)
    return (
        text.startswith("/")
        and "\0" not in path
        and posixpath.normpath(path) == path
        and text_of(path) == text
    )


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """What lies below a directory.

    Attributes
    ----------
    names : int
    checksum : int
        Over name, inode, size and time of change of every one of them.
    """

    names: int
    checksum: int


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found at a name when the plan was made.

    Attributes
    ----------
    device, inode, size, mtime_ns : int
        As `lstat` says: of a link, those of the link itself.
    tree : Tree or None
        Of a directory: what lies in it.
    rights : tuple of int or None
        Of a directory that goes when it is empty: user, group and permissions, to make it again.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    tree: Tree | None = None
    rights: tuple[int, int, int] | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing as the user knows it: a revision, a checkpoint, the orphans of a repo.

    Attributes
    ----------
    name, kind, what : str
        As of an inventory's entry.
    reasons : tuple of str
        Why it is on the list.
    how : str
        How to have it back, or that it cannot be had back.
    last_used : float or None
        Seconds since 1970, UTC.
    warnings : tuple of str
        What speaks against it, where it is on the list all the same.
    lifted : tuple of str
        The reasons to keep it that were overruled by whoever made the plan: keys of `KEPT`. What
        else has come to speak against it by the time it is carried out, keeps it.
    """

    name: str
    kind: str
    what: str
    reasons: tuple[str, ...]
    how: str = ""
    last_used: float | None = None
    warnings: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One act on one name.

    Attributes
    ----------
    verb : str
        A name of `change.verbs.VERBS`.
    root : str
        The directory that bounds it: the act reaches nothing outside. Absolute, as `text_of`
        writes.
    path : str
        Relative to the root, as `text_of` writes.
    fingerprint : Fingerprint
    item : int
        Index into the plan's items: what it is a part of.
    unit : int
        Acts of one unit are done together or not at all. They follow one another in the plan.
    group : int
        If anything of a group turns out to be in use, all of it is put back. The acts of a group
        follow one another in the plan.
    frees_bytes : int
        Forecast, when the rest of the plan is carried out too.
    guard : str
        A name of `change.guards.GUARDS`: the protocol of whoever else uses that name.
    target : str
        What a verb needs beside the path: where a link is to lead.
    """

    verb: str
    root: str
    path: str
    fingerprint: Fingerprint
    item: int
    unit: int
    group: int
    frees_bytes: int = 0
    guard: str = ""
    target: str = ""

    @property
    def name(self) -> str:
        """The path relative to the root, as the system calls take it."""
        return path_of(self.path)

    @property
    def where(self) -> str:
        """The absolute path, as `text_of` writes."""
        return f"{self.root.rstrip('/')}/{self.path}"


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A thing that was asked for and is not on the list.

    Attributes
    ----------
    name, kind, what : str
        As of an inventory's entry.
    code : str
        A key of `KEPT`.
    why : str
        One sentence, with names and numbers.
    bytes : int
        What it would have freed.
    """

    name: str
    kind: str
    what: str
    code: str
    why: str
    bytes: int = 0


KEPT: dict[str, str] = {
    "in_use": "A process has a file of it open or mapped.",
    "in_flight": "A download into it is under way, or it was written a moment ago.",
    "pinned": "No ref names this revision: a program may have pinned it by its commit.",
    "needed": "A config, checkpoint or adapter below a given project needs it.",
    "last_copy": "The Hub does not serve it to everybody: it is gated, private or gone.",
    "only_copy": "Nothing can make it again.",
    "too_wide": "The home directory or the like is in that directory, so not all of it is a cache.",
    "foreign": "It lies in that directory, and is not of the program whose cache that is.",
    "policy": "A rule of the policy keeps it.",
    "unknown_layout": "It has a layout that this release does not know.",
    "unlisted": "The hub keeps shared blobs without a list of their users.",
    "changed": "It changed while we looked.",
    "other_disk": "Its equal lies on another disk: a link to it might dangle one day.",
    "in_place": "It may be written to in place; a hard link would change its equal too.",
    "unlike": "Its equal has another owner, mode or attributes: one inode cannot serve both.",
    "linked": "It has another name elsewhere, which would be shared too.",
    "refused": "The file system did not let us look at it.",
}


LIFTABLE = ("pinned", "needed", "last_copy", "only_copy", "in_flight")
"""Reasons that a user may overrule who knows better; of `in_flight`, the age alone."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be done.

    Attributes
    ----------
    id : str
        Names the change, its trash and its receipt.
    title : str
        The command that made it: "clean", "dedupe"...
    made : float
        Seconds since 1970, UTC.
    items : tuple of Item
    actions : tuple of Action
        In the order in which they are done: refs before snapshots before blobs.
    kept : tuple of Kept
    notes : tuple of str
        What the reader should know: what could not be asked, what is not certain.
    frees_bytes : int
        Forecast: what carrying it all out would free.
    min_age : float
        Seconds: what was written later may be somebody's work, also when it is carried out.
    needed_by : tuple of str
        Directories below which what is needed was looked for, and is when it is carried out.
    """

    id: str
    title: str
    made: float
    items: tuple[Item, ...]
    actions: tuple[Action, ...]
    kept: tuple[Kept, ...] = ()
    notes: tuple[str, ...] = ()
    frees_bytes: int = 0
    min_age: float = 0.0
    needed_by: tuple[str, ...] = ()

    def roots(self) -> tuple[str, ...]:
        """The directories it touches, in order of their first act."""
        return tuple(dict.fromkeys(action.root for action in self.actions))


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one item.

    Attributes
    ----------
    item : int
        Index into the plan's items.
    name, kind, what : str
    state : str
        "done"; "skipped": something of it was not as planned and stayed; "failed": the file system
        refused; "undone": all of it was put back.
    freed : int
        Bytes of inodes that were seen to lose their last name; 0 for what went to the trash.
    names : int
        Names that went.
    reasons : tuple of str
        Why something of it stayed.
    """

    item: int
    name: str
    kind: str
    what: str
    state: State
    freed: int = 0
    names: int = 0
    reasons: tuple[str, ...] = ()


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Free bytes of one disk, as it says itself, before and after."""

    path: str
    free_before: int
    free_after: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done.

    Attributes
    ----------
    plan : str
        The plan's id.
    title : str
    outcomes : tuple of Outcome
    freed : int
        Sum over the outcomes: measured, never the forecast.
    planned : int
        The forecast.
    disks : tuple of Disk
    seconds : float
    notes : tuple of str
    trash : tuple of str
        Directories that hold what was moved to the trash: `gradience cache undo` brings it back.
    """

    plan: str
    title: str
    outcomes: tuple[Outcome, ...]
    freed: int
    planned: int
    disks: tuple[Disk, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    trash: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything was done as planned."""
        return all(outcome.state == "done" for outcome in self.outcomes)


def units(actions: tuple[Action, ...]) -> Iterator[tuple[int, ...]]:
    """Indexes of the actions of each unit, in order."""
    found: list[int] = []
    for index, action in enumerate(actions):
        if found and actions[found[-1]].unit != action.unit:
            yield tuple(found)
            found = []
        found.append(index)
    if found:
        yield tuple(found)
