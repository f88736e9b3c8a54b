"""Prune: remove a directory in which nothing is left.

The kernel refuses to remove a directory with anything in it, so what somebody puts there meanwhile
is safe without any lock.
"""

import errno

from gradience.files.below import Removed
from gradience.storage.change.records import Action, text_of
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.verb import AtOnce
from gradience.storage.inventory.tally import BLOCK

_SHOWN = 3


class _Prune(AtOnce):
    done = "removed where empty"
    needs_journal = False
    exact = False  # what was removed from it changed it

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
        """Make it again, unless it is there."""
        if site.below.exists(action.name):
            return Removed()
        site.below.make_dirs(action.name)
        return _counted(action, site)


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
