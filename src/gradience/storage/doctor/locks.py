"""Does a lock on this mount keep a second process out? Asked by trying.

On some network mounts flock succeeds for everybody, or fails: no table of file systems tells,
because mount options decide.
"""

import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

from gradience.storage.doctor.facts import LockTest

_SECOND = """
import fcntl, sys
with open(sys.argv[1], "rb+") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(7)
"""
_KEPT_OUT = 7
_SECONDS = 20.0


def lock_test(directory: Path) -> LockTest | None:
    """Lock a temporary file there, and let a second process try; the file is removed.

    Returns
    -------
    LockTest or None
        None where no file can be made, which is another finding.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".gradience-lock-") as file:
            return _try(directory, file.name, file.fileno())
    except OSError:
        return None


def _try(directory: Path, name: str, descriptor: int) -> LockTest:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        detail = f"flock is refused ({error.strerror})"
        return LockTest(path=directory, excluded=False, detail=detail)
    try:
        second = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SECOND, name],
            timeout=_SECONDS,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return LockTest(path=directory, excluded=False, detail="flock hangs in a second process")
    if second.returncode == _KEPT_OUT:
        return LockTest(path=directory, excluded=True, detail="a second process was kept out")
    if second.returncode == 0:
        detail = "two processes held the same flock at once"
        return LockTest(path=directory, excluded=False, detail=detail)
    detail = f"a second process could not try: {second.stderr.decode(errors='replace')[-200:]}"
    return LockTest(path=directory, excluded=False, detail=detail)


def idle_lock_files(hub: Path, *, older_than: float) -> int:
    """Lock files of a hub cache that nobody has touched since, and nobody holds.

    The hub never removes them. They do no harm where flock works; each takes an inode, and where a
    lock is a file's mere existence (mounts without flock) one of a dead process blocks for ever.

    Parameters
    ----------
    hub : Path
    older_than : float
        Seconds since 1970.
    """
    count = 0
    for path in (hub / ".locks").glob("*/*.lock"):
        try:
            if path.stat().st_mtime < older_than and not _held(path):
                count += 1
        except OSError:
            continue
    return count


def _held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
