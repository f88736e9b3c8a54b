"""uv's cache. Environments on the same disk are hard links into it: what they use is not freed."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Downloaded again by uv; `uv cache prune` removes what no environment needs."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="packages", recoverable="download", how=_HOW)
    return [*found, rest(look, look.tree)], ""


UV = CacheKind(
    title="uv",
    holds="Packages that uv keeps; environments on the same disk are hard links into it.",
    recoverable="download",
    how=_HOW,
    variable="uv",
    entries=entries,
    keep=never,
)
