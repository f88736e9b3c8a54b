"""Let files share the blocks of equal bytes, where the file system can: btrfs, XFS, bcachefs.

The kernel itself compares before it shares (`FIDEDUPERANGE`), with both ranges locked: whoever
writes to either file writes to his own copy, before, meanwhile and after. References:
ioctl_fideduperange(2), ioctl_ficlone(2), Documentation/filesystems/fiemap.rst.
"""

import contextlib
import errno
import fcntl
import os
import struct
import sys

from gradience.files.contents import OnBytes

_FICLONE = 0x40049409
_FIDEDUPERANGE = 0xC0189436
_FS_IOC_FIEMAP = 0xC020660B
_RANGE = struct.Struct("=QQHHIqQQiI")
_MAP = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_EXTENTS = 512
_LAST = 1
_NO_ADDRESS = 0x2 | 0x4 | 0x200  # unknown, delayed, inline: blocks that nobody can share
_STEP = 16 << 20  # what a call of btrfs takes at most
_DIFFERS = 1


def can_share(directory: str) -> bool:
    """Whether files of a directory can share blocks; two nameless files are tried, none stays."""
    flags = getattr(os, "O_TMPFILE", 0)
    if not sys.platform.startswith("linux") or not flags:
        return False
    with contextlib.ExitStack() as opened:
        try:
            one, other = (os.open(directory, flags | os.O_RDWR, 0o600) for _ in range(2))
            opened.callback(os.close, one)
            opened.callback(os.close, other)
            os.write(one, b"x" * 4096)
            fcntl.ioctl(other, _FICLONE, one)
        except OSError:
            return False
    return True


def share(original: int, copy: int, size: int, on_bytes: OnBytes | None = None) -> int:
    """Let a copy use the blocks of its original; how many bytes it does now.

    Raises
    ------
    OSError
        EILSEQ if the bytes differ; what else the file system refuses. What was shared before stays
        shared, and both files hold what they held.
    """
    at = 0
    while at < size:
        length = min(_STEP, size - at)
        call = bytearray(_RANGE.pack(at, length, 1, 0, 0, copy, at, 0, 0, 0))
        fcntl.ioctl(original, _FIDEDUPERANGE, call)
        done, status = _RANGE.unpack(call)[7:9]
        if status == _DIFFERS:
            raise OSError(errno.EILSEQ, "its bytes differ")
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        if not done:
            break
        at += done
        if on_bytes is not None:
            on_bytes(done)
    return at


def shared(one: int, other: int) -> bool:
    """Whether two files use the same blocks already; False where nobody can tell."""
    try:
        first, second = _extents(one), _extents(other)
    except OSError:
        return False
    return bool(first) and first == second


def _extents(descriptor: int) -> list[tuple[int, int, int]]:
    """Where each piece of a file lies: offset, address, length."""
    found: list[tuple[int, int, int]] = []
    at = 0
    while True:
        call = bytearray(_MAP.pack(at, (1 << 64) - 1 - at, 1, 0, _EXTENTS, 0))
        call += bytes(_EXTENT.size * _EXTENTS)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, call)
        count = _MAP.unpack_from(call)[3]
        for index in range(count):
            extent = _EXTENT.unpack_from(call, _MAP.size + index * _EXTENT.size)
            logical, physical, length, flags = *extent[:3], extent[5]
            if flags & _NO_ADDRESS:
                return []
            if (
                found
                and found[-1][0] + found[-1][2] == logical
                and (found[-1][1] + found[-1][2] == physical)
            ):
                start, address, before = found.pop()
                logical, physical, length = start, address, before + length
            found.append((logical, physical, length))
            if flags & _LAST:
                return found
        if not count:
            return found
        at = found[-1][0] + found[-1][2]
