"""Tiny base models with real tokenizers, data files, and trials on them."""

import json
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from gradience import artifacts
from gradience.bench.records import PROBE, TRIAL_SCHEMA, Trial, TrialResult, TrialSpec, Variant
from gradience.bench.settings import (
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    TaskSettings,
    TrainSettings,
)

GOOD = ("fine", "bright", "warm", "lovely", "clever", "fresh")
BAD = ("dull", "cold", "stale", "clumsy", "grim", "flat")
NEUTRAL = ("film", "story", "plot", "scene", "the", "a", "with", "and", "an", "ending")
DIGITS = tuple("0123456789")
SIGNS = ("####", ".", ",", ":", "?", "+", "=", "Question", "Answer", "What", "is", "$", "-")
WORDS = (*GOOD, *BAD, *NEUTRAL, *DIGITS, *SIGNS)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # random features that differ enough to learn from
}


@contextmanager
def quiet_training() -> Iterator[None]:
    """Libraries that train warn of what is not under test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tokenizer(*, bert: bool) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    if bert:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
    return tokenizer


def save_bert(directory: Path) -> Path:
    """A random BERT encoder of two layers, without a head, and its tokenizer."""
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(SPECIAL) + len(WORDS), **SIZES)
    with quiet_training():
        transformers.BertModel(config).save_pretrained(directory)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=_tokenizer(bert=True),
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        ).save_pretrained(directory)
    return directory


def save_causal(directory: Path, kind: str = "llama") -> Path:
    """A random causal model of two layers, and its tokenizer without a padding token."""
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 5}
    vocabulary = len(SPECIAL) + len(WORDS)
    config: Any
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128, **ids
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=vocabulary, num_key_value_heads=2, **SIZES, **ids
        )
    with quiet_training():
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=_tokenizer(bert=False),
            unk_token="[UNK]",
            bos_token="<s>",
            eos_token="</s>",
        ).save_pretrained(directory)
    return directory


def write_reviews(path: Path, rows: int, *, seed: int) -> Path:
    """`text<TAB>label` lines: a review is good if it has more good words than bad ones."""
    rng = random.Random(seed)
    lines = []
    for _ in range(rows):
        label = rng.randrange(2)
        words = [*rng.choices((BAD, GOOD)[label], k=3), *rng.choices((GOOD, BAD)[label], k=1)]
        words += rng.choices(NEUTRAL, k=rng.randrange(2, 8))
        rng.shuffle(words)
        lines.append(f"{' '.join(words)}\t{label}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_sums(path: Path, rows: int, *, seed: int) -> Path:
    """Sums of two digits in GSM8K's form."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            a, b = rng.randrange(3), rng.randrange(3)
            row = {
                "question": f"What is {a} + {b} ?",
                "answer": f"{a} + {b} = {a + b} #### {a + b}",
            }
            file.write(json.dumps(row) + "\n")
    return path


def review_task(directory: Path, *, train: int = 64, test: int = 40) -> TaskSettings:
    return TaskSettings(
        name="classification",
        train=(str(write_reviews(directory / "train.tsv", train, seed=1)),),
        test=(str(write_reviews(directory / "test.tsv", test, seed=2)),),
        options={"columns": ["text", "label"]},
    )


def sums_task(directory: Path, *, train: int = 32, test: int = 12, **options: Any) -> TaskSettings:
    return TaskSettings(
        name="gsm8k",
        train=(str(write_sums(directory / "train.jsonl", train, seed=1)),),
        test=(str(write_sums(directory / "test.jsonl", test, seed=2)),),
        options={"max_new_tokens": 12, **options},
    )


def make_spec(
    base: Path, task: TaskSettings, variant: Variant | None = None, **changes: Any
) -> TrialSpec:
    """A trial of seconds: rank 4 on all attention projections, 12 steps."""
    defaults: Mapping[str, Any] = {
        "model": ModelSettings(id=str(base)),
        "lora": LoraSettings(rank=4, alpha=8.0, targets=".*(query|value|q_proj|v_proj|c_attn)"),
        "train": TrainSettings(learning_rate=5e-3, batch_size=8, steps=12, max_length=64),
        "evaluation": EvaluationSettings(batch_size=16),
        "seed": 0,
    }
    return TrialSpec(
        task=task,
        variant=variant or Variant(name=PROBE, action=PROBE),
        base="",
        data={},
        versions={},
        code="",
        device="cpu",
        **{**defaults, **changes},
    )


def write_trial(directory: Path, spec: TrialSpec) -> Path:
    trial = Trial(id=directory.name, spec=spec)
    directory.mkdir(parents=True)
    data = artifacts.encode(TRIAL_SCHEMA, trial, now=datetime.now(UTC))
    (directory / "trial.json").write_bytes(data)
    return directory


def run_trial(directory: Path, spec: TrialSpec, *needs: Path) -> TrialResult:
    """One trial in this process."""
    from gradience.bench.trial.run import run  # noqa: PLC0415 - heavy, and not every test runs one

    with quiet_training():
        return run(write_trial(directory, spec), needs)
