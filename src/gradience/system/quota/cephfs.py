"""Quotas of CephFS directories, from extended attributes.

A quota set on a directory holds for the tree below it; the nearest one upwards is not the only
one, all of them hold. listxattr hides these attributes, getxattr answers.

References
----------
Ceph documentation, "CephFS Quotas": limits are enforced by the clients, some seconds late.
"""

import os
from pathlib import Path

from gradience.system.records import Mount, QuotaAnswer, QuotaLimit

_NOTE = "CephFS clients enforce quotas up to ten seconds late."
_MOST_BYTES, _MOST_FILES = "ceph.quota.max_bytes", "ceph.quota.max_files"
_USED_BYTES, _USED_FILES = "ceph.dir.rbytes", "ceph.dir.rentries"


def ask(place: Path, mount: Mount) -> QuotaAnswer:
    """The quotas on `place` and on the directories above it, up to the mount."""
    limits = (_limit(directory) for directory in upwards(place, mount.path))
    return QuotaAnswer(limits=tuple(limit for limit in limits if limit is not None))


def upwards(place: Path, top: Path) -> tuple[Path, ...]:
    """`place` and the directories above it, down to `top` included.

    Examples
    --------
    >>> [str(p) for p in upwards(Path("/ceph/lab/me"), Path("/ceph"))]
    ['/ceph/lab/me', '/ceph/lab', '/ceph']
    """
    return tuple(p for p in (place, *place.parents) if p.is_relative_to(top))


def limit_from(attributes: dict[str, int], name: str) -> QuotaLimit | None:
    """The limit that the attributes of one directory set; 0 and absence mean none."""
    size, files = attributes.get(_MOST_BYTES, 0), attributes.get(_MOST_FILES, 0)
    if not size and not files:
        return None
    return QuotaLimit(
        scope="directory",
        name=name,
        source=_MOST_BYTES if size else _MOST_FILES,
        used_bytes=attributes.get(_USED_BYTES),
        limit_bytes=size or None,
        used_inodes=attributes.get(_USED_FILES),
        limit_inodes=files or None,
        note=_NOTE,
    )


def _limit(directory: Path) -> QuotaLimit | None:
    names = (_MOST_BYTES, _MOST_FILES, _USED_BYTES, _USED_FILES)
    values = {name: _attribute(directory, name) for name in names}
    return limit_from({k: v for k, v in values.items() if v is not None}, str(directory))


def _attribute(directory: Path, name: str) -> int | None:
    try:
        text = os.getxattr(directory, name).decode("ascii", "replace").strip().rstrip("\x00")
    except (OSError, AttributeError):  # macOS has no getxattr in `os`
        return None
    return int(text) if text.isdecimal() else None
