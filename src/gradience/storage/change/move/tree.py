"""Everything below a directory, as a copy must have it, and where a copy differs."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gradience import paths
from gradience.files import attributes
from gradience.files.below import Below
from gradience.storage.change import fingerprint
from gradience.storage.change.records import Tree, text_of

_OWN = paths.SET_ASIDE
_BOOKKEEPING = frozenset({_OWN, f"{_OWN}/lock", f"{_OWN}/CACHEDIR.TAG"})
"""What our own lock makes: it says nothing about the cache, and is not copied."""
_IGNORED = frozenset(f"/{name}".encode() for name in _BOOKKEEPING)
_PAGE = 4096  # what a directory, or a part of a block at the end of a file, may take


@dataclass(frozen=True, slots=True)
class Node:
    """One name below a directory.

    Attributes
    ----------
    name : str
        Relative to the directory.
    status : stat_result
        Its `lstat`.
    target : str
        What a link says.
    """

    name: str
    status: os.stat_result
    target: str = ""

    @property
    def is_dir(self) -> bool:
        """A directory."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        """A symbolic link."""
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """A regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def inode(self) -> tuple[int, int]:
        """What its hard links share."""
        return self.status.st_dev, self.status.st_ino


def look(below: Below, top: str) -> tuple[list[Node], Tree]:
    """Everything below a directory, parents first, and its fingerprint.

    Raises
    ------
    OSError
        If a directory cannot be read, or another file system is mounted below.
    """
    found: list[Node] = []
    start = len(top) + 1

    def seen(name: str, status: os.stat_result) -> None:
        target = below.link_target(name) if stat.S_ISLNK(status.st_mode) else ""
        found.append(Node(name[start:], status, target))

    tree = fingerprint.tree_of(below, top, seen, _IGNORED)
    # The directory of our own is copied where it holds more than bookkeeping: trash.
    if any(node.name.startswith(f"{_OWN}/") for node in found):
        status = below.status(f"{top}/{_OWN}")
        found.append(Node(_OWN, status))
    return sorted(found, key=lambda node: node.name.split("/")), tree


def differences(source: Iterable[Node], copy: Iterable[Node]) -> Iterator[str]:
    """Where a copy differs, as far as names and `lstat` tell; pure."""
    there = {node.name: node for node in copy}
    first: dict[tuple[int, int], tuple[int, int]] = {}
    for node in source:
        other = there.pop(node.name, None)
        where = text_of(node.name)
        if other is None:
            yield f"{where} is not in the copy"
        elif node.name != _OWN and not attributes.agree(node.status, other.status):
            yield f"{where} has another type, size, owner, mode or time in the copy"
        elif node.target != other.target:
            yield f"{where} leads elsewhere in the copy"
        elif node.is_file and first.setdefault(node.inode, other.inode) != other.inode:
            yield f"{where} is no hard link in the copy"
    yield from (f"{text_of(name)} is only in the copy" for name in there)


def need(nodes: Iterable[Node], data_bytes: dict[str, int]) -> tuple[int, int]:
    """Bytes and inodes that a copy takes; pure.

    Parameters
    ----------
    data_bytes : dict of str to int
        Of files with holes, or compressed: how much of them is data.
    """
    size = inodes = 0
    seen = set()
    for node in nodes:
        if node.is_file and node.status.st_nlink > 1:
            if node.inode in seen:
                continue
            seen.add(node.inode)
        inodes += 1
        held = data_bytes.get(node.name, node.status.st_size) if node.is_file else _PAGE
        size += -(-held // _PAGE) * _PAGE
    return size, inodes


def leading_out(nodes: Iterable[Node], source: str, target: str) -> Iterator[Node]:
    """Relative links that would lead elsewhere from another place; pure."""
    for node in nodes:
        if node.is_link and not node.target.startswith("/"):
            above = os.path.dirname(node.name)  # noqa: PTH120 - text, perhaps no UTF-8
            before = os.path.normpath(os.path.join(source, above, node.target))  # noqa: PTH118
            after = os.path.normpath(os.path.join(target, above, node.target))  # noqa: PTH118
            inside = before == source or before.startswith(f"{source}/")
            if not inside and before != after:
                yield node
