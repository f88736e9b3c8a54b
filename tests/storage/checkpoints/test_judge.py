"""Which checkpoints a resume can use, and what is set aside or removed."""

import json
import mmap
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories_checkpoints import age, cut, make_checkpoint
from gradience import system
from gradience.errors import UsageError
from gradience.storage.checkpoints.apply import prune
from gradience.storage.checkpoints.find import find, run_at
from gradience.storage.checkpoints.judge import judge
from gradience.storage.checkpoints.prune import left_alone, plan, rotation
from gradience.storage.checkpoints.records import Checkpoint
from gradience.storage.guard.own import OwnDir

LATER = time.time() + 7200.0


def test_a_checkpoint_of_the_trainer_resumes_exactly(tmp_path):
    found = judge(make_checkpoint(tmp_path, 4))
    assert (found.resumes, found.step, found.problems) == ("exactly", 4, ())
    assert found.files == 6, "five files and the directory"


@pytest.mark.parametrize(
    ("missing", "resumes", "word"),
    [
        ("trainer_state.json", "no", "written last"),
        ("model.safetensors", "no", "no weights"),
        ("optimizer.pt", "partly", "optimizer and scheduler"),
        ("scheduler.pt", "partly", "optimizer and scheduler"),
        ("rng_state.pth", "partly", "random states"),
    ],
)
def test_a_missing_file_is_judged_by_what_the_trainer_does_without_it(
    tmp_path, missing, resumes, word
):
    found = judge(make_checkpoint(tmp_path, 4, without=(missing,)))
    assert found.resumes == resumes
    assert word in " ".join([*found.problems, *found.anew])


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"]
)
def test_a_file_that_was_cut_off_makes_a_checkpoint_broken_and_is_named(tmp_path, name):
    folder = make_checkpoint(tmp_path, 4)
    cut(folder / name)
    found = judge(folder)
    assert found.resumes == "no"
    assert name in found.problems[0]


def test_a_shard_that_the_index_names_must_be_there(tmp_path):
    folder = make_checkpoint(tmp_path, 4)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (problem,) = judge(folder).problems
    assert "model-00002-of-00002.safetensors" in problem


def test_only_a_deep_look_finds_bits_that_flipped_and_weights_that_were_never_written(tmp_path):
    flipped, empty = make_checkpoint(tmp_path, 2), make_checkpoint(tmp_path, 4)
    data = bytearray((flipped / "optimizer.pt").read_bytes())
    data[data.index(b"\x00\x00\x80\x3f") + 1] ^= 1  # in the first 1.0
    (flipped / "optimizer.pt").write_bytes(data)
    whole = (empty / "model.safetensors").read_bytes()
    (empty / "model.safetensors").write_bytes(whole[:-256] + bytes(256))
    assert [judge(f).resumes for f in (flipped, empty)] == ["exactly", "exactly"]
    assert "checksum" in judge(flipped, deep=True).problems[0]
    assert "zeros" in judge(empty, deep=True).problems[0]


def test_what_resume_would_wrongly_take_is_named_with_what_it_should_take(tmp_path):
    make_checkpoint(tmp_path / "run", 2)
    make_checkpoint(tmp_path / "run", 10, without=("trainer_state.json",))
    (run,) = find([tmp_path])
    assert ([c.step for c in run.traps], run.newest.step) == ([10], 2), "by number, not by letter"


def test_a_checkpoint_may_be_named_itself_and_a_missing_directory_is_refused(tmp_path):
    (run,) = find([make_checkpoint(tmp_path, 2)])
    assert run.path == str(tmp_path)
    with pytest.raises(UsageError):
        find([tmp_path / "nowhere"])


def test_pruning_keeps_the_newest_complete_and_the_best_also_after_the_run_was_moved(tmp_path):
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step)
    make_checkpoint(tmp_path, 4, best="/elsewhere/run/checkpoint-2")
    make_checkpoint(tmp_path, 5, without=("trainer_state.json",))
    age(tmp_path / "checkpoint-5")
    planned = plan(find([tmp_path]), keep=1, now=LATER)
    done, freed = prune(planned, keep=1)
    assert [r.done for r in done] == [True] * 3
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert freed == sum(r.bytes for r in done) > 0


def test_a_plan_that_would_no_longer_be_made_removes_nothing(tmp_path):
    make_checkpoint(tmp_path, 1)
    newest = make_checkpoint(tmp_path, 2)
    planned = plan(find([tmp_path]), keep=1, now=LATER)
    (newest / "trainer_state.json").unlink()
    (outcome,) = prune(planned, keep=1)[0]
    assert not outcome.done
    assert "changed" in outcome.problem
    assert (tmp_path / "checkpoint-1").is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_checkpoint_that_a_process_has_open_or_mapped_is_not_pruned(tmp_path, name):
    old = make_checkpoint(tmp_path, 1)
    make_checkpoint(tmp_path, 2)
    with (old / name).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        file.close()
        runs = find([tmp_path], holders=system.holders())
        assert plan(runs, keep=1, now=LATER) == ()
        (why,) = left_alone(runs, keep=1, now=LATER)
        assert str(os.getpid()) in why
        # And it is looked at again before anything goes.
        (outcome,) = prune(plan(find([tmp_path]), keep=1, now=LATER), keep=1)[0]
        assert not outcome.done
    assert old.is_dir()


def test_the_save_of_a_run_without_a_guard_is_not_taken_for_a_broken_checkpoint(tmp_path):
    make_checkpoint(tmp_path, 1)
    saving = make_checkpoint(tmp_path, 2, without=("trainer_state.json",))
    runs = find([tmp_path])
    assert plan(runs, keep=1, now=time.time()) == ()
    assert "its save may be going on" in left_alone(runs, keep=1, now=time.time())[0]
    assert [r.path for r in plan(runs, keep=1, now=LATER)] == [str(saving)]


def test_a_checkpoint_that_is_a_link_keeps_its_name_and_its_data(tmp_path):
    elsewhere = make_checkpoint(tmp_path / "big", 1)
    run = tmp_path / "run"
    make_checkpoint(run, 2)
    (run / "checkpoint-1").symlink_to(elsewhere)
    (outcome,) = prune(plan(find([run]), keep=1, now=LATER), keep=1)[0]
    assert "is a link" in outcome.problem
    assert (run / "checkpoint-1" / "model.safetensors").is_file()


def test_what_a_cleaning_set_aside_in_a_run_is_not_pruned_with_it(tmp_path):
    for step in (1, 2):
        make_checkpoint(tmp_path, step)
    trash = tmp_path / ".gradience" / "20260101-000000-abcd" / "things"
    trash.mkdir(parents=True)
    (trash / "checkpoint-0").write_text("kept")
    own = OwnDir(tmp_path)
    own.claim()
    own.leave()
    prune(plan(find([tmp_path]), keep=1, now=LATER), keep=1)
    assert (trash / "checkpoint-0").read_text() == "kept"
    assert sorted(p.name for p in (tmp_path / ".gradience").iterdir()) == ["20260101-000000-abcd"]


def test_a_run_that_goes_on_is_left_alone(tmp_path):
    for step in (1, 2):
        make_checkpoint(tmp_path, step)
    own = OwnDir(tmp_path)
    own.claim()
    assert run_at(tmp_path).in_use
    assert plan(find([tmp_path]), keep=1, now=LATER) == ()
    own.leave()
    assert len(plan(find([tmp_path]), keep=1, now=LATER)) == 1


@given(
    st.lists(st.sampled_from(["exactly", "partly", "no"]), max_size=8),
    st.integers(1, 4),
    st.integers(0, 7),
)
def test_rotation_never_takes_the_newest_the_best_or_the_last_that_resumes_exactly(
    kinds, keep, best
):
    run = [
        Checkpoint(path=f"checkpoint-{i}", step=i, bytes=1, files=1, resumes=kind, best=i == best)
        for i, kind in enumerate(kinds)
    ]
    left = [c for c in run if c not in rotation(run, keep=keep)]
    complete = [c for c in run if c.complete]
    assert [c for c in left if not c.complete] == [c for c in run if not c.complete]
    assert complete[-1:] == [c for c in left if c.complete][-1:]
    assert any(c.resumes == "exactly" for c in left) == any(c.resumes == "exactly" for c in run)
    assert all(c in left for c in run if c.best)
    assert len([c for c in left if c.complete]) >= min(keep, len(complete))
