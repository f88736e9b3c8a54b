import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from factories_disks import btrfs_with_quota, tmpfs
from gradience.storage.environment.readers import Host
from gradience.storage.room.usage import used_below
from gradience.storage.watch.report import lines, page, summary
from gradience.storage.watch.run import Watch, default_caches
from gradience.storage.watch.sizer import Counting, Sizer

MB = 10**6
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COMMAND = [
    sys.executable,
    "-c",
    # A shell that starts tests in the background makes its children ignore Ctrl-C.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "import sys; from gradience.cli.cache_watch import watch; "
    "sys.exit(watch.main(args=sys.argv[1:], standalone_mode=False))",
]


def age(root: Path, seconds: float) -> None:
    """Make a tree look as if nothing was written to it lately."""
    then = time.time() - seconds
    for path in (root, *root.rglob("*")):
        os.utime(path, (then, then), follow_symlinks=False)


def build(root: Path, directories: int = 5, files: int = 4) -> None:
    for d in range(directories):
        (root / f"d{d}" / "deep").mkdir(parents=True)
        for f in range(files):
            (root / f"d{d}" / "deep" / f"f{f}").write_bytes(os.urandom(10_000))


def assert_exact(sizer: Sizer, root: Path) -> None:
    assert sizer.size().bytes == used_below([root], seconds=60).bytes


def test_a_tree_that_changes_is_followed_to_the_byte(tmp_path):
    root = tmp_path / "cache"
    build(root)
    os.link(root / "d0" / "deep" / "f0", root / "d1" / "second name")
    (root / "link").symlink_to("d0")
    sizer = Sizer(root)
    assert_exact(sizer, root)
    (root / "d2" / "deep" / "new").write_bytes(os.urandom(50_000))
    assert_exact(sizer, root)
    (root / "d3" / "deep" / "f1").unlink()
    (root / "d0" / "deep" / "f0").unlink()  # its second name keeps the bytes
    assert_exact(sizer, root)
    (root / "d4").rename(root / "d0" / "d4")
    assert_exact(sizer, root)


def test_a_file_that_grows_in_place_is_seen_though_its_directory_stands(tmp_path):
    root = tmp_path / "cache"
    build(root)
    partial = root / "d0" / "deep" / "blob.incomplete"
    partial.write_bytes(b"x")
    age(root, 3600)
    sizer = Sizer(root)
    sizer.size()
    with partial.open("ab") as file:
        file.write(os.urandom(100_000))
    age(partial.parent, 3600)
    size = sizer.size()
    assert size.unfinished_bytes >= 100_000
    assert_exact(sizer, root)


def test_an_old_file_that_grows_is_seen_after_some_turns_at_the_latest(tmp_path):
    root = tmp_path / "cache"
    build(root)
    age(root, 3600)
    sizer = Sizer(root)
    before = sizer.size().bytes
    old = root / "d1" / "deep" / "f1"
    with old.open("ab") as file:
        file.write(os.urandom(100_000))
    age(root, 3600)
    sizes = [sizer.size().bytes for _ in range(61)]
    assert sizes[-1] >= before + 90_000
    assert_exact(sizer, root)


def test_a_root_that_comes_and_goes(tmp_path):
    root = tmp_path / "later"
    sizer = Sizer(root)
    assert sizer.size() is None
    build(root)
    assert_exact(sizer, root)
    root.rename(tmp_path / "away")
    assert sizer.size() is None


def test_a_slow_tree_does_not_hold_up_the_caller(tmp_path):
    release = threading.Event()

    class Slow(Sizer):
        def size(self):
            release.wait(10)
            return super().size()

    build(tmp_path / "c")
    counting = Counting(Slow(tmp_path / "c"), time.monotonic)
    began = time.monotonic()
    assert counting.latest(0.05) is None
    assert time.monotonic() - began < 5
    release.set()
    assert counting.latest(None).size.files == 20


def watching(directories: dict[str, Path], clock=time.monotonic) -> Watch:
    return Watch(directories, environ={}, home=Path("/home/me"), clock=clock)


def test_a_look_names_the_mount_the_limit_and_the_sizes(tmp_path):
    build(tmp_path / "hub")
    watch = watching({"hub": tmp_path / "hub", "xet": tmp_path / "not" / "there"})
    tick = watch.tick(now=NOW, patience=None)
    (mount,) = tick.mounts
    hub, xet = tick.caches
    assert (hub.state, hub.files, hub.mount) == ("there", 20, mount.path)
    assert (xet.state, xet.bytes) == ("absent", None)
    assert mount.trend == "unknown"
    assert mount.free_bytes is not None
    assert "," in mount.limit


def test_growth_of_a_cache_has_a_rate(tmp_path):
    now = [100.0]
    watch = watching({"hub": tmp_path / "hub"}, clock=lambda: now[0])
    (tmp_path / "hub").mkdir()
    for turn in range(6):
        (tmp_path / "hub" / str(turn)).write_bytes(os.urandom(2**20))
        tick = watch.tick(now=NOW, patience=None)
        now[0] += 2.0
    (hub,) = tick.caches
    assert (hub.trend, hub.bytes_per_second) == ("growing", pytest.approx(2**19, rel=0.02))
    assert tick.elapsed_seconds == 10.0


@pytest.mark.root
def test_under_a_quota_the_room_is_that_of_the_quota(tmp_path):
    with btrfs_with_quota(tmp_path / "b", 20 * 2**20) as sub:
        now = [0.0]
        watch = watching({"run": sub / "run"}, clock=lambda: now[0])
        (sub / "run").mkdir()
        for turn in range(5):
            (sub / "run" / str(turn)).write_bytes(os.urandom(2**20))
            os.sync()
            tick = watch.tick(now=NOW, patience=None)
            now[0] += 1.0
        (mount,) = tick.mounts
        assert mount.limit == "subvolume quota, reported"
        assert mount.free_bytes == pytest.approx(15 * 2**20, rel=0.05)
        assert mount.seconds_to_full == pytest.approx(15, rel=0.1)


@pytest.mark.root
def test_files_that_use_up_the_inodes_are_forecast_too(tmp_path):
    with tmpfs(tmp_path / "t", "size=64m,nr_inodes=1002") as place:
        now = [0.0]
        watch = watching({"run": place}, clock=lambda: now[0])
        for turn in range(5):
            for number in range(100):
                (place / f"{turn}-{number}").touch()
            tick = watch.tick(now=NOW, patience=None)
            now[0] += 1.0
        (mount,) = tick.mounts
        assert mount.free_inodes == 501
        assert mount.seconds_to_no_inodes == pytest.approx(5.01)
        assert any("out of inodes" in line for line in lines(tick))


def test_the_caches_of_an_environment_are_found_once_each():
    environ = {"HF_HOME": "/big/hf", "HF_DATASETS_CACHE": "/big/hf/hub"}
    found = default_caches(environ, Path("/home/me"), Host(cwd=Path("/cwd"), user="me"))
    assert found["hub"] == Path("/big/hf/hub")
    assert "datasets" not in found
    assert found["inductor"] == Path("/tmp/torchinductor_me")
    assert found["torch"] == Path("/home/me/.cache/torch")
    assert len(set(found.values())) == len(found)


def test_reports_say_when_it_is_full_and_what_grew(tmp_path):
    now = [0.0]
    watch = watching({"hub": tmp_path / "hub"}, clock=lambda: now[0])
    (tmp_path / "hub").mkdir()
    first = watch.tick(now=NOW, patience=None)
    (tmp_path / "hub" / "x").write_bytes(os.urandom(MB))
    now[0] = 4.0
    last = watch.tick(now=NOW, patience=None)
    shown = lines(last)
    assert shown[0].startswith("03:04:05 mount ")
    assert any(line.startswith("03:04:05 cache hub") and "/s" in line for line in shown)
    assert "hub +1.0" in summary(first, last)[0]
    assert any("Caches" in getattr(part, "title", "") for part in page(last))


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=True, **options
    )


def test_json_is_one_artifact_a_line(tmp_path):
    build(tmp_path / "hub")
    done = run("--json", "--count", "3", "--interval", "0.1s", str(tmp_path / "hub"))
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["schema"] for r in records] == ["gradience.cache_watch/v1"] * 3
    assert records[-1]["content"]["caches"][0]["files"] == 20
    assert records[-1]["content"]["elapsed_seconds"] >= 0.2


@pytest.mark.skipif(sys.platform == "darwin", reason="names of APFS are UTF-8")
def test_a_name_that_is_no_text_is_shown_escaped(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    odd.mkdir()
    done = run("--json", "--once", str(odd))
    (cache,) = json.loads(done.stdout)["content"]["caches"]
    assert cache["path"] == f"{tmp_path}/\\xff"


def test_lines_are_plain_and_once_looks_once(tmp_path):
    done = run("--once", str(tmp_path))
    assert "\x1b" not in done.stdout
    assert sum(" mount " in line for line in done.stdout.splitlines()) == 1


def test_without_directories_the_caches_of_the_environment_are_watched(tmp_path):
    build(tmp_path / "hf" / "hub")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "TMPDIR": str(tmp_path),
    }
    done = run("--once", env=environ, cwd=tmp_path)
    assert " cache hub 2" in done.stdout
    assert str(tmp_path / "hf" / "hub") in done.stdout


def test_ctrl_c_ends_with_a_summary_and_success(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "--interval", "0.1s", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if " steady " in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, "Watched for" in rest) == (0, True), rest


def test_on_a_terminal_the_view_is_live_and_ends_with_a_summary(tmp_path):
    parent, child = pty.openpty()
    environ = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*COMMAND, "--interval", "0.1s", str(tmp_path)], stdout=child, stderr=child, env=environ
    )
    os.close(child)
    shown = b""
    interrupted = False
    stuck = threading.Timer(60, process.kill)
    stuck.start()
    try:
        with contextlib.suppress(OSError):  # Linux says EIO when the child has closed its side
            while chunk := os.read(parent, 65536):
                shown += chunk
                if not interrupted and b"steady" in shown:
                    process.send_signal(signal.SIGINT)
                    interrupted = True
        assert process.wait(20) == 0
    finally:
        stuck.cancel()
        process.kill()
        process.wait()
        os.close(parent)
    assert b"Mounts" in shown
    assert b"\x1b[" in shown
    assert b"Watched for" in shown
    assert b"Traceback" not in shown


# Never more than fits a small disk, should nobody be left to stop it.
WRITER = """
import sys, time
target, rate, step, most = sys.argv[1], int(sys.argv[2]), 0.05, 64 * 2**20
began = time.monotonic()
with open(target, "wb", buffering=0) as file:
    written = 0
    while written < most:
        due = int(rate * (time.monotonic() - began))
        try:
            while written < due:
                written += file.write(bytes(min(due - written, 65536)))
        except OSError:
            break
        time.sleep(step)
"""


@pytest.mark.root
def test_the_forecast_comes_true(tmp_path):
    """A writer fills a small disk while we watch; it is full when the forecast said."""
    with tmpfs(tmp_path / "t", "size=16m") as place:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place / "blob.incomplete"), str(4 * 2**20)]
        )
        watcher = subprocess.Popen(
            [*COMMAND, "--json", "--interval", "0.2s", str(place)], stdout=subprocess.PIPE
        )
        said = []  # when it was said, and the moment that was forecast
        full_at = None
        try:
            for line in watcher.stdout:
                heard = time.monotonic()
                (mount,) = json.loads(line)["content"]["mounts"]
                seconds = mount.get("seconds_to_full")
                if mount["free_bytes"] == 0:
                    full_at = heard
                    break
                if seconds is not None:
                    said.append((heard, heard + seconds))
        finally:
            for process in (watcher, writer):
                process.kill()
                process.wait()
            watcher.stdout.close()
        assert full_at is not None
        assert len(said) >= 5
        # From the third look on, and while there is time left to be wrong about.
        for heard, forecast_at in said[2:]:
            if full_at - heard > 1.0:
                ratio = (forecast_at - heard) / (full_at - heard)
                assert 0.5 < ratio < 2.0
