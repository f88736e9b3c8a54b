"""Locks by the mere existence of a file, for mounts on which flock is refused.

The protocol is that of `filelock.SoftFileLock`, which the Hub's client falls back to there: who can
make the file has the lock, writes its process and host into it, and removes it at the end. A file
that a dead process of this host left may be taken over; of another host's nobody can tell.
"""

import os
import socket


def marker() -> bytes:
    """What the holder of a lock writes into it: the format that every release of filelock reads."""
    return f"{os.getpid()}\n{socket.gethostname()}\n".encode()


def holder(data: bytes) -> tuple[int, str] | None:
    """Process and host that a lock file names; None where it names none.

    Examples
    --------
    >>> holder(b"12\\nnode7\\n"), holder(b""), holder(b"12\\nno")
    ((12, 'node7'), None, None)
    """
    lines = data.decode("utf-8", "replace").splitlines()
    if not data.endswith(b"\n") or len(lines) not in (2, 3) or not lines[0].isdecimal():
        return None
    return int(lines[0]), lines[1]


def is_dead(pid: int, host: str) -> bool:
    """Whether a process of this host is gone; no for another host's, which cannot be seen.

    Examples
    --------
    >>> is_dead(os.getpid(), socket.gethostname()), is_dead(1, "another-host")
    (False, False)
    """
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
