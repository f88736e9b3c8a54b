"""What of one hub cache is in another already, as far as names tell, and byte by byte.

Nothing here changes a disk.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gradience.files import contents
from gradience.files.below import Below
from gradience.storage.change.meter import Meter, Progress
from gradience.storage.change.move.copy import bytes_of, held_open
from gradience.storage.change.move.ends import Ends
from gradience.storage.change.move.parts import HOPS, Part, final, is_ref, parts_of, revision_of
from gradience.storage.change.move.tree import Node
from gradience.storage.change.records import text_of

_COMMIT_BYTES = 64
_OTHER_BYTES = (
    "is there with other bytes (`gradience cache verify` tells whether one of the two is broken: "
    "remove that)"
)
_NOTES = (".lock", ".soft", ".refs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """Two caches: `top` below one directory, which was looked at, and `into` below another.

    Attributes
    ----------
    by_name : mapping of str to Node
        All that is in the first.
    parts : mapping of str to Part
        What becomes of each.
    heir : (int, int) or None
        User and group to whom what comes is given: where root acts, whose cache the second is.
    links : bool
        Whether a file can have a name at both ends: then nothing is copied.
    """

    source: Below
    top: str
    target: Below
    into: str
    by_name: Mapping[str, Node]
    parts: Mapping[str, Part]
    heir: tuple[int, int] | None
    links: bool

    @classmethod
    def of(cls, ends: Ends, nodes: Iterable[Node], *, top: str = "") -> "Both":
        """Of what was found in the old directory, and the new place, which must be a directory.

        `top` is where the old directory lies, if not under its name.
        """
        by_name = {node.name: node for node in nodes}
        there = ends.target.status(ends.name)
        heir = (there.st_uid, there.st_gid) if os.geteuid() == 0 and there.st_uid else None
        # What is given to somebody else is copied: the name that it had is not theirs.
        givable = heir is None or all(n.status.st_uid == heir[0] for n in by_name.values())
        return cls(
            source=ends.source,
            top=top or ends.top,
            target=ends.target,
            into=ends.name,
            by_name=by_name,
            parts=parts_of(by_name),
            heir=heir,
            links=givable and _one_mount(ends.source, ends.target),
        )

    def new(self, node: Node) -> str:
        """The name at the new place."""
        return f"{self.into}/{node.name}"

    def old(self, node: Node) -> str:
        """The name at the old place."""
        return f"{self.top}/{node.name}"

    def heir_of(self, node: Node) -> tuple[int, int] | None:
        """To whom a name is given; nothing that is theirs already: one file may be in both."""
        theirs = self.heir is not None and node.status.st_uid == self.heir[0]
        return None if theirs else self.heir

    def meant(self) -> list[Node]:
        """What has to be at the new place in the end."""
        return [n for n in self.by_name.values() if self.parts[n.name] is not Part.LEFT_OUT]

    def absent(self) -> list[Node]:
        """What of that is not there yet."""
        return [node for node in self.meant() if not self.target.exists(self.new(node))]

    def differing(self) -> list[Node]:
        """What is there as something else, as far as `lstat` tells."""
        kept = [node for node in self.meant() if self.parts[node.name] is not Part.POINTER]
        return [n for n in kept if self.target.exists(self.new(n)) and self._is_other(n)]

    def other_refs(self) -> list["OtherRef"]:
        """Refs that name another commit at the new place; that stands if it leads to a revision."""
        found = []
        for name in filter(is_ref, self.by_name):
            node = self.by_name[name]
            if node.is_file and self.target.exists(self.new(node)):
                mine = self.source.read(self.old(node), _COMMIT_BYTES)
                theirs = self.target.read(self.new(node), _COMMIT_BYTES)
                if mine != theirs:
                    goes = self._leads(name, mine) and not self._leads(name, theirs)
                    found.append(OtherRef(node=node, mine=mine, theirs=theirs, goes=goes))
        return found

    def _leads(self, ref: str, commit: bytes) -> bool:
        """Whether the revision that a ref names is at the new place in the end."""
        name = revision_of(ref, os.fsdecode(commit))
        brought = name in self.by_name and self.by_name[name].is_dir
        return bool(name) and (brought or self.target.exists(f"{self.into}/{name}"))

    def unused(self) -> list[Node]:
        """Files with content that are not brought: nothing uses them."""
        left = [n for n in self.by_name.values() if self.parts[n.name] is Part.LEFT_OUT]
        return [n for n in left if n.is_file and n.status.st_size and not n.name.endswith(_NOTES)]

    def verify(self, progress: Progress | None) -> str:
        """What is not at the new place, or with other bytes; "" if all of it is there."""
        meter = Meter(progress, "comparing", bytes_of(list(self.by_name.values())))
        for node in self.meant():
            if why := self._differs(node, meter):
                return f"{text_of(node.name)} {why}"
        return ""

    def _is_other(self, node: Node) -> bool:
        there = self.target.status(self.new(node))
        other_size = stat.S_ISREG(there.st_mode) and node.status.st_size != there.st_size
        return (
            _one(node, there)
            or node.is_dir != stat.S_ISDIR(there.st_mode)
            or (node.is_file and other_size)
        )

    def _differs(self, node: Node, meter: Meter) -> str:
        """How the new place differs in a name; "" if it does not."""
        try:
            there = self.target.status(self.new(node))
        except FileNotFoundError:
            return "is not there"
        if _one(node, there):
            return "is one file or directory under both names, as a bind mount makes it"
        is_dir = stat.S_ISDIR(there.st_mode)
        if node.is_dir or is_dir or self.parts[node.name] is Part.POINTER:
            return "" if node.is_dir == is_dir else "is there as something else"
        links = node.is_link and stat.S_ISLNK(there.st_mode)
        if links and self.target.link_target(self.new(node)) == node.target:
            return ""  # what it leads to is compared by its own name
        mine, theirs = final(node, self.by_name), self._final(self.new(node))
        if mine is None or not mine.is_file or not theirs:
            return "leads elsewhere there"
        return "" if self._same(mine, theirs, meter) else _OTHER_BYTES

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
            held_open(self.source, self.old(node)) as original,
            held_open(self.target, theirs) as other,
        ):
            if os.path.samestat(os.fstat(original), os.fstat(other)):
                meter.add(node.status.st_size)
                return True
            with contextlib.suppress(OSError):
                contents.drop_cached(other)
            return contents.same(original, other, node.status.st_size, meter.add)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRef:
    """A ref of the old place, and what stands in each; `goes` if the old one takes the new place.

    Else a client without a network would not find the revision that was brought.
    """

    node: Node
    mine: bytes
    theirs: bytes
    goes: bool

    @property
    def words(self) -> str:
        """Which commit it has in the end, and which not."""
        both = (self.mine, self.theirs) if self.goes else (self.theirs, self.mine)
        first, second = (os.fsdecode(text)[:8] for text in both)
        return text_of(f"{self.node.name} at {first}, not {second}")


def _one_mount(one: Below, other: Below) -> bool:
    """Whether both lie on one mount: two of one file system have no links between them."""
    return (one.device, one.mount_id()) == (other.device, other.mount_id())


def _one(node: Node, there: os.stat_result) -> bool:
    """Whether it is no second name: what is removed by one is gone by the other."""
    same = node.inode == (there.st_dev, there.st_ino)
    return same and (node.is_dir or there.st_nlink < 2)
