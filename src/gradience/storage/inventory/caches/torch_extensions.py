"""C++ and CUDA extensions that torch compiled: `<root>/py311_cu126/<extension>`."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Compiled again on import, which needs the compiler."


def entries(look: Look) -> Listing:
    """One entry per Python and CUDA version."""
    found = child_entries(look, look.tree, what="extensions", recoverable="rebuild", how=_HOW)
    return [*found, rest(look, look.tree)], ""


TORCH_EXTENSIONS = CacheKind(
    title="torch extensions",
    holds="C++ and CUDA extensions that torch compiled on this machine.",
    recoverable="rebuild",
    how=_HOW,
    variable="torch_extensions",
    entries=entries,
    keep=never,
)
