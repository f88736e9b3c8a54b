"""Whether one cache may become a link to another: whose it is, and who else uses it. Pure.

A hub cache is merged into another. Those of datasets and torch are moved to a place that is free.

A merge leaves a link where a cache was. Whoever shares that cache, by its owner, its group or its
mount, would from then on find the other one there: perhaps a home that is closed to them, or a
disk that their machine does not have.
"""

import posixpath
from pathlib import Path

from gradience.storage.doctor.facts import Facts
from gradience.storage.doctor.values import export, inside, listed, quoted
from gradience.storage.environment.exports.export import one_line
from gradience.storage.inventory.records import Cache
from gradience.system.records import Mount

_ROOM = 10**10  # bytes free on a disk that is worth going on with
_HUB = "HF_HUB_CACHE"
_VARIABLES = {"datasets": "HF_DATASETS_CACHE", "torch": "TORCH_HOME"}


def merge(old: str, new: str, facts: Facts) -> str:
    """The command that brings a cache into another, or moves it where there is none.

    A comment where others use the old one, or where the command would be refused.
    """
    shared = _shared(old, new, _HUB, facts)
    if not shared and _on_volume(old, new, facts):
        return _stay(old, _HUB)
    why = shared or _refused(old, new, facts)
    return _comment(why) if why else _command(old, new)


def bring(cache: Cache, new: str, facts: Facts) -> str:
    """The same for a cache that cannot be merged: a move, or what to do where there is one."""
    old, variable = cache.root, _VARIABLES[cache.kind]
    others = _not_its_own(cache, new, facts)
    held = f"{quoted(old)} holds {listed(others, 3)} too" if others else ""
    why = _shared(old, new, variable, facts) or (
        f"{held}: use it with {variable}={quoted(old)}, or move its parts by hand" if held else ""
    )
    if why:
        return _comment(why)
    if _on_volume(old, new, facts):
        return _stay(old, variable)
    if _filled(new, facts):
        # With the variable in front, no other cache of that kind is looked at, or cleaned.
        clean = f"{variable}={quoted(old)} gradience cache clean --kind {cache.kind} --idle 30d"
        return f"{clean}  # both have content; or export that variable, to use this one"
    refused = _refused(old, new, facts)
    return _comment(refused) if refused else f"gradience cache move {quoted(old, new)}"


def _on_volume(old: str, new: str, facts: Facts) -> bool:
    """Whether a cache would be brought from a disk mounted for it into the home directory.

    That may be a container's own layer, wiped at a stop, or under a small quota.
    """
    mount, other = _mount(old, facts), _mount(new, facts)
    return (
        mount is not None
        and not mount.in_memory
        and mount.path not in (Path("/"), other.path if other else mount.path)
        and (mount.free_bytes or 0) >= _ROOM
        and inside(new, facts.home)
        and not inside(old, facts.home)
    )


def _stay(old: str, variable: str) -> str:
    """The command that makes the libraries use a cache where it is."""
    return f"{export(**{variable: old})}  # it lies on a volume of its own, and may stay there"


def _not_its_own(cache: Cache, new: str, facts: Facts) -> list[str]:
    """What a move would sweep up: things of others, and places that are in use."""
    own, caches = cache.root, facts.inventory.caches if facts.inventory else ()
    found = [entry.path for entry in cache.entries if entry.what == "other"]
    found += [c.root for c in caches if not c.kind.startswith("dataset")]
    found += [*facts.looked_at.values(), new]
    found += [use.path for use in facts.uses]
    return [path for path in dict.fromkeys(found) if inside(path, own) and path != own]


def _filled(path: str, facts: Facts) -> bool:
    """Whether something lies in a directory: a move goes to none, or to an empty one."""
    place = facts.roots.get(path)
    if place is None or not place.exists:
        return False
    caches = facts.inventory.caches if facts.inventory else ()
    return any(c.inodes > 1 for c in caches if c.root == str(place.resolved))


def take_along(old: str, new: str, facts: Facts) -> tuple[str, str]:
    """The same after a mend that points to the new place: a command, or else a comment."""
    why = _others(old, new, facts) or _refused(old, new, facts)
    return ("", _comment(f"{why}: what lies there stays")) if why else (_command(old, new), "")


def _command(old: str, new: str) -> str:
    return f"gradience cache merge {quoted(old, new)}"


def _comment(text: str) -> str:
    """A line that does nothing, whatever a path in it holds.

    zsh reads a pasted `#` as a command: no quote is left open, and nothing ends that command.
    """
    return f"# {one_line(text)}"


def _shared(old: str, new: str, variable: str, facts: Facts) -> str:
    """What to do with a cache that others use; "" where none do."""
    others = _others(old, new, facts)
    use_it = f"use it instead of a copy of your own, with {variable}={quoted(old)}"
    may_write = facts.roots[old].writable
    return f"{others}: {use_it if may_write else 'leave it as it is'}" if others else ""


def _others(old: str, new: str, facts: Facts) -> str:
    """Who else uses a cache, unless they reach the other one as well; in words, or ""."""
    place, kept = facts.roots[old], facts.roots.get(new)
    why = ""
    if not place.mine:
        why = f"owner {place.owner}"
    elif _on_network(old, facts) and not _on_network(new, facts):
        why = "on a network mount"
    elif place.shared and not (kept and kept.shared and kept.group == place.group):
        why = f"shared with the group {place.group}"
    return f"others may use {quoted(old)} ({why})" if why else ""


def _on_network(path: str, facts: Facts) -> bool:
    mount = _mount(path, facts)
    return mount is not None and mount.network


def _mount(path: str, facts: Facts) -> Mount | None:
    mount = facts.mount_of.get(path)
    if mount is None:  # a place that is still to be made
        above = [c for c in facts.candidates if inside(path, c.path)]
        nearest = max(above, key=lambda c: len(c.path.parts), default=None)
        mount = nearest.mount if nearest else None
    return mount


def _refused(old: str, new: str, facts: Facts) -> str:
    """Where this user would have to write for it, and may not; in words, or ""."""
    needed = (new, posixpath.dirname(new), old, posixpath.dirname(old))
    places = [facts.roots[path] for path in needed if path in facts.roots]
    closed = next((place for place in places if not place.writable), None)
    if closed is None:
        return ""
    return (
        f"{quoted(old)} cannot be brought to {quoted(new)}: {facts.user or 'this user'} may not "
        f"write in {quoted(closed.existing)} (owner {closed.owner})"
    )
