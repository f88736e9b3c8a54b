"""What a verb is: an act that can be checked, done, taken back, and made final.

`do` makes the change visible in one step and keeps what it needs to take it back; `finish` lets
that go, and only then is space free. Between the two, `apply` looks whether a process had the thing
open. `undo` and `finish` are also called after a crash, when nobody knows how far `do` came: each
looks at what is there, and may be called twice.

Most verbs are of one of two sorts. `SetAside` moves the old thing out of the way, where it lies
until `finish`; `AtOnce` keeps nothing, so what it did is final.
"""

from typing import Protocol

from gradience.files.below import Removed
from gradience.storage.change.records import Action
from gradience.storage.change.site import Site


class Verb(Protocol):
    """One way to change a name.

    Attributes
    ----------
    done : str
        The word of a receipt: "deleted".
    needs_journal : bool
        It may be done only where a journal can be kept.
    exact : bool
        What is at the name must be what the plan saw; otherwise the same inode is enough.
    """

    done: str
    needs_journal: bool
    exact: bool

    def check(self, action: Action, site: Site) -> str:
        """Why it must not be done now; "" if it may. The fingerprint was compared already."""
        ...

    def do(self, action: Action, site: Site) -> Removed:
        """Do it, so that it can be taken back; count what went for good all the same.

        Raises
        ------
        OSError
            If the file system refuses; then nothing was changed.
        """
        ...

    def where(self, action: Action, site: Site) -> str:
        """The name under which the old thing lies after `do`; "" where it is gone."""
        ...

    def undo(self, action: Action, site: Site) -> Removed:
        """Take it back; what is there again of what `do` counted.

        Raises
        ------
        OSError
            If the file system refuses, or something has its name by now.
        """
        ...

    def finish(self, action: Action, site: Site) -> Removed:
        """Make it final, and count what went."""
        ...


class SetAside:
    """A verb that moves the thing itself out of the way; the fingerprint says whether it may."""

    exact = True

    def check(self, action: Action, site: Site) -> str:
        """The fingerprint says it all."""
        return ""

    def where(self, action: Action, site: Site) -> str:
        """Aside, unless it was removed at once."""
        aside = site.aside(action.name)
        return aside if site.below.exists(aside) else ""

    def undo(self, action: Action, site: Site) -> Removed:
        """Bring it back; `do` counted only what cannot come back."""
        site.bring_back(action.name)
        return Removed()

    def finish(self, action: Action, site: Site) -> Removed:
        """Remove it from where it lies."""
        removed = Removed()
        if self.where(action, site):
            site.remove_aside(action.name, removed)
        return removed


class AtOnce:
    """A verb that keeps nothing of what was there."""

    def check(self, action: Action, site: Site) -> str:
        """The kernel checks."""
        return ""

    def where(self, action: Action, site: Site) -> str:
        """Nothing is set aside."""
        return ""

    def finish(self, action: Action, site: Site) -> Removed:
        """It was final."""
        return Removed()
