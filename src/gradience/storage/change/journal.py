"""What was begun and not ended, kept where it survives a kill: one byte per act.

The journal of a change lies beside the things it set aside, on the disk that is changed: a cache
that is mounted elsewhere brings its unfinished changes with it. The plan is written and synced
once; after that each step overwrites one byte of a file that is there already, which needs no room.
A kill loses none of it (the pages are the kernel's); what a power cut loses is made up by looking
at the disk: `undo` and `finish` of a verb may be called whatever the byte says.
"""

import contextlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from gradience import artifacts
from gradience.errors import ArtifactError
from gradience.files.below import Below, Removed
from gradience.storage.change.records import PLAN_SCHEMA, Plan
from gradience.storage.change.site import OWN, Site

PENDING, BEGUN, DONE, UNDONE, SKIPPED, FINISHED = b".", b"b", b"d", b"u", b"s", b"f"


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
        site.open_own()
        made = datetime.fromtimestamp(plan.made, UTC)
        data = artifacts.encode(PLAN_SCHEMA, plan, now=made, indent=0)
        below = site.below
        # The states first: a plan without them was never begun.
        self._states = below.create(f"{site.own}/state")
        os.write(self._states, PENDING * len(plan.actions))
        os.fsync(self._states)
        below.write(f"{site.own}/plan.json", data)

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
    """

    plan: Plan | None = None
    states: bytes | None = None
    writer: str = ""
    schema: str = ""


def read(below: Below, change: str) -> Left:
    """What a change left; None for what is not there or cannot be read."""
    plan = states = envelope = None
    with contextlib.suppress(OSError, ArtifactError, msgspec.DecodeError):
        name = f"{OWN}/{change}/plan.json"
        data = below.read(name, 1 << 31)
        envelope = msgspec.json.decode(data, type=artifacts.Envelope)
        plan = artifacts.decode(data, PLAN_SCHEMA, Plan, source=name)
    with contextlib.suppress(OSError):
        states = below.read(f"{OWN}/{change}/state", 1 << 31)
    return Left(
        plan=plan,
        states=states,
        writer=envelope.written_by if envelope else "",
        schema=envelope.schema if envelope else "",
    )
