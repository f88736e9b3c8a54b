"""What a growing set of things would give back together. Pure.

The parts do not add up: a blob is freed by the last revision that links to it, a shared blob by the
last repository. So each addition counts again what it touches, and only that.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from gradience.storage.change.candidates import Candidate
from gradience.storage.change.hub_pieces import (
    Hub,
    blob_pieces,
    revision_pieces,
    store_links,
    store_pieces,
)


class Ledger:
    """Bytes that would be freed, by cache.

    Parameters
    ----------
    hubs : mapping of int to Hub
        The hub caches, by index in the survey.
    """

    def __init__(self, hubs: Mapping[int, Hub]) -> None:
        self._hubs = hubs
        self._commits: dict[str, set[str]] = defaultdict(set)
        self._own: dict[str, int] = {}
        self._links: dict[str, Counter[str]] = {}
        self._removed: dict[int, Counter[str]] = defaultdict(Counter)
        self._bytes: dict[int, int] = defaultdict(int)

    def add(self, candidate: Candidate) -> None:
        """Count one more thing."""
        hub = self._hubs.get(candidate.cache)
        if hub is None or candidate.junk or candidate.repo not in hub.repos:
            self._bytes[candidate.cache] += candidate.frees_bytes
            return
        self._commits[candidate.repo].add(candidate.entry.revision)
        self._bytes[candidate.cache] += self._repo(hub, candidate.repo)
        self._bytes[candidate.cache] += self._store(hub, candidate.cache, candidate.repo)

    def freed(self, caches: Iterable[int]) -> int:
        """What would be freed in these caches."""
        return sum(self._bytes[index] for index in caches)

    def _repo(self, hub: Hub, path: str) -> int:
        """How much more its own files give back than before."""
        repo, commits = hub.repos[path], self._commits[path]
        now = sum(piece.frees_bytes for piece in blob_pieces(hub, repo, commits))
        for revision in repo.revisions:
            if revision.commit in commits:
                now += sum(piece.frees_bytes for piece in revision_pieces(hub, repo, revision))
        more = now - self._own.get(path, 0)
        self._own[path] = now
        return more

    def _store(self, hub: Hub, cache: int, path: str) -> int:
        """How much more the shared store gives back than before."""
        links = store_links(hub.repos[path], self._commits[path])
        new = links - self._links.get(path, Counter())
        self._links[path] = links
        self._removed[cache].update(new)
        now = {hashed: self._removed[cache][hashed] for hashed in new}
        return sum(piece.frees_bytes for piece in store_pieces(hub, now, ()))
