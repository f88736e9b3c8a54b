"""What a killed change left behind: units that were whole are made final, others are taken back.

So nothing is half-done: a ref that was set aside while its snapshot stayed goes back; a snapshot
that was set aside with its refs goes the way the user had agreed to. A change whose journal is lost
goes back as a whole: bringing things back is right whatever was meant.
"""

import contextlib
from collections.abc import Callable

from gradience.errors import StorageError
from gradience.files.below import Below
from gradience.storage.change import journal
from gradience.storage.change.doubts import Doubts, Unit, put_back
from gradience.storage.change.guards import GUARDS
from gradience.storage.change.journal import BEGUN, DONE, FINAL, PENDING, Left
from gradience.storage.change.records import PLAN_SCHEMA, Plan, text_of, units
from gradience.storage.change.site import OWN, THINGS, Site, changes
from gradience.storage.change.verbs import VERBS
from gradience.storage.change.whose import Stranger
from gradience.system.holders import Holders
from gradience.units import plural


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
    StorageError
        If a newer release began a change that this one does not know.
    """
    with Below(root) as below:
        if not below.exists(OWN):
            return []
        with Site(below, "").locked() as ours:
            return [] if ours is False else settle(below, holders)


def settle(below: Below, holders: Callable[[], Holders]) -> list[str]:
    """As `recover`; the caller holds the root's lock."""
    notes: list[str] = []
    newer = {}
    for change in changes(below):
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            journal.left(below, change) as (site, left),
        ):
            if left.stranger is not None:
                notes += _not_ours(site, left.stranger)
            elif why := _newer(left):
                if left.states is not None:
                    newer[change] = why
            else:
                notes += _one(site, left, holders)
    for change, why in newer.items():
        raise StorageError(
            f"{text_of(below.root)} is left as it is: a change of it was cut off ({OWN}/{change}), "
            f"and {why}",
            remedy="Let a release that knows it settle it: pip install -U gradience, then "
            "gradience cache undo --list. Other caches are not concerned.",
            details=notes,
        )
    return notes


def _not_ours(site: Site, other: Stranger) -> list[str]:
    """A sentence about a change that another user must settle; none where it may be trash."""
    place = f"{text_of(site.below.root)}/{site.own}"
    with contextlib.suppress(OSError):
        site.below.status(f"{site.own}/state")
        remedy = other.remedy(place, "gradience cache undo --list")
        return [f"{place} is left as it is: a change was cut off there, and {other.why}. {remedy}"]
    return []


def _one(site: Site, left: Left, holders: Callable[[], Holders]) -> list[str]:
    """Settle one change of ours; a sentence that says so."""
    if left.plan is None:
        return _lost(site)
    if left.states is not None:
        site.min_age = left.plan.min_age
        counts = _settle(site, left.plan, left.states, holders)
        words = zip(counts, ("finished", "taken back"), strict=True)
        done = ", ".join(f"{plural(n, 'act')} {word}" for n, word in words if n)
        return [
            f"A change of {text_of(site.below.root)} had been cut off ({site.id}): "
            f"{done or 'it had done nothing yet'}."
        ]
    if not site.close_own():  # it had ended, but for its last step
        journal.close(site, keep=False)
    return []


def _newer(left: Left) -> str:
    """Why this release cannot tell what a plan meant; "" if it can, or there is none."""
    if left.plan is None:
        known = left.schema in ("", PLAN_SCHEMA)
        return "" if known else f"its plan is a {left.schema}, written by {left.writer}"
    for action in left.plan.actions:
        if action.verb not in VERBS or action.guard not in GUARDS:
            word = action.verb if action.verb not in VERBS else action.guard
            return f"{left.writer}, which began it, has an act {word!r} that this release has not"
    return ""


def _settle(
    site: Site, plan: Plan, states: bytes, holders: Callable[[], Holders]
) -> tuple[int, int]:
    """Units that are wholly done are finished, in order; the others undone, from the last."""
    doubts = Doubts(site, holders)
    doubts.look()
    busy = {action.group for action in plan.actions if doubts.left_aside(action)}
    # All doubts about a group were over before anything of it was made final.
    busy -= {action.group for i, action in enumerate(plan.actions) if states[i : i + 1] == FINAL}
    busy |= _half_in_the_trash(plan, states)
    whole, broken = [], []
    for unit in units(plan.actions):
        marks = {states[index : index + 1] for index in unit}
        stays = plan.actions[unit[0]].group in busy
        if marks <= {DONE, FINAL} and not stays:
            whole.append(unit)
        elif marks & {BEGUN, DONE}:
            broken.append(unit)
    undone = 0

    def undo(unit: Unit, _: str = "") -> None:
        nonlocal undone
        for index in reversed(unit):
            action = plan.actions[index]
            with contextlib.suppress(OSError):
                VERBS[action.verb].undo(action, site)
            undone += 1

    states = journal.decide(site, states, broken, BEGUN)
    for unit in reversed(broken):
        undo(unit)
    whole = put_back(whole, lambda unit: doubts.wanted_of(unit, plan.actions), undo)
    journal.decide(site, states, whole, FINAL)
    finished = 0
    for unit in whole:
        for index in unit:
            action = plan.actions[index]
            with contextlib.suppress(OSError):
                VERBS[action.verb].finish(action, site)
            finished += 1
    journal.close(site, keep=site.close_own())
    return finished, undone


def _half_in_the_trash(plan: Plan, states: bytes) -> set[int]:
    """Groups whose way into the trash was cut off: what is left of one may go before it is back.

    A shared blob, say, that only a link in the trash leads to is one that nothing uses.
    """
    return {
        action.group
        for i, action in enumerate(plan.actions)
        if action.verb == "trash" and states[i : i + 1] in (PENDING, BEGUN)
    }


def blobs_first(name: str) -> tuple[bool, bool, str]:
    """A key that sorts blobs before the snapshots that link to them, and refs to the end."""
    return "/blobs/" not in f"/{name}", "/refs/" in name, name


def _lost(site: Site) -> list[str]:
    """Bring back what lies in a change without a plan; blobs first, so that no link dangles."""
    if not site.below.exists(f"{site.own}/{THINGS}"):  # not begun, or nothing of ours
        site.below.remove_empty(site.own)
        return []
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
        f"{site.id}): {plural(len(found), 'thing')} put back."
    ]
