"""Mounts of macOS, from mount(8).

`/` is a sealed, read-only volume; firmlinks lead `/Users` to the data volume without showing in a
path, so the device number decides and the prefix only breaks ties.
"""

import re
import subprocess
from pathlib import Path

from msgspec.structs import replace

from gradience.errors import StorageError
from gradience.system import kinds
from gradience.system.base import existing_parent, free_inodes, pick, space_of, within
from gradience.system.holders import Held, Holder, Holders
from gradience.system.records import Mount

_MOUNT = "/sbin/mount"
_SECONDS = 10.0
_LSOF = "/usr/sbin/lsof"
_LSOF_SECONDS = 60.0
# "/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect)"
_LINE = re.compile(r"^(?P<device>.+?) on (?P<path>/.*) \((?P<options>[^()]*)\)$")


class MacOS:
    """macOS 11 and newer."""

    def mounts(self) -> tuple[Mount, ...]:
        """The mounts that can hold files."""
        return tuple(_measured(m) for m in _read() if not kinds.is_pseudo(m.fs_type))

    def mount_of(self, path: Path) -> Mount:
        """The mount that holds a path, or would hold it if it existed.

        Raises
        ------
        StorageError
            If the path and its parents cannot be looked at.
        """
        place = existing_parent(path)
        found = pick(self.mounts(), place, _device_number(place))
        if found is None:
            raise StorageError(f"no mount holds {place}", remedy="Name another path.")
        return found

    def holders(self) -> Holders:
        """The files that processes of this machine have open or mapped now."""
        return parse_lsof(_lsof())


def parse_mount(text: str) -> tuple[Mount, ...]:
    """What `mount` printed.

    Examples
    --------
    >>> line = "//me@nas._smb._tcp.local/share on /Volumes/my share (smbfs, nodev, noexec)"
    >>> mount = parse_mount(line)[0]
    >>> str(mount.path), mount.fs_type, mount.network, mount.no_exec
    ('/Volumes/my share', 'smbfs', True, True)
    """
    matches = (_LINE.match(line) for line in text.splitlines())
    return tuple(_mount(m["device"], m["path"], m["options"]) for m in matches if m)


def parse_lsof(text: str) -> Holders:
    """What `lsof -n -P -F pcftDin` printed: one field a line, its letter first.

    Examples
    --------
    >>> text = "p7\\ncpython3\\nf4\\ntREG\\nD0x1000004\\ni42\\nn/data/w\\nftxt\\ntREG\\ni43"
    >>> [one.inode for one in parse_lsof(text).all()]
    [42, 43]
    """
    found, process, file = Holders(), {"p": "0", "c": "?"}, dict[str, str]()

    def note() -> None:
        if file.get("t") != "REG" or not file.get("i", "").isdigit():
            return
        how = "open" if file["f"][:1].isdigit() else "mapped"
        holder = Holder(pid=int(process["p"]), name=process["c"], how=how)
        name = file.get("n", "").rpartition("/")[2]
        device = int(file.get("D", "-1"), 0)
        found.add([Held(device=device, inode=int(file["i"]), name=name, holder=holder)])

    for line in text.splitlines():
        field, value = line[:1], line[1:]
        if field in "pf":
            note()
            file = {"f": value} if field == "f" else {}
        (process if field in "pc" else file)[field] = value
    note()
    return found


def _lsof() -> str:
    try:
        done = subprocess.run(
            [_LSOF, "-n", "-P", "-F", "pcftDin"],
            check=False,  # it fails where one process could not be looked at
            capture_output=True,
            timeout=_LSOF_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StorageError(
            f"{_LSOF} did not say which files are in use: {error}", remedy="Run `lsof`."
        ) from error
    return done.stdout.decode("utf-8", "surrogateescape")


def _mount(device: str, path: str, options: str) -> Mount:
    fs_type, *rest = options.split(", ")
    return Mount(
        path=Path(path),
        device=device,
        fs_type=fs_type,
        options=tuple(rest),
        network=kinds.is_network(fs_type, device),
        in_memory=kinds.is_in_memory(fs_type),
        fuse=kinds.is_fuse(fs_type),
        read_only="read-only" in rest,
        no_exec="noexec" in rest,
    )


def _read() -> tuple[Mount, ...]:
    try:
        done = subprocess.run(
            [_MOUNT], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StorageError(f"{_MOUNT} did not answer: {error}", remedy="Run `mount`.") from error
    return parse_mount(done.stdout)


def _measured(mount: Mount) -> Mount:
    number = within(_SECONDS, lambda: mount.path.stat().st_dev)
    space = space_of(mount.path, mount) if number is not None else None
    if space is None:
        return replace(mount, device_number=number)
    return replace(
        mount,
        device_number=number,
        total_bytes=space.f_blocks * space.f_frsize,
        free_bytes=space.f_bavail * space.f_frsize,
        free_inodes=free_inodes(space),
    )


def _device_number(place: Path) -> int | None:
    try:
        return place.stat().st_dev
    except OSError:
        return None
