"""Where W&B keeps artifacts until they are uploaded: beside the data, not in the cache."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import whole

_HOW = "Not uploaded yet, or left by a run that died: it may be the only copy."


def entries(look: Look) -> Listing:
    """All of it as one entry."""
    found = whole(look, look.tree, what="staging", name="staging", recoverable="lost", how=_HOW)
    return [found], ""


WANDB_STAGING = CacheKind(
    title="W&B staging",
    holds="Artifacts on their way to W&B.",
    recoverable="lost",
    how=_HOW,
    variable="wandb_staging",
    entries=entries,
    keep=never,
)
