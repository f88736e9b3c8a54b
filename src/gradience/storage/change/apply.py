"""Carry out a plan: check again, do, look who had it open, make final, and say what came of it.

The acts are done in batches. Within a batch every unit is set aside first; then one look at all
processes finds what was open before, and that goes back with its whole group; then the rest is made
final. Nothing between a check and an act can be missed: what is set aside has no name to open.
"""

import contextlib
import errno
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from gradience.errors import ArtifactError, StorageError
from gradience.files.below import Below, Removed
from gradience.storage.change import fingerprint, journal
from gradience.storage.change.guards import GUARDS
from gradience.storage.change.journal import DiskJournal, Journal, NoJournal
from gradience.storage.change.meter import Meter, Progress
from gradience.storage.change.records import (
    Action,
    Disk,
    Outcome,
    Plan,
    Receipt,
    State,
    path_of,
    text_of,
    units,
)
from gradience.storage.change.recover import settle
from gradience.storage.change.site import NO_ROOM, OWN, THINGS, Site
from gradience.storage.change.verbs import VERBS
from gradience.system.holders import Holders

_ID = re.compile(r"[\w-]{1,100}")
_CHANGED = "it changed after the plan was made"
_BATCH = 2000  # acts between two looks at all processes, which take some milliseconds


@dataclass(slots=True)
class _Tally:
    """What came of one item so far."""

    freed: int = 0
    names: int = 0
    undone: bool = False
    failed: bool = False
    reasons: dict[str, None] = field(default_factory=dict)


def apply(
    plan: Plan,
    *,
    holders: Callable[[], Holders],
    new_journal: Callable[[], Journal] = DiskJournal,
    in_place: bool = False,
    progress: Progress | None = None,
) -> Receipt:
    """Carry out a plan.

    Parameters
    ----------
    holders : callable
        Who has which files open, now: `system.holders`.
    new_journal : callable
        Makes the journal of one root.
    in_place : bool
        Remove things where they are and write nothing: for a disk without a free byte. What cannot
        be done so is refused.
    progress : callable, optional
        Called with a stage, acts done, and acts in all.

    Raises
    ------
    StorageError
        If no root could be changed: it is gone, read-only, or another process changes it now.
        Where that holds for some roots only, the receipt says so.
    UnknownNameError, ArtifactError
        If the plan has a verb or a guard that this release does not know, or contradicts itself.
    """
    _check_plan(plan)
    start = time.perf_counter()
    tallies: dict[int, _Tally] = defaultdict(_Tally)
    before = {root: free_bytes(path_of(root)) for root in plan.roots()}
    notes: list[str] = []
    trash: list[str] = []
    meter = _meter(plan, progress)
    errors: list[StorageError] = []
    for root in plan.roots():
        run = _Run(_part(plan, root), holders, tallies, progress)
        try:
            with _site(root, plan) as site:
                site.on_bytes = meter.add if meter is not None else None
                notes += settle(site.below, holders)
                if run.all(site, NoJournal() if in_place else new_journal()):
                    trash.append(f"{root}/{site.own}")
        except StorageError as error:
            errors.append(error)
            run.refused(str(error))
        notes += run.notes
    if errors and len(errors) == len(before):
        raise errors[0]
    outcomes = tuple(_outcome(plan, index, tallies[index]) for index in range(len(plan.items)))
    return Receipt(
        plan=plan.id,
        title=plan.title,
        outcomes=outcomes,
        freed=sum(outcome.freed for outcome in outcomes),
        planned=plan.frees_bytes,
        disks=tuple(
            Disk(path=root, free_before=free, free_after=free_bytes(path_of(root)))
            for root, free in before.items()
        ),
        seconds=time.perf_counter() - start,
        notes=tuple(dict.fromkeys(notes)),
        trash=tuple(trash),
    )


def _check_plan(plan: Plan) -> None:
    for action in plan.actions:
        _ = VERBS[action.verb], GUARDS[action.guard]
        if not 0 <= action.item < len(plan.items):
            raise ArtifactError(
                f"{action.where} belongs to no item of the plan", remedy="Make the plan again."
            )
    if not _ID.fullmatch(plan.id):
        raise ArtifactError(f"{plan.id!r} is no id of a plan", remedy="Make the plan again.")


def _meter(plan: Plan, progress: Progress | None) -> Meter | None:
    """A bar over the bytes that are compared, where any are."""
    sizes = [a.fingerprint.size for a in plan.actions if a.target]
    return Meter(progress, "comparing", sum(sizes)) if sizes else None


def _part(plan: Plan, root: str) -> Plan:
    """The acts below one root."""
    actions = tuple(action for action in plan.actions if action.root == root)
    return msgspec.structs.replace(plan, actions=actions)


@contextlib.contextmanager
def _site(root: str, plan: Plan) -> Iterator[Site]:
    """A root, opened and locked."""
    path = path_of(root)
    try:
        below = Below(path)
    except OSError as error:
        raise StorageError(
            f"{root} cannot be opened: {error.strerror}", remedy="Make a new plan."
        ) from error
    with below:
        site = Site(below, plan.id, min_age=plan.min_age)
        with site.locked() as ours:
            if ours is False:
                raise StorageError(
                    f"another process changes {root} now",
                    remedy="Wait until that `gradience cache` command has ended.",
                )
            yield site


class _Run:
    """The acts of a plan below one root."""

    site: Site

    def __init__(
        self,
        plan: Plan,
        holders: Callable[[], Holders],
        tallies: dict[int, _Tally],
        progress: Progress | None,
    ) -> None:
        self.plan = plan
        self.holders = holders
        self.tallies = tallies
        self.progress = progress
        self.journal: Journal = NoJournal()
        self.notes: list[str] = []
        self.held: Holders | None = None

    def all(self, site: Site, chosen: Journal) -> bool:
        """Do everything below a root; whether something stays in the trash."""
        self.site = site
        self._begin(chosen)
        self._batches()
        site.close_own()
        kept = site.below.exists(f"{site.own}/{THINGS}")
        self.journal.end(keep=kept)
        return kept

    def refused(self, why: str) -> None:
        """Note that nothing could be done below this root."""
        for action in self.plan.actions:
            self._failed(action, why)

    def _begin(self, chosen: Journal) -> None:
        """Open the journal; without room for one, only what needs none is done."""
        self.journal = chosen
        try:
            chosen.begin(self.site, self.plan)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise StorageError(
                    f"{text_of(self.site.below.root)}/{OWN} cannot be written: {error.strerror}",
                    remedy="Run it as the owner of that directory.",
                ) from error
            self._no_room()
        if self.site.in_place:
            self._only_verbs_without_journal()

    def _no_room(self) -> None:
        self.journal.end(keep=False)
        self.journal = NoJournal()
        self.journal.begin(self.site, self.plan)
        self.notes.append(
            f"{text_of(self.site.below.root)}: no room for a journal, so things were removed one "
            "by one, in an order that leaves no broken link behind."
        )

    def _only_verbs_without_journal(self) -> None:
        for action in self.plan.actions:
            if VERBS[action.verb].needs_journal:
                raise StorageError(
                    f"{text_of(self.site.below.root)} has no room for what {action.verb} keeps",
                    remedy="Free some bytes first: gradience cache clean --emergency.",
                )

    def _batches(self) -> None:
        batch: list[tuple[int, ...]] = []
        size = 0
        for unit in units(self.plan.actions):
            full = size >= _BATCH and self._group(unit) != self._group(batch[-1])
            if full:
                self._batch(batch)
                batch, size = [], 0
            batch.append(unit)
            size += len(unit)
        self._batch(batch)

    def _group(self, unit: tuple[int, ...]) -> int:
        return self.plan.actions[unit[0]].group

    def _batch(self, batch: Sequence[tuple[int, ...]]) -> None:
        self.held = self.holders()
        busy = self._busy(batch)
        done = [unit for unit in batch if not self._leave(unit, busy) and self._do(unit)]
        if not done:
            return
        self._wait(done)
        self.held = self.holders()
        done = self._put_back_what_is_held(done)
        for unit in done:
            self._finish(unit)
        if self.progress is not None and done:
            self.progress("changing", done[-1][-1] + 1, len(self.plan.actions))

    def _busy(self, batch: Sequence[tuple[int, ...]]) -> dict[int, str]:
        """Groups of which something is open already; it spares moving them back and forth.

        What lies in a directory is looked at when that has been set aside; before, only where
        things are removed at once.
        """
        busy: dict[int, str] = {}
        for unit in batch:
            for index in unit:
                action = self.plan.actions[index]
                try:
                    if self.site.in_place and action.fingerprint.tree is not None:
                        fingerprint.take(self.site.below, action.name, self._refuse_held)
                    else:
                        self._refuse_held(action.name, self.site.below.status(action.name))
                except _HeldError as error:
                    busy[action.group] = words(error)
                except OSError:
                    continue  # the check of the act itself says why
        return busy

    def _leave(self, unit: tuple[int, ...], busy: Mapping[int, str]) -> bool:
        """Whether a unit stays because its group is in use."""
        why = busy.get(self._group(unit))
        if why is not None:
            self._skip(unit, self.plan.actions[unit[0]], why)
        return why is not None

    def _wait(self, done: Sequence[tuple[int, ...]]) -> None:
        """Let those who waited for a lock of ours come to light."""
        actions = self.plan.actions
        aside = [] if self.site.in_place else [actions[i] for unit in done for i in unit]
        time.sleep(max((GUARDS[action.guard].grace for action in aside), default=0.0))

    def _do(self, unit: tuple[int, ...]) -> bool:
        """Check and do the acts of a unit under their guards; whether all were done."""
        actions = self.plan.actions
        with contextlib.ExitStack() as guards:
            try:
                for index in unit:
                    action = actions[index]
                    why = guards.enter_context(GUARDS[action.guard].hold(action, self.site))
                    if why := why or self._changed(action) or self._check(action):
                        self._skip(unit, action, why)
                        return False
            except OSError as error:
                self._skip(unit, action, words(error))
                return False
            return self._do_all(unit)

    def _do_all(self, unit: tuple[int, ...]) -> bool:
        for position, index in enumerate(unit):
            action = self.plan.actions[index]
            self.journal.step(index, journal.BEGUN)
            try:
                removed = self._act(action)
            except OSError as error:
                self.tallies[action.item].failed |= error.errno not in (errno.ENOTEMPTY, 0)
                self._skip(unit[position:], action, words(error))
                self._undo(unit[:position])
                return False
            self._count(action, removed)
            self.journal.step(index, journal.DONE)
        return True

    def _act(self, action: Action) -> Removed:
        """Do an act; in place where no byte is left even for a rename, after the look that needs.

        Raises
        ------
        OSError
            If the file system refuses, or what is to be removed at once is open or has changed.
        """
        verb = VERBS[action.verb]
        try:
            return verb.do(action, self.site)
        except OSError as error:
            if self.site.in_place or verb.needs_journal or error.errno not in NO_ROOM:
                raise
        self.site.in_place = True  # what is left of this change needs no room either
        self.held = self.holders()
        if why := self._changed(action):
            raise _HeldError(why)
        return verb.do(action, self.site)

    def _changed(self, action: Action) -> str:
        """How a name differs from what the plan saw."""
        try:
            status = self.site.below.status(action.name)
        except (FileNotFoundError, NotADirectoryError):
            return "it is gone"
        if not VERBS[action.verb].exact:
            return "" if fingerprint.same_inode(status, action.fingerprint) else _CHANGED
        if not fingerprint.same(status, action.fingerprint):
            return _CHANGED
        # A tree is compared when it has been set aside, and nobody can reach it; here only where
        # it is removed at once.
        if self.site.in_place:
            found = fingerprint.take(self.site.below, action.name, self._refuse_held)
            if found != action.fingerprint:
                return _CHANGED
        return ""

    def _check(self, action: Action) -> str:
        return VERBS[action.verb].check(action, self.site)

    def _refuse_held(self, name: str, status: os.stat_result) -> None:
        holder = self.held.of(status, name) if self.held is not None else None
        if holder is not None:
            raise _HeldError(holder.sentence)

    def _put_back_what_is_held(self, done: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Undo the groups of which something is open or changed, and units that are asked for."""
        back: dict[int, str] = {}
        for unit in done:
            for index in unit:
                action = self.plan.actions[index]
                if action.group not in back and (why := self._trouble(action)):
                    back[action.group] = why
        left = []
        # The last first: what came before in a group may need what came after.
        for unit in reversed(done):
            why = back.get(self._group(unit)) or self._asked_for(unit)
            if why:
                self._tell(self.plan.actions[unit[0]], why)
                self._undo(unit)
            else:
                left.append(unit)
        return left[::-1]

    def _trouble(self, action: Action) -> str:
        """Why a thing that was set aside goes back: it is open, or not what the plan saw."""
        name = VERBS[action.verb].where(action, self.site)
        if not name:
            return ""
        try:
            found = fingerprint.take(self.site.below, name, self._refuse_held)
        except OSError as error:
            return words(error)
        if found.tree != action.fingerprint.tree or found.inode != action.fingerprint.inode:
            return _CHANGED
        return ""

    def _asked_for(self, unit: tuple[int, ...]) -> str:
        for index in unit:
            action = self.plan.actions[index]
            if VERBS[action.verb].where(action, self.site):
                try:
                    why = GUARDS[action.guard].wanted(action, self.site)
                except OSError as error:
                    why = words(error)
                if why:
                    return why
        return ""

    def _undo(self, unit: tuple[int, ...]) -> None:
        for index in reversed(unit):
            action = self.plan.actions[index]
            self.tallies[action.item].undone = True
            try:
                VERBS[action.verb].undo(action, self.site)
            except OSError as error:
                self._failed(action, f"lies in {self.site.own} now: {words(error)}")
                continue
            self.journal.step(index, journal.UNDONE)

    def _finish(self, unit: tuple[int, ...]) -> None:
        for index in unit:
            action = self.plan.actions[index]
            try:
                removed = VERBS[action.verb].finish(action, self.site)
            except OSError as error:
                self._failed(action, words(error))
                continue
            self._count(action, removed)
            self.journal.step(index, journal.FINISHED)

    def _failed(self, action: Action, why: str) -> None:
        self.tallies[action.item].failed = True
        self._tell(action, why)

    def _count(self, action: Action, removed: Removed) -> None:
        tally = self.tallies[action.item]
        tally.freed += removed.bytes
        tally.names += removed.names

    def _skip(self, unit: tuple[int, ...], action: Action, why: str) -> None:
        for index in unit:
            self.journal.step(index, journal.SKIPPED)
        self._tell(action, why)

    def _tell(self, action: Action, why: str) -> None:
        self.tallies[action.item].reasons[f"{action.where}: {why}"] = None


class _HeldError(OSError):
    """A process has it open, or it changed: no fault of the disk."""

    def __init__(self, sentence: str) -> None:
        super().__init__(0, sentence)


def words(error: OSError | StorageError) -> str:
    """Why, as a part of a sentence."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def free_bytes(path: str) -> int:
    """Free bytes of a disk, as it says itself; 0 where it does not."""
    try:
        space = os.statvfs(path)
    except OSError:
        return 0
    return space.f_bavail * space.f_frsize


def _outcome(plan: Plan, index: int, tally: _Tally) -> Outcome:
    item = plan.items[index]
    state: State = "done"
    if tally.failed:
        state = "failed"
    elif tally.undone:
        state = "undone"
    elif tally.reasons:
        state = "skipped"
    return Outcome(
        item=index,
        name=item.name,
        kind=item.kind,
        what=item.what,
        state=state,
        freed=tally.freed,
        names=tally.names,
        reasons=tuple(tally.reasons),
    )
