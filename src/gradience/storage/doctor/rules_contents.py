"""Trouble four of our user's list, and what is broken or left over inside the caches.

Works on the inventory's records. What a writer may still be busy with (held, or touched within the
hour) is never called a leftover.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from gradience.findings import Finding, Severity
from gradience.storage.checkpoints.names import aside
from gradience.storage.doctor import finding_kinds as kinds
from gradience.storage.doctor.facts import FORMER, Facts
from gradience.storage.doctor.merges import bring, merge
from gradience.storage.doctor.questions import MODELS
from gradience.storage.doctor.rules_rights import given
from gradience.storage.doctor.values import TRUE, listed, quoted, version_of
from gradience.storage.inventory.records import Cache, Damage, Entry
from gradience.storage.inventory.selection import settled
from gradience.storage.verify.records import Problem
from gradience.units import format_size, plural

BUSY_SECONDS = 3600.0
_MUCH = 10**9
_TRIVIAL = 10**6  # bytes of a cache that are not worth a word
_OF_LIBRARIES = frozenset({"dataset", "weights", "repo", "kernels"})
_LONGEST = 3000  # characters of one command; what is longer, a page would cut
_SHARED_STORE = (1, 32)
_LEFT = frozenset({"incomplete", "orphan_blob", "temporary"})
_BROKEN = frozenset(
    {"broken_link", "broken_store_link", "stale_ref", "unreadable_ref", "empty_snapshot"}
)
_WEIGHTS = frozenset({"truncated", "zero_filled", "wrong_size", "lfs_pointer"})
_MANY_LOCKS = 1000
Copy = tuple[Cache, Entry]

_WORDS = {
    "incomplete": ("part of a download", "parts of downloads", "that did not end"),
    "orphan_blob": ("blob", "blobs", "that no snapshot uses"),
    "temporary": ("temporary file", "temporary files", "of writers that did not end"),
}


def _caches(facts: Facts) -> tuple[Cache, ...]:
    return facts.inventory.caches if facts.inventory else ()


def _idle(damage: Damage) -> bool:
    return settled(damage, BUSY_SECONDS)


def _damage(cache: Cache, codes: Iterable[str]) -> Iterator[tuple[Entry, Damage]]:
    wanted = frozenset(codes)
    waiting = list(cache.entries)
    seen = set()
    while waiting:
        entry = waiting.pop(0)
        # A ref is written before its download, a link after: both are broken meanwhile.
        if wanted <= _BROKEN and any(d.code == "incomplete" and not _idle(d) for d in entry.damage):
            continue
        waiting.extend(entry.parts)
        for damage in entry.damage:
            if damage.code in wanted and _idle(damage) and (damage.code, damage.path) not in seen:
                seen.add((damage.code, damage.path))
                yield entry, damage


def in_use(facts: Facts) -> set[str]:
    """Hub caches that a library uses, as a library names them and without links on the way.

    A cache that was moved is a link where the libraries look: its content is what they use.
    """
    named = {use.path for use in facts.uses if use.purpose == MODELS}
    places = (facts.places[path] for path in named if path in facts.places)
    return named | {str(place.resolved) for place in places if place.kind == "directory"}


def _hubs(facts: Facts) -> list[Cache]:
    """Hub caches with content; those in use first."""
    used = in_use(facts)
    found = [c for c in _caches(facts) if c.kind == "hub" and _repos(c)]
    return sorted(found, key=lambda c: c.root not in used)


def hub_holds_repos(facts: Facts) -> bool:
    """The hub cache that the libraries use has content."""
    used = in_use(facts)
    return any(cache.root in used for cache in _hubs(facts))


def _repos(cache: Cache) -> dict[tuple[str, str], Entry]:
    return {(e.repo_type, e.name): e for e in cache.entries if e.what == "repo"}


def duplicates(facts: Facts) -> Iterator[Finding]:
    """The same repositories in two hub caches; one finding for each pair of caches."""
    where: dict[tuple[str, str], list[Copy]] = defaultdict(list)
    for cache in _hubs(facts):
        for key, entry in _repos(cache).items():
            where[key].append((cache, entry))
    pairs: dict[tuple[str, str], list[tuple[Copy, Copy]]] = defaultdict(list)
    for copies in where.values():
        for other in copies[1:]:
            pairs[copies[0][0].root, other[0].root].append((copies[0], other))
    for (kept, second), twice in pairs.items():
        names = listed(f"the {e.repo_type} {e.name}" for _, (_, e) in twice)
        sizes = [format_size(sum(p[side][1].physical_bytes for p in twice)) for side in (0, 1)]
        yield kinds.DUPLICATE.found(
            f"{names} in {kept} ({sizes[0]}) and in {second} ({sizes[1]}).",
            remedy=merge(second, kept, facts),
        )


def left_behind(facts: Facts) -> Iterator[Finding]:
    """A hub cache with content where no library looks."""
    used = in_use(facts)
    if not used:
        return
    hubs = _hubs(facts)
    first = next((c for c in hubs if c.root in used), None)
    target, kept = (sorted(used)[0], {}) if first is None else (first.root, _repos(first))
    for cache in hubs:
        held = _repos(cache).items()
        own = [entry.name for key, entry in held if key not in kept and entry.files]
        if cache.root in used or not own:
            continue
        yield kinds.SECOND_CACHE.found(
            f"{cache.root} holds {format_size(cache.physical_bytes)} ({listed(own, 3)}) where no "
            f"library looks; they use {target}.",
            remedy=merge(cache.root, target, facts),
        )


def others_left_behind(facts: Facts) -> Iterator[Finding]:
    """A cache of datasets or of torch with content where no library looks: these do not merge."""
    for cache in _caches(facts):
        target = facts.looked_at.get(cache.kind)
        held = [entry for entry in cache.entries if entry.what in _OF_LIBRARIES]
        size = sum(entry.physical_bytes for entry in held)
        if cache.chosen_by != FORMER or target is None or size < _TRIVIAL:
            continue
        yield kinds.SECOND_CACHE.found(
            f"{cache.root} holds {format_size(size)} of {cache.title} "
            f"({listed((entry.name for entry in held), 3)}) where no library looks; they use "
            f"{target}.",
            remedy=bring(cache, target, facts),
        )


def generations(facts: Facts) -> Iterator[Finding]:
    """Clients on both sides of the shared blob store, on a cache that has one."""
    shared = [c.root for c in _hubs(facts) if c.layout.startswith("shared")]
    old = [c for c in facts.clients if version_of(c.version) < _SHARED_STORE]
    new = [c for c in facts.clients if version_of(c.version) >= _SHARED_STORE]
    off = facts.environ.get("HF_HUB_DISABLE_SHARED_BLOBS", "").lower() in TRUE
    if shared and old and new and not off:
        yield kinds.GENERATIONS.found(
            f"{shared[0]} has the shared blob store of huggingface_hub >= 1.32 (here "
            f"{new[0].version}), but {listed(f'{c.version} in {c.site}' for c in old)} does not "
            "know it: deleting with that one frees nothing.",
            remedy="export HF_HUB_DISABLE_SHARED_BLOBS=1  # or upgrade the older environment",
        )


def _left(code: str, count: int) -> str:
    one, many, which = _WORDS[code]
    return f"{plural(count, one, many)} {which}"


def leftovers(facts: Facts) -> Iterator[Finding]:
    """What nobody will use again, one finding for each cache."""
    for cache in _caches(facts):
        found = [damage for _, damage in _damage(cache, _LEFT)]
        if not found:
            continue
        size = sum(d.physical_bytes for d in found)
        codes = dict.fromkeys(d.code for d in found)
        what = listed(_left(code, sum(d.code == code for d in found)) for code in codes)
        finding = kinds.LEFTOVERS.found(
            f"{cache.root} holds {what}: {format_size(size)} that nothing uses.",
            remedy=_clean(cache),
        )
        yield _warning(finding) if size > _MUCH else finding


def dead_runs(facts: Facts) -> Iterator[Finding]:
    """Room that runs which are over still hold, one finding for each."""
    for run in facts.dead_runs:
        finding = kinds.DEAD_RUN.found(
            f"The run in {run.place} is over, and {format_size(run.bytes)} that it held back or "
            "had not finished saving are still taken.",
            remedy=f"rm -rf -- {quoted(*run.held)}",
        )
        yield _warning(finding) if run.bytes > _MUCH else finding


def _warning(finding: Finding) -> Finding:
    return Finding(
        code=finding.code,
        severity=Severity.WARNING,
        message=finding.message,
        remedy=finding.remedy,
    )


def _clean(cache: Cache) -> str:
    """The command that removes what nothing uses from caches of this kind; it asks."""
    where = f"--at {cache.kind}={quoted(cache.root)}"
    if cache.kind == "project":
        where = f"--project {quoted(cache.root)}"
    return f"gradience cache clean --only-junk --kind {cache.kind} {where}"


def _fitting(words: list[str]) -> list[str]:
    """As many words as one command should hold, at least one."""
    total = list(accumulate(len(word) + 1 for word in words))
    return words[: max(1, sum(t <= _LONGEST for t in total))]


def broken_repos(facts: Facts) -> Iterator[Finding]:
    """Links and refs to nothing, one finding for each cache."""
    for cache in _caches(facts):
        by_repo: dict[str, list[Damage]] = defaultdict(list)
        for entry, damage in _damage(cache, _BROKEN):
            by_repo[entry.belongs_to or entry.name].append(damage)
        if not by_repo:
            continue
        told = listed((f"{name}: {found[0].message}" for name, found in by_repo.items()), 3)
        yield kinds.BROKEN_REPO.found(
            f"{len(by_repo)} of the repositories in {cache.root} ({told})",
            remedy=_clean(cache),
        )


def broken_weights(facts: Facts) -> Iterator[Finding]:
    """Truncated and zero-filled files, by size, header and first pages; one for each repo."""
    by_owner: dict[str, list[Problem]] = defaultdict(list)
    for problem in facts.verification.problems if facts.verification else ():
        if problem.code in _WEIGHTS:
            by_owner[problem.owner].append(problem)
    for owner, found in by_owner.items():
        what = listed((f"{(p.names or (p.path,))[0]}: {p.message}" for p in found), 3)
        yield kinds.BROKEN_WEIGHTS.found(
            f"{owner}: {what} (in {Path(found[0].path).parent}).",
            remedy=_fetch_again(owner, [p.path for p in found], facts),
        )


def _fetch_again(repo: str, paths: list[str], facts: Facts) -> str:
    """Delete files, and the links that then lead nowhere: they would pass for the files."""
    owners = {o for p in paths if (o := facts.closed.get(str(Path(p).parent))) is not None}
    if owners:
        whose = listed(sorted(owners))
        what = f"--project {quoted(repo)}" if repo.startswith("/") else quoted(repo)
        must = f"{whose} owns them, and must delete them"
        why = "they cannot be deleted where they are" if owners == {facts.user} else must
        return f"gradience cache verify {what}  # {why}"
    named = paths[: len(_fitting(paths))]
    bases = dict.fromkeys(p.partition("/blobs/")[0] for p in named if "/blobs/" in p)
    links = "".join(f" && find {quoted(base)} -xtype l -delete" for base in bases)
    return f"rm -f -- {quoted(*named)}{links}  # then run the program: it downloads them again"


def broken_checkpoints(facts: Facts) -> Iterator[Finding]:
    """Checkpoints that a resume would choose and fail on; older ones are a warning."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for cache in _caches(facts):
        for entry, damage in _damage(cache, {"broken_checkpoint"}):
            reasons[entry.path].append(damage.message)
    for bad in facts.bad_files:
        reasons[str(bad.checkpoint)].append(f"{bad.path.name}: {bad.detail}")
    all_of_them = [
        Path(e.path) for c in _caches(facts) for e in c.entries if e.what == "checkpoint"
    ]
    for name, why in reasons.items():
        path = Path(name)
        taken = [old.name for old in facts.set_aside if old.parent == path.parent]
        finding = kinds.BROKEN_CHECKPOINT.found(
            f"{path}: {listed(why, 3)}",
            remedy=f"mv {quoted(path, path.with_name(aside(path.name, taken)))}",
        )
        newer = [p for p in all_of_them if p.parent == path.parent and _step(p) > _step(path)]
        yield _warning(finding) if newer else finding


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def unfinished(facts: Facts) -> Iterator[Finding]:
    """Moves and merges of caches that were cut off."""
    for found in facts.unfinished:
        yield kinds.UNFINISHED.found(f"{found.words}.", remedy=found.command)


def idle_locks(facts: Facts) -> Iterator[Finding]:
    """Lock files that the hub never removes."""
    for root, count in facts.idle_locks.items():
        if count >= _MANY_LOCKS:
            yield kinds.IDLE_LOCKS.found(
                f"{root}/.locks holds {count} lock files that nobody has used for a day: harmless, "
                "but each takes an inode.",
                # Under the lock itself: one that is held is old too, for it is never written to.
                remedy=f"find {quoted(root)}/.locks -name '*.lock' -mmin +1440 "
                "-exec flock -n {} rm {} ';'",
            )


def unreadable(facts: Facts) -> Iterator[Finding]:
    """Parts of a cache that could not be looked at; of one that was in use, if it is one's own."""
    for cache in _caches(facts):
        place = facts.roots.get(cache.root)
        not_mine = cache.chosen_by == FORMER and place is not None and not place.mine
        if cache.unreadable_count and not not_mine:
            first = cache.unreadable[0]
            yield kinds.UNREADABLE_PART.found(
                f"{plural(cache.unreadable_count, 'part')} of {cache.root} could not be read, "
                f"first {first.path}: {first.reason}",
                # A directory of one's own may be closed by its mode alone.
                remedy=given(Path(cache.root), facts, opened=True),
            )
