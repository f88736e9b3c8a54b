"""The lock files that this process has open: no forked child holds what would not end with it."""

import contextlib
import fcntl
import os

_open: set[int] = set()


def add(descriptor: int) -> None:
    """Keep a lock file in mind, from before it is locked."""
    _open.add(descriptor)


def holds(descriptor: int) -> bool:
    """Whether it is still open here: not in a child that was forked meanwhile."""
    return descriptor in _open


def flock(descriptor: int) -> bool | None:
    """Whether an exclusive lock of a file is ours, without waiting; None where flock is refused."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def let_go(descriptor: int) -> None:
    """Close a lock file, once; given up first, for a child may have it open too."""
    if descriptor in _open:
        _open.remove(descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _let_go_of_all() -> None:
    """In a forked child, which must not hold what would not end with its parent."""
    while _open:
        os.close(_open.pop())


os.register_at_fork(after_in_child=_let_go_of_all)
