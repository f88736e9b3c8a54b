"""Bring what a directory holds into another that has content, and see that all of it is there.

Nothing at the new place is changed or removed, only added: a file under its name when it is whole,
and what is named before what names it, so that whoever reads there meanwhile sees a cache that is
sound. On one disk a file gets a second name there, and no byte is copied.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradience.files import attributes, contents
from gradience.files.below import Below, Removed
from gradience.storage.change.meter import Meter, Progress
from gradience.storage.change.move.copy import Reached, bytes_of, held_open, no_step
from gradience.storage.change.move.ends import Ends
from gradience.storage.change.move.parts import (
    HOPS,
    Part,
    final,
    line_of,
    order,
    parts_of,
    shared_blob,
)
from gradience.storage.change.move.tree import Node
from gradience.storage.change.records import text_of

_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_WAIT_SECONDS, _POLL_SECONDS = 30.0, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pour:
    """From `top` below one directory into `into` below another.

    Attributes
    ----------
    staged : str
        Where copies are made, on the disk of `into`.
    by_name : mapping of str to Node
        All that is in the old directory.
    parts : mapping of str to Part
        What becomes of each.
    """

    source: Below
    top: str
    target: Below
    into: str
    staged: str
    by_name: Mapping[str, Node]
    parts: Mapping[str, Part]
    progress: Progress | None
    reached: Reached

    @classmethod
    def of(
        cls,
        ends: Ends,
        nodes: Sequence[Node],
        progress: Progress | None = None,
        reached: Reached = no_step,
    ) -> "Pour":
        """Of what was found in the old directory; it changes nothing until it is told to."""
        return cls(
            source=ends.source,
            top=ends.top,
            target=ends.target,
            into=ends.name,
            staged=ends.copy,
            by_name={node.name: node for node in nodes},
            parts=parts_of(nodes),
            progress=progress,
            reached=reached,
        )

    @property
    def one_disk(self) -> bool:
        """Whether a file can have a name at both ends: then nothing is copied."""
        return self.source.device == self.target.device

    def make(self) -> int:
        """Bring what is not there yet; bytes of the old disk that new directories take.

        Raises
        ------
        OSError
            ENOSPC or EDQUOT where there is no room; EBUSY where a client holds the lock of a shared
            blob; what else a disk refuses.
        """
        self.target.make_dirs(self.staged)
        absent = self.absent()
        meter = Meter(self.progress, "bringing", bytes_of(absent))
        made: list[Node] = []
        first: dict[tuple[int, int], str] = {}
        for node in sorted(absent, key=lambda n: order(n, self.parts[n.name])):
            if self.parts[node.name] is Part.SHARED:
                continue
            if node.is_dir:
                self.target.make_dirs(self._new(node))
                made.append(node)
            elif store := shared_blob(node, self.by_name):
                self._shared(node, self.by_name[store], meter)
            elif node.is_link:
                self._link(node)
            else:
                self._file(node, first, meter)
            self.reached("brought")
        return self._finish(made)

    def verify(self) -> str:
        """What is not at the new place, or with other bytes; "" if all of it is there.

        A shared blob counts where a link leads to it: the other layout does without.
        """
        meter = Meter(self.progress, "comparing", bytes_of(list(self.by_name.values())))
        for node in self.by_name.values():
            part = self.parts[node.name]
            if part not in (Part.LEFT_OUT, Part.SHARED) and (why := self._differs(node, meter)):
                return f"{text_of(node.name)} {why}"
        return ""

    def absent(self) -> list[Node]:
        """What is not there yet and has to be."""
        found = [node for node in self._meant() if not self.target.exists(self._new(node))]
        wanted = {shared_blob(node, self.by_name) for node in found}
        return [n for n in found if self.parts[n.name] is not Part.SHARED or n.name in wanted]

    def differing(self) -> list[Node]:
        """What is there as something else, as far as `lstat` tells."""
        kept = [node for node in self._meant() if self.parts[node.name] is not Part.POINTER]
        return [n for n in kept if self.target.exists(self._new(n)) and self._is_other(n)]

    def unused(self) -> list[Node]:
        """Files with content that are not brought: nothing uses them."""
        left = [n for n in self.by_name.values() if self.parts[n.name] is Part.LEFT_OUT]
        notes = (".lock", ".refs")
        return [n for n in left if n.is_file and n.status.st_size and not n.name.endswith(notes)]

    def _meant(self) -> list[Node]:
        return [n for n in self.by_name.values() if self.parts[n.name] is not Part.LEFT_OUT]

    def _is_other(self, node: Node) -> bool:
        there = self.target.status(self._new(node))
        other_size = stat.S_ISREG(there.st_mode) and node.status.st_size != there.st_size
        return (
            _one(node, there)
            or node.is_dir != stat.S_ISDIR(there.st_mode)
            or (node.is_file and other_size)
        )

    def _new(self, node: Node) -> str:
        return f"{self.into}/{node.name}"

    def _old(self, node: Node) -> str:
        return f"{self.top}/{node.name}"

    def _link(self, node: Node) -> None:
        try:
            self.target.symlink(node.target, self._new(node))
            self.target.keep_link(self._new(node), node.status)
        except FileExistsError:
            pass  # a client was faster; `verify` decides

    def _file(self, node: Node, first: dict[tuple[int, int], str], meter: Meter) -> None:
        """A second name on one disk, else a copy under its name when it is whole."""
        try:
            if node.inode in first:
                self.target.link(first[node.inode], self._new(node))
            elif not self._linked(node):
                self._copied(node, meter)
        except FileExistsError:
            return  # a client was faster; `verify` decides
        first.setdefault(node.inode, self._new(node))

    def _linked(self, node: Node) -> bool:
        if not self.one_disk:
            return False
        try:
            self.source.link(self._old(node), self._new(node), self.target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True

    def _copied(self, node: Node, meter: Meter) -> None:
        copy = f"{self.staged}/file"
        if self.target.exists(copy):
            self.target.remove(copy, Removed())
        with held_open(self.source, self._old(node)) as original:
            if os.fstat(original).st_ino != node.status.st_ino:
                raise OSError(errno.ESTALE, "it was replaced while it was copied")
            made = self.target.create(copy, mode=0o600)
            try:
                contents.copy(original, made, node.status.st_size, meter.add)
                attributes.keep(made, node.status, attributes.extended(original))
                os.fsync(made)
            finally:
                os.close(made)
        self.target.move(copy, self._new(node))

    def _shared(self, user: Node, store: Node, meter: Meter) -> None:
        """A shared blob, its user in the list, and the link, in that order and under its lock.

        The hub's own sweep takes a shared blob whose list names no link that leads to it.
        """
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            with self.target.lock(f"{self._new(store)}.lock", mode=0o666) as ours:
                if ours is not False:
                    if not self.target.exists(self._new(store)):
                        self._file(store, {}, meter)
                        self.reached("stored")
                    self.target.append(
                        f"{self._new(store)}.refs", os.fsencode(f"{line_of(user.name)}\n")
                    )
                    self.reached("listed")
                    return self._link(user)
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, "a download holds the lock of a shared blob")
            time.sleep(_POLL_SECONDS)

    def _finish(self, made: Sequence[Node]) -> int:
        """Owner, mode and times of new directories, last: making names in them changes both."""
        taken = 0
        for node in reversed(made):
            with held_open(self.source, self._old(node), directory=True) as original:
                extended = attributes.extended(original)
            with held_open(self.target, self._new(node), directory=True) as new:
                attributes.keep(new, node.status, extended)
                taken += os.fstat(new).st_blocks * 512
        with held_open(self.target, self.into, directory=True) as new:
            contents.sync_file_system(new)
        return taken if self.one_disk else 0

    def _differs(self, node: Node, meter: Meter) -> str:
        """How the new place differs in a name; "" if it does not."""
        try:
            there = self.target.status(self._new(node))
        except FileNotFoundError:
            return "is not there"
        if _one(node, there):
            return "is one file or directory under both names, as a bind mount makes it"
        is_dir = stat.S_ISDIR(there.st_mode)
        if node.is_dir or is_dir or self.parts[node.name] is Part.POINTER:
            return "" if node.is_dir == is_dir else "is there as something else"
        alike = node.is_link and stat.S_ISLNK(there.st_mode) and not shared_blob(node, self.by_name)
        if alike and self.target.link_target(self._new(node)) == node.target:
            return ""  # what it leads to is compared by its own name
        mine, theirs = final(node, self.by_name), self._final(self._new(node))
        if mine is None or not mine.is_file or not theirs:
            return "leads elsewhere there"
        return "" if self._same(mine, theirs, meter) else "is there with other bytes"

    def _final(self, name: str) -> str:
        """The regular file that a name leads to without leaving the new place; "" if none."""
        for _ in range(HOPS):
            try:
                mode = self.target.status(name).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return ""
            if stat.S_ISREG(mode):
                return name
            if not stat.S_ISLNK(mode):
                return ""
            above = os.path.dirname(name)  # noqa: PTH120 - text, perhaps no UTF-8
            name = os.path.normpath(os.path.join(above, self.target.link_target(name)))  # noqa: PTH118
            if not name.startswith(f"{self.into}/"):
                return ""
        return ""

    def _same(self, node: Node, theirs: str, meter: Meter) -> bool:
        with (
            held_open(self.source, self._old(node)) as original,
            held_open(self.target, theirs) as other,
        ):
            if os.path.samestat(os.fstat(original), os.fstat(other)):
                meter.add(node.status.st_size)
                return True
            with contextlib.suppress(OSError):
                contents.drop_cached(other)
            return contents.same(original, other, node.status.st_size, meter.add)


def _one(node: Node, there: os.stat_result) -> bool:
    """Whether it is no second name: what is removed by one is gone by the other."""
    same = node.inode == (there.st_dev, there.st_ino)
    return same and (node.is_dir or there.st_nlink < 2)
