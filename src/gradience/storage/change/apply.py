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
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from gradience.errors import ArtifactError, StorageError
from gradience.files.below import Below, Removed
from gradience.storage.change import journal
from gradience.storage.change.doubts import Doubts, StaysError, Unit, put_back, words
from gradience.storage.change.guards import GUARDS
from gradience.storage.change.journal import DiskJournal, Journal, NoJournal
from gradience.storage.change.meter import Meter, Progress
from gradience.storage.change.records import (
    Action,
    Disk,
    Plan,
    Receipt,
    path_of,
    text_of,
    units,
)
from gradience.storage.change.recover import settle
from gradience.storage.change.site import NO_ROOM, OWN, RESERVED, Site
from gradience.storage.change.tallies import Tallies
from gradience.storage.change.verbs import VERBS
from gradience.system.holders import Holders

_ID = re.compile(r"[\w-]{1,100}", re.ASCII)
_NOT_AS_PLANNED = (
    0,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ESTALE,
    errno.ENOTEMPTY,
    errno.EILSEQ,
)
"""The disk is sound: it was removed, exchanged or written to since it was looked at."""
_BATCH = 2000  # acts between two looks at all processes, which take some milliseconds


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
    free = {root: free_bytes(path_of(root)) for root in plan.roots()}
    tallies = Tallies()
    runs = [_Run(_part(plan, root), holders, tallies, progress) for root in plan.roots()]
    meter = _meter(plan, progress)
    refused = []
    for run in runs:
        try:
            run.all(NoJournal() if in_place else new_journal(), meter)
        except StorageError as error:
            run.refused(error)
            refused.append(error)
    if refused and len(refused) == len(runs):
        raise refused[0]
    outcomes = tallies.outcomes(plan)
    return Receipt(
        plan=plan.id,
        title=plan.title,
        outcomes=outcomes,
        freed=sum(outcome.freed for outcome in outcomes),
        planned=plan.frees_bytes,
        disks=tuple(
            Disk(path=root, free_before=before, free_after=free_bytes(path_of(root)))
            for root, before in free.items()
        ),
        seconds=time.perf_counter() - start,
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
        trash=tuple(run.trash for run in runs if run.trash),
    )


def free_bytes(path: str) -> int:
    """Free bytes of a disk, as it says itself; 0 where it does not."""
    try:
        space = os.statvfs(path)
    except OSError:
        return 0
    return space.f_bavail * space.f_frsize


def _check_plan(plan: Plan) -> None:
    for action in plan.actions:
        _ = VERBS[action.verb], GUARDS[action.guard]
        if not 0 <= action.item < len(plan.items):
            raise ArtifactError(
                f"{action.where} belongs to no item of the plan", remedy="Make the plan again."
            )
    check_id(plan)


def check_id(plan: Plan) -> None:
    """Refuse an id that is no name of our own for files and directories.

    Raises
    ------
    ArtifactError
        If it leads elsewhere, or is taken.
    """
    if not _ID.fullmatch(plan.id) or plan.id in RESERVED:
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
def _site(plan: Plan) -> Iterator[Site]:
    """The root of a plan, opened and locked."""
    (root,) = plan.roots()
    path = path_of(root)
    try:
        below = Below(path)
    except OSError as error:
        raise StorageError(
            f"{root} cannot be opened: {error.strerror}", remedy="Make a new plan."
        ) from error
    with below:
        going = {action.name for action in plan.actions}
        site = Site(below, plan.id, min_age=plan.min_age, going=going)
        with site.locked() as ours:
            if ours is False:
                raise site.taken()
            yield site


class _Run:
    """The acts of a plan below one root.

    Attributes
    ----------
    notes : list of str
    trash : str
        Where something stays in the trash.
    """

    site: Site
    doubts: Doubts

    def __init__(
        self,
        plan: Plan,
        holders: Callable[[], Holders],
        tallies: Tallies,
        progress: Progress | None,
    ) -> None:
        self.plan = plan
        self.holders = holders
        self.tallies = tallies
        self.progress = progress
        self.journal: Journal = NoJournal()
        self.notes: list[str] = []
        self.trash = ""

    def all(self, chosen: Journal, meter: Meter | None) -> None:
        """Settle what was cut off before, then do everything below the root.

        Raises
        ------
        StorageError
            If nothing may be done there.
        """
        with _site(self.plan) as site:
            site.on_bytes = meter.add if meter is not None else None
            self.site, self.doubts = site, Doubts(site, self.holders)
            self.notes += settle(site.below, self.holders)
            self._begin(chosen)
            self._batches()
            kept = site.close_own()
            self.journal.end(keep=kept)
            if kept:
                self.trash = f"{text_of(site.below.root)}/{site.own}"

    def refused(self, error: StorageError) -> None:
        """Note that nothing could be done below this root."""
        for action in self.plan.actions:
            self.tallies.failed(action, str(error))

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
        self.site.close_own()
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
        batch: list[Unit] = []
        size = 0
        for unit in units(self.plan.actions):
            full = size >= _BATCH and self._group(unit) != self._group(batch[-1])
            if full:
                self._batch(batch)
                batch, size = [], 0
            batch.append(unit)
            size += len(unit)
        self._batch(batch)

    def _group(self, unit: Unit) -> int:
        return self.plan.actions[unit[0]].group

    def _batch(self, batch: Sequence[Unit]) -> None:
        self.doubts.look()
        busy = self._busy(batch)
        done = [unit for unit in batch if not self._leave(unit, busy) and self._do(unit)]
        if not done:
            return
        self._wait(done)
        self.doubts.look()
        done = self._put_back(done)
        for unit in done:
            self._finish(unit)
        if self.progress is not None and done:
            self.progress("changing", done[-1][-1] + 1, len(self.plan.actions))

    def _busy(self, batch: Sequence[Unit]) -> dict[int, str]:
        """Groups that stay from the start: something of them is open, or is being used anew."""
        actions = [self.plan.actions[index] for unit in batch for index in unit]
        early: dict[tuple[str, str], str] = {}
        found: dict[int, str] = {}
        for action in actions:
            alike = action.guard, action.name.rpartition("/")[0]
            if alike not in early:
                early[alike] = self.doubts.early(action)
            if why := early[alike] or self.doubts.open_already(action):
                found[action.group] = why
        return found

    def _leave(self, unit: Unit, busy: Mapping[int, str]) -> bool:
        """Whether a unit stays because its group is in use."""
        why = busy.get(self._group(unit))
        if why is not None:
            self._skip(unit, self.plan.actions[unit[0]], why)
        return why is not None

    def _wait(self, done: Sequence[Unit]) -> None:
        """Let those who waited for a lock of ours come to light."""
        actions = self.plan.actions
        aside = [] if self.site.in_place else [actions[i] for unit in done for i in unit]
        time.sleep(max((GUARDS[action.guard].grace for action in aside), default=0.0))

    def _do(self, unit: Unit) -> bool:
        """Check and do the acts of a unit under their guards; whether all were done."""
        actions = self.plan.actions
        with contextlib.ExitStack() as guards:
            try:
                for index in unit:
                    action = actions[index]
                    why = guards.enter_context(GUARDS[action.guard].hold(action, self.site))
                    if why := why or self.doubts.before(action):
                        self._skip(unit, action, why)
                        return False
            except OSError as error:
                self._skip(unit, action, words(error))
                return False
            return self._do_all(unit)

    def _do_all(self, unit: Unit) -> bool:
        for position, index in enumerate(unit):
            action = self.plan.actions[index]
            self.journal.step(index, journal.BEGUN)
            try:
                removed = self._act(action)
            except OSError as error:
                if error.errno not in _NOT_AS_PLANNED:
                    self.tallies.failed(action, words(error))
                self._skip(unit[position:], action, words(error))
                self._undo(unit[:position])
                return False
            self.tallies.count(action, removed)
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
        self.doubts.look()
        if why := self.doubts.changed(action):
            raise StaysError(why)
        return verb.do(action, self.site)

    def _put_back(self, done: list[Unit]) -> list[Unit]:
        """Undo the groups of which something is open or changed, and units that are asked for."""
        actions = self.plan.actions
        back: dict[int, str] = {}
        for action in (actions[index] for unit in done for index in unit):
            if action.group not in back and (found := self.doubts.aside(action)):
                back[action.group] = found

        # A kill from here on must not make a unit final of which others are back already.
        for index in (index for unit in done if self._group(unit) in back for index in unit):
            self.journal.step(index, journal.BEGUN)

        def why(unit: Unit) -> str:
            return back.get(self._group(unit)) or self.doubts.wanted_of(unit, actions)

        def undo(unit: Unit, reason: str) -> None:
            self.tallies.stayed(actions[unit[0]], reason)
            self._undo(unit)

        return put_back(done, why, undo)

    def _undo(self, unit: Unit) -> None:
        for index in reversed(unit):
            action = self.plan.actions[index]
            try:
                back = VERBS[action.verb].undo(action, self.site)
            except OSError as error:
                self.tallies.undone(action, Removed())
                self.tallies.failed(action, f"lies in {self.site.own} now: {words(error)}")
                continue
            self.tallies.undone(action, back)
            self.journal.step(index, journal.UNDONE)

    def _finish(self, unit: Unit) -> None:
        for index in unit:
            action = self.plan.actions[index]
            self.journal.step(index, journal.FINAL)
            try:
                removed = VERBS[action.verb].finish(action, self.site)
            except OSError as error:
                what_is_left = f"what is left of it lies in {self.site.own} now"
                self.tallies.failed(action, f"{what_is_left}: {words(error)}")
                continue
            self.tallies.count(action, removed)

    def _skip(self, unit: Unit, action: Action, why: str) -> None:
        for index in unit:
            self.journal.step(index, journal.SKIPPED)
        self.tallies.stayed(action, why)
