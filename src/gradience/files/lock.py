"""One lock for all of Gradience: a file, by flock, or by its existence where flock is refused.

It ends with its process, also by kill -9, and a forked child does not hold it.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from gradience.files import make_dir, soft_lock
from gradience.files.below import Below

_POLL_SECONDS = 0.05
_TRIES = 5


class Lock:
    """An exclusive lock, held from `acquire` to `release`.

    Parameters
    ----------
    path : Path
        Its file; the directory is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: contextlib.ExitStack | None = None
        self._remove = False

    def acquire(self, *, seconds: float = 0.0) -> bool | None:
        """Whether it is ours, after waiting that long for whoever has it.

        Returns
        -------
        bool or None
            None where that cannot be told: no file can be made there, or the mount has no flock and
            the file that is there is of nobody that could be asked.

        Raises
        ------
        OSError, StorageError
            If the directory cannot be made or opened.
        """
        until = time.monotonic() + seconds
        while True:
            ours = self._try()
            if ours:
                return True
            left = until - time.monotonic()
            if ours is None or left <= 0:
                named = self.holder()
                return None if named is not None and named.runs is None else ours
            time.sleep(min(_POLL_SECONDS, left))

    def _try(self) -> bool | None:
        for _ in range(_TRIES):
            make_dir(self.path.parent)
            with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
                below = stack.enter_context(Below(os.fspath(self.path.parent)))
                ours = stack.enter_context(
                    below.lock(self.path.name, mode=0o666, spent=lambda: self._remove)
                )
                if ours:
                    self._held = stack.pop_all()
                if ours is not None or below.is_there():
                    return ours
            # Who had it took the directory away with its file.
        return False

    def release(self, *, remove: bool = False) -> None:
        """Let it go, with its file if that is asked; nothing happens where it is not held."""
        held, self._held = self._held, None
        if held is not None:
            self._remove = remove
            held.close()

    def why_unknown(self) -> str:
        """Why `acquire` could not tell: a sentence's end."""
        named = self.holder()
        if named is not None:
            return f"it names {named.words}, which cannot be seen from here"
        try:
            with self.path.open("ab"):
                return "it names nobody, and this mount has no flock"
        except OSError as error:
            return error.strerror or str(error)

    def holder(self) -> soft_lock.Holder | None:
        """Who the file names: of a lock by flock nobody."""
        with contextlib.suppress(OSError):
            return soft_lock.holder(self.path.read_bytes()[:1024])
        return None


def is_held(path: str) -> bool | None:
    """Whether some process holds a lock file now; None if that cannot be told.

    A shared lock is asked for and given back at once: it is refused while another holds the
    exclusive lock. Where the mount has no flock, the process that the file names tells. No answer
    is proof on network mounts, where other hosts' locks may be invisible.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        with contextlib.suppress(OSError):
            found = soft_lock.holder(os.pread(descriptor, 1024, 0))
            return None if found is None else found.runs is not False
        return None
    else:
        return False
    finally:
        os.close(descriptor)
