"""Mode: group and permissions of a file or directory; the plan holds the old ones, to go back."""

import os
import re
import stat

from gradience.files import attributes
from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.verb import AtOnce

_TARGET = re.compile(r"(\d+):([0-7]+)>(\d+):([0-7]+)")
Rights = tuple[int, int]  # group, permissions


def target(old: Rights, new: Rights) -> str:
    """What an action says: from which group and permissions to which.

    Examples
    --------
    >>> target((1000, 0o755), (50, 0o2775))
    '1000:755>50:2775'
    """
    return f"{old[0]}:{old[1]:o}>{new[0]}:{new[1]:o}"


def rights(text: str) -> tuple[Rights, Rights]:
    """What `target` wrote.

    Raises
    ------
    OSError
        If it is nothing of the kind.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        raise OSError(0, f"{text!r} says no groups and modes")
    return (int(match[1]), int(match[2], 8)), (int(match[3]), int(match[4], 8))


class _Mode(AtOnce):
    done = "shared"
    needs_journal = True
    exact = False  # the inode decides; what was written to it since does not matter

    def check(self, action: Action, site: Site) -> str:
        """It must have the rights that the plan saw, or those it shall have."""
        status = site.below.status(action.name)
        if (status.st_gid, stat.S_IMODE(status.st_mode)) not in rights(action.target):
            return "its group or mode was changed after the plan was made"
        return ""

    def do(self, action: Action, site: Site) -> Removed:
        """Set the new rights."""
        _set(action, site, rights(action.target)[1])
        return Removed()

    def undo(self, action: Action, site: Site) -> Removed:
        """Set the old rights again, on the very thing that was given the new ones."""
        _set(action, site, rights(action.target)[0])
        return Removed()


def _set(action: Action, site: Site, wanted: Rights) -> None:
    status = site.below.status(action.name)
    descriptor = site.below.open(action.name, directory=stat.S_ISDIR(status.st_mode))
    try:
        # What is open now: the name may lead elsewhere than when it was checked, or before a crash.
        if os.fstat(descriptor).st_ino != action.fingerprint.inode:
            raise OSError(0, "it is another by now")
        attributes.give(descriptor, *wanted)
    finally:
        os.close(descriptor)


MODE = _Mode()
