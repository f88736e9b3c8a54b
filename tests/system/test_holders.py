"""Who has which files open: also where asking the file system would never be answered."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradience import system
from gradience.system.linux_holders import read_holders

QUOTAFS = Path(__file__).parents[3] / "shared" / "tools" / "quotafs.py"
FUSE = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists() or not QUOTAFS.exists(),
    reason="needs root, /dev/fuse and ../shared/tools/quotafs.py",
)


def test_an_open_file_is_found_with_its_process(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"x")
    with path.open("rb"):
        holder = system.holders().of(path.stat(), str(path))
    assert holder is not None
    assert (holder.pid, holder.how) == (os.getpid(), "open")


@pytest.fixture
def fuse(tmp_path):
    source, mount = tmp_path / "source", tmp_path / "mount"
    source.mkdir()
    mount.mkdir()
    command = [sys.executable, QUOTAFS, source, mount, "1000000"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not mount.is_mount():
        if server.poll() is not None or time.monotonic() > until:
            server.kill()
            pytest.skip("FUSE does not mount here")
        time.sleep(0.05)
    yield server, mount
    server.send_signal(signal.SIGCONT)
    subprocess.run(["umount", "-l", mount], check=False)
    server.terminate()
    server.wait(20)


@FUSE
@pytest.mark.root
def test_a_file_on_a_mount_whose_server_is_gone_is_found_without_asking_it(fuse):
    server, mount = fuse
    path = mount / "weights.bin"
    path.write_bytes(b"x")
    status = path.stat()
    with path.open("rb") as file:
        reader = subprocess.Popen(["sleep", "60"], stdin=file)
    try:
        server.send_signal(signal.SIGSTOP)  # it will not answer a stat
        code = (
            "from gradience import system; "
            f"print(system.holders().of_inode({status.st_dev}, {status.st_ino}, {str(path)!r}))"
        )
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        assert f"pid={reader.pid}" in told.stdout
    finally:
        server.send_signal(signal.SIGCONT)
        reader.kill()
        reader.wait()


def test_files_on_mounts_that_are_not_distant_are_asked_for_themselves(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    with path.open("rb"):
        assert read_holders(()).of(path.stat(), str(path)) is not None
