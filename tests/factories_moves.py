"""Trees with everything a cache may hold, what of them must survive a move, and moves that die."""

import contextlib
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from factories_changes import in_a_child, nobody
from gradience.storage.change.move.plan import plan_move
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


def planned(old: Path, new: Path, holders: Holders | None = None, home: Path | None = None) -> Plan:
    return plan_move(
        str(old),
        str(new),
        change="test",
        now=0.0,
        holders=holders or nobody(),
        environ={},
        home=home or old.parent,
    )


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


def again(old: Path, new: Path) -> None:
    """What the same command does after a kill."""
    resume(str(old), str(new), nobody)
    if not old.is_symlink():
        assert carry_out(planned(old, new)).complete
