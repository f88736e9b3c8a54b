"""What apply promises: as planned or not at all, measured, and nothing outside is touched."""

import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from factories_caches import du
from factories_changes import (
    carry_out,
    dies,
    holding,
    in_a_child,
    names_below,
    nobody,
    plan_of,
    states,
    top,
)
from factories_disks import tmpfs
from factories_kills import dies_at
from gradience.errors import ArtifactError, StorageError, UnknownNameError
from gradience.files.below import Below, Removed
from gradience.storage.change import trash
from gradience.storage.change.fingerprint import rights
from gradience.storage.change.journal import BEGUN, DiskJournal
from gradience.storage.change.records import Disk, Plan
from gradience.storage.change.recover import recover
from gradience.storage.change.report import receipt_page
from gradience.storage.change.site import Site
from gradience.system import holders
from gradience.system.holders import Holders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    for name in ("a/one", "a/deep/two", "b", "kept"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(b"x" * 50_000)
    return made


def test_what_was_planned_goes_and_is_measured(root):
    before = du(root)
    receipt = carry_out(plan_of(root, "a", "b"))
    assert states(receipt) == ["done", "done"]
    assert names_below(root) == {"kept"}
    assert receipt.freed == before - du(root) > 0
    assert [o.names for o in receipt.outcomes] == [4, 1]
    assert top(root) == ["kept"]


@pytest.mark.parametrize(("after", "words"), [(2 * 10**9, "1.00 GB more"), (0, "1.00 GB less")])
def test_a_disk_that_saw_another_difference_is_named_in_plain_words(root, after, words):
    receipt = carry_out(plan_of(root, "b"))
    disk = Disk(path="/disk", free_before=10**9, free_after=after)
    page = receipt_page(msgspec.structs.replace(receipt, disks=(disk,)))
    assert f"The disk of /disk has {words} free than before" in str(page)


def test_a_file_with_another_name_frees_nothing(root):
    os.link(root / "b", root / "kept2")
    receipt = carry_out(plan_of(root, "b"))
    assert (states(receipt), receipt.freed) == (["done"], 0)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("change", ["content", "replaced", "added", "gone", "link", "directory"])
def test_what_changed_after_the_plan_stays(root, change, in_place):
    plan = plan_of(root, "a", "b")
    if change == "content":
        (root / "a/deep/two").write_bytes(b"y" * 50_001)
    elif change == "added":
        (root / "a/deep/three").touch()
    elif change == "gone":
        (root / "a").rename(root / "c")
    elif change == "link":
        (root / "a").rename(root.parent / "outside")
        (root / "a").symlink_to(root.parent / "outside")
    elif change == "directory":
        (root / "b").unlink()
        (root / "b").mkdir()
        (root / "b/x").touch()
    else:
        (root / "a/one").rename(root / "a/old")
        (root / "a/one").write_bytes(b"x" * 50_000)
    before = names_below(root.parent)
    receipt = carry_out(plan, in_place=in_place)
    changed, other = (1, "a") if change == "directory" else (0, "b")
    assert states(receipt)[changed] in ("skipped", "undone")
    assert receipt.outcomes[changed].reasons
    gone = before - names_below(root.parent)
    assert {name.split("/")[1] for name in gone} == {other}


def test_what_a_process_has_open_or_mapped_stays(root):
    plan = plan_of(root, "a", "b")
    code = "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,prot=1); f.close()"
    code += "\nprint('', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, root / "a/deep/two"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        receipt = carry_out(plan, holders=holders)
        assert states(receipt) == ["undone", "done"]
        assert f"process {reader.pid} " in receipt.outcomes[0].reasons[0]
        assert (root / "a/deep/two").read_bytes() == b"x" * 50_000
        reader.communicate(b"\n")


def test_a_group_goes_back_when_anything_of_it_was_opened_meanwhile(root):
    looks = iter([nobody(), holding(root / "b")])
    receipt = carry_out(plan_of(root, "a", "b", one_group=True), holders=lambda: next(looks))
    assert states(receipt) == ["undone", "undone"]
    assert names_below(root) == {"a", "a/one", "a/deep", "a/deep/two", "b", "kept"}


@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("name", ["b", "a/deep/two"])
def test_what_is_written_and_closed_between_the_two_looks_is_not_lost(root, name, killed):
    plan = plan_of(root, "a", "b")
    written = (root / name).open("r+b", buffering=0)
    looks = iter(["before", "aside"])

    def closed_by_then() -> Holders:
        if next(looks) == "aside":
            written.write(b"precious")
            written.close()
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
        return nobody()

    if killed:
        assert in_a_child(lambda: carry_out(plan, holders=closed_by_then))
        written.close()
        recover(str(root), nobody)
    else:
        receipt = carry_out(plan, holders=closed_by_then)
        assert sorted(states(receipt)) == ["done", "undone"]
    assert (root / name).read_bytes().startswith(b"precious")


def test_what_was_half_removed_when_the_process_was_killed_goes(root):
    assert dies(plan_of(root, ["a", "b"]), 9)
    aside = root / ".gradience/test/things"
    (aside / "a/one").unlink()
    recover(str(root), nobody)
    assert names_below(root) == {"kept"}


class Meanwhile(DiskJournal):
    """Something else happens after an act was checked, right before it is done."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self.happens = happens

    def step(self, index: int, state: bytes) -> None:
        super().step(index, state)
        if state == BEGUN:
            self.happens()


@pytest.mark.parametrize("what", ["removed", "its directory removed", "filled"])
def test_what_another_cleaner_was_faster_with_is_skipped_and_no_failure(root, what):
    (root / "empty").mkdir()
    plan = plan_of(root, "a/deep/two") if what != "filled" else plan_of(root, "empty", verb="prune")
    happens = {
        "removed": (root / "a/deep/two").unlink,
        "its directory removed": lambda: shutil.rmtree(root / "a"),
        "filled": (root / "empty/x").touch,
    }
    receipt = carry_out(plan, new_journal=lambda: Meanwhile(happens[what]))
    assert (states(receipt), len(receipt.outcomes[0].reasons)) == (["skipped"], 1)


def test_a_directory_that_is_made_again_was_not_freed(root):
    (root / "empty").mkdir()
    plan = plan_of(root, "empty", "b", one_group=True)
    prune = msgspec.structs.replace(plan.actions[0], verb="prune")
    plan = msgspec.structs.replace(plan, actions=(prune, plan.actions[1]))
    looks = iter([nobody(), holding(root / "b")])
    receipt = carry_out(plan, holders=lambda: next(looks))
    assert states(receipt) == ["undone", "undone"]
    assert (receipt.freed, [outcome.names for outcome in receipt.outcomes]) == (0, [0, 0])
    assert (root / "empty").is_dir()


def group_in_use(root: Path) -> tuple[Plan, Callable[[], Holders]]:
    """To remove an empty directory and a file together; and somebody who opens the file then."""
    (root / "empty").mkdir(parents=True)
    (root / "empty").chmod(0o2750)
    (root / "b").touch()
    plan = plan_of(root, "empty", "b", one_group=True)
    found = msgspec.structs.replace(
        plan.actions[0].fingerprint, rights=rights((root / "empty").stat())
    )
    prune = msgspec.structs.replace(plan.actions[0], verb="prune", fingerprint=found)
    plan = msgspec.structs.replace(plan, actions=(prune, plan.actions[1]))
    return plan, lambda: holding(*root.glob(".gradience/test/things/b"))


@pytest.mark.parametrize("in_recovery", [False, True], ids=["", "in_recovery"])
def test_a_group_that_is_in_use_comes_back_whole_wherever_that_was_killed(tmp_path, in_recovery):
    opened_by_then = False
    for step in itertools.count():
        root = tmp_path / str(step)
        plan, opened = group_in_use(root)
        change = functools.partial(carry_out, plan, holders=opened)
        if in_recovery:
            assert dies(plan, 10)
            assert top(root) == [".gradience"]
            change = functools.partial(recover, str(root), opened)
        killed = dies_at(step, change)
        opened_by_then |= (root / ".gradience/test/things/b").exists()
        recover(str(root), opened)
        if opened_by_then:
            assert top(root) == ["b", "empty"]
            assert (root / "empty").stat().st_mode & 0o7777 == 0o2750
        if not killed:
            break
    assert opened_by_then
    assert step > 15


def test_a_unit_is_done_as_a_whole_or_not_at_all(root):
    plan = plan_of(root, ["a", "b"])
    (root / "b").write_bytes(b"new")
    assert states(carry_out(plan)) == ["skipped"]
    assert names_below(root) == {"a", "a/one", "a/deep", "a/deep/two", "b", "kept"}


def test_a_plan_survives_being_written_and_awkward_names_too(root):
    odd = ["line\nbreak", os.fsdecode(b"caf\xe9"), "50%", "ü" * 120, "a" * 230, "%2F"]
    for name in odd:
        (root / name).mkdir()
        (root / name / "x").touch()
    plan = plan_of(root, *odd)
    read = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
    assert read == plan
    assert states(carry_out(read)) == ["done"] * 6
    assert not {name for name in names_below(root) if name.split("/")[0] in odd}


def test_awkward_names_come_back_from_a_lost_journal(root):
    odd = ["line\nbreak", os.fsdecode(b"caf\xe9"), "50%", "ü" * 120, "a" * 230, "%2F"]
    for name in odd:
        (root / name).mkdir()
    before = names_below(root)
    with Below(str(root)) as below:
        site = Site(below, "lost")
        site.open_own()
        for name in odd:
            site.set_aside(name)
    assert names_below(root) != before
    recover(str(root), nobody)
    assert names_below(root) == before
    assert ".gradience" not in top(root)


def test_links_are_removed_and_never_followed(root):
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (root / "c").mkdir()
    (root / "c/out").symlink_to(outside)
    (root / "c/loop").symlink_to(root / "c")
    os.mkfifo(root / "c/pipe")
    assert states(carry_out(plan_of(root, "c"))) == ["done"]
    assert (outside / "precious").read_text() == "x"
    assert not (root / "c").exists()


def test_a_directory_on_the_way_that_became_a_link_is_not_entered(root):
    plan = plan_of(root, "a/deep/two")
    outside = root.parent / "outside"
    (root / "a").rename(outside)
    (root / "a").symlink_to(outside)
    assert states(carry_out(plan)) == ["skipped"]
    assert (outside / "deep/two").exists()


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "/a/deep/x", "a/../../outside", "", ".", "a/.."]
)
def test_a_forged_plan_reaches_nothing_outside(root, path):
    (root.parent / "outside").write_text("x")
    plan = plan_of(root, "b")
    forged = msgspec.structs.replace(plan.actions[0], path=path)
    receipt = carry_out(msgspec.structs.replace(plan, actions=(forged,)))
    assert states(receipt) == ["skipped"]
    assert (root.parent / "outside").exists()
    assert names_below(root) == {"a", "a/one", "a/deep", "a/deep/two", "b", "kept"}


def test_a_plan_with_a_verb_of_a_newer_release_is_refused_before_anything_is_done(root):
    plan = plan_of(root, "a", "b")
    odd = msgspec.structs.replace(plan.actions[1], verb="shred")
    with pytest.raises(UnknownNameError):
        carry_out(msgspec.structs.replace(plan, actions=(plan.actions[0], odd)))
    assert (root / "a").exists()


DEPTH = 1100  # more than functions may call themselves


def deep(root: Path, name: str) -> None:
    """A tree that deep, with a directory and a file beside each directory."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(DEPTH):
        for made in (name, "beside"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(made, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.parametrize("name", ["d", "ü" * 127], ids=["short", "long"])
def test_a_very_deep_tree_goes_however_long_its_names_are(tmp_path, name):
    deep(tmp_path, name)
    removed = Removed()
    with Below(str(tmp_path)) as below:
        below.remove(name, removed)
    assert removed.names == 3 * DEPTH - 2
    assert top(tmp_path) == ["beside", "file"]


def test_a_very_deep_tree_is_planned_set_aside_and_brought_back(root):
    deep(root, "d")
    carry_out(plan_of(root, "d", verb="trash"))
    (found,) = trash.find([str(root)])
    assert trash.bring_back(found).things == 1
    assert states(carry_out(plan_of(root, "d"))) == ["done"]
    assert not (root / "d").exists()


def test_two_cleaners_do_not_meet(root):
    plan = plan_of(root, "a")
    with Below(str(root)) as below:
        below.make_dirs(".gradience")
        with below.lock(".gradience/lock") as ours:
            assert ours
            with pytest.raises(StorageError, match="another process changes"):
                carry_out(plan)
    assert (root / "a").exists()
    assert states(carry_out(plan)) == ["done"]


def test_killed_at_any_step_everything_is_whole_after_the_next_change(tmp_path):
    def make(root: Path) -> Plan:
        for name in ("ref", "snapshot/one", "snapshot/two", "blob", "kept"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x" * 5000)
        return plan_of(root, ["ref", "snapshot"], "blob")

    steps = 0
    while True:
        root = tmp_path / str(steps)
        killed = dies(make(root), steps)
        recover(str(root), nobody)
        left = names_below(root)
        assert "kept" in left
        assert ("ref" in left) == ("snapshot" in left) == ("snapshot/one" in left)
        # What is left can be planned and carried out as if nothing had been.
        rest = [name for name in ("ref", "snapshot", "blob") if name in left]
        assert states(carry_out(plan_of(root, *rest))) == ["done"] * len(rest)
        assert top(root) == ["kept"]
        if not killed:
            break
        steps += 1
    assert steps > 15


def test_a_change_that_was_cut_off_is_told_by_what_it_had_done(tmp_path):
    told = set()
    for steps in range(60):
        root = tmp_path / str(steps)
        (root / "a").mkdir(parents=True)
        (root / "a" / "file").write_bytes(b"x" * 5000)
        killed = dies(plan_of(root, "a"), steps)
        told |= {note.rpartition("): ")[2] for note in recover(str(root), nobody)}
        if not killed:
            break
    assert told == {"it had done nothing yet.", "1 act finished.", "1 act taken back."}


def test_a_change_whose_journal_is_lost_goes_back(root):
    plan = plan_of(root, ["a", "b"])
    before = names_below(root)
    assert dies(plan, 8)
    assert names_below(root) != before
    for name in ("plan.json", "state"):
        (root / ".gradience/test" / name).unlink()
    (note,) = recover(str(root), nobody)
    assert "put back" in note
    assert names_below(root) == before


def test_what_a_change_under_way_set_aside_is_no_trash(root):
    assert dies(plan_of(root, ["a", "b"], verb="trash"), 8)
    assert (root / ".gradience/test/things").is_dir()
    assert trash.find([str(root)]) == []
    recover(str(root), nobody)
    assert [found.names for found in trash.find([str(root)])] in ([], [("b", "a")], [("a", "b")])


@pytest.mark.root
def test_a_disk_without_a_free_byte_is_cleaned_in_place(tmp_path):
    with tmpfs(tmp_path / "m", "size=1m,nr_inodes=20") as disk:
        (disk / "a").mkdir()
        (disk / "a/x").write_bytes(b"x" * 200_000)
        (disk / "b").write_bytes(b"x" * 4096)
        for number in range(15):
            (disk / f"fill{number}").touch()
        with pytest.raises(OSError, match="No space"):
            (disk / "fill0").write_bytes(b"x" * 2**20)
        receipt = carry_out(plan_of(disk, "a", "b"))
        assert states(receipt) == ["done", "done"]
        assert receipt.freed >= 200_000
        assert ".gradience" not in top(disk)
        assert "no room for a journal" in receipt.notes[0]
        with pytest.raises(StorageError, match="no room"):
            carry_out(plan_of(disk, "fill1", verb="trash"), in_place=True)


def test_what_is_open_goes_back_when_a_cut_off_change_is_settled(root):
    assert dies(plan_of(root, ["a", "b"]), 9)
    aside = [p for p in (root / ".gradience/test/things").rglob("*") if p.name == "two"]
    recover(str(root), lambda: holding(*aside))
    assert bool(aside) == ((root / "a/deep/two").exists())
    assert aside


FORGED = ("../x", "", "a/b", ".", "ü" * 90, "saving", "ballast", "replaced", "lock")


@pytest.mark.parametrize("change", FORGED)
def test_a_plan_with_a_forged_id_is_refused(root, change):
    plan = msgspec.structs.replace(plan_of(root, "b"), id=change)
    with pytest.raises(ArtifactError):
        carry_out(plan)


def test_a_plan_for_the_trash_that_is_applied_again_changes_nothing_and_hides_nothing(root):
    carry_out(plan_of(root, "a", verb="trash"))
    before = sorted(root.rglob("*"))
    with pytest.raises(StorageError, match="holds what a change of that name moved") as caught:
        carry_out(plan_of(root, "b", verb="trash"))
    assert "gradience cache undo test" in caught.value.remedy
    assert sorted(root.rglob("*")) == before
    (found,) = trash.find([str(root)])
    assert trash.bring_back(found).things == 1


def test_a_root_that_is_gone_does_not_keep_the_others_from_being_cleaned(root):
    other = root.parent / "other"
    other.mkdir()
    (other / "x").write_bytes(b"x" * 5000)
    one, two = plan_of(root, "b"), plan_of(other, "x")
    moved = msgspec.structs.replace(two.actions[0], item=1, unit=1, group=1)
    both = msgspec.structs.replace(
        one, actions=(*one.actions, moved), items=(*one.items, *two.items)
    )
    other.rename(root.parent / "gone")
    receipt = carry_out(both)
    assert states(receipt) == ["done", "failed"]
    assert "cannot be opened" in receipt.outcomes[1].reasons[0]
