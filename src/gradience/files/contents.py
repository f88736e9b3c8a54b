"""The bytes of open files: copied without filling their holes, and compared.

A hole is a range that was never written and takes no blocks (`SEEK_DATA`, lseek(2)). A download
that reserves its length, a sparse checkpoint and a truncated file have them; a copy that writes
their zeros can be many times as large as what it copies.
"""

import contextlib
import ctypes
import errno
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

BLOCK = 1 << 22  # bytes read at once: large enough for network disks, small enough for memory

OnBytes = Callable[[int], None]


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each range that holds data; the whole file where the system cannot tell."""
    end = 0
    while end < size:
        begin = _next_data(descriptor, end, size)
        if begin >= size:
            return
        try:
            end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        except OSError:
            end = size
        yield begin, end


def copy(source: int, target: int, size: int, on_bytes: OnBytes | None = None) -> None:
    """Copy the data of a file into an empty one; holes stay holes.

    Raises
    ------
    OSError
        If the source ends early or cannot be read, or the target cannot take it.
    """
    os.ftruncate(target, size)
    for begin, end in data_ranges(source, size):
        at = begin
        while at < end:
            block = os.pread(source, min(BLOCK, end - at), at)
            if not block:
                raise OSError(errno.EIO, "it became shorter while it was read")
            _write(target, block, at)
            at += len(block)
            if on_bytes is not None:
                on_bytes(len(block))


def same(one: int, other: int, size: int, on_bytes: OnBytes | None = None) -> bool:
    """Whether two files hold the same `size` bytes; what is a hole in both is not read."""
    if {os.fstat(one).st_size, os.fstat(other).st_size} != {size}:
        return False
    at = 0
    while at < size:
        at = min(_next_data(one, at, size), _next_data(other, at, size))
        if at >= size:
            break
        length = min(BLOCK, size - at)
        block = os.pread(one, length, at)
        if not block or block != os.pread(other, len(block), at):
            return False
        at += len(block)
        if on_bytes is not None:
            on_bytes(len(block))
    return True


def drop_cached(descriptor: int) -> None:
    """Write a file out and forget what memory has of it, so that reading it reads the disk."""
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_file_system(descriptor: int) -> None:
    """Write out everything of the file system that holds an open file.

    Raises
    ------
    OSError
        If it cannot take what was written: a disk error, or a quota that only now is known.
    """
    call = _syncfs()
    if call is None:
        os.sync()
    elif call(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _next_data(descriptor: int, at: int, size: int) -> int:
    """Where the next data begin, at or after an offset; `size` where none follow."""
    try:
        return min(os.lseek(descriptor, at, os.SEEK_DATA), size)
    except OSError as error:
        return size if error.errno == errno.ENXIO else at


def _write(target: int, block: bytes, at: int) -> None:
    with memoryview(block) as rest:
        written = 0
        while written < len(block):
            written += os.pwrite(target, rest[written:], at + written)


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    library: Any = ctypes.CDLL(None, use_errno=True)
    call: Callable[[int], int] | None = None
    with contextlib.suppress(AttributeError):
        call = library.syncfs
    return call
