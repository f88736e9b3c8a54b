"""Quotas of IBM Storage Scale (GPFS), from `mmlsquota -Y`.

References
----------
IBM Storage Scale Command Reference, mmlsquota: `-Y` prints colon-separated fields under a header
that names them, sizes in KiB, special characters as %XX.
"""

from pathlib import Path
from urllib.parse import unquote

from gradience.system.quota.tool import say
from gradience.system.records import Mount, QuotaAnswer, QuotaLimit

_TOOLS = ("mmlsquota", "/usr/lpp/mmfs/bin/mmlsquota")
_SCOPES = {"USR": "user", "GRP": "group", "FILESET": "fileset"}


def ask(place: Path, mount: Mount) -> QuotaAnswer:
    """The quotas of the caller and of its groups and filesets on the mounted file system."""
    del place
    said = say([_TOOLS[0], "-Y"])
    if said.output is None and "not installed" in said.problem:
        said = say([_TOOLS[1], "-Y"])
    if said.output is None:
        return QuotaAnswer(unasked=(f"GPFS: {said.problem}",))
    return QuotaAnswer(limits=parse(said.output, Path(mount.device).name))


def parse(output: str, file_system: str) -> tuple[QuotaLimit, ...]:
    """The limits that `mmlsquota -Y` printed for one file system.

    The fields are found by the names in the header: their number differs between releases.
    """
    header: list[str] = []
    limits = []
    for line in output.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == "HEADER":
            header = fields
        elif header and len(fields) > 2:
            row = {name: unquote(value) for name, value in zip(header, fields, strict=False)}
            limit = _limit(row) if row.get("filesystemName") == file_system else None
            if limit is not None:
                limits.append(limit)
    return tuple(limits)


def _limit(row: dict[str, str]) -> QuotaLimit | None:
    hard, soft = _number(row, "blockLimit"), _number(row, "blockQuota")
    hard_files, soft_files = _number(row, "filesLimit"), _number(row, "filesQuota")
    size, files = hard or soft, hard_files or soft_files
    if not size and not files:
        return None
    # Shares handed to nodes and not yet used ("in doubt") are spent for everybody else.
    doubt, doubt_files = _number(row, "blockInDoubt"), _number(row, "filesInDoubt")
    return QuotaLimit(
        scope=_SCOPES.get(row.get("quotaType", ""), "user"),
        name=row.get("filesetname") or row.get("name") or row.get("id", ""),
        source="mmlsquota",
        used_bytes=(_number(row, "blockUsage") + doubt) * 1024,
        limit_bytes=size * 1024 if size else None,
        used_inodes=_number(row, "filesUsage") + doubt_files,
        limit_inodes=files or None,
        soft=bool(size) and not hard,
    )


def _number(row: dict[str, str], name: str) -> int:
    value = row.get(name, "")
    return int(value) if value.isdecimal() else 0
