"""From chosen things to acts: which names, in which order, each with its fingerprint."""

import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gradience.files.below import Below
from gradience.storage.change import fingerprint
from gradience.storage.change.candidates import Candidate, within
from gradience.storage.change.choose import Choice, Key
from gradience.storage.change.hub_pieces import (
    Hub,
    blob_pieces,
    junk_pieces,
    last_written,
    rest_pieces,
    revision_pieces,
    store_links,
    store_pieces,
)
from gradience.storage.change.links import quiet_for, too_new
from gradience.storage.change.records import Action, Fingerprint, text_of
from gradience.storage.inventory.caches import CACHES
from gradience.storage.inventory.caches.kind import Look, Piece
from gradience.storage.inventory.take import Survey
from gradience.storage.inventory.tally import BLOCK
from gradience.system.holders import Holder, Holders

Verb = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece, the choice it belongs to, and the group it stands or falls with."""

    piece: Piece
    choice: int
    group: str


def actions(
    survey: Survey,
    hubs: Mapping[int, Hub],
    choices: Sequence[Choice],
    *,
    verb: Verb,
    holders: Holders,
    min_age: float,
) -> tuple[list[Action], dict[Key, tuple[str, str]]]:
    """The acts that carry out the choices; and choices that cannot be, with the reason.

    A choice of which one piece is in use, unreadable or asked for by a download that may be under
    way is named in the second; make the acts again without it.
    """
    made: list[Action] = []
    refused: dict[Key, tuple[str, str]] = {}
    by_cache: dict[int, list[int]] = defaultdict(list)
    for index, choice in enumerate(choices):
        by_cache[choice.candidate.cache].append(index)
    for cache, indexes in by_cache.items():
        look = survey.looks[cache]
        hub = hubs.get(cache)
        if hub is not None:
            refused |= dict(
                _too_new(hub, [choices[i].candidate for i in indexes], quiet_for(min_age))
            )
            parts = list(_hub_parts(hub, choices, indexes))
        else:
            parts = list(_plain_parts(look, choices, indexes))
        try:
            with Below(look.tree.path) as below:
                _add(made, refused, below, parts, choices, verb=verb, holders=holders)
        except OSError as error:
            for index in indexes:
                refused[choices[index].candidate.key] = "refused", error.strerror or str(error)
    return made, refused


def _plain_parts(look: Look, choices: Sequence[Choice], indexes: Sequence[int]) -> Iterator[Part]:
    whole = {c.entry.path for c in (choices[i].candidate for i in indexes) if c.is_whole}
    for index in indexes:
        candidate = choices[index].candidate
        path = candidate.entry.path
        if candidate.junk:
            for damage in candidate.junk:
                # What lies in a directory that goes as a whole goes with it.
                if not within(damage.path, whole):
                    yield Part(
                        piece=_junk(look, damage.path, damage.physical_bytes, candidate),
                        choice=index,
                        group=damage.path,
                    )
            continue
        for piece in CACHES[candidate.kind].pieces(look, candidate.entry):
            yield Part(piece=piece, choice=index, group=path)


def _junk(look: Look, path: str, size: int, candidate: Candidate) -> Piece:
    guard = "lock_beside" if candidate.kind == "dataset_downloads" else ""
    name = path.removeprefix(f"{look.tree.path}/")
    return Piece(names=(name,), frees_bytes=size, guard=guard)


def _hub_parts(hub: Hub, choices: Sequence[Choice], indexes: Sequence[int]) -> Iterator[Part]:
    """Repository by repository; those that share a blob of the store that goes are one group."""
    by_repo: dict[str, list[int]] = defaultdict(list)
    for index in indexes:
        by_repo[choices[index].candidate.repo].append(index)
    links: Counter[str] = Counter()
    users: dict[str, list[str]] = defaultdict(list)
    parts: dict[str, list[Part]] = {}
    for path, chosen in by_repo.items():
        if path in hub.repos:
            commits = {choices[i].candidate.entry.revision for i in chosen} - {""}
            found = store_links(hub.repos[path], commits)
            links += found
            for hashed in found:
                users[hashed].append(path)
            parts[path] = list(_repo_parts(hub, path, choices, chosen, commits))
    orphaned = by_repo.get("", ())
    store = list(_store_parts(hub, choices, orphaned, links=links, users=users, parts=parts))
    yield from _grouped(parts, store, users)


def _too_new(
    hub: Hub, chosen: Sequence[Candidate], quiet: float
) -> Iterator[tuple[Key, tuple[str, str]]]:
    """What would free blobs of a repository to which a revision that stays was added just now.

    The client may have looked already which blobs it has, so none may go: `guards.HUB_BLOB`.
    """
    by_repo: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in chosen:
        by_repo[candidate.repo].append(candidate)
    for path, members in by_repo.items():
        if path not in hub.repos:
            continue
        repo = hub.repos[path]
        gone = {candidate.entry.revision for candidate in members} - {""}
        stays = [(last_written(r), r.commit) for r in repo.revisions if r.commit not in gone]
        written, commit = max(stays, default=(0.0, ""))
        age = hub.look.now - written
        if max(0.0, age) >= quiet:
            continue
        why = too_new(f"snapshots/{commit[:12]}", age, quiet)
        freed = {piece.names[0].rpartition("/")[2] for piece in blob_pieces(hub, repo, gone)}
        reached = {r.commit: r.blobs for r in repo.revisions}
        for candidate in members:
            orphans = any(damage.code == "orphan_blob" for damage in candidate.junk)
            if orphans or freed & reached.get(candidate.entry.revision, frozenset()):
                yield candidate.key, ("in_flight", why)


def _repo_parts(
    hub: Hub, path: str, choices: Sequence[Choice], chosen: Sequence[int], commits: set[str]
) -> Iterator[Part]:
    repo = hub.repos[path]
    index_of = {choices[i].candidate.entry.revision: i for i in chosen}
    whole = all(r.commit in commits for r in repo.revisions)
    for index in chosen:
        candidate = choices[index].candidate
        if candidate.junk:
            inside = [r.directory.path for r in repo.revisions if r.commit in commits]
            junk = {
                d.path: d.code
                for d in candidate.junk
                if not any(d.path == p or d.path.startswith(f"{p}/") for p in inside)
            }
            for piece in junk_pieces(hub, repo, junk):
                yield Part(piece=piece, choice=index, group=path)
    for revision in repo.revisions:
        if revision.commit in commits:
            for piece in revision_pieces(hub, repo, revision):
                yield Part(piece=piece, choice=index_of[revision.commit], group=path)
    last = {b: r.commit for r in repo.revisions if r.commit in commits for b in r.blobs}
    for piece in blob_pieces(hub, repo, commits):
        blob = piece.names[0].rpartition("/")[2]
        yield Part(piece=piece, choice=index_of[last[blob]], group=path)
    if whole and (repo.revisions or _is_junk(choices, chosen)):
        for piece in rest_pieces(hub, repo):
            yield Part(piece=piece, choice=chosen[-1], group=path)


def _is_junk(choices: Sequence[Choice], chosen: Sequence[int]) -> bool:
    """Whether a repository without a revision was chosen; its first download may just begin."""
    return any(d.code == "no_snapshots" for i in chosen for d in choices[i].candidate.junk)


def _store_parts(
    hub: Hub,
    choices: Sequence[Choice],
    orphaned: Sequence[int],
    *,
    links: Mapping[str, int],
    users: Mapping[str, list[str]],
    parts: Mapping[str, list[Part]],
) -> Iterator[Part]:
    for piece in store_pieces(hub, links, ()):
        hashed = piece.names[0].rpartition("/")[2]
        path = users[hashed][-1]
        yield Part(piece=piece, choice=parts[path][-1].choice, group=path)
    for index in orphaned:
        hashes = [d.path.rpartition("/")[2] for d in choices[index].candidate.junk]
        for piece in store_pieces(hub, {}, hashes):
            yield Part(piece=piece, choice=index, group=piece.names[0])


def _grouped(
    parts: Mapping[str, list[Part]], store: Sequence[Part], users: Mapping[str, list[str]]
) -> Iterator[Part]:
    """Parts in the order of their groups, repositories that share a store blob in one group."""
    leader: dict[str, str] = {path: path for path in parts}

    def find(path: str) -> str:
        while leader[path] != path:
            leader[path] = leader[leader[path]]
            path = leader[path]
        return path

    going = {part.piece.names[0].rpartition("/")[2] for part in store}
    for hashed, paths in users.items():
        if hashed in going:
            for path in paths[1:]:
                leader[find(path)] = find(paths[0])
    groups: dict[str, list[Part]] = defaultdict(list)
    for path, found in parts.items():
        groups[find(path)] += found
    for part in store:
        groups[find(part.group) if part.group in leader else part.group].append(part)
    for group, found in groups.items():
        for part in found:
            yield Part(piece=part.piece, choice=part.choice, group=group)


def _add(
    made: list[Action],
    refused: dict[Key, tuple[str, str]],
    below: Below,
    parts: Sequence[Part],
    choices: Sequence[Choice],
    *,
    verb: Verb,
    holders: Holders,
) -> None:
    """Take the fingerprints of the parts below one root."""
    root = text_of(below.root)
    groups: dict[str, int] = {}
    first = 1 + max((action.group for action in made), default=-1)
    unit = 1 + max((action.unit for action in made), default=-1)
    for part in parts:
        candidate = choices[part.choice].candidate
        if candidate.key in refused:
            continue
        try:
            prints = [_print(below, name, part.piece, holders) for name in part.piece.names]
        except _InUseError as error:
            if not candidate.junk:
                refused[candidate.key] = "in_use", error.holder.sentence
            continue
        except FileNotFoundError:
            continue  # gone meanwhile
        except OSError as error:
            refused[candidate.key] = "refused", error.strerror or str(error)
            continue
        group = groups.setdefault(part.group, first + len(groups))
        for position, name in enumerate(part.piece.names):
            found, frees = prints[position]
            made.append(
                Action(
                    verb=part.piece.verb if part.piece.verb != "delete" else verb,
                    root=root,
                    path=text_of(name),
                    fingerprint=found,
                    item=part.choice,
                    unit=unit,
                    group=group,
                    frees_bytes=frees,
                    guard="" if position else part.piece.guard,
                )
            )
        unit += 1


class _InUseError(Exception):
    def __init__(self, holder: Holder) -> None:
        super().__init__(holder.sentence)
        self.holder = holder


def _print(below: Below, name: str, piece: Piece, holders: Holders) -> tuple[Fingerprint, int]:
    """The fingerprint of a name, and what removing it would give back."""
    if piece.verb == "prune":
        status = below.status(name)
        found = fingerprint.with_rights(status)
        return found, status.st_blocks * BLOCK
    frees = 0

    def look(path: str, status: fingerprint.Status) -> None:
        nonlocal frees
        if (holder := holders.of(status, path)) is not None:
            raise _InUseError(holder)
        if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
            frees += status.st_blocks * BLOCK

    return fingerprint.take(below, name, look), frees
