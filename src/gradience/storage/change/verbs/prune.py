"""Prune: remove a directory in which nothing is left.

The kernel refuses to remove a directory with anything in it, so what somebody puts there meanwhile
is safe without any lock.
"""

import contextlib
import errno
import os

from gradience.files import attributes
from gradience.files.below import Removed
from gradience.storage.change import fingerprint
from gradience.storage.change.records import Action, text_of
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.verb import AtOnce
from gradience.storage.inventory.tally import BLOCK

_SHOWN = 3


class _Prune(AtOnce):
    done = "removed where empty"
    needs_journal = False
    exact = False  # what was removed from it changed it

    def check(self, action: Action, site: Site) -> str:
        """It must belong to whom the plan says, who would have it back if that is taken back."""
        planned = action.fingerprint.rights
        if planned not in (None, fingerprint.rights(site.below.status(action.name))):
            return "its owner, group or mode was changed after the plan was made"
        return ""

    def do(self, action: Action, site: Site) -> Removed:
        """Remove it.

        Raises
        ------
        OSError
            ENOTEMPTY if something is in it.
        """
        removed = _counted(action, site)
        if not site.below.remove_empty(action.name):
            raise OSError(errno.ENOTEMPTY, _in_the_way(action, site), action.name)
        return removed

    def undo(self, action: Action, site: Site) -> Removed:
        """Make it again as it was, unless it is there."""
        there = site.below.exists(action.name)
        if not there:
            site.below.make_dirs(action.name)
        _give_rights(action, site)  # also after a kill between the two
        return Removed() if there else _counted(action, site)


def _give_rights(action: Action, site: Site) -> None:
    """Give a directory the old owner, group and mode, as far as this user may.

    One in which there is something is somebody else's by now, and stays as it is.
    """
    planned = action.fingerprint.rights
    with contextlib.suppress(OSError):
        now = fingerprint.rights(site.below.status(action.name))
        if planned in (None, now) or site.below.entries(action.name):
            return
        user, group, permissions = planned
        descriptor = site.below.open(action.name, directory=True)
        try:
            with contextlib.suppress(OSError):  # root alone may; on some mounts not even root
                os.fchown(descriptor, user, -1)
            attributes.give(descriptor, group, permissions)
        finally:
            os.close(descriptor)


def _in_the_way(action: Action, site: Site) -> str:
    """What is in it, by name: a stray .DS_Store can be removed, a new download waits."""
    try:
        names = sorted(text_of(name) for name, _ in site.below.entries(action.name))
    except OSError:
        names = []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"stays, with {', '.join(names[:_SHOWN]) or 'something'}{more} in it"


def _counted(action: Action, site: Site) -> Removed:
    return Removed(names=1, bytes=site.below.status(action.name).st_blocks * BLOCK)


PRUNE = _Prune()
