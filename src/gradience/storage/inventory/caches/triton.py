"""Triton's cache of compiled kernels: one directory per kernel and compiler version."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import whole

_HOW = "Compiled again on first use."


def entries(look: Look) -> Listing:
    """All kernels as one entry: their names are hashes that say nothing."""
    found = whole(look, look.tree, what="kernels", name="kernels", recoverable="rebuild", how=_HOW)
    return [found], ""


TRITON = CacheKind(
    title="Triton",
    holds="Kernels that Triton compiled.",
    recoverable="rebuild",
    how=_HOW,
    variable="triton",
    entries=entries,
    keep=never,
)
