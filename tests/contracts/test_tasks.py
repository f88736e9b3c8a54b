"""What every task of the bench keeps, over every registered name."""

import json
from pathlib import Path

import msgspec
import pytest

from gradience.bench.settings import TaskSettings
from gradience.bench.tasks import TASKS


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    """Two files that every task can read."""
    rows = [
        {"text": f"{n} words of text", "label": n % 2, "question": "?", "answer": f"#### {n}"}
        | {"prompt": "a", "completion": "b"}
        for n in range(4)
    ]
    paths = [tmp_path / "train.jsonl", tmp_path / "test.jsonl"]
    for path in paths:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(paths[0]), str(paths[1])


# lm_eval takes its items from the harness: tests/bench/test_causal_trials.py runs it whole.
OWN_ITEMS = [name for name in TASKS if name != "lm_eval"]


@pytest.mark.parametrize("name", list(TASKS))
def test_a_task_says_what_it_is(name: str) -> None:
    task = TASKS[name]
    assert name.isidentifier()
    assert task.description
    assert task.model in ("sequence_classification", "causal_lm")
    assert issubclass(task.options, msgspec.Struct)
    documented = task.options.__doc__ or ""
    assert all(field.name in documented for field in msgspec.structs.fields(task.options))


@pytest.mark.parametrize("name", list(TASKS))
def test_an_option_it_does_not_know_is_named_with_the_nearest(name: str) -> None:
    first = msgspec.structs.fields(TASKS[name].options)[0].name
    settings = TaskSettings(name=name, options={f"{first}x": 1})
    problems = TASKS[name].check(settings)
    assert any(f"unknown key '{first}x'" in p and f"{first!r}?" in p for p in problems)
    assert any("task.train names no data" in p for p in problems)


@pytest.mark.parametrize("name", OWN_ITEMS)
def test_data_that_fits_is_counted_and_named(name: str, data: tuple[str, str]) -> None:
    settings = TaskSettings(name=name, train=data[:1], test=data[1:])
    task = TASKS[name]
    assert list(task.check(settings)) == []
    assert task.test_items(settings) == 4
    assert {str(path) for path in task.files(settings).values()} == set(data)
    assert task.metric(settings)
    assert (task.labels(settings) > 0) == (task.model == "sequence_classification")


@pytest.mark.parametrize("name", list(TASKS))
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.jsonl")
    settings = TaskSettings(name=name, train=(missing,), options={})
    assert any("missing.jsonl is no file" in p for p in TASKS[name].check(settings))
