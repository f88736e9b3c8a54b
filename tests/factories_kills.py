"""Changes that are killed before and after everything that they do to the disk.

A profile function sees each call that changes a disk, whoever makes it, so no step is forgotten
when a verb gets a new one.
"""

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import factories_moves as moves
from factories_caches import HubMaker, commit_of
from factories_changes import carry_out, clean_plan, dedupe_plan, in_a_child, nobody, top
from gradience.files import at, contents, sharing
from gradience.files.below import Below
from gradience.storage.change import trash
from gradience.storage.change.move.resume import resume
from gradience.storage.change.recover import recover
from gradience.storage.change.share import Group, plan_group, plan_links
from gradience.storage.change.share import back as way_back

_CALLS = (os.chmod, os.chown, os.fchmod, os.fchown, os.ftruncate, os.link, os.mkdir, os.pwrite)
_CALLS += (os.rename, os.rmdir, os.setxattr, os.symlink, os.unlink, os.utime, os.write)
_CALLS += (fcntl.ioctl,)
# renameat2 is called through ctypes, which a profile does not see; os.open makes a file at times.
_FUNCTIONS = {at.rename.__code__, Below.create.__code__}


def dies_at(step: int, act: Callable[[], object]) -> bool:
    """Do it in a child that is killed at its nth step; whether it came so far."""
    left = step

    def reached(frame: FrameType, event: str, what: Any) -> None:
        nonlocal left
        in_c = event in ("c_call", "c_return") and what in _CALLS
        if in_c or (event in ("call", "return") and frame.f_code in _FUNCTIONS):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    def until() -> None:
        sys.setprofile(reached)
        act()
        sys.setprofile(None)

    return in_a_child(until)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change to be killed, and what must hold after that.

    Attributes
    ----------
    act : callable
        The change.
    always : callable
        Asserts what holds at every moment.
    settle : callable
        What the next command does first.
    whole : callable
        Asserts what holds after it.
    again : callable
        The same command; asserts that it comes to its end.
    """

    act: Callable[[], object]
    always: Callable[[], object]
    settle: Callable[[], object]
    whole: Callable[[], object]
    again: Callable[[], object]


FILES = {"w.bin": b"w" * 9000, "c.json": b"{}" * 3000}
OLD_FILES = {**FILES, "old.bin": b"o" * 5000}


def has(snapshot: Path, files: Mapping[str, bytes]) -> bool:
    return {p.name: p.read_bytes() for p in snapshot.iterdir()} == files


def leads(hub: Path) -> None:
    """Assert that every link of a cache leads somewhere, and that nothing of ours is left."""
    assert [p for p in hub.rglob("*") if p.is_symlink() and not p.exists()] == []
    assert not (hub / ".gradience").exists()


class _Hub:
    """A hub with a revision that goes, and one that stays and shares files with it."""

    def __init__(self, root: Path, *, shared: bool) -> None:
        made = HubMaker(root / "hub", shared=shared)
        self.hub = made.hub
        self.stays = made.add("org/m", "b", FILES)
        self.goes = made.add("org/m", "a", OLD_FILES, ref="v1")
        self.ref = made.repo("org/m") / "refs" / "v1"

    def kept(self) -> None:
        assert has(self.stays, FILES)

    def whole(self) -> None:
        """Gone with its ref, or there as it was."""
        leads(self.hub)
        assert self.ref.exists() == self.goes.exists()
        assert not self.goes.exists() or has(self.goes, OLD_FILES)

    def all_there(self) -> None:
        leads(self.hub)
        assert has(self.stays, FILES)
        assert has(self.goes, OLD_FILES)
        assert self.ref.exists()

    def recover(self) -> None:
        recover(str(self.hub), nobody)

    def undo(self) -> None:
        self.recover()
        for thing in trash.find([str(self.hub)]):
            trash.bring_back(thing)

    def empty(self) -> None:
        self.recover()
        for thing in trash.find([str(self.hub)]):
            trash.empty(thing)

    def change(self, verb: str = "delete") -> Callable[[], object]:
        plan = clean_plan(self.hub, revisions=[commit_of("a")], verb=verb)
        return lambda: carry_out(plan)

    def cleaned(self) -> None:
        self.change()()
        self.gone()

    def gone(self) -> None:
        leads(self.hub)
        assert not self.goes.exists()
        assert has(self.stays, FILES)


def clean(root: Path, far: Path, *, shared: bool = False) -> Change:
    hub = _Hub(root, shared=shared)
    return Change(
        act=hub.change(),
        always=hub.kept,
        settle=hub.recover,
        whole=hub.whole,
        again=hub.cleaned,
    )


def clean_store(root: Path, far: Path) -> Change:
    return clean(root, far, shared=True)


def to_trash(root: Path, far: Path) -> Change:
    hub = _Hub(root, shared=True)
    return _back_by_undo(hub, hub.change("trash"))


def undo(root: Path, far: Path) -> Change:
    hub = _Hub(root, shared=True)
    hub.change("trash")()
    return _back_by_undo(hub, hub.undo)


def _back_by_undo(hub: _Hub, act: Callable[[], object]) -> Change:
    return Change(act=act, always=hub.kept, settle=hub.undo, whole=hub.all_there, again=hub.cleaned)


def empty(root: Path, far: Path) -> Change:
    hub = _Hub(root, shared=False)
    hub.change("trash")()
    return Change(
        act=hub.empty,
        always=hub.kept,
        settle=hub.recover,
        whole=hub.kept,
        again=lambda: (hub.empty(), hub.gone()),
    )


def dedupe(root: Path, far: Path) -> Change:
    """By reflinks where the file system has them, else by hard links."""
    one, two = (HubMaker(root / name).add("org/m", "a", FILES) for name in ("one", "two"))
    hubs = root / "one", root / "two"

    def bytes_are_there() -> None:
        assert has(one, FILES)
        assert has(two, FILES)

    def settle() -> None:
        for hub in hubs:
            recover(str(hub), nobody)

    def whole() -> None:
        bytes_are_there()
        for hub in hubs:
            leads(hub)

    def again() -> None:
        assert carry_out(dedupe_plan(*hubs)).complete
        whole()
        sync(root)
        assert not dedupe_plan(*hubs).actions

    sync(root)  # only what is written has blocks to share
    plan = dedupe_plan(*hubs)
    assert {a.verb for a in plan.actions} == {
        "reflink" if sharing.can_share(str(root)) else "hardlink"
    }
    return Change(
        act=lambda: carry_out(plan), always=bytes_are_there, settle=settle, whole=whole, again=again
    )


def can_swap(directory: Path) -> bool:
    """Whether two names there are swapped in one step; else a move is two renames."""
    names = [directory / "one", directory / "two"]
    for name in names:
        name.touch()
    try:
        with Below(str(directory)) as below:
            below.exchange("one", "two")
    except OSError:
        return False
    finally:
        for name in names:
            name.unlink()
    return True


def sync(directory: Path) -> None:
    """Write out its file system, and no other."""
    descriptor = os.open(directory, os.O_RDONLY)
    contents.sync_file_system(descriptor)
    os.close(descriptor)


def share(root: Path, far: Path) -> Change:
    home = root / "hf"
    HubMaker(home / "hub").add("org/m", "a", FILES)
    (home / "token").write_text("hf_secret")
    group = Group(name="nogroup", number=65534 if os.geteuid() == 0 else os.getegid())
    plan = plan_group(str(home), group, change="test", now=0.0)
    back = way_back(plan)

    def rights() -> dict[str, tuple[int, int]]:
        found = {str(p.relative_to(home)): p.lstat() for p in (home, *home.rglob("*"))}
        return {name: (s.st_gid, s.st_mode) for name, s in found.items()}

    old = rights()
    assert carry_out(plan).complete
    new = rights()
    assert carry_out(back).complete
    assert rights() == old

    def whole() -> None:
        assert rights() in (old, new)
        assert not (root / ".gradience").exists()

    def again() -> None:
        assert carry_out(plan).complete
        assert rights() == new
        assert carry_out(back).complete
        assert rights() == old

    def bytes_are_there() -> None:
        assert has(next(home.glob("hub/*/snapshots/*")), FILES)

    return Change(
        act=lambda: carry_out(plan),
        always=bytes_are_there,
        settle=lambda: recover(str(root), nobody),
        whole=whole,
        again=again,
    )


def link(root: Path, far: Path) -> Change:
    """Two projects get a link to one cache; one has an empty directory in its place."""
    HubMaker(root / "hub").add("org/m", "a", FILES)
    (root / "one").mkdir()
    (root / "two" / "hub").mkdir(parents=True)
    links = [root / "one" / "hub", root / "two" / "hub"]

    def carry() -> None:
        carry_out(plan_links(str(root / "hub"), list(map(str, links)), change="test", now=0.0))

    def whole() -> None:
        assert has(next((root / "hub").glob("*/snapshots/*")), FILES)
        assert not (root / ".gradience").exists()
        for link in links:
            assert not link.exists() or link.is_dir()

    def again() -> None:
        carry()
        assert [link.readlink() for link in links] == [root / "hub"] * 2

    return Change(
        act=carry,
        always=lambda: None,
        settle=lambda: recover(str(root), nobody),
        whole=whole,
        again=again,
    )


def move(root: Path, far: Path) -> Change:
    """To another disk."""
    return _move(root, far)


def rename(root: Path, far: Path) -> Change:
    """A move on one disk."""
    (root / "new").mkdir()
    return _move(root, root / "new")


def _move(root: Path, far: Path) -> Change:
    (root / "old").mkdir()
    old, new = moves.fill_few(root / "old" / "hub"), far / "hub"
    before = moves.facts(old)
    plan = moves.planned(old, new)
    swaps = can_swap(root)

    def all_there() -> None:
        assert moves.facts(old) == before

    def all_somewhere() -> None:
        assert before in (moves.facts(old), moves.facts(new))

    def again() -> None:
        moves.again(old, new)
        assert moves.facts(new) == before
        assert old.readlink() == new
        assert (top(old.parent), top(far)) == (["hub"], ["hub"])

    return Change(
        act=lambda: moves.carry_out(plan),
        always=all_there if swaps else all_somewhere,
        settle=lambda: resume(str(old), str(new), nobody),
        whole=all_there,
        again=again,
    )


def merge(root: Path, far: Path) -> Change:
    """Into a cache on another disk."""
    return _merge(root, far)


def join(root: Path, far: Path) -> Change:
    """A merge on one disk."""
    (root / "new").mkdir()
    return _merge(root, root / "new")


def _merge(root: Path, far: Path) -> Change:
    old, new = root / "old" / "hub", far / "hub"
    mine = moves.few_in_two_hubs(old, new)
    theirs = moves.content(new)
    plan = moves.planned(old, new, merges=True)
    swaps = can_swap(root)

    def all_there() -> None:
        assert moves.content(old).items() >= mine.items()
        moves.sound(new)
        assert moves.content(new).items() >= theirs.items()

    def all_somewhere() -> None:
        moves.sound(new)
        both = moves.content(new) | (moves.content(old) if old.exists() else {})
        assert both == mine | theirs

    def again() -> None:
        moves.again(old, new, merges=True)
        assert moves.content(new) == theirs | mine
        assert old.readlink() == new
        assert (top(old.parent), top(far)) == (["hub"], ["hub"])

    return Change(
        act=lambda: moves.carry_out(plan),
        always=all_there if swaps else all_somewhere,
        settle=lambda: resume(str(old), str(new), nobody),
        whole=all_there,
        again=again,
    )


CHANGES = {
    "clean": clean,
    "clean_store": clean_store,
    "trash": to_trash,
    "undo": undo,
    "empty": empty,
    "dedupe": dedupe,
    "share": share,
    "link": link,
    "move": move,
    "rename": rename,
    "merge": merge,
    "join": join,
}


def killed_at(step: int, name: str, near: Path, far: Path) -> bool:
    """Kill a change at its nth step, settle it, and do it again; whether it came so far."""
    root, other = near / f"{name}{step}", far / f"{name}{step}"
    root.mkdir()
    other.mkdir()
    change = CHANGES[name](root, other)
    killed = dies_at(step, change.act)
    change.always()
    change.settle()
    change.whole()
    change.again()
    shutil.rmtree(root)
    shutil.rmtree(other)
    return killed
