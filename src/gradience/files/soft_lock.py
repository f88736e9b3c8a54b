"""Locks by the mere existence of a file, for mounts on which flock is refused.

The protocol is that of `filelock.SoftFileLock`, which the Hub's client falls back to there: who can
make the file has the lock, writes into it who it is, and removes it at the end. What a process left
that is gone for certain may be taken over; of another host's or container's nobody can tell.
"""

import os
from typing import NamedTuple

from gradience.system import processes


class Holder(NamedTuple):
    """Who a lock file names.

    Attributes
    ----------
    pid : int
    host : str
        With the namespace of process numbers, as `system.processes.here` has it.
    start : int or None
        When it began, as `system.processes.start_of` has it; None in files of old releases.
    """

    pid: int
    host: str
    start: int | None = None

    @property
    def runs(self) -> bool | None:
        """Whether it still does; None where nobody here can tell."""
        return processes.runs(*self)

    @property
    def words(self) -> str:
        """What to tell the user."""
        return f"process {self.pid} of {self.host.partition('?')[0]}"


def marker() -> bytes:
    """What the holder of a lock writes into it, as `filelock` 4 does.

    Of older releases some read two lines alone: to them a third makes a lock that never is stale.
    """
    start = processes.start_of(os.getpid())
    lines = [str(os.getpid()), processes.here(), *([] if start is None else [str(start)])]
    return "".join(f"{line}\n" for line in lines).encode()


def holder(data: bytes) -> Holder | None:
    """Who a lock file names; None where it names nobody.

    Examples
    --------
    >>> holder(b"12\\nnode7\\n")
    Holder(pid=12, host='node7', start=None)
    >>> holder(b""), holder(b"12\\nno")
    (None, None)
    """
    lines = data.decode("utf-8", "replace").splitlines()
    if not data.endswith(b"\n") or len(lines) not in (2, 3):
        return None
    numbers = [lines[0], *lines[2:]]
    if not all(number.isdecimal() for number in numbers):
        return None
    return Holder(int(lines[0]), lines[1], int(lines[2]) if len(lines) == 3 else None)
