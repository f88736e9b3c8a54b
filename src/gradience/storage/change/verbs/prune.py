"""Prune: remove a directory, and those in it, where nothing else is left in them.

The kernel refuses to remove a directory with anything in it, so a file that somebody puts there
meanwhile is safe without any lock.
"""

import stat

from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site


class _Prune:
    done = "removed where empty"
    needs_journal = False
    exact = False  # what was removed from it changed it

    def check(self, action: Action, site: Site) -> str:
        """The kernel checks."""
        return ""

    def do(self, action: Action, site: Site) -> Removed:
        """Remove what is empty, from below."""
        removed = Removed()
        _prune(action.name, site, removed)
        return removed

    def where(self, action: Action, site: Site) -> str:
        """Nothing of it is kept."""
        return ""

    def undo(self, action: Action, site: Site) -> None:
        """Make the directory again; those in it come back with what comes back into them."""
        site.below.make_dirs(action.name)

    def finish(self, action: Action, site: Site) -> Removed:
        """It was final."""
        return Removed()


def _prune(name: str, site: Site, removed: Removed) -> None:
    size = site.below.status(name).st_blocks * 512
    for child, status in site.below.entries(name):
        if stat.S_ISDIR(status.st_mode):
            _prune(f"{name}/{child}", site, removed)
    if site.below.remove_empty(name):
        removed.names += 1
        removed.bytes += size


PRUNE = _Prune()
