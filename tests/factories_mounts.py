"""Mounts as the system would list them."""

from pathlib import Path

from gradience.system.records import Mount

GB = 10**9


def make_mount(path: str, **facts: object) -> Mount:
    """A roomy local disk unless said otherwise."""
    plain = {"device": "/dev/sda1", "fs_type": "ext4", "total_bytes": 500 * GB}
    plain |= {"free_bytes": 400 * GB}
    return Mount(path=Path(path), **{**plain, **facts})


def container_disk(**facts: object) -> Mount:
    """The layer that a container writes to."""
    small = {"device": "overlay", "fs_type": "overlay", "total_bytes": 20 * GB}
    return make_mount("/", **{**small, "free_bytes": 15 * GB, **facts})


def network_volume(path: str, **facts: object) -> Mount:
    """A volume of a cluster, which shows the cluster's size."""
    far = {"device": "mfs#euro.runpod.net:9421", "fs_type": "fuse.mfs", "network": True}
    return make_mount(path, **{**far, "total_bytes": 2300 * 10**12, **facts})
