"""The tasks: what they read, refuse, learn and score."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gradience.bench.settings import TaskSettings
from gradience.bench.tasks import TASKS
from gradience.bench.tasks.gsm8k import found_number, gold_number
from gradience.bench.tasks.perplexity import windows
from gradience.bench.tasks.rows import parse_hub, rows_of
from gradience.errors import UnreadableError, UsageError

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k"


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def classification(
    tmp_path: Path, train: str, test: str = "x\t0\n", suffix: str = "tsv", **options: Any
) -> TaskSettings:
    paths = []
    for name, text in (("train", train), ("test", test)):
        path = tmp_path / f"{name}.{suffix}"
        path.write_text(text, encoding="utf-8")
        paths.append(str(path))
    return TaskSettings(name="classification", train=(paths[0],), test=(paths[1],), options=options)


# Rows.


def test_a_csv_is_quoted_and_a_tsv_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"a, ""b""\nc",1\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a, b\t1\n', encoding="utf-8")
    assert rows_of([str(tmp_path / "a.csv")]) == [{"text": 'a, "b"\nc', "label": "1"}]
    assert rows_of([str(tmp_path / "a.tsv")]) == [{"text": '"a, b', "label": "1"}]


def test_sources_are_read_in_order(tmp_path: Path) -> None:
    names = [jsonl(tmp_path / f"{i}.jsonl", [{"n": i}, {"n": -i}]) for i in (1, 2)]
    assert [row["n"] for row in rows_of(names)] == [1, -1, 2, -2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.tsv", "a\tb\n1\t2\n3\n", "line 3: 1 columns where there should be 2"),
        ("a.parquet", "x", "ends in '.parquet'"),
        ("a.csv", "a,b\n\xff,1\n", "cannot be read"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UnreadableError, match=says):
        rows_of([str(tmp_path / name)])


def test_a_hub_name_is_read_as_a_whole_or_refused() -> None:
    found = parse_hub("hub:nyu-mll/glue@abc#sst2:validation[:100]")
    assert (found.path, found.revision, found.config) == ("nyu-mll/glue", "abc", "sst2")
    assert found.split == "validation[:100]"
    with pytest.raises(UsageError, match="hub:glue"):
        parse_hub("hub:glue")


def test_a_dataset_is_read_through_the_datasets_library(tmp_path: Path) -> None:
    """GLUE's form: whole-number labels, an `idx`; here from a local directory."""
    pytest.importorskip("datasets")
    data = tmp_path / "glue"
    data.mkdir()
    for split, rows in (("train", 6), ("validation", 4)):
        jsonl(
            data / f"{split}.jsonl",
            [{"sentence": f"text {i}", "label": i % 2, "idx": i} for i in range(rows)],
        )
    settings = TaskSettings(
        name="classification",
        train=(f"hub:{data}:train",),
        test=(f"hub:{data}:validation",),
        options={"text": "sentence", "id": "idx"},
    )
    script = (
        "import sys, msgspec; from gradience.bench.settings import TaskSettings;"
        "from gradience.bench.tasks import TASKS;"
        "s = msgspec.json.decode(sys.argv[1], type=TaskSettings); t = TASKS[s.name];"
        "print(msgspec.json.encode([t.check(s), t.test_items(s), t.labels(s),"
        " {k: str(v) for k, v in t.files(s).items()}]).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, msgspec.json.encode(settings).decode()],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    problems, items, labels, files = json.loads(done.stdout.splitlines()[-1])
    assert (problems, items, labels) == ([], 4, 2)
    assert set(files) == {*settings.train, *settings.test}
    assert all(path.endswith(".arrow") for path in files.values())


# Checks.


def test_every_option_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    settings = classification(tmp_path, "a\t0\nb\t1\n", txt="a", text=3, id=None)
    problems = TASKS["classification"].check(settings)
    assert len(problems) == 2
    assert "unknown key 'txt'" in problems[0]
    assert "did you mean 'text'?" in problems[0]
    assert "task.options.text is 3" in problems[1]


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    settings = TaskSettings(name="gsm8k", train=(str(tmp_path / "no.jsonl"),))
    problems = TASKS["gsm8k"].check(settings)
    assert problems == [f"task.train: {tmp_path}/no.jsonl is no file", "task.test names no data"]


@pytest.mark.parametrize(
    ("train", "test", "options", "says"),
    [
        ("a\t0\nb\t1\n", "c\t2\n", {"columns": ["text", "label"]}, "label '2'"),
        ("a\t0\nb\t1\n", "", {"columns": ["text", "label"]}, "task.test has no rows"),
        ("a\t0\nb\t0\n", "a\t0\n", {"columns": ["text", "label"]}, "1 classes"),
        ("a\t0\nb\t1\n", "a\t0\n", {"columns": ["text", "y"]}, "no 'label'"),
        ("text\tlabel\na\t0\nb\t1\n", "text\tlabel\na\t-1\n", {}, "label '-1'"),
        (
            "a\t0\ta\nb\t1\tb\n",
            "c\t1\tx\nd\t1\tx\n",
            {"columns": ["text", "label", "name"], "id": "name"},
            "the id 'x' occurs twice",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_before_anything_runs(
    tmp_path: Path, train: str, test: str, options: dict[str, Any], says: str
) -> None:
    (problem,) = TASKS["classification"].check(classification(tmp_path, train, test, **options))
    assert says in problem


def test_numbered_classes_keep_their_order_and_words_are_sorted(tmp_path: Path) -> None:
    for labels, number in (("2 10 0", 3), ("pos neg", 2)):
        rows = "".join(f"x\t{label}\n" for label in labels.split())
        settings = classification(tmp_path, rows, rows, columns=["text", "label"])
        assert TASKS["classification"].check(settings) == []
        assert TASKS["classification"].labels(settings) == number


# GSM8K.


@pytest.mark.skipif(not GSM8K.exists(), reason="needs ../shared/data/gsm8k")
def test_every_gold_answer_of_the_real_files_parses() -> None:
    settings = TaskSettings(
        name="gsm8k", train=(str(GSM8K / "train.jsonl"),), test=(str(GSM8K / "test.jsonl"),)
    )
    assert TASKS["gsm8k"].check(settings) == []
    assert TASKS["gsm8k"].test_items(settings) == 1319
    rows = rows_of([*settings.train, *settings.test])
    assert len(rows) == 7473 + 1319
    for row in rows:
        tail = row["answer"].rsplit("\n", 1)[1]
        assert tail.startswith("#### ")
        gold = gold_number(row["answer"])
        assert gold == Decimal(tail.removeprefix("#### ").replace(",", ""))
        # A solution in the words of the file is right, and so is its last line in other forms.
        for form in (row["answer"], f"The answer is {tail[5:]}.", f"#### ${tail[5:]}.00 dollars"):
            assert found_number(form, "marked_or_last") == gold


@pytest.mark.parametrize(
    ("solution", "number"),
    [
        ("#### 18", 18),
        ("#### 18.", 18),
        ("####18.00", 18),
        ("so #### 1,234,567 in all", 1234567),
        ("#### $1,250.50", "1250.5"),
        ("#### -7", -7),
        ("#### -$7", -7),
        ("#### $-7", -7),
        ("#### \u22127", -7),
        ("#### .5", "0.5"),
        ("#### 5 apples and 3 pears", 5),
        ("10-5=5", 5),
        ("It is 12,5 or 34", 34),
        ("the answer is 3.", 3),
        ("70%", 70),
        ("7\nQuestion: What is 9 ?", 7),
        ("#### none", None),
        ("no number at all", None),
        ("", None),
    ],
)
def test_the_number_of_a_solution(solution: str, number: Any) -> None:
    found = found_number(solution, "marked_or_last", ("\nQuestion:",))
    assert found == (None if number is None else Decimal(number))


def test_without_the_mark_a_marked_solution_is_wrong() -> None:
    assert found_number("it is 5", "marked") is None
    assert found_number("it is 5 #### 6", "marked") == 6


def test_a_gold_answer_without_a_number_is_refused(tmp_path: Path) -> None:
    good = jsonl(tmp_path / "a.jsonl", [{"question": "q", "answer": "#### 1"}])
    bad = jsonl(tmp_path / "b.jsonl", [{"question": "q", "answer": "It is 5"}])
    (problem,) = TASKS["gsm8k"].check(TaskSettings(name="gsm8k", train=(good,), test=(bad,)))
    assert "'It is 5' has no number behind ####" in problem
    prompt = TaskSettings(name="gsm8k", train=(good,), test=(good,), options={"prompt": "Q:"})
    (problem,) = TASKS["gsm8k"].check(prompt)
    assert "no {question}" in problem


# Perplexity.


def test_windows_hold_every_word_once_and_never_one_alone() -> None:
    for words in range(0, 12):
        text = " ".join(map(str, range(words)))
        found = windows("d", text, 4)
        assert " ".join(w.text for w in found) == (text if words > 1 else "")
        assert all(2 <= len(w.text.split()) <= 5 for w in found)
        assert len({w.id for w in found}) == len(found)


def test_documents_are_lines_of_jsonl_or_blocks_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\nthree\n\n\nfour five\n", encoding="utf-8")
    rows = jsonl(tmp_path / "b.jsonl", [{"text": "six seven"}, {"text": "eight nine ten"}])
    settings = TaskSettings(
        name="perplexity", train=(str(tmp_path / "a.txt"),), test=(str(tmp_path / "a.txt"), rows)
    )
    assert TASKS["perplexity"].check(settings) == []
    assert TASKS["perplexity"].test_items(settings) == 4


# What is learned.


class Words:
    """A tokenizer that numbers words, with a start and an end, as a base model's does."""

    eos_token_id = 1
    pad_token_id = 1

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [10 + len(word) for word in text.split()]
        return {"input_ids": [0, *ids] if add_special_tokens else ids}


def test_the_prompt_is_never_learned_and_the_end_is(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "a.jsonl", [{"question": "a bb", "answer": "ccc #### 4"}])
    settings = TaskSettings(name="gsm8k", train=(data,), test=(data,))
    (example,) = TASKS["gsm8k"].training(settings, Words(), 64)
    assert example["input_ids"] == [0, 19, 11, 12, 17, 13, 14, 11, 1]
    assert example["labels"] == [-100] * 5 + [13, 14, 11, 1]
    (short,) = TASKS["gsm8k"].training(settings, Words(), 6)
    assert short["input_ids"] == [12, 17, 13, 14, 11, 1]
    assert short["labels"] == [-100, -100, 13, 14, 11, 1]


def test_nothing_of_this_needs_torch(tmp_path: Path) -> None:
    row = {"question": "a", "answer": "#### 4", "text": "a b"}
    data, other = (jsonl(tmp_path / f"{name}.jsonl", [row]) for name in "ab")
    script = f"""
import sys
from gradience.bench.settings import TaskSettings
from gradience.bench.tasks import TASKS
for name in ("gsm8k", "perplexity"):
    settings = TaskSettings(name=name, train=({data!r},), test=({other!r},))
    assert TASKS[name].check(settings) == []
    assert TASKS[name].test_items(settings) == 1
    assert list(TASKS[name].files(settings)) == [{data!r}, {other!r}]
TASKS["classification"], TASKS["lm_eval"]
import gradience.bench.actions
from gradience.bench.actions import ACTIONS
assert [ACTIONS[name].trains for name in ACTIONS].count(True) == 3
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
