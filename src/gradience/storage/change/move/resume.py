"""What a killed move left: brought to an end, or back to where the same command goes on.

The disks themselves say how far it came; the byte in the journal only tells whether the old bytes
had been given up already.
"""

import os
from collections.abc import Callable

from gradience.errors import StorageError, UsageError
from gradience.files.below import Removed
from gradience.storage.change.move import ends as state
from gradience.storage.change.move.ends import Ends, locked, opened
from gradience.storage.change.move.run import doubt, finish, take_back, unplace
from gradience.storage.change.records import text_of
from gradience.system.holders import Holders


def resume(old: str, new: str, holders: Callable[[], Holders]) -> tuple[str, ...]:
    """Settle an unfinished move of these two places; sentences that say what was done.

    A copy that is not whole stays where it is: `move` goes on with it.

    Raises
    ------
    StorageError
        If a place cannot be opened, another process is at work there, or both places were written
        to since, so that nobody but the user can say which is right.
    """
    with opened(old, new) as ends:
        left = any(ends.target.exists(name) for name in (ends.own, f"{ends.own}.lock"))
        if not (left or ends.says(ends.target, ends.name) == ends.new):
            return ()
        with locked(ends):
            verb = "merge" if ends.merges else "move"
            return tuple(
                f"An unfinished {verb} to {text_of(new)}: {w}" for w in _settle(ends, holders)
            )


def abandon(old: str, new: str) -> int:
    """Remove what an unfinished move copied; the bytes that frees. What was merged stays.

    The old directory may be gone for good by now, but not be set aside: then it goes on only.

    Raises
    ------
    UsageError
        If there is none.
    StorageError
        If somebody wrote to the copy, which had its place already.
    """
    with opened(old, new) as ends, locked(ends):
        if ends.state() is None or ends.is_dir(ends.source, ends.aside):
            raise UsageError(
                f"there is no unfinished move of {text_of(old)} to {text_of(new)} to be abandoned",
                remedy="Name both places as that move did; after the swap, give it again.",
            )
        if ends.is_dir(ends.source, ends.top):  # else the new place has what is left of it
            unplace(ends, "the move was given up")
        removed = Removed()
        ends.target.remove(ends.own, removed)
        return removed.bytes


def moved(old: str, new: str) -> bool:
    """Whether the old place is a link to the new one already."""
    if not os.path.islink(old):  # noqa: PTH114 - perhaps no UTF-8
        return False
    with opened(old, new) as ends:
        return ends.leads()


def _settle(ends: Ends, holders: Callable[[], Holders]) -> list[str]:
    if ends.says(ends.target, ends.name) == ends.new:
        ends.target.remove(ends.name, Removed())
    reached = ends.state()
    if reached is None:
        if not ends.target.exists(f"{ends.own}/state"):
            ends.forget()  # killed before it began, or while it was forgotten
        return []
    if ends.is_dir(ends.source, ends.aside):
        return _after_the_swap(ends, reached, holders)
    if not (ends.merges or ends.source.exists(ends.top)) and ends.is_dir(ends.target, ends.name):
        ends.source.symlink(ends.new, ends.top)
        ends.forget()
        return ["it was renamed; the link at the old place was made now."]
    if ends.leads():
        ends.forget()
        return ["it was done; only its journal was left."]
    unplace(ends, "the move was cut off")
    return []


def _after_the_swap(ends: Ends, reached: bytes, holders: Callable[[], Holders]) -> list[str]:
    if not ends.source.exists(ends.top):
        ends.source.symlink(ends.new, ends.top)
    planned = ends.planned()
    tree = None if planned is None else planned.fingerprint.tree
    if reached != state.REMOVING and (why := doubt(ends, tree, holders)):
        take_back(ends, why)
        return [f"taken back, for {why}."]
    if not ends.is_dir(ends.target, ends.name):
        raise StorageError(
            f"{text_of(ends.new)} is gone, and what is left of the old directory is "
            f"{text_of(ends.source.root)}/{text_of(ends.aside)}",
            remedy="Bring the new place back, or rename that one.",
        )
    removed = Removed()
    finish(ends, removed)
    return [f"finished; {removed.names} old names were removed."]
