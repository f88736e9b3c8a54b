"""Where W&B keeps artifacts until they are uploaded: beside the data, not in the cache."""

from gradience.storage.inventory.caches.kind import (
    CacheKind,
    Listing,
    Look,
    Piece,
    piece_of,
)
from gradience.storage.inventory.caches.plain import whole
from gradience.storage.inventory.records import Entry
from gradience.storage.inventory.tally import Tally

_HOW = "Not uploaded yet, or left by a run that died: it may be the only copy."


def entries(look: Look) -> Listing:
    """All of it as one entry."""
    found = whole(look, look.tree, what="staging", name="staging", recoverable="lost", how=_HOW)
    return [found], ""


def pieces(look: Look, found: Entry) -> list[Piece]:
    """Every file and directory in it: W&B itself adds `artifacts/staging` to where data lies."""
    files = [piece_of(look, f"{found.path}/{file.name}", file) for file in look.tree.files]
    return files + [
        Piece(names=(child.name,), frees_bytes=Tally().add_tree(child).frees_bytes)
        for child in look.tree.dirs
    ]


WANDB_STAGING = CacheKind(
    title="W&B staging",
    holds="Artifacts on their way to W&B.",
    recoverable="lost",
    how=_HOW,
    variable="wandb_staging",
    entries=entries,
    keep=lambda relative: not relative,
    pieces=pieces,
)
