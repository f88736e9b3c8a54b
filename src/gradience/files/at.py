"""Single changes relative to a directory that is open, never through a link.

`openat2`, `renameat2` and their like, with what stands in for them on older kernels and other
systems. Errors are the kernel's own OSError.
"""

import contextlib
import ctypes
import errno
import functools
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
DEEP = 64  # directories held open at once while a tree goes; deeper ones are moved up first
_BLOCK = 512
_OPENAT2 = 437  # on every architecture
_NO_XDEV = 0x01  # RESOLVE_NO_XDEV


@dataclass(slots=True, kw_only=True)
class Removed:
    """What went: names, and bytes of inodes that were seen to lose their last name."""

    names: int = 0
    bytes: int = 0


class Tree:
    """Removes a directory tree that is ours, with few descriptors however deep it is.

    What lies too deep is moved up to the top of the tree first, so nothing of it ever lies outside.
    """

    def __init__(self, removed: Removed) -> None:
        self.removed = removed
        self.top = -1
        self.lifted = True

    def remove(self, parent: int, name: str) -> None:
        """Remove the tree of that name in a directory."""
        self.top = descriptor = open_dir(name, parent)
        try:
            own = _opened_up(descriptor)
            # Not until nothing is left: FUSE gives what is open a new name, again and again.
            while self.lifted:
                self.lifted = False
                self._empty(descriptor, 1)
            os.rmdir(name, dir_fd=parent)
        finally:
            os.close(descriptor)
        self._gone(own)

    def _empty(self, descriptor: int, depth: int) -> None:
        """Remove what is in a directory."""
        for child, status in _children(descriptor):
            if not stat.S_ISDIR(status.st_mode):
                unlink(descriptor, child, status, self.removed)
            elif depth == DEEP:
                self._lift(descriptor, child)
            else:
                self._directory(descriptor, child, depth)

    def _directory(self, parent: int, name: str, depth: int) -> None:
        descriptor = open_dir(name, parent)
        try:
            own = _opened_up(descriptor)
            self._empty(descriptor, depth + 1)
            os.rmdir(name, dir_fd=parent)
        finally:
            os.close(descriptor)
        self._gone(own)

    def _lift(self, parent: int, name: str) -> None:
        self.lifted = True
        while True:
            with contextlib.suppress(FileExistsError):
                rename(parent, name, self.top, f".{os.urandom(8).hex()}", exchange=False)
                return

    def _gone(self, status: os.stat_result) -> None:
        self.removed.names += 1
        self.removed.bytes += status.st_blocks * _BLOCK


def open_dir(name: str, parent: int) -> int:
    """Open a directory in a directory; refused with EXDEV where something is mounted there.

    A bind mount of the same file system has the same device number: only openat2(2) tells it.
    """
    call = _openat2()
    if call is not None:
        how = (ctypes.c_uint64 * 3)(DIR, 0, _NO_XDEV)
        descriptor = call(_OPENAT2, parent, os.fsencode(name), ctypes.byref(how), 24)
        if descriptor >= 0:
            return int(descriptor)
        number = ctypes.get_errno()
        # Older kernels have no such call, and older sandboxes say EPERM to what they do not know.
        if number not in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):
            mounted = "another file system is mounted there"
            raise OSError(number, mounted if number == errno.EXDEV else os.strerror(number), name)
    return os.open(name, DIR, dir_fd=parent)


@functools.cache
def _openat2() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    call: Any = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    found: Callable[..., int] = call
    return found


def _opened_up(descriptor: int) -> os.stat_result:
    """The `fstat` of a directory, in which its owner may remove names from then on."""
    own = os.fstat(descriptor)
    if own.st_uid == os.geteuid() and own.st_mode & 0o300 != 0o300:
        os.fchmod(descriptor, stat.S_IMODE(own.st_mode) | 0o700)
    return own


def _children(descriptor: int) -> list[tuple[str, os.stat_result]]:
    with os.scandir(descriptor) as listed:
        return [(entry.name, entry.stat(follow_symlinks=False)) for entry in listed]


def unlink(parent: int, name: str, status: os.stat_result, removed: Removed) -> None:
    """Remove a name, and see afterwards whether its inode has another."""
    if status.st_blocks and stat.S_ISREG(status.st_mode) and _LOOK & getattr(os, "O_PATH", 0):
        descriptor = os.open(name, _LOOK, dir_fd=parent)
        try:
            os.unlink(name, dir_fd=parent)
            gone, blocks = _after(descriptor, status)
        finally:
            os.close(descriptor)
    else:
        os.unlink(name, dir_fd=parent)
        gone, blocks = status.st_nlink == 1, status.st_blocks
    removed.names += 1
    if gone:
        removed.bytes += blocks * _BLOCK


def _after(descriptor: int, status: os.stat_result) -> tuple[bool, int]:
    """Whether an inode is gone, and its blocks, once a name of it went."""
    try:
        after = os.fstat(descriptor)
    except OSError:  # FUSE and NFS know no file without a name
        return status.st_nlink == 1, status.st_blocks
    return after.st_nlink == 0, after.st_blocks


def rename(from_dir: int, old: str, to_dir: int, new: str, *, exchange: bool) -> None:
    """renameat2(2), or renameatx_np(2) on macOS: never over something that is there."""
    call = _no_replace()
    flag = 2 if exchange else (4 if sys.platform == "darwin" else 1)
    if call is not None:
        if call(from_dir, os.fsencode(old), to_dir, os.fsencode(new), flag) == 0:
            return
        number = ctypes.get_errno()
        if exchange or number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(number, os.strerror(number), old, None, new)
    elif exchange:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), old, None, new)
    # Some network and FUSE file systems have no such flag: look, then rename.
    with contextlib.suppress(FileNotFoundError):
        os.stat(new, dir_fd=to_dir, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), old, None, new)
    os.rename(old, new, src_dir_fd=from_dir, dst_dir_fd=to_dir)


@functools.cache
def _no_replace() -> Callable[..., int] | None:
    library: Any = ctypes.CDLL(None, use_errno=True)
    name = "renameatx_np" if sys.platform == "darwin" else "renameat2"
    call = getattr(library, name, None)
    if call is None:
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    found: Callable[..., int] = call
    return found
