"""Xet's working directory: `<xet>/<endpoint>/{shard-cache,chunk-cache,staging}` and logs.

Chunk caches are leftovers: the wheel's default for their size has been 0 for long.
"""

import re

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, never
from gradience.storage.inventory.caches.plain import other, rest, whole
from gradience.storage.inventory.records import Entry
from gradience.storage.inventory.scan import Directory

_HOW = "Made again during the next transfer."
_ADDRESS = re.compile("https?_+.+")
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
        if directory.name == "logs" and not directory.dirs:
            found.append(_part(look, directory, "logs", "logs", "Nothing needs them."))
        elif not _is_endpoint(directory):
            found.append(other(look, directory, "hf_xet"))
        else:
            endpoints.append(directory)
            found += [_of_endpoint(look, directory, part) for part in directory.dirs]
    return [*found, rest(look, look.tree, *endpoints)], ""


def _is_endpoint(directory: Directory) -> bool:
    """By its name, an address, or by what no other program calls so: anybody has a `staging`."""
    parts = {part.name for part in directory.dirs}
    return bool(_ADDRESS.fullmatch(directory.name) or parts & {"shard-cache", "chunk-cache"})


def _of_endpoint(look: Look, endpoint: Directory, part: Directory) -> Entry:
    name = f"{endpoint.name}/{part.name}"
    if part.name not in _WHAT:
        return other(look, part, "hf_xet", name)
    what, how = _WHAT[part.name]
    return _part(look, part, what, name, how)


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
