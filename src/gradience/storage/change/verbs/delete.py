"""Delete: set aside, then remove. In place where no byte is left to set anything aside."""

from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site


class _Delete:
    done = "deleted"
    needs_journal = False
    exact = True

    def check(self, action: Action, site: Site) -> str:
        """The fingerprint says it all."""
        return ""

    def do(self, action: Action, site: Site) -> Removed:
        """Set it aside; on a full disk, where even that may be refused, remove it at once."""
        if not site.in_place:
            site.set_aside(action.name)
            return Removed()
        removed = Removed()
        site.below.remove(action.name, removed)
        return removed

    def where(self, action: Action, site: Site) -> str:
        """Aside, unless it was removed at once."""
        aside = site.aside(action.name)
        return aside if site.below.exists(aside) else ""

    def undo(self, action: Action, site: Site) -> None:
        """Bring it back."""
        site.bring_back(action.name)

    def finish(self, action: Action, site: Site) -> Removed:
        """Remove it from where it lies."""
        removed = Removed()
        if name := self.where(action, site):
            site.below.remove(name, removed)
        return removed


DELETE = _Delete()
