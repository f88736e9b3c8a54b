"""Owner, mode, times and extended attributes of a copy, made those of its original."""

import os
import stat
from collections.abc import Mapping

_KEPT = ("user.", "trusted.", "system.posix_acl_")
"""What people and programs set. The others (`security.`, `btrfs.`...) belong to the file system or
the policy of the machine, and each disk has its own."""
_UNITS = (1, 100, 1000, 10**6, 10**9, 2 * 10**9)  # nanoseconds between two times a disk can keep


def extended(descriptor: int) -> dict[str, bytes]:
    """The extended attributes that a copy must keep; none where the system has none."""
    if not hasattr(os, "listxattr"):
        return {}
    try:
        names = os.listxattr(descriptor)
    except OSError:
        return {}
    return {name: os.getxattr(descriptor, name) for name in names if name.startswith(_KEPT)}


def keep(descriptor: int, status: os.stat_result, attributes: Mapping[str, bytes]) -> None:
    """Give an open file or directory the owner, mode, attributes and times of another.

    Raises
    ------
    OSError
        If the file system, or its rights, refuse.
    """
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    for name, value in attributes.items():
        os.setxattr(descriptor, name, value)
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def give(descriptor: int, group: int, permissions: int) -> None:
    """Set group and permissions of an open file or directory.

    Raises
    ------
    OSError
        If it is another user's, or the group is none of this user's.
    """
    if os.fstat(descriptor).st_gid != group:
        os.fchown(descriptor, -1, group)
    os.fchmod(descriptor, permissions)  # last: a change of group clears setgid


def open_up(descriptor: int) -> None:
    """Let its owner work in an open directory."""
    if os.fstat(descriptor).st_mode & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)


def agree(status: os.stat_result, copy: os.stat_result) -> bool:
    """Whether a copy has type, mode, owner, size and time of its original."""
    mine, theirs = _facts(status), _facts(copy)
    return mine == theirs and same_time(status.st_mtime_ns, copy.st_mtime_ns)


def same_time(original: int, copy: int) -> bool:
    """Whether a time is another one, or what a disk with coarser times made of it."""
    return any(copy == original - original % unit for unit in _UNITS)


def _facts(status: os.stat_result) -> tuple[int, int, int, int]:
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return status.st_mode, status.st_uid, status.st_gid, size
