"""What lies in HF_HOME beside the caches that have kinds of their own: above all, the login."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import child_entries, rest

_HOW = "Keep it: the login token lies here."


def entries(look: Look) -> Listing:
    """One entry per directory."""
    found = child_entries(look, look.tree, what="directory", recoverable="unknown", how=_HOW)
    return [*found, rest(look, look.tree)], ""


HF_HOME = CacheKind(
    title="Hugging Face home",
    holds="Your login token, and settings and metrics of evaluate and accelerate.",
    recoverable="unknown",
    how=_HOW,
    variable="hf_home",
    entries=entries,
    keep=never,
)
