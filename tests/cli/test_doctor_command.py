"""`gradience doctor` as a user meets it: exit codes, JSON, messages."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from factories_disks import second_disk
from factories_moves import fill_few, killed_at, planned
from gradience.storage.doctor.finding_kinds import DOCTOR
from gradience.storage.doctor.gather import Machine, gather

ROOT = Path(__file__).parents[2]


def doctor(home: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    kept = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "gradience", "doctor", "--library", "huggingface_hub", *arguments],
        env={**kept, "HOME": str(home), **environ},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_names_the_trouble_the_code_and_the_command(tmp_path: Path) -> None:
    done = doctor(tmp_path, HF_HOME="relative")
    assert "Variables without effect" in done.stdout
    assert "[variable_relative]" in done.stdout
    assert f"$ export HF_HOME={tmp_path}/relative" in done.stdout.replace("\n", "")
    assert done.stderr == ""


def test_findings_fail_from_the_severity_that_is_asked(tmp_path: Path) -> None:
    codes = ("--fail-on", "variable_relative"), ("--fail-on", "variable_literal")
    assert doctor(tmp_path, *codes[0], HF_HOME="relative").returncode == 1
    assert doctor(tmp_path, *codes[1], HF_HOME="relative").returncode == 0


def test_an_error_fails_without_being_asked(tmp_path: Path) -> None:
    assert doctor(tmp_path, HF_HOME="").returncode == 1


def test_json_is_an_artifact_alone_on_standard_output(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json", HF_HOME="relative")
    artifact = json.loads(done.stdout)
    assert artifact["schema"] == "gradience.doctor/v1"
    assert artifact["content"]["places"][0]["because"] == "HF_HOME"
    assert artifact["content"]["findings"][0]["trouble"] == "Variables without effect"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fail-on", "variable_relativ"), "Did you mean variable_relative"),
        (("--fail-on", "bogus"), "One of info, warning, error, never, space_low, "),
        (("--library", "numpy"), "numpy is no library"),
        (("--python", "/nowhere/python"), "/nowhere/python cannot be run"),
    ],
)
def test_a_wrong_option_is_two_lines_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = doctor(tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_narrow_terminal_still_shows_the_disk_and_what_is_free(tmp_path: Path) -> None:
    wide, narrow = (doctor(tmp_path, COLUMNS=width).stdout for width in ("200", "80"))
    assert "libraries" in wide
    assert "No room for libraries" in narrow
    (heading,) = [line for line in narrow.splitlines() if line.startswith("what")]
    assert heading.split()[-2:] == ["disk", "free"]


def test_each_wait_is_told_when_it_begins(tmp_path: Path) -> None:
    machine = Machine(
        environ={"HOME": str(tmp_path)},
        home=tmp_path,
        cwd=tmp_path,
        python=Path(sys.executable),
        now=datetime.now(UTC),
    )
    told: list[tuple[str, int, int]] = []
    gather(
        machine,
        only=("huggingface_hub",),
        use_cache=False,
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    assert told[:4] == [
        ("asking the libraries", 0, 1),
        ("asking the libraries", 1, 1),
        ("looking at disks and rights", 0, 1),
        ("looking at disks and rights", 1, 1),
    ]


def test_a_move_that_was_cut_off_is_found(tmp_path: Path) -> None:
    with second_disk(tmp_path) as disk:
        old, new = fill_few(tmp_path / "hub"), disk / "hub"
        assert killed_at(planned(old, new), "swapped")
        said = doctor(tmp_path, "--json", HF_HUB_CACHE=str(old))
    found = {f["code"]: f["remedy"] for f in json.loads(said.stdout)["content"]["findings"]}
    assert found["unfinished_move"] == f"gradience cache move {old} {new}"


def test_a_path_that_is_no_text_is_shown_with_its_bytes(tmp_path: Path) -> None:
    value = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert "\\xff" in doctor(tmp_path, "--json", HF_HOME=value).stdout
    assert "[" not in doctor(tmp_path, HF_HOME=value).stderr


def test_a_script_can_be_named_alone(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import huggingface_hub, os\nos.environ['HF_HOME'] = '/d'\n")
    done = doctor(tmp_path, "train.py")
    assert "[variable_after_import]" in done.stdout
    assert "HF_HOME=/d python train.py" in done.stdout


def test_a_directory_that_the_command_line_names_by_argparse_is_said_to_be_unknown(
    tmp_path: Path,
) -> None:
    (tmp_path / "train.py").write_text(
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--out')\n"
        "args = p.parse_args()\nTrainingArguments(output_dir=args.out)\n"
    )
    shown = " ".join(doctor(tmp_path, "--", "python", "train.py", "--out", "runs/x").stdout.split())
    assert "not known: where output_dir=args.out of TrainingArguments() in line 5 of " in shown


def test_the_documentation_names_every_finding() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [code for code in DOCTOR if f"`{code}`" not in text] == []
