"""pip's cache of downloads and of the wheels it built."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Downloaded or built again by pip; `pip cache purge` empties it."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="packages", recoverable="download", how=_HOW)
    return [*found, rest(look, look.tree)], ""


PIP = CacheKind(
    title="pip",
    holds="Downloads and wheels that pip keeps.",
    recoverable="download",
    how=_HOW,
    variable="pip",
    entries=entries,
    keep=never,
)
