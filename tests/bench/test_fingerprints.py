"""What a trial's numbers depend on, as texts that change with them and with nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gradience
from factories_driver import make_project, settings_of
from gradience.bench.plan.fingerprints import (
    ROOTS,
    base_fingerprint,
    code_fingerprint,
    data_fingerprints,
    open_model,
    versions,
)
from gradience.bench.settings import BenchSettings
from hub_server import COMMIT, Repo, serve

PACKAGE = Path(gradience.__file__).parent


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    return settings_of(make_project(tmp_path))


def of_base(settings: BenchSettings) -> str:
    with open_model(settings.model) as base:
        return base_fingerprint(settings.model, base)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt"])
def test_config_and_tokenizer_of_a_base_count(settings: BenchSettings, name: str) -> None:
    before = of_base(settings)
    assert of_base(settings) == before
    (Path(settings.model.id) / name).write_text("{}")
    assert of_base(settings) != before


def test_a_model_that_moves_is_the_same_model(settings: BenchSettings, tmp_path: Path) -> None:
    before = of_base(settings)
    moved = Path(settings.model.id).rename(tmp_path / "elsewhere")
    other = settings_of(tmp_path / "bench.yaml", f"model.id={moved}")
    assert of_base(other) == before


def test_data_counts_by_content(settings: BenchSettings) -> None:
    before = data_fingerprints(settings.task)
    assert set(before) == {*settings.task.train, *settings.task.test}
    test = Path(settings.task.test[0])
    test.write_text(test.read_text().replace("sentence 3\t1", "sentence 3\t0"))
    after = data_fingerprints(settings.task)
    assert [name for name in before if before[name] != after[name]] == [str(test)]


def test_versions_are_those_of_the_libraries_that_are_used(settings: BenchSettings) -> None:
    found = versions(settings)
    assert {"python", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy"} == set(
        found
    )


CHANGES = {
    "a rule that decides numbers": ("bench/trial/curve.py", "\nX = 1\n", True),
    "an action": ("bench/actions/truncate.py", "\nX = 1\n", True),
    "a task": ("bench/tasks/gsm8k.py", "\nX = 1\n", True),
    "compression": ("compress/rewrite.py", "\nX = 1\n", True),
    "how adapters are read": ("adapter/config.py", "\nX = 1\n", True),
    "a comment": ("bench/trial/training.py", "\n# a comment\n", False),
    "the driver": ("bench/driver/drive.py", "\nX = 1\n", False),
    "the report": ("bench/report/page.py", "\nX = 1\n", False),
    "the command line": ("cli/bench.py", "\nX = 1\n", False),
    "the version": ("__init__.py", "\n__version__ = '9'\n", False),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_code_counts_where_it_decides_numbers(change: str, tmp_path: Path) -> None:
    name, added, counts = CHANGES[change]
    copy = tmp_path / "gradience"
    subprocess.run(["cp", "-r", str(PACKAGE), str(copy)], check=True)
    before = code_fingerprint(ROOTS, copy)
    code_fingerprint.cache_clear()
    with (copy / name).open("a") as file:
        file.write(added)
    assert (code_fingerprint(ROOTS, copy) != before) == counts


def test_the_code_of_a_trial_is_found_without_importing_it() -> None:
    code = "from gradience.bench.plan import fingerprints as f; f.code_fingerprint(f.ROOTS)"
    code += "; import sys; print([m for m in sys.modules if m in ('torch', 'peft', 'click')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    assert code_fingerprint(ROOTS) == code_fingerprint(ROOTS)


PIN = """
from gradience.bench.plan.fingerprints import pinned
from gradience.bench.settings import TaskSettings
task = TaskSettings(name="classification", train=("hub:org/data#sst2:train",), test=("a.tsv",))
print(*pinned(task).train, *pinned(task).test)
"""


def pinned_names(url: str, **environ: str) -> str:
    environ = {"HF_ENDPOINT": url, "PATH": os.environ["PATH"], **environ}
    done = subprocess.run(
        [sys.executable, "-c", PIN], check=True, capture_output=True, text=True, env=environ
    )
    return done.stdout.strip()


def test_a_dataset_of_the_hub_is_pinned_to_its_commit() -> None:
    with serve(org__data=Repo(files={"README.md": b""})) as hub:
        assert pinned_names(hub.url) == f"hub:org/data@{COMMIT}#sst2:train a.tsv"
        offline = pinned_names(hub.url, HF_HUB_OFFLINE="1")
        hub.down = True
        assert offline == pinned_names(hub.url) == "hub:org/data#sst2:train a.tsv"
    assert pinned_names("http://127.0.0.1:1") == offline
