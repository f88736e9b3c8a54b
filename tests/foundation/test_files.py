"""The disk promises: whole files or none, whatever happens in between."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradience import files
from gradience.errors import StorageError
from gradience.files.below import Below

REPLACE_FOREVER = """
import sys
from pathlib import Path
from gradience import files
path = Path(sys.argv[1])
while True:
    for byte in (b"a", b"b"):
        files.replace(path, byte * 300_000)
"""

ADD_ONE = """
import sys
from pathlib import Path
from gradience import files
path = Path(sys.argv[1])
for _ in range(25):
    with files.locked(path):
        value = int(path.read_bytes()) if path.exists() else 0
        files.replace(path, str(value + 1).encode())
"""

COME_AND_GO = """
import contextlib, os, sys
while True:
    with contextlib.suppress(OSError):
        os.rmdir(sys.argv[1])
    with contextlib.suppress(OSError):
        os.mkdir(sys.argv[1])
"""

LOCK_AND_GO = """
import contextlib, os, sys
while True:
    with contextlib.suppress(OSError):
        os.unlink(sys.argv[1])
    with contextlib.suppress(OSError):
        os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
"""


@contextlib.contextmanager
def going_on(code: str, path: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", code, path], stderr=subprocess.DEVNULL) as other:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            pass
        try:
            yield
        finally:
            other.kill()


def test_replace_creates_parents_and_leaves_only_the_file(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "norms.json"
    files.replace(target, b"one")
    files.replace(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


def test_replace_respects_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o007)
    try:
        files.replace(tmp_path / "shared.json", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "shared.json").stat().st_mode & 0o777 == 0o660


def test_a_process_killed_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", REPLACE_FOREVER, str(target)])
        deadline = time.monotonic() + 10
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = target.read_bytes()
        assert content in (b"a" * 300_000, b"b" * 300_000)


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    target = tmp_path / "file"
    files.replace(target, b"a" * 300_000)
    writer = subprocess.Popen([sys.executable, "-c", REPLACE_FOREVER, str(target)])
    try:
        seen = {target.read_bytes() for _ in range(500)}
    finally:
        writer.kill()
        writer.wait()
    assert seen <= {b"a" * 300_000, b"b" * 300_000}


def test_no_update_is_lost_between_processes(tmp_path: Path) -> None:
    target = tmp_path / "count"
    writers = [subprocess.Popen([sys.executable, "-c", ADD_ONE, str(target)]) for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert target.read_bytes() == b"100"


def test_a_held_lock_is_an_error_that_names_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with (
        files.locked(target),
        pytest.raises(StorageError, match=r"file\.lock is held"),
        files.locked(target, timeout=0.05),
    ):
        pass


def test_a_directory_that_another_process_makes_and_removes_is_no_error(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with going_on(COME_AND_GO, place):
        for _ in range(2000):
            files.make_dir(place)


def test_a_lock_file_that_others_remove_is_no_reason_not_to_know(tmp_path: Path) -> None:
    place = tmp_path / "x.lock"
    with going_on(LOCK_AND_GO, place), Below(str(tmp_path)) as below:
        for _ in range(3000):
            with below.lock(place.name) as ours:
                assert ours is not None


def test_a_target_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be created") as caught:
        files.replace(tmp_path / "file" / "below", b"x")
    assert "GRADIENCE_CACHE_DIR" in caught.value.remedy


def test_what_stands_where_a_directory_is_to_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(StorageError, match=rf"/link/a/b cannot be created: {tmp_path}/link is a"):
        files.make_dir(tmp_path / "link/a/b")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=rf"{tmp_path}/file is no directory"):
        files.make_dir(tmp_path / "file")


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(StorageError, match="no regular file"):
            files.replace(path, b"x")
    assert pipe.is_fifo()
    assert link.is_symlink()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_keeps_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        target = tmp_path / "norms.json"
        files.replace(target, b"old")
        with pytest.raises(StorageError, match="No space left"):
            files.replace(target, b"n" * 1_000_000)
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
