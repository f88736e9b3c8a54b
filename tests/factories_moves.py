"""Trees with everything a cache may hold, what of them must survive a move, and moves that die."""

import contextlib
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from factories_caches import HubMaker, commit_of
from factories_changes import in_a_child, nobody
from gradience.storage.change.move.merge import plan_merge
from gradience.storage.change.move.plan import Wish, plan_move
from gradience.storage.change.move.resume import resume
from gradience.storage.change.move.run import move
from gradience.storage.change.records import Plan, Receipt
from gradience.system.holders import Holders

OLD_NS = 1_600_000_000_123_456_789
ODD = b"caf\xe9\nline"


def fill(root: Path) -> Path:
    """Every kind of name: sparse, hard and soft links, modes, attributes, odd names."""
    (root / "blobs").mkdir(parents=True)
    (root / "snapshots" / "c").mkdir(parents=True)
    (root / "empty").mkdir()
    blob = root / "blobs" / "weights"
    blob.write_bytes(os.urandom(300_000))
    blob.chmod(0o444)
    (root / "snapshots" / "c" / "w").symlink_to("../../blobs/weights")
    (root / "snapshots" / "c" / "absolute").symlink_to(blob)
    (root / "loop").symlink_to("loop")
    (root / "outside").symlink_to("/etc/hostname")
    os.link(blob, root / "blobs" / "second name")
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(3_000_000)
        sparse.write(b"end")
        sparse.truncate(8_000_000)
    Path(os.fsdecode(os.path.join(os.fsencode(root), ODD))).write_bytes(b"odd")  # noqa: PTH118
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(root / "sparse", "user.note", b"kept")
    for path in root.rglob("*"):
        os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    (root / "empty").chmod(0o2750)
    return root


def fill_few(root: Path) -> Path:
    """A blob, its link, and a directory: each kind of step once."""
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / "weights").write_bytes(os.urandom(100_000))
    (root / "link").symlink_to("blobs/weights")
    return root


def two_hubs(
    old: Path, new: Path, *, old_store: bool = False, new_store: bool = False
) -> dict[str, bytes]:
    """Two hub caches with parts in common; what of the first must be found by its name, always.

    The old one has a repo and a revision of its own, another commit under `main`, leftovers, and
    a blob that two of its repositories share.
    """
    one, other = HubMaker(old, shared=old_store), HubMaker(new, shared=new_store)
    one.add("org/both", "a", {"w": b"w" * 90_000, "config.json": b"{}"}, ref="main")
    one.add("org/both", "b", {"w": b"w" * 90_000, "sub/more": b"m" * 70_000}, ref="v2")
    one.add("org/mine", "c", {"x": b"x" * 80_000, "w": b"w" * 90_000})
    other.add("org/both", "b", {"w": b"w" * 90_000, "sub/more": b"m" * 70_000}, ref="main")
    other.add("org/theirs", "d", {"y": b"y" * 50_000})
    blobs = one.repo("org/mine") / "blobs"
    (blobs / "0123.incomplete").write_bytes(b"half")
    (one.repo("org/mine") / "snapshots" / commit_of("c") / "gone").symlink_to("../../blobs/gone")
    locks = old / ".locks" / one.repo("org/mine").name
    locks.mkdir(parents=True)
    (locks / "x.lock").touch()
    return content(old)


def few_in_two_hubs(old: Path, new: Path) -> dict[str, bytes]:
    """A shared blob, its user, a link and a ref to bring: each kind of step once."""
    HubMaker(old, shared=True).add("org/m", "a", {"w": b"w" * 9000}, listing=False)
    HubMaker(new, shared=True).add("org/n", "b", {"x": b"x" * 9000}, listing=False)
    return content(old)


def content(hub: Path) -> dict[str, bytes]:
    """What the snapshots of a hub cache hold, by name."""
    return {
        str(path.relative_to(hub)): path.read_bytes()
        for path in sorted(hub.glob("models--*/snapshots/**/*"))
        if path.is_file()
    }


def sound(hub: Path) -> None:
    """Assert that nothing in a hub cache names what is not there, and that every list is whole."""
    for ref in hub.glob("models--*/refs/*"):
        assert (ref.parents[1] / "snapshots" / ref.read_text()).is_dir(), ref
    for link in hub.glob("models--*/**/*"):
        if link.is_symlink():
            assert link.exists(), link
            if link.parent.name == "blobs":
                listed = link.resolve().with_name(f"{link.resolve().name}.refs").read_text()
                assert str(link.relative_to(hub)) in listed.splitlines(), link


def facts(root: Path) -> dict[str, tuple[Any, ...]]:
    """What of every name below a directory must survive a move."""
    found: dict[str, tuple[Any, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.relative_to(root).parts[0] == ".gradience":
            continue
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            attributes = []
            with contextlib.suppress(OSError, AttributeError):
                attributes = os.listxattr(path)
            content = (
                path.read_bytes(),
                first.setdefault(status.st_ino, name),
                status.st_blocks * 512 < status.st_size,
                [(a, os.getxattr(path, a)) for a in attributes if a.startswith("user.")],
            )
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def planned(
    old: Path,
    new: Path,
    holders: Holders | None = None,
    home: Path | None = None,
    *,
    merges: bool = False,
) -> Plan:
    wish = Wish(
        old=str(old),
        new=str(new),
        change="test",
        now=0.0,
        holders=holders or nobody(),
        environ={},
        home=home or old.parent,
    )
    return (plan_merge if merges else plan_move)(wish)


def carry_out(plan: Plan, home: Path = Path("/nonexistent"), **options: Any) -> Receipt:
    return move(plan, **{"holders": nobody, "environ": {}, "home": home, **options})


def at(step: str, act: Callable[[], object], times: int = 1) -> Callable[[str], None]:
    """Something that happens at a step of a move, once."""
    left = [times]

    def reached(name: str) -> None:
        if name == step and left[0]:
            left[0] -= 1
            act()

    return reached


def dying(steps: int) -> Callable[[str], None]:
    """What kills this process at its nth step."""
    left = [steps]

    def reached(_: str) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    return reached


def dies(plan: Plan, steps: int) -> bool:
    """Carry out a move in a child that is killed at its nth step; whether it came so far."""

    def act() -> None:
        assert carry_out(plan, reached=dying(steps)).complete

    return in_a_child(act)


def killed_at(plan: Plan, step: str) -> bool:
    """Carry out a move in a child that is killed at a step of that name; whether it came so far."""
    die = at(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return in_a_child(lambda: carry_out(plan, reached=die))


def again(old: Path, new: Path, *, merges: bool = False) -> None:
    """What the same command does after a kill."""
    resume(str(old), str(new), nobody)
    if not old.is_symlink():
        assert carry_out(planned(old, new, merges=merges)).complete
