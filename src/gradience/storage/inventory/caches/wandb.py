"""W&B's cache of artifacts: `artifacts/obj/<algorithm>/...`; grows without a limit."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Downloaded again; `wandb artifact cache cleanup 10GB` trims it."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="artifacts", recoverable="download", how=_HOW)
    return [*found, rest(look, look.tree)], ""


WANDB = CacheKind(
    title="W&B cache",
    holds="Artifacts that W&B downloaded or logged.",
    recoverable="download",
    how=_HOW,
    variable="wandb_cache",
    entries=entries,
    keep=never,
)
