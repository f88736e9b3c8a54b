"""What the operating system told us, as plain records."""

from pathlib import Path

import msgspec


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One mounted file system, as this process sees it.

    Attributes
    ----------
    path : Path
        Where it is mounted.
    device : str
        What is mounted there: a block device, `host:/export`, `mfs#host:9421`, `tmpfs`.
    fs_type : str
        The kernel's word: `ext4`, `overlay`, `nfs4`, `fuse.mfs`.
    options : tuple of str
        Options of the mount and of its file system; `size=8192k`, `upperdir=/...`.
    total_bytes, free_bytes : int, optional
        Size, and what a caller without privileges may still write; None where the file system did
        not answer (a dead server, an automount that nobody entered yet).
    free_inodes : int, optional
        None also where the file system has no fixed number of inodes (btrfs, many network mounts).
    network : bool
        The bytes live on another machine: locks and latency are not those of a local disk.
    in_memory : bool
        The bytes live in RAM: they count against the memory of the machine and of the container.
    read_only, no_exec : bool
    fuse : bool
        Served by a process of user space: `fallocate` and `mmap` may be missing.
    mount_id : int, optional
        The kernel's number of the mount (Linux).
    root : str
        What part of the file system is mounted: `/`, or a directory of it (bind mounts, btrfs
        subvolumes).
    device_number : int, optional
        `st_dev` of files on it; btrfs subvolumes have their own, which differ from this one.
    """

    path: Path
    device: str
    fs_type: str
    options: tuple[str, ...] = ()
    total_bytes: int | None = None
    free_bytes: int | None = None
    free_inodes: int | None = None
    network: bool = False
    in_memory: bool = False
    read_only: bool = False
    no_exec: bool = False
    fuse: bool = False
    mount_id: int | None = None
    root: str = "/"
    device_number: int | None = None

    def option(self, name: str) -> str | None:
        """The value of `name=value` among the options, or None."""
        prefix = f"{name}="
        return next((o.removeprefix(prefix) for o in self.options if o.startswith(prefix)), None)


class QuotaLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One quota that applies to a path, for this user, group, project or directory.

    Attributes
    ----------
    scope : str
        `user`, `group`, `project`, `fileset`, `subvolume` or `directory`.
    name : str
        Who or what: a user's number, a project's number, a directory.
    source : str
        How it was asked: `quotactl`, `lfs quota`, `ceph.quota.max_bytes`.
    used_bytes, limit_bytes : int, optional
        None where the quota sets no such limit, or the tool does not say.
    used_inodes, limit_inodes : int, optional
    soft : bool
        The limit is a soft one: it may be passed for a time of grace.
    note : str
        What a reader should know: enforcement lags, the figure is old.
    """

    scope: str
    name: str
    source: str
    used_bytes: int | None = None
    limit_bytes: int | None = None
    used_inodes: int | None = None
    limit_inodes: int | None = None
    soft: bool = False
    note: str = ""

    @property
    def free_bytes(self) -> int | None:
        """Bytes left under this quota, never below 0; None without a limit or without usage."""
        return _left(self.limit_bytes, self.used_bytes)

    @property
    def free_inodes(self) -> int | None:
        """Inodes left under this quota, never below 0; None without a limit or without usage."""
        return _left(self.limit_inodes, self.used_inodes)


class QuotaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The quotas found, and what could not be asked.

    Attributes
    ----------
    limits : tuple of QuotaLimit
    unasked : tuple of str
        One sentence for each source that did not answer: a missing tool, a time-out.
    """

    limits: tuple[QuotaLimit, ...] = ()
    unasked: tuple[str, ...] = ()


class MemoryLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A cgroup's limit on memory; files of a tmpfs count against it.

    Attributes
    ----------
    limit_bytes, used_bytes : int
        `used_bytes` without page cache that can be dropped.
    source : str
        The file that said so.
    """

    limit_bytes: int
    used_bytes: int
    source: str

    @property
    def free_bytes(self) -> int:
        """Bytes left, never below 0."""
        return max(0, self.limit_bytes - self.used_bytes)


def _left(limit: int | None, used: int | None) -> int | None:
    return None if limit is None or used is None else max(0, limit - used)
