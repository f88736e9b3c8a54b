"""Trash: set aside, and left there. It frees nothing until the trash is emptied."""

from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.verb import SetAside


class _Trash(SetAside):
    done = "moved to the trash"
    needs_journal = True

    def do(self, action: Action, site: Site) -> Removed:
        """Set it aside."""
        site.set_aside(action.name)
        return Removed()

    def finish(self, action: Action, site: Site) -> Removed:
        """Leave it where it is: nothing went."""
        return Removed()


TRASH = _Trash()
