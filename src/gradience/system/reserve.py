"""Who may use the blocks that ext file systems keep back.

Not "root": the user named by `resuid` (0 unless an option says otherwise), the group named by
`resgid`, and who holds CAP_SYS_RESOURCE. A container's root often is none of them.

References
----------
Linux, fs/ext4/balloc.c, `ext4_has_free_clusters`; ext4(5), `resuid`, `resgid`.
"""

import os
import re
from pathlib import Path

from gradience.system.records import Mount

_CAP_SYS_RESOURCE = 24
_WHOLE_RANGE = ["0", "0", "4294967295"]


def may_use_reserve(mount: Mount, proc: Path = Path("/proc")) -> bool:
    """Whether this process may write to the reserved blocks of a mount."""
    if not mount.fs_type.startswith("ext") or not _in_first_namespace(proc):
        return False
    group = int(mount.option("resgid") or 0)
    return (
        os.geteuid() == int(mount.option("resuid") or 0)
        or (group != 0 and group in (os.getegid(), *os.getgroups()))
        or _has_capability(proc)
    )


def usable_blocks(space: os.statvfs_result) -> int:
    """Free blocks for a process that may use the reserve.

    Not all that are free: the kernel keeps a fiftieth of the file system, at most 4096 blocks, for
    its own maps (`ext4_calculate_resv_clusters`); statvfs takes them off f_bavail only.
    """
    return max(space.f_bavail, space.f_bfree - min(space.f_blocks // 50, 4096))


def _in_first_namespace(proc: Path) -> bool:
    """In a user namespace, 0 is somebody else outside, and capabilities do not count."""
    try:
        return (proc / "self" / "uid_map").read_text().split() == _WHOLE_RANGE
    except OSError:
        return False


def _has_capability(proc: Path) -> bool:
    try:
        text = (proc / "self" / "status").read_text()
    except OSError:
        return False
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> _CAP_SYS_RESOURCE & 1)
