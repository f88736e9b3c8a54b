"""User, group and project quotas of local file systems, by quotactl(2).

`quotactl_fd` (Linux 5.14) takes a descriptor, so it works in a container that has no node for the
block device, and on tmpfs; `quotactl` with the device is the fall-back. ESRCH says that quotas are
off: an answer, not a failure.

References
----------
quotactl(2); linux/quota.h (`struct if_dqblk`, space in bytes, limits in KiB);
linux/dqblk_xfs.h (`struct fs_disk_quota`, in blocks of 512 bytes); linux/fs.h (`struct fsxattr`).
"""

import ctypes
import errno
import os
import struct
import time
from pathlib import Path

import msgspec

from gradience.system.quota.tool import charged_group
from gradience.system.records import Mount, QuotaAnswer, QuotaLimit

_Q_GETQUOTA = 0x800007
_Q_XGETQUOTA = ord("X") << 8 | 3
_TYPES = {"user": 0, "group": 1, "project": 2}
_SYS_QUOTACTL_FD = 443  # one number for all architectures but alpha
_FS_IOC_FSGETXATTR = 0x801C581F

# u64 bhard, bsoft, curspace, ihard, isoft, curinodes, btime, itime; u32 valid
_IF_DQBLK = struct.Struct("=8QI")
# s8 version, s8 flags, u16 fieldmask, u32 id, u64 bhard, bsoft, ihard, isoft, bcount, icount,
# s32 itimer, s32 btimer (the rest, up to 112 bytes, is of no use here)
_FS_DISK_QUOTA = struct.Struct("=bbHI6Qii")
_BUFFER_BYTES = 128

# No quota of this type, or none on this file system, or no such call: nothing to report.
_NO_QUOTA = {errno.ESRCH, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOENT}
_NO_FD_CALL = {errno.ENOSYS, errno.EPERM}


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One quota record of the kernel; limits of 0 mean none, sizes in bytes, times in seconds."""

    hard_bytes: int
    soft_bytes: int
    used_bytes: int
    hard_inodes: int
    soft_inodes: int
    used_inodes: int
    bytes_due: int
    inodes_due: int


def ask(place: Path, mount: Mount) -> QuotaAnswer:
    """The quotas of this user, of the group and of the project that `place` is charged to."""
    try:
        descriptor = _open(place)
    except OSError as error:
        return QuotaAnswer(unasked=(f"quotas of {place}: {error.strerror}",))
    try:
        owners = {"user": os.geteuid(), "group": charged_group(place)}
        project = _project_of(descriptor)
        if project:
            owners["project"] = project
        answers = [_ask_one(descriptor, mount, scope, owner) for scope, owner in owners.items()]
    finally:
        os.close(descriptor)
    return QuotaAnswer(
        limits=tuple(a for a in answers if isinstance(a, QuotaLimit)),
        unasked=tuple(a for a in answers if isinstance(a, str)),
    )


def limit_from(usage: Usage, *, scope: str, name: str, now: float) -> QuotaLimit | None:
    """The limit that a quota record sets, or None if it sets none.

    A soft limit holds once its time of grace is over, and alone where there is no hard one.

    Examples
    --------
    >>> usage = Usage(hard_bytes=0, soft_bytes=100, used_bytes=40, hard_inodes=0, soft_inodes=0,
    ...               used_inodes=3, bytes_due=0, inodes_due=0)
    >>> limit_from(usage, scope="user", name="1000", now=0.0).free_bytes
    60
    """
    size, soft_size = _effective(
        usage.hard_bytes, usage.soft_bytes, usage.used_bytes, usage.bytes_due, now
    )
    files, soft_files = _effective(
        usage.hard_inodes, usage.soft_inodes, usage.used_inodes, usage.inodes_due, now
    )
    if size is None and files is None:
        return None
    return QuotaLimit(
        scope=scope,
        name=name,
        source="quotactl",
        used_bytes=usage.used_bytes,
        limit_bytes=size,
        used_inodes=usage.used_inodes,
        limit_inodes=files,
        soft=soft_size or soft_files,
    )


def unpack_generic(data: bytes) -> Usage:
    """`struct if_dqblk`: usage in bytes, limits in KiB."""
    bhard, bsoft, space, ihard, isoft, inodes, btime, itime, _ = _IF_DQBLK.unpack_from(data)
    return Usage(
        hard_bytes=bhard * 1024,
        soft_bytes=bsoft * 1024,
        used_bytes=space,
        hard_inodes=ihard,
        soft_inodes=isoft,
        used_inodes=inodes,
        bytes_due=btime,
        inodes_due=itime,
    )


def unpack_xfs(data: bytes) -> Usage:
    """`struct fs_disk_quota`: everything in blocks of 512 bytes."""
    fields = _FS_DISK_QUOTA.unpack_from(data)
    bhard, bsoft, ihard, isoft, blocks, inodes, itimer, btimer = fields[4:]
    return Usage(
        hard_bytes=bhard * 512,
        soft_bytes=bsoft * 512,
        used_bytes=blocks * 512,
        hard_inodes=ihard,
        soft_inodes=isoft,
        used_inodes=inodes,
        bytes_due=btimer,
        inodes_due=itimer,
    )


def _open(place: Path) -> int:
    """A descriptor; one without rights (O_PATH) is enough for quotactl_fd, not for the project."""
    try:
        return os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return os.open(place, os.O_PATH | os.O_CLOEXEC)


def _effective(hard: int, soft: int, used: int, due: int, now: float) -> tuple[int | None, bool]:
    """The limit in force, or None, and whether it is the soft one."""
    if soft and (not hard or (used > soft and 0 < due <= now)):
        return soft, True
    return (hard or None), False


def _ask_one(descriptor: int, mount: Mount, scope: str, owner: int) -> QuotaLimit | str | None:
    """The limit, None if there is none, or a sentence that says why it is not known."""
    commands = [(_Q_GETQUOTA, unpack_generic)]
    if mount.fs_type == "xfs":  # kernels before 2.6 know only the second there
        commands.append((_Q_XGETQUOTA, unpack_xfs))
    code = 0
    for command, unpack in commands:
        code, data = _quotactl(descriptor, mount, command << 8 | _TYPES[scope], owner)
        if not code:
            return limit_from(unpack(data), scope=scope, name=str(owner), now=time.time())
    if code in _NO_QUOTA:
        return None
    return f"{scope} quota of {owner} on {mount.path}: quotactl says {os.strerror(code)}"


def _quotactl(descriptor: int, mount: Mount, operation: int, owner: int) -> tuple[int, bytes]:
    """An errno (0 if it worked) and the record."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    done = libc.syscall(
        ctypes.c_long(_SYS_QUOTACTL_FD),
        ctypes.c_uint(descriptor),
        ctypes.c_uint(operation),
        ctypes.c_int(owner),
        buffer,
    )
    code = 0 if done == 0 else ctypes.get_errno()
    if code in _NO_FD_CALL and mount.device.startswith("/"):
        device = os.fsencode(mount.device)
        done = libc.quotactl(ctypes.c_int(operation), device, ctypes.c_int(owner), buffer)
        code = 0 if done == 0 else ctypes.get_errno()
        if code == errno.ENOTBLK:
            code = errno.ENODEV
    return code, buffer.raw


def _project_of(descriptor: int) -> int:
    """The project number of a directory; 0 is none."""
    import fcntl  # noqa: PLC0415 - not on every system

    try:
        data = fcntl.ioctl(descriptor, _FS_IOC_FSGETXATTR, bytes(28))
    except OSError:
        return 0
    return int(struct.unpack_from("=4I", data)[3])  # xflags, extsize, nextents, projid
