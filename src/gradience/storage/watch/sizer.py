"""The size of a directory tree, again and again, cheaply.

A directory's mtime changes when a name in it comes or goes, so a directory whose mtime stands is
not read again. A file that grows in place changes no directory: files written to lately are looked
at one by one, and a slice of the tree is read anew at each turn, so that nothing is missed long.
"""

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

_HOT_SECONDS = 120.0
_RACY_SECONDS = 2.0  # two changes within the clock's grain leave one mtime
_TURNS = 60  # after so many turns every directory was read again
_UNFINISHED = (".incomplete", ".part", ".tmp", ".download")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A tree's size.

    Attributes
    ----------
    bytes : int
        On disk, several names of one file counted once.
    files : int
        Everything that is no directory.
    unfinished_bytes : int
        Of files whose name says that a download or a write has not ended.
    """

    bytes: int
    files: int
    unfinished_bytes: int


@dataclass(slots=True)
class _File:
    """A file to look at again: written to lately, unfinished, or known by several names."""

    blocks: int
    key: tuple[int, int] | None  # device and inode, where it has several names
    hot: bool
    unfinished: bool


@dataclass(slots=True)
class _Directory:
    """What a directory held when it was read; of files that stand, only the sum is kept."""

    mtime_ns: int
    blocks: int
    standing_blocks: int = 0
    standing_files: int = 0
    files: dict[str, _File] = field(default_factory=dict)
    below: list[str] = field(default_factory=list)


class Sizer:
    """A tree whose size is asked many times.

    Parameters
    ----------
    root : Path
        Need not exist; links are not followed, other file systems not entered.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._directories: dict[str, _Directory] = {}
        self._turn = 0

    def size(self) -> Size | None:
        """The size now, or None if the root is not there or cannot be read."""
        try:
            device = os.stat(self._root).st_dev  # noqa: PTH116 - strings, for speed
        except OSError:
            self._directories.clear()
            return None
        self._turn += 1
        self._refresh(device)
        return self._sum()

    def _refresh(self, device: int) -> None:
        """Look at every directory, read those that may have changed, drop those that are gone."""
        now = time.time()
        alive: set[str] = set()
        todo = [self._root]
        while todo:
            path = todo.pop()
            directory = self._look(path, device, now)
            if directory is not None:
                alive.add(path)
                todo += directory.below
        for gone in self._directories.keys() - alive:
            del self._directories[gone]

    def _look(self, path: str, device: int, now: float) -> _Directory | None:
        known = self._directories.get(path)
        try:
            status = os.stat(path)  # noqa: PTH116 - strings, for speed
            if status.st_dev != device or not stat.S_ISDIR(status.st_mode):
                return None
            racy = now - status.st_mtime < _RACY_SECONDS
            due = hash(path) % _TURNS == self._turn % _TURNS
            if known is None or known.mtime_ns != status.st_mtime_ns or racy or due:
                known = _read(path, status, now)
                self._directories[path] = known
            else:
                known.blocks = status.st_blocks
                _look_at_hot(path, known, now)
        except OSError:
            return None
        return known

    def _sum(self) -> Size:
        blocks = unfinished = files = 0
        seen: set[tuple[int, int]] = set()
        for directory in self._directories.values():
            blocks += directory.blocks + directory.standing_blocks
            files += directory.standing_files + len(directory.files)
            for file in directory.files.values():
                if file.key is not None:
                    if file.key in seen:
                        continue
                    seen.add(file.key)
                blocks += file.blocks
                unfinished += file.blocks if file.unfinished else 0
        return Size(bytes=blocks * 512, files=files, unfinished_bytes=unfinished * 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A size and when it was known; `size` is None where the tree is not there."""

    seconds: float
    size: Size | None


class Counting:
    """A tree that is measured beside the caller, who shows the last figure meanwhile.

    Parameters
    ----------
    sizer : Sizer
    clock : callable
        Seconds, on a clock that does not jump.
    """

    def __init__(self, sizer: Sizer, clock: Callable[[], float]) -> None:
        self._sizer = sizer
        self._clock = clock
        self._thread: Thread | None = None
        self._last: Measured | None = None

    def latest(self, patience: float | None) -> Measured | None:
        """Start measuring unless that goes on, wait a while, and give the last result.

        Parameters
        ----------
        patience : float, optional
            Seconds to wait at most; None waits for the result.

        Returns
        -------
        Measured or None
            None until the tree was measured for the first time.
        """
        if self._thread is None or not self._thread.is_alive():
            # A daemon: Ctrl-C must not wait for a walk through a million cold files.
            self._thread = Thread(target=self._measure, daemon=True)
            self._thread.start()
        self._thread.join(patience)
        return self._last

    def _measure(self) -> None:
        size = self._sizer.size()
        self._last = Measured(seconds=self._clock(), size=size)


def _read(path: str, own: os.stat_result, now: float) -> _Directory:
    directory = _Directory(mtime_ns=own.st_mtime_ns, blocks=own.st_blocks)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directory.below.append(entry.path)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # renamed since it was listed: the next turn sees it
            file = _file(entry.name, status, now)
            if file.hot or file.key is not None:
                directory.files[entry.name] = file
            else:
                directory.standing_blocks += file.blocks
                directory.standing_files += 1
    return directory


def _look_at_hot(path: str, directory: _Directory, now: float) -> None:
    for name, file in list(directory.files.items()):
        if file.hot:
            try:
                status = os.lstat(os.path.join(path, name))  # noqa: PTH118 - strings, for speed
            except OSError:
                del directory.files[name]
                continue
            directory.files[name] = _file(name, status, now)


def _file(name: str, status: os.stat_result, now: float) -> _File:
    unfinished = name.endswith(_UNFINISHED)
    return _File(
        blocks=status.st_blocks,
        key=(status.st_dev, status.st_ino) if status.st_nlink > 1 else None,
        hot=unfinished or now - status.st_mtime < _HOT_SECONDS,
        unfinished=unfinished,
    )
