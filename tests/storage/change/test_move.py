"""A moved cache loses nothing: not by a kill, a full disk, a writer, or what lies in it."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest

from factories_caches import HubMaker
from factories_changes import carry_out as clean
from factories_changes import holding, nobody, plan_of, top
from factories_disks import btrfs_with_quota, ext4, mounted, need, overlay, second_disk, tmpfs
from factories_moves import again, at, carry_out, dies, facts, fill, fill_few, killed_at, planned
from gradience.errors import ArtifactError, ExitCode, StorageError, UsageError
from gradience.storage.change.move.resume import abandon, resume
from gradience.storage.change.move.unfinished import find


@pytest.fixture
def disk(tmp_path: Path):
    """A directory on another disk, with nothing in it."""
    with second_disk(tmp_path) as directory:
        yield directory


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return fill(tmp_path / "a" / "hub")


def test_a_move_to_another_disk_keeps_everything_and_leaves_a_link(old, disk):
    before = facts(old)
    mode = old.stat().st_mode
    plan = planned(old, disk / "hub")
    receipt = carry_out(plan)
    assert receipt.complete
    assert receipt.freed >= plan.frees_bytes > 300_000
    assert old.readlink() == disk / "hub"
    assert facts(disk / "hub") == before
    assert (disk / "hub").stat().st_mode == mode
    assert (top(old.parent), top(disk)) == (["hub"], ["hub"])


def test_on_one_disk_it_is_one_rename(old, tmp_path):
    before, inode = facts(old), old.stat().st_ino
    (tmp_path / "new").mkdir()  # as `gradience env` makes it
    assert carry_out(planned(old, tmp_path / "new")).complete
    assert ((tmp_path / "new").stat().st_ino, old.readlink()) == (inode, tmp_path / "new")
    assert facts(tmp_path / "new") == before
    back = planned(tmp_path / "new", old)
    assert carry_out(back).complete
    assert (old.stat().st_ino, facts(old)) == (inode, before)


def killed_at_every_step(near: Path, far: Path) -> int:
    """Kill moves at each of their steps, and end them; how many steps there were."""
    for step in range(1000):
        old, new = fill_few(near / str(step) / "hub"), far / str(step) / "hub"
        new.parent.mkdir(exist_ok=True)
        before = facts(old)
        killed = dies(planned(old, new), step)
        assert facts(old) == before, step  # by the old name everything is there at every moment
        again(old, new)
        assert facts(new) == before, step
        if near != far:
            assert (top(old.parent), top(new.parent)) == (["hub"], ["hub"]), step
        if not killed:
            return step
        shutil.rmtree(new)
    raise AssertionError


def test_killed_at_any_step_the_same_command_ends_it_and_nothing_is_lost(tmp_path, disk):
    assert killed_at_every_step(tmp_path, disk) > 10


def test_killed_on_one_disk_it_is_moved_or_not(tmp_path):
    old, new = fill_few(tmp_path / "hub"), tmp_path / "new"
    before = facts(old)
    assert dies(planned(old, new), 0)  # the link to be swapped is there
    assert facts(old) == before
    again(old, new)
    assert (facts(new), old.readlink(), top(tmp_path)) == (before, new, ["hub", "new"])


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("kind", [ext4, overlay, lambda where: btrfs_with_quota(where, 2**26)])
def test_killed_at_any_step_on_other_file_systems(tmp_path, kind):
    with kind(tmp_path / "disk") as disk:
        assert killed_at_every_step(tmp_path / "near", disk) > 10


def test_what_was_copied_before_a_kill_is_not_copied_again(old, disk):
    new = disk / "hub"
    assert dies(planned(old, new), 12)
    (copied,) = disk.glob(".hub.gradience-move/copy/blobs/weights")
    inode = copied.stat().st_ino
    assert any("earlier try" in note for note in planned(old, new).notes)
    again(old, new)
    assert (new / "blobs" / "weights").stat().st_ino == inode


def test_a_copy_that_lies_about_its_time_is_found_out(old, disk):
    new = disk / "hub"
    assert dies(planned(old, new), 12)
    (copied,) = disk.glob(".hub.gradience-move/copy/blobs/weights")
    status = copied.stat()
    copied.chmod(0o644)
    copied.write_bytes(os.urandom(status.st_size))
    copied.chmod(0o444)
    os.utime(copied, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = facts(old)
    receipt = carry_out(planned(old, new))
    assert "other bytes" in receipt.outcomes[0].reasons[0]
    assert (facts(old), new.exists()) == (before, False)
    assert abandon(str(old), str(new)) > 300_000
    assert top(disk) == []
    assert carry_out(planned(old, new)).complete


def test_what_changed_after_the_plan_was_made_stays(old, disk):
    plan = planned(old, disk / "hub")
    (old / "late").write_bytes(b"late")
    receipt = carry_out(plan)
    assert "changed after the plan" in receipt.outcomes[0].reasons[0]
    assert (top(disk), old.is_symlink()) == ([], False)


def test_a_writer_while_it_is_copied_stops_it_and_a_second_try_has_it_all(old, disk):
    def write() -> None:
        (old / "late").write_bytes(b"late")

    receipt = carry_out(planned(old, disk / "hub"), reached=at("copied", write))
    assert receipt.outcomes[0].state == "skipped"
    assert "changed while it was copied" in receipt.outcomes[0].reasons[0]
    before = facts(old)
    again(old, disk / "hub")
    assert facts(disk / "hub") == before
    assert "late" in before


@pytest.mark.parametrize("step", ["placed", "linked"])
def test_a_writer_at_the_last_moment_has_the_swap_taken_back(old, disk, step):
    def write() -> None:
        (old / "late").write_bytes(b"late")

    receipt = carry_out(planned(old, disk / "hub"), reached=at(step, write))
    assert receipt.outcomes[0].state == "undone"
    assert (old / "late").read_bytes() == b"late"
    assert (top(old.parent), (disk / "hub").exists()) == (["hub"], False)
    before = facts(old)
    again(old, disk / "hub")
    assert facts(disk / "hub") == before


def test_a_writer_that_began_since_the_copy_never_sees_the_swap(old, disk):
    steps = []

    def reached(step: str) -> None:
        steps.append(step)
        if step == "placed":
            (old / "late").write_bytes(b"late")

    assert carry_out(planned(old, disk / "hub"), reached=reached).outcomes[0].state == "undone"
    assert "swapped" not in steps
    again(old, disk / "hub")
    assert (old / "late").read_bytes() == b"late"


def test_writers_at_both_places_lose_nothing(old, disk):
    def write() -> None:
        (old / "late").write_bytes(b"old")
        (disk / "hub" / "late").write_bytes(b"new")

    with pytest.raises(StorageError, match="both are kept"):
        carry_out(planned(old, disk / "hub"), reached=at("linked", write))
    aside = old.parent / ".hub.gradience-moved"
    assert (aside / "late").read_bytes() == b"old"
    assert (disk / "hub" / "late").read_bytes() == b"new"
    with pytest.raises(StorageError, match="both are kept"):
        resume(str(old), str(disk / "hub"), nobody)


def test_it_refuses_while_in_use_and_takes_back_what_was_opened_meanwhile(old, disk):
    weights = old / "blobs" / "weights"
    with pytest.raises(StorageError, match=r"in use: process 1 \(python\)"):
        planned(old, disk / "hub", holders=holding(weights))
    plan = planned(old, disk / "hub")
    held = holding(weights)
    assert carry_out(plan, holders=lambda: held).outcomes[0].state == "skipped"
    for look in (1, 2):  # the second and third of the three looks
        looks = [nobody()] * look + [held] * 9
        receipt = carry_out(planned(old, disk / "hub"), holders=iter(looks).__next__)
        assert receipt.outcomes[0].state == "undone"
        assert (old.is_symlink(), (disk / "hub").exists()) == (False, False)
    again(old, disk / "hub")


def test_a_plan_of_two_moves_is_refused(old, disk):
    plan = planned(old, disk / "hub")
    double = msgspec.structs.replace(plan, actions=plan.actions * 2)
    with pytest.raises(ArtifactError, match="more than one move"):
        carry_out(double)


def test_two_at_once_and_a_clean_meanwhile_are_kept_out(old, disk, tmp_path):
    said = []

    def others() -> None:
        for new in (disk / "hub", disk / "elsewhere", tmp_path / "new"):
            with pytest.raises(StorageError, match="another process"):
                carry_out(plan_to[new])
        with pytest.raises(StorageError, match="another process"):
            clean(plan_of(old, "sparse"))
        said.append("refused")

    plan_to = {n: planned(old, n) for n in (disk / "hub", disk / "elsewhere", tmp_path / "new")}
    assert carry_out(plan_to[disk / "hub"], reached=at("copied", others)).complete
    assert said == ["refused"]
    assert top(disk) == ["hub"]


def test_what_cannot_be_moved_without_loss_is_refused_with_its_name(tmp_path, disk):
    old = tmp_path / "hub"
    old.mkdir()
    (tmp_path / "beside").write_bytes(b"beside")
    (old / "out").symlink_to("../beside")
    with pytest.raises(StorageError, match=r"lead out of it.*out -> \.\./beside"):
        planned(old, disk / "hub")
    assert planned(old, tmp_path / "other").actions  # from beside it, the link still leads there
    (old / "out").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(old / "s"))
        with pytest.raises(StorageError, match="s is a socket"):
            planned(old, disk / "hub")
    (old / "s").unlink()
    (disk / "full").mkdir()
    (disk / "full" / "x").write_bytes(b"x")
    with pytest.raises(UsageError, match="not an empty directory"):
        planned(old, disk / "full")
    with pytest.raises(UsageError, match="one lies in the other"):
        planned(old, old / "deeper")
    (tmp_path / "link").symlink_to(old)
    with pytest.raises(UsageError, match="is a link to"):
        planned(tmp_path / "link", disk / "hub")


def test_nothing_outside_is_touched_however_the_links_lead(tmp_path, disk):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"p" * 9000)
    old = fill(tmp_path / "a" / "hub")
    (old / "dir").symlink_to(outside)
    (old / "file").symlink_to(outside / "precious")
    (old / "self").symlink_to(old)
    status = outside.stat(), (outside / "precious").stat()
    assert carry_out(planned(old, disk / "hub")).complete
    after = outside.stat(), (outside / "precious").stat()
    assert [(s.st_mtime_ns, s.st_mode, s.st_nlink) for s in after] == [
        (s.st_mtime_ns, s.st_mode, s.st_nlink) for s in status
    ]
    assert (disk / "hub" / "dir").readlink() == outside
    assert top(outside) == ["precious"]


@pytest.mark.root
def test_a_place_where_a_disk_is_mounted_is_refused_with_one_in_it(tmp_path, old):
    with (
        tmpfs(tmp_path / "volume") as volume,
        pytest.raises(StorageError, match="is mounted there") as caught,
    ):
        planned(old, volume)
    assert f"{volume}/hub" in caught.value.remedy


@pytest.mark.root
def test_what_does_not_fit_is_refused_before_a_byte_is_copied(tmp_path):
    old = tmp_path / "hub"
    old.mkdir()
    (old / "w").write_bytes(bytes(6_000_000))
    with tmpfs(tmp_path / "small", "size=9m") as small:
        with pytest.raises(StorageError, match=r"10\.2 MB and 1 inodes are needed"):
            planned(old, small / "hub")
        assert top(small) == []


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "btrfs"])
def test_a_disk_that_fills_up_half_way_leaves_all_as_it_was(tmp_path, kind):
    old = fill(tmp_path / "hub")
    (old / "more").write_bytes(os.urandom(6_000_000))
    before = facts(old)
    size = 40 * 2**20
    disks = {
        "tmpfs": lambda where: tmpfs(where, f"size={size}"),
        "btrfs": lambda where: btrfs_with_quota(where, size),
    }
    with disks[kind](tmp_path / "small") as small:

        def fills() -> None:
            with (
                contextlib.suppress(OSError),
                (small / "filler").open("wb", buffering=0) as file,
            ):
                while file.write(os.urandom(2**20)):
                    pass
            os.truncate(small / "filler", (small / "filler").stat().st_size - 3_000_000)

        with pytest.raises(StorageError, match="the copy was removed again") as caught:
            carry_out(planned(old, small / "hub"), reached=at("begun", fills))
        assert str(caught.value).startswith(f"{small}: ")
        assert caught.value.exit_code == ExitCode.STORAGE_REFUSED
        assert top(small) == ["filler"]
    assert facts(old) == before


@pytest.mark.root
@pytest.mark.parametrize("at_step", ["noted", "placed", "swapped"])
def test_a_quota_that_refuses_the_journal_too_ends_in_an_error_and_the_command_goes_on(
    tmp_path, at_step
):
    old = fill_few(tmp_path / "hub")
    before = facts(old)
    with btrfs_with_quota(tmp_path / "disk", 8 * 2**20) as disk:
        new = disk / "hub"

        def fills() -> None:
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                while file.write(os.urandom(2**16)):
                    pass

        with pytest.raises(StorageError, match="quota exceeded"):
            carry_out(planned(old, new), reached=at(at_step, fills))
        assert facts(old) == before  # by the old name
        (disk / "filler").unlink()
        subprocess.run(["sync", "-f", str(disk)], check=True)
        again(old, new)
        assert (facts(new), top(disk), top(tmp_path)) == (
            before,
            ["hub"],
            ["disk", "disk.img", "hub"],
        )


@pytest.mark.root
def test_an_old_disk_without_room_for_the_link_is_named(tmp_path, disk):
    with tmpfs(tmp_path / "old", "size=8m,nr_inodes=40") as small:
        old = fill_few(small / "hub")
        before = facts(old)

        def fills() -> None:
            with contextlib.suppress(OSError):
                for number in range(40):
                    (small / str(number)).touch()

        with pytest.raises(StorageError, match=f"^{small}: No space left") as caught:
            carry_out(planned(old, disk / "hub"), reached=at("placed", fills))
        assert "what is copied is kept" in str(caught.value)
        assert facts(old) == before
        (small / "0").unlink()
        again(old, disk / "hub")
        assert facts(disk / "hub") == before


@pytest.mark.root
@pytest.mark.parametrize("kind", [ext4, overlay, lambda where: btrfs_with_quota(where, 2**26)])
def test_it_moves_to_and_from_other_file_systems(tmp_path, kind):
    old = fill(tmp_path / "hub")
    before = facts(old)
    before.pop("snapshots/c/absolute")
    with kind(tmp_path / "disk") as disk:
        for one, other in ((old, "hub"), (disk / "hub", "renamed"), (disk / "renamed", old)):
            (outcome,) = carry_out(planned(one, disk / other)).outcomes
            assert [outcome.state, *outcome.reasons] == ["done"]
        after = facts(old)
        after.pop("snapshots/c/absolute")
        assert after == before


@pytest.mark.root
def test_a_read_only_disk_is_refused(tmp_path):
    old = fill(tmp_path / "hub")
    with ext4(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageError, match="read-only"):
            planned(old, disk / "hub")


@pytest.mark.parametrize("at_step", ["copied", "placed", "linked", "swapped", "removing"])
def test_what_was_cut_off_is_found_at_the_new_place_with_the_command_that_ends_it(
    tmp_path, disk, at_step
):
    old, new = fill_few(tmp_path / "it's" / "hub"), disk / "hub"
    assert killed_at(planned(old, new), at_step)
    (found,) = find([str(new)])
    assert (found.old, found.new, found.verb) == (str(old), str(new), "move")
    assert f"unfinished move of {old}" in found.words
    swapped = at_step in ("swapped", "removing")
    assert ("--abandon" in found.remedy) == (not swapped)
    assert shlex.split(found.command) == ["gradience", "cache", "move", str(old), str(new)]
    assert bool(find([str(old)])) == (at_step in ("linked", "swapped", "removing"))
    again(old, new)
    assert find([str(old), str(new)]) == []


@pytest.mark.parametrize("merges", [True, False])
def test_the_new_place_of_what_is_unfinished_is_not_moved_on(tmp_path, disk, merges):
    old, new = HubMaker(tmp_path / "hub"), disk / "hub"
    old.add("org/m", "a", {"w": b"w" * 9000})
    if merges:
        HubMaker(new).add("org/n", "b", {"x": b"x" * 9000})
    assert killed_at(planned(old.hub, new, merges=merges), "swapped")
    with pytest.raises(StorageError, match=f"unfinished m.* of {old.hub}") as caught:
        planned(new, tmp_path / "third")
    assert f"{old.hub} {new}" in caught.value.remedy
    resume(str(old.hub), str(new), nobody)
    assert carry_out(planned(new, tmp_path / "third")).complete
    assert top(tmp_path) == ["hub", "third"]


def test_what_another_user_could_have_left_is_not_repeated(old, disk):
    assert killed_at(planned(old, disk / "hub"), "copied")
    (disk / ".hub.gradience-move").chmod(0o777)
    assert find([str(disk / "hub")]) == []


@pytest.mark.parametrize("at_step", ["copied", "placed", "linked"])
def test_a_move_is_abandoned_with_its_whole_copy_before_the_swap(old, disk, at_step):
    before = facts(old)
    assert killed_at(planned(old, disk / "hub"), at_step)
    abandon(str(old), str(disk / "hub"))
    assert (top(disk), top(old.parent), facts(old)) == ([], ["hub"], before)


def test_a_copy_that_was_written_to_is_not_abandoned(old, disk):
    assert killed_at(planned(old, disk / "hub"), "placed")
    (disk / "hub" / "new").write_bytes(b"mine")
    with pytest.raises(StorageError, match="somebody wrote to"):
        abandon(str(old), str(disk / "hub"))
    assert (disk / "hub" / "new").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["n" * 236, "\u00e9" * 120])
def test_a_name_that_leaves_no_room_for_ours_beside_it_is_refused(old, disk, name):
    with pytest.raises(UsageError, match="too long"):
        planned(old, disk / name)
    with pytest.raises(UsageError, match="too long"):
        planned(old.rename(old.with_name(name)), disk / "hub")


@pytest.mark.root
@pytest.mark.parametrize("inside", ["new", "blobs/new"])
def test_it_is_not_moved_into_itself_through_a_bind_mount(old, tmp_path, inside):
    need("mount")
    with (
        mounted(tmp_path / "bound", "--bind", str(old)) as bound,
        pytest.raises(UsageError, match="one lies in the other"),
    ):
        planned(old, bound / inside)


def test_a_file_at_the_new_place_is_not_called_a_cache_to_merge_into(old, disk):
    (disk / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="there already, and no directory") as caught:
        planned(old, disk / "file")
    assert "merge" not in caught.value.remedy


def test_what_lies_directly_below_the_root_has_the_name_that_a_second_try_asks_for(old, tmp_path):
    (action,) = planned(old, tmp_path / "new").actions
    assert msgspec.structs.replace(action, root="/", path="data").where == "/data"
