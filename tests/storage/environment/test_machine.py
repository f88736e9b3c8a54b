"""The machine as it really is: mounts of the kernel, a process, the whole command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradience.storage.environment.machine import read_machine
from gradience.storage.environment.platforms import PLATFORMS
from gradience.storage.environment.variables import VARIABLES


def test_the_machine_is_read_without_a_change(tmp_path: Path) -> None:
    machine = read_machine({"HOME": str(tmp_path), "HF_HOME": "/x"})
    assert machine.home == tmp_path
    assert machine.hints["HF_HOME"] == "/x"
    assert machine.mounts
    assert all(Path(mark).exists() for mark in machine.marks)
    assert machine.client.hub is not None
    assert list(tmp_path.iterdir()) == []


def test_only_hints_are_taken_from_the_first_process() -> None:
    hints = set(read_machine({"HOME": "/h"}).hints) - {"HOME"}
    known = {n for p in PLATFORMS.values() for n in p.variables} | {"SCRATCH", "WORK"}
    assert hints <= known


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real ext4 of 6 GB, sparse, mounted below the test's directory."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    image, place = tmp_path / "disk.img", tmp_path / "scratch"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(6 * 10**9)
    small = ["-O", "^has_journal", "-N", "64"]  # a few MB are written, not a journal and tables
    make = ["mkfs.ext4", "-q", *small, "-E", "lazy_itable_init=1,nodiscard", str(image)]
    if subprocess.run(make, capture_output=True, check=False).returncode:
        pytest.skip("mkfs.ext4 is not there")
    mount = ["mount", "-o", "loop", str(image), str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def report(home: Path, *arguments: str, **environ: str) -> dict:
    known = {n for p in PLATFORMS.values() for n in p.variables} | set(VARIABLES)
    kept = {k: v for k, v in os.environ.items() if k not in known}
    done = subprocess.run(
        [sys.executable, "-m", "gradience", "env", "--json", *arguments],
        capture_output=True,
        check=True,
        env={**kept, "HOME": str(home), **environ},
    )
    return json.loads(done.stdout)["content"]


@pytest.mark.root
def test_a_real_scratch_disk_is_used_while_it_is_mounted_and_writable(
    disk: Path, tmp_path: Path
) -> None:
    scratch = {"SLURM_JOB_ID": "1", "SCRATCH": str(disk / "me")}
    found = report(tmp_path, **scratch)
    assert (found["platform"], found["root"]) == ("slurm", str(disk / "me"))
    assert f"the scratch file system at {disk / 'me'}, ext4 on this machine" in found["reason"]
    assert found["values"]["HF_HUB_CACHE"] == str(disk / "me" / "hf_cache" / "hub")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    found = report(tmp_path, **scratch)
    assert found["platform"] == "local"
    assert "mounted read-only" in found["reason"]


@pytest.mark.root
def test_caches_move_to_a_real_second_disk_as_printed(disk: Path, tmp_path: Path) -> None:
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    hub.mkdir(parents=True)
    (hub / "blob").write_bytes(b"x" * 1_000_000)
    (left,) = report(tmp_path, "--root", str(disk / "me"), "--platform", "runpod")["left_behind"]
    assert left["bytes"] >= 1_000_000
    (command,) = left["commands"]
    assert command.startswith("gradience cache move ")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", f"{command} --yes"], check=True, env=os.environ | {"PATH": path})
    assert hub.readlink() == disk / "me" / "hf_cache" / "hub"
    assert (disk / "me" / "hf_cache" / "hub" / "blob").stat().st_size == 1_000_000
