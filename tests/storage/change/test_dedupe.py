"""Equal files share their bytes, and nobody can tell, or they stay as they are, with the reason."""

import fcntl
import hashlib
import mmap
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from factories_caches import HubMaker, commit_of
from factories_changes import carry_out, dedupe_plan, holding, nobody, states
from factories_disks import btrfs_with_quota, fuse_without_locks, tmpfs
from gradience import system
from gradience.files import contents, sharing
from gradience.storage.change.journal import BEGUN, DiskJournal

DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


def two_hubs(root: Path, *, shared: bool = False) -> tuple[Path, Path]:
    for name in ("one", "two"):
        HubMaker(root / name, shared=shared).add("org/m", "a", {"w": DATA, "c.json": b"{}"})
    return root / "one", root / "two"


def blob(hub: Path) -> Path:
    return hub / "models--org--m" / "blobs" / DIGEST


def local_dir(directory: Path) -> Path:
    """A `local_dir` download of the same file, as the client notes it."""
    note = directory / ".cache" / "huggingface" / "download" / "w.metadata"
    note.parent.mkdir(parents=True)
    (directory / "w").write_bytes(DATA)
    note.write_text(f"{commit_of('a')}\n{DIGEST}\n1.0\n")
    return directory


def ollama(models: Path) -> Path:
    (models / "blobs").mkdir(parents=True)
    (models / "blobs" / f"sha256-{DIGEST}").write_bytes(DATA)
    return models


def loads(*hubs: Path) -> None:
    """The real client has every revision, without a network."""
    code = (
        "import sys; from pathlib import Path; from huggingface_hub import snapshot_download as d\n"
        "for hub in sys.argv[1:]:\n"
        "    f = Path(d('org/m', cache_dir=hub, local_files_only=True))\n"
        "    print(len((f / 'w').read_bytes()), (f / 'c.json').read_text())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, *map(str, hubs)], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["300000", "{}"] * len(hubs)


@pytest.mark.parametrize("shared", [False, True], ids=["per_repo", "store"])
def test_two_caches_and_ollama_come_to_share_one_inode_and_a_second_run_finds_nothing(
    tmp_path, shared
):
    one, two = two_hubs(tmp_path, shared=shared)
    store = ollama(tmp_path / "ollama")
    plan = dedupe_plan(one, two, ollama=(store,))
    assert {action.verb for action in plan.actions} == {"hardlink"}
    receipt = carry_out(plan)
    assert receipt.complete, receipt
    assert receipt.freed >= plan.frees_bytes >= 600_000
    inodes = {p.stat().st_ino for p in (blob(one), blob(two), *(store / "blobs").iterdir())}
    assert len(inodes) == 1
    loads(one, two)
    assert not dedupe_plan(one, two, ollama=(store,)).actions
    assert not (one / ".gradience").exists()


def test_where_names_cannot_be_swapped_they_come_to_share_one_inode_too(tmp_path):
    with fuse_without_locks(tmp_path / "m") as mount:
        one, two = two_hubs(mount)
        receipt = carry_out(dedupe_plan(one, two))
        assert receipt.complete, receipt
        assert blob(one).samefile(blob(two))
        assert not dedupe_plan(one, two).actions
        assert not (two / ".gradience").exists()


def test_where_a_hard_link_is_not_told_from_a_copy_it_stays_and_says_so(tmp_path):
    with fuse_without_locks(tmp_path / "m", looks="unlinked") as mount:
        one, two = two_hubs(mount)
        receipt = carry_out(dedupe_plan(one, two))
        assert "this mount cannot swap names" in str(receipt.outcomes[0].reasons)
        assert blob(two).read_bytes() == DATA
        assert not (two / ".gradience").exists()


def test_a_name_that_lies_about_its_content_is_found_out_and_nothing_is_lost(tmp_path):
    one, two = two_hubs(tmp_path)
    wrong = bytearray(DATA)
    wrong[-1] ^= 1
    blob(two).write_bytes(wrong)
    receipt = carry_out(dedupe_plan(one, two))
    assert "its bytes differ" in str(receipt.outcomes)
    assert "failed" not in states(receipt)
    assert (blob(one).read_bytes(), blob(two).read_bytes()) == (DATA, bytes(wrong))
    assert blob(one).stat().st_nlink == blob(two).stat().st_nlink == 1


@pytest.mark.parametrize("gone", ["copy", "original"])
def test_what_another_cleaner_just_removed_is_skipped_and_no_failure(tmp_path, gone):
    one, two = two_hubs(tmp_path)
    plan = dedupe_plan(one, two)
    plan = msgspec.structs.replace(plan, actions=plan.actions[:1], items=plan.items[:1])
    (action,) = plan.actions
    path = Path(action.where if gone == "copy" else action.target)

    class Gone(DiskJournal):
        def step(self, index: int, state: bytes) -> None:
            super().step(index, state)
            if state == BEGUN:
                path.unlink()

    receipt = carry_out(plan, new_journal=Gone)
    assert (states(receipt), receipt.freed) == (["skipped"], 0)


def test_what_is_written_in_place_or_is_unlike_stays_and_says_why(tmp_path):
    one, two = two_hubs(tmp_path)
    directory = local_dir(tmp_path / "project" / "model")
    blob(two).chmod(0o600)
    plan = dedupe_plan(one, two, projects=(tmp_path / "project",))
    assert not any(DIGEST in action.path for action in plan.actions)
    why = {kept.name: (kept.code, kept.why) for kept in plan.kept}
    assert why[str(directory / "w")][0] == "in_place"
    assert "no reflinks" in why[str(directory / "w")][1]
    code, words = why[f"org/m/w in {two}"]
    assert (code, "(0600, not 0644)" in words) == ("unlike", True)


@pytest.mark.root
def test_owners_are_respected_and_another_disk_is_named(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("gives a file away")
    one, two = two_hubs(tmp_path)
    os.chown(blob(two), 65534, 65534)
    assert dedupe_plan(one, two).kept[0].code == "unlike"
    with tmpfs(tmp_path / "m") as disk:
        HubMaker(disk / "hub").add("org/m", "a", {"w": DATA})
        assert "other_disk" in {kept.code for kept in dedupe_plan(one, disk / "hub").kept}


@pytest.mark.parametrize("what", ["changed", "open", "mode", "link"])
def test_what_is_otherwise_by_the_time_of_the_act_stays(tmp_path, what):
    one, two = two_hubs(tmp_path)
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    plan = dedupe_plan(one, two)
    copy = Path(plan.actions[0].where)
    holders = nobody
    if what == "changed":
        copy.write_bytes(b"other")
    elif what == "open":
        held = holding(copy)
        holders = lambda: held  # noqa: E731
    elif what == "mode":
        copy.chmod(0o600)
    else:
        copy.unlink()
        copy.symlink_to(outside)
    before = copy.lstat().st_ino, copy.read_bytes()
    receipt = carry_out(plan, holders=holders)
    assert states(receipt)[0] == "skipped"
    assert (copy.lstat().st_ino, copy.read_bytes()) == before
    assert outside.read_bytes() == b"precious"


def test_beside_a_mapped_reader_and_a_download_nothing_is_swapped(tmp_path):
    one, two = two_hubs(tmp_path)
    plan = dedupe_plan(one, two)
    copy = Path(plan.actions[0].where)
    with copy.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        file.close()
        receipt = carry_out(plan, holders=system.holders)
        assert "mapped" in str(receipt.outcomes[0].reasons)
        assert mapped[:] == DATA
    copy = Path(dedupe_plan(one, two).actions[0].where)
    lock = copy.parents[2] / ".locks" / "models--org--m" / f"{copy.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        receipt = carry_out(dedupe_plan(one, two))
        assert "a download holds its lock" in str(receipt.outcomes[0].reasons)
    assert carry_out(dedupe_plan(one, two)).complete
    loads(one, two)


@pytest.mark.root
def test_with_reflinks_files_stay_their_own_and_the_disk_has_more_room(tmp_path):
    with btrfs_with_quota(tmp_path / "disk", 2**27) as disk:
        if not sharing.can_share(str(disk)):
            pytest.skip("no reflinks here")
        one, _ = two_hubs(disk)
        directory = local_dir(disk / "project" / "model")
        os.chown(directory / "w", 65534, 65534)
        (directory / "w").chmod(0o600)
        subprocess.run(["sync", "-f", str(disk)], check=True)
        before = (directory / "w").lstat()
        plan = dedupe_plan(one, projects=(disk / "project",))
        assert [action.verb for action in plan.actions] == ["reflink"]
        receipt = carry_out(plan)
        assert receipt.complete, receipt
        assert receipt.freed == 300_000
        after = (directory / "w").lstat()
        keep = [(s.st_ino, s.st_mode, s.st_uid, s.st_mtime_ns) for s in (before, after)]
        assert keep[0] == keep[1]
        subprocess.run(["sync", "-f", str(disk)], check=True)
        assert not dedupe_plan(one, projects=(disk / "project",)).actions  # they share already
        with (directory / "w").open("r+b") as file:
            file.write(b"mine")
        assert blob(one).read_bytes() == DATA


@pytest.mark.root
def test_the_kernel_refuses_to_share_what_differs(tmp_path):
    with btrfs_with_quota(tmp_path / "disk", 2**27) as disk:
        one, two = two_hubs(disk)
        wrong = bytearray(DATA)
        wrong[-1] ^= 1
        blob(two).write_bytes(wrong)
        subprocess.run(["sync", "-f", str(disk)], check=True)
        receipt = carry_out(dedupe_plan(one, two))
        assert not receipt.complete
        assert "its bytes differ" in str(receipt.outcomes)
        assert (blob(one).read_bytes(), blob(two).read_bytes()) == (DATA, bytes(wrong))


def test_copies_and_comparisons_see_through_holes(tmp_path):
    size = 9_000_000
    for name, at in (("sparse", 5_000_000), ("other", 5_000_001)):
        with (tmp_path / name).open("wb") as file:
            file.seek(at)
            file.write(b"x")
            file.truncate(size)
    dense = bytearray(size)
    dense[5_000_000] = ord("x")
    (tmp_path / "dense").write_bytes(dense)
    opened = {n: os.open(tmp_path / n, os.O_RDONLY) for n in ("sparse", "other", "dense")}
    assert contents.same(opened["sparse"], opened["dense"], size)
    assert not contents.same(opened["sparse"], opened["other"], size)
    made = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    contents.copy(opened["sparse"], made, size)
    assert contents.same(made, opened["dense"], size)
    assert os.fstat(made).st_blocks < 1000
    assert stat.S_ISREG(os.fstat(made).st_mode)
    for descriptor in (*opened.values(), made):
        os.close(descriptor)
