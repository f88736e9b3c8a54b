"""One repository of a hub cache: which revisions reach which blobs, and what is broken."""

import os.path
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gradience.files.lock import is_held
from gradience.hub_ids import COMMIT
from gradience.storage.inventory.caches.hub_store import Store
from gradience.storage.inventory.caches.kind import Look, entry, read_text
from gradience.storage.inventory.records import Damage, Entry
from gradience.storage.inventory.scan import Directory, File, Link
from gradience.storage.inventory.tally import BLOCK, Tally

_LOOK_AGAIN = "Downloaded again on next use, if the repository is still there and open to you."


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A snapshot: its own inodes, and the blobs it links to."""

    commit: str
    directory: Directory
    blobs: frozenset[str]
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repo:
    """A repository as its directory tells it.

    Attributes
    ----------
    directory : Directory
    repo_type, name : str
        "model", "org/name".
    blobs : mapping of str to File
        Regular blobs by name, parts of downloads among them.
    shared : mapping of str to str
        Blob name to the xet hash it leads to in the shared store.
    blob_links : sequence of Link
        The links that `shared` is made of.
    revisions : tuple of Revision
    refs : mapping of str to str
        Ref to commit.
    damage : tuple of Damage
    locks : Directory or None
    store : Store
    """

    directory: Directory
    repo_type: str
    name: str
    blobs: Mapping[str, File]
    shared: Mapping[str, str]
    blob_links: Sequence[Link]
    revisions: tuple[Revision, ...]
    refs: Mapping[str, str]
    damage: tuple[Damage, ...]
    locks: Directory | None
    store: Store
    users_of_blob: Mapping[str, int] = field(default_factory=dict)

    @property
    def store_blobs(self) -> frozenset[str]:
        """Hashes of the shared blobs it links to, that are there."""
        return frozenset(h for h in self.shared.values() if h in self.store.payloads)

    def entry(self, look: Look, users: Mapping[str, int]) -> Entry:
        """The repository as an entry, its revisions as parts.

        Parameters
        ----------
        users : mapping of str to int
            By xet hash: how many repositories link to it.
        """
        tally = Tally().add_tree(self.directory)
        if self.locks is not None:
            tally.add_tree(self.locks)
        for name in self.store_blobs:
            self._add_shared(tally, name, kept=users[name] > 1)
        revisions = [(r, self._count(r, users)) for r in self.revisions]
        # Refs and listings are read by everything that only looks: blobs tell of use.
        tally.take_times(*(counted for _, counted in revisions))
        found = [*self.damage, *(d for r in self.revisions for d in r.damage)]
        return entry(
            look,
            tally,
            what="repo",
            name=self.name,
            path=self.directory.path,
            recoverable="download",
            how=_LOOK_AGAIN,
            repo_type=self.repo_type,
            refs=sorted(self.refs),
            damage=found,
            parts=[self._revision(look, r, counted) for r, counted in revisions],
        )

    def _add_shared(self, tally: Tally, name: str, *, kept: bool) -> None:
        file, dev = self.store.payloads[name]
        tally.add_file(file, dev, kept=kept)
        manifest = self.store.manifests.get(name)
        if manifest is not None:
            tally.add_untimed(manifest, dev, kept=kept)

    def _count(self, revision: Revision, users: Mapping[str, int]) -> Tally:
        """What a revision takes: its snapshot, its notes, and the blobs it links to."""
        tally = Tally().add_tree(revision.directory)
        self._add_notes(tally, revision.commit)
        dev = revision.directory.dev
        reached, shared, counts = revision.blobs, self.shared, self.users_of_blob
        plain = reached & self.blobs.keys()
        own = {name for name in plain if counts[name] == 1}
        tally.add_files([self.blobs[name] for name in own], dev)
        tally.add_files([self.blobs[name] for name in plain - own], dev, kept=True)
        hashes = {shared[name]: counts[name] > 1 for name in reached & shared.keys()}
        for name, _, blocks in self.blob_links:
            if name in reached:
                tally.add_link(blocks, kept=counts[name] > 1)
        for hashed, others in hashes.items():
            if hashed in self.store.payloads:
                self._add_shared(tally, hashed, kept=others or users[hashed] > 1)
        return tally

    def _revision(self, look: Look, revision: Revision, tally: Tally) -> Entry:
        refs = sorted(ref for ref, commit in self.refs.items() if commit == revision.commit)
        return entry(
            look,
            tally,
            what="revision",
            name=revision.commit,
            path=revision.directory.path,
            recoverable="download",
            how=_LOOK_AGAIN,
            repo_type=self.repo_type,
            revision=revision.commit,
            refs=refs,
            belongs_to=self.name,
            damage=revision.damage,
        )

    def _add_notes(self, tally: Tally, commit: str) -> None:
        """Add the listing of a commit, and the notes of files it does not have."""
        trees = self.directory.child("trees")
        for file in trees.files if trees else ():
            if file.name == f"{commit}.json" and trees:
                tally.add_untimed(file, trees.dev)
        absent = self.directory.child(".no_exist")
        noted = absent.child(commit) if absent else None
        if noted:
            # Empty files, made when a program asked for what the commit does not hold.
            times = Tally()
            times.take_times(tally)
            tally.add_tree(noted)
            tally.mtime, tally.atime = times.mtime, times.atime


def read_repo(
    look: Look,
    directory: Directory,
    *,
    repo_type: str,
    folder: str,
    store: Store,
    locks: Mapping[str, Directory],
) -> Repo:
    """Count the links of a repository and note what is broken."""
    blobs_dir = directory.child("blobs")
    blobs = {file.name: file for file in blobs_dir.files} if blobs_dir else {}
    shared, damage = _store_links(blobs_dir, store) if blobs_dir else ({}, [])
    snapshots = directory.child("snapshots")
    revisions = tuple(
        _read_revision(d, blobs, shared, blind=blobs_dir is not None and blobs_dir.unread)
        for d in (snapshots.dirs if snapshots else ())
    )
    users = Counter(name for revision in revisions for name in revision.blobs)
    refs, ref_damage = _read_refs(look, directory, {r.commit for r in revisions})
    if not revisions:
        damage.append(
            Damage(
                code="no_snapshots", path=directory.path, message=f"{folder} has no snapshot at all"
            )
        )
    lock_dir = locks.get(directory.name)
    if blobs_dir:
        damage += _unused(look, blobs_dir, users, lock_dir)
    return Repo(
        directory=directory,
        repo_type=repo_type,
        name=folder.replace("--", "/"),
        blobs=blobs,
        shared=shared,
        blob_links=blobs_dir.links if blobs_dir else (),
        revisions=revisions,
        refs=refs,
        damage=(*damage, *ref_damage),
        locks=lock_dir,
        store=store,
        users_of_blob=users,
    )


def _store_links(blobs_dir: Directory, store: Store) -> tuple[dict[str, str], list[Damage]]:
    """Blob name to xet hash, for blobs that are links into the store of this cache."""
    shared: dict[str, str] = {}
    damage = []
    for name, target, _ in blobs_dir.links:
        hashed = target.rpartition("/")[2]
        if target == f"../../blobs/{hashed[:2]}/{hashed}" and len(hashed) == 64:
            shared[name] = hashed
            if hashed not in store.payloads and not store.layout.startswith("unknown"):
                damage.append(
                    Damage(
                        code="broken_store_link",
                        path=f"{blobs_dir.path}/{name}",
                        message=f"blob {name[:12]} leads to a shared blob that is not there",
                    )
                )
        else:
            shared[name] = ""
            damage.append(
                Damage(
                    code="foreign_link",
                    path=f"{blobs_dir.path}/{name}",
                    message=f"blob {name[:12]} is a link to {target!r}; "
                    "what it leads to is not counted here",
                )
            )
    return shared, damage


def _read_revision(
    snapshot: Directory, blobs: Mapping[str, File], shared: Mapping[str, str], *, blind: bool
) -> Revision:
    """`blind` where the blobs could not be read: then no link can be called broken."""
    reached: set[str] = set()
    damage: list[Damage] = []
    stack = [(snapshot, "../../blobs/")]
    files = 0
    while stack:
        directory, up = stack.pop()
        stack += [(child, f"../{up}") for child in directory.dirs]
        files += directory.file_count + len(directory.hard) + len(directory.links)
        skip = len(up)
        for name, target, _ in directory.links:
            # The link that the hub makes, compared as text: 36 000 of these in a full cache.
            blob = target[skip:] if target.startswith(up) else _elsewhere(directory, target)
            if blob in blobs or blob in shared:
                reached.add(blob)
            elif not blind:
                damage.append(_broken(directory, name, target))
    if not files:
        message = f"snapshot {snapshot.name[:12]} holds no file"
        damage.append(Damage(code="empty_snapshot", path=snapshot.path, message=message))
    return Revision(
        commit=snapshot.name,
        directory=snapshot,
        blobs=frozenset(reached),
        damage=tuple(damage),
    )


def _elsewhere(directory: Directory, target: str) -> str:
    """The blob that an unusual link (absolute, or with detours) names; "" if it leaves the repo."""
    path = os.path.normpath(os.path.join(directory.path, target))  # noqa: PTH118 - text only
    repo = directory.path.rpartition("/snapshots/")[0]
    inside, _, name = path.rpartition("/blobs/")
    return name if inside == repo else ""


def _broken(directory: Directory, name: str, target: str) -> Damage:
    path = f"{directory.path}/{name}"
    inside = "/blobs/" in target and not os.path.isabs(target)  # noqa: PTH117 - text only
    if inside or not os.path.exists(path):  # noqa: PTH110 - names may be no UTF-8
        blob = target.rpartition("/")[2]
        return Damage(code="broken_link", path=path, message=f"{name}: blob {blob[:12]} is gone")
    message = f"{name} is a link to {target!r}; what it leads to is not counted here"
    return Damage(code="foreign_link", path=path, message=message)


def _read_refs(
    look: Look, repo: Directory, commits: set[str]
) -> tuple[dict[str, str], list[Damage]]:
    refs: dict[str, str] = {}
    damage = []
    for directory, prefix in _ref_dirs(repo):
        for file in directory.files:
            path = f"{directory.path}/{file.name}"
            commit = (read_text(path, 256) or "").strip()
            ref = prefix + file.name
            refs[ref] = commit
            if commit in commits:
                continue
            sound = COMMIT.fullmatch(commit)
            message = (
                f"ref {ref} names commit {commit[:12]}, of which there is no snapshot"
                if sound
                else f"ref {ref} holds no commit hash: {commit[:40]!r}"
            )
            damage.append(
                Damage(
                    code="stale_ref" if sound else "unreadable_ref",
                    path=path,
                    message=message,
                    physical_bytes=file.blocks * BLOCK,
                    age_seconds=look.age(file.mtime),
                )
            )
    return refs, damage


def _ref_dirs(repo: Directory) -> Iterator[tuple[Directory, str]]:
    top = repo.child("refs")
    stack = [(top, "")] if top else []
    while stack:
        directory, prefix = stack.pop()
        yield directory, prefix
        stack += [(child, f"{prefix}{child.name}/") for child in directory.dirs]


def _unused(
    look: Look, blobs_dir: Directory, users: Mapping[str, int], locks: Directory | None
) -> Iterator[Damage]:
    """Parts of downloads, and blobs that no snapshot links to."""
    for file in blobs_dir.files:
        if file.name in users:
            continue
        path = f"{blobs_dir.path}/{file.name}"
        size = file.blocks * BLOCK
        age = look.age(file.mtime)
        if file.name.endswith(".incomplete"):
            # Named <etag>.<8 hex>.incomplete since 1.18, <etag>.incomplete before.
            etag = file.name.partition(".")[0]
            held = is_held(f"{locks.path}/{etag}.lock") if locks else False
            doing = "is being downloaded now" if held else "was not finished"
            message = f"the download of blob {etag[:12]} {doing}"
            code = "incomplete"
        else:
            held = None
            message = f"no snapshot links to blob {file.name[:12]}"
            code = "orphan_blob"
        yield Damage(
            code=code,
            path=path,
            message=message,
            physical_bytes=size,
            age_seconds=age,
            held=held,
        )
