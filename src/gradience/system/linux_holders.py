"""Files in use on Linux, from /proc: descriptors and memory maps of every process.

References
----------
proc_pid_fd(5), proc_pid_maps(5).
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from gradience.system.holders import Held, Holder, Holders

_PROC = "/proc"
# start-end perms offset major:minor inode path
_MAP = re.compile(
    rb"^[0-9a-f-]+ \S+ [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) +(/.*)$", re.MULTILINE
)
_DELETED = b" (deleted)"


def read_holders(proc: str = _PROC) -> Holders:
    """Look at every process; one that ends meanwhile holds nothing."""
    found = Holders()
    for name in os.listdir(proc):  # noqa: PTH208 - names are all that is needed
        if not name.isdigit():
            continue
        try:
            found.add(_of_process(proc, int(name)))
        except PermissionError:
            found.unseen += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _of_process(proc: str, pid: int) -> Iterator[Held]:
    base = f"{proc}/{pid}"
    holder = Holder(pid=pid, name=_name(base), how="open")
    with os.scandir(f"{base}/fd") as descriptors:
        for entry in descriptors:
            try:
                status = os.stat(entry.path)  # noqa: PTH116 - thousands of these
                if not stat.S_ISREG(status.st_mode):
                    continue
                target = os.readlink(entry.path)  # noqa: PTH115
            except OSError:
                continue
            name = os.path.basename(target).removesuffix(" (deleted)")  # noqa: PTH119
            yield Held(device=status.st_dev, inode=status.st_ino, name=name, holder=holder)
    mapped = Holder(pid=pid, name=holder.name, how="mapped")
    yield from parse_maps(Path(base, "maps").read_bytes(), mapped)


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
