"""`gradience checkpoints`: what a user types, reads, and gets back as an exit code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.trainer_utils import get_last_checkpoint

from factories_checkpoints import age, cut, make_checkpoint


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    make_checkpoint(folder, 2)
    make_checkpoint(folder, 4)
    cut(make_checkpoint(folder, 6, without=("trainer_state.json",)) / "optimizer.pt")
    age(folder / "checkpoint-6")
    return folder


def checkpoints(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradience", "checkpoints", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def test_ls_says_what_a_resume_would_take_and_how_to_mend_it(run):
    done = checkpoints("ls", run.parent)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert "would take checkpoint-6 and die; checkpoint-4 is complete." in words
    mend = next(line for line in done.stdout.splitlines() if line.startswith("$ "))
    subprocess.run(mend[2:], shell=True, check=True)
    assert "takes checkpoint-4" in checkpoints("ls", run).stdout
    assert "set aside" in checkpoints("ls", run).stdout


def test_all_that_lies_before_the_newest_complete_one_is_taken_out_of_the_way(run):
    make_checkpoint(run, 3, without=("trainer_state.json",))
    make_checkpoint(run, 8, without=("optimizer.pt", "trainer_state.json"))
    (run / "broken-checkpoint-8").mkdir()
    for name in ("checkpoint-3", "checkpoint-8"):
        age(run / name)
    said = checkpoints("verify", run).stdout
    assert "would take checkpoint-8 and die; checkpoint-4 is complete" in " ".join(said.split())
    for line in said.splitlines():
        if line.startswith("$ "):
            subprocess.run(line[2:], shell=True, check=True)
    assert get_last_checkpoint(run) == str(run / "checkpoint-4")
    assert list((run / "broken-checkpoint-8").iterdir()) == [], "nothing went into what was there"
    assert (run / "checkpoint-3").is_dir(), "which no resume would take"


def test_a_save_that_goes_on_is_not_offered_to_be_moved_and_one_that_may_with_a_word(run):
    saving = make_checkpoint(run, 8, without=("trainer_state.json",))
    said = checkpoints("verify", run).stdout
    assert re.search(rf"mv {saving} \S+ +# unless its save is still going on", said)
    with (saving / "optimizer.pt").open("rb"):
        said = checkpoints("verify", run).stdout
    assert "checkpoint-8 may be whole soon" in said
    assert f"mv {saving}" not in said
    assert f"mv {run}/checkpoint-6" in said


def test_verify_exits_with_1_and_names_the_file(run):
    done = checkpoints("verify", run)
    assert done.returncode == 1
    assert "optimizer.pt: cut off after" in done.stdout
    assert checkpoints("verify", run / "checkpoint-6", "--deep").returncode == 1


def test_json_is_the_artifact_and_nothing_else(run):
    envelope = json.loads(checkpoints("ls", run, "--json").stdout)
    assert envelope["schema"] == "gradience.checkpoints/v1"
    found = envelope["content"]["runs"][0]["checkpoints"]
    assert [c["resumes"] for c in found] == ["exactly", "exactly", "no"]


def test_prune_removes_nothing_unless_it_is_told_to(run):
    for words in (["--dry-run"], []):
        done = checkpoints("prune", run, *words)
        assert done.returncode == (0 if words else 2)
        assert len(list(run.glob("checkpoint-*"))) == 3
    assert "say --yes" in done.stderr


def test_prune_removes_the_older_and_the_broken_one(run):
    done = checkpoints("prune", run, "--yes")
    assert (done.returncode, [p.name for p in run.iterdir()]) == (
        0,
        ["checkpoint-4"],
    )
    assert " freed." in done.stdout
    assert "Nothing to remove." in checkpoints("prune", run, "--yes").stdout


def test_an_empty_directory_has_no_checkpoints(tmp_path):
    done = checkpoints("ls", tmp_path)
    assert (done.returncode, "No checkpoint" in done.stdout) == (0, True)


def test_the_command_starts_without_torch(run):
    code = "import sys; from gradience.cli.main import main\n"
    code += f"try: main(['checkpoints', 'verify', {str(run)!r}, '--deep'])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert Path(run).is_dir()
