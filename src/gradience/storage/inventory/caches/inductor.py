"""torch.compile's cache: generated code and graphs; no size limit, /tmp by default."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Compiled again, which takes minutes for a large model."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="compiled", recoverable="rebuild", how=_HOW)
    return [*found, rest(look, look.tree)], ""


INDUCTOR = CacheKind(
    title="torch.compile (inductor)",
    holds="Code and graphs that torch.compile made; nothing ever removes them.",
    recoverable="rebuild",
    how=_HOW,
    variable="inductor",
    entries=entries,
    keep=never,
)
