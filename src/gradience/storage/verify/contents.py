"""Looks into one file: is it as long as its header says, does it hold data, what is its hash.

Files are opened so that looking leaves no trace: no access time is written where the kernel lets
us, or a verification would make every model look freshly used.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradience.errors import TensorFileError
from gradience.storage.verify.expected import Item
from gradience.tensors.header import parse_header

_PAGE = 4096
_CHUNK = 4 << 20
_LENGTH = 8  # of a safetensors file's header length
_HEADER_LIMIT = 100_000_000  # as the safetensors library
_POINTER = b"version https://git-lfs.github.com/spec/"


class ChangedError(OSError):
    """A file was written to while we read it."""


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor for reading that leaves the access time alone, where that is allowed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # Only the owner of a file may ask for this (open(2)).
        descriptor = os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def shallow_problem(item: Item) -> tuple[str, str] | None:
    """What is wrong with a file by its size, its header and a few of its pages; None if nothing.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with opened(item.path) as descriptor:
        size = os.fstat(descriptor).st_size
        if item.size is not None and size != item.size:
            head = os.pread(descriptor, len(_POINTER), 0)
            if head == _POINTER:
                return "lfs_pointer", f"{size} bytes of a Git LFS pointer, not {item.size}"
            return "wrong_size", f"{size} bytes, not {item.size}"
        if size == 0:
            return None
        if _has_no_data(descriptor, size):
            return "zero_filled", f"{size} bytes, and zeros wherever we looked"
        if any(name.endswith(".safetensors") for name in item.names):
            return _short_of_header(item.path, descriptor, size)
    return None


def _has_no_data(descriptor: int, size: int) -> bool:
    """Whether a file is one hole, or its first, middle and last pages are zeros.

    A copy that died after the space was reserved leaves a file of the right size without data.
    Only files above a page are asked: a small file may well be zeros.
    """
    if size <= _PAGE:
        return False
    try:
        os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        # No data after this place. Other errors are of a file system that cannot tell.
        if error.errno == errno.ENXIO:
            return True
    middle = size // 2
    return not any(
        any(os.pread(descriptor, _PAGE, offset)) for offset in (0, middle, max(0, size - _PAGE))
    )


def _short_of_header(path: str, descriptor: int, size: int) -> tuple[str, str] | None:
    """A safetensors file that its own header contradicts."""
    length = int.from_bytes(os.pread(descriptor, _LENGTH, 0), "little")
    if length > min(_HEADER_LIMIT, size - _LENGTH):
        return "truncated", f"{size} bytes, less than its header of {length}"
    try:
        parse_header(
            Path(path),
            os.pread(descriptor, length, _LENGTH),
            data_nbytes=size - _LENGTH - length,
        )
    except TensorFileError as error:
        return "truncated", str(error).removeprefix(f"{path}: ")
    return None


def digest(item: Item, report: Callable[[int], None], stop: threading.Event) -> str:
    """The hash of a file, by the algorithm that its expectation is in.

    Parameters
    ----------
    report : callable
        Called with the number of bytes after each piece.
    stop : Event
        Ends the reading early; what is returned then means nothing.

    Raises
    ------
    OSError
        If it cannot be read, or changes meanwhile (`ChangedError`).
    """
    with opened(item.path) as descriptor:
        before = os.fstat(descriptor)
        if item.algorithm == "sha256":
            hashing = hashlib.sha256()
        else:
            # git's own: sha1 of "blob <size>\\0" and the content. Not used for security.
            hashing = hashlib.sha1(b"blob %d\x00" % before.st_size, usedforsecurity=False)
        while not stop.is_set() and (piece := os.read(descriptor, _CHUNK)):
            hashing.update(piece)
            report(len(piece))
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ChangedError("it was written to while we read it")
        return hashing.hexdigest()
