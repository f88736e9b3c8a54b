"""A script is read in the order in which it would run, and never executed."""

from pathlib import Path

import pytest

from gradience.storage.doctor import command
from gradience.storage.doctor.program import environment, read_program
from gradience.storage.doctor.rules_program import takes_effect
from gradience.storage.doctor.script import read

NO_ENVIRON: dict[str, str] = {}


def settings(source: str, **environ: str) -> list[tuple[str, str | None]]:
    found = read(source, environ=environ, home="/home/me")
    return [(a.name, a.value) for a in found.assignments]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nos.environ['A'] = '/x'", [("A", "/x")]),
        ("from os import environ\nenviron['A'] = '/x'", [("A", "/x")]),
        ("import os\nos.environ.setdefault('A', '/x')", [("A", "/x")]),
        ("import os\nos.environ.update({'A': '/x'}, B='/y')", [("A", "/x"), ("B", "/y")]),
        ("import os\nos.environ |= {'A': '/x'}", [("A", "/x")]),
        ("import os\nos.putenv('A', '/x')", [("A", "/x")]),
        ("import os\nROOT = '/d'\nos.environ['A'] = f'{ROOT}/x'", [("A", "/d/x")]),
        ("import os\nos.environ['A'] = os.path.join('/d', 'x')", [("A", "/d/x")]),
        ("import os\nos.environ['A'] = os.path.expanduser('~/x')", [("A", "/home/me/x")]),
        ("import os\nos.environ['A'] = str(Path.home() / 'x')", [("A", "/home/me/x")]),
        ("import os\nos.environ['A'] = compute()", [("A", None)]),
        ("import os\nif True:\n    os.environ['A'] = '1'", [("A", "1")]),
        ("import os\ntry:\n    os.environ['A'] = '1'\nexcept E:\n    pass", [("A", "1")]),
        ("import os\nmatch x:\n    case 1:\n        os.environ['A'] = '1'", [("A", "1")]),
        ("import os\ndef f():\n    os.environ['A'] = '1'", [("A", "1")]),
    ],
)
def test_every_way_to_set_a_variable_is_seen(
    source: str, expected: list[tuple[str, str | None]]
) -> None:
    assert settings(source) == expected


def test_setdefault_yields_to_the_environment() -> None:
    assert settings("import os\nos.environ.setdefault('A', '/x')", A="/y") == []


def test_values_from_the_environment_are_taken_from_it() -> None:
    source = "import os\nos.environ['A'] = os.environ.get('SCRATCH', '/tmp') + '/hf'"
    assert settings(source, SCRATCH="/s") == [("A", "/s/hf")]
    assert settings(source) == [("A", "/tmp/hf")]


def test_the_body_of_a_function_runs_after_the_imports_below_it() -> None:
    source = (
        "import os\ndef main():\n    os.environ['HF_HOME'] = '/x'\nimport transformers\nmain()\n"
    )
    found = read(source, environ={}, home="/h")
    [late] = found.assignments
    [_, imported] = found.imports
    assert imported.library == "transformers"
    assert imported.order < late.order


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    read(f"open({str(mark)!r}, 'w').write('x')", environ={}, home="/h")
    assert not mark.exists()


@pytest.mark.parametrize("source", ["def (", "\0", "x = 1\n  y = 2"])
def test_a_script_that_does_not_parse_is_a_note(source: str) -> None:
    assert read(source, environ={}, home="/h").notes


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("f(cache_dir='./c')", ("cache_dir", "./c", 1)),
        ("TrainingArguments('out')", ("output_dir", "out", 1)),
        ("TrainingArguments(\n  output_dir='out')", ("output_dir", "out", 1)),
        ("m.save_pretrained('/d')", ("save_directory", "/d", 1)),
        ("p.add_argument('--output-dir', default='o')", ("output_dir", "o", 1)),
        ("class Args:\n    output_dir: str = 'o'", ("output_dir", "o", 2)),
    ],
)
def test_directories_in_the_code_are_seen(source: str, expected: tuple[str, str, int]) -> None:
    [literal] = read(source, environ={}, home="/h").literals
    assert (literal.keyword, literal.value, literal.line) == expected


def test_an_option_on_the_command_line_takes_the_place_of_its_default() -> None:
    source = "p.add_argument('--output_dir', default='o')"
    found = read(source, environ={}, home="/h", arguments=("--output_dir", "/big"))
    assert [p.value for p in found.literals] == ["/big"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("TrainingArguments(output_dir=args.out)", ["output_dir=args.out"]),
        ("TrainingArguments(args.out)", ["output_dir=args.out"]),
        ("m.save_pretrained(name())", ["save_directory=name()"]),
        ("f(cache_dir=None)", []),
        ("p.add_argument('--output_dir')\nTrainingArguments(output_dir=args.output_dir)", []),
    ],
)
def test_a_directory_that_only_the_run_decides_is_told_as_such(
    source: str, expected: list[str]
) -> None:
    found = read(source, environ={}, home="/h", arguments=("--out", "x", "--output_dir", "y"))
    assert [f"{p.keyword}={p.value}" for p in found.computed] == expected


def words_of(folder: Path, source: str, *words: str) -> tuple[str, ...]:
    (folder / "train.py").write_text(source)
    return words or ("python", "train.py")


def test_what_a_module_beside_the_script_imports_counts(tmp_path: Path) -> None:
    (tmp_path / "common.py").write_text("import transformers\n")
    words = words_of(tmp_path, "import os\nimport common\nos.environ['HF_HOME'] = '/x'\n")
    found = read_program(words, environ={}, home=tmp_path, cwd=tmp_path)
    assert [(i.library, i.line) for i in found.imports] == [("os", 1), ("transformers", 2)]
    assert not takes_effect(found, found.assignments[0])
    assert "HF_HOME" not in environment(found, {})


def test_modules_that_import_each_other_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("import a\nimport datasets\n")
    words = words_of(tmp_path, "import a\n")
    found = read_program(words, environ={}, home=tmp_path, cwd=tmp_path)
    assert "datasets" in [i.library for i in found.imports]


def test_a_dotenv_loaded_in_time_is_part_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_HOME=/data/hf\nHF_HUB_CACHE='/data/hub'\n")
    source = "from dotenv import load_dotenv\nload_dotenv()\nimport transformers\n"
    found = read_program(words_of(tmp_path, source), environ={}, home=tmp_path, cwd=tmp_path)
    seen = environment(found, {"HF_HOME": "/mine"})
    assert seen == {"HF_HOME": "/mine", "HF_HUB_CACHE": "/data/hub"}


def test_the_prefix_and_env_shape_the_environment(tmp_path: Path) -> None:
    words = words_of(tmp_path, "", "env", "-u", "A", "HF_HOME=/x", "python", "-u", "train.py")
    found = read_program(words, environ={"A": "1", "B": "2"}, home=tmp_path, cwd=tmp_path)
    assert environment(found, {"A": "1", "B": "2"}) == {"B": "2", "HF_HOME": "/x"}
    assert found.flags == ("-u",)


@pytest.mark.parametrize(
    ("line", "script", "arguments"),
    [
        ("train.py a", "train.py", ["a"]),
        ("python3.11 -X dev train.py", "train.py", []),
        ("torchrun --nproc-per-node 2 train.py --x", "train.py", ["--x"]),
        ("accelerate launch --config c.yaml train.py", "train.py", []),
        ("python -m torch.distributed.run --nnodes 1 train.py b", "train.py", ["b"]),
        ("srun env A=1 python train.py", "train.py", []),
        ("uv run train.py", "train.py", []),
    ],
)
def test_the_script_is_found_behind_every_launcher(
    line: str, script: str, arguments: list[str]
) -> None:
    found = command.parse(line.split())
    assert (found.script, found.arguments) == (script, arguments)


def test_a_module_is_looked_for_beside_the_command(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__main__.py").write_text("import torch\n")
    found = read_program(["python", "-m", "pkg"], environ={}, home=tmp_path, cwd=tmp_path)
    assert found.script == tmp_path / "pkg" / "__main__.py"


def test_code_on_the_command_line_is_read() -> None:
    here = Path("/nowhere")
    found = read_program(["python", "-c", "import torch"], environ={}, home=here, cwd=here)
    assert [i.library for i in found.imports] == ["torch"]


@pytest.mark.parametrize("words", [["python", "gone.py"], ["ls", "-l"], ["python"], ["A=1"]])
def test_a_program_that_cannot_be_read_says_so(tmp_path: Path, words: list[str]) -> None:
    assert read_program(words, environ={}, home=tmp_path, cwd=tmp_path).notes
