"""What `gradience check` objects to, and that it leaves sane configurations alone."""

import json

import pytest

from gradience.adapter.config import parse_config
from gradience.check.finding_kinds import CHECK, SOURCES
from gradience.check.judge import judge
from gradience.check.names import SIGNS
from gradience.check.records import Setup
from gradience.findings import Severity

MLP = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PLAIN = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": MLP}
TRAIN = {
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 8,
    "max_steps": 1000,
    "save_strategy": "steps",
    "save_steps": 100,
    "save_total_limit": 2,
    "bf16": True,
}

# Settings that papers, the PEFT and TRL documentation and widely used recipes train with.
SANE = {
    "peft quicktour": ({"r": 8, "lora_alpha": 32, "lora_dropout": 0.1}, {"learning_rate": 1e-3}),
    "peft default targets": ({"r": 8, "target_modules": ["q_proj", "v_proj"]}, TRAIN),
    "qlora 7b": ({**PLAIN, "r": 64, "lora_alpha": 16, "lora_dropout": 0.1}, TRAIN),
    "qlora 65b": (
        {**PLAIN, "r": 64, "lora_alpha": 16},
        {**TRAIN, "learning_rate": 1e-4, "optim": "paged_adamw_32bit", "max_steps": 1875}
        | {"save_steps": 250},
    ),
    "without regret r=4": ({**PLAIN, "r": 4, "lora_alpha": 32, "lora_dropout": 0.0}, TRAIN),
    "without regret r=512": ({**PLAIN, "r": 512, "lora_alpha": 32}, TRAIN),
    "peft comparison rslora": ({**PLAIN, "r": 64, "lora_alpha": 64, "use_rslora": True}, TRAIN),
    "trl sft": ({"r": 32, "lora_alpha": 16, "target_modules": "all-linear"}, TRAIN),
    "trl dpo": (PLAIN, {**TRAIN, "learning_rate": 5e-6, "beta": 0.1}),
    "trl grpo": (PLAIN, {**TRAIN, "learning_rate": 1e-6, "num_generations": 8, "beta": 0.0}),
    "bert classification": (
        {"r": 8, "lora_alpha": 16, "target_modules": ["query", "value"]}
        | {"modules_to_save": ["classifier"]},
        {"learning_rate": 5e-4, "num_train_epochs": 3, "save_strategy": "epoch"},
    ),
    "new tokens": ({**PLAIN, "modules_to_save": ["embed_tokens", "lm_head"]}, TRAIN),
    "pissa": ({**PLAIN, "lora_alpha": 16, "init_lora_weights": "pissa_niter_4"}, TRAIN),
    "dora": ({**PLAIN, "use_dora": True}, TRAIN),
    "patterns that agree": (
        {**PLAIN, "rank_pattern": {"down_proj": 64}, "alpha_pattern": {"down_proj": 128}},
        TRAIN,
    ),
    "fp16 on llama": (
        {**PLAIN, "base_model_name_or_path": "meta-llama/Llama-2-7b-hf"},
        {**TRAIN, "bf16": False, "fp16": True},
    ),
    "sgd": (PLAIN, {**TRAIN, "learning_rate": 0.1, "optim": "sgd"}),
    "a smoke test": (PLAIN, {**TRAIN, "max_steps": 10, "save_strategy": "no"}),
    "defaults of TrainingArguments": (PLAIN, {"learning_rate": 5e-5, "save_steps": 500}),
}


def setup(adapter, training):
    config = None if adapter is None else parse_config({"peft_type": "LORA", **adapter}, "test")
    return Setup(adapter=config, training=training)


def codes(adapter, training):
    return [f.code for f in judge(setup(adapter, training))]


@pytest.mark.parametrize("name", list(SANE))
def test_a_sane_configuration_raises_no_alarm(name):
    found = judge(setup(*SANE[name]))
    assert [f.code for f in found if f.severity != Severity.INFO] == []
    assert len(found) <= 1, "and few words"


@pytest.mark.parametrize(
    ("adapter", "training", "code"),
    [
        ({**PLAIN, "lora_alpha": 0}, {}, "scale_zero"),
        ({**PLAIN, "alpha_pattern": {"q_proj": 0}}, {}, "scale_zero"),
        ({**PLAIN, "r": 128, "lora_alpha": 256, "use_rslora": True}, {}, "scale_large"),
        ({**PLAIN, "r": 64, "lora_alpha": None}, {}, "alpha_left_at_default"),
        ({**PLAIN, "r": 64, "lora_alpha": 16}, {}, "high_rank_without_rslora"),
        ({**PLAIN, "rank_pattern": {"down_proj": 128}}, {}, "scales_differ"),
        ({**PLAIN, "init_lora_weights": False}, {}, "random_start"),
        ({**PLAIN, "lora_dropout": 0.5}, {}, "dropout_high"),
        ({**PLAIN, "target_modules": ["q_proj", "v_proj"]}, {}, "attention_only"),
        ({**PLAIN, "modules_to_save": ["lm_head"]}, {}, "embedding_saved"),
        ({**PLAIN, "use_rslora": True}, {}, "not_served_as_trained"),
        ({**PLAIN, "use_dora": True}, {}, "not_served_as_trained"),
        (PLAIN, {**TRAIN, "learning_rate": 0.0}, "learning_rate_zero"),
        (PLAIN, {**TRAIN, "learning_rate": 2e-5}, "learning_rate_of_full_finetuning"),
        (PLAIN, {**TRAIN, "learning_rate": 1e-5}, "learning_rate_of_full_finetuning"),
        (PLAIN, {**TRAIN, "learning_rate": 0.01}, "learning_rate_high"),
        (PLAIN, {**TRAIN, "per_device_train_batch_size": 64}, "batch_large"),
        (
            {**PLAIN, "base_model_name_or_path": "google/gemma-3-4b-it"},
            {**TRAIN, "bf16": False, "fp16": True},
            "fp16_overflows",
        ),
        (
            {**PLAIN, "base_model_name_or_path": "google/mt5-small"},
            {"fp16": True},
            "fp16_overflows",
        ),
        (PLAIN, {**TRAIN, "fp16": True, "bf16": True}, "two_precisions"),
        (PLAIN, {"learning_rate": 1e-4, "save_strategy": "no"}, "never_saves"),
        (PLAIN, {**TRAIN, "save_total_limit": None, "save_steps": 10}, "keeps_every_checkpoint"),
        (PLAIN, {**TRAIN, "save_only_model": True}, "cannot_resume"),
    ],
)
def test_a_mistake_is_found_by_its_code(adapter, training, code):
    found = judge(setup(adapter, training))
    assert code in [f.code for f in found]
    assert [f.code for f in found if f.code != code and f.severity != Severity.INFO] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", "fast"),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", -1e-4),
        ("learning_rate", 10**400),
        ("learning_rate", [1e-4]),
        ("learning_rate", True),
        ("max_steps", "many"),
        ("max_steps", 10.5),
        ("save_steps", -5),
        ("save_steps", 10.5),
        ("logging_steps", "often"),
        ("num_train_epochs", float("nan")),
        ("gradient_accumulation_steps", 0),
        ("per_device_train_batch_size", -1),
        ("adam_beta1", 1.5),
        ("warmup_ratio", 3),
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_key_and_value(key, value):
    (found,) = [f for f in judge(Setup(training={key: value})) if f.code == "value_impossible"]
    assert found.severity == Severity.ERROR
    assert found.message.startswith(f"{key} is {value!r}"[:40])
    assert len(found.message) < 160


@pytest.mark.parametrize(
    "training",
    [
        {"max_steps": -1, "num_train_epochs": 0.5},
        {"save_steps": 0.1, "logging_steps": 0.05, "eval_steps": 0.1, "eval_strategy": "steps"},
        {"save_strategy": "epoch", "save_steps": -1, "eval_steps": -1},
        {"save_total_limit": 0, "max_grad_norm": 0.0, "warmup_steps": 0.1, "weight_decay": 0},
        {"save_steps": 1, "logging_steps": 10.0, "max_grad_norm": float("inf")},
        {"learning_rate": 0, "adam_beta1": 0.0, "label_smoothing_factor": 0.1, "eval_steps": None},
    ],
)
def test_a_value_that_training_arguments_take_can_be(training, tmp_path):
    assert "value_impossible" not in codes(None, training)
    transformers = pytest.importorskip("transformers")
    transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **training)


def test_what_another_program_fills_in_or_converts_can_be():
    deepspeed = {"gradient_accumulation_steps": "auto", "learning_rate": "auto"}
    of_trl = {"learning_rate": "1e-4", "max_steps": "100"}  # argparse converts a default text
    for training in (deepspeed, of_trl):
        assert codes(None, training) == []


def test_a_rule_is_silent_about_what_was_not_given():
    assert judge(Setup()) == ()
    assert codes(None, {"learning_rate": 1e-6}) == [], "without an adapter it may be a full one"


def test_every_kind_says_what_it_means_what_helps_and_where_it_is_from():
    assert CHECK.keys() == SOURCES.keys()
    for kind in CHECK.values():
        assert kind.meaning.endswith(".")
        assert kind.remedy.endswith(".")
        assert SOURCES[kind.code]


def test_what_peft_and_transformers_write_by_default_raises_no_alarm():
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    lora = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear").to_dict()
    plain = json.loads(json.dumps(lora, default=lambda v: sorted(v) if isinstance(v, set) else v))
    arguments = json.loads(transformers.TrainingArguments(use_cpu=True).to_json_string())
    assert codes(plain, arguments) == []


def test_a_best_model_that_a_trainer_refuses_is_found_and_no_other(tmp_path):
    transformers = pytest.importorskip("transformers")
    for given in (
        {},
        {"eval_strategy": "steps"},
        {"eval_strategy": "epoch"},
        {"eval_strategy": "epoch", "save_strategy": "epoch"},
        {"eval_strategy": "steps", "save_strategy": "best"},
        {"eval_strategy": "steps", "eval_steps": 100, "save_steps": 250},
        {"eval_strategy": "steps", "eval_steps": 100, "save_steps": 300},
        {"eval_strategy": "steps", "logging_steps": 7},
        {"eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 0.3},
        {"eval_strategy": "steps", "eval_steps": 0.2, "save_steps": 0.3},
        {"eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 100},
    ):
        training = {"load_best_model_at_end": True, **given}
        try:
            transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **training)
            refused = False
        except ValueError:
            refused = True
        assert ("best_not_saved" in codes(None, training)) == refused, given


@pytest.mark.parametrize(
    "odd",
    [float("nan"), float("inf"), 10**309, True, "many"],
    ids=["nan", "inf", "huge", "true", "text"],
)
def test_no_value_of_a_training_argument_ends_in_a_traceback(odd):
    adapter = parse_config({"peft_type": "LORA", **PLAIN}, "x")
    for name in SIGNS:
        judge(Setup(adapter=adapter, training={**TRAIN, name: odd}))
