"""What was begun and not ended, kept where it survives a kill: one byte per act.

The journal of a change lies beside the things it set aside, on the disk that is changed: a cache
that is mounted elsewhere brings its unfinished changes with it. The plan is written and synced
once; after that each step overwrites one byte of a file that is there already, which needs no room.
A kill loses none of it (the pages are the kernel's); what a power cut loses is made up by looking
at the disk: `undo` and `finish` of a verb may be called whatever the byte says.

`FINAL` is written before an act is made final: doubts about its group come too late then.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from gradience import artifacts
from gradience.errors import ArtifactError, StorageError
from gradience.files.below import Below, Removed
from gradience.storage.change.records import PLAN_SCHEMA, Plan, text_of
from gradience.storage.change.site import OWN, Site
from gradience.storage.change.whose import Stranger, stranger

PENDING, BEGUN, DONE, UNDONE, SKIPPED, FINAL = b".", b"b", b"d", b"u", b"s", b"f"
_MOST = 1 << 31  # bytes of a file that are read


class Journal(Protocol):
    """Where the steps of a change are written down."""

    def begin(self, site: Site, plan: Plan) -> None:
        """Write the plan; nothing was changed before.

        Raises
        ------
        OSError
            If there is no room, or no right to write.
        """
        ...

    def step(self, index: int, state: bytes) -> None:
        """Write that an act is in a state, before or after it is brought there."""
        ...

    def end(self, *, keep: bool) -> None:
        """Everything is as it shall be; `keep` the plan where there is trash to bring back."""
        ...


class DiskJournal:
    """The journal beside the things that were set aside."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._states = -1

    def begin(self, site: Site, plan: Plan) -> None:
        """Write `plan.json`, and `state` with a byte for each act."""
        self._site = site
        try:
            site.open_own()
        except FileExistsError as error:
            place = f"{text_of(site.below.root)}/{site.own}"
            raise StorageError(
                f"{place} holds what a change of that name moved to the trash",
                remedy=f"gradience cache undo {site.id} brings it back, with --empty it goes; or "
                "make a new plan of what is left.",
            ) from error
        made = datetime.fromtimestamp(plan.made, UTC)
        data = artifacts.encode(PLAN_SCHEMA, plan, now=made, indent=0)
        below = site.below
        # The states first: a plan without them was never begun.
        self._states = below.create(f"{site.own}/state", mode=0o600)
        os.write(self._states, PENDING * len(plan.actions))
        os.fsync(self._states)
        below.write(f"{site.own}/plan.json", data, mode=0o600)

    def step(self, index: int, state: bytes) -> None:
        """Overwrite one byte."""
        # A disk that copies on write may refuse even this; then the disk itself is looked at.
        with contextlib.suppress(OSError):
            os.pwrite(self._states, state, index)

    def end(self, *, keep: bool) -> None:
        """Remove the files of the journal, or all but the plan."""
        if self._states >= 0:
            os.close(self._states)
        if self._site is not None:
            close(self._site, keep=keep)


class NoJournal:
    """Keeps nothing: for a disk without a free byte, where things are removed in a safe order."""

    def begin(self, site: Site, plan: Plan) -> None:
        """Nothing."""
        site.in_place = True

    def step(self, index: int, state: bytes) -> None:
        """Nothing."""

    def end(self, *, keep: bool) -> None:
        """Nothing."""


def decide(site: Site, states: bytes, units: Iterable[Sequence[int]], state: bytes) -> bytes:
    """Write down what a recovery does with units before it does it, for it may be killed too.

    Returns the states as they are then.
    """
    chosen = {index for unit in units for index in unit}
    decided = b"".join(state if i in chosen else states[i : i + 1] for i in range(len(states)))
    with contextlib.suppress(OSError):  # as in `step`
        site.below.overwrite(f"{site.own}/state", decided)
    return decided


def close(site: Site, *, keep: bool) -> None:
    """End a change: forget its states, and its plan unless there is trash to bring back."""
    with contextlib.suppress(FileNotFoundError):
        site.below.remove(f"{site.own}/state", Removed())
    if keep:
        return
    with contextlib.suppress(FileNotFoundError):
        site.below.remove(f"{site.own}/plan.json", Removed())
    site.below.remove_empty(site.own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a change left in a root.

    Attributes
    ----------
    plan : Plan or None
    states : bytes or None
        None once the change has ended: then what lies aside is trash.
    writer, schema : str
        Who wrote the plan, as what; also where this release cannot read it.
    stranger : Stranger or None
        Who else may have written it: then nothing of it is believed.
    """

    plan: Plan | None = None
    states: bytes | None = None
    writer: str = ""
    schema: str = ""
    stranger: Stranger | None = None


@contextlib.contextmanager
def left(below: Below, change: str) -> Iterator[tuple[Site, Left]]:
    """The directory of a change, held open, and what the change left in it.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such directory any more.
    """
    site = Site(below, change)
    try:
        other = site.hold()
        yield site, _read(site) if other is None else Left(stranger=other)
    finally:
        below.let_go(site.own)


class _StrangerError(Exception):
    def __init__(self, other: Stranger) -> None:
        super().__init__(other.why)
        self.other = other


def _read(site: Site) -> Left:
    """Plan and states; None for what is not there or cannot be read."""
    plan = states = envelope = None
    try:
        with contextlib.suppress(OSError, ArtifactError, msgspec.DecodeError):
            name = f"{site.own}/plan.json"
            data = _words(site, name)
            envelope = msgspec.json.decode(data, type=artifacts.Envelope)
            plan = artifacts.decode(data, PLAN_SCHEMA, Plan, source=name)
        with contextlib.suppress(OSError):
            states = _words(site, f"{site.own}/state")
    except _StrangerError as error:
        return Left(stranger=error.other)
    return Left(
        plan=plan,
        states=states,
        writer=envelope.written_by if envelope else "",
        schema=envelope.schema if envelope else "",
    )


def _words(site: Site, name: str) -> bytes:
    """What a file of the journal says, if only we can have written it."""
    descriptor = site.below.open(name)
    with os.fdopen(descriptor, "rb") as file:
        if (other := stranger(site.below, os.fstat(descriptor), OWN)) is not None:
            raise _StrangerError(other)
        return file.read(_MOST)
