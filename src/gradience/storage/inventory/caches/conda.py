"""conda's packages. Environments on the same disk are hard links into them."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Downloaded again by conda; `conda clean --all` removes what no environment needs."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="package", recoverable="download", how=_HOW)
    return [*found, rest(look, look.tree)], ""


CONDA = CacheKind(
    title="conda packages",
    holds="Packages that conda keeps; environments on the same disk are hard links into them.",
    recoverable="download",
    how=_HOW,
    variable="conda",
    entries=entries,
    keep=never,
)
