"""Two caches become one: nothing is lost, nothing of the other changes, whatever comes between."""

import codecs
import contextlib
import os
import shutil
import signal
import subprocess
from itertools import product
from pathlib import Path

import pytest

from factories_caches import HubMaker
from factories_changes import carry_out as clean
from factories_changes import holding, in_a_child, nobody, plan_of, top
from factories_disks import fuse_without_locks, second_disk, tmpfs
from factories_moves import (
    again,
    at,
    carry_out,
    content,
    dies,
    facts,
    planned,
    sound,
    two_hubs,
)
from gradience.errors import StorageError, UsageError
from gradience.storage.change import trash
from gradience.storage.change.move.resume import abandon, resume
from gradience.storage.change.move.unfinished import find

LAYOUTS = [
    pytest.param(old, new, id=f"{'store' if old else 'per_repo'}-{'store' if new else 'per_repo'}")
    for old, new in product((False, True), repeat=2)
]


@pytest.fixture(params=["one disk", "two disks"])
def new(tmp_path: Path, request: pytest.FixtureRequest):
    """The place of the other cache."""
    if request.param == "one disk":
        yield tmp_path / "new" / "hub"
        return
    with second_disk(tmp_path) as directory:
        yield directory / "hub"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old" / "hub"


def merge(old: Path, new: Path, **options: object):
    return carry_out(planned(old, new, merges=True), **options)


@pytest.mark.parametrize(("old_store", "new_store"), LAYOUTS)
def test_afterwards_the_other_has_all_of_it_and_the_old_name_leads_there(
    old, new, old_store, new_store
):
    mine = two_hubs(old, new, old_store=old_store, new_store=new_store)
    theirs, before = content(new), facts(new)
    plan = planned(old, new, merges=True)
    receipt = carry_out(plan)
    assert receipt.complete, receipt
    assert receipt.freed >= plan.frees_bytes > 0
    assert old.readlink() == new
    assert content(new) == theirs | mine
    sound(new)
    after = facts(new)
    directories = {name for name in before if (new / name).is_dir()}
    grown = {name for name in before if name.endswith(".refs")}
    for name in set(before) - directories - grown:
        assert after[name] == before[name], name
    for name in directories:
        assert after[name][:3] == before[name][:3], name
    assert (new / "models--org--both/refs/main").read_text() == "b" * 40
    assert not list(new.rglob("*.incomplete"))
    assert (top(old.parent), top(new.parent)) == (["hub"], ["hub"])


@pytest.mark.parametrize("theirs", [b"e" * 40, b"", b"../../x"], ids=["absent", "torn", "odd"])
def test_a_ref_that_leads_nowhere_gives_way_to_one_that_leads_to_a_revision(old, new, theirs):
    mine = two_hubs(old, new)
    ref = new / "models--org--both/refs/main"
    ref.write_bytes(theirs)
    (new / "models--org--theirs/refs/main").write_bytes(theirs)  # nothing better comes
    plan = planned(old, new, merges=True)
    (note,) = [note for note in plan.notes if "lead to no revision" in note]
    assert f"models--org--both/refs/main at aaaaaaaa, not {theirs[:8].decode()}" in note
    again(old, new, merges=True)
    assert ref.read_text() == "a" * 40
    assert (new / "models--org--theirs/refs/main").read_bytes() == theirs
    assert content(new).items() >= mine.items()


def test_a_ref_stands_if_its_revision_comes_with_the_merge(old, new):
    two_hubs(old, new)
    shutil.rmtree(new / "models--org--both/snapshots")
    plan = planned(old, new, merges=True)
    assert any("stay as they are: models--org--both/refs/main at bbbbbbbb" in n for n in plan.notes)
    assert carry_out(plan).complete
    assert (new / "models--org--both/refs/main").read_text() == "b" * 40
    sound(new)


@pytest.mark.parametrize("other", ["old", "new", "both"])
def test_a_store_of_a_version_that_is_not_known_is_left_alone(old, new, other):
    two_hubs(old, new, old_store=True, new_store=True)
    for hub in {"old": (old,), "new": (new,), "both": (old, new)}[other]:
        marker = hub / "blobs/.huggingface-shared-blobs"
        marker.chmod(0o644)
        marker.write_text("2\n")
    with pytest.raises(StorageError, match="a version that this release does not know"):
        planned(old, new, merges=True)


@pytest.mark.root
def test_a_merge_by_root_that_is_left_changes_nobodys_groups(tmp_path, old):
    if os.geteuid() != 0:
        pytest.skip("gives files away")
    new = tmp_path / "new" / "hub"
    two_hubs(old, new)
    for hub, group in ((old, 1234), (new, 4321)):
        for path in (hub, *hub.rglob("*")):
            os.chown(path, 65534, group, follow_symlinks=False)
    before = facts(old)
    assert not merge(old, new, reached=at("brought", (old / "late").touch)).complete
    (old / "late").unlink()
    after = facts(old)
    assert {name: fact[:3] for name, fact in after.items()} == {
        name: fact[:3] for name, fact in before.items()
    }


def test_what_was_exchanged_meanwhile_is_named_where_it_is_left(old, tmp_path):
    with second_disk(tmp_path) as disk:
        two_hubs(old, disk / "hub")
        blob = next((old / "models--org--mine/blobs").glob("[0-9a-f]" * 64))

        def exchange() -> None:
            shutil.copyfile(blob, tmp_path / "other")
            (tmp_path / "other").replace(blob)

        receipt = merge(old, disk / "hub", reached=at("begun", exchange))
    assert f"blobs/{blob.name}: it was replaced" in receipt.outcomes[0].reasons[0]


@pytest.mark.root
def test_a_directory_of_ours_that_may_not_go_any_more_is_no_failure_of_the_merge():
    if os.geteuid() != 0:
        pytest.skip("acts as another user, which needs root")
    with second_disk() as disk:
        old, new = disk / "o" / "hub", disk / "n" / "hub"
        two_hubs(old, new)
        for path in (disk, *disk.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)

        def act() -> None:
            codecs.lookup("ascii")  # what may not be read any more in a moment
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            plan = planned(old, new, merges=True)
            assert carry_out(plan, reached=at("linked", lambda: new.parent.chmod(0o555))).complete

        assert not in_a_child(act)
        assert old.readlink() == new
        assert find([str(new)]) == []


def test_on_one_disk_no_byte_is_copied_and_times_and_modes_stay(tmp_path, old):
    new = tmp_path / "new" / "hub"
    two_hubs(old, new)
    blob = next((old / "models--org--mine/blobs").glob("[0-9a-f]" * 64))
    blob.chmod(0o440)
    (old / "models--org--mine").chmod(0o2770)
    status = blob.stat()
    assert merge(old, new).complete
    found = (new / blob.relative_to(old)).stat()
    assert (found.st_ino, found.st_mtime_ns, found.st_mode, found.st_nlink) == (
        status.st_ino,
        status.st_mtime_ns,
        status.st_mode,
        1,
    )
    assert (new / "models--org--mine").stat().st_mode & 0o7777 == 0o2770


def test_the_hubs_own_sweep_deletes_nothing_that_was_brought_into_its_store(old, new):
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415 - a second to load
    from huggingface_hub.utils._shared_blobs import (  # noqa: PLC0415
        unreferenced_shared_blobs,
    )

    mine = two_hubs(old, new, old_store=True, new_store=True)
    assert merge(old, new).complete
    assert unreferenced_shared_blobs(new) == {}
    (new / "models--org--mine/snapshots" / ("c" * 40) / "gone").unlink(missing_ok=True)
    found = scan_cache_dir(new)
    assert {repo.repo_id for repo in found.repos} == {"org/both", "org/mine", "org/theirs"}
    found.delete_revisions("b" * 40).execute()
    left = {name: data for name, data in mine.items() if "b" * 40 not in name}
    assert content(new).items() >= left.items()


def killed_at_every_step(near: Path, far: Path, *, stores: tuple[bool, bool]) -> int:
    """Kill merges at each of their steps, and end them; how many steps there were."""
    for step in range(1000):
        old, new = near / str(step) / "old" / "hub", far / str(step) / "new" / "hub"
        mine = two_hubs(old, new, old_store=stores[0], new_store=stores[1])
        theirs = content(new)
        killed = dies(planned(old, new, merges=True), step)
        assert content(old).items() >= mine.items(), step  # by the old name, at every moment
        assert content(new).items() >= theirs.items(), step
        sound(new)
        for commit in new.glob("models--*/snapshots/*"):  # a revision is there as a whole, or not
            wanted = {name for name in mine | theirs if commit.name in name}
            assert {name for name in content(new) if commit.name in name} == wanted, step
        again(old, new, merges=True)
        assert content(new) == theirs | mine, step
        sound(new)
        assert (top(old.parent), top(new.parent)) == (["hub"], ["hub"]), step
        if not killed:
            return step
        shutil.rmtree(new)
    raise AssertionError


@pytest.mark.parametrize("stores", [(False, False), (True, True), (True, False)])
def test_killed_at_any_step_the_same_command_ends_it_and_nothing_is_lost(tmp_path, stores):
    with second_disk(tmp_path) as disk:
        assert killed_at_every_step(tmp_path / "near", disk, stores=stores) > 20
    assert killed_at_every_step(tmp_path, tmp_path, stores=stores) > 20


def test_where_a_disk_has_no_hard_links_or_locks_it_is_copied(tmp_path):
    with fuse_without_locks(tmp_path / "m") as place:
        old, new = place / "old" / "hub", place / "new" / "hub"
        mine = two_hubs(old, new, old_store=True, new_store=True)
        assert merge(old, new).complete
        assert content(new).items() >= mine.items()
        sound(new)


@pytest.mark.parametrize("size", [90_000, 80_000], ids=["same size", "other size"])
def test_a_file_that_differs_keeps_everything_where_it_is_and_is_named(old, new, size):
    mine = two_hubs(old, new)
    blob = (new / "models--org--both/snapshots" / ("b" * 40) / "w").resolve()
    blob.write_bytes(b"broken" * 15_000 if size == 90_000 else b"short")
    try:
        reason = merge(old, new).outcomes[0].reasons[0]
    except StorageError as error:
        reason = f"{error} {error.remedy}"
        assert "verify" in reason
    assert blob.name in reason
    assert (content(old).items() >= mine.items(), old.is_symlink()) == (True, False)
    shutil.copy(old / blob.relative_to(new), blob)
    again(old, new, merges=True)
    assert content(new).items() >= mine.items()


def test_a_copy_in_another_layout_is_the_same_if_its_bytes_are(old, new):
    mine = two_hubs(old, new)
    link = new / "models--org--both/snapshots" / ("b" * 40) / "w"
    data = link.read_bytes()
    link.unlink()
    link.write_bytes(data)  # as a client without symbolic links has it
    assert merge(old, new).complete
    assert content(new).items() >= mine.items()


def test_content_that_is_named_like_a_lock_or_a_download_is_brought(tmp_path, old, new):
    two_hubs(old, new)
    HubMaker(tmp_path / "more").add("org/code", "e", {"poetry.lock": b"[]", "a.incomplete": b"a"})
    shutil.move(tmp_path / "more/models--org--code", old)
    checkout = old / "owner_repo_main"  # as torch.hub has it
    checkout.mkdir()
    (checkout / "uv.lock").write_bytes(b"version = 1")
    (checkout / "gone").symlink_to("nowhere")
    mine = content(old)
    assert any(name.endswith("poetry.lock") for name in mine)
    assert merge(old, new).complete
    assert content(new).items() >= mine.items()
    assert (new / "owner_repo_main/uv.lock").read_bytes() == b"version = 1"
    assert (new / "owner_repo_main/gone").is_symlink()
    assert not list(new.glob(".locks/**/*.lock"))


def test_a_plan_says_that_a_group_shares_the_other_cache(old, new):
    two_hubs(old, new)
    new.chmod(0o2775)
    notes = planned(old, new, merges=True).notes
    assert any(f"gradience cache share {new} --group " in note for note in notes)


def test_what_lies_in_the_trash_can_still_be_brought_back(old, new):
    mine = two_hubs(old, new)
    name = f"models--org--mine/snapshots/{'c' * 40}"
    clean(plan_of(old, name, verb="trash"))
    assert not (old / name).exists()
    assert merge(old, new).complete
    (thing,) = trash.find([str(new)])
    assert trash.bring_back(thing).stayed == ()
    assert content(new).items() >= mine.items()


def test_what_is_no_cache_of_that_kind_is_refused(tmp_path, old, new):
    two_hubs(old, new)
    for place in (new.parent, tmp_path, new / "models--org--both", Path("/")):
        if place in old.parents:
            continue
        with pytest.raises(UsageError, match="does not look like a cache of the Hub"):
            planned(old, place, merges=True)
    with pytest.raises(UsageError, match="one lies in the other"):
        planned(old, old / "models--org--mine", merges=True)
    (new / "blobs").mkdir()
    (new / "blobs" / "mine").touch()
    shutil.rmtree(old)
    two_hubs(old, new.with_name("unused"), old_store=True)
    with pytest.raises(StorageError, match="not the Hub's store"):
        planned(old, new, merges=True)


def test_an_emptied_hub_is_merged_into_and_where_nothing_is_it_is_a_move(old, new):
    mine = two_hubs(old, new)
    shutil.rmtree(new)
    assert planned(old, new, merges=True).title == "move"
    (new / ".locks").mkdir(parents=True)
    (new / "version.txt").write_text("1")
    assert merge(old, new).complete
    assert content(new) == mine


@pytest.mark.root
def test_one_directory_under_two_names_is_never_merged_with_itself(tmp_path, old):
    two_hubs(old, tmp_path / "unused")
    before = facts(old)
    names = [tmp_path / "all", tmp_path / "part" / "models--org--mine"]
    for place, of in zip(names, [old, old / "models--org--mine"], strict=True):
        place.mkdir(parents=True)
        if subprocess.run(["mount", "--bind", of, place], check=False).returncode:
            pytest.skip("this machine does not let root make a bind mount")
    try:
        for place in (names[0], tmp_path / "part"):
            with pytest.raises((UsageError, StorageError), match=r"one directory|is mounted there"):
                planned(old, place, merges=True)
    finally:
        for place in names:
            subprocess.run(["umount", place], check=True)
    assert facts(old) == before


def fill_up(rest: Path) -> None:
    """Take all that is left of a disk, to the last page."""
    with contextlib.suppress(OSError), rest.open("wb") as file:
        while True:
            file.write(bytes(1 << 12))
            file.flush()
    assert shutil.disk_usage(rest.parent).free == 0


def stored_blob(hub: Path, data: bytes) -> Path:
    return hub / next(
        str(path.relative_to(hub))
        for path in hub.glob("blobs/??/*")
        if path.suffix == "" and path.read_bytes() == data
    )


def test_a_shared_blob_comes_whoever_leads_to_it(old, new):
    mine = two_hubs(old, new, old_store=True)
    alone, absolute = b"only one link leads to it" * 99, b"an absolute link leads to it" * 99
    HubMaker(old.with_name("more"), shared=True).add("org/a", "1", {"a": alone, "b": absolute})
    subprocess.run(["cp", "-a", f"{old.with_name('more')}/.", old], check=True)
    straight = old / "models--org--a/snapshots" / ("1" * 40) / "a"
    blob = stored_blob(old, alone)
    straight.unlink()
    straight.symlink_to(os.path.relpath(blob, straight.parent))
    next((old / "models--org--a/blobs").glob("*")).unlink()
    blob = stored_blob(old, absolute)
    [user] = [p for p in (old / "models--org--a/blobs").glob("*") if p.exists()]
    user.unlink()
    user.symlink_to(blob)
    theirs = new / "models--org--theirs/blobs/from-the-other"
    theirs.symlink_to(blob)
    mine = content(old)
    assert merge(old, new).complete
    assert content(new).items() >= mine.items()
    assert theirs.read_bytes() == absolute


def test_links_that_lead_somewhere_else_are_brought_as_they_are(tmp_path, old):
    new = old.with_name("other")
    two_hubs(old, new)
    elsewhere = tmp_path / "elsewhere"
    for name in ("models--org--mine", "models--org--both"):
        place = elsewhere / name
        place.mkdir(parents=True)
    shutil.move(old / "models--org--mine", old.with_name("mine"))
    (old / "models--org--mine").symlink_to("../mine")
    HubMaker(tmp_path / "more").add("org/far", "f", {"f": b"far" * 999})
    shutil.move(tmp_path / "more/models--org--far", old)
    shutil.move(old / "models--org--far/blobs", elsewhere / "blobs")
    (old / "models--org--far/blobs").symlink_to(elsewhere / "blobs")
    mine = content(old)
    assert merge(old, new).complete
    assert content(new).items() >= mine.items()
    assert (new / "models--org--mine").readlink() == Path("../mine")


def killed_after_the_swap(old: Path, new: Path) -> Path:
    """A merge that died right after its swap; where the old tree lies."""
    plan = planned(old, new, merges=True)
    assert in_a_child(lambda: carry_out(plan, reached=at("swapped", die)))
    return old.with_name(f".{old.name}.gradience-moved")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_stands_at_the_old_place_after_a_kill_is_not_taken_for_the_link(old, new):
    mine = two_hubs(old, new)
    aside = killed_after_the_swap(old, new)
    (aside / "late").write_bytes(b"late")
    old.unlink()
    HubMaker(old).add("org/fresh", "9", {"x": b"fresh"})
    with pytest.raises(StorageError, match="something else is at"):
        resume(str(old), str(new), nobody)
    assert (old / "models--org--fresh").is_dir()
    assert (content(aside), (aside / "late").read_bytes()) == (mine, b"late")
    assert content(new).items() >= mine.items()


def test_an_unfinished_merge_of_another_cache_is_not_forgotten(tmp_path, old, new):
    two_hubs(old, new)
    second = tmp_path / "second" / "hub"
    HubMaker(second).add("org/second", "2", {"x": b"second"})
    aside = killed_after_the_swap(old, new)
    with pytest.raises(StorageError, match="of an unfinished merge of") as caught:
        resume(str(second), str(new), nobody)
    assert f"gradience cache merge {old} {new}" in caught.value.remedy
    with pytest.raises(StorageError, match="of an unfinished merge of"):
        planned(second, new, merges=True)
    with pytest.raises(StorageError, match="of an unfinished merge of"):
        resume(str(tmp_path / "mistyped"), str(new), nobody)
    resume(str(old), str(new), nobody)
    assert not aside.exists()
    assert merge(second, new).complete


def test_what_an_unfinished_move_set_aside_at_either_end_is_not_passed_over(tmp_path, old, new):
    two_hubs(old, new)
    for end in (old, new):
        aside = end.with_name(f".{end.name}.gradience-moved")
        aside.mkdir()
        with pytest.raises(StorageError, match="of an unfinished move of"):
            planned(old, new, merges=True)
        with pytest.raises(StorageError, match="of an unfinished move of"):
            planned(end, tmp_path / "third")
        aside.rmdir()


@pytest.mark.root
def test_one_directory_seen_through_an_overlay_is_not_merged_with_itself(tmp_path, old):
    mine = two_hubs(old, tmp_path / "unused")
    upper, work, place = (tmp_path / name for name in ("upper", "work", "over"))
    for path in (upper, work, place):
        path.mkdir()
    options = f"lowerdir={old.parent},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, place]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount an overlay")
    try:
        (outcome,) = merge(old, place / "hub").outcomes
        assert "are one directory, mounted twice" in outcome.reasons[0]
        assert content(old) == mine
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_between_two_mounts_of_one_disk_it_is_copied(tmp_path, old):
    mine = two_hubs(old, tmp_path / "disk" / "hub")
    place = tmp_path / "bound"
    place.mkdir()
    bind = ["mount", "--bind", tmp_path / "disk", place]
    if subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root make a bind mount")
    try:
        plan = planned(old, place / "hub", merges=True)
        assert "copied" in plan.items[0].reasons[0]
        assert any("inodes are needed" in note for note in plan.notes)
        assert carry_out(plan).complete
        assert content(place / "hub").items() >= mine.items()
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_what_root_brings_into_a_users_cache_is_that_users(old, new):
    if os.geteuid() != 0:
        pytest.skip("gives files to another user, which needs root")
    mine = two_hubs(old, new, old_store=True, new_store=True)
    for path in (new, *new.rglob("*")):
        os.chown(path, 1234, 1234, follow_symlinks=False)
    assert merge(old, new).complete
    assert content(new).items() >= mine.items()
    assert {path.lstat().st_uid for path in new.rglob("*")} == {1234}


def test_what_is_private_is_never_open_to_others(old, new):
    two_hubs(old, new)
    private = old / "models--org--mine"
    private.chmod(0o700)
    seen = set()

    def look() -> None:
        if (new / private.name).exists():
            seen.add((new / private.name).stat().st_mode & 0o777)

    assert merge(old, new, reached=lambda _: look()).complete
    assert seen == {0o700}


def test_a_shared_blob_that_nobody_deletes_is_not_made_one_that_is(old, new):
    """The hub never sweeps a shared blob without a list; ours would lack who uses it there."""
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415 - a second to load

    HubMaker(old, shared=True).add("org/mine", "a", {"w": b"w" * 9000})
    HubMaker(new, shared=True).add("org/theirs", "b", {"w": b"w" * 9000})
    for listed in new.glob("blobs/??/*.refs"):
        listed.unlink()
    theirs = content(new)
    assert merge(old, new).complete
    scan_cache_dir(new).delete_revisions("a" * 40).execute()
    assert content(new) == theirs


@pytest.mark.root
def test_a_list_of_users_is_whole_though_the_disk_was_full(tmp_path, old):
    with tmpfs(tmp_path / "disk", "size=16m") as disk:
        new = disk / "hub"
        made = HubMaker(old, shared=True)
        for number in range(70):
            made.add(f"org/{'long' * 15}{number}", "a", {"w": b"w" * 9000})
        HubMaker(new, shared=True).add("org/theirs", "b", {"w": b"w" * 9000})
        fill = at("begun", lambda: fill_up(disk / "rest"))
        with pytest.raises(StorageError, match="No space left"):
            merge(old, new, reached=fill)
        (disk / "rest").unlink()
        again(old, new, merges=True)
        sound(new)


@pytest.mark.parametrize("merges", [True, False])
def test_the_old_bytes_stay_where_the_new_place_went_after_a_kill(old, new, merges):
    mine = two_hubs(old, new if merges else new.with_name("unused"))
    plan = planned(old, new, merges=merges)
    if plan.title == "move" and old.stat().st_dev == new.parent.stat().st_dev:
        return  # one rename
    assert in_a_child(lambda: carry_out(plan, reached=at("swapped", die)))
    aside = old.with_name(f".{old.name}.gradience-moved")
    for replaced in (False, True):
        shutil.rmtree(new, ignore_errors=True)
        if replaced:
            HubMaker(new).add("org/begun-anew", "9", {"x": b"x"})
        with contextlib.suppress(StorageError):
            resume(str(old), str(new), nobody)
        kept = content(aside) if aside.exists() else content(old)
        assert kept.items() >= mine.items()
        assert replaced or not old.is_symlink()


def test_odd_links_and_names_are_brought(old, new):
    two_hubs(old, new)
    repo = old / "models--org--mine"
    snapshot = repo / "snapshots" / ("c" * 40)
    (repo / "other/deep").mkdir(parents=True)
    (repo / "other/y").write_bytes(b"by way of a link")
    (snapshot / "d").symlink_to("../../other/deep")
    (snapshot / "back").symlink_to("d/../y")
    (snapshot / "two\nlines").write_bytes(b"odd")
    (snapshot / "half").symlink_to("../../blobs/0123.incomplete")
    (old / ".locks/notes.txt").write_text("mine")
    mine = content(old)
    assert len(mine) >= 7
    assert merge(old, new).complete
    assert content(new).items() >= mine.items()
    assert (new / ".locks/notes.txt").read_text() == "mine"


def test_refs_that_stay_are_named_in_the_plan(old, new):
    two_hubs(old, new)
    notes = planned(old, new, merges=True).notes
    assert any("refs/main at bbbbbbbb, not aaaaaaaa" in note for note in notes)


def test_a_user_may_have_closed_directories_of_their_own(tmp_path):
    if os.geteuid() == 0:
        old, new = tmp_path / "home/old/hub", tmp_path / "home/new/hub"
        two_hubs(old, new)
        for path in (tmp_path / "home", *(tmp_path / "home").rglob("*")):
            os.chown(path, 1234, 1234, follow_symlinks=False)
        for above in tmp_path.parents:
            if above.stat().st_uid == 0 and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o011)
        tmp_path.chmod(0o755)
    else:
        old, new = tmp_path / "old/hub", tmp_path / "new/hub"
        two_hubs(old, new)
    for closed in (old / "models--org--mine", *old.glob("models--org--mine/snapshots/*")):
        closed.chmod(0o555)
    mine = content(old)

    def as_user() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(1234)
            os.setuid(1234)
        assert merge(old, new).complete

    pid = os.fork()
    if pid == 0:
        try:
            as_user()
        finally:
            os._exit(0 if old.is_symlink() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert content(new).items() >= mine.items()
    assert (new / "models--org--mine/snapshots" / ("c" * 40)).stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("step", ["brought", "linked", "swapped"])
def test_a_writer_meanwhile_stops_it_and_a_second_try_has_it_all(old, new, step):
    mine = two_hubs(old, new)
    late = old / "models--org--mine" / "blobs" / "late"

    def write() -> None:
        place = old.with_name(".hub.gradience-moved") if old.is_symlink() else old
        (place / late.relative_to(old)).write_bytes(b"late")

    receipt = merge(old, new, reached=at(step, write))
    assert "it changed while it was copied" in receipt.outcomes[0].reasons[0]
    assert (old.is_symlink(), late.read_bytes()) == (False, b"late")
    assert content(old).items() >= mine.items()
    again(old, new, merges=True)
    assert (new / late.relative_to(old)).read_bytes() == b"late"
    assert (top(old.parent), top(new.parent)) == (["hub"], ["hub"])


def test_it_refuses_while_in_use_and_takes_back_what_was_opened_meanwhile(old, new):
    mine = two_hubs(old, new)
    blob = next((old / "models--org--mine/blobs").glob("[0-9a-f]" * 64))
    with pytest.raises(StorageError, match=r"in use: process 1"):
        planned(old, new, holding(blob), merges=True)
    seen = iter([nobody(), nobody(), holding(blob)])
    plan = planned(old, new, merges=True)
    (outcome,) = carry_out(plan, holders=lambda: next(seen)).outcomes
    assert (outcome.state, "process 1" in outcome.reasons[0]) == ("undone", True)
    assert (old.is_symlink(), content(old).items() >= mine.items()) == (False, True)
    again(old, new, merges=True)


def test_cleaners_are_kept_out_of_both_and_a_second_merge_too(tmp_path, old, new):
    two_hubs(old, new)
    orphans = [hub / "models--org--both" / "blobs" / "orphan" for hub in (old, new)]
    for orphan in orphans:
        orphan.write_bytes(b"o")
    plans = [plan_of(o.parents[2], str(o.relative_to(o.parents[2]))) for o in orphans]
    second = planned(old, new, merges=True)
    refused = []

    def others() -> None:
        for plan in plans:
            with pytest.raises(StorageError, match="another process changes") as caught:
                clean(plan)
            refused.append(caught)
        with pytest.raises(StorageError, match="another process changes"):
            carry_out(second)

    assert merge(old, new, reached=at("brought", others)).complete
    assert len(refused) == 2


def test_a_merge_whose_old_cache_is_gone_can_be_abandoned_and_another_goes_on(tmp_path, old, new):
    two_hubs(old, new)
    assert dies(planned(old, new, merges=True), 9)
    shutil.rmtree(old)
    second = tmp_path / "second" / "hub"
    HubMaker(second).add("org/second", "2", {"x": b"second"})
    with pytest.raises(StorageError, match="of an unfinished merge of") as caught:
        planned(second, new, merges=True)
    assert "--abandon" in caught.value.remedy
    abandon(str(old), str(new))
    assert merge(second, new).complete


def test_an_unfinished_merge_is_abandoned_without_touching_either(old, new):
    mine = two_hubs(old, new)
    theirs = content(new)
    assert dies(planned(old, new, merges=True), 9)
    resume(str(old), str(new), nobody)
    abandon(str(old), str(new))
    assert (content(old) == mine, content(new).items() >= theirs.items()) == (True, True)
    assert (top(old.parent), top(new.parent)) == (["hub"], ["hub"])


@pytest.mark.root
def test_a_disk_that_fills_up_half_way_leaves_the_old_whole_and_the_other_sound(tmp_path, old):
    with tmpfs(tmp_path / "disk", "size=16m") as disk:
        new = disk / "hub"
        mine = two_hubs(old, new)
        plan = planned(old, new, merges=True)
        fill = at("brought", lambda: fill_up(disk / "rest"))
        with pytest.raises(StorageError, match="No space left on device; what was brought stays"):
            carry_out(plan, reached=fill)
        assert (content(old), old.is_symlink()) == (mine, False)
        sound(new)
        (disk / "rest").unlink()
        again(old, new, merges=True)
        assert content(new).items() >= mine.items()


@pytest.mark.root
def test_what_does_not_fit_is_refused_before_a_byte_is_copied(tmp_path, old):
    with tmpfs(tmp_path / "disk", "size=5m") as disk:
        two_hubs(old, disk / "hub")
        (old / "models--org--mine" / "blobs" / "large").write_bytes(bytes(6_000_000))
        before = facts(disk)
        with pytest.raises(StorageError, match="are needed"):
            planned(old, disk / "hub", merges=True)
        assert facts(disk) == before


def test_links_of_a_hostile_cache_lead_nowhere_outside(tmp_path, old, new):
    two_hubs(old, new)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    shutil.rmtree(new / "models--org--both" / "blobs")
    (new / "models--org--both" / "blobs").symlink_to(outside)
    with pytest.raises(StorageError, match="another thing"):
        planned(old, new, merges=True)
    (new / "models--org--both" / "blobs").unlink()
    plan = planned(old, new, merges=True)
    (new / "models--org--both" / "blobs").symlink_to(outside)  # since the plan was made
    assert not carry_out(plan).complete
    assert top(outside) == ["file"]
    assert not old.is_symlink()
    assert os.listdir(old)  # noqa: PTH208
