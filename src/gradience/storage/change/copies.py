"""Files that should hold the same bytes, by the hashes that names and notes carry already.

A hub blob is named by its ETag: the SHA-256 of a large file, the git SHA-1 of a small one; the note
of a `local_dir` download has it too, and ollama's store names files by SHA-256. Nothing is read
here: that the bytes are equal is seen before anything is changed. Xet hashes compare among shared
stores only, and are not needed: the blob that leads to a payload is named by its SHA-256.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gradience.storage.change.hub_pieces import Hub
from gradience.storage.change.ollama import blobs
from gradience.storage.inventory.take import Survey
from gradience.storage.verify.expected import Item, hub_expectations, project_expectations


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a file lies, and what that means for it.

    Attributes
    ----------
    root, path : str
        The directory that bounds changes, without links; and the file itself.
    kind : str
        "hub", "local_dir" or "ollama".
    guard : str
        A name of `GUARDS`.
    in_place : bool
        Somebody may write to it without making a new file.
    """

    root: str
    path: str
    kind: str
    guard: str = ""
    in_place: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One file, and what it is said to hold.

    Attributes
    ----------
    digest : str
        The algorithm and the hash.
    place : Place
    label : str
        What a user calls it: `org/name/file in the cache`, or its path.
    status : stat_result
        Its `lstat`.
    """

    digest: str
    place: Place
    label: str
    status: os.stat_result

    @property
    def inode(self) -> tuple[int, int]:
        """Which file it is."""
        return self.status.st_dev, self.status.st_ino


def groups(survey: Survey, ollama: Iterable[Path]) -> list[list[Copy]]:
    """Copies that should be equal, two files or more, by content; the largest first."""
    by_content: dict[tuple[str, int], dict[tuple[int, int], Copy]] = defaultdict(dict)
    for copy in (*_surveyed(survey), *_ollama(ollama)):
        if copy.status.st_size:
            by_content[copy.digest, copy.status.st_size].setdefault(copy.inode, copy)
    found = [sorted(g.values(), key=_better) for g in by_content.values() if len(g) > 1]
    return sorted(found, key=lambda group: (-group[0].status.st_size, group[0].place.path))


def _better(copy: Copy) -> tuple[bool, bool, int, str]:
    """The first is the one to keep: never written to, in a hub cache, with the most names."""
    place = copy.place
    return place.in_place, place.kind != "hub", -copy.status.st_nlink, place.path


def _surveyed(survey: Survey) -> Iterator[Copy]:
    for look in survey.looks:
        root = look.tree.path
        if look.kind == "hub":
            payloads = dict(_payloads(Hub.read(look)))
            for item in hub_expectations(look).items:
                path = payloads.get(item.path, item.path)
                guard = "hub_part" if path == item.path else "hub_store_lock"
                yield from _read(item, Place(root=root, path=path, kind="hub", guard=guard))
        elif look.kind == "project":
            for item in project_expectations(look).items:
                place = Place(root=root, path=item.path, kind="local_dir", in_place=True)
                yield from _read(item, place)


def _payloads(hub: Hub) -> Iterator[tuple[str, str]]:
    """Path of a blob, and of the shared file that it leads to."""
    if hub.store.directory is None:
        return
    for path, repo in hub.repos.items():
        for blob, hashed in repo.shared.items():
            yield f"{path}/blobs/{blob}", f"{hub.store.directory.path}/{hashed[:2]}/{hashed}"


def _ollama(stores: Iterable[Path]) -> Iterator[Copy]:
    for store in {os.path.realpath(store) for store in stores}:
        for digest, path, _ in blobs(Path(store)):
            yield from _at(f"sha256:{digest}", Place(root=store, path=path, kind="ollama"), path)


def _read(item: Item, place: Place) -> Iterator[Copy]:
    """A file that a cache says something of."""
    label = place.path
    if place.kind == "hub" and item.names:
        label = f"{item.owner}/{item.names[0].partition('/')[2]} in {place.root}"
    if item.digest:
        yield from _at(f"{item.algorithm}:{item.digest}", place, label)


def _at(digest: str, place: Place, label: str) -> Iterator[Copy]:
    """The copy at a place, if a regular file is there."""
    try:
        status = os.lstat(place.path)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        yield Copy(digest=digest, place=place, label=label, status=status)
