"""The only functions that change the disk: whole files here, names below a directory in `below`.

A file is written beside its target under a temporary name, synced, and renamed over it: a reader
sees the old content or the new, never a part, and a process killed at any point loses nothing.
`os.replace` is atomic only within one file system, which is why the temporary file sits there.
"""

import contextlib
import errno
import functools
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gradience.errors import StorageError
from gradience.system.allocate import fallocate, reserving_kind

_CHUNK_BYTES = 2**20
_ELSEWHERE = "name another place; for Gradience's own caches set GRADIENCE_CACHE_DIR."
_TRIES = 100  # each is another process that made or removed a directory just in between


def make_dir(path: Path, *, mode: int = 0o777) -> None:
    """Create a directory and its parents; `mode`, under the umask, is that of the last one.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    made = functools.partial(path.mkdir, mode=mode, parents=True, exist_ok=True)
    try:
        for _ in range(_TRIES):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                return made()
        made()
    except FileExistsError as error:
        there = Path(error.filename)
        what = "a link to nothing" if there.is_symlink() else "no directory"
        raise StorageError(
            f"{path} cannot be created: {there} is {what}",
            remedy=f"Mount the disk that it leads to, move it aside, or {_ELSEWHERE}",
        ) from error
    except OSError as error:
        raise _refused(f"{path} cannot be created", error) from error


def remove(path: Path) -> None:
    """Remove one file or link; nothing happens where there is none.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    try:
        path.unlink(missing_ok=True)
        _sync_dir(path.parent)
    except OSError as error:
        raise _refused(f"{path} cannot be removed", error) from error


def remove_empty(directory: Path) -> None:
    """Remove a directory if nothing is in it; one that is used, or is not there, is no error."""
    with contextlib.suppress(OSError):
        directory.rmdir()


def remove_tree(path: Path) -> None:
    """Remove a directory with all below it; nothing happens where there is none.

    It is renamed first: a process killed half-way leaves no directory that looks whole and is not.
    What it leaves, under a name with a dot in front and `.tmp` behind, `remove_leftovers` finds.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    from shutil import rmtree  # noqa: PLC0415 - 2 ms that whoever only writes need not wait

    if path.is_symlink():  # of another place, whose owner may want it
        raise StorageError(
            f"{path} is a link to a directory, and was left alone",
            remedy="Remove the link yourself, and what it leads to.",
        )
    doomed = path.parent / f".{path.name}.{os.urandom(4).hex()}.tmp"
    try:
        path.rename(doomed)
        rmtree(doomed)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(f"{path} cannot be removed", error) from error


def remove_leftovers(directory: Path, name: str = "*") -> None:
    """Remove what a killed `replace` or `remove_tree` left directly below a directory.

    Parameters
    ----------
    directory : Path
    name : str
        A shell pattern: of which names. In a directory that is not ours alone, other programs have
        temporary files too.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    for path in directory.glob(f".{name}.{'[0-9a-f]' * 8}.tmp"):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            remove(path)


def appending(path: Path) -> BinaryIO:
    """Open a log to write at its end; parents are created, and the caller closes it.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    make_dir(path.parent)
    try:
        return path.open("ab")
    except OSError as error:
        raise _refused(f"{path} cannot be opened", error) from error


def hold(path: Path) -> int | None:
    """An exclusive lock as a descriptor that child processes can inherit; None where it is held.

    The lock lasts for as long as any process has the descriptor open, so it says whether one of
    a whole tree of processes is alive. The file itself stays.

    Raises
    ------
    StorageError
        If the file cannot be made.
    """
    import fcntl  # noqa: PLC0415 - POSIX, and needed here alone

    make_dir(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _refused(f"{path} cannot be made", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        pass  # no locks on this mount: the leash of the trial remains
    return descriptor


def replace(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write `data` to `path` atomically and durably; parents are created.

    `mode` gives the new file these permissions, such as those of the file it replaces; without it
    the caller's umask decides.

    Raises
    ------
    StorageError
        If the disk is full, over quota or read-only. The old content, if any, is untouched and no
        temporary file is left. Also if a device, a pipe or a directory has that name: root would
        put a file in the place of /dev/null.
    """
    make_dir(path.parent)
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - never raise
        raise StorageError(f"{path} is no regular file", remedy="Name a file, or one to be made.")
    temporary = path.parent / f".{path.name}.{os.urandom(4).hex()}.tmp"
    try:
        # 0o666 under the caller's umask: mkstemp's 0600 would shut out a shared cache's group.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_dir(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _refused(f"{path} cannot be written", error) from error


def append_line(path: Path, line: bytes) -> None:
    """Add one line to a file in one write; the file and its directory are made where missing.

    What is there is never cut. If it ends in half a line, as a crash or a full disk leaves it, the
    new line begins on a line of its own. Durable only after `sync`.

    Raises
    ------
    StorageError
        If the file system refuses; at most a part of this line is then there.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, flags, 0o666)
        except FileNotFoundError:
            make_dir(path.parent)
            descriptor = os.open(path, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = (b"\n" if torn else b"") + line + b"\n"
            if os.write(descriptor, data) < len(data):  # half a write is what a full disk takes
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refused(f"{path} cannot be written", error) from error


def sync(path: Path) -> None:
    """Make one file durable; nothing happens where there is none.

    Raises
    ------
    StorageError
        If the file system refuses what it took before.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(f"{path} cannot be made durable", error) from error


@contextlib.contextmanager
def locked(path: Path, *, timeout: float = 60.0) -> Iterator[None]:
    """Hold an exclusive lock on `<path>.lock` for the length of the block.

    Where flock is refused, the file's existence is the lock. On network mounts where flock is taken
    and does nothing, `replace` still keeps every file whole; only the update of the slower writer
    may be lost.

    Raises
    ------
    StorageError
        If the lock cannot be had in `timeout` seconds, or its file cannot be made.
    """
    from gradience.files.lock import Lock  # noqa: PLC0415 - 3 ms that `--help` need not pay

    lock = Lock(path.with_name(f"{path.name}.lock"))
    try:
        ours = lock.acquire(seconds=timeout)
    except OSError as error:
        raise _refused(f"{lock.path} cannot be made", error) from error
    if ours is None:
        raise StorageError(
            f"nobody can tell whether {lock.path} is held: {lock.why_unknown()}",
            remedy="Make room or give permissions there; if no other process uses it, remove it.",
        )
    if not ours:
        raise StorageError(
            f"{lock.path} is held by another process for more than {timeout:g} s",
            remedy="Wait for the other run to end: its lock goes with its process.",
        )
    try:
        yield
    finally:
        lock.release()


def move(source: Path, target: Path) -> None:
    """Rename a file or directory within one file system, durably; the target must not exist.

    Raises
    ------
    StorageError
        If the target is there already, or the file system refuses.
    """
    make_dir(target.parent)
    try:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        source.rename(target)
        _sync_dir(target.parent)
        _sync_dir(source.parent)
    except OSError as error:
        raise _refused(f"{source} cannot be moved to {target}", error) from error


def sync_tree(path: Path) -> None:
    """Make every file below a directory durable; a full disk that was hidden so far speaks here.

    Raises
    ------
    OSError
        As the file system says it.
    """
    for directory, _, names in os.walk(path):
        for name in names:
            place = os.path.join(directory, name)  # noqa: PTH118 - strings
            if stat.S_ISREG(os.lstat(place).st_mode):  # not a link, which may lead nowhere
                with open(place, "rb") as file:  # noqa: PTH123 - as above
                    os.fsync(file.fileno())
        _sync_dir(Path(directory))


def reserve(path: Path, nbytes: int) -> None:
    """Make a file that holds `nbytes` of the disk: reserved where that is proof, else written.

    Written bytes are random ones: a file system that compresses or leaves out zeros would hold
    nothing. It is given back with `remove`, never by truncating: btrfs at its quota refuses that.

    Raises
    ------
    OSError
        As the file system says it; nothing is left then.
    """
    make_dir(path.parent)
    proven = reserving_kind(path.parent) is not None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            code = fallocate(descriptor, nbytes) if proven and nbytes else 0
            if code:
                raise OSError(code, os.strerror(code), os.fspath(path))
            if not proven:
                _write_random(file, nbytes)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _write_random(file: io.FileIO, nbytes: int) -> None:
    left = nbytes
    while left > 0:
        chunk = os.urandom(min(left, _CHUNK_BYTES))
        if file.write(chunk) < len(chunk):  # half a write is what a full disk takes
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(chunk)
    os.fsync(file.fileno())  # network file systems tell of their quota here


def _sync_dir(directory: Path) -> None:
    """Make a rename durable; some file systems refuse to sync a directory, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refused(what: str, error: OSError) -> StorageError:
    return StorageError(
        f"{what}: {error.strerror or error}",
        remedy=f"Free space or permissions there, or {_ELSEWHERE}",
    )
