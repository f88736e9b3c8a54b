"""What was begun to be removed goes, however it is interrupted: nothing comes back in part."""

import functools
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from factories_caches import HubMaker, commit_of
from factories_changes import (
    carry_out,
    clean_plan,
    holding,
    names_below,
    nobody,
    plan_of,
    states,
    top,
)
from factories_disks import ext4, need
from factories_kills import FILES, OLD_FILES, dies_at, has, leads
from gradience.files.at import DEEP
from gradience.storage.change import trash
from gradience.storage.change.recover import recover
from gradience.system.holders import Holders


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> set[str]:
    """The names of all things."""
    root = tmp_path_factory.mktemp("whole")
    things(root)
    return names_below(root)


def things(root: Path) -> None:
    """A directory so deep that parts of it are moved while it goes, and a file."""
    deepest = root.joinpath("deep", *("d" for _ in range(DEEP)))
    deepest.mkdir(parents=True)
    (deepest / "x").write_bytes(b"x" * 5000)
    (root / "file").write_bytes(b"x" * 5000)


def everything_open(root: Path) -> Holders:
    """A program, such as one that makes backups, has all files open that are there."""
    return holding(*(path for path in root.rglob("*") if path.is_file()))


def empty(root: Path) -> None:
    for thing in trash.find([str(root)]):
        trash.empty(thing)


def undo(root: Path) -> None:
    for thing in trash.find([str(root)]):
        trash.bring_back(thing)


def killed_everywhere(
    above: Path, act: Callable[[Path], object], begin: Callable[[Path], object] = things
) -> Iterator[Path]:
    """A root for each step of an act, which was killed there."""
    for step in itertools.chain(
        range(40), itertools.count(40, 5)
    ):  # first all, then one directory like another
        root = above / str(step)
        begin(root)
        killed = dies_at(step, functools.partial(act, root))
        yield root
        if not killed:
            break
    assert step > 2 * DEEP


@pytest.mark.parametrize("now", [lambda _: nobody(), everything_open], ids=["", "open"])
def test_things_that_go_together_are_there_or_gone_wherever_that_was_killed(tmp_path, whole, now):
    for root in killed_everywhere(
        tmp_path, lambda root: carry_out(plan_of(root, ["file", "deep"]))
    ):
        recover(str(root), functools.partial(now, root))
        assert names_below(root) in (whole, set())
        assert ".gradience" not in top(root)


def test_what_was_begun_to_be_emptied_from_the_trash_does_not_come_back(tmp_path, whole):
    def begin(root: Path) -> None:
        things(root)
        carry_out(plan_of(root, "deep", "file", verb="trash"))

    for root in killed_everywhere(tmp_path, empty, begin):
        recover(str(root), nobody)
        undo(root)
        assert names_below(root) in (whole, whole - {"file"}, {"file"}, set())
        assert ".gradience" not in top(root)


@pytest.mark.root
def test_what_is_left_where_the_disk_refuses_is_no_trash_and_goes_when_it_may(tmp_path):
    need("chattr")
    with ext4(tmp_path / "m") as disk:
        root = disk / "root"
        for name in ("a/stays", "a/goes"):
            (root / name).mkdir(parents=True)
            (root / name / "x").write_bytes(b"x" * 5000)
        subprocess.run(["chattr", "+i", root / "a/stays"], check=True)
        receipt = carry_out(plan_of(root, "a"))
        assert (states(receipt), receipt.trash) == (["failed"], ())
        assert "what is left of it lies in .gradience/test now" in receipt.outcomes[0].reasons[0]
        (stays,) = root.glob(".gradience/test/things/*/stays")
        recover(str(root), nobody)
        assert trash.find([str(root)]) == []
        assert top(root) == [".gradience"]
        subprocess.run(["chattr", "-i", stays], check=True)
        recover(str(root), nobody)
        assert top(root) == []


def test_a_cleaner_beside_a_killed_trash_leaves_what_the_trash_brings_back_whole(tmp_path):
    """What nothing used while the trash was half filled is used again once that is undone."""
    for step in itertools.count(0, 2):
        root = tmp_path / str(step)
        made = HubMaker(root / "hub", shared=True)
        made.add("org/m", "b", FILES)
        goes = made.add("org/m", "a", OLD_FILES, ref="v1")
        plan = clean_plan(made.hub, revisions=[commit_of("a")], verb="trash")
        killed = dies_at(step, functools.partial(carry_out, plan))
        second = clean_plan(made.hub)  # planned while it lies half-way
        recover(str(made.hub), nobody)
        carry_out(msgspec.structs.replace(second, id="second"))
        undo(made.hub)
        leads(made.hub)
        assert has(goes, OLD_FILES), step
        if not killed:
            return
