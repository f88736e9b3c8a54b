"""A change of another user, or one that others could have written, is never believed."""

import json
import os
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import factories_moves as moves
from factories_caches import Caches, HubMaker
from factories_changes import carry_out, clean_plan, dies, names_below, nobody, plan_of, states, top
from factories_disks import fuse_without_locks, second_disk
from gradience import artifacts
from gradience.errors import StorageError, UsageError
from gradience.files.below import Below
from gradience.storage.change import trash
from gradience.storage.change.move.resume import abandon, resume
from gradience.storage.change.records import PLAN_SCHEMA, Plan
from gradience.storage.change.recover import recover
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.mode import target

OTHER = 65534


def given(path: Path, user: int = OTHER) -> None:
    """Give a directory and all in it to another user."""
    if os.geteuid() != 0:
        pytest.skip("gives files to another user")
    for one in (path, *path.rglob("*")):
        os.chown(one, user, user, follow_symlinks=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    for name in ("a", "b"):
        (made / name).write_bytes(b"x" * 5000)
    (made / "secret").write_text("hf_secret")
    (made / "secret").chmod(0o600)
    return made


def opening(root: Path) -> Plan:
    """A plan that opens the secret to everybody, from the other way round: its undo does."""
    plan = plan_of(root, "secret", verb="mode")
    status = (root / "secret").stat()
    closed, opened = (status.st_gid, 0o600), (status.st_gid, 0o666)
    action = msgspec.structs.replace(plan.actions[0], target=target(opened, closed))
    return msgspec.structs.replace(plan, actions=(action,))


def planted(root: Path, plan: Plan, states: bytes = b"b") -> Path:
    """A change as one that was killed leaves it."""
    own = root / ".gradience" / plan.id
    (own / "things").mkdir(parents=True)
    (own / "plan.json").write_bytes(artifacts.encode(PLAN_SCHEMA, plan, now=datetime.now(UTC)))
    (own / "state").write_bytes(states)
    for path in (own.parent, own, own / "things"):
        path.chmod(0o755)
    for path in (own / "plan.json", own / "state"):
        path.chmod(0o644)
    return own


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_open(root: Path) -> bool:
    return mode(root / "secret") != 0o600


def test_our_own_change_that_was_cut_off_is_taken_back(root):
    planted(root, opening(root))
    assert recover(str(root), nobody)
    assert is_open(root)  # so what follows is about whose it is


Spoil = Callable[[Path], None]
SPOILT: dict[str, Spoil] = {
    "all of it": given,
    "directory": lambda own: os.chown(own, OTHER, OTHER),
    "plan": lambda own: os.chown(own / "plan.json", OTHER, OTHER),
    "states": lambda own: os.chown(own / "state", OTHER, OTHER),
    "place of its things": lambda own: os.chown(own / "things", OTHER, OTHER),
}


@pytest.mark.root
@pytest.mark.parametrize("what", SPOILT)
def test_a_change_of_which_anything_is_another_users_is_left_as_it_is_and_said(root, what):
    if os.geteuid() != 0:
        pytest.skip("gives files to another user")
    own = planted(root, opening(root))
    SPOILT[what](own)
    before = sorted(own.rglob("*"))
    (note,) = recover(str(root), nobody)
    assert "belongs to user" in note
    assert ".gradience/test" in note
    assert not is_open(root)
    assert sorted(own.rglob("*")) == before
    assert states(carry_out(plan_of(root, "b", change="mine"))) == ["done"]


@pytest.mark.parametrize("what", ["", "plan.json", "state", "things"])
def test_what_others_may_write_to_may_be_their_words(root, what):
    own = planted(root, opening(root))
    (own / what).chmod(0o775)
    (note,) = recover(str(root), nobody)
    assert "others may write to it" in note
    assert not is_open(root)
    shared = own / "things" / "shared"
    shared.touch()
    shared.chmod(0o664)
    subprocess.run(note[note.index("chmod") :].rstrip("."), shell=True, check=True)
    assert mode(shared) == 0o664, "what was set aside keeps its rights"
    assert recover(str(root), nobody)
    assert is_open(root)


@pytest.mark.root
def test_without_a_plan_too_nothing_of_another_user_is_put_anywhere(root):
    own = root / ".gradience" / "lost"
    (own / "things").mkdir(parents=True)
    (own / "things" / "evil").write_text("planted")
    given(own)
    assert recover(str(root), nobody) == []
    assert not (root / "evil").exists()


def test_a_directory_that_is_no_change_of_ours_keeps_its_files(root):
    (root / ".gradience" / "proj").mkdir(parents=True)
    for name in ("plan.json", "state"):
        (root / ".gradience" / "proj" / name).write_text("mine")
    recover(str(root), nobody)
    assert top(root / ".gradience" / "proj") == ["plan.json", "state"]


@pytest.mark.root
def test_the_parent_of_what_is_shared_believes_nobody_either(root, tmp_path):
    given(planted(tmp_path, plan_of(tmp_path, "root/secret", verb="mode")))
    own = tmp_path / ".gradience/test"
    plan = json.loads((own / "plan.json").read_text())
    plan["content"]["actions"][0]["target"] = "0:666>0:600"
    (own / "plan.json").write_text(json.dumps(plan))
    shared = Caches(tmp_path, HF_HUB_CACHE=str(root))
    done = shared("share", root, "--group", "nogroup", "--yes")
    assert not mode(root / "secret") & 0o006
    assert "is left as it is" in done.stderr


@pytest.mark.root
def test_trash_of_another_user_is_named_and_stays(root):
    carry_out(plan_of(root, "a", verb="trash", change="theirs"))
    given(root / ".gradience/theirs")
    carry_out(plan_of(root, "b", verb="trash", change="mine"))
    theirs, mine = trash.find([str(root)])
    assert (mine.id, mine.stranger) == ("mine", None)
    assert theirs.stranger is not None
    assert "belongs to user" in theirs.stranger.why
    assert trash.choose([theirs, mine], None) == [mine]
    for act in (trash.bring_back, trash.empty, lambda one: trash.choose([one], "theirs")):
        with pytest.raises(UsageError, match="belongs to user") as caught:
            act(theirs)
        assert "gradience cache undo theirs" in caught.value.remedy
    assert names_below(root) == {"secret"}


@pytest.mark.root
def test_undo_says_whose_the_trash_is(tmp_path):
    hub = HubMaker(tmp_path / "hf/hub")
    hub.add("org/m", "a", {"w": b"w" * 9000})
    gradience = Caches(tmp_path)
    gradience("clean", "org/m", "--trash", "--yes", "--min-age", "0s", "--offline")
    (own,) = (p for p in (hub.hub / ".gradience").iterdir() if p.is_dir())
    given(own)
    for words in ([], ["--list"]):
        done = gradience("undo", *words)
        assert (done.returncode, "left alone: it belongs to user" in done.stdout) == (0, True)
    done = gradience("undo", own.name)
    assert (done.returncode, "sudo -u" in done.stderr) == (2, True)
    assert not hub.repo("org/m").exists()


def test_what_a_change_keeps_is_closed_to_others_whatever_the_umask(root):
    umask = os.umask(0)
    try:
        carry_out(plan_of(root, "a", verb="trash"))
        assert dies(plan_of(root, "b", change="cut"), 5)
    finally:
        os.umask(umask)
    own = root / ".gradience"
    assert [mode(own / change) for change in ("test", "cut")] == [0o700] * 2
    assert [mode(own / "cut" / name) for name in ("plan.json", "state")] == [0o600] * 2
    assert trash.bring_back(trash.find([str(root)])[0]).things == 1


@pytest.mark.root
def test_a_change_goes_on_in_its_own_directory_when_that_is_exchanged_for_anothers(root):
    """Who owns `.gradience` may rename what is in it, at any moment."""
    with Below(str(root)) as below:
        site = Site(below, "test")
        site.open_own()
        own = root / ".gradience/test"
        own.rename(own.with_name("taken"))
        (own / "things").mkdir(parents=True)
        given(own)
        for number in range(40):  # more directories than are kept open
            (root / f"d{number}").mkdir()
            below.entries(f"d{number}")
        site.set_aside("a")
        assert list((own / "things").iterdir()) == []
        assert (own.with_name("taken") / "things/a").exists()
        site.bring_back("a")
    assert (root / "a").exists()
    with pytest.raises(StorageError, match="holds what a change"):
        carry_out(plan_of(root, "b"))


@pytest.mark.root
@pytest.mark.parametrize("verb", ["delete", "trash"])
def test_what_root_makes_in_the_cache_of_another_user_is_that_users(tmp_path, verb):
    hub = HubMaker(tmp_path / "hub")
    for name in ("org/m", "org/kept"):
        hub.add(name, "a", {"w": b"w" * 9000})
    given(hub.hub)
    assert carry_out(clean_plan(hub.hub, names=["org/m"], verb=verb)).complete
    assert list(hub.hub.rglob("*.lock"))
    for thing in trash.find([str(hub.hub)]):
        assert trash.bring_back(thing).stayed == ()
        assert hub.repo("org/m").exists()
    assert {path.lstat().st_uid for path in hub.hub.rglob("*")} == {OTHER}


@pytest.mark.root
@pytest.mark.parametrize("mode_of_it", [0o755, 0o777])
def test_an_unfinished_move_that_another_user_planted_is_refused(tmp_path, mode_of_it):
    with second_disk(tmp_path) as disk:
        old = moves.fill_few(tmp_path / "hub")
        before = moves.facts(old)
        plan = moves.planned(old, disk / "hub")
        own = disk / ".hub.gradience-move"
        (own / "copy").mkdir(parents=True)
        (own / "state").write_bytes(b"r")
        given(own)
        own.chmod(mode_of_it)
        for act in (
            lambda: moves.carry_out(plan),
            lambda: resume(str(old), str(disk / "hub"), nobody),
            lambda: abandon(str(old), str(disk / "hub")),
        ):
            with pytest.raises(StorageError, match="is no unfinished move of ours: it belongs to"):
                act()
        assert (moves.facts(old), top(own)) == (before, ["copy", "state"])


def test_rights_go_back_on_the_very_file_alone_that_had_them_changed(root):
    planted(root, opening(root))
    (root / "secret").rename(root / "moved")
    (root / "secret").write_text("another")
    (root / "secret").chmod(0o600)
    recover(str(root), nobody)
    assert (mode(root / "secret"), mode(root / "moved")) == (0o600, 0o600)


@pytest.mark.root
@pytest.mark.parametrize("looks", ["nobody's", "everybody's"])
def test_where_a_mount_knows_no_owners_or_modes_trash_comes_back(tmp_path, looks):
    with fuse_without_locks(tmp_path / "m", looks=looks) as mount:
        place = mount / "root"
        place.mkdir()
        (place / "a").write_bytes(b"x" * 5000)
        assert states(carry_out(plan_of(place, "a", verb="trash"))) == ["done"]
        (found,) = trash.find([str(place)])
        assert found.stranger is None
        assert trash.bring_back(found).things == 1
        assert top(place) == ["a"]
