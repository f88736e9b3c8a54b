"""What a merge would do: which of a directory is at the new place already, and what comes there."""

import os
import stat
from collections.abc import Iterator, Sequence

from gradience.errors import StorageError, UsageError
from gradience.files.below import Below
from gradience.storage.change.move.both import Both, OtherRef
from gradience.storage.change.move.ends import Ends, opened
from gradience.storage.change.move.parts import STORE_MARKER, is_hub, may_be_hub
from gradience.storage.change.move.plan import (
    SHOWN,
    Wish,
    act,
    alone,
    check_owners,
    check_room,
    check_source,
    item,
    look_at,
    notes,
    physical,
    plan_move,
)
from gradience.storage.change.move.tree import Node
from gradience.storage.change.records import Plan, text_of
from gradience.storage.inventory.caches.hub_store import KNOWN_VERSION
from gradience.system.users import group_name
from gradience.units import format_size, plural


def plan_merge(wish: Wish) -> Plan:
    """The plan that makes two caches one; a move where nothing is at the new place.

    Raises
    ------
    UsageError
        If one lies in the other, or they are no two caches of a kind.
    StorageError
        If files of one name differ, or what a move is refused for.
    """
    with opened(wish.old, wish.new) as ends:
        check_source(ends)
        if _lacking(ends):
            return plan_move(wish)
        _check_target(ends)
        nodes, tree = look_at(ends, wish.holders)
        check_owners(ends, nodes)
        try:
            both = Both.of(ends, nodes)
            _check_differing(ends, both.differing())
            absent, refs = both.absent(), both.other_refs()
        except OSError as error:
            raise _unreadable(ends, error) from error
        room = "" if both.links else check_room(ends, absent, wish.environ, wish.home)
        linked = {node.name for node in absent} if both.links else set()
        frees = alone([node for node in nodes if node.name not in linked])
        return Plan(
            id=wish.change,
            title="merge",
            made=wish.now,
            items=(item(ends, nodes, _way(both, absent)),),
            actions=(act(ends, "merge", tree, frees),),
            notes=(
                *notes(ends, nodes, room, wish),
                *_left_out(both.unused()),
                *_refs(ends, refs),
                *_shared_with(ends),
            ),
            frees_bytes=frees,
        )


def _lacking(ends: Ends) -> bool:
    try:
        return ends.lacking()
    except StorageError as error:
        raise StorageError(
            str(error),
            remedy="Mount that disk one directory higher, so that the cache is a directory on it.",
        ) from error


def _way(both: Both, absent: Sequence[Node]) -> str:
    brought = [node for node in absent if node.is_file]
    there = sum(node.is_file for node in both.meant()) - len(brought)
    how = "linked, and not copied" if both.links else "copied"
    what = (
        f"{format_size(physical(brought))} in {plural(len(brought), 'file')} "
        f"{'is' if len(brought) == 1 else 'are'} {how}, {there} are there already"
        if brought
        else f"all {plural(there, 'file')} are there already"
    )
    return (
        f"{what}; all is compared byte by byte, then the old directory is swapped with a link, "
        "and goes"
    )


def _left_out(unused: Sequence[Node]) -> list[str]:
    if not unused:
        return []
    size = format_size(physical(unused))
    return [f"{size} in {plural(len(unused), 'file')} that nothing uses are not brought, and go."]


def _refs(ends: Ends, refs: Sequence[OtherRef]) -> Iterator[str]:
    for goes, what in (
        (False, "stay as they are"),
        (True, "lead to no revision, and are set to one that is brought"),
    ):
        found = [ref.words for ref in refs if ref.goes == goes]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        if found:
            yield f"In {text_of(ends.new)} {what}: {', '.join(found[:SHOWN])}{more}."


def _shared_with(ends: Ends) -> list[str]:
    status = ends.target.status(ends.name)
    if not status.st_mode & stat.S_ISGID:
        return []
    new, group = text_of(ends.new), group_name(status.st_gid)
    return [
        f"{new} is shared with {group}, and what comes keeps its modes: "
        f"gradience cache share {new} --group {group} opens that too, afterwards."
    ]


def _check_target(ends: Ends) -> None:
    """Refuse what are no two caches of the Hub: a directory above one, say."""
    old, new = text_of(ends.old), text_of(ends.new)
    if not ends.is_dir(ends.target, ends.name):
        raise UsageError(f"{new} is no directory", remedy="Name the other cache itself.")
    if os.path.samestat(ends.source.status(ends.top), ends.target.status(ends.name)):
        raise UsageError(
            f"{new} and {old} are one directory",
            remedy="Nothing has to be brought: both names lead to it.",
        )
    try:
        mine, theirs = (
            {name for name, _ in below.entries(top)}
            for below, top in ((ends.source, ends.top), (ends.target, ends.name))
        )
        strange = ends.source.exists(f"{ends.top}/{STORE_MARKER}") and not _may_be_store(ends)
        for below, top in ((ends.source, ends.top), (ends.target, ends.name)):
            _check_version(below, top)
    except OSError as error:
        raise _unreadable(ends, error) from error
    for place, fits in ((old, is_hub(mine)), (new, may_be_hub(theirs))):
        if not fits:
            raise UsageError(
                f"{place} does not look like a cache of the Hub: no repository lies there",
                remedy="Name the two hub caches themselves. Other caches are not merged: what they "
                "hold is made or downloaded again.",
            )
    if strange:
        raise StorageError(
            f"{new}/blobs is not the Hub's store of shared blobs, and {old} has one",
            remedy="Rename or remove it.",
        )
    for place in (ends.new, ends.old):  # a file is made in each, to see whether they are one
        if not os.access(place, os.W_OK | os.X_OK):
            raise StorageError(
                f"{text_of(place)} cannot be added to: this user may not write there",
                remedy="Run it as its owner, after: chmod u+rwx",
            )


def _check_version(below: Below, top: str) -> None:
    """Refuse a store of shared blobs whose rules this release does not know."""
    marker = f"{top}/{STORE_MARKER}"
    if below.exists(marker) and below.read(marker, 64) != f"{KNOWN_VERSION}\n".encode():
        raise StorageError(
            f"{text_of(below.root)}/{text_of(top)}/blobs is a store of shared blobs of a version "
            "that this release does not know",
            remedy="pip install -U gradience; until then, leave both as they are.",
        )


def _may_be_store(ends: Ends) -> bool:
    """Whether the store can be made at the new place, or was begun there."""
    blobs = f"{ends.name}/blobs"
    if not ends.target.exists(blobs) or ends.target.exists(f"{ends.name}/{STORE_MARKER}"):
        return True
    return all(
        stat.S_ISDIR(status.st_mode) and not ends.target.entries(f"{blobs}/{shelf}")
        for shelf, status in ends.target.entries(blobs)
    )


def _unreadable(ends: Ends, error: OSError) -> StorageError:
    return StorageError(
        f"{text_of(error.filename or ends.new)} cannot be looked at: {error.strerror}",
        remedy="Name a directory on one disk, that this user may read.",
    )


def _check_differing(ends: Ends, differing: Sequence[Node]) -> None:
    if differing:
        names = ", ".join(text_of(node.name) for node in differing[:SHOWN])
        are = "is" if len(differing) == 1 else "are"
        raise StorageError(
            f"{plural(len(differing), 'name')} of {text_of(ends.old)} {are} another thing in "
            f"{text_of(ends.new)}: {names}",
            remedy="See which is broken (gradience cache verify), and remove that one, or both.",
        )
