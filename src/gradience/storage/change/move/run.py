"""Carry out a move, or go on with one that was cut off.

`change.apply` sets things aside in batches of thousands and looks at all processes twice; that fits
acts of microseconds below one root. A move is one act of hours on two disks, so it has a runner of
its own, on the same records: a plan with one action, its fingerprint checked again, a journal
beside what it makes, a receipt that says what was measured.

Until the swap nothing old is touched, so every failure ends in removing the copy. The swap is one
rename. After it the old tree is looked at once more: what was opened or changed in between is found
there, and the swap is taken back. Only then do the old bytes go.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gradience import artifacts, files
from gradience.errors import ArtifactError, GradienceError, StorageError
from gradience.files.below import NO_EXCHANGE, Below, Removed
from gradience.storage.change import fingerprint
from gradience.storage.change.apply import free_bytes
from gradience.storage.change.doubts import words
from gradience.storage.change.meter import Progress
from gradience.storage.change.move import ends as state
from gradience.storage.change.move.both import Both
from gradience.storage.change.move.copy import Reached, no_step
from gradience.storage.change.move.ends import Ends, locked, opened
from gradience.storage.change.move.plan import check
from gradience.storage.change.move.tree import Node, look
from gradience.storage.change.move.ways import Bring, Copying, Pouring, Way
from gradience.storage.change.records import (
    PLAN_SCHEMA,
    Action,
    Disk,
    Outcome,
    Plan,
    Receipt,
    State,
    Tree,
    path_of,
    text_of,
)
from gradience.storage.change.site import NO_ROOM
from gradience.storage.environment import profile
from gradience.system.holders import Holders

_CHANGED = "it changed while it was copied"


class _LeftError(Exception):
    """It was left as it was, or brought back there; why."""


@dataclass(slots=True)
class _Done:
    """What came of it."""

    state: State = "done"
    removed: Removed = field(default_factory=Removed)
    taken: int = 0  # bytes of the same disk, for directories that had to be made
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def move(
    plan: Plan,
    *,
    holders: Callable[[], Holders],
    environ: Mapping[str, str],
    home: Path,
    progress: Progress | None = None,
    reached: Reached = no_step,
) -> Receipt:
    """Carry out the plan of a move.

    Parameters
    ----------
    holders : callable
        Who has which files open, now: `system.holders`.
    reached : callable, optional
        Called with the name of every step that changed a disk, after it.

    Raises
    ------
    StorageError
        If an end is gone, or another process changes it now; if there is no room.
    ArtifactError
        If the plan has other acts too.
    """
    start = time.perf_counter()
    if len(plan.actions) != 1 or len(plan.items) != 1:
        raise ArtifactError(f"{plan.id!r} is more than one move", remedy="Make the plan again.")
    action = plan.actions[0]
    old, new = path_of(action.where), path_of(action.target)
    done = _Done()
    files.make_dir(Path(new).parent)
    with opened(old, new) as ends:
        disks = [ends.source.root, ends.target.root]
        before = [free_bytes(path) for path in disks]
        top = ends.source.status(ends.top) if ends.is_dir(ends.source, ends.top) else None
        with locked(ends):
            way = (Pouring if plan.title == "merge" else Copying)(
                ends=ends, environ=environ, home=home, progress=progress, reached=reached
            )
            mover = _Mover(
                ends=ends,
                plan=plan,
                holders=holders,
                way=way,
                reached=reached,
            )
            try:
                mover.run(action, top, done)
            except _LeftError as error:
                done.reasons.append(str(error))
                done.state = "skipped" if done.state == "done" else done.state
    if done.state == "done":
        done.notes += _update_profiles(old, new, environ, home)
        done.notes.append(f"{text_of(old)} is a link to {text_of(new)} now.")
    return _receipt(plan, done, dict(zip(disks, before, strict=True)), time.perf_counter() - start)


def _receipt(plan: Plan, done: _Done, before: Mapping[str, int], seconds: float) -> Receipt:
    (item,) = plan.items
    freed = max(0, done.removed.bytes - done.taken)
    outcome = Outcome(
        item=0,
        name=item.name,
        kind=item.kind,
        what=item.what,
        state=done.state,
        freed=freed,
        names=done.removed.names,
        reasons=tuple(done.reasons),
    )
    return Receipt(
        plan=plan.id,
        title=plan.title,
        outcomes=(outcome,),
        freed=freed,
        planned=plan.frees_bytes,
        disks=tuple(
            Disk(path=text_of(path), free_before=free, free_after=free_bytes(path))
            for path, free in before.items()
        ),
        seconds=seconds,
        notes=tuple(done.notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mover:
    """One move, its ends held open and locked."""

    ends: Ends
    plan: Plan
    holders: Callable[[], Holders]
    way: Way
    reached: Reached

    def run(self, action: Action, top: os.stat_result | None, done: _Done) -> None:
        """Everything, from the check of what the plan saw to the end of the old bytes."""
        ends = self.ends
        if top is None:
            raise _LeftError("it is gone, or no directory any more")
        nodes = self._as_planned(action, top)
        if why := self.way.obstacle():
            raise _LeftError(why)
        one_disk = ends.source.device == ends.target.device
        if one_disk and not self.way.merges and self._rename():
            ends.forget()  # of an earlier try that was to merge, say
            return
        self._copy_or_leave(nodes, action.fingerprint.tree, done)
        self._swap(nodes, top, action.fingerprint.tree, done)
        finish(ends, done.removed, self.reached)

    def _as_planned(self, action: Action, top: os.stat_result) -> list[Node]:
        try:
            nodes, tree = look(self.ends.source, self.ends.top)
        except OSError as error:
            raise _LeftError(words(error)) from error
        if tree != action.fingerprint.tree or not fingerprint.same_inode(top, action.fingerprint):
            raise _LeftError("it changed after the plan was made")
        try:
            check(self.ends, nodes, self.holders())
        except StorageError as error:
            raise _LeftError(str(error)) from error
        return nodes

    def _rename(self) -> bool:
        """On one disk: put a link at the new place, and swap the two, in one step."""
        ends = self.ends
        try:
            ends.make_way()
            ends.target.symlink(ends.new, ends.name)  # to itself, and soon to the directory there
            self.reached("linked")
            try:
                ends.source.exchange(ends.top, ends.name, ends.target)
            except OSError as error:
                ends.target.remove(ends.name, Removed())
                if error.errno == errno.EXDEV:
                    return False  # two subvolumes, or a directory of an image's layer
                if error.errno not in NO_EXCHANGE:
                    raise
                self._rename_and_link()
        except OSError as error:
            raise _LeftError(_why(error)) from error
        self._sync()
        self.reached("swapped")
        return True

    def _rename_and_link(self) -> None:
        """Where names cannot be swapped: rename, then link; a kill in between is found later."""
        ends = self.ends
        self._begin()
        ends.source.move(ends.top, ends.name, ends.target)
        self.reached("renamed")
        try:
            ends.source.symlink(ends.new, ends.top)
        except OSError:
            ends.target.move(ends.name, ends.top, ends.source)
            raise
        finally:
            ends.forget()

    def _begin(self) -> None:
        """The journal: plan and state; what an earlier try copied stays."""
        ends = self.ends
        ends.begin_own(merges=self.way.merges)
        with contextlib.suppress(FileNotFoundError):
            ends.target.remove(f"{ends.own}/plan.json", Removed())
        made = datetime.fromtimestamp(self.plan.made, UTC)
        data = artifacts.encode(PLAN_SCHEMA, self.plan, now=made, indent=0)
        ends.target.write(f"{ends.own}/plan.json", data)
        ends.reach(state.COPYING)
        self.reached("begun")

    def _make_copy(self, bring: Bring, planned: Tree | None, done: _Done) -> str:
        """Copy and verify; why the copy is not what is there, "" if it is."""
        self._begin()
        why, done.taken = bring()
        _, after = look(self.ends.source, self.ends.top)
        return why if after == planned else _CHANGED

    def _copy_or_leave(self, nodes: list[Node], planned: Tree | None, done: _Done) -> None:
        """Make the copy; where the disk is full it goes again, else it is kept for another try."""
        try:
            why = self._make_copy(self.way.ready(nodes), planned, done)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise self._left(_why(error)) from error
            self.ends.forget()
            self.reached("dropped")
            raise _full(error, self.ends.target, self.way.filled) from error
        if why:
            raise self._left(why)

    def _left(self, why: str) -> _LeftError:
        self.way.stop()
        return _LeftError(f"{why}; {self.way.kept}")

    def _swap(
        self, nodes: list[Node], top: os.stat_result, planned: Tree | None, done: _Done
    ) -> None:
        """Put the copy in its place and the link at the old one; take it back on any doubt."""
        ends = self.ends
        written = ends.target
        try:
            self.way.place(top)
            written = ends.source
            check(ends, nodes, self.holders())
            # The last thing before the swap, and short: a writer that began since the copy was
            # made may not have had one of its files open just now.
            self._unchanged(planned)
            self._put_link()
        except (OSError, StorageError) as error:
            done.state = "undone"
            unplace(ends, _why(error))
            left = self._left(_why(error))
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise _full(error, written, self.way.kept) from error
            raise left from error
        self.reached("swapped")
        if why := doubt(ends, planned, self.holders):
            done.state = "undone"
            take_back(ends, why)
            raise self._left(f"{why}{self.way.late()}")
        with contextlib.suppress(OSError):  # full by now: the disks themselves say it
            ends.reach(state.SWAPPED)
        self._sync()

    def _unchanged(self, planned: Tree | None) -> None:
        if look(self.ends.source, self.ends.top)[1] != planned:
            raise OSError(0, _CHANGED)

    def _put_link(self) -> None:
        ends = self.ends
        ends.source.symlink(ends.new, ends.aside)
        self.reached("linked")
        try:
            ends.source.exchange(ends.top, ends.aside)
        except OSError as error:
            ends.source.remove(ends.aside, Removed())
            if error.errno not in NO_EXCHANGE:
                raise
            ends.source.move(ends.top, ends.aside)
            self.reached("renamed")
            ends.source.symlink(ends.new, ends.top)

    def _sync(self) -> None:
        self.ends.source.sync_dir()
        self.ends.target.sync_dir()


def _why(error: OSError | StorageError) -> str:
    """Why, with the name where that is told: of two, the one that was to be made."""
    name = error.filename2 or error.filename if isinstance(error, OSError) else None
    return f"{text_of(name)}: {words(error)}" if isinstance(name, str) else words(error)


def _full(error: OSError, below: Below, kept: str) -> StorageError:
    return StorageError(
        f"{text_of(below.root)}: {words(error)}; {kept}, and nothing of the old was touched",
        remedy="Free some there (gradience cache clean), or name another place.",
    )


def finish(ends: Ends, removed: Removed, reached: Reached = no_step) -> None:
    """Let the old bytes go, and forget the move.

    Not before that is written down: half of them is not what a later look would know again.
    """
    try:
        ends.reach(state.REMOVING)
        reached("removing")
        ends.inner.close()
        if ends.source.exists(ends.aside):
            ends.source.remove(ends.aside, removed)
    except OSError as error:
        raise StorageError(
            f"{text_of(ends.old)} is a link to {text_of(ends.new)} now, but what was there "
            f"cannot be removed: {words(error)}",
            remedy="Give the same command again when that is mended; or remove "
            f"{text_of(ends.source.root)}/{text_of(ends.aside)} as its owner.",
        ) from error
    reached("removed")
    ends.forget()
    reached("forgotten")


def doubt(ends: Ends, planned: Tree | None, holders: Callable[[], Holders]) -> str:
    """Why the old tree, out of the way by now, must not go: changed, open, or not replaced by us.

    A change is seen sooner than a process: the sooner it is back, the less its writer notices.
    """
    if not ends.has_link():
        return f"something else is at {text_of(ends.old)} by now"
    try:
        nodes, tree = look(ends.source, ends.aside)
        if tree != planned:
            return _CHANGED
        if why := _lacks(ends, nodes):
            return why
        check(ends, nodes, holders())
    except (OSError, StorageError) as error:
        return words(error)
    return ""


def _lacks(ends: Ends, nodes: list[Node]) -> str:
    """Why the new place is not what was swapped in: somebody removed or replaced it since."""
    if not ends.is_dir(ends.target, ends.name):
        return f"{text_of(ends.new)} is gone"
    both = Both.of(ends, nodes, top=ends.aside)
    lost = both.absent() or both.differing()
    return f"{text_of(ends.new)} lacks {text_of(lost[0].name)}" if lost else ""


def take_back(ends: Ends, why: str) -> None:
    """Swap back, unless something was written at the new place already: then both stay.

    Raises
    ------
    StorageError
        If both stay.
    """
    if not ends.has_link() or not (ends.merges or ends.copy_untouched()):
        raise _both(ends, ends.aside, why)
    try:
        ends.source.exchange(ends.top, ends.aside)
        ends.source.unlink(ends.aside)
    except OSError as error:
        if error.errno not in NO_EXCHANGE:
            raise _both(ends, ends.aside, why) from error
        ends.source.unlink(ends.top)
        ends.source.move(ends.aside, ends.top)
    unplace(ends, why)


def unplace(ends: Ends, why: str) -> None:
    """Take the copy from its place, unless somebody wrote to it there; what was merged stays.

    Raises
    ------
    StorageError
        If both stay.
    """
    if ends.says(ends.source, ends.aside):
        ends.source.unlink(ends.aside)
    if (
        not ends.merges
        and ends.is_dir(ends.target, ends.name)
        and not ends.target.exists(ends.copy)
    ):
        if not ends.copy_untouched():
            raise _both(ends, ends.top, why)
        ends.target.move(ends.name, ends.copy)
    with contextlib.suppress(OSError):  # as above
        ends.reach(state.COPYING)


def _both(ends: Ends, name: str, why: str) -> StorageError:
    old, new = f"{ends.source.root}/{name}", ends.new
    return StorageError(
        f"{why}, and somebody wrote to {text_of(new)} already: both are kept, the old one as "
        f"{text_of(old)}",
        remedy=f"See what differs (diff -r --no-dereference '{text_of(old)}' '{text_of(new)}'), "
        "copy it over, and remove the old one.",
    )


def _update_profiles(old: str, new: str, environ: Mapping[str, str], home: Path) -> list[str]:
    try:
        changed = profile.renamed(old, new, environ, home)
    except GradienceError as error:
        return [f"{error}: it still names {text_of(old)}, which leads to the new place."]
    return [f"{path} names {text_of(new)} now; new shells have it." for path in changed]
