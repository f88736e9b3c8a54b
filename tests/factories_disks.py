"""Real, size-limited file systems below a temporary directory, unmounted whatever happens."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradience

SHARED = Path(__file__).parent.parent.parent / "shared"


def need(*tools: str) -> None:
    """Skip unless this is Linux, we are root, and the tools are there."""
    if not sys.platform.startswith("linux"):
        pytest.skip("mounts file systems of Linux")
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@contextlib.contextmanager
def mounted(where: Path, *arguments: str) -> Iterator[Path]:
    """`mount ARGUMENTS WHERE`, skipped where this machine refuses."""
    where.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", *arguments, str(where)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        reason = done.stderr.partition("\n")[0].rpartition(": ")[2]
        pytest.skip(f"mount {' '.join(arguments[:2])} is refused here: {reason}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, capture_output=True)


@contextlib.contextmanager
def second_disk(beside: Path | None = None) -> Iterator[Path]:
    """A directory on another disk, with nothing in it."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or (beside and shm.stat().st_dev == beside.stat().st_dev):
        pytest.skip("no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as name:
        yield Path(name)


@contextlib.contextmanager
def tmpfs(where: Path, options: str = "size=8m") -> Iterator[Path]:
    need("mount")
    with mounted(where, "-t", "tmpfs", "-o", options, "tmpfs") as path:
        yield path


@contextlib.contextmanager
def overlay(where: Path) -> Iterator[Path]:
    """An overlay whose layers lie beside it."""
    need("mount")
    layers = {name: where.parent / f"{where.name}-{name}" for name in ("lower", "upper", "work")}
    for path in layers.values():
        path.mkdir()
    options = ",".join(f"{name}dir={path}" for name, path in layers.items())
    with mounted(where, "-t", "overlay", "-o", options, "overlay") as path:
        yield path


@contextlib.contextmanager
def loop(where: Path, size: int, *make: str) -> Iterator[Path]:
    """A file of `size` bytes, made a file system by the command `make`, and mounted."""
    need("mount", make[0])
    image = where.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*make, str(image)], check=True, capture_output=True)
    with mounted(where, "-o", "loop", str(image)) as path:
        yield path


def ext4(where: Path, *, reserved_percent: int = 20) -> contextlib.AbstractContextManager[Path]:
    return loop(where, 64 * 2**20, "mkfs.ext4", "-q", "-m", str(reserved_percent))


def xfs(where: Path) -> contextlib.AbstractContextManager[Path]:
    return loop(where, 300 * 2**20, "mkfs.xfs", "-q")


def btrfs(where: Path, *, size: int = 256 * 2**20) -> contextlib.AbstractContextManager[Path]:
    return loop(where, size, "mkfs.btrfs", "-q", "-f")


@contextlib.contextmanager
def btrfs_with_quota(where: Path, limit: int, *, image: int = 256 * 2**20) -> Iterator[Path]:
    """A subvolume that may hold `limit` bytes, on a btrfs whose df does not show it."""
    with btrfs(where, size=image) as top:
        sub = top / "sub"
        for command in (
            ["subvolume", "create", str(sub)],
            ["quota", "enable", str(top)],
            ["qgroup", "limit", str(limit), str(sub)],
        ):
            subprocess.run(["btrfs", *command], check=True, capture_output=True)
        yield sub


def fuse_with_quota(where: Path, limit: int) -> contextlib.AbstractContextManager[Path]:
    """A FUSE mount that looks like MooseFS: df shows 90 TB, writes end at `limit`, no fallocate."""
    server = SHARED / "tools" / "quotafs.py"
    if not server.is_file():
        pytest.skip("needs ../shared/tools/quotafs.py")
    return _served(where, server, str(limit))


def fuse_without_locks(
    where: Path, refusal: str = "ENOSYS", *, looks: str = ""
) -> contextlib.AbstractContextManager[Path]:
    """A FUSE mount whose flock fails with this errno; "" for one whose flock works.

    All on it `looks` "nobody's", "everybody's" or "unlinked", where that is given.
    """
    pytest.importorskip("mfusepy", exc_type=ImportError)
    return _served(where, Path(__file__).with_name("lockless_server.py"), refusal, looks)


@contextlib.contextmanager
def _served(where: Path, server: Path, *arguments: str) -> Iterator[Path]:
    """A directory beside it, mounted by a FUSE server."""
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse")
    need("fusermount")
    source = where.parent / f"{where.name}-source"
    for path in (source, where):
        path.mkdir()
    process = subprocess.Popen([sys.executable, str(server), str(source), str(where), *arguments])
    try:
        for _ in range(100):
            if os.path.ismount(where):
                break
            time.sleep(0.05)
        else:
            pytest.skip("the FUSE mount was refused")
        yield where
    finally:
        subprocess.run(["fusermount", "-u", "-z", str(where)], check=False, capture_output=True)
        process.terminate()
        process.wait()


def preloadable(where: Path) -> Path:
    """The shim that, preloaded, refuses what a program writes below QB_DIR after QB_BYTES."""
    source = SHARED / "tools" / "quota_preload.c"
    if not source.is_file() or shutil.which("gcc") is None or not sys.platform.startswith("linux"):
        pytest.skip("needs gcc and ../shared/tools/quota_preload.c")
    library = where / "quota_preload.so"
    if not library.exists():
        command = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return library


def as_nobody(code: str, directory: Path) -> str:
    """What a program prints when user 65534 runs what stands below `###`, root what is above."""
    source = str(Path(gradience.__file__).parents[1])
    drop = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    # Imports stand above: nobody may not be allowed to read this virtual environment.
    above, _, below = code.partition("###")
    done = subprocess.run(
        [sys.executable, "-c", f"{above}\n{drop}\n{below}"],
        check=False,
        capture_output=True,
        text=True,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": source, "HOME": "/nonexistent"},
    )
    if "PermissionError: [Errno 1]" in done.stderr:
        pytest.skip("this container's root may not become another user")
    assert done.returncode == 0, done.stderr
    return done.stdout
