"""Bring what a hub cache holds into another that has content.

Nothing at the new place is changed or removed, only added, but for a ref that leads nowhere: a file
under its name when it is whole, a revision when all of it is there, and what is named before what
names it, so that whoever reads there meanwhile sees a cache that is sound. On one disk a file gets
a second name there, and no byte is copied.
"""

import contextlib
import errno
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gradience.files import attributes, contents
from gradience.files.below import Removed
from gradience.storage.change.meter import Meter, Progress
from gradience.storage.change.move.both import Both
from gradience.storage.change.move.copy import Reached, bytes_of, held_open
from gradience.storage.change.move.parts import Stage, commit_of, is_stored, stage_of, users_of
from gradience.storage.change.move.tree import Node

_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_WAIT_SECONDS, _POLL_SECONDS = 30.0, 0.05
_LIST_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Pour:
    """A merge under way.

    Attributes
    ----------
    both : Both
    staged : str
        Where copies and revisions are made, on the disk of the new place.
    """

    both: Both
    staged: str
    progress: Progress | None
    reached: Reached

    def make(self) -> int:
        """Bring what is not there yet; bytes of the old disk that new directories take.

        Raises
        ------
        OSError
            ENOSPC or EDQUOT where there is no room; EBUSY where a client holds the lock of a shared
            blob; what else a disk refuses.
        """
        target = self.both.target
        if target.exists(self.staged):  # of an earlier try
            target.remove(self.staged, Removed())
        target.make_dirs(self.staged)
        absent = self.both.absent()
        meter = Meter(self.progress, "bringing", bytes_of(absent))
        stages: dict[Stage, list[Node]] = defaultdict(list)
        for node in absent:
            stages[stage_of(node, self.both.parts[node.name])].append(node)
        self._each((*stages[Stage.DIRECTORY], *stages[Stage.MARKER]), meter)
        self._stored({node.name for node in absent}, meter)
        self._each((*stages[Stage.FILE], *stages[Stage.LINK]), meter)
        self._revisions(stages[Stage.REVISION], meter)
        self._each(stages[Stage.POINTER], meter)
        self._refs(meter)
        taken = self._finish(stages[Stage.DIRECTORY])
        with held_open(target, self.both.into, directory=True) as new:
            contents.sync_file_system(new)
        return taken if self.both.links else 0

    def _each(self, nodes: Iterable[Node], meter: Meter) -> None:
        first: dict[tuple[int, int], str] = {}
        for node in nodes:
            self._put(node, self.both.new(node), meter, first)
            self.reached("brought")

    def _stored(self, absent: set[str], meter: Meter) -> None:
        """Blobs of the shared store, and the links that lead to them.

        The hub's own sweep takes a shared blob whose list names no link that leads to it, so all of
        it happens under the lock of that blob: its list, the blob, the links.
        """
        users = users_of(self.both.by_name)
        for stored in filter(is_stored, self.both.by_name.values()):
            links = [user for user in users.get(stored.name, ()) if user.name in absent]
            if links or stored.name in absent:
                with self._lock(f"{self.both.new(stored)}.lock"):
                    if not self._is_unlisted(stored):
                        self._list(stored, links)
                        self.reached("listed")
                    self._put(stored, self.both.new(stored), meter)
                    self.reached("stored")
                    self._each(links, meter)

    def _is_unlisted(self, stored: Node) -> bool:
        """Whether it is there without a list: then the hub never deletes it.

        A list of ours would change that, and lack whoever uses it there.
        """
        new, target = self.both.new(stored), self.both.target
        return target.exists(new) and not target.exists(f"{new}.refs")

    def _list(self, stored: Node, links: Iterable[Node]) -> None:
        """Add to the list of a shared blob's users those that the old list has, and these."""
        mine, theirs = f"{self.both.old(stored)}.refs", f"{self.both.new(stored)}.refs"
        lines = [os.fsencode(link.name) for link in links]
        if self.both.source.exists(mine):
            lines += self.both.source.read(mine, _LIST_BYTES).splitlines()
        listed = b""
        if self.both.target.exists(theirs):
            listed = self.both.target.read(theirs, _LIST_BYTES)
        known = set(listed.splitlines())
        lines = [line for line in dict.fromkeys(lines) if line not in known]
        if lines:
            torn = b"\n" if listed and not listed.endswith(b"\n") else b""
            self.both.target.append(theirs, torn + b"".join(b"%b\n" % line for line in lines))

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Hold a lock of the hub's client at the new place, or go without where nobody can."""
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            with self.both.target.lock(name, mode=0o666) as ours:
                if ours is not False:
                    yield
                    return
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, "a download holds the lock of a shared blob", name)
            time.sleep(_POLL_SECONDS)

    def _revisions(self, nodes: Iterable[Node], meter: Meter) -> None:
        """Snapshots: one that is not there at all appears by one rename, with all its files."""
        by_commit: dict[str, list[Node]] = defaultdict(list)
        for node in nodes:
            by_commit[commit_of(node.name)].append(node)
        for commit, below in by_commit.items():
            if below[0].name == commit and below[0].is_dir:
                self._revision(commit, below, meter)
            else:
                self._each(below, meter)
                self._finish([node for node in below if node.is_dir])

    def _revision(self, commit: str, nodes: list[Node], meter: Meter) -> None:
        made = f"{self.staged}/revision"
        for node in nodes:
            self._put(node, f"{made}{node.name.removeprefix(commit)}", meter)
            self.reached("staged")
        try:
            self.both.target.move(made, f"{self.both.into}/{commit}")
        except FileExistsError:  # a client was faster
            self.both.target.remove(made, Removed())
            self._each(nodes, meter)
        self.reached("brought")
        self._finish([node for node in nodes if node.is_dir])

    def _refs(self, meter: Meter) -> None:
        """The refs that lead nowhere there, and do here."""
        for ref in self.both.other_refs():
            if ref.goes:
                self._put(ref.node, f"{self.staged}/ref", meter)
                self.both.target.replace(f"{self.staged}/ref", self.both.new(ref.node))
                self.reached("brought")

    def _put(
        self,
        node: Node,
        new: str,
        meter: Meter,
        first: dict[tuple[int, int], str] | None = None,
    ) -> None:
        """Make one name; where a client was faster its own stays, and `Both.verify` decides."""
        first = {} if first is None else first
        if self.both.target.exists(new):
            return
        with contextlib.suppress(FileExistsError):
            if node.is_dir:
                self.both.target.make_dir(new, stat.S_IMODE(node.status.st_mode) | 0o700)
            elif node.is_link:
                self.both.target.symlink(node.target, new)
                self.both.target.keep_link(new, node.status)
            elif node.inode in first:
                self.both.target.link(first[node.inode], new)
            else:
                if not self._linked(node, new):
                    self._copied(node, new, meter)
                first[node.inode] = new
            if (heir := self.both.heir_of(node)) is not None:
                self.both.target.give(new, *heir)

    def _linked(self, node: Node, new: str) -> bool:
        if not self.both.links:
            return False
        try:
            self.both.source.link(self.both.old(node), new, self.both.target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True

    def _copied(self, node: Node, new: str, meter: Meter) -> None:
        copy = f"{self.staged}/file"
        if self.both.target.exists(copy):
            self.both.target.remove(copy, Removed())
        with held_open(self.both.source, self.both.old(node)) as original:
            if os.fstat(original).st_ino != node.status.st_ino:
                raise OSError(errno.ESTALE, "it was replaced while it was copied", node.name)
            made = self.both.target.create(copy, mode=0o600)
            try:
                contents.copy(original, made, node.status.st_size, meter.add)
                attributes.keep(made, node.status, attributes.extended(original))
                os.fsync(made)
            finally:
                os.close(made)
        self.both.target.move(copy, new)

    def _finish(self, made: list[Node]) -> int:
        """Owner, mode and times of new directories, last: making names in them changes both."""
        taken = 0
        for node in reversed(made):
            with held_open(self.both.source, self.both.old(node), directory=True) as original:
                extended = attributes.extended(original)
            with held_open(self.both.target, self.both.new(node), directory=True) as descriptor:
                attributes.keep(descriptor, node.status, extended)
                if (heir := self.both.heir_of(node)) is not None:
                    os.fchown(descriptor, *heir)
                taken += os.fstat(descriptor).st_blocks * 512
        return taken
