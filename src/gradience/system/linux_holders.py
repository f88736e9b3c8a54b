"""Files in use on Linux, from /proc: descriptors and memory maps of every process.

A descriptor leads to the file itself, and looking through it asks its file system. One whose server
is gone (FUSE, NFS) never answers, so for a file on such a mount the kernel's own note is read.

References
----------
proc_pid_fd(5), proc_pid_fdinfo(5), proc_pid_maps(5).
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from gradience.system.holders import Held, Holder, Holders
from gradience.system.records import Mount

_PROC = "/proc"
# start-end perms offset major:minor inode path
_MAP = re.compile(
    rb"^[0-9a-f-]+ \S+ [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) +(/.*)$", re.MULTILINE
)
_DELETED = b" (deleted)"
_NOTE = re.compile(r"^(mnt_id|ino):\s*([0-9]+)$", re.MULTILINE)


def read_holders(distant: Sequence[Mount] = (), proc: str = _PROC) -> Holders:
    """Look at every process; one that ends meanwhile holds nothing.

    Parameters
    ----------
    distant : sequence of Mount
        Mounts whose file system is never asked: its server may be gone.
    """
    found = Holders()
    for name in os.listdir(proc):  # noqa: PTH208 - names are all that is needed
        if not name.isdigit():
            continue
        try:
            found.add(_of_process(proc, int(name), distant))
        except PermissionError:
            found.unseen += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _of_process(proc: str, pid: int, distant: Sequence[Mount]) -> Iterator[Held]:
    base = f"{proc}/{pid}"
    holder = Holder(pid=pid, name=_name(base), how="open")
    below = tuple(f"{mount.path}/" for mount in distant)
    with os.scandir(f"{base}/fd") as descriptors:
        for entry in descriptors:
            try:
                target = os.readlink(entry.path)  # noqa: PTH115 - thousands of these
                if not target.startswith("/"):  # a socket, a pipe
                    continue
                away = bool(below) and target.startswith(below)
                noted = _noted(f"{base}/fdinfo/{entry.name}", distant) if away else None
                if noted is None:
                    status = os.stat(entry.path)  # noqa: PTH116
                    if not stat.S_ISREG(status.st_mode):
                        continue
                    noted = status.st_dev, status.st_ino
            except OSError:
                continue
            name = os.path.basename(target).removesuffix(" (deleted)")  # noqa: PTH119
            yield Held(device=noted[0], inode=noted[1], name=name, holder=holder)
    mapped = Holder(pid=pid, name=holder.name, how="mapped")
    yield from parse_maps(Path(base, "maps").read_bytes(), mapped)


def _noted(path: str, distant: Sequence[Mount]) -> tuple[int, int] | None:
    """Device and inode as the kernel notes them, of a file on one of these mounts.

    None for any other file, and before Linux 5.14, which notes no inode.
    """
    noted = dict(_NOTE.findall(Path(path).read_text(encoding="ascii", errors="replace")))
    for mount in distant:
        if noted.get("mnt_id") == str(mount.mount_id) and "ino" in noted:
            return mount.device_number or 0, int(noted["ino"])
    return None


def parse_maps(text: bytes, holder: Holder) -> Iterator[Held]:
    """The files of a process's memory map, each once.

    Examples
    --------
    >>> line = b"7f0-7f1 r--p 00000000 fe:01 42   /data/w.safetensors"
    >>> [(h.inode, h.name) for h in parse_maps(line, Holder(pid=1, name="python", how="mapped"))]
    [(42, 'w.safetensors')]
    """
    for major, minor, inode, path in dict.fromkeys(_MAP.findall(text)):
        yield Held(
            device=os.makedev(int(major, 16), int(minor, 16)),
            inode=int(inode),
            name=os.fsdecode(path.removesuffix(_DELETED).rpartition(b"/")[2]),
            holder=holder,
        )


def _name(base: str) -> str:
    try:
        return Path(base, "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
