"""The scan: every inode once, whatever the tree looks like, however many threads read it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories_caches import du
from factories_disks import btrfs, ext4, need, xfs
from gradience.storage.inventory.helpers import Helper
from gradience.storage.inventory.scan import Directory, Root, Scan, _batch, _Clock, scan
from gradience.storage.inventory.tally import Tally

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def read(*paths: Path, threads: int | None = None) -> Scan:
    return scan([Root(str(path), lambda _: True) for path in paths], threads=threads)


def physical(found: Scan) -> int:
    tally = Tally()
    for tree in found.trees:
        if tree is not None:
            tally.join(Tally().add_tree(tree))
    return tally.physical_bytes


def names(tree: Directory | None) -> list[str]:
    assert tree is not None
    found = [file.name for file in tree.files]
    for child in tree.dirs:
        found += names(child)
    return sorted(found)


def awkward(root: Path) -> Path:
    """Names and things that trip scanners."""
    (root / "deep" / "er").mkdir(parents=True)
    (root / "line\nbreak").write_bytes(b"x" * 5000)
    (root / os.fsdecode(b"caf\xe9")).write_bytes(b"y" * 9000)
    (root / "deep" / "loop").symlink_to(root)
    (root / "deep" / "self").symlink_to("self")
    (root / "deep" / "nowhere").symlink_to("/no/such/place/" + "long/" * 20)
    os.mkfifo(root / "deep" / "pipe")
    os.link(root / "line\nbreak", root / "deep" / "second name")
    with (root / "deep" / "er" / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    return root


@pytest.mark.root
@pytest.mark.parametrize("disk", [ext4, xfs, btrfs], ids=lambda disk: disk.__name__)
def test_every_file_system_counts_as_du_counts(tmp_path, disk):
    """Where a link's text, a directory and a short file lie differs: in the inode or in a block."""
    with disk(tmp_path / "disk") as place:
        awkward(place)
        assert physical(read(place)) == du(place)


@pytest.mark.parametrize("threads", [None, 1, 16])
def test_an_awkward_tree_counts_as_du_counts(tmp_path, threads):
    found = read(awkward(tmp_path), threads=threads)
    assert physical(found) == du(tmp_path)
    assert found.unreadable_count[str(tmp_path)] == 0
    assert found.threads == (16 if threads == 16 else 1)


trees = st.recursive(
    st.integers(0, 20_000),
    lambda below: st.dictionaries(st.text("abc", min_size=1, max_size=3), below, max_size=4),
    max_leaves=20,
)


def grow(path: Path, content: int | dict[str, object]) -> None:
    if isinstance(content, int):
        path.write_bytes(b"z" * content)
        return
    path.mkdir()
    for name, below in content.items():
        grow(path / name, below)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), trees, max_size=5))
def test_any_tree_counts_as_du_counts(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("tree") / "root"
    grow(root, content)
    assert physical(read(root)) == physical(read(root, threads=5)) == du(root)


def test_a_file_with_a_name_outside_frees_nothing(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a").write_bytes(b"x" * 100_000)
    os.link(inside / "a", outside / "a")
    alone = Tally().add_tree(read(inside).trees[0])
    assert alone.shared_bytes == du(inside / "a")
    assert alone.frees_bytes == du(inside) - du(inside / "a")
    both = Tally().add_tree(read(tmp_path).trees[0])
    assert both.shared_bytes == 0
    assert both.physical_bytes == du(tmp_path)


def test_two_roots_for_one_directory_count_once(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "a").write_bytes(b"x" * 10_000)
    (tmp_path / "link").symlink_to(real)
    found = read(real, tmp_path / "link")
    assert found.trees[1] is None
    assert physical(found) == du(real)


def test_a_root_inside_a_root_is_left_out_of_the_outer_one(tmp_path):
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "a").write_bytes(b"x" * 10_000)
    found = read(tmp_path / "outer", tmp_path / "outer" / "inner")
    outer, inner = found.trees
    assert outer is not None
    assert inner is not None
    assert outer.dirs == []
    assert [file.name for file in inner.files] == ["a"]
    assert physical(found) == du(tmp_path / "outer")


def test_what_is_not_there_is_no_tree_and_no_error(tmp_path):
    (tmp_path / "file").write_text("x")
    found = read(tmp_path / "absent", tmp_path / "file", tmp_path / "file" / "below")
    assert found.trees == [None, None, None]


def test_a_directory_that_vanishes_is_counted_with_its_reason(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def keep(relative: str) -> bool:
        # Called as each directory is read: the one read first takes the other away.
        if relative:
            other = tmp_path / ("b" if relative == "a" else "a")
            if other.exists():
                other.rmdir()
        return True

    found = scan([Root(str(tmp_path), keep)])
    assert found.unreadable_count[str(tmp_path)] == 1
    assert found.unreadable[str(tmp_path)][0][1] == "it vanished while we looked"


def test_a_tree_that_is_written_to_meanwhile_is_read_to_the_end(tmp_path):
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(20):
                (tmp_path / f"d{number}").mkdir(exist_ok=True)
                (tmp_path / f"d{number}" / "f").write_bytes(b"x")
            for number in range(20):
                (tmp_path / f"d{number}" / "f").unlink()
                (tmp_path / f"d{number}").rmdir()

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for _ in range(30):
            assert read(tmp_path, threads=4).trees[0] is not None
    finally:
        stop.set()
        writer.join()


@pytest.mark.root
def test_a_volume_that_answers_late_is_soon_read_by_many(tmp_path):
    need("fusermount")
    pytest.importorskip("mfusepy", reason="pip install mfusepy", exc_type=ImportError)
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse")
    source, mount = tmp_path / "source", tmp_path / "mount"
    for number in range(40):
        (source / str(number)).mkdir(parents=True)
        (source / str(number) / "file").write_bytes(b"x" * 5000)
    mount.mkdir()
    server = Path(__file__).parents[3] / "benchmarks" / "slow_mount.py"
    process = subprocess.Popen([sys.executable, server, source, mount, "0.005"])
    try:
        for _ in range(200):
            if os.path.ismount(mount) or process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            pytest.skip("the FUSE mount was refused")
        found = read(mount)
        assert found.threads > 4
        assert physical(found) == du(source)
    finally:
        subprocess.run(["fusermount", "-uz", mount], check=False, capture_output=True)
        process.terminate()
        process.wait()


def test_a_wide_directory_keeps_no_names_unless_asked(tmp_path):
    for number in range(5000):
        (tmp_path / str(number)).touch()
    tree = scan([Root(str(tmp_path), lambda _: False)]).trees[0]
    assert tree is not None
    assert (tree.file_count, tree.files) == (5000, [])


@ROOT
def test_a_closed_directory_is_counted_with_its_reason():
    # Not below tmp_path: its parents are closed to everybody but root.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "closed").mkdir(mode=0o700)
        (root / "open").mkdir(mode=0o755)
        os.seteuid(65534)
        try:
            found = read(root)
        finally:
            os.seteuid(0)
        assert found.unreadable[name] == [(f"{root.resolve()}/closed", "permission denied")]
        assert physical(found) == du(root)


@ROOT
@pytest.mark.root
def test_a_bind_mount_counts_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "again").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"x" * 10_000)
    again = str(tmp_path / "again")
    mounted = subprocess.run(
        ["mount", "--bind", str(tmp_path / "real"), again], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mount --bind is refused here")
    try:
        found = read(tmp_path)
        assert names(found.trees[0]) == ["a"]
    finally:
        subprocess.run(["umount", again], check=True)


@pytest.mark.parametrize(
    ("worked", "waited", "sleeps", "cores", "threads"),
    [
        (1.0, 0.1, 64, 2, 1),  # warm: hardly any waiting
        (1.0, 0.8, 64, 1, 2),  # a fast disk: two of them keep one core at work
        (1.0, 0.8, 64, 2, 4),
        (1.0, 15.0, 64, 1, 16),  # a slow one
        (1.0, 400.0, 64, 8, 16),  # never more
        (
            1.0,
            15.0,
            2,
            2,
            1,
        ),  # a busy machine took the processor away: no disk was waited for
    ],
)
def test_as_many_read_as_keep_every_core_at_work(worked, waited, sleeps, cores, threads):
    before, now = _Clock(), _Clock()
    now.cpu, now.wall, now.sleeps = (
        before.cpu + worked,
        before.wall + worked + waited,
        before.sleeps + sleeps,
    )
    assert now.threads_since(before, 64, cores) == threads


def test_no_helper_is_asked_for_so_much_that_an_interrupt_would_wait_for_long():
    waiting: SimpleQueue[Directory | None] = SimpleQueue()
    for number in range(10_000):
        waiting.put(Directory(f"/{number}", str(number), "", Root("/", lambda _: True)))
    assert len(_batch(waiting, 2)) <= 64


def asked(path: Path) -> list[tuple[str, bool]]:
    return [(str(path), True), (str(path / "deep"), False), ("/no/such", True)]


def facts(helper: Helper, path: Path) -> list[object]:
    with closing(helper):
        return helper.read(asked(path))


@pytest.mark.parametrize(
    "command",
    [
        ["/no/such/interpreter"],
        [sys.executable, "-c", "pass"],
        ["sleep", "0.01"],
        ["echo", "a program that says something else"],
    ],
)
def test_what_a_helper_cannot_read_is_read_here(tmp_path, command):
    awkward(tmp_path)
    assert facts(Helper(command), tmp_path) == facts(Helper(), tmp_path)


EMBEDDED = """
import sys
sys.executable = None
from gradience.storage.inventory.helpers import Helper
print(Helper().read(eval(sys.argv[1])))
"""


def test_python_that_does_not_know_its_executable_reads_by_itself(tmp_path):
    awkward(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, repr(asked(tmp_path))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{facts(Helper(), tmp_path)}\n"


def test_a_helper_takes_names_for_what_its_parent_takes_them_for(tmp_path):
    (tmp_path / "donn\u00e9es" / "mod\u00e8le").mkdir(parents=True)
    (tmp_path / "donn\u00e9es" / "mod\u00e8le" / "f").write_bytes(b"x")
    locales = tmp_path / "locales"
    locales.mkdir()
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", locales / "en_US.ISO-8859-1"],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("needs localedef and its sources")
    environ = {"PYTHONUTF8": "1", "LOCPATH": str(locales), "LC_ALL": "en_US.ISO-8859-1"}
    place = os.fsencode(tmp_path / "donn\u00e9es")
    told = subprocess.run(
        [sys.executable, "-c", COUNT, place],
        env=os.environ | environ,
        capture_output=True,
        check=True,
    )
    assert told.stdout.split() == [b"0", b"1"]


COUNT = """
import sys
from gradience.storage.inventory.scan import Root, scan
found = scan([Root(sys.argv[1], lambda _: True)], threads=2)
print(found.unreadable_count[sys.argv[1]], found.trees[0].dirs[0].file_count)
"""


def test_a_helper_that_is_killed_is_done_without(tmp_path):
    awkward(tmp_path)
    here = facts(Helper(["/no/such/interpreter"]), tmp_path)
    helper = Helper()
    helper.read([(str(tmp_path), True)])
    assert children_of(os.getpid()) != []
    for child in children_of(os.getpid()):
        os.kill(child, signal.SIGKILL)
    assert facts(helper, tmp_path) == here


def children_of(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, check=False)
    return [
        child
        for child in map(int, found.stdout.split())
        if b"listing.py" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


SCAN = """
import sys, time
from gradience.storage.inventory.scan import Root, scan
def progress(stage, done, known):
    print(done, flush=True)
def keep(relative):
    time.sleep(0.01)
    return True
scan([Root(sys.argv[1], keep)], threads=4, progress=progress)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_a_scan_that_is_ended_leaves_no_helper(tmp_path, number):
    for outer in range(20):
        for inner in range(80):
            (tmp_path / str(outer) / str(inner)).mkdir(parents=True)
    reader = subprocess.Popen(
        [sys.executable, "-c", SCAN, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    helpers = children_of(reader.pid)
    assert helpers
    reader.send_signal(number)
    _, told = reader.communicate(timeout=10)
    assert reader.returncode == -number
    assert told.count(b"Traceback") == (number == signal.SIGINT)
    for _ in range(100):
        if not any(Path(f"/proc/{helper}").exists() for helper in helpers):
            return
        time.sleep(0.05)
    pytest.fail(f"{helpers} go on")
