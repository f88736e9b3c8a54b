"""A configuration is read in the forms that people have it."""

import json
import pickle

import pytest

from factories_runs import make_start, write_log
from gradience.check.read import read_setup
from gradience.errors import AdapterConfigError, UsageError

ADAPTER = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
TRAINING = {"learning_rate": 1e-4, "output_dir": "out"}

BENCH = """
name: x
model: {id: google/mt5-small}
lora: {rank: 32, alpha: 64, targets: [q, v], dropout: 0.1}
train: {learning_rate: 3e-4, batch_size: 16, steps: 100, precision: float16}
"""
TRL = """
model_name_or_path: org/base
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules: all-linear
learning_rate: 1e-4
"""


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_adapter_and_its_arguments_are_judged_together(tmp_path):
    write(tmp_path / "adapter_config.json", ADAPTER)
    write(tmp_path / "training_args.json", TRAINING)
    for paths in ([tmp_path], sorted(tmp_path.iterdir())):
        found = read_setup(paths)
        assert found.adapter.r == 8
        assert found.number("learning_rate") == 1e-4


def test_a_bench_config_is_read(tmp_path):
    found = read_setup([write(tmp_path / "bench.yaml", BENCH)])
    assert (found.adapter.r, found.adapter.alpha) == (32, 64)
    assert found.adapter.base_model == "google/mt5-small"
    assert found.adapter.raw["lora_dropout"] == 0.1
    assert found.number("learning_rate") == 3e-4
    assert found.number("per_device_train_batch_size") == 16
    assert found.training["fp16"] is True


def test_a_trl_config_is_read(tmp_path):
    found = read_setup([write(tmp_path / "sft.yaml", TRL)])
    assert (found.adapter.r, found.adapter.target_modules) == (32, "all-linear")
    assert found.number("learning_rate") == 1e-4, "which YAML 1.1 would read as a text"


def test_the_config_in_the_log_of_a_run_is_read(tmp_path):
    config = {"adapter": ADAPTER, "training": TRAINING}
    write_log(tmp_path / "run.jsonl", make_start(config=config))
    assert read_setup([tmp_path]).adapter.alpha == 16


def test_what_is_no_configuration_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match="no configuration that is known"):
        read_setup([write(tmp_path / "x.json", {"a": 1})])
    with pytest.raises(UsageError, match="is not JSON"):
        read_setup([write(tmp_path / "x.json", "{")])
    with pytest.raises(UsageError, match="twice"):
        read_setup([write(tmp_path / "x.yaml", "lora_r: 1\nlora_r: 2\n")])
    with pytest.raises(UsageError, match="holds none of"):
        read_setup([tmp_path])
    (tmp_path / "training_args.bin").write_bytes(pickle.dumps({"learning_rate": 1.0}))
    with pytest.raises(UsageError, match="never opened"):
        read_setup([tmp_path / "training_args.bin"])
    with pytest.raises(AdapterConfigError, match="`r` is -1"):
        read_setup([write(tmp_path / "x.json", {**ADAPTER, "r": -1})])
