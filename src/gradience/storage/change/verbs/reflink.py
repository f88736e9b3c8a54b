"""Reflink: a file uses the blocks of an equal file, and stays a file of its own in every way.

The kernel compares before it shares. Owner, mode, times and inode stay, and who writes to one of
them later does not change the other, so there is nothing to take back.
"""

import os

from gradience.files import sharing
from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.hardlink import pair
from gradience.storage.change.verbs.verb import AtOnce


class _Reflink(AtOnce):
    done = "shared"
    needs_journal = False
    exact = True

    def do(self, action: Action, site: Site) -> Removed:
        """Share its blocks.

        Raises
        ------
        OSError
            If the bytes differ, or the file system refuses.
        """
        with pair(action, site) as (original, copy):
            size = os.fstat(copy).st_size
            if sharing.shared(original, copy):
                return Removed()
            return Removed(bytes=sharing.share(original, copy, size, site.on_bytes))

    def undo(self, action: Action, site: Site) -> Removed:
        """The file holds what it held, and shares its blocks."""
        return Removed()


REFLINK = _Reflink()
