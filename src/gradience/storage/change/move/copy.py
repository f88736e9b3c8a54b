"""Copy a tree beside its new place, and verify the copy; what an earlier try copied is kept.

A file has its time of change only when it is whole, so a file of the right size and time is taken
for copied. That decides what is copied again, never what is believed: every byte is compared before
anything old may go, read from the disk where the system lets us.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gradience.files import attributes, contents
from gradience.files.below import Below, Removed
from gradience.storage.change.meter import Meter, Progress
from gradience.storage.change.move.tree import Node, differences, look
from gradience.storage.change.records import text_of

Reached = Callable[[str], None]


def no_step(_: str) -> None:
    """What `reached` does outside of tests, which end the process there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy under way: from `top` below one directory to `staged` below another."""

    source: Below
    top: str
    target: Below
    staged: str
    progress: Progress | None
    reached: Reached

    def make(self, nodes: Sequence[Node]) -> None:
        """Copy what is not there yet; remove what does not belong.

        Raises
        ------
        OSError
            ENOSPC or EDQUOT where there is no room; what else a disk refuses.
        """
        self.target.make_dirs(self.staged)
        there = self._prepare(nodes)
        meter = Meter(self.progress, "copying", bytes_of(nodes))
        first: dict[tuple[int, int], str] = {}
        for node in nodes:
            new = f"{self.staged}/{node.name}"
            known = there.get(node.name)
            if node.is_dir:
                self.target.make_dirs(new)
            elif node.is_link:
                if known is None:
                    self.target.symlink(node.target, new)
            elif node.inode in first:
                self._link(first[node.inode], new, known)
            else:
                first[node.inode] = new
                if known is None:
                    self._file(node, new, meter)
                else:
                    meter.add(node.status.st_size)
            self.reached("copied")
        self._finish(nodes)

    def verify(self, nodes: Sequence[Node]) -> str:
        """How the copy differs from the original; "" if it does not, byte by byte."""
        copied, _ = look(self.target, self.staged)
        for difference in differences(nodes, copied):
            return difference
        meter = Meter(self.progress, "comparing", bytes_of(nodes))
        seen = set()
        for node in nodes:
            if node.is_link or node.inode in seen:
                continue
            seen.add(node.inode)
            if not self._same(node, meter):
                return f"{text_of(node.name)} has other bytes in the copy"
        return ""

    def _prepare(self, nodes: Sequence[Node]) -> dict[str, Node]:
        """Look at what an earlier try left, and remove what is no whole part of this copy."""
        wanted = {node.name: node for node in nodes}
        kept: dict[str, Node] = {}
        self._open_up()
        copied, _ = look(self.target, self.staged)
        for node in copied:
            mine = wanted.get(node.name)
            if mine is None or not _usable(mine, node):
                with contextlib.suppress(FileNotFoundError):  # it went with its directory
                    self.target.remove(f"{self.staged}/{node.name}", Removed())
            else:
                kept[node.name] = node
        return kept

    def _open_up(self) -> None:
        """Let us write where an earlier try had already set the modes of the original."""
        todo = [self.staged]
        while todo:
            name = todo.pop()
            with held_open(self.target, name, directory=True) as made:
                attributes.open_up(made)
            todo += [
                f"{name}/{child}"
                for child, status in self.target.entries(name)
                if stat.S_ISDIR(status.st_mode)
            ]

    def _file(self, node: Node, new: str, meter: Meter) -> None:
        with held_open(self.source, f"{self.top}/{node.name}") as original:
            if os.fstat(original).st_ino != node.status.st_ino:
                raise OSError(errno.ESTALE, "it was replaced while it was copied")
            made = self.target.create(new, mode=0o600)
            try:
                contents.copy(original, made, node.status.st_size, meter.add)
                attributes.keep(made, node.status, attributes.extended(original))
            finally:
                os.close(made)

    def _link(self, first: str, new: str, known: Node | None) -> None:
        if known is not None:
            if known.status.st_ino == self.target.status(first).st_ino:
                return
            self.target.remove(new, Removed())
        self.target.link(first, new)

    def _finish(self, nodes: Sequence[Node]) -> None:
        """Owner, mode and times of directories and links, last: making names in them changes both.

        Then all of it is written out, which is when a network disk may say that there is no room.
        """
        for node in reversed(nodes):
            new = f"{self.staged}/{node.name}"
            if node.is_link:
                self.target.keep_link(new, node.status)
            elif node.is_dir:
                with held_open(self.source, f"{self.top}/{node.name}", directory=True) as original:
                    extended = attributes.extended(original)
                with held_open(self.target, new, directory=True) as made:
                    attributes.keep(made, node.status, extended)
        with held_open(self.target, self.staged, directory=True) as made:
            contents.sync_file_system(made)

    def finish_top(self, status: os.stat_result) -> None:
        """Owner, mode and times of the directory itself."""
        with held_open(self.source, self.top, directory=True) as original:
            extended = attributes.extended(original)
        with held_open(self.target, self.staged, directory=True) as made:
            attributes.keep(made, status, extended)

    def _same(self, node: Node, meter: Meter) -> bool:
        name = f"{self.staged}/{node.name}"
        original_name = f"{self.top}/{node.name}"
        with (
            held_open(self.source, original_name, directory=node.is_dir) as original,
            held_open(self.target, name, directory=node.is_dir) as copied,
        ):
            if attributes.extended(original) != attributes.extended(copied):
                return False
            if node.is_dir:
                return True
            with contextlib.suppress(OSError):
                contents.drop_cached(copied)
            return contents.same(original, copied, node.status.st_size, meter.add)


@contextlib.contextmanager
def held_open(below: Below, name: str, *, directory: bool = False) -> Iterator[int]:
    """A descriptor to read a regular file or a directory with, closed at the end."""
    descriptor = below.open(name, directory=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _usable(node: Node, known: Node) -> bool:
    """Whether what an earlier try made can stay."""
    if node.is_dir or node.is_link:
        return (node.is_dir, node.target) == (known.is_dir, known.target)
    return known.is_file and attributes.agree(node.status, known.status)


def bytes_of(nodes: Sequence[Node]) -> int:
    """The length of all files."""
    return sum(node.status.st_size for node in nodes if node.is_file)
