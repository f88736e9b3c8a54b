import os
import stat
import struct
import subprocess
import time
from pathlib import Path

import pytest

from factories_disks import btrfs_with_quota, tmpfs
from gradience import system
from gradience.system import Mount
from gradience.system.quota import SOURCES, beegfs, btrfs, cephfs, gpfs, kernel, lustre, nfs
from gradience.system.quota.tool import charged_group, say

KIB = 1024

# lfs-quota(1) and the Lustre Operations Manual, chapter 25.5 "Quota Administration".
LUSTRE = """\
Disk quotas for usr bob (uid 500):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
    /mnt/lustre  307200* 300000  310000 6d23h59m50s   10101   10000   11000       -
"""
LUSTRE_WRAPPED = """\
Disk quotas for prj 1000 (pid 1000):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
/scratch/a/very/long/name/of/a/file/system
                [1041408]  5242880 6291456       -     [0]       0       0       -
Some errors happened when getting quota info. Some devices may be not working or deactivated.
The data in "[]" is inaccurate.
pid 1000 is using default file quota setting
"""
LUSTRE_NONE = """\
Disk quotas for grp lab (gid 7):
     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
       /lustre7 982177580       0       0       - 443208230       0       0       -
"""


def test_lustre_limits_are_in_kib_and_an_excess_is_marked_by_a_star():
    limit = lustre.parse(LUSTRE, scope="user", name="500")
    assert (limit.used_bytes, limit.limit_bytes) == (307200 * KIB, 310000 * KIB)
    assert (limit.used_inodes, limit.limit_inodes) == (10101, 11000)
    assert (limit.free_bytes, limit.soft) == (2800 * KIB, False)


def test_lustre_says_when_a_target_is_missing_and_a_long_name_breaks_the_line():
    limit = lustre.parse(LUSTRE_WRAPPED, scope="project", name="1000")
    assert (limit.used_bytes, limit.limit_bytes) == (1041408 * KIB, 6291456 * KIB)
    assert limit.limit_inodes is None
    assert "inaccurate" in limit.note


@pytest.mark.parametrize("output", [LUSTRE_NONE, "", "lfs quota: not on a Lustre file system\n"])
def test_lustre_without_a_limit_is_no_limit(output):
    assert lustre.parse(output, scope="group", name="7") is None


def test_the_lustre_project_of_a_directory():
    assert lustre.parse_project(" 1000 P /scratch/lab\n") == "1000"
    assert lustre.parse_project("    0 - /scratch/me\n") == ""
    assert lustre.parse_project("lfs: no such thing") == ""


# IBM Storage Scale Command Reference, mmlsquota, "-Y"; the columns grew between releases.
GPFS = """\
mmlsquota::HEADER:version:reserved:reserved:filesystemName:quotaType:id:name:blockUsage:\
blockQuota:blockLimit:blockInDoubt:blockGrace:filesUsage:filesQuota:filesLimit:filesInDoubt:\
filesGrace:remarks:quota:defQuota:fid:filesetname:
mmlsquota::0:1:::gpfs0:USR:1001:alice:1048576:2097152:3145728:1024:none:1000:0:5000:5:none:e:on:off:::
mmlsquota::0:1:::gpfs0:GRP:100:lab:1:0:0:0:none:1:0:0:0:none:e:on:off:::
mmlsquota::0:1:::gpfs0:FILESET:3:models:10:20:0:0:none:1:0:0:0:none:e:on:off:3:team%3Amodels:
mmlsquota::0:1:::gpfs1:USR:1001:alice:10:20:30:0:2 days:1:0:0:0:none:e:on:off:::
"""


def test_gpfs_fields_are_found_by_their_names_and_shares_in_doubt_are_spent():
    user, fileset = gpfs.parse(GPFS, "gpfs0")
    assert user.used_bytes == (1048576 + 1024) * KIB
    assert user.limit_bytes == 3145728 * KIB
    assert (user.used_inodes, user.limit_inodes) == (1005, 5000)
    assert (fileset.scope, fileset.name, fileset.soft) == ("fileset", "team:models", True)
    assert gpfs.parse("mmlsquota: command failed\n", "gpfs0") == ()


# BeeGFS, ModeGetQuotaInfo.cpp, prints this heading; figures as sites show them.
BEEGFS = """\

Quota information for storage pool Default (ID: 1):

name,id,size,hard,files,hard
alice,1000,2791507521536,5497558138880,873812,unlimited
bob,1001,1,2,3,4
"""


def test_beegfs_rows_of_others_and_unlimited_do_not_count():
    (limit,) = beegfs.parse(BEEGFS, scope="user", owner=1000)
    assert (limit.used_bytes, limit.limit_bytes) == (2791507521536, 5497558138880)
    assert (limit.used_inodes, limit.limit_inodes) == (873812, None)
    assert "chunk" in limit.note
    assert beegfs.parse("alice,1000,5,0,3,unlimited\n", scope="user", owner=1000) == ()


# quota(1) of linuxquota, `quota -w -p -g`.
NFS = """\
Disk quotas for group users (gid 100): none
Disk quotas for group lab (gid 2000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
filer:/export/home 4812892* 4000000 5500000 1790000000   45123       0       0       0
filer:/export/other 1 2 3 0 4 5 6 0
Disk quotas for group gpu (gid 3000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
filer:/export/home 7 0 9 0 1 0 0 0
"""


def test_nfs_quota_is_that_of_the_device_and_of_the_owner():
    limit = nfs.parse(NFS, device="filer:/export/home", scope="group", owner=2000)
    assert (limit.used_bytes, limit.limit_bytes) == (4812892 * KIB, 5500000 * KIB)
    assert limit.limit_inodes is None
    other = nfs.parse(NFS, device="filer:/export/home", scope="group", owner=3000)
    assert other.free_bytes == 2 * KIB
    assert nfs.parse(NFS, device="filer:/export/home", scope="group", owner=100) is None


# btrfs-qgroup(8), `btrfs qgroup show -reF --raw`, btrfs-progs 6.
BTRFS = """\
Qgroupid    Referenced    Exclusive   Max referenced   Max exclusive   Path
--------    ----------    ---------   --------------   -------------   ----
0/256         16400384     16400384         20971520            none   sub
1/0           16416768        16384             none        30000000   <0 member qgroups>
"""


def test_btrfs_groups_limit_referenced_or_exclusive_bytes():
    referenced, exclusive = btrfs.parse(BTRFS)
    assert (referenced.name, referenced.free_bytes) == ("0/256 (referenced)", 20971520 - 16400384)
    assert (exclusive.name, exclusive.free_bytes) == ("1/0 (exclusive)", 30000000 - 16384)


def test_cephfs_attributes_of_zero_are_no_quota():
    names = ("ceph.quota.max_bytes", "ceph.quota.max_files", "ceph.dir.rbytes", "ceph.dir.rentries")
    full = dict(zip(names, (1000, 50, 400, 7), strict=True))
    limit = cephfs.limit_from(full, "/ceph/lab")
    assert (limit.free_bytes, limit.free_inodes) == (600, 43)
    assert cephfs.limit_from({names[0]: 0, names[1]: 0}, "/ceph/lab") is None
    unknown = cephfs.limit_from({names[0]: 1000}, "/ceph/lab")
    assert unknown.free_bytes is None, "without usage, what is left is not known"


def test_cephfs_attributes_are_read_upwards(tmp_path):
    """The names belong to CephFS; that no other file system answers to them is no failure."""
    mount = system.mount_of(tmp_path)
    assert cephfs.ask(tmp_path, mount) == system.QuotaAnswer()
    assert cephfs.upwards(Path("/ceph/a/b"), Path("/ceph/a")) == (
        Path("/ceph/a/b"),
        Path("/ceph/a"),
    )


def usage(**changes: int) -> kernel.Usage:
    fields = dict.fromkeys(
        ("hard_bytes", "soft_bytes", "used_bytes", "hard_inodes", "soft_inodes", "used_inodes"), 0
    )
    return kernel.Usage(**(fields | {"bytes_due": 0, "inodes_due": 0} | changes))


def test_the_kernels_record_has_limits_in_kib_and_usage_in_bytes():
    data = struct.pack("=8QI", 100, 80, 4096, 50, 40, 7, 0, 0, 63)
    assert kernel.unpack_generic(data) == usage(
        hard_bytes=100 * KIB, soft_bytes=80 * KIB, used_bytes=4096,
        hard_inodes=50, soft_inodes=40, used_inodes=7,
    )  # fmt: skip


def test_the_record_of_xfs_counts_blocks_of_512_bytes():
    data = struct.pack("=bbHI6Qii", 1, 1, 0, 1000, 200, 160, 50, 40, 8, 7, 11, 22) + bytes(48)
    assert kernel.unpack_xfs(data) == usage(
        hard_bytes=200 * 512, soft_bytes=160 * 512, used_bytes=8 * 512,
        hard_inodes=50, soft_inodes=40, used_inodes=7, inodes_due=11, bytes_due=22,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "limit", "soft"),
    [
        ({"hard_bytes": 100, "soft_bytes": 80, "used_bytes": 10}, 100, False),
        ({"soft_bytes": 80, "used_bytes": 10}, 80, True),
        ({"hard_bytes": 100, "soft_bytes": 80, "used_bytes": 90, "bytes_due": 2000}, 100, False),
        ({"hard_bytes": 100, "soft_bytes": 80, "used_bytes": 90, "bytes_due": 1000}, 80, True),
    ],
)
def test_a_soft_limit_holds_when_its_grace_is_over(changes, limit, soft):
    found = kernel.limit_from(usage(**changes), scope="user", name="0", now=1500.0)
    assert (found.limit_bytes, found.soft) == (limit, soft)


def test_a_record_without_limits_is_no_quota():
    assert kernel.limit_from(usage(used_bytes=5), scope="user", name="0", now=0.0) is None


def test_asking_the_kernel_never_fails(tmp_path):
    mount = system.mount_of(tmp_path)
    answer = kernel.ask(tmp_path, mount)
    assert all(limit.source == "quotactl" for limit in answer.limits)
    assert kernel.ask(tmp_path / "missing", mount).unasked


def test_a_file_system_without_quotas_has_an_empty_answer():
    assert system.quotas("/proc") == system.QuotaAnswer()


@pytest.mark.parametrize("fs_type", list(SOURCES))
def test_every_source_answers_for_a_path_where_its_tool_is_missing(fs_type, tmp_path):
    mount = Mount(path=tmp_path, device="server:/x", fs_type=fs_type)
    assert isinstance(SOURCES[fs_type](tmp_path, mount), system.QuotaAnswer)


def tool(directory: Path, script: str) -> str:
    path = directory / "tool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_tool_that_hangs_is_given_up(tmp_path):
    began = time.monotonic()
    said = say([tool(tmp_path, "exec sleep 30")], seconds=0.2)
    assert said.output is None
    assert "did not answer" in said.problem
    assert time.monotonic() - began < 5


def test_a_tool_that_fails_is_quoted_and_one_that_is_missing_is_named(tmp_path):
    said = say([tool(tmp_path, "echo no luck >&2; exit 3")])
    assert said.output is None
    assert said.problem.endswith("no luck")
    assert say(["no-such-tool-here"]).problem == "no-such-tool-here is not installed"
    assert say([tool(tmp_path, "echo $LC_ALL; exit 1")], statuses=(0, 1)).output == "C\n"


def test_a_setgid_directory_charges_its_own_group(tmp_path):
    assert charged_group(tmp_path) == os.getegid()
    if os.geteuid() == 0:
        try:
            os.chown(tmp_path, -1, 4242)
        except PermissionError:
            pytest.skip("this container's root may not give files to other groups")
        tmp_path.chmod(tmp_path.stat().st_mode | stat.S_ISGID)
        assert charged_group(tmp_path / "file") == 4242


@pytest.mark.root
def test_a_real_quota_group_of_btrfs_is_found_with_its_usage(tmp_path):
    with btrfs_with_quota(tmp_path / "b", 20 * 2**20) as sub:
        (sub / "deep").mkdir()
        (sub / "deep" / "file").write_bytes(os.urandom(5 * 2**20))
        subprocess.run(["sync"], check=True)
        (limit,) = system.quotas(sub / "deep").limits
        assert limit.limit_bytes == 20 * 2**20
        assert limit.used_bytes == pytest.approx(5 * 2**20, rel=0.02)
        assert system.quotas(sub.parent).limits == ()


@pytest.mark.root
def test_a_real_quota_of_tmpfs_is_found(tmp_path):
    """Linux 6.6 with CONFIG_TMPFS_QUOTA; quotactl_fd needs no device."""
    with tmpfs(tmp_path / "q", "size=8m,usrquota,usrquota_block_hardlimit=1m") as place:
        place.chmod(0o777)
        (limit,) = (q for q in system.quotas(place).limits if q.scope == "user")
        assert limit.limit_bytes == 2**20
