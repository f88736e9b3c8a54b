"""What a killed change left behind: units that were whole are made final, others are taken back.

So nothing is half-done: a ref that was set aside while its snapshot stayed goes back; a snapshot
that was set aside with its refs goes the way the user had agreed to. A change whose journal is lost
goes back as a whole: bringing things back is right whatever was meant.
"""

import contextlib
import os
from collections.abc import Callable

from gradience.files.below import Below
from gradience.storage.change import fingerprint, journal
from gradience.storage.change.guards import GUARDS
from gradience.storage.change.records import Action, Plan, text_of, units
from gradience.storage.change.site import OWN, THINGS, Site, changes
from gradience.storage.change.verbs import VERBS
from gradience.system.holders import Holders


def recover(root: str, holders: Callable[[], Holders]) -> list[str]:
    """Finish or take back every change of a root that was cut off; sentences that say so.

    Trash is not touched. Nothing happens while another process changes the root.

    Parameters
    ----------
    holders : callable
        Who has which files open, now: `system.holders`. What is open goes back.

    Raises
    ------
    OSError
        If the root cannot be opened.
    """
    with Below(root) as below:
        if not below.exists(OWN):
            return []
        with Site(below, "").locked() as ours:
            return [] if ours is False else settle(below, holders)


def settle(below: Below, holders: Callable[[], Holders]) -> list[str]:
    """As `recover`; the caller holds the root's lock."""
    notes = []
    for change in changes(below):
        plan, states = journal.read(below, change)
        site = Site(below, change)
        if plan is not None and states is not None:
            site.min_age = plan.min_age
            finished, undone = _settle(site, plan, states, holders())
            notes.append(
                f"A change of {text_of(below.root)} had been cut off ({change}): {finished} acts "
                f"were finished, {undone} taken back."
            )
        elif plan is None:
            notes += _lost(site)
    return notes


def _settle(site: Site, plan: Plan, states: bytes, held: Holders) -> tuple[int, int]:
    """Units that are wholly done are finished, in order; the others undone, from the last."""
    whole, broken = [], []
    busy = {action.group for action in plan.actions if _is_held(site, action, held)}
    for unit in units(plan.actions):
        marks = {states[index : index + 1] for index in unit}
        stays = plan.actions[unit[0]].group in busy or _wanted(site, plan, unit)
        if marks <= {journal.DONE, journal.FINISHED} and not stays:
            whole.append(unit)
        elif marks & {journal.BEGUN, journal.DONE}:
            broken.append(unit)
    undone = 0
    for unit in reversed(broken):
        for index in reversed(unit):
            action = plan.actions[index]
            with contextlib.suppress(OSError):
                VERBS[action.verb].undo(action, site)
            undone += 1
    finished = 0
    for unit in whole:
        for index in unit:
            action = plan.actions[index]
            with contextlib.suppress(OSError):
                VERBS[action.verb].finish(action, site)
            finished += 1
    site.close_own()
    journal.close(site, keep=site.below.exists(f"{site.own}/{THINGS}"))
    return finished, undone


def _is_held(site: Site, action: Action, held: Holders) -> bool:
    """Whether a process has something open of what was set aside."""
    name = VERBS[action.verb].where(action, site)
    found: list[str] = []

    def look(path: str, status: os.stat_result) -> None:
        if held.of(status, path) is not None:
            found.append(path)

    with contextlib.suppress(OSError):
        if name:
            fingerprint.take(site.below, name, look)
    return bool(found)


def _wanted(site: Site, plan: Plan, unit: tuple[int, ...]) -> bool:
    """Whether something that stayed asks for what was set aside."""
    for index in unit:
        action = plan.actions[index]
        if VERBS[action.verb].where(action, site):
            try:
                if GUARDS[action.guard].wanted(action, site):
                    return True
            except OSError:
                return True
    return False


def blobs_first(name: str) -> tuple[bool, bool, str]:
    """A key that sorts blobs before the snapshots that link to them, and refs to the end."""
    return "/blobs/" not in f"/{name}", "/refs/" in name, name


def _lost(site: Site) -> list[str]:
    """Bring back what lies in a change without a plan; blobs first, so that no link dangles."""
    found = site.set_aside_names()
    for name in sorted(found, key=blobs_first):
        with contextlib.suppress(OSError):
            site.bring_back(name)
    site.close_own()
    journal.close(site, keep=False)
    if not found:
        return []
    return [
        f"A change of {text_of(site.below.root)} had been cut off and its journal is gone ({OWN}/"
        f"{site.id}): {len(found)} things were put back."
    ]
