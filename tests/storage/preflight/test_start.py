"""What a preflight adds to the start of a guarded run."""

from pathlib import Path

from factories_disks import tmpfs
from gradience.storage.guard.records import Need
from gradience.storage.guard.run import Guard
from gradience.storage.preflight.start import start


def held(place: Path) -> Guard:
    guard = Guard(place)
    guard.whole = Need(bytes=1_000_000, inodes=8)
    guard.smallest = Need(bytes=500_000, inodes=4)
    return guard


def test_a_run_that_can_keep_all_is_told_nothing_more(tmp_path):
    with tmpfs(tmp_path / "disk", "size=20m") as disk:
        guard = held(disk)
        assert start(guard, 5, 2) == guard.judge_start(saves=5, keeps=2)


def test_a_run_that_cannot_keep_all_is_told_from_when_and_what_would_help(tmp_path):
    with tmpfs(tmp_path / "disk", "size=6m") as disk:
        found = start(held(disk), 20, None)
        assert (found.refused, found.tight) == (False, True)
        assert "After save 5 of 20 older checkpoints must go" in " ".join(found.lines)
        assert "save_total_limit=4 makes it fit" in " ".join(found.lines)


def test_a_run_that_cannot_save_twice_is_refused_with_the_guards_arithmetic(tmp_path):
    with tmpfs(tmp_path / "disk", "size=1m") as disk:
        guard = held(disk)
        assert start(guard, 5, 2) == guard.judge_start(saves=5, keeps=2)
        assert start(guard, 5, 2).refused
