"""Mounts of Linux, from /proc/self/mountinfo.

mountinfo, not /proc/mounts: only it tells mounts of the same path apart and says which part of a
file system a bind mount shows. The kernel knows the mount of an open descriptor, so a path is
opened (O_PATH, no permission needed) and its `mnt_id` read; prefix and device are the fall-back.

References
----------
proc_pid_mountinfo(5), proc_pid_fdinfo(5).
"""

import contextlib
import os
import re
from pathlib import Path

from msgspec.structs import replace

from gradience.errors import StorageError
from gradience.system import kinds
from gradience.system.base import existing_parent, free_inodes, pick, space_of
from gradience.system.holders import Holders
from gradience.system.linux_holders import read_holders
from gradience.system.records import Mount

_MOUNTINFO = Path("/proc/self/mountinfo")


class Linux:
    """Linux, and WSL."""

    def mounts(self) -> tuple[Mount, ...]:
        """The mounts that can hold files, hidden ones left out, in the order they were mounted."""
        found = visible(_read_mountinfo())
        return tuple(_measured(m) for m in found if _holds_files(m))

    def mount_of(self, path: Path) -> Mount:
        """The mount that holds a path, or would hold it if it existed.

        Raises
        ------
        StorageError
            If the path and its parents cannot be looked at.
        """
        place = existing_parent(path)
        found = _mount_of(place)
        if found is not None and found.fs_type == "autofs":
            with contextlib.suppress(OSError), os.scandir(place):
                pass  # entering an automount mounts it
            found = _mount_of(place)
        if found is None:
            raise StorageError(
                f"no mount holds {place}",
                remedy="Is /proc mounted? Gradience reads /proc/self/mountinfo.",
            )
        return _measured(found)

    def holders(self) -> Holders:
        """The files that processes of this machine have open or mapped now."""
        return read_holders([m for m in _read_mountinfo() if m.fuse or m.network])


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    r"""Every line of mountinfo, hidden mounts and the kernel's own trees included.

    Lines that cannot be understood are left out: a mount namespace may show odd ones.

    Examples
    --------
    >>> line = r"36 35 98:0 /mnt1 /a\040b rw,noatime shared:1 - ext3 /dev/root ro,errors=continue"
    >>> mount = parse_mountinfo(line)[0]
    >>> str(mount.path), mount.root, mount.fs_type, mount.read_only
    ('/a b', '/mnt1', 'ext3', True)
    """
    mounts = (_mount(line) for line in text.splitlines())
    return tuple(m for m in mounts if m is not None)


def visible(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Without the mounts that a later mount on the same path, or above it, hides."""
    kept: list[Mount] = []
    for mount in mounts:
        # A mount over `/a` hides what was mounted on `/a` and below it before.
        kept = [m for m in kept if not m.path.is_relative_to(mount.path) or _is_root(mount, m)]
        kept.append(mount)
    return tuple(kept)


def _holds_files(mount: Mount) -> bool:
    """A place for files: not the kernel's trees, nor a single file mounted (/etc/hosts)."""
    if kinds.is_pseudo(mount.fs_type) or mount.path == Path("/dev"):
        return False
    if any(mount.path.is_relative_to(tree) for tree in ("/proc", "/sys")):
        return False
    if mount.network:  # not looked at: a server that is gone would hang us
        return True
    try:
        return mount.path.is_dir()
    except OSError:  # another user's, below a directory that we may not enter
        return False


def _is_root(mount: Mount, earlier: Mount) -> bool:
    """The root comes late in some containers, and hides nothing but an earlier root."""
    return mount.path == Path("/") and earlier.path != Path("/")


def unescape(field: str) -> str:
    r"""Undo mountinfo's octal escapes for space, tab, newline and backslash.

    Examples
    --------
    >>> unescape(r"/data/my\040disk\134x")
    '/data/my disk\\x'
    """
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


def _mount(line: str) -> Mount | None:
    left, dash, right = line.partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    if not dash or len(fields) < 6 or len(tail) < 2:
        return None
    # Nine digits fit into the 32 bits that makedev takes.
    numbers = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", fields[2], re.ASCII)
    if numbers is None or not fields[0].isdecimal():
        return None
    own = fields[5].split(",")
    shared = [unescape(o) for o in (tail[2] if len(tail) > 2 else "").split(",") if o]
    fs_type, device = unescape(tail[0]), unescape(tail[1])
    return Mount(
        path=Path(unescape(fields[4])),
        device=device,
        fs_type=fs_type,
        options=tuple(dict.fromkeys([*own, *shared])),
        network=kinds.is_network(fs_type, device),
        in_memory=kinds.is_in_memory(fs_type),
        fuse=kinds.is_fuse(fs_type),
        # Read-only is either the mount's or the whole file system's; noexec only the mount's.
        read_only="ro" in own or "ro" in shared,
        no_exec="noexec" in own,
        mount_id=int(fields[0]),
        root=unescape(fields[3]),
        device_number=os.makedev(int(numbers[1]), int(numbers[2])),
    )


def _read_mountinfo() -> tuple[Mount, ...]:
    try:
        # Names of mount points are bytes: an undecodable one must not hide the others.
        return parse_mountinfo(_MOUNTINFO.read_text(errors="surrogateescape"))
    except OSError as error:
        raise StorageError(
            f"{_MOUNTINFO} cannot be read: {error.strerror}",
            remedy="Mount /proc in this container or chroot.",
        ) from error


def _mount_of(place: Path) -> Mount | None:
    mount_id, device_number = _identity(place)
    mounts = _read_mountinfo()
    exact = next((m for m in mounts if mount_id is not None and m.mount_id == mount_id), None)
    return exact or pick(visible(mounts), place, device_number)


def _identity(place: Path) -> tuple[int | None, int | None]:
    """The kernel's mount number and the device number of a path; None for what it will not say."""
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None, None
    try:
        device_number = os.fstat(descriptor).st_dev
        info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    except OSError:
        return None, None
    finally:
        os.close(descriptor)
    match = re.search(r"^mnt_id:\s*(\d+)", info, re.MULTILINE)
    return (int(match[1]) if match else None), device_number


def _measured(mount: Mount) -> Mount:
    # statvfs on an automount would mount it.
    space = None if mount.fs_type == "autofs" else space_of(mount.path, mount)
    if space is None:
        return mount
    return replace(
        mount,
        total_bytes=space.f_blocks * space.f_frsize,
        free_bytes=space.f_bavail * space.f_frsize,
        free_inodes=free_inodes(space),
    )
