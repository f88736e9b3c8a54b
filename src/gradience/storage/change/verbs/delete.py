"""Delete: set aside, then remove. In place where no byte is left to set anything aside."""

from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.verb import SetAside


class _Delete(SetAside):
    done = "deleted"
    needs_journal = False

    def do(self, action: Action, site: Site) -> Removed:
        """Set it aside; on a full disk, where even that may be refused, remove it at once."""
        if not site.in_place:
            site.set_aside(action.name)
            return Removed()
        removed = Removed()
        site.below.remove(action.name, removed)
        return removed


DELETE = _Delete()
