"""Every verb on a disk that refuses in the middle: all stays whole, and later the command ends."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factories_disks import btrfs_with_quota, ext4, need, tmpfs
from factories_kills import CHANGES
from gradience.errors import GradienceError

pytestmark = pytest.mark.root


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is left, nor an inode."""
    filler = disk / "filler"
    filler.mkdir()
    with contextlib.suppress(OSError):
        for number in range(500):
            (filler / str(number)).touch()
    with contextlib.suppress(OSError), (filler / "0").open("wb", buffering=0) as file:
        for size in (2**18, 2**12, 2**9):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    yield
    subprocess.run(["rm", "-r", str(filler)], check=True)


@contextlib.contextmanager
def unwritable(disk: Path) -> Iterator[None]:
    """Directories in which nobody, not even root, may make or remove a name."""
    need("chattr")
    found = [str(path) for path in disk.rglob("*") if path.is_dir() and not path.is_symlink()]
    subprocess.run(["chattr", "+i", *found], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *found], check=True)


Refusal = Callable[[Path], contextlib.AbstractContextManager[None]]
REFUSALS: dict[str, tuple[Refusal, Refusal]] = {
    "read_only": (read_only, lambda where: tmpfs(where, "size=16m")),
    "ENOSPC": (full, lambda where: tmpfs(where, "size=16m,nr_inodes=400")),
    "EDQUOT": (full, lambda where: btrfs_with_quota(where, 2**24)),
    "unwritable": (unwritable, ext4),
}


@pytest.fixture(scope="module", params=REFUSALS)
def refusing(request, tmp_path_factory):
    """A disk, and what makes it refuse."""
    refusal, kind = REFUSALS[request.param]
    with kind(tmp_path_factory.mktemp("disk") / "m") as disk:
        yield disk, refusal


@pytest.mark.parametrize("name", CHANGES)
def test_all_stays_whole_and_the_same_command_ends_it_later(refusing, tmp_path, name):
    disk, refusal = refusing
    root = disk / name
    root.mkdir()
    change = CHANGES[name](root, tmp_path)
    with refusal(disk):
        with contextlib.suppress(GradienceError):
            change.act()
        change.always()
    change.settle()
    change.whole()
    change.again()
    subprocess.run(["rm", "-r", str(root)], check=True)
