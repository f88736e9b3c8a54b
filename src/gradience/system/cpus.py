"""How many cores this process may really use: its affinity, and the quota of its container.

References
----------
sched_setaffinity(2); Linux documentation, cgroup v2 "CPU" (`cpu.max`: quota and period).
"""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUP) -> int:
    """Cores that this process may keep busy at once; at least 1.

    Parameters
    ----------
    cgroups : Path
        Where the tree of cgroups is mounted; a container sees its own group at the top of it.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS has no affinity
        cores = os.cpu_count() or 1
    quota = _quota(cgroups / "cpu.max")
    return max(1, cores if quota is None else min(cores, int(quota)))


def _quota(path: Path) -> float | None:
    """Cores' worth of time per period; None where nothing limits it."""
    try:
        limit, period = path.read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup v2, or "max"
        return None
