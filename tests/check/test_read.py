"""A configuration is read in the forms that people have it."""

import dataclasses
import json
import pickle

import pytest

from factories_runs import make_start, write_log
from gradience.adapter.config import LORA_KEYS
from gradience.check.judge import judge
from gradience.check.names import TRAINING as TRAINING_NAMES
from gradience.check.names import TRL as TRL_NAMES
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


@pytest.mark.parametrize(
    "key", ["gradient_accumulation_steps", "save_total_limit", "eval_strategy", "fp16", "optim"]
)
def test_any_key_of_a_training_alone_makes_one(tmp_path, key):
    assert read_setup([write(tmp_path / "x.json", {key: True})]).training == {key: True}


def test_adapter_and_training_in_one_flat_file_are_both_read(tmp_path):
    found = read_setup([write(tmp_path / "x.json", {**ADAPTER, **TRAINING})])
    assert found.adapter.r == 8
    assert found.number("learning_rate") == 1e-4


SLIPS = {
    "adapter": ({"r": 8, "lora_alhpa": 32, "target_modules": ["q"]}, {"lora_alhpa": "lora_alpha"}),
    "training": ({"learing_rate": 1, "max_steps": 9}, {"learing_rate": "learning_rate"}),
    "TRL": ({"lora_r": 8, "packin": True, "mine": 1}, {"packin": "packing", "mine": ""}),
    "bench": (
        {"lora": {"rank": 8, "alpah": 16}, "train": {"batchsize": 2, "warmup": 0.1}},
        {"batchsize": "batch_size", "alpah": "alpha"},
    ),
    "LLaMA-Factory": ({"lora_rank": 8, "lora_target": "all"}, {"lora_target": ""}),
    "another method": ({"peft_type": "LOHA", "r": 8, "alpha": 8, "rank_dropout": 0.0}, {}),
}


@pytest.mark.parametrize("form", SLIPS)
def test_keys_that_nobody_reads_are_known_and_what_was_meant(tmp_path, form):
    content, unread = SLIPS[form]
    assert read_setup([write(tmp_path / "x.json", content)]).ignored == unread


def test_a_slip_that_makes_a_configuration_unknown_is_named(tmp_path):
    with pytest.raises(UsageError, match="was learning_rate for learing_rate meant"):
        read_setup([write(tmp_path / "x.json", {"learing_rate": 1e-4})])


def test_the_tables_hold_every_name_of_the_installed_libraries():
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    trl = pytest.importorskip("trl")
    of = {
        transformers.TrainingArguments: TRAINING_NAMES,
        peft.LoraConfig: LORA_KEYS,
        trl.SFTConfig: TRAINING_NAMES | TRL_NAMES,
        trl.DPOConfig: TRAINING_NAMES | TRL_NAMES,
        trl.KTOConfig: TRAINING_NAMES | TRL_NAMES,
        trl.GRPOConfig: TRAINING_NAMES | TRL_NAMES,
        trl.RLOOConfig: TRAINING_NAMES | TRL_NAMES,
        trl.RewardConfig: TRAINING_NAMES | TRL_NAMES,
        trl.ModelConfig: TRL_NAMES,
        trl.ScriptArguments: TRL_NAMES,
    }
    for kind, known in of.items():
        names = {field.name for field in dataclasses.fields(kind) if field.init}
        assert names <= known, f"{kind.__name__} has new names"


def test_what_the_libraries_write_has_no_slips(tmp_path):
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    peft.LoraConfig(r=8, target_modules=["q_proj"], peft_type="LORA").save_pretrained(tmp_path)
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    (tmp_path / "training_args.json").write_text(arguments.to_json_string())
    found = read_setup([tmp_path])
    assert found.ignored == {}
    assert found.training["save_steps"] == 500


def test_a_key_that_is_no_text_is_ignored_by_its_name(tmp_path):
    path = write(tmp_path / "x.yaml", "5: a\non: b\ntrain: {learning_rate: 1e-4, 2: c}\n")
    assert read_setup([path]).ignored == {"2": ""}
    flat = write(tmp_path / "y.yaml", "3: a\non: b\nlora_r: 8\n")
    assert read_setup([flat]).ignored == {"3": "", "True": ""}


def test_a_value_that_cannot_be_is_named_by_the_key_that_the_user_wrote(tmp_path):
    flat = write(tmp_path / "x.json", {"lora_r": "x", "learning_rate": 1e-4})
    with pytest.raises(AdapterConfigError, match="`lora_r` is 'x'") as refused:
        read_setup([flat])
    assert "save_pretrained" not in refused.value.remedy, "nothing was saved yet"
    bench = write(tmp_path / "bench.yaml", BENCH.replace("batch_size: 16", "batch_size: none"))
    (finding,) = [f for f in judge(read_setup([bench])) if f.code == "value_impossible"]
    assert finding.message.startswith("batch_size is 'none'")


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
