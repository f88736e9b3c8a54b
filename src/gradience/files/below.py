"""Changes below one directory, by relative names that no link can lead astray.

Every part of a name is opened relative to the directory above it and never through a symbolic link,
so whatever is swapped in under us, nothing outside is touched. Errors are the kernel's own OSError:
the caller acts on thousands of names and decides, by errno, what each refusal means.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 32
_DEEP = 64  # directories held open at once while a tree goes; deeper ones are moved up first
_BLOCK = 512
_TRIES = 3
_OPENAT2 = 437  # on every architecture
_NO_XDEV = 0x01  # RESOLVE_NO_XDEV

Seen = Callable[[bytes, os.stat_result], None]


@dataclass(slots=True, kw_only=True)
class Removed:
    """What went: names, and bytes of inodes that were seen to lose their last name."""

    names: int = 0
    bytes: int = 0


class Below:
    """A directory held open, and the names below it.

    Parameters
    ----------
    root : str
        Absolute; the root itself may be reached through links, nothing below it is.

    Raises
    ------
    OSError
        If it is no directory, or may not be opened.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self._open: dict[str, int] = {"": os.open(self.root, _DIR)}
        status = os.fstat(self._open[""])
        self.device = status.st_dev

    def __enter__(self) -> "Below":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back every descriptor."""
        while self._open:
            os.close(self._open.popitem()[1])

    def forget(self) -> None:
        """Close all but the root: a directory below it was moved."""
        root = self._open.pop("")
        self.close()
        self._open[""] = root

    def status(self, name: str) -> os.stat_result:
        """`lstat` of a name."""
        parent, last = self._parent(name)
        return os.stat(last, dir_fd=parent, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        """Whether something is there, a dangling link too."""
        try:
            self.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def link_target(self, name: str) -> str:
        """What a link says."""
        parent, last = self._parent(name)
        return os.readlink(last, dir_fd=parent)

    def read(self, name: str, limit: int = 1 << 20) -> bytes:
        """The first bytes of a regular file; a pipe in its place does not hang us."""
        parent, last = self._parent(name)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(last, flags, dir_fd=parent)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit)

    def open(self, name: str, *, directory: bool = False) -> int:
        """A descriptor to read a regular file or a directory with; its time of access stays."""
        parent, last = self._parent(name)
        flags = _DIR if directory else os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(PermissionError):  # only its owner, and root, may read so
            return os.open(last, flags | getattr(os, "O_NOATIME", 0), dir_fd=parent)
        return os.open(last, flags, dir_fd=parent)

    def entries(self, name: str) -> list[tuple[str, os.stat_result]]:
        """Names in a directory, with their `lstat`."""
        # Opened anew: btrfs lists what was there when a directory was opened (since Linux 6.5).
        descriptor = os.open(".", _DIR, dir_fd=self._opened(name))
        found = []
        try:
            with os.scandir(descriptor) as listed:
                for entry in listed:
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        finally:
            os.close(descriptor)
        return found

    def walk(self, name: str, seen: Seen) -> None:
        """Call `seen` with the name and `lstat` of everything below a directory, in no order.

        Raises
        ------
        OSError
            EXDEV if another file system is mounted below.
        """
        stack = [name]
        while stack:
            above = stack.pop()
            for child, status in self.entries(above):
                path = f"{above}/{child}"
                if status.st_dev != self.device:
                    raise OSError(errno.EXDEV, "another file system is mounted there", path)
                seen(os.fsencode(path), status)
                if stat.S_ISDIR(status.st_mode):
                    stack.append(path)

    def make_dirs(self, name: str) -> None:
        """Make a directory and those above it, down from the root."""
        if not name or name in self._open:
            return
        above, _, last = name.rpartition("/")
        if above:
            self.make_dirs(above)
        with contextlib.suppress(FileExistsError):
            os.mkdir(last, dir_fd=self._opened(above))
        self._opened(name)

    def move(self, old: str, new: str, other: "Below | None" = None) -> None:
        """Rename, also below another directory; refused with EEXIST where something is there."""
        self._rename(old, new, other or self, exchange=False)

    def exchange(self, one: str, second: str, other: "Below | None" = None) -> None:
        """Swap two names in one step, whatever they are; the second may be below another directory.

        Raises
        ------
        OSError
            EINVAL or ENOSYS where the file system or the kernel cannot.
        """
        self._rename(one, second, other or self, exchange=True)

    def symlink(self, target: str, name: str) -> None:
        """Make a link that says `target`; refused with EEXIST where something is there."""
        parent, last = self._parent(name)
        os.symlink(target, last, dir_fd=parent)

    def link(self, name: str, new: str) -> None:
        """Give a file a second name; refused with EEXIST where something is there."""
        with self._two(name, new, self) as (from_dir, old, to_dir, last):
            os.link(old, last, src_dir_fd=from_dir, dst_dir_fd=to_dir, follow_symlinks=False)

    def link_open(self, descriptor: int, new: str) -> None:
        """Give the very file that is open a name; refused with EEXIST where something is there."""
        parent, last = self._parent(new)
        os.link(f"/proc/self/fd/{descriptor}", last, dst_dir_fd=parent, follow_symlinks=True)

    def keep_link(self, name: str, status: os.stat_result) -> None:
        """Give a link the owner and the times of another."""
        parent, last = self._parent(name)
        own = os.stat(last, dir_fd=parent, follow_symlinks=False)
        if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
            os.chown(last, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
        times = status.st_atime_ns, status.st_mtime_ns
        os.utime(last, ns=times, dir_fd=parent, follow_symlinks=False)

    def sync_dir(self, name: str = "") -> None:
        """Make what was renamed in a directory last; some file systems refuse, and need not."""
        with contextlib.suppress(OSError):
            os.fsync(self._opened(name))

    def remove(self, name: str, removed: Removed) -> None:
        """Remove a file, a link, or a directory with all that is in it; count what went."""
        parent, last = self._parent(name)
        status = os.stat(last, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._moved(name)
            parent, last = self._parent(name)
            _Tree(parent, removed).remove(last)
        else:
            _unlink(parent, last, status, removed)

    def remove_empty(self, name: str) -> bool:
        """Remove a directory if nothing is in it; whether it went."""
        try:
            parent, last = self._parent(name)
            self._moved(name)
            os.rmdir(last, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        return True

    def write(self, name: str, data: bytes, *, mode: int = 0o666) -> None:
        """Write a new file and sync it; refused with EEXIST where there is one."""
        descriptor = self.create(name, mode=mode)
        try:
            with memoryview(data) as rest:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, rest[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def overwrite(self, name: str, data: bytes) -> None:
        """Put bytes at the beginning of a file that is there, and sync it: that needs no room."""
        parent, last = self._parent(name)
        descriptor = os.open(last, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.pwrite(descriptor, data, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def create(self, name: str, *, mode: int = 0o666) -> int:
        """A descriptor to write to a new file; refused with EEXIST where there is one."""
        parent, last = self._parent(name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(last, flags, mode, dir_fd=parent)

    @contextlib.contextmanager
    def lock(self, name: str, *, mode: int = 0o664, create: bool = True) -> Iterator[bool | None]:
        """Hold the flock of a lock file, as `filelock` does, without waiting.

        Yields
        ------
        bool or None
            Whether it is ours; None where there is no such file, or the file system has no locks.
        """
        for _ in range(_TRIES):
            descriptor = self._lock_file(name, mode, create=create)
            if descriptor is None:
                yield None
                return
            try:
                ours = _flock(descriptor)
                # Who released it may have removed the file: then this is no longer the lock.
                if not ours or os.fstat(descriptor).st_nlink:
                    yield ours
                    return
            finally:
                os.close(descriptor)
        yield False

    def _lock_file(self, name: str, mode: int, *, create: bool) -> int | None:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with contextlib.suppress(FileNotFoundError):
                parent, last = self._parent(name)
                try:
                    return os.open(last, flags, dir_fd=parent)
                except PermissionError:  # another user's in a shared cache: flock needs no more
                    return os.open(last, flags & ~os.O_RDWR | os.O_RDONLY, dir_fd=parent)
            if not create:
                return None
            self.make_dirs(name.rpartition("/")[0])
            parent, last = self._parent(name)
            return os.open(last, flags | os.O_CREAT, mode, dir_fd=parent)
        except OSError:
            return None  # none there, a full or read-only disk, another user's

    def _rename(self, one: str, second: str, other: "Below", *, exchange: bool) -> None:
        with self._two(one, second, other) as (from_dir, old, to_dir, new):
            _rename(from_dir, old, to_dir, new, exchange=exchange)
        self._moved(one)
        other._moved(second)

    @contextlib.contextmanager
    def _two(self, one: str, second: str, other: "Below") -> Iterator[tuple[int, str, int, str]]:
        """Directory and last part of two names."""
        first, first_name = self._parent(one)
        held = os.dup(first)  # opening the second may close what was opened for the first
        try:
            yield held, first_name, *other._parent(second)
        finally:
            os.close(held)

    def _parent(self, name: str) -> tuple[int, str]:
        above, _, last = name.rpartition("/")
        if last in ("", ".", "..") or "\0" in name:
            raise OSError(errno.EINVAL, "no name below a directory", name)
        return self._opened(above), last

    def _opened(self, name: str) -> int:
        """A descriptor of a directory, opened part by part."""
        known = self._open.pop(name, None)
        if known is not None:
            self._open[name] = known  # the last one used is the last one closed
            return known
        above, _, last = name.rpartition("/")
        if last in ("", ".", ".."):
            raise OSError(errno.EINVAL, "no name below a directory", name)
        parent = self._opened(above)
        if len(self._open) > _KEPT_OPEN:
            oldest = next(key for key in self._open if key not in ("", above))
            os.close(self._open.pop(oldest))
        descriptor = _open_dir(last, parent)
        self._open[name] = descriptor
        return descriptor

    def _moved(self, name: str) -> None:
        """Descriptors at or below a name lead elsewhere now."""
        gone = [key for key in self._open if key == name or key.startswith(f"{name}/")]
        for key in gone:
            os.close(self._open.pop(key))


def _flock(descriptor: int) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


class _Tree:
    """Removes a directory tree that is ours, with few descriptors however deep it is."""

    def __init__(self, top: int, removed: Removed) -> None:
        self.top = top
        self.removed = removed
        self.lifted = 0

    def remove(self, name: str) -> None:
        todo = [name]
        while todo:
            todo += self._one(self.top, todo.pop(), 0)

    def _one(self, parent: int, name: str, depth: int) -> list[str]:
        """Remove one tree; return the deep parts of it that were moved up instead."""
        lifted: list[str] = []
        descriptor = _open_dir(name, parent)
        try:
            own = os.fstat(descriptor)
            for child, status in _children(descriptor):
                if not stat.S_ISDIR(status.st_mode):
                    _unlink(descriptor, child, status, self.removed)
                elif depth < _DEEP:
                    lifted += self._one(descriptor, child, depth + 1)
                else:
                    self.lifted += 1
                    up = f".{name}.{self.lifted}"[-200:]
                    _rename(descriptor, child, self.top, up, exchange=False)
                    lifted.append(up)
            os.rmdir(name, dir_fd=parent)
        finally:
            os.close(descriptor)
        self.removed.names += 1
        self.removed.bytes += own.st_blocks * _BLOCK
        return lifted


def _open_dir(name: str, parent: int) -> int:
    """Open a directory in a directory; refused with EXDEV where something is mounted there.

    A bind mount of the same file system has the same device number: only openat2(2) tells it.
    """
    call = _openat2()
    if call is not None:
        how = (ctypes.c_uint64 * 3)(_DIR, 0, _NO_XDEV)
        descriptor = call(_OPENAT2, parent, os.fsencode(name), ctypes.byref(how), 24)
        if descriptor >= 0:
            return int(descriptor)
        number = ctypes.get_errno()
        # Older kernels have no such call, and older sandboxes say EPERM to what they do not know.
        if number not in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):
            mounted = "another file system is mounted there"
            raise OSError(number, mounted if number == errno.EXDEV else os.strerror(number), name)
    return os.open(name, _DIR, dir_fd=parent)


@functools.cache
def _openat2() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    call: Any = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    found: Callable[..., int] = call
    return found


def _children(descriptor: int) -> list[tuple[str, os.stat_result]]:
    with os.scandir(descriptor) as listed:
        return [(entry.name, entry.stat(follow_symlinks=False)) for entry in listed]


def _unlink(parent: int, name: str, status: os.stat_result, removed: Removed) -> None:
    """Remove a name, and see afterwards whether its inode has another."""
    if status.st_blocks and stat.S_ISREG(status.st_mode) and _LOOK & getattr(os, "O_PATH", 0):
        descriptor = os.open(name, _LOOK, dir_fd=parent)
        try:
            os.unlink(name, dir_fd=parent)
            gone, blocks = _after(descriptor, status)
        finally:
            os.close(descriptor)
    else:
        os.unlink(name, dir_fd=parent)
        gone, blocks = status.st_nlink == 1, status.st_blocks
    removed.names += 1
    if gone:
        removed.bytes += blocks * _BLOCK


def _after(descriptor: int, status: os.stat_result) -> tuple[bool, int]:
    """Whether an inode is gone, and its blocks, once a name of it went."""
    try:
        after = os.fstat(descriptor)
    except OSError:  # FUSE and NFS know no file without a name
        return status.st_nlink == 1, status.st_blocks
    return after.st_nlink == 0, after.st_blocks


def _rename(from_dir: int, old: str, to_dir: int, new: str, *, exchange: bool) -> None:
    """renameat2(2), or renameatx_np(2) on macOS: never over something that is there."""
    call = _no_replace()
    flag = 2 if exchange else (4 if sys.platform == "darwin" else 1)
    if call is not None:
        if call(from_dir, os.fsencode(old), to_dir, os.fsencode(new), flag) == 0:
            return
        number = ctypes.get_errno()
        if exchange or number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(number, os.strerror(number), old, None, new)
    elif exchange:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), old, None, new)
    # Some network and FUSE file systems have no such flag: look, then rename.
    with contextlib.suppress(FileNotFoundError):
        os.stat(new, dir_fd=to_dir, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), old, None, new)
    os.rename(old, new, src_dir_fd=from_dir, dst_dir_fd=to_dir)


@functools.cache
def _no_replace() -> Callable[..., int] | None:
    library: Any = ctypes.CDLL(None, use_errno=True)
    name = "renameatx_np" if sys.platform == "darwin" else "renameat2"
    call = getattr(library, name, None)
    if call is None:
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    found: Callable[..., int] = call
    return found
