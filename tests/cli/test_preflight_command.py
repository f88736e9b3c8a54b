"""`gradience preflight`: what a user types, reads, and gets back as an exit code."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_disks import tmpfs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({"a.q_proj.weight": np.ones((500, 500), np.float32)}, folder / "model.safetensors")
    return folder


def preflight(*words: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradience", "preflight", "--offline", *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **more},
    )


def test_the_exit_code_says_whether_it_fits(model, tmp_path):
    with tmpfs(tmp_path / "small", "size=10m") as disk:
        run = ("--model", model, "--output-dir", disk / "out", "--save-steps", 10)
        done = preflight(*run, "--steps", 10, cwd=tmp_path)
        assert (done.returncode, "\nFITS\n" in done.stdout) == (0, True), done.stderr
        done = preflight(*run, "--steps", 100, cwd=tmp_path)
        assert (done.returncode, "\nFITS UNTIL STEP 30\n" in done.stdout) == (1, True)
        (disk / "filler").write_bytes(b"x" * 9_000_000)
        done = preflight(*run, "--steps", 100, cwd=tmp_path)
        assert (done.returncode, "\nDOES NOT FIT\n" in done.stdout) == (5, True)


def test_the_cleaning_that_would_make_it_fit_is_named(model, tmp_path):
    with tmpfs(tmp_path / "small", "size=20m") as disk:
        blobs = disk / "hf" / "hub" / "models--org--name" / "blobs"
        blobs.mkdir(parents=True)
        partial = blobs / f"{'a' * 40}.0123abcd.incomplete"
        partial.write_bytes(b"x" * 12_000_000)
        os.utime(partial, (1_600_000_000, 1_600_000_000))
        run = ("--model", model, "--output-dir", disk / "out", "--steps", 4, "--save-steps", 1)
        done = preflight(*run, cwd=tmp_path, HF_HOME=str(disk / "hf"), HOME=str(tmp_path))
        said = " ".join(done.stdout.split())
        assert done.returncode == 1, done.stderr
        assert "would free 12.0 MB, enough: $ gradience cache clean --min-free " in said
        assert partial.exists()
        done = preflight(*run[:-3], 40, *run[-2:], cwd=tmp_path, HF_HOME=str(disk / "hf"))
        said = " ".join(done.stdout.split())
        assert "which is too little." in said
        assert "gradience cache clean" not in said, "a command that does not help"


@pytest.mark.parametrize("name", ["./gone", "../gone", "a/b/c", "org/x--y"])
def test_a_model_that_is_not_there_and_no_hub_id_is_said_so(tmp_path, name):
    done = preflight("--model", name, "--steps", 10, cwd=tmp_path)
    assert done.returncode == 2
    assert f"model {name}: there is no such directory, and it is no Hub id" in done.stderr


def test_what_is_no_number_is_said_in_a_users_words(tmp_path):
    done = preflight("--model", "x/y", "--steps", "ten", cwd=tmp_path)
    assert done.returncode == 2
    assert "'ten' is not a valid whole number" in done.stderr


def test_flags_go_before_the_values_of_the_file(model, tmp_path):
    (tmp_path / "run.yaml").write_text(f"model: {model}\nsteps: 10\nadapter_rank: 4\n")
    done = preflight("run.yaml", "--adapter-rank", 8, cwd=tmp_path)
    assert "rank 8" in done.stdout
    assert "all-linear, the largest choice, was assumed" in " ".join(done.stdout.split())


def test_a_target_that_is_no_layer_is_named_though_another_is_one(model, tmp_path):
    run = ("--model", model, "--adapter-rank", 8, "--steps", 10)
    done = preflight(*run, "--targets", "q_proj,k_porj", cwd=tmp_path)
    assert done.returncode == 1
    assert "no layer of the model is named k_porj" in " ".join(done.stdout.split())


def test_a_pattern_of_targets_that_is_none_is_refused(model, tmp_path):
    done = preflight("--model", model, "--adapter-rank", 8, "--targets", "(q_proj", cwd=tmp_path)
    assert done.returncode == 2
    assert "'(q_proj' is no regular expression" in done.stderr


def test_numbers_that_no_run_can_have_are_refused_in_options_and_in_a_file(model, tmp_path):
    (tmp_path / "run.yaml").write_text(f"model: {model}\nsteps: -5\nadapter_rank: 0\n")
    for words, told in (
        (("--model", model, "--save-steps", 0, "--epochs", -1), "epochs is -1, save_steps is 0"),
        (("run.yaml",), "adapter_rank is 0, steps is -5"),
    ):
        done = preflight(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{told}: not above 0" in done.stderr


def write_bench(folder: Path, model: object) -> None:
    (folder / "bench.yaml").write_text(
        f"""
name: b
model: {{id: "{model}"}}
task: {{name: classification}}
lora: {{rank: 8, alpha: 16, targets: [q_proj]}}
train: {{learning_rate: 0.001, batch_size: 8, steps: 10}}
variants: [{{action: truncate, ranks: [4, 2]}}]
seeds: [0, 1]
claim: {{margin: 0.02}}
"""
    )


def test_a_bench_is_a_run_whose_steps_are_trials(model, tmp_path):
    write_bench(tmp_path, model)
    done = preflight("bench.yaml", cwd=tmp_path)
    assert (done.returncode, "save 14 " in done.stdout) == (0, True), done.stderr + done.stdout


def test_the_model_of_a_bench_is_looked_for_beside_its_config(model, tmp_path):
    write_bench(tmp_path, model.name)
    (tmp_path / "elsewhere").mkdir()
    done = preflight("../bench.yaml", cwd=tmp_path / "elsewhere")
    assert (done.returncode, "save 14 " in done.stdout) == (0, True), done.stderr + done.stdout


def test_the_model_of_a_bench_may_lie_in_a_package(model, tmp_path):
    (tmp_path / "weights_pkg").mkdir()
    model.rename(tmp_path / "weights_pkg" / "model")
    write_bench(tmp_path, "package:weights_pkg/model")
    done = preflight("bench.yaml", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, "save 14 " in done.stdout) == (0, True), done.stderr + done.stdout
    write_bench(tmp_path, "package:no_such_thing/model")
    done = preflight("bench.yaml", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the package 'no_such_thing' is not installed" in " ".join(done.stderr.split())


def test_without_anything_to_go_by_it_asks_for_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gradience", "preflight"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, "Give --model" in done.stderr) == (2, True)
