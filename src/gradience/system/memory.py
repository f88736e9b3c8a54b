"""How much memory is left, for file systems that live in it.

A file in a tmpfs counts against the cgroup of whoever wrote it: a container with 8 GB dies when its
/dev/shm, which shows 64 GB, takes more than that.

References
----------
Linux documentation, cgroup v2 "Memory" (`memory.max`, `memory.high`, `memory.current`,
`memory.stat`) and v1 (`memory.limit_in_bytes`); proc_meminfo(5).
"""

import re
from pathlib import Path

from gradience.system.records import MemoryLimit

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED_V1 = 1 << 60  # v1 prints the largest page-aligned 63-bit number for "none"


def memory_limit(cgroups: Path = _CGROUP, proc: Path = Path("/proc")) -> MemoryLimit | None:
    """The tightest limit on memory of this process's cgroup and of those above it.

    Parameters
    ----------
    cgroups, proc : Path
        Where the two trees are mounted.

    Returns
    -------
    MemoryLimit or None
        None where no cgroup sets a limit, or none can be read.
    """
    limits = [*_v2(cgroups, _own_path(proc, "")), *_v1(cgroups, _own_path(proc, "memory"))]
    return min(limits, key=lambda limit: limit.free_bytes, default=None)


def available(proc: Path = Path("/proc")) -> int | None:
    """Bytes of memory that the machine can give without swapping, or None if it does not say."""
    try:
        text = (proc / "meminfo").read_text()
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _own_path(proc: Path, controller: str) -> str:
    """This process's path in the hierarchy of a controller; the empty name is that of v2."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return "/"
    for line in lines:
        fields = line.split(":", 2)
        if len(fields) == 3 and controller in fields[1].split(","):
            return fields[2]
    return "/"


def _v2(cgroups: Path, own: str) -> list[MemoryLimit]:
    base = cgroups if (cgroups / "cgroup.controllers").exists() else cgroups / "unified"
    found = []
    for group in _upwards(base, own):
        used = _number(group / "memory.current")
        # memory.high does not kill, it stalls: a writer that passes it is as good as stopped.
        for name in ("memory.max", "memory.high"):
            limit = _number(group / name)
            if limit is not None and used is not None:
                used_net = max(0, used - _droppable(group, "inactive_file"))
                found.append(
                    MemoryLimit(limit_bytes=limit, used_bytes=used_net, source=str(group / name))
                )
    return found


def _v1(cgroups: Path, own: str) -> list[MemoryLimit]:
    found = []
    for group in _upwards(cgroups / "memory", own):
        limit = _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _UNLIMITED_V1:
            used_net = max(0, used - _droppable(group, "total_inactive_file"))
            source = str(group / "memory.limit_in_bytes")
            found.append(MemoryLimit(limit_bytes=limit, used_bytes=used_net, source=source))
    return found


def _upwards(base: Path, own: str) -> list[Path]:
    """The group and those above it; in a container the own path may not exist below the mount."""
    group = base / own.lstrip("/")
    return [g for g in (group, *group.parents) if g.is_relative_to(base)]


def _droppable(group: Path, name: str) -> int:
    """Page cache that gives way; the pages of a tmpfs are on the anonymous lists, never here."""
    try:
        text = (group / "memory.stat").read_text()
    except OSError:
        return 0
    match = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def _number(path: Path) -> int | None:
    """The number in a file; None for `max` and for a file that is not there."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
