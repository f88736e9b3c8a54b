"""Trials of causal models: tiny random ones, which learn sums of two digits by heart at best."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft", reason="trials train: install gradience[bench]")

import torch
import transformers

from factories_bench import (
    NEUTRAL,
    make_spec,
    quiet_training,
    run_trial,
    save_causal,
    sums_task,
)
from gradience.bench.records import PROBE, Variant
from gradience.bench.settings import LoraSettings, TaskSettings, TrainSettings
from gradience.bench.tasks import TASKS
from gradience.bench.tasks.causal import prompt_ids
from gradience.bench.tasks.gsm8k import generate
from gradience.bench.tasks.task import Examinee
from gradience.bench.trial.host import Host
from gradience.bench.trial.training import collator

EVERYTHING = LoraSettings(rank=8, alpha=32.0, targets=".*(_proj|c_attn|embed_tokens|wte)")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_causal(tmp_path_factory.mktemp("base"), request.param)


def documents(path: Path, rows: int, *, step: int) -> str:
    """Texts that repeat a few words in one order."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            words = [NEUTRAL[(row + step * i) % len(NEUTRAL)] for i in range(30)]
            file.write(json.dumps({"text": " ".join(words)}) + "\n")
    return str(path)


def text_task(directory: Path) -> TaskSettings:
    return TaskSettings(
        name="perplexity",
        train=(documents(directory / "train.jsonl", 12, step=1),),
        test=(documents(directory / "test.jsonl", 5, step=1),),
        options={"words": 16},
    )


def examinee(host: Host, directory: Path, batch_size: int, limit: int | None = None) -> Examinee:
    return Examinee(
        model=host.put_on(directory),
        tokenizer=host.tokenizer,
        batch_size=batch_size,
        limit=limit,
        max_length=64,
        progress=lambda stage, done, total: None,
    )


def test_perplexity_falls_with_training_and_is_clustered_by_document(
    base: Path, tmp_path: Path
) -> None:
    task = text_task(tmp_path)
    train = TrainSettings(learning_rate=1e-2, batch_size=4, steps=20, max_length=64)
    result = run_trial(tmp_path / PROBE, make_spec(base, task, train=train, lora=EVERYTHING))
    assert result.metric == "negative log-likelihood per token"
    assert result.items.ids == tuple(f"{d}:{n}" for d in range(5) for n in range(2))
    assert result.items.clusters == tuple(str(d) for d in range(5) for _ in range(2))
    assert TASKS["perplexity"].test_items(task) == 10
    assert result.before is not None
    assert sum(result.items.scores) / 10 > result.before + 0.5
    variant = Variant(name="v", action="truncate", rank=2)
    cut = run_trial(
        tmp_path / "t",
        make_spec(base, task, variant, train=train, lora=EVERYTHING),
        tmp_path / PROBE,
    )
    assert set(cut.adapter.ranks.values()) == {2}
    assert cut.items.ids == result.items.ids


def test_a_score_of_text_is_the_models_own_loss(base: Path, tmp_path: Path) -> None:
    """Whatever the batch, and so whatever the padding."""
    spec = make_spec(base, text_task(tmp_path))
    with quiet_training():
        host = Host(spec)
        host.write_untrained(tmp_path / "step0")
        each = [
            TASKS["perplexity"].evaluate(spec.task, examinee(host, tmp_path / "step0", size))
            for size in (1, 3, 16)
        ]
        model = host.put_on(tmp_path / "step0")
        text = " ".join(NEUTRAL[i % len(NEUTRAL)] for i in range(16))
        ids = torch.tensor([host.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            loss = float(model(input_ids=ids, labels=ids).loss)
    assert each[0].scores[0] == pytest.approx(-loss, rel=1e-5)
    for other in each[1:]:
        assert other.scores == pytest.approx(each[0].scores, rel=1e-4)
        assert other.ids == each[0].ids


def test_sums_are_trained_generated_and_judged(tmp_path: Path) -> None:
    """The test questions are among the training questions: a model this small learns by heart."""
    base, task = save_causal(tmp_path / "base"), sums_task(tmp_path, train=80)
    train = TrainSettings(learning_rate=1e-2, batch_size=16, steps=100, max_length=64)
    result = run_trial(tmp_path / PROBE, make_spec(base, task, train=train, lora=EVERYTHING))
    assert result.metric == "exact_match"
    assert len(result.items.ids) == 12
    assert result.before == 0.0
    assert sum(result.items.scores) >= 10
    assert result.training is not None
    assert result.training.losses[-1] < result.training.losses[0] / 10


def test_generation_does_not_depend_on_the_batch(base: Path, tmp_path: Path) -> None:
    """Prompts of different length, padded on the left, each go on where they end."""
    task = sums_task(tmp_path, test=9, prompt="Question : {question} Answer :", shots=0)
    rows = [json.loads(x) for x in Path(task.test[0]).read_text(encoding="utf-8").splitlines()]
    for i, row in enumerate(rows):
        row["question"] = "the " * i + row["question"]
    Path(task.test[0]).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    with quiet_training():
        host = Host(make_spec(base, task))
        host.write_untrained(tmp_path / "step0")
        asked = examinee(host, tmp_path / "step0", 9)
        prompts = [prompt_ids(host.tokenizer, row["question"]) for row in rows]
        together = generate(asked, prompts, 8)
        alone = [generate(asked, [prompt], 8)[0] for prompt in prompts]
    assert len({len(prompt) for prompt in prompts}) == 9
    assert together == alone
    assert any(together)


def test_few_shot_examples_come_from_the_training_data(base: Path, tmp_path: Path) -> None:
    task = sums_task(tmp_path, shots=2, test=5)
    with quiet_training():
        host = Host(make_spec(base, task))
        host.write_untrained(tmp_path / "step0")
        items = TASKS["gsm8k"].evaluate(task, examinee(host, tmp_path / "step0", 4, limit=3))
    assert items.ids == ("0", "1", "2")


def test_batches_come_in_one_order_whatever_is_trained(tmp_path: Path) -> None:
    """Probe, heal and retrain of a seed see the same data in the same order.

    At a learning rate of nearly nothing the model stays the base, and so the loss of each step
    tells which examples were in it.
    """
    base, task = save_causal(tmp_path / "base"), sums_task(tmp_path)
    train = TrainSettings(learning_rate=1e-12, batch_size=3, steps=20, max_length=64)
    retrain = Variant(name="r", action="retrain", rank=2, alpha=4.0)
    heal = Variant(name="h", action="heal", rank=2, steps=8, learning_rate=1e-12)

    def losses(name: str, variant: Variant | None, seed: int, *needs: Path) -> tuple[float, ...]:
        spec = make_spec(base, task, variant, seed=seed, train=train)
        training = run_trial(tmp_path / name, spec, *needs).training
        assert training is not None
        return training.losses

    probe = losses(PROBE, None, 3)
    assert losses("retrain", retrain, 3, tmp_path / PROBE) == pytest.approx(probe, rel=1e-5)
    assert losses("heal", heal, 3, tmp_path / PROBE) == pytest.approx(probe[:8], rel=1e-5)
    assert len(set(probe)) > 10
    assert losses("other", None, 4) != pytest.approx(probe, rel=1e-2)


def test_labels_of_tokens_reach_the_model_as_they_are(tmp_path: Path) -> None:
    """A collator that rewrote them from the input once trained on the prompt."""
    with quiet_training():
        tokenizer = transformers.AutoTokenizer.from_pretrained(save_causal(tmp_path))
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
    eos = tokenizer.eos_token_id
    rows = [
        {"input_ids": [4, 9, 8, eos], "labels": [-100, -100, 8, eos]},
        {"input_ids": [4, 7], "labels": [-100, 7]},
    ]
    batch = collator("causal_lm", tokenizer)(rows)
    assert batch["labels"].tolist() == [[-100, -100, 8, eos], [-100, 7, -100, -100]]
    assert batch["input_ids"].tolist() == [[4, 9, 8, eos], [4, 7, eos, eos]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_the_loss_is_that_of_the_completions_alone(tmp_path: Path) -> None:
    """The first step's loss, held against the model's own on the unmasked tokens."""
    base, task = save_causal(tmp_path / "base"), sums_task(tmp_path, train=3)
    train = TrainSettings(learning_rate=1e-12, batch_size=3, steps=1, max_length=64)
    spec = make_spec(base, task, train=train)
    result = run_trial(tmp_path / PROBE, spec)
    with quiet_training():
        host = Host(spec)
        model = host.put_on(tmp_path / PROBE / "step0")
    examples = TASKS["gsm8k"].training(task, host.tokenizer, 64)
    total, learned = 0.0, 0
    for example in examples:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([example["input_ids"]])).logits[0, :-1].double()
        chances = logits.log_softmax(dim=-1)
        for position, label in enumerate(example["labels"][1:]):
            if label != -100:
                total -= float(chances[position, label])
                learned += 1
    assert result.training is not None
    assert result.training.losses[0] == pytest.approx(total / learned, rel=1e-4)


@pytest.mark.slow
def test_a_task_of_the_harness_scores_each_document_of_each_adapter(tmp_path: Path) -> None:
    """Offline, with a task file of its own; in a process of its own, for the caches' sake."""
    pytest.importorskip("lm_eval")
    base = save_causal(tmp_path / "base")
    script = Path(__file__).with_name("lm_eval_trials.py")
    done = subprocess.run(
        [sys.executable, str(script), str(base), str(tmp_path)],
        env={
            **os.environ,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["problems"] == []
    assert "no metric 'accc'" in said["typo"][0]
    assert said["items"] == 12
    assert "include/tiny.yaml" in said["files"]
    probe, resave, random = (said[name] for name in (PROBE, "resave", "random"))
    assert probe["ids"] == [str(i) for i in range(12)]
    assert resave == probe
    assert probe["before"] < 0.9
    assert math.fsum(probe["scores"]) == 12
    assert math.fsum(random["scores"]) < 12  # a shared answer cache would give the probe's
