"""Trees that mean harm: undo, emptying and sharing bytes reach nothing outside of their roots."""

import hashlib
import os
from pathlib import Path

import pytest

from factories_caches import HubMaker
from factories_changes import carry_out, dedupe_plan, names_below, plan_of, states
from gradience.storage.change import trash


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    made.mkdir()
    (made / "precious").write_bytes(b"x" * 50_000)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    for name in ("a/deep/two", "b"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(b"y" * 50_000)
    return made


def trashed(root: Path, *names: str) -> Path:
    """Trash of these names; the directory that holds it."""
    assert set(states(carry_out(plan_of(root, *names, verb="trash")))) == {"done"}
    return root / ".gradience/test/things"


def found(root: Path) -> trash.Trash:
    (one,) = trash.find([str(root)])
    return one


def test_what_comes_back_is_never_put_behind_a_link_that_took_the_place_of_its_directory(
    root, outside
):
    trashed(root, "a/deep/two")
    (root / "a/deep").rmdir()
    (root / "a").rmdir()
    (root / "a").symlink_to(outside)
    returned = trash.bring_back(found(root))
    assert (returned.things, len(returned.stayed)) == (0, 1)
    assert names_below(outside) == {"precious"}
    assert found(root).names == ("a/deep/two",)


@pytest.mark.parametrize("name", ["..%2Foutside%2Fplanted", "%2Ftmp%2Fplanted", "a%2F..%2F..%2Fx"])
@pytest.mark.parametrize("act", [trash.bring_back, trash.empty])
def test_a_name_that_was_planted_in_the_trash_leads_nowhere(root, outside, name, act):
    things = trashed(root, "b")
    (things / name).write_text("planted")
    everything = names_below(root.parent)
    act(found(root))
    assert {n for n in names_below(root.parent) if not n.startswith("root/")} == {
        n for n in everything if not n.startswith("root/")
    }
    assert not Path("/tmp/planted").exists()


@pytest.mark.parametrize("act", [trash.bring_back, trash.empty])
def test_a_thing_in_the_trash_that_became_a_link_or_a_loop_is_taken_for_itself(root, outside, act):
    things = trashed(root, "a", "b")
    (things / "b").unlink()
    (things / "b").symlink_to(outside)
    (things / "a" / "loop").symlink_to("..")
    os.mkfifo(things / "a" / "pipe")
    act(found(root))
    assert (outside / "precious").read_bytes() == b"x" * 50_000
    if act is trash.empty:
        assert names_below(root) == set()
    else:
        assert (root / "b").is_symlink()
        assert (root / "a/deep/two").exists()


def test_names_that_no_terminal_shows_come_back_as_they_were(root):
    names = [os.fsdecode(name) for name in (b"new\nline", b"\xff\xfe", b"50%2Foff", b"-rf")]
    for name in names:
        (root / name).write_bytes(b"z")
    trashed(root, *names)
    assert trash.bring_back(found(root)).things == len(names)
    assert names_below(root) >= set(names)


def test_a_trash_whose_things_were_moved_behind_a_link_is_not_followed(root, outside):
    things = trashed(root, "b")
    things.rename(outside / "things")
    things.symlink_to(outside / "things")
    for one in trash.find([str(root)]):
        trash.empty(one)
    assert (outside / "things" / "b").read_bytes() == b"y" * 50_000


@pytest.mark.parametrize("what", ["directory", "link out", "loop", "pipe"])
def test_a_blob_that_is_something_else_by_now_is_not_shared(tmp_path, outside, what):
    data, hubs = b"x" * 50_000, (tmp_path / "one", tmp_path / "two")
    for hub in hubs:
        HubMaker(hub).add("org/m", "a", {"w": data})
    plan = dedupe_plan(*hubs)
    assert plan.actions
    one, two = (hub / "models--org--m/blobs" / hashlib.sha256(data).hexdigest() for hub in hubs)
    one.unlink()
    two.unlink()
    if what == "directory":
        two.mkdir()
    elif what == "pipe":
        os.mkfifo(two)
    else:
        two.symlink_to(outside / "precious" if what == "link out" else two)
    one.symlink_to(outside / "precious")
    assert set(states(carry_out(plan))) == {"skipped"}
    assert (outside / "precious").stat().st_nlink == 1
    assert (outside / "precious").read_bytes() == b"x" * 50_000
