"""What kind of file system a type name stands for: remote, in memory, FUSE, or none at all.

The kernel does not say; the names below do. A FUSE mount of unknown name is remote when its
device looks like an address.
"""

import re

_NETWORK = frozenset(
    # 9p is a network protocol also where the server is the host (WSL's /mnt/c, gVisor).
    {
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb2",
        "smb3",
        "smbfs",
        "lustre",
        "gpfs",
        "ceph",
        "beegfs",
        "fhgfs",
        "glusterfs",
        "afs",
        "ncpfs",
        "9p",
        "pvfs2",
        "orangefs",
        "wekafs",
        "panfs",
        "ocfs2",
        "gfs",
        "gfs2",
        "afpfs",
        "webdav",
        "acfs",
        "prl_fs",
        "vboxsf",
    }
)
_NETWORK_FUSE = frozenset(
    # MooseFS is "fuse.mfs" or "fuse" with the device mfs#host:port; Colab's Drive is "drive".
    {
        "mfs",
        "moosefs",
        "lizardfs",
        "sshfs",
        "glusterfs",
        "s3fs",
        "s3ql",
        "rclone",
        "gcsfuse",
        "goofys",
        "geesefs",
        "juicefs",
        "ceph",
        "ceph-fuse",
        "blobfuse",
        "blobfuse2",
        "mount-s3",
        "mountpoint-s3",
        "seaweedfs",
        "curlftpfs",
        "davfs",
        "davfs2",
        "cvmfs",
        "cvmfs2",
        "hdfs",
        "alluxio-fuse",
        "drive",
        "google-drive-ocamlfuse",
        "onedriver",
        "quobyte",
        "weka",
        "smbnetfs",
        "azcopy",
        "objectivefs",
        "modal",
    }
)
_IN_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs", "hugetlbfs"))
_PSEUDO = frozenset(
    {
        "proc",
        "sysfs",
        "cgroup",
        "cgroup2",
        "devpts",
        "mqueue",
        "debugfs",
        "tracefs",
        "securityfs",
        "sockfs",
        "bpf",
        "pipefs",
        "pstore",
        "configfs",
        "fusectl",
        "binfmt_misc",
        "efivarfs",
        "rpc_pipefs",
        "nsfs",
        "selinuxfs",
        "devfs",
        "hugetlbfs",
        "autofs",
        "nfsd",
        "fuse.lxcfs",
        "fuse.gvfsd-fuse",
        "fuse.portal",
    }
)
_ADDRESS = re.compile(r"^(//|[\w.-]+:(?!$)|[\w.-]+#|\w+://)")


def is_fuse(fs_type: str) -> bool:
    """Served by a process of user space."""
    return fs_type in ("fuse", "fuseblk") or fs_type.startswith(("fuse.", "fuseblk.", "macfuse"))


def is_network(fs_type: str, device: str) -> bool:
    """The bytes live on another machine.

    Examples
    --------
    >>> is_network("nfs4", "filer:/home"), is_network("fuse.mfs", "mfs#10.1.1.1:9421")
    (True, True)
    >>> is_network("fuse", "drive"), is_network("fuse.gocryptfs", "/home/me/secret")
    (True, False)
    """
    if fs_type in _NETWORK:
        return True
    if not is_fuse(fs_type):
        return False
    _, _, subtype = fs_type.partition(".")
    name = subtype or re.split(r"[#:]", device)[0]
    return name in _NETWORK_FUSE or _ADDRESS.match(device) is not None


def is_in_memory(fs_type: str) -> bool:
    """The bytes live in RAM."""
    return fs_type in _IN_MEMORY


def is_pseudo(fs_type: str) -> bool:
    """No place for files: the kernel's own trees, and automounts that nobody entered."""
    return fs_type in _PSEUDO
