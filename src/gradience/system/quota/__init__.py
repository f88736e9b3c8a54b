"""The quotas that apply to a path, asked where its kind of file system keeps them.

`df` shows the disk, not the share of it that is mine. Each source knows one way to ask; none may
fail its caller: what cannot be asked is said in a sentence.
"""

from collections.abc import Callable
from pathlib import Path

from gradience.registry import Registry
from gradience.system.records import Mount, QuotaAnswer

Source = Callable[[Path, Mount], QuotaAnswer]

_KERNEL = "gradience.system.quota.kernel:ask"
_CEPHFS = "gradience.system.quota.cephfs:ask"
_NFS = "gradience.system.quota.nfs:ask"

# By type of file system. Not listed: ZFS shows its quotas in statvfs; overlay charges its upper
# file system, which a container does not see.
SOURCES: Registry[Source] = Registry(
    "quota source",
    {
        "ext2": _KERNEL,
        "ext3": _KERNEL,
        "ext4": _KERNEL,
        "xfs": _KERNEL,
        "f2fs": _KERNEL,
        "gfs2": _KERNEL,
        "ocfs2": _KERNEL,
        "tmpfs": _KERNEL,
        "btrfs": "gradience.system.quota.btrfs:ask",
        "lustre": "gradience.system.quota.lustre:ask",
        "gpfs": "gradience.system.quota.gpfs:ask",
        "ceph": _CEPHFS,
        "fuse.ceph": _CEPHFS,
        "fuse.ceph-fuse": _CEPHFS,
        "beegfs": "gradience.system.quota.beegfs:ask",
        "nfs": _NFS,
        "nfs4": _NFS,
    },
)


def quotas_of(place: Path, mount: Mount) -> QuotaAnswer:
    """The quotas that apply to an existing path; empty where its file system has none.

    Parameters
    ----------
    place : Path
        Existing, absolute, without links.
    mount : Mount
        The mount that holds it.
    """
    if mount.fs_type not in SOURCES:
        return QuotaAnswer()
    return SOURCES[mount.fs_type](place, mount)
