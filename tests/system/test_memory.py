import os
from pathlib import Path

import pytest

from gradience.errors import UsageError
from gradience.system import Mount, memory
from gradience.system.kubernetes import ephemeral_limit, is_ephemeral
from gradience.system.reserve import may_use_reserve


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_of_nested_groups_of_v2_the_tightest_counts_and_page_cache_gives_way(tmp_path):
    cgroups = tree(
        tmp_path / "cg",
        {
            "cgroup.controllers": "memory\n",
            "pod/memory.max": "1000000\n",
            "pod/memory.current": "950000\n",
            "pod/memory.stat": "anon 1\ninactive_file 50000\nactive_file 9\n",
            "pod/box/memory.max": "max\n",
            "pod/box/memory.high": "5000000\n",
            "pod/box/memory.current": "900000\n",
        },
    )
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/pod/box\n"})
    limit = memory.memory_limit(cgroups, proc)
    assert limit.source == str(cgroups / "pod" / "memory.max")
    assert limit.free_bytes == 1000000 - (950000 - 50000)


def test_in_a_container_the_own_path_may_lie_outside_of_the_mount(tmp_path):
    cgroups = tree(
        tmp_path / "cg",
        {"cgroup.controllers": "", "memory.max": "4096", "memory.current": "5000"},
    )
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/../../elsewhere/docker-1.scope\n"})
    assert memory.memory_limit(cgroups, proc).free_bytes == 0


def test_version_1_prints_a_huge_number_for_no_limit(tmp_path):
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "1\n",
        "memory/job/memory.limit_in_bytes": "8000\n",
        "memory/job/memory.usage_in_bytes": "6000\n",
        "memory/job/memory.stat": "inactive_file 7\ntotal_inactive_file 1000\n",
    }
    cgroups = tree(tmp_path / "cg", files)
    inside = tree(tmp_path / "in", {"self/cgroup": "9:cpu:/\n4:memory:/job\n0::/\n"})
    outside = tree(tmp_path / "out", {"self/cgroup": "4:memory:/\n"})
    assert memory.memory_limit(cgroups, inside).free_bytes == 3000
    assert memory.memory_limit(cgroups, outside) is None


def test_without_cgroups_there_is_no_limit_and_without_proc_no_figure(tmp_path):
    assert memory.memory_limit(tmp_path, tmp_path) is None
    assert memory.available(tmp_path) is None


def test_available_memory_is_in_bytes(tmp_path):
    proc = tree(tmp_path, {"meminfo": "MemTotal: 9 kB\nMemAvailable:   2048 kB\n"})
    assert memory.available(proc) == 2 * 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1073741824", 2**30),
        ("20Gi", 20 * 2**30),
        ("1.5G", 1_500_000_000),
        ("2e3", 2000),
        ("100k", 100_000),
        ("5000m", 5),
    ],
)
def test_quantities_of_kubernetes(text, size):
    assert ephemeral_limit(text) == size


def test_a_downward_api_file_is_read_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "limit").write_text("10Gi\n")
    assert ephemeral_limit(str(tmp_path / "limit")) == 10 * 2**30
    with pytest.raises(UsageError, match="missing"):
        ephemeral_limit(str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="'lots'"):
        ephemeral_limit("lots")


def test_the_layer_of_the_container_and_emptydir_are_ephemeral_and_a_claim_is_not():
    def mount(fs_type: str, root: str) -> Mount:
        return Mount(path=Path("/x"), device="d", fs_type=fs_type, root=root)

    empty = "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~empty-dir/scratch"
    claim = "/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/pvc-1/mount"
    assert is_ephemeral(mount("overlay", "/"))
    assert is_ephemeral(mount("ext4", empty))
    assert not is_ephemeral(mount("ext4", claim))


def proc(root: Path, *, capabilities: str = "0", uid_map: str = "0 0 4294967295") -> Path:
    return tree(
        root, {"self/status": f"CapEff:\t{capabilities}\n", "self/uid_map": f"   {uid_map}\n"}
    )


def ext4(*options: str) -> Mount:
    return Mount(path=Path("/x"), device="/dev/x", fs_type="ext4", options=options)


def test_the_reserve_belongs_to_its_user_its_group_and_the_capability(tmp_path):
    nobody = f"resuid={os.geteuid() + 1}"
    plain = proc(tmp_path / "plain")
    assert not may_use_reserve(ext4(nobody), plain)
    assert may_use_reserve(ext4(f"resuid={os.geteuid()}"), plain)
    assert may_use_reserve(ext4(nobody), proc(tmp_path / "cap", capabilities="0000000001000000"))
    if os.getegid() != 0:
        assert may_use_reserve(ext4(nobody, f"resgid={os.getegid()}"), plain)
    else:  # the group 0 is the default, and stands for none
        assert not may_use_reserve(ext4(nobody, "resgid=0"), plain)


def test_the_reserve_is_not_for_root_of_a_user_namespace_nor_on_other_file_systems(tmp_path):
    mapped = proc(tmp_path / "ns", capabilities="000001ffffffffff", uid_map="0 100000 65536")
    everything = proc(tmp_path / "all", capabilities="000001ffffffffff")
    assert not may_use_reserve(ext4(), mapped)
    assert may_use_reserve(ext4(), everything)
    xfs = Mount(path=Path("/x"), device="/dev/x", fs_type="xfs")
    assert not may_use_reserve(xfs, everything)
