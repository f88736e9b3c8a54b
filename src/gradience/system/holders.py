"""Which processes have which files open or mapped.

A file that was mapped and closed again (every safetensors and Arrow file is) shows in a process's
maps alone, never among its descriptors. A file in the maps is told by inode and device; where a
file system hides its device number there (btrfs, overlay), by inode and name.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that uses a file.

    Attributes
    ----------
    pid : int
    name : str
        Of the process, as the kernel has it.
    how : str
        "open" or "mapped".
    """

    pid: int
    name: str
    how: str

    @property
    def sentence(self) -> str:
        """What to tell the user."""
        return f"process {self.pid} ({self.name}) has a file of it {self.how}"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One regular file that a process uses, as the process table shows it."""

    device: int
    inode: int
    name: str
    holder: Holder


@dataclass(slots=True)
class Holders:
    """The files in use on this machine at one moment.

    Attributes
    ----------
    unseen : int
        Processes that this user may not look at. Processes of other machines, and on some systems
        of other containers, are never seen.
    """

    unseen: int = 0
    _by_inode: dict[int, list[Held]] = field(default_factory=dict)

    def add(self, held: Iterable[Held]) -> None:
        """Note files in use."""
        for one in held:
            self._by_inode.setdefault(one.inode, []).append(one)

    def all(self) -> Iterator[Held]:
        """Every file in use."""
        for held in self._by_inode.values():
            yield from held

    def of(self, status: os.stat_result, path: str) -> Holder | None:
        """Who uses a file, by its `lstat` and any path to it; None if nobody is known to."""
        if not stat.S_ISREG(status.st_mode):
            return None
        return self.of_inode(status.st_dev, status.st_ino, path)

    def of_inode(self, device: int, inode: int, path: str) -> Holder | None:
        """Who uses a regular file, by its identity."""
        for held in self._by_inode.get(inode, ()):
            # Only now: among tens of thousands of files few are in use.
            name = os.path.basename(path)  # noqa: PTH119 - names may be no UTF-8
            if held.device == device or held.name == name:
                return held.holder
        return None
