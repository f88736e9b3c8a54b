"""What is at a name now, and whether it is what a plan saw there."""

import os
import stat
import struct
import zlib
from collections.abc import Callable, Container

import msgspec

from gradience.files.below import Below
from gradience.storage.change.records import Fingerprint, Tree

_MASK = (1 << 63) - 1
Status = os.stat_result
OnFile = Callable[[str, Status], None]


def take(below: Below, name: str, on_file: OnFile | None = None) -> Fingerprint:
    """The fingerprint of a name; of a directory, with everything in it.

    Parameters
    ----------
    on_file : callable, optional
        Called with the name and `lstat` of it and of everything below it.

    Raises
    ------
    OSError
        If it is gone, may not be read, or is on another file system than the root.
    """
    status = below.status(name)
    if on_file is not None:
        on_file(name, status)
    tree = tree_of(below, name, on_file) if stat.S_ISDIR(status.st_mode) else None
    return of_status(status, tree)


def of_status(status: os.stat_result, tree: Tree | None = None) -> Fingerprint:
    """A fingerprint from what `lstat` said."""
    return Fingerprint(
        device=status.st_dev,
        inode=status.st_ino,
        size=0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        mtime_ns=status.st_mtime_ns,
        tree=tree,
    )


def rights(status: os.stat_result) -> tuple[int, int, int]:
    """User, group and permissions."""
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def with_rights(status: os.stat_result) -> Fingerprint:
    """The fingerprint of a directory that goes while it is empty, and can be made again."""
    return msgspec.structs.replace(of_status(status), rights=rights(status))


def same_inode(status: os.stat_result, planned: Fingerprint) -> bool:
    """Whether a name leads to the inode that was planned on."""
    return (status.st_dev, status.st_ino) == (planned.device, planned.inode)


def is_moved(found: Fingerprint, planned: Fingerprint) -> bool:
    """Whether what was renamed within its disk is what was planned on, to the last write.

    A rename touches no time of a file, but on some disks that of a directory; when names of it were
    made or removed its tree tells. After a restart the disk may have another number.
    """
    if found.tree is not None or planned.tree is not None:
        return (found.inode, found.tree) == (planned.inode, planned.tree)
    facts = [(f.inode, f.size, f.mtime_ns) for f in (found, planned)]
    return facts[0] == facts[1]


def same(status: os.stat_result, planned: Fingerprint) -> bool:
    """Whether a name is what was planned on, by itself: for a directory, not what is in it."""
    return of_status(status, planned.tree) == planned and stat.S_ISDIR(status.st_mode) == (
        planned.tree is not None
    )


def tree_of(
    below: Below,
    name: str,
    on_file: OnFile | None = None,
    ignored: Container[bytes] = (),
) -> Tree:
    """What lies below a directory. Names count from the directory, so that it may be moved.

    `ignored` names, which begin with a slash, do not count.
    """
    names = checksum = 0
    skip = len(os.fsencode(name))

    def seen(path: bytes, status: os.stat_result) -> None:
        nonlocal names, checksum
        if path[skip:] in ignored:
            return
        directory = stat.S_ISDIR(status.st_mode)
        facts = struct.pack(
            "<QQq?",
            status.st_ino,
            0 if directory else status.st_size,
            status.st_mtime_ns,
            directory,
        )
        names += 1
        # A sum, so that the order in which a directory lists its names does not matter.
        checksum = (checksum + (zlib.crc32(path[skip:]) << 31 | zlib.crc32(facts))) & _MASK
        if on_file is not None:
            on_file(os.fsdecode(path), status)

    below.walk(name, seen)
    return Tree(names=names, checksum=checksum)
