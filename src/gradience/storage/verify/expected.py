"""What the caches themselves say each file should be: by its name, its commit's listing, its notes.

A blob is named by its ETag: the SHA-256 of a large file, or the git SHA-1 of a small one. The
listing of a commit (`trees/<commit>.json`) adds sizes. A download with `local_dir` leaves a note
per file. All of it is on the disk already, so that a check needs no network.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from gradience.storage.inventory.caches.hub import repos as hub_repos
from gradience.storage.inventory.caches.hub_repo import Repo
from gradience.storage.inventory.caches.kind import Look, read_text
from gradience.storage.inventory.caches.project import local_dirs
from gradience.storage.inventory.scan import Directory, File
from gradience.storage.verify.records import Problem

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_LISTING_LIMIT = 256 << 20
_LISTING_VERSION = 1  # _tree_cache.py of huggingface_hub 2.4

Algorithm = Literal["sha256", "git-sha1"]


class _Listed(msgspec.Struct):
    """One file of a commit's listing."""

    size: int
    blob_id: str = ""
    lfs_sha256: str | None = None
    lfs_size: int | None = None


class _Listing(msgspec.Struct):
    format_version: int
    files: dict[str, _Listed]


@dataclass(slots=True, kw_only=True)
class Item:
    """A file to check, and what it should be.

    Attributes
    ----------
    path : str
        The file that holds the bytes.
    owner : str
        The repo or directory it belongs to.
    file : File
        As the scan found it.
    names : list of str
        How snapshots call it.
    size : int or None
        In bytes; None where nothing says.
    digest, algorithm : str
        "" where nothing says.
    beside : list of str
        Directories in which snapshots show it.
    noted : float or None
        When the download of this file was noted; a later write is a change by someone else.
    """

    path: str
    owner: str
    file: File
    names: list[str]
    beside: list[str] = field(default_factory=list)
    size: int | None = None
    digest: str = ""
    algorithm: Algorithm = "sha256"
    noted: float | None = None


@dataclass(slots=True)
class Expectations:
    """Everything that can be checked in one cache.

    Attributes
    ----------
    items : list of Item
    problems : list of Problem
        What is wrong already without a look into any file.
    partial : dict of str to int
        As of `Verification`.
    """

    items: list[Item]
    problems: list[Problem]
    partial: dict[str, int]


def hub_expectations(look: Look) -> Expectations:
    """What a hub cache says of its own files."""
    found = Expectations([], [], {})
    for repo in hub_repos(look)[0]:
        items: dict[str, Item] = {}
        for snapshot in repo.revisions:
            listing = read_listing(f"{repo.directory.path}/trees/{snapshot.commit}.json")
            names = set()
            for name, blob in snapshot_links(snapshot.directory):
                names.add(name)
                item = _item(repo, blob, items)
                if item is not None:
                    item.names.append(f"{snapshot.commit[:12]}/{name}")
                    item.beside.append(f"{snapshot.directory.path}/{name}".rpartition("/")[0])
                    _expect(item, (listing or {}).get(name))
            missing = len((listing or {}).keys() - names)
            if missing:
                found.partial[snapshot.directory.path] = missing
        found.items += items.values()
        found.problems += _broken(repo)
        found.problems += _unlisted(repo)
    return found


def _item(repo: Repo, blob: str, items: dict[str, Item]) -> Item | None:
    """The item of a blob, made on first sight."""
    if blob in items:
        return items[blob]
    file, path = repo.blobs.get(blob), f"{repo.directory.path}/blobs/{blob}"
    hashed = repo.shared.get(blob, "")
    if file is None and hashed in repo.store.payloads:
        file = repo.store.payloads[hashed][0]
    if file is None:
        return None
    items[blob] = Item(path=path, owner=repo.name, file=file, names=[])
    digest_from(items[blob], blob)
    return items[blob]


def digest_from(item: Item, name: str) -> None:
    """Take a digest from an ETag, if it is one."""
    if _SHA256.fullmatch(name):
        item.digest, item.algorithm = name, "sha256"
    elif _SHA1.fullmatch(name):
        item.digest, item.algorithm = name, "git-sha1"


def _expect(item: Item, listed: _Listed | None) -> None:
    if listed is None:
        return
    item.size = listed.lfs_size if listed.lfs_size is not None else listed.size
    if not item.digest:
        digest_from(item, listed.lfs_sha256 or listed.blob_id)


def read_listing(path: str) -> Mapping[str, _Listed] | None:
    """A commit's listing; None if there is none that we understand."""
    text = read_text(path, _LISTING_LIMIT)
    if text is None:
        return None
    try:
        listing = msgspec.json.decode(text, type=_Listing)
    except (msgspec.DecodeError, RecursionError):
        return None
    return listing.files if listing.format_version == _LISTING_VERSION else None


def snapshot_links(snapshot: Directory) -> Iterator[tuple[str, str]]:
    """Name within the commit, and name of the blob, for each link of a snapshot."""
    stack = [(snapshot, "")]
    while stack:
        directory, prefix = stack.pop()
        stack += [(child, f"{prefix}{child.name}/") for child in directory.dirs]
        for name, target, _ in directory.links:
            yield prefix + name, target.rpartition("/")[2]


def _broken(repo: Repo) -> Iterator[Problem]:
    for damage in (*repo.damage, *(d for r in repo.revisions for d in r.damage)):
        if damage.code in ("broken_link", "broken_store_link"):
            yield Problem(
                code="missing_blob", path=damage.path, owner=repo.name, message=damage.message
            )


def _unlisted(repo: Repo) -> Iterator[Problem]:
    """Links into the shared store that its list does not know."""
    for blob, hashed in repo.shared.items():
        if hashed not in repo.store.manifests or repo.store.directory is None:
            continue
        manifest = f"{repo.store.directory.path}/{hashed[:2]}/{hashed}.refs"
        lines = (read_text(manifest, _LISTING_LIMIT) or "").splitlines()
        if f"{repo.directory.name}/blobs/{blob}" not in lines:
            yield Problem(
                code="unlisted_link",
                path=f"{repo.directory.path}/blobs/{blob}",
                owner=repo.name,
                message=f"{manifest} does not list it",
            )


def project_expectations(look: Look) -> Expectations:
    """What the notes of `local_dir` downloads say of the files beside them."""
    found = Expectations([], [], {})
    for directory, noted in local_dirs(look.tree):
        listings: dict[str, Mapping[str, _Listed] | None] = {}
        for name, path, file, note in noted:
            lines = (read_text(note, 512) or "").splitlines()
            if len(lines) < 3:
                continue
            item = Item(path=path, owner=directory.path, file=file, names=[name])
            item.beside.append(path.rpartition("/")[0])
            digest_from(item, lines[1])
            item.noted = _seconds(lines[2])
            commit = lines[0]
            if commit not in listings:
                listings[commit] = read_listing(
                    f"{directory.path}/.cache/huggingface/trees/{commit}.json"
                )
            _expect(item, (listings[commit] or {}).get(name))
            found.items.append(item)
    return found


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
