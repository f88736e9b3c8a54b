"""Changes below one directory, by relative names that no link can lead astray.

Every part of a name is opened relative to the directory above it and never through a symbolic link,
so whatever is swapped in under us, nothing outside is touched. Errors are the kernel's own OSError:
the caller acts on thousands of names and decides, by errno, what each refusal means.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from gradience.files import at, held, soft_lock
from gradience.files.at import Removed

__all__ = ["NO_EXCHANGE", "Below", "Removed"]

NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What a kernel, FUSE or NFS says where two names cannot be swapped in one step."""
_KEPT_OPEN = 32
_TRIES = 100  # each is another process that came and went just in between
_MARKER = 1024  # bytes; more than any marker of a lock file has

Seen = Callable[[bytes, os.stat_result], None]


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
        self._open: dict[str, int] = {"": os.open(self.root, at.DIR)}
        self._held: set[str] = set()
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

    def mount_id(self) -> str:
        """Which mount it lies on: two mounts of one file system differ; "" where none is told."""
        with contextlib.suppress(OSError):
            told = Path(f"/proc/self/fdinfo/{self._open['']}").read_text(encoding="ascii")
            return next((line for line in told.splitlines() if line.startswith("mnt_id:")), "")
        return ""

    def is_there(self) -> bool:
        """Whether the root's name still leads to the directory that is open."""
        try:
            return os.path.samestat(Path(self.root).stat(), os.fstat(self._open[""]))
        except OSError:
            return False

    def forget(self) -> None:
        """Close all but the root: a directory below it was moved."""
        root = self._open.pop("")
        self.close()
        self._open[""] = root

    def hold(self, name: str) -> os.stat_result:
        """Keep the directory of that name open, whoever renames what above it; its `fstat`.

        Names below it are looked up in that very directory, until `let_go`, or it is removed.
        """
        descriptor = self._opened(name)
        self._held.add(name)
        return os.fstat(descriptor)

    def let_go(self, name: str) -> None:
        """Look the name of a directory that was held up anew, the next time."""
        self._moved(name)

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
        flags = at.DIR if directory else os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(PermissionError):  # only its owner, and root, may read so
            return os.open(last, flags | getattr(os, "O_NOATIME", 0), dir_fd=parent)
        return os.open(last, flags, dir_fd=parent)

    def entries(self, name: str) -> list[tuple[str, os.stat_result]]:
        """Names in a directory, with their `lstat`."""
        # Opened anew: btrfs lists what was there when a directory was opened (since Linux 6.5).
        descriptor = os.open(".", at.DIR, dir_fd=self._opened(name))
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

    def make_dir(self, name: str, mode: int) -> None:
        """Make a directory in one that is there; refused with EEXIST where something is there."""
        parent, last = self._parent(name)
        os.mkdir(last, mode, dir_fd=parent)

    def make_dirs(self, name: str) -> None:
        """Make a directory and those above it, down from the root."""
        for place, above, last in self._way(name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(last, dir_fd=self._opened(above))
                made = self._opened(place)
                if not self.entries(place):  # the new one, whatever was put in its place
                    _give(made, self._opened(above))

    def move(self, old: str, new: str, other: "Below | None" = None) -> None:
        """Rename, also below another directory; refused with EEXIST where something is there."""
        self._rename(old, new, other or self, exchange=False)

    def replace(self, old: str, new: str) -> None:
        """Rename over a file or a link that is there, in one step.

        Two names of one file both stay, as rename(2) has it.
        """
        with self._two(old, new, self) as (from_dir, name, to_dir, last):
            os.rename(name, last, src_dir_fd=from_dir, dst_dir_fd=to_dir)

    def exchange(self, one: str, second: str, other: "Below | None" = None) -> None:
        """Swap two names in one step, whatever they are; the second may be below another directory.

        Raises
        ------
        OSError
            One of `NO_EXCHANGE` where the file system or the kernel cannot.
        """
        self._rename(one, second, other or self, exchange=True)

    def symlink(self, target: str, name: str) -> None:
        """Make a link that says `target`; refused with EEXIST where something is there."""
        parent, last = self._parent(name)
        os.symlink(target, last, dir_fd=parent)

    def link(self, name: str, new: str, other: "Below | None" = None) -> None:
        """Give a file a second name, also below another directory; refused with EEXIST."""
        with self._two(name, new, other or self) as (from_dir, old, to_dir, last):
            os.link(old, last, src_dir_fd=from_dir, dst_dir_fd=to_dir, follow_symlinks=False)

    def link_open(self, descriptor: int, new: str) -> None:
        """Give the very file that is open a name; refused with EEXIST where something is there."""
        parent, last = self._parent(new)
        os.link(f"/proc/self/fd/{descriptor}", last, dst_dir_fd=parent, follow_symlinks=True)

    def give(self, name: str, user: int, group: int) -> None:
        """Make a name, a link itself, another user's and group's."""
        parent, last = self._parent(name)
        os.chown(last, user, group, dir_fd=parent, follow_symlinks=False)

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
            at.Tree(removed).remove(parent, last)
        else:
            at.unlink(parent, last, status, removed)

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

    def append(self, name: str, data: bytes) -> None:
        """Put bytes at the end of a file that all may write to, and sync it; it is made if absent.

        Raises
        ------
        OSError
            ENOSPC if they do not fit; then none of them is there.
        """
        parent, last = self._parent(name)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(last, flags, 0o666, dir_fd=parent)
        try:
            before = os.fstat(descriptor).st_size
            if not before:
                _give(descriptor, parent)
            with contextlib.suppress(OSError):  # another user's
                os.fchmod(descriptor, 0o666)
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
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
    def lock(
        self, name: str, *, mode: int = 0o664, spent: Callable[[], bool] | None = None
    ) -> Iterator[bool | None]:
        """Hold a lock file as `filelock` does, without waiting: by flock, else by its existence.

        Parameters
        ----------
        spent : callable, optional
            Asked at the end, while the lock is held: whether its file is to be removed too.

        Yields
        ------
        bool or None
            Whether it is ours; None where that cannot be told: no file can be made there, or one
            that names no holder is there and the mount has no flock.
        """
        for _ in range(_TRIES):
            descriptor, made = self._lock_file(name, mode)
            if descriptor is None:
                yield None
                return
            held.add(descriptor)
            try:
                ours = held.flock(descriptor)
                soft = ours is None
                if soft and not made and self._removed_stale(name, descriptor):
                    continue
                if soft:
                    ours = self._by_existence(name, descriptor, made=made)
                # Who released it may have removed the file: then this is no longer the lock.
                if ours and not self._is_at(name, descriptor):
                    continue
                try:
                    yield ours
                finally:
                    if held.holds(descriptor):  # not in a child that was forked meanwhile
                        over = bool(ours and spent is not None and spent())
                        if ours and (soft or over):
                            self.unlink(name)
                return
            finally:
                held.let_go(descriptor)
        yield False

    def _lock_file(self, name: str, mode: int) -> tuple[int | None, bool]:
        """A lock file, opened, and whether it was made for that; None where neither can be."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        directory = name.rpartition("/")[0]
        for _ in range(_TRIES):
            try:
                self.make_dirs(directory)
                parent, last = self._parent(name)
                with contextlib.suppress(FileExistsError):
                    made = os.open(last, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=parent)
                    if (
                        mode & 0o002
                    ):  # for all users, whatever the umask, as the Hub's client has it
                        os.fchmod(made, mode)
                    _give(made, parent)
                    return made, True
                return self._open_lock(last, parent, flags), False
            except FileNotFoundError:  # file or directory were removed by who held it before
                if not self.is_there():
                    break
                if directory:
                    self._moved(directory)
            except OSError:
                # A full or read-only disk, another user's directory: one that is there will do.
                with contextlib.suppress(OSError):
                    parent, last = self._parent(name)
                    return self._open_lock(last, parent, flags), False
                return None, False
        return None, False

    def _open_lock(self, last: str, parent: int, flags: int) -> int:
        try:
            return os.open(last, flags, dir_fd=parent)
        except PermissionError:  # another user's in a shared cache: flock needs no more
            return os.open(last, flags & ~os.O_RDWR | os.O_RDONLY, dir_fd=parent)

    def _by_existence(self, name: str, descriptor: int, *, made: bool) -> bool | None:
        """Whether the existence of a lock file, instead of a flock, makes it ours."""
        if made:
            try:
                os.write(descriptor, soft_lock.marker())
            except OSError:  # a full disk: nobody must wait for what names no holder
                self.unlink(name)
                return None
            return True
        return False if soft_lock.holder(os.pread(descriptor, _MARKER, 0)) else None

    def _removed_stale(self, name: str, descriptor: int) -> bool:
        """Whether a lock file named a process of this host that is gone, and was removed."""
        found = soft_lock.holder(os.pread(descriptor, _MARKER, 0))
        if found is None or found.runs is not False:
            return False
        aside = f"{name}.stale-{os.getpid()}"
        try:
            self.move(name, aside)
            stale = self._is_at(aside, descriptor)
            if not stale:  # somebody was faster, and this is a new one
                self.move(aside, name)
                return False
            self.unlink(aside)
        except OSError:
            return False
        return True

    def _is_at(self, name: str, descriptor: int) -> bool:
        """Whether a name leads to the file that is open."""
        try:
            return os.path.samestat(self.status(name), os.fstat(descriptor))
        except OSError:
            return False

    def unlink(self, name: str) -> None:
        """Remove a file or a link, if it is there and that is allowed."""
        with contextlib.suppress(OSError):
            parent, last = self._parent(name)
            os.unlink(last, dir_fd=parent)

    def _rename(self, one: str, second: str, other: "Below", *, exchange: bool) -> None:
        with self._two(one, second, other) as (from_dir, old, to_dir, new):
            at.rename(from_dir, old, to_dir, new, exchange=exchange)
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
        for place, above, last in self._way(name):
            if len(self._open) > _KEPT_OPEN:
                oldest = next(k for k in self._open if k not in ("", above, *self._held))
                os.close(self._open.pop(oldest))
            self._open[place] = at.open_dir(last, self._open[above])
        known = self._open.pop(name)
        self._open[name] = known  # the last one used is the last one closed
        return known

    def _way(self, name: str) -> list[tuple[str, str, str]]:
        """From above, what of a name is not open yet: each directory, the one above, its part."""
        way = []
        while name not in self._open:
            above, _, last = name.rpartition("/")
            if last in ("", ".", "..") or "\0" in name:
                raise OSError(errno.EINVAL, "no name below a directory", name)
            way.append((name, above, last))
            name = above
        return way[::-1]

    def _moved(self, name: str) -> None:
        """Descriptors at or below a name lead elsewhere now."""
        gone = [key for key in self._open if key == name or key.startswith(f"{name}/")]
        self._held.difference_update(gone)
        for key in gone:
            os.close(self._open.pop(key))


def _give(made: int, above: int) -> None:
    """What root makes in another user's directory is that user's, who could not use it otherwise.

    A client that cannot open its lock file downloads nothing.
    """
    if os.geteuid() == 0 and (owner := os.fstat(above).st_uid) != 0:
        with contextlib.suppress(OSError):  # some network mounts let nobody give anything
            os.fchown(made, owner, -1)
