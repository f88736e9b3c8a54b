"""Trash: set aside, and left there. It frees nothing until the trash is emptied."""

from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site


class _Trash:
    done = "moved to the trash"
    needs_journal = True
    exact = True

    def check(self, action: Action, site: Site) -> str:
        """The fingerprint says it all."""
        return ""

    def do(self, action: Action, site: Site) -> Removed:
        """Set it aside."""
        site.set_aside(action.name)
        return Removed()

    def where(self, action: Action, site: Site) -> str:
        """In the trash."""
        aside = site.aside(action.name)
        return aside if site.below.exists(aside) else ""

    def undo(self, action: Action, site: Site) -> None:
        """Bring it back."""
        site.bring_back(action.name)

    def finish(self, action: Action, site: Site) -> Removed:
        """Leave it where it is: nothing went."""
        return Removed()


TRASH = _Trash()
