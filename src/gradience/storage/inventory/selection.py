"""Which entries of an inventory to show, and in which order. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase

import msgspec

from gradience.storage.inventory.records import Cache, Damage, Entry, Inventory

LOCKLESS_SECONDS = 86400.0
"""Where no lock can tell (another host's, on a network mount), what is younger is left alone."""
SORTS: dict[str, Callable[[Entry], tuple[float | str, ...]]] = {
    "size": lambda e: (-e.physical_bytes, e.name),
    "frees": lambda e: (-e.frees_bytes, e.name),
    "age": lambda e: (e.last_used if e.last_used is not None else float("inf"), e.name),
    "files": lambda e: (-e.inodes, e.name),
    "name": lambda e: (e.name.casefold(), e.kind),
}


def select(
    inventory: Inventory,
    *,
    names: Sequence[str] = (),
    idle: timedelta | None = None,
    at_least: int = 0,
    damaged: bool = False,
    sort: str = "size",
) -> Inventory:
    """An inventory with only some of the entries; the totals of caches stay what they are.

    The total of a filtered inventory is the sum over its entries, in which bytes that several of
    them share count for each.

    Parameters
    ----------
    names : sequence of str
        Shell patterns for names, such as `org/*`; any of them. Case matters, as on the Hub.
    idle : timedelta, optional
        Only what was last used longer ago, seen from `inventory.made`. What has no known last use
        is left out: nothing may call it old.
    at_least : int
        Only what takes so many bytes.
    damaged : bool
        Only what has damage.
    sort : str
        A key of `SORTS`.
    """

    def wanted(entry: Entry) -> bool:
        return (
            (not names or fits(entry.name, names))
            and entry.physical_bytes >= at_least
            and (not damaged or bool(entry.damage))
            and (idle is None or is_idle(entry, idle, inventory.made))
        )

    filtered = bool(names or idle or at_least or damaged)
    caches = []
    for cache in inventory.caches:
        entries = [e for e in cache.entries if wanted(e)] if filtered else list(cache.entries)
        if entries or not filtered:
            entries.sort(key=SORTS[sort])
            caches.append(msgspec.structs.replace(cache, entries=tuple(entries)))
    if not filtered:
        return msgspec.structs.replace(inventory, caches=tuple(caches))
    chosen = [entry for cache in caches for entry in cache.entries]
    return msgspec.structs.replace(
        inventory,
        caches=tuple(caches),
        physical_bytes=sum(entry.physical_bytes for entry in chosen),
        logical_bytes=sum(entry.logical_bytes for entry in chosen),
    )


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of these shell patterns; case matters, as on the Hub."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_idle(entry: Entry, idle: timedelta, now: float) -> bool:
    """Whether an entry was last used longer ago than `idle`; no if that is not known."""
    return entry.last_used is not None and now - entry.last_used >= idle.total_seconds()


def settled(damage: Damage, min_age: float) -> bool:
    """Whether what a writer left was abandoned, as far as lock and age can tell."""
    if damage.held:
        return False
    if damage.age_seconds is None:
        return True
    no_lock = damage.code == "incomplete" and damage.held is None
    # An age of nothing is asked for by somebody who knows that no writer is left.
    return damage.age_seconds >= (LOCKLESS_SECONDS if no_lock and min_age else min_age)


def listed(cache: Cache) -> tuple[Entry, ...]:
    """The entries of a cache that mean something to a user: not locks, tags, empty directories."""
    return tuple(e for e in cache.entries if e.damage or (e.what != "bookkeeping" and _holds(e)))


def _holds(entry: Entry) -> bool:
    """Whether there is anything in it; what a link leads to is not counted with it."""
    return entry.files > 0 or entry.what == "link"


def nearest(pattern: str, names: Iterable[str]) -> str | None:
    """The name that a pattern which fits none was most likely meant for; None without one.

    Examples
    --------
    >>> nearest("openai/wisper*", ["openai/whisper-small", "org/m"]), nearest("x", ["org/m"])
    ('openai/whisper-small', None)
    """
    word = pattern.strip("*").casefold()
    known: dict[str, str] = {}
    for name in names:
        known[name.casefold()] = known[name.casefold().rpartition("/")[2]] = name
    inside = [name for name in known if word and word in name]
    close = inside or get_close_matches(word, known, n=1)
    return known[close[0]] if close else None
