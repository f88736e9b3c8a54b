"""What removing revisions of a hub cache removes, link by link. Pure.

Refs go with the snapshot they name, and before it: a crash in between wastes space, the other order
would leave a ref to nothing, for which the hub's own tools hide the whole repository. A blob goes
when no revision that stays links to it; a shared blob, when no blob that stays leads to it. Lock
files stay: who removed one that somebody waits for would let two writers in.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gradience.storage.inventory.caches.hub import repos
from gradience.storage.inventory.caches.hub_repo import Repo, Revision
from gradience.storage.inventory.caches.hub_store import Store
from gradience.storage.inventory.caches.kind import Look, Piece
from gradience.storage.inventory.scan import Directory
from gradience.storage.inventory.tally import BLOCK, Tally

_JUNK_GUARDS = {"orphan_blob": "hub_blob", "incomplete": "hub_part", "broken_store_link": ""}
_JUNK = ("stale_ref", "unreadable_ref", "broken_link", "empty_snapshot", *_JUNK_GUARDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A hub cache that was scanned.

    Attributes
    ----------
    look : Look
    repos : mapping of str to Repo
        By the path of the repository.
    store : Store
    users : mapping of str to int
        By xet hash: how many blobs of repositories lead to it.
    """

    look: Look
    repos: Mapping[str, Repo]
    store: Store
    users: Mapping[str, int]

    @classmethod
    def read(cls, look: Look) -> "Hub":
        """Read the tree of a hub cache."""
        found, store = repos(look)
        users = Counter(hashed for repo in found for hashed in repo.shared.values())
        by_path = {repo.directory.path: repo for repo in found}
        return cls(look=look, repos=by_path, store=store, users=users)

    def relative(self, path: str) -> str:
        """A path below the root, as pieces name it."""
        return path.removeprefix(f"{self.look.tree.path}/")


def revision_pieces(hub: Hub, repo: Repo, revision: Revision) -> Iterator[Piece]:
    """A revision, without the blobs it links to."""
    here = hub.relative(repo.directory.path)
    commit = revision.commit
    names = [f"{here}/refs/{ref}" for ref, named in sorted(repo.refs.items()) if named == commit]
    names.append(f"{here}/snapshots/{commit}")
    size = Tally().add_tree(revision.directory).frees_bytes
    trees, absent = repo.directory.child("trees"), repo.directory.child(".no_exist")
    listing = next((f for f in trees.files if f.name == f"{commit}.json"), None) if trees else None
    if listing is not None:
        names.append(f"{here}/trees/{listing.name}")
        size += listing.frees_bytes
    if absent is not None and (noted := absent.child(commit)) is not None:
        names.append(f"{here}/.no_exist/{commit}")
        size += Tally().add_tree(noted).frees_bytes
    yield Piece(names=tuple(names), frees_bytes=size)


def blob_pieces(hub: Hub, repo: Repo, gone: Iterable[str]) -> Iterator[Piece]:
    """Blobs that only these commits link to."""
    gone = set(gone)
    here = hub.relative(repo.directory.path)
    kept = {b for r in repo.revisions if r.commit not in gone for b in r.blobs}
    freed = sorted({b for r in repo.revisions if r.commit in gone for b in r.blobs} - kept)
    for blob in freed:
        file = repo.blobs.get(blob)
        yield Piece(
            names=(f"{here}/blobs/{blob}",),
            frees_bytes=file.frees_bytes if file is not None else 0,
            guard="hub_blob",
        )


def last_written(revision: Revision) -> float:
    """When a name was last made or removed in its snapshot: seconds since 1970."""
    written = 0.0
    stack = [revision.directory]
    while stack:
        directory = stack.pop()
        written = max(written, directory.mtime)
        stack += directory.dirs
    return written


def junk_pieces(hub: Hub, repo: Repo, junk: Mapping[str, str]) -> Iterator[Piece]:
    """Damage of a repository: path to code."""
    sizes = {f"{repo.directory.path}/blobs/{f.name}": f.frees_bytes for f in repo.blobs.values()}
    for path, code in junk.items():
        if code in _JUNK:
            yield Piece(
                names=(hub.relative(path),),
                frees_bytes=sizes.get(path, 0),
                guard=_JUNK_GUARDS.get(code, ""),
            )


def rest_pieces(hub: Hub, repo: Repo) -> Iterator[Piece]:
    """What is left of a repository without revisions: notes on others, and empty directories."""
    here = hub.relative(repo.directory.path)
    commits = {revision.commit for revision in repo.revisions}
    trees, absent = repo.directory.child("trees"), repo.directory.child(".no_exist")
    for file in trees.files if trees is not None else ():
        if file.name.removesuffix(".json") not in commits:
            yield Piece(names=(f"{here}/trees/{file.name}",), frees_bytes=file.frees_bytes)
    for noted in absent.dirs if absent is not None else ():
        if noted.name not in commits:
            size = Tally().add_tree(noted).frees_bytes
            yield Piece(names=(f"{here}/.no_exist/{noted.name}",), frees_bytes=size)
    directories = sorted(_skeleton(repo.directory), key=_prune_order)
    yield Piece(
        names=tuple(hub.relative(directory.path) for directory in directories),
        frees_bytes=sum(directory.blocks * BLOCK for directory in directories),
        verb="prune",
    )


_PRUNED_LAST = ("snapshots", "blobs", "refs")


def _prune_order(directory: Directory) -> tuple[int, int]:
    """From below; `snapshots`, `blobs` and `refs` last, and in that order.

    So a download that begins in this moment has put something into `snapshots`, which ends it; or
    it makes that again, and the repository itself cannot go: then the rest is put back at once.
    """
    name = directory.name
    return -directory.path.count("/"), _PRUNED_LAST.index(name) if name in _PRUNED_LAST else -1


def _skeleton(repo: Directory) -> Iterator[Directory]:
    """The directories of a repository that go with none of its revisions."""
    stack = [repo]
    while stack:
        found = stack.pop()
        yield found
        if found.name not in ("snapshots", "blobs", ".no_exist") or found.parent is not repo:
            stack += found.dirs


def store_pieces(hub: Hub, removed: Mapping[str, int], orphans: Sequence[str]) -> Iterator[Piece]:
    """Shared blobs that nothing leads to any more.

    Parameters
    ----------
    removed : mapping of str to int
        By xet hash: how many blobs that lead to it go.
    orphans : sequence of str
        Hashes that nothing led to before.
    """
    freed = [h for h, count in removed.items() if count == hub.users[h]]
    for hashed in (*freed, *orphans):
        payload = hub.store.payloads.get(hashed)
        manifest = hub.store.manifests.get(hashed)
        if payload is None or manifest is None:
            continue  # the hub never deletes a shared blob without a list of its users
        name = f"blobs/{hashed[:2]}/{hashed}"
        yield Piece(
            names=(name, f"{name}.refs"),
            frees_bytes=payload[0].frees_bytes + manifest.frees_bytes,
            guard="hub_store_blob",
        )


def store_links(repo: Repo, gone: Iterable[str]) -> Counter[str]:
    """By xet hash: blobs that go with these commits and lead to it."""
    gone = set(gone)
    kept = {b for r in repo.revisions if r.commit not in gone for b in r.blobs}
    freed = {b for r in repo.revisions if r.commit in gone for b in r.blobs} - kept
    return Counter(repo.shared[blob] for blob in freed if repo.shared.get(blob))
