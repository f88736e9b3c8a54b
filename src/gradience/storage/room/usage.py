"""Bytes and inodes below a directory, by inode and blocks, within a time budget.

`st_blocks`, not `st_size`: a sparse file is charged for what it holds. A file with several names is
counted once. Other file systems mounted below are not entered, links are not followed.
"""

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What lies below some directories.

    Attributes
    ----------
    bytes, inodes : int
        Of what was seen.
    complete : bool
        False where the time ran out or a directory refused: the figures are lower bounds.
    """

    bytes: int
    inodes: int
    complete: bool


def used_below(roots: Iterable[Path], *, seconds: float) -> Usage:
    """Physical bytes and inodes below some directories, which may hold one another.

    Parameters
    ----------
    roots : iterable of Path
        Those that do not exist count as empty.
    seconds : float
        How long it may take.
    """
    deadline = time.monotonic() + seconds
    seen: set[tuple[int, int]] = set()
    size = 0
    complete = True
    todo: list[tuple[str, int | None]] = [(os.fspath(root), None) for root in roots]
    while todo:
        if time.monotonic() > deadline:
            return Usage(bytes=size, inodes=len(seen), complete=False)
        directory, device = todo.pop()
        added, below, readable = _read(directory, device, seen)
        size += added
        todo += below
        complete = complete and readable
    return Usage(bytes=size, inodes=len(seen), complete=complete)


def _read(
    directory: str, device: int | None, seen: set[tuple[int, int]]
) -> tuple[int, list[tuple[str, int | None]], bool]:
    """Bytes of one directory and its files, the directories below, and whether it could be read."""
    try:
        own = os.lstat(directory)
        if not stat.S_ISDIR(own.st_mode) or (device is not None and own.st_dev != device):
            return 0, [], True
        size = _charge(own, seen)
        if size is None:
            return 0, [], True
        below: list[tuple[str, int | None]] = []
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append((entry.path, own.st_dev))
                else:
                    size += _charge(entry.stat(follow_symlinks=False), seen) or 0
    except FileNotFoundError:
        return 0, [], True  # gone meanwhile, or never there
    except OSError:
        return 0, [], False
    return size, below, True


def _charge(status: os.stat_result, seen: set[tuple[int, int]]) -> int | None:
    """Bytes on disk of an inode, or None if it was counted before."""
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return None
    seen.add(key)
    return status.st_blocks * 512
