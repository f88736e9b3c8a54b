"""Files that libraries derive from Hub repositories: `<assets>/<library>/<namespace>/<folder>`.

Any library may choose its name (huggingface_hub, utils/_cache_assets.py), so its own is told by the
two levels below it, which hold directories alone.
"""

import re

from gradience.storage.inventory.caches.plain import branches, children
from gradience.storage.inventory.scan import Directory

_ANY = re.compile("[^.].*")


def _owns(library: Directory) -> bool:
    return branches(library, _ANY) and all(branches(space, _ANY) for space in library.dirs)


ASSETS = children(
    title="Hub assets",
    holds="Files that libraries derived from Hub repositories, by library.",
    what="library",
    recoverable="rebuild",
    how="Derived again by the library.",
    variable="assets",
    owns=_owns,
)
