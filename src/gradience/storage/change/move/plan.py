"""What a move would do: what is there, whether it fits, and what speaks against it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from gradience.errors import StorageError, UsageError
from gradience.files import contents
from gradience.files.below import Below
from gradience.storage.change import fingerprint
from gradience.storage.change.mounts import is_network
from gradience.storage.change.move.ends import Ends, not_apart, opened
from gradience.storage.change.move.tree import Node, leading_out, look, need
from gradience.storage.change.records import Action, Item, Plan, Tree, text_of
from gradience.storage.environment import profile
from gradience.storage.room.headroom import headroom
from gradience.storage.room.probe import Verdict, probe
from gradience.system.holders import Holders
from gradience.units import format_size, plural

MARGIN = 4 << 20  # bytes for what the file system itself needs, and for the journal
SHOWN = 3
_RENAMED = "one rename, since both places are on one disk: nothing is copied, and nothing freed"
_COPIED = "copied, compared byte by byte, swapped with a link; then the old bytes go"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be moved or merged, and what it is planned with.

    Attributes
    ----------
    old, new : str
        Absolute. The new place is the directory itself, not one to put it in.
    change : str
        A name for it.
    now : float
        Seconds since 1970, UTC.
    holders : Holders
        Who has which files open.
    """

    old: str
    new: str
    change: str
    now: float
    holders: Holders
    environ: Mapping[str, str]
    home: Path


def plan_move(wish: Wish) -> Plan:
    """The plan of a move of one directory; it looks at everything below and changes nothing.

    Raises
    ------
    UsageError
        If one lies in the other, or the new place holds something.
    StorageError
        If it is in use, does not fit, or cannot be moved without losing something.
    """
    with opened(wish.old, wish.new) as ends:
        check_source(ends)
        if not ends.lacking():
            raise _taken(ends)
        nodes, tree = look_at(ends, wish.holders)
        one_disk = ends.source.device == ends.target.device
        room = (
            "" if one_disk else check_room(ends, nodes, wish.environ, wish.home, copied_bytes(ends))
        )
        frees = 0 if one_disk else alone(nodes)
        return Plan(
            id=wish.change,
            title="move",
            made=wish.now,
            items=(item(ends, nodes, _RENAMED if one_disk else _COPIED),),
            actions=(act(ends, "move", tree, frees),),
            notes=tuple(notes(ends, nodes, room, wish)),
            frees_bytes=frees,
        )


def _taken(ends: Ends) -> UsageError:
    new = text_of(ends.new)
    if not ends.is_dir(ends.target, ends.name):
        return UsageError(f"{new} is there already, and no directory", remedy="Name another place.")
    return UsageError(
        f"{new} is there already, and not an empty directory",
        remedy=f"Name the new place itself, such as {new}/{text_of(ends.top)}, or make the two "
        f"one: gradience cache merge {quote(ends.old)} {quote(ends.new)}",
    )


def act(ends: Ends, verb: str, tree: Tree, frees: int) -> Action:
    """The one act of a plan that brings a directory to another place."""
    return Action(
        verb=verb,
        root=text_of(ends.source.root),
        path=text_of(ends.top),
        fingerprint=fingerprint.of_status(ends.source.status(ends.top), tree),
        item=0,
        unit=0,
        group=0,
        frees_bytes=frees,
        target=text_of(ends.new),
    )


def item(ends: Ends, nodes: Sequence[Node], way: str) -> Item:
    """The directory as the user knows it, with what is in it and how it goes."""
    files = sum(node.is_file for node in nodes)
    return Item(
        name=text_of(ends.old),
        kind="directory",
        what=f"{format_size(physical(nodes))} in {plural(files, 'file')}",
        reasons=(f"to {text_of(ends.new)}: {way}",),
    )


def check(ends: Ends, nodes: Sequence[Node], holders: Holders) -> None:
    """Refuse what would lose something, or pull a file from under a process.

    Raises
    ------
    StorageError
    """
    for node in nodes:
        holder = holders.of(node.status, node.name)
        if holder is not None:
            raise StorageError(
                f"{text_of(ends.old)} is in use: process {holder.pid} ({holder.name}) has "
                f"{text_of(node.name)} {holder.how}",
                remedy="Let it end, or stop it; then give the command again.",
            )
        if not (node.is_dir or node.is_link or node.is_file):
            raise unmovable(ends, f"{text_of(node.name)} is a socket, pipe or device")
    out = list(leading_out(nodes, ends.old, ends.new))
    if out:
        names = ", ".join(f"{text_of(n.name)} -> {text_of(n.target)}" for n in out[:SHOWN])
        raise unmovable(
            ends,
            f"{len(out)} relative links lead out of it, and would lead elsewhere: {names}",
            "Make them absolute first: ln -sfn ABSOLUTE-TARGET LINK.",
        )


def check_room(
    ends: Ends, nodes: Sequence[Node], environ: Mapping[str, str], home: Path, have: int = 0
) -> str:
    """A sentence with the arithmetic of the new disk.

    Parameters
    ----------
    have : int
        Bytes that an earlier try has copied already.

    Raises
    ------
    StorageError
        If it does not fit.
    """
    check_owners(ends, nodes)
    size, inodes = need(nodes, _data_bytes(ends.source, ends.top, nodes))
    size = max(0, size - have) + MARGIN
    room = headroom(ends.target.root, environ=environ, home=home)
    words = f"{format_size(size)} and {inodes} inodes are needed at {text_of(ends.target.root)}"
    remedy = "Free some there (gradience cache clean), or name another place."
    if room.bytes is not None and room.bytes < size:
        raise StorageError(f"{words}; {room.sentence}", remedy=remedy)
    if room.inodes is not None and room.inodes < inodes:
        raise StorageError(f"{words}; {room.inodes} inodes are left", remedy=remedy)
    asked = probe(ends.target.root, size)
    if asked.verdict is Verdict.REFUSED:
        raise StorageError(f"{words}: {asked.reason}", remedy=remedy)
    return f"{words}. {room.sentence}"


def copied_bytes(ends: Ends) -> int:
    """What an earlier try has copied."""
    if not ends.target.exists(ends.copy):
        return 0
    nodes, _ = look(ends.target, ends.copy)
    return physical(nodes)


def physical(nodes: Sequence[Node]) -> int:
    """Blocks of everything, each inode once."""
    return sum({n.inode: n.status.st_blocks * 512 for n in nodes}.values())


def alone(nodes: Sequence[Node]) -> int:
    """Blocks that go: those of files all of whose names lie inside."""
    names: dict[tuple[int, int], int] = {}
    for node in nodes:
        names[node.inode] = names.get(node.inode, 0) + 1
    return physical([n for n in nodes if n.is_dir or n.status.st_nlink <= names[n.inode]])


def _data_bytes(below: Below, top: str, nodes: Sequence[Node]) -> dict[str, int]:
    """How much of files with holes, or compressed, is data."""
    found = {}
    for node in nodes:
        if node.is_file and node.status.st_blocks * 512 < node.status.st_size:
            try:
                descriptor = below.open(f"{top}/{node.name}")
            except OSError:
                continue  # the whole size is counted
            try:
                ranges = contents.data_ranges(descriptor, node.status.st_size)
                found[node.name] = sum(end - begin for begin, end in ranges)
            finally:
                os.close(descriptor)
    return found


def look_at(ends: Ends, holders: Holders) -> tuple[list[Node], Tree]:
    """Everything in the old directory, and its fingerprint.

    Raises
    ------
    UsageError
        If the new place lies in it, by a bind mount.
    StorageError
        If it cannot be read, is in use, or would lose something.
    """
    try:
        nodes, tree = look(ends.source, ends.top)
        above = os.stat(ends.target.root)  # noqa: PTH116 - perhaps no UTF-8
        inside = [ends.source.status(ends.top), *(n.status for n in nodes if n.is_dir)]
    except OSError as error:
        raise unmovable(ends, f"{error.filename or ends.old}: {error.strerror}") from error
    if any(os.path.samestat(above, status) for status in inside):
        raise not_apart(ends.old, ends.new)
    check(ends, nodes, holders)
    return nodes, tree


def check_source(ends: Ends) -> None:
    """Refuse what is no directory, and what may not be written to at either end.

    Raises
    ------
    UsageError, StorageError
    """
    old, new = text_of(ends.old), text_of(ends.new)
    if said := ends.says(ends.source, ends.top):
        raise UsageError(
            f"{old} is a link to {text_of(said)}", remedy="Name the directory that it leads to."
        )
    if not ends.is_dir(ends.source, ends.top):
        raise UsageError(f"{old} is no directory", remedy="Name one that is there.")
    ends.check_journal()
    if ends.source.status(ends.top).st_dev != ends.source.device:
        raise unmovable(ends, "a file system of its own is mounted there")
    for below, place in ((ends.source, old), (ends.target, new)):
        if not os.access(below.root, os.W_OK | os.X_OK):
            read_only = os.statvfs(below.root).f_flag & os.ST_RDONLY
            why = "it is mounted read-only" if read_only else "this user may not write there"
            raise StorageError(
                f"{place} cannot be made or changed in {text_of(below.root)}: {why}",
                remedy="Name another place, or run it as the owner of that directory.",
            )


def check_owners(ends: Ends, nodes: Sequence[Node]) -> None:
    """Refuse files of others: only root can make a copy that is theirs, or empty their directories.

    Raises
    ------
    StorageError
    """
    if os.geteuid() == 0:
        return
    mine = {os.getegid(), *os.getgroups()}
    for node in nodes:
        if node.status.st_uid != os.geteuid() or node.status.st_gid not in mine:
            raise unmovable(
                ends,
                f"{text_of(node.name)} belongs to {node.status.st_uid}:{node.status.st_gid}, and "
                "only root can make a copy that does",
                "Run it as root.",
            )


def unmovable(
    ends: Ends, why: str, remedy: str = "Remove it, or move what lies beside it by itself."
) -> StorageError:
    """The error for what would lose something on the way."""
    return StorageError(f"{text_of(ends.old)} cannot be moved: {why}", remedy=remedy)


def notes(ends: Ends, nodes: Sequence[Node], room: str, wish: Wish) -> Sequence[str]:
    """What else is to be known before somebody agrees."""
    new = text_of(ends.new)
    told = [f"{text_of(ends.old)} becomes a link to {new}: what uses the old name goes on."]
    if room:
        told.append(room)
    if is_network(ends.old):
        told.append(
            f"{text_of(ends.old)} is on a network mount: what other machines have open cannot be "
            f"seen, and they will find a link to {new} there."
        )
    if ends.state() is not None and not ends.merges:
        told.append(f"{format_size(copied_bytes(ends))} were copied by an earlier try.")
    outside = [n for n in nodes if n.is_file and n.status.st_nlink > 1]
    if room and outside and alone(outside) < physical(outside):
        told.append("Some files have another name outside: their old bytes stay there.")
    if any(node.is_link and node.target.startswith(f"{ends.old}/") for node in nodes):
        told.append(f"Links in it name {text_of(ends.old)}: they need that link to stay.")
    return told + [
        f"{path} names the old place, and will name {new}."
        for path in profile.naming(ends.old, wish.environ, wish.home)
    ]
