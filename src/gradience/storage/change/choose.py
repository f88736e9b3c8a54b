"""Which things go: filters, budgets, and what protects a thing from both. Pure.

A budget takes the least valuable first. Value is, in this order: when it was last used (by
doublings of the time since, so that a day more or less does not decide), whether it is made again
here or must come from elsewhere, and how many bytes must come again for each byte that is freed:
what shares its blobs with something that stays frees little and costs as much.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from gradience.storage.change.candidates import PARTS, Candidate, newest_first, within
from gradience.storage.change.ledger import Ledger
from gradience.storage.inventory.report import ago
from gradience.storage.inventory.selection import fits
from gradience.units import format_size

_DAY = 86400.0
_COST = {"rebuild": 0, "download": 1, "unknown": 2, "lost": 3}

Key = tuple[int, str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What to choose; everything that is given must hold.

    Attributes
    ----------
    names, kinds, revisions : sequence of str
        Shell patterns for names; kinds of cache; the beginnings of commits. Any of each.
    idle : timedelta, optional
        Not used for so long.
    at_least : int
        Takes so many bytes.
    keep_last : int, optional
        All but so many of each repository or training run.
    max_size : int, optional
        Only until these caches take so much together.
    min_free : int, optional
        Only until each disk has so much free.
    junk : bool
        What nothing uses goes, whatever the rest says, where names and kinds fit.
    sound : bool
        Not only what nothing uses goes.
    keep : bool
        What fits is kept by all later rules instead.
    marked : collection, optional
        Exactly these, by key.
    mark : str
        What is said of them.
    lifts : collection of str
        Of what is marked, the reasons to stay that are overruled: of `records.LIFTABLE`.
    """

    names: Sequence[str] = ()
    kinds: Sequence[str] = ()
    revisions: Sequence[str] = ()
    idle: timedelta | None = None
    at_least: int = 0
    keep_last: int | None = None
    max_size: int | None = None
    min_free: int | None = None
    junk: bool = True
    sound: bool = True
    keep: bool = False
    marked: Collection[Key] | None = None
    mark: str = "marked"
    lifts: Collection[str] = ()

    @property
    def only_junk(self) -> bool:
        """Nothing asks for sound things."""
        if not self.sound:
            return True
        asked = (self.names, self.kinds, self.revisions, self.at_least)
        limits = (self.idle, self.keep_last, self.max_size, self.min_free)
        return not any(asked) and all(limit is None for limit in limits)

    @property
    def has_budget(self) -> bool:
        """It takes only as much as is needed."""
        return self.max_size is not None or self.min_free is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What a budget is reckoned with.

    Attributes
    ----------
    now : float
    taken : mapping of int to int
        Bytes of each cache, by index.
    kind : mapping of int to str
        Its kind.
    disk : mapping of int to int
        Device of each cache, by index.
    free : mapping of int to int
        Bytes that can still be written on each device.
    """

    now: float
    taken: Mapping[int, int]
    kind: Mapping[int, str]
    disk: Mapping[int, int]
    free: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A thing that is to go, and why."""

    candidate: Candidate
    reasons: tuple[str, ...]


def choose(
    found: Sequence[Candidate],
    rules: Sequence[Rule],
    space: Space,
    new_ledger: Callable[[], Ledger],
    *,
    kept: Collection[Key] = (),
) -> tuple[list[Choice], list[Candidate]]:
    """Apply rules in order; each sees what the ones before it left.

    Parameters
    ----------
    new_ledger : callable
        Makes a ledger of what things give back together.
    kept : collection
        Keys of candidates that may not be chosen.

    Returns
    -------
    list of Choice
    list of Candidate
        What a rule's `keep` held back from a later one.
    """
    chosen: dict[Key, Choice] = {}
    held: dict[Key, Candidate] = {}
    back: list[Candidate] = []
    for rule in rules:
        fitting = [c for c in _fitting(found, rule, space.now) if c.key not in chosen]
        if rule.keep:
            held |= {c.key: c for c in fitting}
            continue
        back += [c for c in fitting if c.key in held and not c.junk]
        free = [c for c in fitting if c.key not in held and c.key not in kept]
        if rule.has_budget:
            ledger = new_ledger()
            for choice in chosen.values():
                ledger.add(choice.candidate)
            free = _within_budget(free, rule, space, ledger)
        for candidate in free:
            chosen[candidate.key] = Choice(
                candidate=candidate, reasons=_reasons(candidate, rule, space.now)
            )
    return _outermost(list(chosen.values())), back


def _outermost(choices: Sequence[Choice]) -> list[Choice]:
    """Without the parts of what goes as a whole."""
    whole = {c.candidate.entry.path for c in choices if c.candidate.is_whole}
    parts = (c for c in choices if c.candidate.entry.what in PARTS)
    inner = {c.candidate.key for c in parts if within(c.candidate.entry.path, whole)}
    return [choice for choice in choices if choice.candidate.key not in inner]


def fitting(found: Sequence[Candidate], rules: Sequence[Rule], now: float) -> list[Candidate]:
    """What any of the rules speaks of."""
    asked = (c for rule in rules if not rule.keep for c in _fitting(found, rule, now))
    return list({candidate.key: candidate for candidate in asked}.values())


def _fitting(found: Sequence[Candidate], rule: Rule, now: float) -> list[Candidate]:
    if rule.marked is not None:
        return [c for c in found if c.key in rule.marked]
    named = [c for c in found if _named(c, rule)]
    if rule.only_junk and not rule.keep:
        return [c for c in named if c.junk] if rule.junk else []
    sound = [c for c in named if not c.junk and _matches(c, rule, now)]
    if rule.keep_last is not None:
        runs = newest_first(named)
        stay = {c.key for members in runs.values() for c in members[: rule.keep_last]}
        sound = [c for c in sound if c.run and c.key not in stay]
    junk = [c for c in named if c.junk] if rule.junk and not rule.revisions else []
    return [*junk, *sound]


def _named(candidate: Candidate, rule: Rule) -> bool:
    name = candidate.name.partition("@")[0]
    return (not rule.kinds or candidate.kind in rule.kinds) and (
        not rule.names or fits(name, rule.names)
    )


def _matches(candidate: Candidate, rule: Rule, now: float) -> bool:
    entry = candidate.entry
    if entry.what in PARTS and not (rule.kinds or rule.names):
        return False  # a part of something that is a candidate itself
    if rule.revisions and not any(entry.revision.startswith(r) for r in rule.revisions):
        return False
    if entry.physical_bytes < rule.at_least:
        return False
    if rule.idle is None:
        return True
    return entry.last_used is not None and now - entry.last_used >= rule.idle.total_seconds()


def _within_budget(
    free: Sequence[Candidate], rule: Rule, space: Space, ledger: Ledger
) -> list[Candidate]:
    """The least valuable of them, until the budget is met."""
    chosen = [c for c in free if c.junk]
    for candidate in chosen:
        ledger.add(candidate)
    for candidate in sorted((c for c in free if not c.junk), key=value(space.now)):
        if _needed(candidate, rule, space, ledger):
            chosen.append(candidate)
            ledger.add(candidate)
    return chosen


def _needed(candidate: Candidate, rule: Rule, space: Space, ledger: Ledger) -> bool:
    """Whether the budget is not met yet, where this candidate can help."""
    if rule.max_size is not None:
        counted = [i for i, kind in space.kind.items() if not rule.kinds or kind in rule.kinds]
        if sum(space.taken[i] for i in counted) - ledger.freed(counted) > rule.max_size:
            return True
    if rule.min_free is not None:
        disk = space.disk[candidate.cache]
        here = [index for index, device in space.disk.items() if device == disk]
        return space.free[disk] + ledger.freed(here) < rule.min_free
    return False


def value(now: float) -> Callable[[Candidate], tuple[float, int, float, int, str]]:
    """A key that sorts the least valuable first."""

    def key(candidate: Candidate) -> tuple[float, int, float, int, str]:
        entry = candidate.entry
        idle = now - entry.last_used if entry.last_used is not None else 0.0
        doublings = math.floor(math.log2(max(idle / _DAY, 0.5)))
        again = entry.physical_bytes / max(entry.frees_bytes, 1)
        return (-doublings, _COST[entry.recoverable], again, -entry.frees_bytes, candidate.name)

    return key


def _reasons(candidate: Candidate, rule: Rule, now: float) -> tuple[str, ...]:
    entry = candidate.entry
    if candidate.junk:
        return ("nothing uses it",)
    reasons = []
    if entry.last_used is not None:
        reasons.append(f"last used {ago(max(0.0, now - entry.last_used))} ({entry.last_used_from})")
    if rule.keep_last is not None:
        reasons.append(f"not one of the last {rule.keep_last}")
    if rule.max_size is not None:
        reasons.append(f"to come down to {format_size(rule.max_size)}")
    if rule.min_free is not None:
        reasons.append(f"to have {format_size(rule.min_free)} free")
    if rule.has_budget and entry.shared_bytes:
        reasons.append(f"shares {format_size(entry.shared_bytes)} with others")
    if rule.names or rule.revisions:
        reasons.append("named")
    if rule.marked is not None:
        reasons.append(rule.mark)
    return tuple(reasons) or ("of the kind that was asked for",)
