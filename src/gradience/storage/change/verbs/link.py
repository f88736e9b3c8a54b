"""Link: a name in a directory becomes a link to a directory elsewhere; never over content.

The action is on the directory that gets the link, since the name itself need not be there yet. An
empty directory of that name is another act before it, of the same unit: `prune`.
"""

import errno

from gradience.files.below import Removed
from gradience.storage.change.records import Action, path_of
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.verb import AtOnce


class _Link(AtOnce):
    done = "linked"
    needs_journal = False
    exact = False

    def do(self, action: Action, site: Site) -> Removed:
        """Make the link.

        Raises
        ------
        OSError
            EEXIST if something is there.
        """
        name, target = _parts(action)
        if site.below.exists(name):
            if _says(name, site) == target:
                return Removed()
            raise OSError(errno.EEXIST, "something is there", name)
        site.below.symlink(target, name)
        return Removed()

    def undo(self, action: Action, site: Site) -> Removed:
        """Remove the link, if it is ours."""
        name, target = _parts(action)
        if site.below.exists(name) and _says(name, site) == target:
            site.below.remove(name, Removed())
        return Removed()


def _parts(action: Action) -> tuple[str, str]:
    """The name of the link, and what it says: `name>/absolute/target`."""
    last, _, target = action.target.partition(">")
    return f"{action.name}/{path_of(last)}", path_of(target)


def _says(name: str, site: Site) -> str:
    try:
        return site.below.link_target(name)
    except OSError:
        return ""


LINK = _Link()
