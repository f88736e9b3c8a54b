"""Bytes and inodes below a directory, by inode and blocks, within a time budget.

`st_blocks`, not `st_size`: a sparse file is charged for what it holds. A file with several names is
counted once. Other file systems mounted below are not entered, links are not followed.
"""

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What lies below some directories.

    Attributes
    ----------
    bytes, inodes : int
        Of what was seen.
    file_bytes : int
        The part of `bytes` in regular files: 0 where there are only directories.
    complete : bool
        False where the time ran out or a directory refused: the figures are lower bounds.
    """

    bytes: int
    inodes: int
    complete: bool
    file_bytes: int = 0


def used_below(roots: Iterable[Path], *, seconds: float, skip: Iterable[Path] = ()) -> Usage:
    """Physical bytes and inodes below some directories, which may hold one another.

    Parameters
    ----------
    roots : iterable of Path
        Those that do not exist count as empty.
    seconds : float
        How long it may take.
    skip : iterable of Path
        Directories that are left out.
    """
    deadline = time.monotonic() + seconds
    seen: set[tuple[int, int]] = set()
    size = files = 0
    complete = True
    left_out = {os.fspath(path) for path in skip}
    todo: list[tuple[str, int | None]] = [(os.fspath(root), None) for root in roots]
    while todo and time.monotonic() <= deadline:
        directory, device = todo.pop()
        if directory in left_out:
            continue
        found = _read(directory, device, seen)
        size += found.bytes
        files += found.file_bytes
        todo += found.below
        complete = complete and found.readable
    return Usage(bytes=size, inodes=len(seen), complete=complete and not todo, file_bytes=files)


@dataclass(slots=True)
class _Read:
    """What one directory holds, and the directories in it, which are still to be read."""

    bytes: int = 0
    file_bytes: int = 0
    below: list[tuple[str, int | None]] = field(default_factory=list)
    readable: bool = True


def _read(directory: str, device: int | None, seen: set[tuple[int, int]]) -> _Read:
    found = _Read()
    try:
        own = os.lstat(directory)
        if not stat.S_ISDIR(own.st_mode) or (device is not None and own.st_dev != device):
            return found
        size = _charge(own, seen)
        if size is None:
            return found
        found.bytes = size
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.below.append((entry.path, own.st_dev))
                else:
                    status = entry.stat(follow_symlinks=False)
                    size = _charge(status, seen) or 0
                    found.bytes += size
                    found.file_bytes += size if stat.S_ISREG(status.st_mode) else 0
    except FileNotFoundError:
        return _Read()  # gone meanwhile, or never there
    except OSError:
        return _Read(readable=False)
    return found


def _charge(status: os.stat_result, seen: set[tuple[int, int]]) -> int | None:
    """Bytes on disk of an inode, or None if it was counted before."""
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return None
    seen.add(key)
    return status.st_blocks * 512
