"""The arithmetic of a run over time: pure, so every promise is a case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.storage.preflight.forecast import Room, advice, at_save, held, judge, moments
from gradience.storage.preflight.records import Schedule, Write


def write(what, size, when="save", **more):
    return Write(what=what, path="/d", when=when, known="computed", bytes=size, **more)


def room(size, files=None):
    return Room(path="/d", fs_type="ext4", limit="file system", bytes=size, files=files)


CHECKPOINT = (write("weights", 100), write("optimizer state", 200, optional=True))


@pytest.mark.parametrize(
    ("size", "verdict", "save", "step"),
    [
        (10_000, "fits", None, None),
        (1300, "fits", None, None),  # three checkpoints and the download, with 2 %
        (1000, "until", 2, 40),  # two fit: rotation would follow the third
        (400, "no", None, None),
        (50, "no", None, None),
    ],
)
def test_rotation_follows_the_save(size, verdict, save, step):
    schedule = Schedule(steps=100, every=20, saves=5, keeps=2)
    found = judge((*CHECKPOINT, write("download", 300, "before")), schedule, room(size))
    assert (found.verdict, found.until_save, found.until_step) == (verdict, save, step)
    assert found.peak.checkpoints == 3


def test_a_run_without_limit_or_end_fits_until_a_step():
    found = judge(CHECKPOINT, Schedule(every=500), room(3100))
    assert (found.verdict, found.until_save, found.until_step) == ("until", 10, 5000)


def test_what_is_not_known_is_never_said_to_fit():
    unsized = Write(what="download", path="/d", when="before", known="unknown")
    schedule = Schedule(steps=10, every=5, saves=2, keeps=1)
    assert judge((*CHECKPOINT, unsized), schedule, room(10_000)).verdict == "unknown"
    assert judge((*CHECKPOINT, unsized), schedule, room(300)).verdict == "no"
    assert judge(CHECKPOINT, schedule, room(None)).verdict == "unknown"


def test_files_run_out_too():
    many = (write("sharded", 10, files=100),)
    schedule = Schedule(steps=10, every=5, saves=2, keeps=2)
    assert judge(many, schedule, room(10_000, files=150)).verdict == "until"
    assert judge(many, schedule, room(10_000, files=50)).verdict == "no"


def test_an_export_that_does_not_fit_is_a_run_that_fits_until_its_last_step():
    schedule = Schedule(steps=10, every=5, saves=2, keeps=2)
    found = judge((*CHECKPOINT, write("merged", 5000, "end")), schedule, room(1000))
    assert (found.verdict, found.until_step) == ("until", 10)


def test_the_advice_is_one_that_helps():
    schedule = Schedule(steps=1000, every=10, saves=100)
    found = judge(CHECKPOINT, schedule, room(1600))
    said = " ".join(advice(found, schedule, adapter=True))
    assert "save_total_limit=4 makes it fit" in said
    assert (
        judge(CHECKPOINT, Schedule(**{**_as(schedule), "keeps": 4}), room(1600)).verdict == "fits"
    )
    assert "save_only_model" not in said


def _as(schedule):
    return {name: getattr(schedule, name) for name in ("steps", "every", "saves", "keeps")}


sizes = st.integers(0, 10**12)


@given(sizes, sizes, sizes, st.integers(1, 50), st.one_of(st.none(), st.integers(1, 9)))
def test_the_last_save_that_fits_is_the_last(before, each, space, saves, keeps):
    writes = (write("d", before, "before"), write("w", each))
    schedule = Schedule(steps=saves * 7, every=7, saves=saves, keeps=keeps)
    found = judge(writes, schedule, room(space))
    fitting = [k for k in range(saves + 1) if at_save(writes, schedule, k).bytes <= space]
    if found.verdict == "until":
        assert found.until_save == max(fitting)
        assert found.until_step == 7 * found.until_save
    assert (found.verdict == "fits") == (len(fitting) == saves + 1)
    assert found.peak.bytes == max(m.bytes for m in moments(writes, schedule))
    assert found.peak.checkpoints <= held(saves, schedule)
