"""Whether one cache may become a link to another: whose it is, and who else uses it. Pure.

A merge leaves a link where a cache was. Whoever shares that cache, by its owner, its group or its
mount, would from then on find the other one there: perhaps a home that is closed to them, or a
disk that their machine does not have.
"""

import posixpath

from gradience.storage.doctor.facts import Facts
from gradience.storage.doctor.values import inside, quoted
from gradience.storage.environment.exports.export import one_line


def merge(old: str, new: str, facts: Facts) -> str:
    """The command that brings a cache into another, or moves it where there is none.

    A comment where others use the old one, or where the command would be refused.
    """
    shared = _others(old, new, facts)
    if shared:
        use_it = f"use it instead of a copy of your own, with HF_HUB_CACHE={quoted(old)}"
        may_write = facts.roots[old].writable
        return _comment(f"{shared}: {use_it if may_write else 'leave it as it is'}")
    refused = _refused(old, new, facts)
    return _comment(refused) if refused else _command(old, new)


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
    mount = facts.mount_of.get(path)
    if mount is None:  # a place that is still to be made
        above = [c for c in facts.candidates if inside(path, c.path)]
        nearest = max(above, key=lambda c: len(c.path.parts), default=None)
        mount = nearest.mount if nearest else None
    return mount is not None and mount.network


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
