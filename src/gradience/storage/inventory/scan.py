"""One pass over directory trees: the facts of every inode that a reference counter needs.

This process reads alone while the disk answers from memory. Where it does not, helpers read side by
side, as many as keep every core at work: few on a fast disk, up to sixteen on a slow one.
"""

import math
import os
import resource
import stat
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from gradience.storage.inventory.helpers import Helper
from gradience.storage.inventory.listing import (
    NOTHING,
    FileFacts,
    LinkFacts,
    Listing,
    Sums,
    listings,
)
from gradience.system.cpus import usable_cores

Keep = Callable[[str], bool]
Progress = Callable[[str, int, int], None]
Ask = Callable[[Sequence[tuple[str, bool]]], list[Listing]]
"""Reads directories: their paths, and whether the names in them are wanted."""

THREADS = 16
_LOOK = 0.1  # seconds of reading after which it is asked how many readers would pay
_WAITING = 0.25  # seconds spent waiting per second of work, above which more readers pay
_KEPT_REASONS = 100
_MOST = 64  # directories of a batch: whoever interrupts waits for those that were asked for


class File(NamedTuple):
    """A regular file: sizes in bytes (`blocks` of 512), times in seconds since 1970."""

    name: str
    size: int
    blocks: int
    mtime: float
    atime: float
    nlink: int
    ino: int

    @property
    def frees_bytes(self) -> int:
        """What removing this name gives back: nothing where the file has another."""
        return self.blocks * 512 if self.nlink == 1 else 0


# A symbolic link: its name, what it says, and its blocks (a long target takes one of the disk).
Link = LinkFacts


class Directory:
    """A directory that was read.

    Attributes
    ----------
    path : str
        Absolute, with the links of the root resolved.
    name : str
    relative : str
        Path below the root.
    root : Root
    parent : Directory or None
    dev, ino : int
    blocks : int
        Of the directory itself, in units of 512 bytes.
    dirs : list of Directory
    files : list of File
        Empty where nobody asked for names (`Root.keep`); the sums below hold all the same.
    links : list of Link
        As `files`.
    file_count, file_blocks, file_size : int
        Sums over the regular files in it that have no second name.
    link_count, link_blocks : int
        Sums over symbolic links, sockets and pipes.
    newest_mtime, newest_atime : float
        Over the regular files in it; 0.0 if there are none.
    mtime : float
        When a name in it was last made or removed.
    unread : bool
        It was not to be opened: that nothing is in it is not known.
    hard : list of File
        The regular files in it that have a second name somewhere.
    """

    __slots__ = (
        "blocks",
        "dev",
        "dirs",
        "file_blocks",
        "file_count",
        "file_size",
        "files",
        "hard",
        "ino",
        "link_blocks",
        "link_count",
        "links",
        "mtime",
        "name",
        "newest_atime",
        "newest_mtime",
        "parent",
        "path",
        "relative",
        "root",
        "unread",
    )

    def __init__(
        self, path: str, name: str, relative: str, root: "Root", parent: "Directory | None" = None
    ) -> None:
        self.path = path
        self.parent = parent
        self.name = name
        self.relative = relative
        self.root = root
        self.dev = self.ino = self.blocks = 0
        self.dirs: list[Directory] = []
        self.mtime = 0.0
        self.fill([], [], NOTHING)
        self.unread = False

    def fill(
        self, files: list[FileFacts], links: list[Link], sums: Sums, *, kept: bool = True
    ) -> None:
        """Take what is in it but for the directories."""
        self.file_count, self.file_blocks, self.file_size = sums[:3]
        self.link_count, self.link_blocks, self.newest_mtime, self.newest_atime = sums[3:]
        # Not File(*facts): a constructor that knows keywords takes twice as long.
        made = [tuple.__new__(File, facts) for facts in files]
        self.links = links
        self.files = made if kept else []
        one_name_each = kept and len(made) == self.file_count
        self.hard = [] if one_name_each else [file for file in made if file.nlink > 1]

    def add_dir(self, name: str) -> None:
        """Note a directory in it, to be read."""
        relative = f"{self.relative}/{name}" if self.relative else name
        self.dirs.append(Directory(f"{self.path}/{name}", name, relative, self.root, self))

    def child(self, name: str) -> "Directory | None":
        """The directory of that name in it."""
        return next((d for d in self.dirs if d.name == name), None)


class Root:
    """Where a scan begins, and below which of its directories the names of files are wanted.

    Parameters
    ----------
    path : str
        Absolute.
    keep : callable
        Takes the path of a directory relative to the root ("" for the root itself).
    """

    __slots__ = ("keep", "path")

    def __init__(self, path: str, keep: Keep) -> None:
        self.path = path
        self.keep = keep


class Scan:
    """What a scan found.

    Attributes
    ----------
    trees : list of Directory or None
        One per root; None where it is not there, or is below another name of a root before it.
    unreadable : list of (str, str)
        Path and reason, at most a hundred per root.
    unreadable_count : int
    seconds : float
    threads : int
    """

    def __init__(self, roots: Sequence[Root]) -> None:
        self.trees: list[Directory | None] = [None] * len(roots)
        self.unreadable: dict[str, list[tuple[str, str]]] = {root.path: [] for root in roots}
        self.unreadable_count: dict[str, int] = {root.path: 0 for root in roots}
        self.seconds = 0.0
        self.threads = 1

    def refused(self, root: Root, path: str, error: OSError) -> None:
        """Count a path that could not be read."""
        self.unreadable_count[root.path] += 1
        if len(self.unreadable[root.path]) < _KEPT_REASONS:
            self.unreadable[root.path].append((path, reason_of(error)))


def reason_of(error: OSError) -> str:
    """Why a path could not be read, in words.

    Examples
    --------
    >>> reason_of(FileNotFoundError(2, "No such file or directory"))
    'it vanished while we looked'
    """
    if isinstance(error, FileNotFoundError):
        return "it vanished while we looked"
    return (error.strerror or str(error)).lower()


def scan(
    roots: Sequence[Root],
    *,
    read: Sequence[bool] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Read directory trees, each directory once, however many roots and mounts lead to it.

    A root inside another root's tree is read as its own tree and left out of the outer one.
    Symbolic links are never followed below a root. Nothing raises: what cannot be read is counted.

    Parameters
    ----------
    roots : sequence of Root
    read : sequence of bool, optional
        One per root: False to leave it out of the outer trees and not read it either.
    threads : int, optional
        Read with so many from the start; by default chosen by how long the disk takes to answer.
    progress : callable, optional
        Called with a stage, directories read, and directories known.
    """
    start = time.perf_counter()
    reader = _Reader(roots, progress)
    stack = reader.open_roots(roots, read or [True] * len(roots))
    if threads is None:
        stack, threads = reader.read_until_waiting(stack)
    if stack and threads > 1:
        reader.read_side_by_side(stack, threads)
    else:
        reader.read_all(stack)
    reader.found.seconds = time.perf_counter() - start
    return reader.found


def _batch(queue: SimpleQueue[Directory | None], threads: int) -> list[Directory]:
    """A share of what waits to be read, once there is something; nothing where all has been."""
    batch: list[Directory] = []
    most = min(_MOST, 1 + queue.qsize() // (2 * threads))
    with suppress(Empty):
        while len(batch) < most:
            directory = queue.get(block=not batch)
            if directory is None:
                queue.put(None)
                break
            batch.append(directory)
    return batch


class _Clock:
    """A moment in the life of this thread: time, work done, and how often it had to wait."""

    __slots__ = ("cpu", "sleeps", "wall")

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.thread_time()
        # Voluntary switches are waits for the disk; a busy machine only makes involuntary ones.
        # macOS counts them for the whole process, which here is one thread at work.
        who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
        self.sleeps = resource.getrusage(who).ru_nvcsw

    def threads_since(self, before: "_Clock", directories: int, cores: int) -> int:
        """How many would have kept every core at work: 1 where hardly any time went into waiting.

        While one works, others wait: work / (work + wait) of them are at work at any moment.
        """
        worked = max(self.cpu - before.cpu, 1e-6)
        waited = self.wall - before.wall - worked
        if waited < _WAITING * worked or (self.sleeps - before.sleeps) * 4 < directories:
            return 1
        return min(THREADS, cores * (1 + math.ceil(waited / worked)))


class _Reader:
    def __init__(self, roots: Sequence[Root], progress: Progress | None) -> None:
        self.found = Scan(roots)
        self.progress = progress
        # Directories by identity: a bind mount or a loop of mounts leads to the same one twice.
        self.seen: dict[tuple[int, int], Directory] = {}
        self.known = self.done = 0
        self.told = time.perf_counter()

    def open_roots(self, roots: Sequence[Root], read: Sequence[bool]) -> list[Directory]:
        opened: list[Directory] = []
        for index, root in enumerate(roots):
            # The root itself may be a link: a cache that was moved to another disk often is.
            path = os.path.realpath(root.path)
            try:
                status = os.stat(path)  # noqa: PTH116 - names may be no UTF-8; strings throughout
            except OSError as error:
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    self.found.refused(root, root.path, error)
                continue
            directory = Directory(path, os.path.basename(path), "", root)  # noqa: PTH119
            key = (status.st_dev, status.st_ino)
            if stat.S_ISDIR(status.st_mode) and self.seen.setdefault(key, directory) is directory:
                directory.dev, directory.ino = key
                if read[index]:
                    self.found.trees[index] = directory
                    opened.append(directory)
        self.known = len(opened)
        return opened

    def read_until_waiting(self, stack: list[Directory]) -> tuple[list[Directory], int]:
        """Read alone; return what is left once the disk makes us wait, and how many should read."""
        before, directories, cores = _Clock(), 0, usable_cores()
        while stack:
            stack += self.read([stack.pop()], listings)
            directories += 1
            if time.perf_counter() - before.wall < _LOOK:
                continue
            now = _Clock()
            if (threads := now.threads_since(before, directories, cores)) > 1:
                return stack, threads
            before, directories = now, 0
            self.tell(now.wall)
        return stack, 1

    def read_all(self, stack: list[Directory]) -> None:
        while stack:
            stack += self.read([stack.pop()], listings)
            self.tell(time.perf_counter())

    def read_side_by_side(self, stack: list[Directory], threads: int) -> None:
        """Read with many threads, a helper to each; the first to end sends the others home."""
        queue: SimpleQueue[Directory | None] = SimpleQueue()
        for directory in stack:
            queue.put(directory)
        pending = len(stack)
        lock, stopped = threading.Lock(), threading.Event()

        def work() -> None:
            nonlocal pending
            with closing(Helper()) as helper, ExitStack() as leaving:
                leaving.callback(queue.put, None)
                while not stopped.is_set() and (batch := _batch(queue, threads)):
                    children = self.read(batch, helper.read)
                    for child in children:
                        queue.put(child)
                    with lock:
                        pending += len(children) - len(batch)
                        if pending == 0:
                            return
                        self.tell(time.perf_counter())

        self.found.threads = threads
        with ThreadPoolExecutor(threads) as pool:
            try:
                for worker in [pool.submit(work) for _ in range(threads)]:
                    worker.result()
            finally:  # an interrupt does not wait for all the rest to be read
                stopped.set()

    def tell(self, now: float) -> None:
        if self.progress is not None and now - self.told > 0.1:
            self.told = now
            self.progress("reading directories", self.done, self.known)

    def read(self, directories: Sequence[Directory], ask: Ask) -> list[Directory]:
        """Read directories; return those in them that are still to be read."""
        asked = [(one.path, one.root.keep(one.relative)) for one in directories]
        children: list[Directory] = []
        for one, (_, kept), listed in zip(directories, asked, ask(asked), strict=True):
            children += self._take(one, kept, listed)
        self.done += len(directories)
        self.known += len(children)
        return children

    def _take(self, directory: Directory, kept: bool, listed: Listing) -> tuple[Directory, ...]:
        own, dirs, files, links, sums, refused = listed
        for name, number, text in refused:
            path = f"{directory.path}/{name}" if name else directory.path
            self.found.refused(directory.root, path, OSError(number, text))
        if own is None:
            self._closed(directory)
            return ()
        directory.dev, directory.ino, directory.blocks, directory.mtime = own
        if self.seen.setdefault(own[:2], directory) is not directory:
            self._leave_out(directory)
            return ()
        directory.fill(files, links, sums, kept=kept)
        for name in dirs:
            directory.add_dir(name)
        return tuple(directory.dirs)  # a copy: an inner root is taken out of the list itself

    @staticmethod
    def _leave_out(directory: Directory) -> None:
        """Forget another name of a directory that is counted elsewhere."""
        directory.blocks = 0
        if directory.parent is not None:
            directory.parent.dirs.remove(directory)

    def _closed(self, directory: Directory) -> None:
        """A directory we may not open still takes its own blocks."""
        directory.unread = True
        try:
            status = os.lstat(directory.path)
        except OSError:
            return
        directory.dev, directory.ino = status.st_dev, status.st_ino
        directory.blocks = status.st_blocks
