import os
import time
from pathlib import Path

import pytest

from factories_disks import as_nobody, btrfs_with_quota, mounted, need, overlay, tmpfs
from gradience import system
from gradience.errors import StorageError
from gradience.system import Mount, kinds
from gradience.system.base import existing_parent, pick, within
from gradience.system.linux import parse_mountinfo, visible
from gradience.system.macos import parse_mount

# Shapes of lines as proc_pid_mountinfo(5) describes them and as containers show them.
MOUNTINFO = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resuid=65534
23 22 0:21 / /proc rw,nosuid - proc proc rw
25 22 0:23 / /dev/shm rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=65536k
30 22 254:16 / /mnt/my\040disk ro,relatime shared:3 master:1 - ext4 /dev/vdb rw
31 22 254:16 /lab/me /home/me/lab rw,relatime - ext4 /dev/vdb rw
32 22 0:44 / /merged rw - overlay overlay rw,lowerdir=/l\072a:/b,upperdir=/u,workdir=/w
33 22 0:50 / /net rw - autofs systemd-1 rw,fd=29,pgrp=1,timeout=0
34 22 0:51 /@home /vol/home rw,relatime - btrfs /dev/vdc rw,subvolid=256,subvol=/@home
35 22 0:60 / /workspace rw - fuse mfs#eu-ro-1.runpod.net:9421 rw,user_id=0,group_id=0
36 22 0:61 / /home/nfs rw,vers=4.2 - nfs4 filer:/export/home rw,addr=10.0.0.7
37 25 0:62 / /dev/shm rw - tmpfs tmpfs rw,size=1024k
broken line
99 22 x:y / /odd rw - ext4 /dev/odd rw
""".strip()


def by_path(mounts: tuple[Mount, ...]) -> dict[str, Mount]:
    return {str(m.path): m for m in mounts}


def test_octal_escapes_become_characters_and_broken_lines_hide_nothing():
    mounts = by_path(parse_mountinfo(MOUNTINFO))
    assert mounts["/mnt/my disk"].device == "/dev/vdb"
    assert mounts["/merged"].option("lowerdir") == "/l:a:/b"
    assert "/odd" not in mounts
    assert len(mounts) == 11 - 1  # two lines share /dev/shm


def test_read_only_and_noexec_are_seen_on_the_mount_and_on_the_file_system():
    mounts = parse_mountinfo(MOUNTINFO)
    assert by_path(mounts)["/mnt/my disk"].read_only
    assert mounts[2].no_exec
    assert not by_path(mounts)["/"].read_only


@pytest.mark.parametrize(
    ("path", "network", "in_memory", "fuse"),
    [
        ("/", False, False, False),
        ("/dev/shm", False, True, False),
        ("/merged", False, False, False),
        ("/workspace", True, False, True),
        ("/home/nfs", True, False, False),
    ],
)
def test_the_kind_of_a_file_system_is_known_by_its_name(path, network, in_memory, fuse):
    mount = by_path(parse_mountinfo(MOUNTINFO))[path]
    assert (mount.network, mount.in_memory, mount.fuse) == (network, in_memory, fuse)


@pytest.mark.parametrize(
    ("fs_type", "device", "network"),
    [
        ("fuse.sshfs", "me@host:/data", True),
        ("fuse", "drive", True),
        ("fuse.unheard-of", "server.example:/x", True),
        ("fuse.unheard-of", "s3://bucket", True),
        ("fuse.gocryptfs", "/home/me/secret", False),
        ("fuseblk", "/dev/sdb1", False),
        ("fuse.fuse-overlayfs", "fuse-overlayfs", False),
        ("lustre", "10.0.0.1@o2ib:/scratch", True),
        ("9p", "C:\\", True),
        ("zfs", "tank/data", False),
    ],
)
def test_an_unknown_fuse_mount_is_remote_when_its_device_is_an_address(fs_type, device, network):
    assert kinds.is_network(fs_type, device) == network


def test_a_later_mount_hides_the_earlier_one_on_its_path_and_below():
    mounts = visible(parse_mountinfo(MOUNTINFO))
    shm = [m for m in mounts if m.path == Path("/dev/shm")]
    assert [m.option("size") for m in shm] == ["1024k"]
    text = (
        MOUNTINFO.splitlines()[0]
        + "\n"
        + "\n".join(
            f"{40 + i} 22 0:{70 + i} / {path} rw - tmpfs tmpfs rw"
            for i, path in enumerate(("/a", "/a/b", "/a"))
        )
    )
    assert [str(m.path) for m in visible(parse_mountinfo(text))] == ["/", "/a"]


def mount(path: str, number: int, fs_type: str = "ext4") -> Mount:
    return Mount(path=Path(path), device="d", fs_type=fs_type, device_number=number)


def test_the_mount_of_a_path_has_the_longest_prefix_and_the_paths_device():
    mounts = (mount("/", 1), mount("/data", 2), mount("/data/big", 3), mount("/database", 4))
    assert pick(mounts, Path("/data/big/x"), 3).path == Path("/data/big")
    assert pick(mounts, Path("/data/bigger"), 2).path == Path("/data")
    assert pick(mounts, Path("/database/x"), 4).path == Path("/database")
    # The mount on /data/big was hidden from this process when it opened the path.
    assert pick(mounts, Path("/data/big/x"), 2).path == Path("/data")


def test_a_btrfs_subvolume_has_a_device_number_that_no_mount_has():
    mounts = (mount("/", 1), mount("/vol", 2, "btrfs"))
    assert pick(mounts, Path("/vol/sub/x"), 77).path == Path("/vol")


def test_a_firmlink_leads_to_the_volume_of_its_device():
    mounts = (mount("/", 1, "apfs"), mount("/System/Volumes/Data", 2, "apfs"))
    assert pick(mounts, Path("/Users/me"), 2).path == Path("/System/Volumes/Data")
    assert pick(mounts, Path("/usr/bin"), 1).path == Path("/")


def test_mount_of_macos_is_read():
    # Lines as mount(8) of macOS 14 prints them.
    text = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect, root data)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@nas/models (2) on /Volumes/models (2) (smbfs, nodev, nosuid, mounted by me)
""".strip()
    root, devfs, data, auto, share = parse_mount(text)
    assert (root.fs_type, root.read_only) == ("apfs", True)
    assert kinds.is_pseudo(devfs.fs_type)
    assert kinds.is_pseudo(auto.fs_type)
    assert not data.read_only
    assert (str(share.path), share.network) == ("/Volumes/models (2)", True)


def test_the_real_mount_of_a_path_has_its_free_space(tmp_path):
    found = system.mount_of(tmp_path)
    space = os.statvfs(tmp_path)
    assert found.total_bytes == space.f_blocks * space.f_frsize
    assert tmp_path.resolve().is_relative_to(found.path)
    assert found.path in {m.path for m in system.mounts()}


def test_a_path_that_does_not_exist_belongs_to_the_mount_of_its_parent(tmp_path):
    below, above = system.mount_of(tmp_path / "a" / "b"), system.mount_of(tmp_path)
    assert (below.path, below.mount_id) == (above.path, above.mount_id)
    (tmp_path / "file").write_text("")
    assert existing_parent(tmp_path / "file" / "x") == (tmp_path / "file").resolve()
    (tmp_path / "link").symlink_to("nowhere/at/all")
    assert existing_parent(tmp_path / "link") == tmp_path.resolve()


def test_a_path_that_cannot_be_a_path_is_an_error_with_a_remedy():
    with pytest.raises(StorageError) as raised:
        system.mount_of("nul\0byte")
    assert raised.value.remedy


def test_what_hangs_is_given_up():
    assert within(0.05, lambda: time.sleep(1)) is None
    assert within(5, lambda: 3) == 3


@pytest.mark.root
def test_real_mounts_show_their_options_and_links_lead_to_them(tmp_path):
    with tmpfs(tmp_path / "a b", "size=4m,nr_inodes=99,noexec,ro") as place:
        found = system.mount_of(place / "missing")
        assert found.path == place
        assert (found.in_memory, found.read_only, found.no_exec) == (True, True, True)
        assert found.total_bytes == 4 * 2**20
        assert found.free_inodes == 98
        (tmp_path / "link").symlink_to(place)
        assert system.mount_of(tmp_path / "link").path == place


@pytest.mark.root
def test_a_bind_mount_is_told_from_its_source(tmp_path):
    need("mount")
    source = tmp_path / "source" / "deep"
    source.mkdir(parents=True)
    with mounted(tmp_path / "bound", "--bind", str(source)) as place:
        found = system.mount_of(place)
        assert found.path == place
        assert found.root.endswith("/source/deep")
        # The same device by another path is another mount: prefix alone or device alone would err.
        assert system.mount_of(source).path != place
        assert place.stat().st_dev == source.stat().st_dev


@pytest.mark.root
def test_of_two_mounts_on_one_path_the_upper_one_counts(tmp_path):
    with tmpfs(tmp_path / "m", "size=4m"), tmpfs(tmp_path / "m", "size=2m") as place:
        assert system.mount_of(place).total_bytes == 2 * 2**20
        same = [m for m in system.mounts() if m.path == place]
        assert [m.total_bytes for m in same] == [2 * 2**20]


@pytest.mark.root
def test_a_real_overlay_and_a_real_subvolume_find_their_mounts(tmp_path):
    with overlay(tmp_path / "o") as place:
        (place / "x").mkdir()
        assert system.mount_of(place / "x").fs_type == "overlay"
    with btrfs_with_quota(tmp_path / "b", 20_000_000) as sub:
        found = system.mount_of(sub / "new")
        assert (found.path, found.fs_type, found.free_inodes) == (tmp_path / "b", "btrfs", None)


def test_a_directory_that_may_not_be_entered_hides_what_exists(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    if os.geteuid() != 0:
        pytest.skip("only another user finds it closed")
    printed = as_nobody(
        "import gradience.system.linux\nfrom gradience import system\n"
        "from gradience.errors import StorageError\n###\n"
        f"try: system.mount_of({str(closed / 'x')!r})\n"
        "except StorageError as error: print(error.remedy)",
        Path("/"),
    )
    assert "may enter" in printed


@pytest.mark.root
def test_a_mount_that_may_not_be_looked_at_hides_no_other(tmp_path):
    closed = tmp_path / "closed"
    (closed / "m").mkdir(parents=True)
    with tmpfs(closed / "m", "size=1m"):
        closed.chmod(0o700)
        printed = as_nobody(
            "import gradience.system.linux\nfrom gradience import system\n###\n"
            "print(len(system.mounts()))",
            Path("/"),
        )
    assert int(printed) >= 1
