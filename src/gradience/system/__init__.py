"""What the operating system can tell: mounts, quotas, memory limits.

Nothing here changes the disk. Every answer is what the system said when asked; what it cannot say
is absent.
"""

import sys
from os import PathLike
from pathlib import Path

from gradience.errors import UsageError
from gradience.system.base import System, existing_parent
from gradience.system.holders import Holder, Holders
from gradience.system.records import MemoryLimit, Mount, QuotaAnswer, QuotaLimit

__all__ = [
    "Holder",
    "Holders",
    "MemoryLimit",
    "Mount",
    "QuotaAnswer",
    "QuotaLimit",
    "current",
    "holders",
    "mount_of",
    "mounts",
    "quotas",
]


def current() -> System:
    """The system this process runs on.

    Raises
    ------
    UsageError
        If it is neither Linux nor macOS.
    """
    platform: str = sys.platform  # a plain str, or mypy takes the other systems for dead code
    if platform.startswith("linux"):
        from gradience.system.linux import Linux  # noqa: PLC0415 - only the one in use

        return Linux()
    if platform == "darwin":
        from gradience.system.macos import MacOS  # noqa: PLC0415 - only the one in use

        return MacOS()
    raise UsageError(
        f"gradience cannot look at the disks of {platform}",
        remedy="Use it on Linux, macOS, or in WSL.",
    )


def mounts() -> tuple[Mount, ...]:
    """The mounts that can hold files, with size and free space; the kernel's own trees left out.

    Raises
    ------
    StorageError
        If the system does not answer.
    """
    return current().mounts()


def holders() -> Holders:
    """The files that processes of this machine have open or mapped now."""
    return current().holders()


def mount_of(path: str | PathLike[str]) -> Mount:
    """The mount that holds a path, or would hold it if it existed; links are followed.

    Raises
    ------
    StorageError
        If neither the path nor a parent of it can be looked at.
    """
    return current().mount_of(Path(path))


def quotas(path: str | PathLike[str]) -> QuotaAnswer:
    """The quotas that apply to a path, and what could not be asked; empty where there are none.

    Tools of cluster file systems get some seconds to answer, and never fail the caller.

    Raises
    ------
    StorageError
        If neither the path nor a parent of it can be looked at.
    """
    from gradience.system.quota import quotas_of  # noqa: PLC0415 - ctypes, which mounts() spares

    place = existing_parent(Path(path))
    return quotas_of(place, current().mount_of(place))
