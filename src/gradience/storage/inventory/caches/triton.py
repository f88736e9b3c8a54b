"""Triton's cache of compiled kernels: one directory per kernel and compiler version."""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, Piece, entry, never
from gradience.storage.inventory.caches.plain import named, other, rest
from gradience.storage.inventory.records import Entry
from gradience.storage.inventory.tally import Tally

_HOW = "Compiled again on first use."
_OWNS = named("[A-Z2-7]{52}|[0-9a-f]{64}")  # base 32 of a SHA-256 (runtime/cache.py); hex before


def entries(look: Look) -> Listing:
    """All kernels as one entry: their names are hashes that say nothing."""
    tally = Tally()
    for kernel in filter(_OWNS, look.tree.dirs):
        tally.add_tree(kernel)
    kernels = entry(
        look,
        tally,
        what="kernels",
        name="kernels",
        path=look.tree.path,
        recoverable="rebuild",
        how=_HOW,
    )
    found = [other(look, child, "Triton") for child in look.tree.dirs if not _OWNS(child)]
    return [kernels, *found, rest(look, look.tree)], ""


def pieces(look: Look, _: Entry) -> list[Piece]:
    """Each kernel by itself."""
    return [
        Piece(names=(kernel.name,), frees_bytes=Tally().add_tree(kernel).frees_bytes)
        for kernel in filter(_OWNS, look.tree.dirs)
    ]


TRITON = CacheKind(
    title="Triton",
    holds="Kernels that Triton compiled.",
    recoverable="rebuild",
    how=_HOW,
    variable="triton",
    entries=entries,
    keep=never,
    pieces=pieces,
)
