"""Mounts whose flock is refused: locks by existence, as the Hub's client has them there."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from factories_caches import Caches, HubMaker, commit_of
from factories_changes import carry_out, clean_plan, plan_of, states, top
from factories_disks import fuse_without_locks
from gradience import files
from gradience.errors import StorageError
from gradience.files.below import Below, Removed
from gradience.files.soft_lock import holder, marker
from gradience.storage.change.mounts import lock_refusal
from gradience.storage.change.site import Site
from gradience.system.processes import here, runs, start_of
from hub_server import Repo, serve

FILES = {"w.safetensors": b"w" * 300_000, "config.json": b"{}"}
SIZE = "300002\n"
GET = """
import sys
from pathlib import Path
from huggingface_hub import snapshot_download
found = Path(snapshot_download("org/m", cache_dir=sys.argv[1]))
print(sum(file.stat().st_size for file in found.iterdir()))
"""
HOLD = """
import sys
from gradience.files.below import Below
with Below(sys.argv[1]) as below, below.lock("x.lock") as ours:
    print(ours, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def mount(tmp_path: Path, request: pytest.FixtureRequest):
    with fuse_without_locks(tmp_path / "m", request.param) as path:
        yield path


def holding(root: Path) -> "subprocess.Popen[str]":
    """A process that has a lock there, once its first line was read."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_keep_each_other_out_and_no_lock_file_stays(mount):
    with holding(mount) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with Below(str(mount)) as below, below.lock("x.lock") as ours:
            assert ours is False
        other.communicate("\n")
    with Below(str(mount)) as below:
        with below.lock("x.lock") as ours:
            assert ours is True
        assert top(mount) == []


def test_the_lock_of_a_killed_process_is_taken_over(mount):
    with holding(mount) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.kill()
    assert top(mount) == ["x.lock"]
    with Below(str(mount)) as below, below.lock("x.lock") as ours:
        assert ours is True
    assert top(mount) == []


def test_a_lock_of_another_host_keeps_us_out_and_is_named(mount):
    (mount / "a").write_bytes(b"x" * 5000)
    (mount / ".gradience").mkdir()
    plan = plan_of(mount, "a")
    (mount / ".gradience/lock").write_text("12\nnode7\n")
    with pytest.raises(StorageError, match="process 12 of node7 changes") as caught:
        carry_out(plan)
    assert f"{mount}/.gradience/lock" in caught.value.remedy
    assert (mount / "a").exists()
    (mount / ".gradience/lock").unlink()
    assert states(carry_out(plan)) == ["done"]
    assert top(mount) == []


def test_a_lock_file_that_names_nobody_counts_for_what_is_young(mount):
    hub = HubMaker(mount / "hub")
    hub.add("org/m", "a", FILES)
    orphan = hub.repo("org/m") / "blobs" / ("f" * 64)
    locks = hub.hub / ".locks" / hub.repo("org/m").name
    locks.mkdir(parents=True)
    (locks / f"{orphan.name}.lock").touch()  # of a client whose lock was a flock once
    orphan.write_bytes(b"o" * 9000)
    receipt = carry_out(clean_plan(hub.hub))
    assert "written less than a day ago" in receipt.outcomes[0].reasons[0]
    old = time.time() - 2 * 86400
    os.utime(orphan, (old, old))
    assert carry_out(clean_plan(hub.hub)).complete
    assert not orphan.exists()


def test_the_plan_says_why_locks_are_not_to_be_relied_on(mount, tmp_path):
    hub = HubMaker(mount / "hub")
    hub.add("org/m", "a", FILES)
    assert lock_refusal(str(hub.hub))
    assert lock_refusal(str(tmp_path)) == ""
    shown = Caches(tmp_path, HF_HUB_CACHE=str(hub.hub))("clean", "--dry-run", "--offline").stdout
    assert "is on a mount without locks (flock: " in " ".join(shown.split())


def client(url: str, hub: Path) -> "subprocess.Popen[str]":
    """The real client, downloading; it prints the size of what it has then."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(hub.parent / "home"), "NO_PROXY": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-c", GET, hub],
        env=kept | own | {"HF_HUB_DISABLE_XET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_the_real_client_can_download_again_after_a_clean(tmp_path):
    with (
        fuse_without_locks(tmp_path / "m") as mount,
        serve(org__m=Repo(FILES, commit=commit_of("b"))) as server,
    ):
        hub = mount / "hub"
        for _ in range(2):
            with client(server.url, hub) as download:
                assert download.communicate(timeout=60)[0] == SIZE
            receipt = carry_out(clean_plan(hub, names=["org/m"]))
            assert receipt.complete, receipt
            assert not list(hub.glob("models--*"))
            assert not list(hub.rglob("*.lock"))


def test_what_the_real_client_is_downloading_stays(tmp_path):
    half = Repo(FILES, commit=commit_of("b"), halting=frozenset({"w.safetensors"}))
    with fuse_without_locks(tmp_path / "m") as mount, serve(org__m=half) as server:
        hub = mount / "hub"
        with client(server.url, hub) as download:
            assert server.halfway.wait(20)
            # Beside it the client tries links in directories of its own, and ends the small file.
            digest = hashlib.sha256(FILES["w.safetensors"]).hexdigest()
            (coming,) = (hub / "models--org--m/blobs").glob(f"{digest}.*")
            carry_out(clean_plan(hub, names=["org/m"], force=True))
            assert coming.exists()
            server.go_on.set()
            assert download.communicate(timeout=60)[0] == SIZE


@pytest.mark.parametrize("refusal", ["", "ENOSYS"])
def test_nothing_of_ours_stays_where_open_files_keep_a_name(tmp_path, refusal):
    with fuse_without_locks(tmp_path / "m", refusal) as mount:
        (mount / "root").mkdir()
        (mount / "root/a").write_bytes(b"x" * 5000)
        assert states(carry_out(plan_of(mount / "root", "a"))) == ["done"]
        assert top(mount / "root") == []


class LetGoLate(Below):
    """As on FUSE and NFS: what was open keeps a hidden name until a moment after it is closed."""

    hidden = True

    def remove_empty(self, name: str) -> bool:
        if not self.hidden:
            return super().remove_empty(name)
        self.hidden = False
        self.write(f"{name}/.fuse_hidden01", b"")
        removed = super().remove_empty(name)
        self.unlink(f"{name}/.fuse_hidden01")
        return removed


def test_nothing_of_ours_stays_where_a_hidden_name_goes_between_two_looks(tmp_path):
    with LetGoLate(str(tmp_path)) as below, Site(below, "test").locked() as ours:
        assert ours
    assert top(tmp_path) == []


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_directory_whose_file_stays_open_is_refused_and_not_tried_for_ever(tmp_path):
    with fuse_without_locks(tmp_path / "m") as mount:
        tree = mount / "tree"
        tree.mkdir()
        (tree / "open").write_bytes(b"x")
        with (
            (tree / "open").open("rb"),
            Below(os.fspath(mount)) as below,
            pytest.raises(OSError, match="not empty"),
        ):
            below.remove("tree", Removed())
        assert not tree.exists() or not any(tree.glob("[!.]*"))


def test_the_lock_of_a_process_in_a_container_is_not_taken_for_a_dead_ones(mount):
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", HOLD, mount]
    with subprocess.Popen(
        inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        if not other.stdout.readline():
            pytest.skip("this machine lets nobody make a namespace of processes")
        with Below(str(mount)) as below, below.lock("x.lock") as ours:
            assert ours is False
        other.communicate("\n")


NUMBERED = "echo 30000 >/proc/sys/kernel/ns_last_pid && { sleep 60 & echo $!; wait; }"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.skipif(here() != socket.gethostname(), reason="these tests are in a container")
def test_a_lock_of_an_old_release_in_a_container_is_not_taken_for_a_dead_ones():
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", NUMBERED]
    with subprocess.Popen(
        inside, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL, start_new_session=True
    ) as other:
        number = other.stdout.readline().strip()
        if not number or Path(f"/proc/{number}").exists():
            other.kill()
            pytest.skip("no number of a process can be had that is of a container alone")
        found = holder(f"{number}\n{socket.gethostname()}\n".encode())
        assert found.runs is None
        os.killpg(other.pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while found.runs is not False:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_process_of_this_machine_is_told_from_a_dead_one_and_from_its_numbers_next_bearer():
    found = holder(marker())
    assert found is not None
    assert found.pid == os.getpid()
    assert found.runs is True
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as gone:
        start = start_of(gone.pid)
        assert runs(gone.pid, here(), start) is True
        assert runs(gone.pid, here(), start - 1) is False, "another process had that number"
        assert runs(gone.pid, here(), start + (1 << 64)) is None, "of another boot or machine"
    assert runs(gone.pid, here(), start) is False


def test_the_words_are_those_of_filelock(mount):
    import filelock  # noqa: PLC0415 - the one of the Hub's client

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it falls back from flock
        lock = filelock.SoftFileLock(mount / "x.lock")
        with lock:
            assert holder((mount / "x.lock").read_bytes()) == holder(marker())


def test_an_update_is_locked_where_flock_is_refused(mount):
    with files.locked(mount / "file"):
        assert top(mount) == ["file.lock"]
        with (
            pytest.raises(StorageError, match=r"file\.lock is held"),
            files.locked(mount / "file", timeout=0.05),
        ):
            pass
    assert top(mount) == []
    (mount / "file.lock").touch()
    said = "names nobody, and this mount has no flock"
    with pytest.raises(StorageError, match=said), files.locked(mount / "file", timeout=0.05):
        pass
