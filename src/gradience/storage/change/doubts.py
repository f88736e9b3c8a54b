"""What speaks against an act, now: who has it open, how it differs from the plan, who asks for it.

Asked before an act, again when the thing was set aside and nobody can reach it any more, and after
a crash. An answer is a part of a sentence, "" where nothing speaks against it.
"""

import os
from collections.abc import Callable, Sequence

from gradience.errors import StorageError
from gradience.storage.change import fingerprint
from gradience.storage.change.guards import GUARDS
from gradience.storage.change.records import Action, Fingerprint
from gradience.storage.change.site import Site
from gradience.storage.change.verbs import VERBS
from gradience.system.holders import Holders

Unit = tuple[int, ...]  # indexes of the actions that are done together
_CHANGED = "it changed after the plan was made"


class StaysError(OSError):
    """A process has it open, or it changed: no fault of the disk."""

    def __init__(self, sentence: str) -> None:
        super().__init__(0, sentence)


def words(error: OSError | StorageError) -> str:
    """Why, as a part of a sentence."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


class Doubts:
    """The doubts about acts below one root.

    Parameters
    ----------
    holders : callable
        Who has which files open, now: `system.holders`.
    """

    def __init__(self, site: Site, holders: Callable[[], Holders]) -> None:
        self._site = site
        self._holders = holders
        self._held = Holders()

    def look(self) -> None:
        """Look at all processes anew."""
        self._held = self._holders()

    def open_already(self, action: Action) -> str:
        """Who has it open; what lies in a directory only where that is to be removed at once.

        Elsewhere it is looked at when the directory was set aside: `aside`.
        """
        try:
            if self._site.in_place and action.fingerprint.tree is not None:
                self._take(action.name)
            else:
                self._refuse_held(action.name, self._site.below.status(action.name))
        except StaysError as error:
            return words(error)
        except OSError:
            pass  # `before` says why
        return ""

    def early(self, action: Action) -> str:
        """Why its whole group stays, before anything of it is done."""
        try:
            return GUARDS[action.guard].early(action, self._site)
        except OSError as error:
            return words(error)

    def before(self, action: Action) -> str:
        """Why an act must not be done.

        Raises
        ------
        OSError
            If that cannot be seen.
        """
        return self.changed(action) or VERBS[action.verb].check(action, self._site)

    def changed(self, action: Action) -> str:
        """How a name differs from what the plan saw; of what is removed at once, all of it."""
        try:
            status = self._site.below.status(action.name)
        except (FileNotFoundError, NotADirectoryError):
            return "it is gone"
        if not VERBS[action.verb].exact:
            return "" if fingerprint.same_inode(status, action.fingerprint) else _CHANGED
        if not fingerprint.same(status, action.fingerprint):
            return _CHANGED
        if self._site.in_place and self._take(action.name) != action.fingerprint:
            return _CHANGED
        return ""

    def aside(self, action: Action) -> str:
        """Why a thing that was set aside goes back: it is open, or not what the plan saw."""
        name = VERBS[action.verb].where(action, self._site)
        if not name:
            return ""
        try:
            found = self._take(name)
        except OSError as error:
            return words(error)
        return "" if fingerprint.is_moved(found, action.fingerprint) else _CHANGED

    def left_aside(self, action: Action) -> str:
        """As `aside`, after a crash: a directory that lacks names may be half removed, and goes."""
        try:
            name = VERBS[action.verb].where(action, self._site)
            found = self._take(name) if name else None
        except StaysError as error:
            return words(error)
        except OSError:
            return ""
        planned = action.fingerprint
        if found is None or fingerprint.is_moved(found, planned):
            return ""
        begun = found.tree and planned.tree and found.tree.names < planned.tree.names
        return "" if begun else _CHANGED

    def wanted_of(self, unit: Unit, actions: Sequence[Action]) -> str:
        """Why something that stayed asks for a thing of a unit."""
        return next(filter(None, (self.wanted(actions[index]) for index in unit)), "")

    def wanted(self, action: Action) -> str:
        """Why something that stayed asks for what was set aside; not where its name is there again.

        A blob that was downloaded anew meanwhile, say: the links lead to that one.
        """
        there = self._site.below.exists(action.name)
        if there or not VERBS[action.verb].where(action, self._site):
            return ""
        try:
            return GUARDS[action.guard].wanted(action, self._site)
        except OSError as error:
            return words(error)

    def _take(self, name: str) -> Fingerprint:
        return fingerprint.take(self._site.below, name, self._refuse_held)

    def _refuse_held(self, name: str, status: os.stat_result) -> None:
        if (holder := self._held.of(status, name)) is not None:
            raise StaysError(holder.sentence)


def put_back(
    done: Sequence[Unit], why: Callable[[Unit], str], undo: Callable[[Unit, str], None]
) -> list[Unit]:
    """Undo the units that something speaks against; what is left, and may be made final.

    Asked again after each round: a blob that is back asks for the shared bytes that it leads to.
    """
    left = list(done)
    while True:
        before, left = left, []
        # The last first: what came before in a group may need what came after.
        for unit in reversed(before):
            if reason := why(unit):
                undo(unit, reason)
            else:
                left.append(unit)
        left.reverse()
        if len(left) == len(before):
            return left
