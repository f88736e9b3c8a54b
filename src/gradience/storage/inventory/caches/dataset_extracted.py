"""Unpacked archives of datasets: `<extracted>/<hash of the archive's path>`.

The name is the SHA-256 of the archive's absolute path (datasets 5.2, utils/extract.py), so that an
archive which is still in one of the caches names the dataset it belongs to.
"""

import hashlib
import os
import re
from collections.abc import Iterator

import msgspec

from gradience.storage.inventory.caches.dataset_downloads import source_of
from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look
from gradience.storage.inventory.caches.plain import (
    child_entries,
    file_entries,
    named,
    rest,
    strange,
)
from gradience.storage.inventory.scan import Directory

_HASH = re.compile("[0-9a-f]{64}")
_HOW = "Unpacked again from the archive when the dataset is built again."


def entries(look: Look) -> Listing:
    """One entry per archive, with the dataset it is of where the archive is still there."""
    found = child_entries(
        look,
        look.tree,
        what="unpacked",
        recoverable="rebuild",
        how=_HOW,
        owns=named(_HASH.pattern),
        title="datasets",
    )
    for file in file_entries(look, look.tree, what="unpacked", recoverable="rebuild", how=_HOW):
        found.append(file if _HASH.fullmatch(file.name) else strange(file, "datasets"))
    archives = dict(_archives(look)) if found else {}
    of_archives = [msgspec.structs.replace(e, belongs_to=archives.get(e.name, "")) for e in found]
    return [*of_archives, rest(look, look.tree, files=False)], ""


def _archives(look: Look) -> Iterator[tuple[str, str]]:
    """Hash of its path, and dataset, of each file that may have been unpacked."""
    for kind, tree in look.beside:
        if kind == "dataset_downloads":
            for file in tree.files:
                if not file.name.endswith((".json", ".lock")):
                    source = source_of(f"{tree.path}/{file.name}.json")
                    yield from _hashes(tree, file.name, source if "/" in source else "")
        elif kind == "hub":
            for repo in tree.dirs:
                if repo.name.startswith("datasets--"):
                    name = repo.name.removeprefix("datasets--").replace("--", "/")
                    for path in _snapshot_files(repo):
                        yield from _hashes(tree, path, name)


def _snapshot_files(repo: Directory) -> Iterator[str]:
    """Paths, below the hub cache, of what snapshots show."""
    snapshots = repo.child("snapshots")
    stack = [snapshots] if snapshots else []
    while stack:
        directory = stack.pop()
        stack += directory.dirs
        for name, _, _ in directory.links:
            yield f"{directory.relative}/{name}"


def _hashes(tree: Directory, below: str, dataset: str) -> Iterator[tuple[str, str]]:
    """The program may have called the cache by its real path, or by a link to it."""
    for root in {tree.path, tree.root.path}:
        yield hashlib.sha256(os.fsencode(f"{root}/{below}")).hexdigest(), dataset


DATASET_EXTRACTED = CacheKind(
    title="unpacked datasets",
    holds="Archives of datasets, unpacked; needed only while a dataset is built.",
    recoverable="rebuild",
    how=_HOW,
    variable="datasets_extracted",
    entries=entries,
    keep=lambda relative: not relative,
)
