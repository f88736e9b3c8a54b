"""Quota groups of btrfs, which statvfs hides; only root may list them.

References
----------
btrfs-qgroup(8): `btrfs qgroup show -reF --raw PATH`.
"""

import os
from pathlib import Path

from gradience.system.quota.tool import say
from gradience.system.records import Mount, QuotaAnswer, QuotaLimit

_HIDDEN = (
    "btrfs quota groups are shown to root only and hidden from df: probe the amount that is needed"
)


def ask(place: Path, mount: Mount) -> QuotaAnswer:
    """The quota groups of the subvolume that holds `place`."""
    if os.geteuid() != 0:
        return QuotaAnswer(unasked=(_HIDDEN,))
    # -r and -e: limits on referenced and exclusive bytes; -F: this subvolume and its ancestors.
    said = say(["btrfs", "qgroup", "show", "-reF", "--raw", str(_subvolume(place, mount))])
    if said.output is None:
        off = "quotas not enabled" in said.problem or "quota tree" in said.problem
        return QuotaAnswer() if off else QuotaAnswer(unasked=(f"btrfs: {said.problem}",))
    return QuotaAnswer(limits=parse(said.output))


def parse(output: str) -> tuple[QuotaLimit, ...]:
    """The limits that `btrfs qgroup show -reF --raw` printed.

    Columns: group, referenced, exclusive, limit on referenced, limit on exclusive, path.
    """
    limits = []
    for line in output.splitlines():
        cells = line.split()
        if len(cells) < 5 or "/" not in cells[0] or not cells[1].isdecimal():
            continue
        name, referenced, exclusive, most_referenced, most_exclusive = cells[:5]
        for used, most, what in (
            (referenced, most_referenced, "referenced"),
            (exclusive, most_exclusive, "exclusive"),
        ):
            if most.isdecimal() and used.isdecimal():
                limits.append(
                    QuotaLimit(
                        scope="subvolume",
                        name=f"{name} ({what})",
                        source="btrfs qgroup",
                        used_bytes=int(used),
                        limit_bytes=int(most),
                        note="Usage is as old as the last commit, up to 30 s.",
                    )
                )
    return tuple(limits)


def _subvolume(place: Path, mount: Mount) -> Path:
    """The root of the subvolume: the highest directory with the same device number."""
    here = place if place.is_dir() else place.parent
    device = here.stat().st_dev
    while here not in (mount.path, here.parent) and here.parent.stat().st_dev == device:
        here = here.parent
    return here
