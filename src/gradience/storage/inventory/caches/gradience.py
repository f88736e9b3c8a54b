"""Gradience's own files: norms of base models, finished audits."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Measured again, which reads the base model once more."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="records", recoverable="rebuild", how=_HOW)
    return [*found, rest(look, look.tree)], ""


GRADIENCE = CacheKind(
    title="Gradience",
    holds="Norms of base models and finished audits.",
    recoverable="rebuild",
    how=_HOW,
    variable="gradience",
    entries=entries,
    keep=never,
)
