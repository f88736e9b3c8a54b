"""Quotas of Lustre, from `lfs quota`.

References
----------
lfs-quota(1); Lustre Operations Manual, chapter 25.
"""

import os
import re
from pathlib import Path

from gradience.system.quota.tool import charged_group, say
from gradience.system.records import Mount, QuotaAnswer, QuotaLimit

_INEXACT = "A storage target does not answer: usage in brackets is inaccurate."


def ask(place: Path, mount: Mount) -> QuotaAnswer:
    """The quotas of this user, of the group and of the project that `place` is charged to."""
    owners = {"user": str(os.geteuid()), "group": str(charged_group(place))}
    project = say(["lfs", "project", "-d", str(place)])
    if project.output is not None and (number := parse_project(project.output)):
        owners["project"] = number
    limits: list[QuotaLimit] = []
    unasked: list[str] = []
    for scope, owner in owners.items():
        said = say(["lfs", "quota", f"-{scope[0]}", owner, str(mount.path)])
        limit = None if said.output is None else parse(said.output, scope=scope, name=owner)
        if limit is not None:
            limits.append(limit)
        if said.output is None:
            unasked.append(f"Lustre {scope} quota: {said.problem}")
    return QuotaAnswer(limits=tuple(limits), unasked=tuple(dict.fromkeys(unasked)))


def parse(output: str, *, scope: str, name: str) -> QuotaLimit | None:
    """The quota that `lfs quota` printed, or None if it sets no limit.

    Sizes are in KiB. A long name of the file system stands on a line of its own; `*` marks what is
    over its quota, brackets mark a figure that lacks a storage target.
    """
    cells = _cells(output)
    if cells is None:
        return None
    used, soft, hard, _, files, soft_files, hard_files = (c.rstrip("*") for c in cells[:7])
    size, some_files = _limit(hard, soft), _limit(hard_files, soft_files)
    if size is None and some_files is None:
        return None
    return QuotaLimit(
        scope=scope,
        name=name,
        source="lfs quota",
        used_bytes=_number(used) * 1024,
        limit_bytes=None if size is None else size * 1024,
        used_inodes=_number(files),
        limit_inodes=some_files,
        soft=_number(hard) == 0 and size is not None,
        note=_INEXACT if "[" in used or "[" in files else "",
    )


def parse_project(output: str) -> str:
    """The project number that `lfs project -d` printed, or empty: `    1000 P /scratch/lab`."""
    match = re.match(r"\s*(\d+)\s+[P-]\s", output)
    return "" if match is None or match[1] == "0" else match[1]


def _cells(output: str) -> list[str] | None:
    """Used, quota, limit, grace, files, quota, limit, grace; None if no such row is there."""
    _, heading, rest = output.partition("Filesystem")
    words = (rest.partition("\n")[2] if heading else output).split()
    # The row is the first place where two groups of three figures surround a grace.
    for start in range(1, len(words) - 6):
        row = words[start : start + 7]
        if all(_is_figure(word) for i, word in enumerate(row) if i != 3):
            return row
    return None


def _is_figure(word: str) -> bool:
    return re.fullmatch(r"\[?\d+\]?\*?", word) is not None


def _limit(hard: str, soft: str) -> int | None:
    """The hard limit, else the soft one; 0 is none."""
    return _number(hard) or _number(soft) or None


def _number(word: str) -> int:
    return int(word.strip("[]*"))
