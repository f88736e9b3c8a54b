"""Quotas of BeeGFS, from `beegfs-ctl --getquota --csv`.

References
----------
BeeGFS documentation, "Quota"; the heading is printed by the tool's `ModeGetQuotaInfo.cpp`:
`name,id,size,hard,files,hard`, sizes in bytes. "files" counts chunk files, of which one file has
as many as it has stripes.
"""

import os
from pathlib import Path

from gradience.system.quota.tool import charged_group, say
from gradience.system.records import Mount, QuotaAnswer, QuotaLimit

_NOTE = "BeeGFS counts chunk files, several per file; enforcement lags by some minutes."


def ask(place: Path, mount: Mount) -> QuotaAnswer:
    """The quotas of this user and of the group that `place` is charged to."""
    owners = {"user": ("--uid", os.geteuid()), "group": ("--gid", charged_group(place))}
    limits: list[QuotaLimit] = []
    unasked: list[str] = []
    for scope, (option, owner) in owners.items():
        said = say(
            ["beegfs-ctl", "--getquota", f"--mount={mount.path}", option, str(owner), "--csv"]
        )
        if said.output is None:
            unasked.append(f"BeeGFS {scope} quota: {said.problem}")
        else:
            limits.extend(parse(said.output, scope=scope, owner=owner))
    return QuotaAnswer(limits=tuple(limits), unasked=tuple(dict.fromkeys(unasked)))


def parse(output: str, *, scope: str, owner: int) -> tuple[QuotaLimit, ...]:
    """The limits of one owner; one row per storage pool."""
    limits = []
    for line in output.splitlines():
        cells = [c.strip() for c in line.split(",")]
        if len(cells) != 6 or cells[1] != str(owner) or not cells[2].isdecimal():
            continue
        size, files = _limit(cells[3]), _limit(cells[5])
        if size is None and files is None:
            continue
        limits.append(
            QuotaLimit(
                scope=scope,
                name=cells[0],
                source="beegfs-ctl",
                used_bytes=int(cells[2]),
                limit_bytes=size,
                used_inodes=int(cells[4]) if cells[4].isdecimal() else None,
                limit_inodes=files,
                note=_NOTE,
            )
        )
    return tuple(limits)


def _limit(cell: str) -> int | None:
    """A number; `unlimited`, `-` and 0 are none."""
    return int(cell) if cell.isdecimal() and cell != "0" else None
