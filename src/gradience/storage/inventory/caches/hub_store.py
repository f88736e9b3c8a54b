"""The blob store that all repositories of one hub cache share (huggingface_hub >= 1.32).

`<hub>/blobs/<2 hex>/<xet hash>` is a file; repos' blobs are links to it. `<hash>.refs` beside it
lists those links. The hub deletes a shared blob only when that list is readable and none of its
lines still holds: a blob without a list is never deleted by it, so nothing here claims it would be.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gradience.storage.inventory.caches.kind import Look, entry, read_text
from gradience.storage.inventory.records import Damage, Entry
from gradience.storage.inventory.scan import Directory, File
from gradience.storage.inventory.tally import BLOCK, Tally

MARKER = ".huggingface-shared-blobs"
KNOWN_VERSION = "1"
_HASH = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{2}")
_HOW = "Downloaded again with the repositories that use it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The shared store of one hub cache.

    Attributes
    ----------
    directory : Directory or None
        `<hub>/blobs`, whatever it is; None if there is none.
    layout : str
        "repo blobs" without a store, "shared blobs v1", or the unknown version by name.
    payloads : mapping of str to (File, int)
        By xet hash: the file, and the device it is on. Empty for an unknown version.
    manifests : mapping of str to File
        By xet hash.
    """

    directory: Directory | None
    layout: str
    payloads: Mapping[str, tuple[File, int]] = field(default_factory=dict)
    manifests: Mapping[str, File] = field(default_factory=dict)


def read_store(hub: Directory) -> Store:
    """The store of a hub cache, if it has one we know."""
    directory = hub.child("blobs")
    if directory is None:
        return Store(directory=None, layout="repo blobs")
    version = read_text(f"{directory.path}/{MARKER}") if _has_marker(directory) else None
    if version != f"{KNOWN_VERSION}\n":
        named = "unmarked" if version is None else f"version {version.strip()[:20]!r}"
        return Store(directory=directory, layout=f"unknown store ({named})")
    payloads: dict[str, tuple[File, int]] = {}
    manifests: dict[str, File] = {}
    for shelf in directory.dirs:
        if not _PREFIX.fullmatch(shelf.name):
            continue
        for file in shelf.files:
            if len(file.name) == 64 and file.name.startswith(shelf.name):
                if _HASH.fullmatch(file.name):
                    payloads[file.name] = (file, shelf.dev)
            elif file.name.endswith(".refs"):
                manifests[file.name[:-5]] = file
    return Store(
        directory=directory,
        layout=f"shared blobs v{KNOWN_VERSION}",
        payloads=payloads,
        manifests=manifests,
    )


def _has_marker(directory: Directory) -> bool:
    return any(file.name == MARKER for file in directory.files)


def store_entry(look: Look, store: Store, users: Mapping[str, int]) -> list[Entry]:
    """What of the store belongs to no repository: its directories, locks, and orphans.

    Parameters
    ----------
    users : mapping of str to int
        By xet hash: how many repositories link to it.
    """
    if store.directory is None:
        return []
    if not store.payloads and store.layout.startswith("unknown"):
        return [_unknown(look, store.directory, store.layout)]
    orphans = [name for name in store.payloads if name not in users]
    tally = _overhead(store, users)
    for name in orphans:
        # Without a manifest the hub never deletes it; we count it as freed all the same, since
        # deleting this entry by hand would.
        tally.add_file(*store.payloads[name])
    return [
        entry(
            look,
            tally,
            what="store",
            name="shared blob store",
            path=store.directory.path,
            recoverable="download",
            how=_HOW,
            damage=_orphans(look, store, orphans),
        )
    ]


def _overhead(store: Store, users: Mapping[str, int]) -> Tally:
    """Directories, the marker, locks, and manifests of blobs that nobody uses."""
    tally = Tally()
    directory = store.directory
    assert directory is not None
    for shelf in (directory, *directory.dirs):
        tally.add_names(1 + shelf.link_count, shelf.blocks + shelf.link_blocks)
        if shelf is not directory and not _PREFIX.fullmatch(shelf.name):
            tally.add_tree(shelf)
            continue
        for below in shelf.dirs if shelf is not directory else ():
            tally.add_tree(below)
        for file in shelf.files:
            used = file.name.removesuffix(".refs") in users
            if file.name not in store.payloads and not used:
                tally.add_file(file, shelf.dev)
    return tally


def _orphans(look: Look, store: Store, orphans: Sequence[str]) -> list[Damage]:
    found = []
    assert store.directory is not None
    for name in orphans:
        file, _ = store.payloads[name]
        path = f"{store.directory.path}/{name[:2]}/{name}"
        listed = name in store.manifests
        found.append(
            Damage(
                code="orphan_store_blob" if listed else "no_manifest",
                path=path,
                message=f"no repository links to shared blob {name[:12]}"
                + ("" if listed else ", and it has no .refs list"),
                physical_bytes=file.blocks * BLOCK,
                age_seconds=look.age(file.mtime),
            )
        )
    return found


def _unknown(look: Look, directory: Directory, layout: str) -> Entry:
    return entry(
        look,
        Tally().add_tree(directory),
        what="store",
        name="shared blob store",
        path=directory.path,
        recoverable="unknown",
        how="Left alone: this release knows store version 1 only.",
        damage=[
            Damage(
                code="unknown_layout",
                path=directory.path,
                message=f"{layout}; links into it are not followed",
            )
        ],
    )
