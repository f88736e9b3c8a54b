"""`fallocate(2)`: blocks that the file system promises to a file, without writing them.

Never `posix_fallocate`: glibc emulates it by writing every block.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

# statfs(2). ZFS, NFS, CephFS and FUSE may say yes without reserving anything.
_RESERVES = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
}
_KEEP_SIZE = 0x01
_RETRIES = 5


def on_linux() -> bool:
    """Whether this system can reserve without writing."""
    return sys.platform.startswith("linux")


def reserving_kind(directory: Path) -> str | None:
    """The kind of file system, where `fallocate` really holds the blocks under every quota.

    None where a yes proves nothing: the bytes must then be written.
    """
    return _RESERVES.get(_magic(directory)) if on_linux() else None


def fallocate(descriptor: int, nbytes: int) -> int:
    """Reserve blocks behind the end of a file; an errno, 0 if they were reserved."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate  # musl has but the second
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    for _ in range(_RETRIES):
        if call(descriptor, _KEEP_SIZE, 0, nbytes) == 0:
            return 0
        code = ctypes.get_errno()
        if code != errno.EINTR:
            return code
    return errno.EINTR


def _magic(directory: Path) -> int:
    """`f_type` of statfs(2): the first word of its buffer; 0 where it is not to be had."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_long * 64)()
    failed = libc.statfs(os.fsencode(directory), ctypes.byref(buffer))
    return 0 if failed else int(buffer[0]) & 0xFFFFFFFF
