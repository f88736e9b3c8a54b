"""The guard on real disks: a reserve that is real, a publication that is atomic."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from factories_checkpoints import cut, make_checkpoint
from factories_disks import btrfs_with_quota, fuse_with_quota, fuse_without_locks, tmpfs
from gradience import files
from gradience.storage.checkpoints.find import in_use
from gradience.storage.checkpoints.judge import judge
from gradience.storage.guard.ballast import SPARE, Ballast
from gradience.storage.guard.own import OwnDir
from gradience.storage.guard.records import Act, Answer, Need
from gradience.storage.guard.room import disk_was_why, fits
from gradience.storage.guard.run import Guard

MB = 2**20
DISKS = {
    "btrfs": lambda where: btrfs_with_quota(where, 20 * MB),
    "tmpfs": lambda where: tmpfs(where, "size=20m,nr_inodes=60"),
    "fuse": lambda where: fuse_with_quota(where, 20 * MB),
}


@pytest.fixture(params=DISKS)
def small_disk(request, tmp_path):
    with DISKS[request.param](tmp_path / "disk") as place:
        yield place


def fill(path: Path) -> int:
    """Write until the disk refuses; how much it took."""
    size = 0
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while size < 100 * MB:
            took = file.write(os.urandom(2**16))
            os.fsync(file.fileno())
            size += took
            if took < 2**16:
                break
    return size


@pytest.mark.root
def test_what_the_reserve_held_can_be_written_when_the_disk_is_full(small_disk):
    ballast = Ballast(small_disk / "ballast")
    assert ballast.reserve(Need(bytes=6 * MB, inodes=8), count_inodes=True) == ""
    assert fill(small_disk / "filler") <= 15 * MB, "the reserve takes its room"
    assert ballast.release() == Need(bytes=6 * MB, inodes=8)
    with (small_disk / "last").open("wb") as file:
        file.write(os.urandom(5 * MB))
        os.fsync(file.fileno())


@pytest.mark.root
def test_a_reserve_that_does_not_fit_says_why_and_leaves_nothing(small_disk):
    ballast = Ballast(small_disk / "ballast")
    problem = ballast.reserve(Need(bytes=90 * MB, inodes=0), count_inodes=False)
    assert "quota" in problem or "space" in problem
    assert fill(small_disk / "filler") > 17 * MB


@pytest.mark.root
def test_a_reserve_holds_inodes_too(tmp_path):
    with tmpfs(tmp_path / "disk", "size=20m,nr_inodes=40") as place:
        ballast = Ballast(place / "ballast")
        assert ballast.reserve(Need(bytes=MB, inodes=10), count_inodes=True) == ""
        made = 0
        with contextlib.suppress(OSError):
            for made in range(100):
                (place / str(made)).touch()
        assert made < 30
        assert fits(place, Need(bytes=10, inodes=5), {}, tmp_path) is Answer.NO
        ballast.release()
        for number in range(10):
            (place / f"last-{number}").touch()


@pytest.mark.root
def test_a_reserve_leaves_room_for_logs_and_where_that_is_too_little_it_is_not_held(small_disk):
    ballast = Ballast(small_disk / "ballast")
    (small_disk / "filler").write_bytes(os.urandom(10 * MB))
    assert ballast.reserve(Need(bytes=5 * MB, inodes=4), count_inodes=True) == ""
    assert fill(small_disk / "log") >= SPARE.bytes - MB // 2
    ballast.release()
    assert ballast.reserve(Need(bytes=3 * MB, inodes=4), count_inodes=True)
    assert ballast.held == Need(bytes=0, inodes=0)
    with (small_disk / "later").open("wb") as file:
        file.write(os.urandom(4 * MB))
        os.fsync(file.fileno())


def test_a_reserve_that_cannot_be_held_is_said_once(tmp_path):
    told = []
    guard = Guard(tmp_path, sink=told.append)
    guard.smallest = Need(bytes=2**62, inodes=1)
    guard.hold_reserve()
    guard.hold_reserve()
    assert [event.kind for event in told] == ["reserve"]


@pytest.mark.root
@pytest.mark.parametrize("answer", [ValueError("no such cache"), "much", None])
def test_a_cleaning_of_the_user_that_fails_anyhow_does_not_end_the_save(tmp_path, answer):
    def clean(nbytes):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with tmpfs(tmp_path / "disk", "size=8m") as place:
        told = []
        guard = Guard(place, clean=clean, sink=told.append)
        guard.whole = Need(bytes=20 * MB, inodes=1)
        guard.smallest = Need(bytes=MB, inodes=1)
        assert guard.make_room(4, "") is Act.SMALLEST
        assert [event.kind for event in told] == ["cleaned"]
        assert told[0].grave is (answer is not None)


@pytest.mark.root
def test_a_reserve_of_which_a_part_could_be_held_is_completed_when_there_is_room_again(tmp_path):
    with tmpfs(tmp_path / "disk", "size=20m,nr_inodes=40") as place:
        (place / "many").mkdir()
        for number in range(20):
            (place / "many" / str(number)).touch()
        ballast = Ballast(place / "ballast")
        assert ballast.reserve(Need(bytes=MB, inodes=30), count_inodes=True)
        assert 0 < ballast.held.inodes < 30
        for path in (place / "many").iterdir():
            path.unlink()
        assert ballast.reserve(Need(bytes=MB, inodes=30), count_inodes=True) == ""
        assert ballast.held == Need(bytes=MB, inodes=30)


def test_a_reserve_grows_by_what_is_missing(tmp_path):
    ballast = Ballast(tmp_path / "ballast")
    for size in (3 * MB, 2 * MB, 5 * MB):
        assert ballast.reserve(Need(bytes=size, inodes=0), count_inodes=False) == ""
    held = sum(p.stat().st_blocks * 512 for p in (tmp_path / "ballast").iterdir())
    assert 5 * MB <= held <= 5 * MB + 2**16
    ballast.release()
    assert not (tmp_path / "ballast").exists()


def test_words_without_an_errno_are_known_for_a_full_disk(tmp_path):
    for error in (
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
        ValueError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
        OSError("25165824 requested and 5234656 written"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ):
        assert disk_was_why(error, tmp_path, 0)
    assert not disk_was_why(RuntimeError("CUDA out of memory"), tmp_path, 0)


@pytest.mark.root
def test_without_words_the_disk_is_asked(small_disk):
    fill(small_disk / "filler")
    assert disk_was_why(RuntimeError("something"), small_disk, 8 * MB)


def test_what_a_crash_left_broken_is_set_aside_and_the_complete_one_is_next(tmp_path):
    make_checkpoint(tmp_path, 2)
    cut(make_checkpoint(tmp_path, 4) / "optimizer.pt")
    (tmp_path / "broken-checkpoint-4").mkdir()
    told = []
    Guard(tmp_path, sink=told.append).sweep()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["broken-checkpoint-4", "broken-checkpoint-4-2", "checkpoint-2"]
    assert [event.kind for event in told] == ["aside"]
    assert "optimizer.pt" in told[0].message


def test_a_sweep_does_not_touch_what_another_run_is_saving(tmp_path):
    broken = make_checkpoint(tmp_path, 4, without=("trainer_state.json",))
    other = OwnDir(tmp_path)
    other.claim()
    staged = other.stage("checkpoint-6")
    staged.mkdir()
    Guard(tmp_path).sweep()
    assert broken.is_dir()
    assert staged.is_dir()
    other.leave()


RUN = """
import os, sys
from pathlib import Path
from gradience.storage.guard.records import Need
from gradience.storage.guard.run import Guard
guard = Guard(Path(sys.argv[1]))
guard.smallest = Need(bytes=2**20, inodes=0)
assert not guard.claim()
guard.hold_reserve()
if "worker" in sys.argv and not os.fork():
    print("working", flush=True)
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), flush=True)
sys.stdin.readline()
if "leaving" in sys.argv:
    guard.leave()
"""


@contextlib.contextmanager
def running(run, *how):
    """A process with a run in that directory; it ends at a line, and says when it goes on."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, run, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        yield other
        other.kill()


def reserve_of(run):
    return sorted(path.name for path in (run / ".gradience/ballast").iterdir())


def test_a_second_run_in_a_directory_is_told_whose_it_is_and_leaves_all_that_is_there(tmp_path):
    told = []
    with running(tmp_path) as first:
        held = reserve_of(tmp_path)
        (tmp_path / ".gradience/saving/checkpoint-6").mkdir()
        second = Guard(tmp_path, sink=told.append, wait_seconds=0.1)
        assert second.claim().startswith(f"process {first.pid} (")
        assert [event.kind for event in told] == ["shared"]
        second.sweep()
        second.leave()
        assert reserve_of(tmp_path) == held
        assert (tmp_path / ".gradience/saving/checkpoint-6").is_dir()


def test_a_run_that_is_on_its_way_out_is_waited_for(tmp_path):
    with running(tmp_path, "leaving") as first:
        second = Guard(tmp_path, wait_seconds=30)
        threading.Timer(0.5, first.stdin.close).start()
        assert second.claim() == ""
    assert in_use(tmp_path)
    second.leave()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_held_is_free_for_the_next_one(tmp_path):
    with running(tmp_path) as first:
        first.kill()
    assert reserve_of(tmp_path)
    second = Guard(tmp_path)
    assert second.claim() == ""
    second.sweep()
    assert not (tmp_path / ".gradience/ballast").exists()
    second.leave()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_outlives_its_killed_run_does_not_keep_the_directory(tmp_path):
    with running(tmp_path, "worker") as first:
        first.kill()
        first.wait()
        assert Guard(tmp_path, wait_seconds=0).claim() == ""


FORKS = """
import os, sys
from pathlib import Path
from gradience.storage.guard.own import OwnDir
own = OwnDir(Path(sys.argv[1]))
assert own.claim() is True
if not os.fork():
    os._exit(0 if OwnDir(own.run).claim() is False else 1)
code = os.waitstatus_to_exitcode(os.wait()[1])
own.leave()
sys.exit(code)
"""


def test_a_forked_child_has_not_the_directory_of_its_parent(tmp_path):
    subprocess.run([sys.executable, "-c", FORKS, tmp_path], check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_died_without_leaving_does_not_shut_out_the_next_one_of_its_process(
    tmp_path,
):
    died = Guard(tmp_path)
    assert died.claim() == ""
    again = Guard(tmp_path, wait_seconds=0)
    assert again.claim() == ""
    died.leave()
    assert in_use(tmp_path), "it is the second one's now"
    again.leave()
    assert list(tmp_path.iterdir()) == []


def test_a_training_in_another_thread_keeps_its_directory_until_that_has_ended(tmp_path):
    ended = threading.Event()
    first = Guard(tmp_path, wait_seconds=0)

    def train() -> None:
        assert first.claim() == ""
        first.own.stage("checkpoint-1").mkdir()
        claimed.set()
        ended.wait(60)

    claimed, thread = threading.Event(), threading.Thread(target=train)
    thread.start()
    assert claimed.wait(60)
    second = Guard(tmp_path, wait_seconds=0)
    assert second.claim().startswith(f"process {os.getpid()} (")
    second.sweep()
    assert (first.own.saving / "checkpoint-1").exists()
    ended.set()
    thread.join()
    assert second.claim() == ""
    second.leave()


def test_a_forked_child_that_leaves_takes_nothing_of_its_parents_run_away(tmp_path):
    own = OwnDir(tmp_path)
    assert own.claim()
    staged = own.stage("checkpoint-6")
    staged.mkdir()
    child = os.fork()
    if child == 0:
        refused = own.claim() is False
        own.leave()
        os._exit(not refused)
    assert os.waitpid(child, 0)[1] == 0
    assert staged.is_dir()
    own.leave()
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_can_tell_whether_the_other_lives_a_run_is_warned_and_goes_on(tmp_path):
    with fuse_without_locks(tmp_path / "disk") as place:
        (place / ".gradience").mkdir()
        (place / ".gradience/in-use.lock").write_text("12\nnode7\n")
        told = []
        guard = Guard(place, sink=told.append, wait_seconds=0)
        assert guard.claim() == ""
        (event,) = told
        assert "process 12 of node7" in event.message
        assert f"remove {place}/.gradience/in-use.lock" in event.message
        guard.leave()
        assert (place / ".gradience/in-use.lock").exists()


IN_TURN = """
import sys
from pathlib import Path
from gradience.storage.guard.own import OwnDir
run = Path(sys.argv[1])
for _ in range(200):
    own = OwnDir(run)
    assert own.claim(seconds=60) is True
    (run / "alone").mkdir()
    (run / "alone").rmdir()
    own.leave()
"""


def test_a_directory_is_of_one_run_at_a_time_however_often_it_changes_hands(tmp_path):
    runs = [subprocess.Popen([sys.executable, "-c", IN_TURN, tmp_path]) for _ in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    assert list(tmp_path.iterdir()) == []


SAVES = """
import sys, time
with open(sys.argv[1], "wb") as file:
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_sweep_does_not_touch_what_a_run_without_a_guard_is_saving(tmp_path):
    make_checkpoint(tmp_path, 2)
    saving = make_checkpoint(tmp_path, 4, without=("optimizer.pt", "trainer_state.json"))
    with subprocess.Popen(
        [sys.executable, "-c", SAVES, saving / "optimizer.pt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        Guard(tmp_path).sweep()
        assert saving.is_dir()
        other.stdin.close()
    Guard(tmp_path).sweep()
    assert not saving.exists()


def test_a_sweep_leaves_the_temporary_files_of_others(tmp_path):
    (tmp_path / ".notes.tmp").write_text("mine")
    (tmp_path / ".notes.0123abcd.tmp").write_text("mine")
    (tmp_path / ".checkpoint-2.0123abcd.tmp").mkdir()
    Guard(tmp_path).sweep()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".notes.0123abcd.tmp", ".notes.tmp"]


def test_a_trainer_that_saves_elsewhere_keeps_what_it_saved(tmp_path):
    own = OwnDir(tmp_path)
    staged = own.stage("checkpoint-2")
    saved = make_checkpoint(tmp_path, 2)
    assert own.publish(staged) == saved
    own.leave()
    assert judge(saved).complete


def test_a_checkpoint_may_hold_links_that_lead_nowhere(tmp_path):
    own = OwnDir(tmp_path)
    staged = own.stage("checkpoint-2")
    staged.mkdir()
    (staged / "latest").symlink_to("../nowhere")
    assert (own.publish(staged) / "latest").is_symlink()


KILLED = """
import os, sys
from pathlib import Path
from gradience import files
from gradience.storage.guard.own import OwnDir

run, calls = Path(sys.argv[1]), int(sys.argv[2])
def count(event, _):
    global calls
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), 9)
own = OwnDir(run)
staged = own.saving / "checkpoint-4"
sys.addaudithook(count)
own.publish(staged)
print("done")
"""


def test_killed_at_any_point_of_a_publication_a_complete_checkpoint_is_there(tmp_path):
    for calls in range(30):
        run = tmp_path / str(calls)
        make_checkpoint(run, 2)
        make_checkpoint(run, 4)
        make_checkpoint(run / ".gradience" / "saving", 4)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(run), str(calls)],
            capture_output=True,
            text=True,
            check=False,
        )
        guard = Guard(run)
        guard.sweep()
        assert [c.resumes for c in guard.found().checkpoints] == ["exactly", "exactly"]
        guard.leave()
        assert sorted(p.name for p in run.iterdir()) == ["checkpoint-2", "checkpoint-4"]
        if done.stdout:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "done\n", "every point was tried"
    assert calls > 5


@pytest.mark.root
def test_room_is_made_by_an_older_checkpoint_then_by_cleaning_then_by_the_reserve(tmp_path):
    with tmpfs(tmp_path / "disk", "size=8m") as place:
        cleanable = place / "cache"
        told = []

        def clean(nbytes: int) -> int:
            cleanable.unlink()
            return MB

        guard = Guard(place, clean=clean, sink=told.append)
        guard.smallest = Need(bytes=MB, inodes=1)
        guard.hold_reserve()
        for step in (1, 2, 3):
            folder = make_checkpoint(place, step)
            (folder / "more.txt").write_bytes(bytes(MB))
        cleanable.write_bytes(bytes(MB))
        for need, kinds in ((3, ["rotated"]), (4, ["cleaned"]), (5, ["released"])):
            told.clear()
            guard.whole = Need(bytes=need * MB, inodes=1)
            assert guard.make_room(4, "checkpoint-2") is Act.SAVE
            assert [event.kind for event in told] == kinds
        guard.whole = Need(bytes=6 * MB, inodes=1)
        assert guard.make_room(4, "checkpoint-2") is Act.SMALLEST
        assert sorted(p.name for p in place.glob("checkpoint-*")) == [
            "checkpoint-2",
            "checkpoint-3",
        ]


@pytest.mark.root
def test_a_run_may_start_at_once_after_space_was_freed_though_the_report_of_the_quota_lags(
    tmp_path,
):
    with btrfs_with_quota(tmp_path / "disk", 20 * MB) as place:
        fill(place / "filler")
        guard = Guard(place)
        guard.whole = guard.smallest = Need(bytes=5 * MB, inodes=1)
        assert guard.judge_start(saves=4, keeps=1).refused
        (place / "filler").unlink()
        assert not guard.judge_start(saves=4, keeps=1).refused


def test_files_are_moved_and_trees_removed_only_as_asked(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "f").write_text("x")
    files.move(folder, tmp_path / "b" / "a")
    files.remove_tree(tmp_path / "b" / "a")
    assert [p.name for p in tmp_path.rglob("*")] == ["b"]
