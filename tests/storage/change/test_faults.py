"""Disks that refuse: nothing is half-done, what was refused is named, the rest goes on."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from factories_caches import HubMaker
from factories_changes import carry_out, clean_plan, holding, names_below, plan_of, states, top
from factories_disks import as_nobody, btrfs_with_quota, mounted, need, tmpfs
from gradience.errors import StorageError
from gradience.files.below import Below, Removed
from gradience.storage.change.journal import DiskJournal
from gradience.storage.change.records import Plan
from gradience.storage.change.site import Site
from gradience.system.holders import Holders

FILES = {"w.safetensors": b"w" * 100_000, "config.json": b"{}"}


@pytest.mark.root
def test_a_read_only_disk_refuses_and_says_so(tmp_path):
    with tmpfs(tmp_path / "m") as disk:
        (disk / "a").write_bytes(b"x" * 5000)
        plan = plan_of(disk, "a")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageError, match="Read-only"):
            carry_out(plan)
        assert top(disk) == ["a"]


@pytest.mark.root
def test_another_file_system_below_is_not_touched(tmp_path):
    root = tmp_path / "root"
    (root / "a" / "inner").mkdir(parents=True)
    (root / "a" / "file").touch()
    plan = plan_of(root, "a")
    with tmpfs(root / "a" / "inner") as disk:
        (disk / "precious").touch()
        receipt = carry_out(plan)
        assert states(receipt) != ["done"]
        assert (disk / "precious").exists()
        assert carry_out(plan, in_place=True).outcomes[0].state != "done"
        assert (disk / "precious").exists()


@pytest.mark.root
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("planned", ["before", "after"])
def test_what_is_mounted_below_from_the_same_disk_is_not_touched(tmp_path, in_place, planned):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").touch()
    root = tmp_path / "root"
    (root / "a" / "inner").mkdir(parents=True)
    plan = plan_of(root, "a")
    with mounted(root / "a" / "inner", "--bind", str(precious)):
        if planned == "after":
            with pytest.raises(OSError, match="is mounted there"):
                plan_of(root, "a")
        receipt = carry_out(plan, in_place=in_place)
        assert states(receipt) != ["done"]
        assert (precious / "thesis").exists()


class _Fills(DiskJournal):
    """After the journal is written, somebody takes the last inodes of the disk."""

    def begin(self, site: Site, plan: Plan) -> None:
        super().begin(site, plan)
        with contextlib.suppress(OSError):
            for number in range(1000):
                Path(site.below.root, f"filler{number}").touch()


@pytest.mark.root
@pytest.mark.parametrize("used", [True, False])
def test_where_even_a_rename_finds_no_room_what_is_open_stays(tmp_path, used):
    long = "/".join("d" * 100 for _ in range(3))  # aside, such a name needs a new directory
    with tmpfs(tmp_path / "m", "size=1m,nr_inodes=30") as disk:
        (disk / long).mkdir(parents=True)
        file = disk / long / "w.safetensors"
        file.write_bytes(b"w" * 5000)
        held = holding(file) if used else Holders()
        receipt = carry_out(plan_of(disk, long), new_journal=_Fills, holders=lambda: held)
        assert states(receipt) == (["skipped"] if used else ["done"])
        assert file.exists() is used


@pytest.mark.root
def test_a_directory_that_may_not_be_written_keeps_its_files_and_the_rest_goes(tmp_path):
    root = tmp_path / "root"
    for name in ("mine/x", "theirs/x", "b"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 5000)
    for path in [root, *root.rglob("*")]:
        if path != root / "theirs":
            os.chown(path, 65534, 65534)
    for above in root.parents:
        if above.is_relative_to(tempfile.gettempdir()) and above != Path(tempfile.gettempdir()):
            above.chmod(0o755)
    printed = as_nobody(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path\n"
        "from factories_changes import carry_out, plan_of, states\n"
        "import gradience.storage.change.verbs.delete\n"
        "import gradience.storage.change.verbs.verb\n###\n"
        f"receipt = carry_out(plan_of(Path({str(root)!r}), 'theirs/x', 'mine', 'b'))\n"
        "print(states(receipt), 'ermission' in receipt.outcomes[0].reasons[0])",
        tmp_path,
    )
    assert printed == "['failed', 'done', 'done'] True\n"
    assert names_below(root) == {"theirs", "theirs/x"}


@pytest.mark.root
def test_a_disk_over_quota_is_cleaned_all_the_same(tmp_path):
    need("btrfs", "mkfs.btrfs")
    with btrfs_with_quota(tmp_path / "m", 20 * 2**20) as disk:
        hub = HubMaker(disk / "hub")
        hub.add("org/m", "a", {"w.bin": b"w" * 4_000_000})
        stays = hub.add("org/n", "b", {"v.bin": b"v" * 100_000})
        plan = clean_plan(hub.hub, names=["org/m"])
        with pytest.raises(OSError, match="quota"), (disk / "fill").open("wb", 0) as file:
            fill(file.fileno())
        carry_out(plan)
        assert not (hub.repo("org/m") / "snapshots").exists()
        assert not list((hub.repo("org/m")).glob("blobs/*"))
        assert (stays / "v.bin").read_bytes() == b"v" * 100_000


def fill(descriptor: int) -> None:
    """Write until the disk refuses; then once more, so that not even a small block is left."""
    size = 2**20
    while True:
        try:
            os.write(descriptor, b"x" * size)
            os.fsync(descriptor)
        except OSError:
            if size == 512:
                raise
            size = max(512, size // 8)


@pytest.mark.root
def test_a_disk_that_becomes_full_in_the_middle_ends_in_a_whole_state(tmp_path):
    with tmpfs(tmp_path / "m", "size=1m,nr_inodes=60") as disk:
        names = [f"{n:03}" for n in range(20)]
        for name in names:
            (disk / name).mkdir()
            (disk / name / "x").write_bytes(b"x" * 4096)

        class Filling(DiskJournal):
            """Takes every inode and every byte that is left once the change has begun."""

            def begin(self, site: Site, plan: Plan) -> None:
                super().begin(site, plan)
                with contextlib.suppress(OSError):
                    for number in range(100):
                        (disk / f"fill{number}").write_bytes(b"x" * 2**18)

        receipt = carry_out(plan_of(disk, *names), new_journal=Filling)
        assert states(receipt) == ["done"] * 20
        assert not {name.split("/")[0] for name in names_below(disk)} & set(names)


def test_two_cleaners_at_once_end_in_the_same_whole_cache(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    for number in range(6):
        hub.add(f"org/m{number}", "a", {**FILES, "n": bytes([number]) * 5000})
    stays = hub.add("org/stays", "b", FILES)
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path\n"
        "from gradience.errors import StorageError\n"
        "from factories_changes import carry_out, clean_plan\n"
        "plan = clean_plan(Path(sys.argv[1]), names=['org/m*'])\n"
        "print('ready', flush=True); input()\n"
        "try: carry_out(plan); print('done')\n"
        "except StorageError as error: print(error)\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, hub.hub],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in both]
    assert any(answer == "done\n" for answer in said)
    assert all(answer == "done\n" or "another process changes" in answer for answer in said)
    assert (stays / "w.safetensors").read_bytes() == FILES["w.safetensors"]
    carry_out(clean_plan(hub.hub, names=["org/m*"]))
    assert [n for n in top(hub.hub) if n.startswith("models--")] == ["models--org--stays"]


@pytest.mark.root
def test_a_bind_mounted_repo_is_left_alone(tmp_path):
    hub = HubMaker(tmp_path / "hub")
    hub.add("org/m", "a", FILES)
    other = tmp_path / "elsewhere"
    hub.repo("org/m").rename(other)
    hub.repo("org/m").mkdir()
    with mounted(hub.repo("org/m"), "--bind", str(other)):
        before = names_below(other)
        plan = clean_plan(hub.hub, names=["org/m"])
        assert [kept.code for kept in plan.kept] == ["refused"]
        carry_out(plan)
        assert names_below(other) == before


def test_what_is_swapped_for_a_link_while_a_tree_is_removed_leads_nowhere(tmp_path):
    """The last step removes from a place of our own, whose parts are opened without links."""
    from gradience.files.below import Below  # noqa: PLC0415

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "out").symlink_to(outside)
    with Below(str(root)) as below:
        for name in ("a/out/precious", "../outside/precious", "a/out/../precious"):
            with pytest.raises(OSError, match=r"Not a directory|no name|Too many|No such"):
                below.remove(name, Removed())
        below.remove("a", Removed())
    assert (outside / "precious").exists()


@pytest.mark.root
def test_a_directory_that_is_held_open_shows_what_was_added_since_on_btrfs_too(tmp_path):
    with btrfs_with_quota(tmp_path / "disk", 2**26) as disk, Below(str(disk)) as below:
        (disk / "repo").mkdir()
        assert below.entries("repo") == []
        (disk / "repo" / "link").symlink_to("blob")
        assert [name for name, _ in below.entries("repo")] == ["link"]
