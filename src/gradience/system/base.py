"""What every operating system must be able to say, and the parts that they share."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread
from typing import Protocol, TypeVar

from gradience.errors import StorageError
from gradience.system.holders import Holders
from gradience.system.records import Mount

T = TypeVar("T")

STATVFS_SECONDS = 2.0  # a dead NFS server blocks statvfs for minutes, or for ever
_PATH_SECONDS = 10.0  # the first look at an automount waits for its server


class System(Protocol):
    """One operating system: its mounts, and the mount that holds a path."""

    def mounts(self) -> tuple[Mount, ...]:
        """The mounts that can hold files, hidden ones left out, in the order they were mounted."""
        ...

    def mount_of(self, path: Path) -> Mount:
        """The mount that holds a path, or would hold it if it existed."""
        ...

    def holders(self) -> Holders:
        """The files that processes of this machine have open or mapped now."""
        ...


def existing_parent(path: Path) -> Path:
    """The path itself, absolute and without links, or its nearest parent that exists.

    Raises
    ------
    StorageError
        If a directory on the way may not be entered, so that nobody knows what exists, or its
        file server does not answer.
    """
    found = within(_PATH_SECONDS, lambda: _nearest(path))
    if found is None:
        raise StorageError(
            f"{path} did not answer in {_PATH_SECONDS:g} s",
            remedy="Its file server seems to be down: see `mount`, and name another path.",
        )
    if isinstance(found, Path):
        return found
    raise StorageError(
        f"{path} cannot be looked at: {found}",
        remedy="Name a path whose directories this user may enter.",
    ) from found


def _nearest(path: Path) -> Path | OSError | ValueError:
    """The error is returned, not raised: it crosses a thread."""
    try:
        here = Path(os.path.realpath(path.absolute()))
        while not _exists(here):
            here = here.parent
    except (OSError, ValueError) as error:
        return error
    return here


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def pick(mounts: Iterable[Mount], path: Path, device_number: int | None) -> Mount | None:
    """The mount of a path by longest prefix and `st_dev`.

    The longest prefix wins among mounts of the path's own device; a prefix on another device is
    right only where file systems hide their device number (btrfs subvolumes, overlay), and a
    mount of the device that is no prefix where firmlinks lead elsewhere (macOS). A later mount on
    the same path hides the earlier one.
    """
    by_length = sorted(mounts, key=lambda m: len(m.path.parts))  # stable: later mounts stay later
    prefixes = [m for m in by_length if path.is_relative_to(m.path)]
    same = [m for m in prefixes if m.device_number == device_number]
    if same:
        longest = prefixes[-1]
        # A subvolume of btrfs has a device number of its own; its mount is still the longest.
        return longest if longest.fs_type in ("btrfs", "overlay") else same[-1]
    if not prefixes or prefixes[-1].path == Path("/"):
        elsewhere = [
            m for m in by_length if device_number is not None and m.device_number == device_number
        ]
        return elsewhere[0] if elsewhere else (prefixes[-1] if prefixes else None)
    return prefixes[-1]


def within(seconds: float, ask: Callable[[], T]) -> T | None:
    """The answer of `ask`, or None if it fails with OSError or takes longer than `seconds`.

    The thread that hangs is left behind: no signal wakes a call into a dead file server.
    """
    answer: list[T] = []

    def run() -> None:
        try:
            answer.append(ask())
        except OSError:
            return

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0] if answer else None


def space_of(path: Path, mount: Mount) -> os.statvfs_result | None:
    """`statvfs`, or None where the file system does not answer."""
    if mount.network or mount.fuse:
        return within(STATVFS_SECONDS, lambda: os.statvfs(path))
    try:
        return os.statvfs(path)
    except OSError:
        return None


def free_inodes(space: os.statvfs_result) -> int | None:
    """Inodes that can still be made; None where the file system does not count them."""
    return space.f_favail if space.f_files > 0 else None
