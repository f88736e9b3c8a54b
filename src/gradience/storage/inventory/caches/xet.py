"""Xet's working directory: `<xet>/<endpoint>/{shard-cache,chunk-cache,staging}` and logs.

Chunk caches are leftovers: the wheel's default for their size has been 0 for long.
"""

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import rest, whole
from gradience.storage.inventory.records import Entry
from gradience.storage.inventory.scan import Directory

_HOW = "Made again during the next transfer."
_WHAT = {
    "shard-cache": ("shards", "What was uploaded before, so that it is not sent twice."),
    "chunk-cache": ("chunks", "Pieces of downloads, kept by old versions of hf_xet only."),
    "staging": ("staging", "Uploads on their way; an upload that runs needs it."),
}


def entries(look: Look) -> Listing:
    """One entry per endpoint and use."""
    found: list[Entry] = []
    endpoints: list[Directory] = []
    for directory in look.tree.dirs:
        if directory.name == "logs":
            found.append(_part(look, directory, "logs", "logs", "Nothing needs them."))
            continue
        endpoints.append(directory)
        for part in directory.dirs:
            what, how = _WHAT.get(part.name, (part.name, _HOW))
            found.append(_part(look, part, what, f"{directory.name}/{part.name}", how))
    return [*found, rest(look, look.tree, *endpoints)], ""


def _part(look: Look, directory: Directory, what: str, name: str, how: str) -> Entry:
    return whole(look, directory, what=what, name=name, recoverable="rebuild", how=how)


XET = CacheKind(
    title="Xet",
    holds="Shards, staging and logs of the transfers to and from the Hub; not the files.",
    recoverable="rebuild",
    how=_HOW,
    variable="xet",
    entries=entries,
    keep=never,
)
