"""Files that libraries derive from Hub repositories: `<assets>/<library>/...`."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Derived again by the library."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="library", recoverable="rebuild", how=_HOW)
    return [*found, rest(look, look.tree)], ""


ASSETS = CacheKind(
    title="Hub assets",
    holds="Files that libraries derived from Hub repositories, by library.",
    recoverable="rebuild",
    how=_HOW,
    variable="assets",
    entries=entries,
    keep=never,
)
