"""A config file: what it means, and everything that is wrong with it, at once."""

from pathlib import Path

import pytest

from gradience.bench.config.load import as_yaml, load, smoke
from gradience.bench.settings import BenchSettings
from gradience.errors import UsageError

GOOD = """
name: demo
model: {id: model}
task:
  name: classification
  train: [data/train.tsv]
  test: [data/test.tsv]
lora: {rank: 8, alpha: 16, targets: [query, value]}
train: {learning_rate: 1e-4, batch_size: 4, steps: 10}
variants:
  - {action: truncate, ranks: [4, 2]}
  - {action: retrain, ranks: [4]}
seeds: [0, 1, 2]
claim: {margin: 0.025}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a config, a model and its data."""
    (tmp_path / "model").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        rows = "".join(f"{word} film\t{label}\n" for word, label in (("good", 1), ("bad", 0)))
        (tmp_path / "data" / f"{name}.tsv").write_text("text\tlabel\n" + rows)
    (tmp_path / "bench.yaml").write_text(GOOD)
    return tmp_path


def read(
    project: Path, *overrides: str, text: str = GOOD, cwd: Path | None = None
) -> BenchSettings:
    (project / "bench.yaml").write_text(text)
    return load(project / "bench.yaml", overrides, home=project, cwd=cwd or Path("/"))


def problems(project: Path, *overrides: str, text: str = GOOD) -> str:
    with pytest.raises(UsageError) as caught:
        read(project, *overrides, text=text)
    return "\n".join([str(caught.value), *caught.value.details])


def test_relative_paths_are_relative_to_the_config(project: Path) -> None:
    settings = read(project)
    assert settings.model.id == str(project / "model")
    assert settings.task.train == (str(project / "data" / "train.tsv"),)


def test_a_directory_wins_over_a_hub_id_and_takes_none_of_its_neighbours(project: Path) -> None:
    (project / "org" / "here").mkdir(parents=True)
    assert read(project, "model.id=org/here").model.id == str(project / "org" / "here")
    assert read(project, "model.id=org/elsewhere").model.id == "org/elsewhere"


def test_a_path_given_by_set_is_relative_to_the_working_directory(project: Path) -> None:
    other = project / "elsewhere"
    other.mkdir()
    (other / "mine.tsv").write_text("text\tlabel\ngood\t1\nbad\t0\n")
    settings = read(project, "task.test=[mine.tsv]", cwd=other)
    assert settings.task.test == (str(other / "mine.tsv"),)


def test_a_learning_rate_without_a_dot_is_a_number(project: Path) -> None:
    assert read(project).train.learning_rate == 1e-4


def test_every_problem_is_told_at_once_with_its_line_and_path(project: Path) -> None:
    text = GOOD.replace("alpha: 16", "alpah: 16").replace("data/test.tsv", "data/tset.tsv")
    text = text.replace("ranks: [4, 2]", "ranks: [8, 2, 2]").replace("0.025", "-0.025")
    text = text.replace("seeds: [0, 1, 2]", "seeds: [0, 1, 1]").replace(
        "batch_size: 4", "epochs: 1"
    )
    told = problems(project, text=text)
    assert "line 8, $.lora.alpah: unknown key; did you mean 'alpha'?" in told
    assert "$.lora.alpha: missing" in told
    assert f"$.task.test[0]: there is no file 'data/tset.tsv' ({project}/data/tset.tsv)" in told
    assert f"did you mean {project}/data/test.tsv?" in told
    assert "$.train.batch_size: missing" in told
    assert "line 11, $.variants[0].ranks: 2 stands twice" in told
    assert "$.claim.margin: -0.025; give the loss that may not be exceeded" in told
    assert "$.seeds: 1 stands twice" in told
    assert "$.variants[0].ranks[0]: 8 is not below the probe's rank, 8" in told


def test_a_rank_that_is_not_below_the_probes_is_refused(project: Path) -> None:
    told = problems(project, "variants.0.ranks=[8, 4]")
    assert "$.variants[0].ranks[0]: 8 is not below the probe's rank, 8" in told


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs=1", "$.train.epochs: epochs 1 and steps 10; write one of epochs and steps"),
        ("train.steps=", "$.train.epochs: neither; write one of epochs and steps"),
        ("variants.0={action: heal, energies: [0.9, 1.5]}", "$.variants[0].energies[1]: 1.5 is no"),
        ("variants.0.energies=[0.9]", "$.variants[0].ranks: both ranks and energies"),
        ("variants.0.action=trunkate", "'trunkate' is not known; did you mean 'truncate'?"),
        ("variants.1.action=truncate", "'truncate' is the name of $.variants[0] too"),
        ("variants.0.heal_steps=3", "$.variants[0].heal_steps: 3: only `heal` trains on"),
        ("variants=[]", "$.variants: empty"),
        ("seeds=[0, 0]", "$.seeds: 0 stands twice"),
        ("seeds=[-1]", "$.seeds[0]: -1; write a number from 0"),
        ("claim.margin=2.5", "0.025 for 2.5 points"),
        ("claim.level=0.95", "$.claim.level: 0.95 is no error level"),
        ("task.name=clasification", "did you mean 'classification'?"),
        ("task.options.lable=x", "unknown key 'lable' for classification; did you mean 'label'?"),
        ("executor.name=slrum", "$.executor.name: 'slrum' is not known"),
        ("disk_budget=20 parsecs", "$.disk_budget: '20 parsecs' is not a size"),
        ("model.id=./modle", "did you mean"),
        ("model.id=data/no/modle", "there is no directory 'data/no/modle'"),
        ("model.id=./modle", "/modle), and it is no Hub id; did you mean"),
        ("model.id=package:no_such_thing/x", "'no_such_thing' is not installed"),
        (f"model.id={'m' * 300}", "and it is no Hub id"),
        ("model.revision=main", "only a model of the Hub has revisions"),
        ("train.precision=bf16", "'bf16' is none of its values; did you mean 'bfloat16'?"),
        ("lora.targets=(q_proj", "$.lora.targets: '(q_proj' is no regular expression: missing )"),
        ("lora.rank=eight", "$.lora.rank: 'eight': expected int, got str"),
        ("lora", "--set lora: write it as key.of.it=value"),
        ("variants.7.ranks=[1]", "there is no such place"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(
    project: Path, override: str, told: str
) -> None:
    assert told in problems(project, override)


def test_what_was_set_on_the_command_line_is_not_blamed_on_a_line_of_the_file(
    project: Path,
) -> None:
    told = problems(project, "variants.0.ranks=[8]", "train.stesp=5", "seeds")
    assert "bench.yaml --set variants.0.ranks=[8] --set train.stesp=5 --set seeds has" in told
    assert "line" not in told
    assert "line 15, $.rnak: unknown" in problems(project, "seeds=[1]", text=GOOD + "rnak: 1\n")


@pytest.mark.parametrize("override", ["seeds=0,1,2", "variants.0.ranks=4"])
def test_a_value_in_the_place_of_a_list_is_told_how_a_list_is_written(
    project: Path, override: str
) -> None:
    assert "is no list; write it in brackets" in problems(project, override)


def test_a_key_that_stands_twice_is_refused(project: Path) -> None:
    assert "line 15: $.seeds stands twice" in problems(project, text=GOOD + "seeds: [7]\n")


def test_a_config_that_is_no_yaml_names_the_place(project: Path) -> None:
    assert "is not YAML" in problems(project, text="lora: [1")


def test_a_missing_config_names_the_nearest(project: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(project / "bnech.yaml", home=project, cwd=project)
    assert str(project / "bench.yaml") in caught.value.remedy


def test_settings_written_as_a_config_mean_the_same(project: Path) -> None:
    settings = read(project)
    assert read(project, text=as_yaml(settings)) == settings


def test_a_smoke_run_keeps_everything_but_the_amount(project: Path) -> None:
    settings = read(project, "train.steps=", "train.epochs=3")
    small = smoke(settings)
    assert small.train.epochs is None
    assert small.train.steps is not None
    assert small.seeds == (0, 1)
    assert small.lora == settings.lora
    assert small.evaluation.limit == 32
    assert read(project, text=as_yaml(small)) == small  # itself a config that can be meant


def test_a_file_that_is_missing_brings_what_the_config_says_of_making_it(project: Path) -> None:
    text = f"# `python make.py` writes\n# the model.\n{GOOD.lstrip()}"
    for override, told in (("model.id=./none", True), ("lora.rank=0", False)):
        with pytest.raises(UsageError) as caught:
            read(project, override, text=text)
        assert ("begins with: `python make.py` writes the model." in caught.value.remedy) is told
