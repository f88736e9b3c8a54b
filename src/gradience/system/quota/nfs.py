"""Quotas of an NFS server, from quota(1), which asks its rpc.rquotad; NFSv4 often has none.

References
----------
quota(1), linuxquota: sizes in KiB; `-w` keeps a row on one line, `-p` prints the grace as a number
so that no column is empty, `-f` asks for one file system only.
"""

import os
from pathlib import Path

from gradience.system.quota.tool import charged_group, say
from gradience.system.records import Mount, QuotaAnswer, QuotaLimit

_OVER_QUOTA = 1  # quota(1) ends with a status of its own when a quota is exceeded
_COLUMNS = 8


def ask(place: Path, mount: Mount) -> QuotaAnswer:
    """The quotas of this user and of the group that `place` is charged to."""
    limits: list[QuotaLimit] = []
    unasked: list[str] = []
    for scope, owner in (("user", os.geteuid()), ("group", charged_group(place))):
        said = say(
            ["quota", "-w", "-p", "-v", f"-{scope[0]}", "-f", str(mount.path)],
            statuses=(0, _OVER_QUOTA),
        )
        if said.output is None:
            unasked.append(f"NFS {scope} quota: {said.problem}")
            continue
        limit = parse(said.output, device=mount.device, scope=scope, owner=owner)
        if limit is not None:
            limits.append(limit)
    return QuotaAnswer(limits=tuple(limits), unasked=tuple(dict.fromkeys(unasked)))


def parse(output: str, *, device: str, scope: str, owner: int) -> QuotaLimit | None:
    """The quota that `quota -w -p` printed for one device and owner, or None if it sets no limit.

    `quota -g` prints one section for each group of the caller; only that of `owner` counts.
    """
    mine = False
    for line in output.splitlines():
        if line.startswith("Disk quotas for"):
            mine = f"id {owner})" in line
            continue
        name, _, rest = line.strip().partition(" ")
        cells = [c.rstrip("*") for c in rest.split()]
        figures = len(cells) == _COLUMNS and all(c.isdecimal() for c in cells)
        if mine and figures and name in (device, "/"):
            return _limit([int(c) for c in cells], scope, owner)
    return None


def _limit(cells: list[int], scope: str, owner: int) -> QuotaLimit | None:
    used, soft, hard, _, files, soft_files, hard_files, _ = cells
    size, some_files = hard or soft, hard_files or soft_files
    if not size and not some_files:
        return None
    return QuotaLimit(
        scope=scope,
        name=str(owner),
        source="quota",
        used_bytes=used * 1024,
        limit_bytes=size * 1024 if size else None,
        used_inodes=files,
        limit_inodes=some_files or None,
        soft=bool(size) and not hard,
    )
