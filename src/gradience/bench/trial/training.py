"""Train the adapter of one directory into another, with transformers' Trainer.

What determines the result is in the spec: the seed sets the order of the data and the dropout, the
same for every training of that seed; the optimizer is new each time. The Trainer writes no
checkpoint: a trial that is killed starts again.
"""

import math
import time
from pathlib import Path
from typing import Any

import transformers

from gradience.bench.actions.action import Attempt
from gradience.bench.records import Training
from gradience.bench.settings import TrainSettings
from gradience.bench.tasks.task import IGNORED, ModelKind, ProgressReport
from gradience.bench.trial.curve import still_falling, stretches
from gradience.bench.trial.host import Host
from gradience.errors import TrialError, UsageError

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def train(
    attempt: Attempt,
    start: Path,
    *,
    alpha: float,
    learning_rate: float | None = None,
    steps: int | None = None,
) -> Training:
    """Train on from the adapter in `start` and write what comes of it as the attempt's adapter.

    Parameters
    ----------
    attempt : Attempt
    start : Path
        A PEFT directory.
    alpha : float
        For the record: that of the adapter, of its largest rank.
    learning_rate, steps : optional
        In place of the settings'.

    Raises
    ------
    UsageError
        If the precision does not fit the device or the base.
    TrialError
        If the loss is no number.
    """
    host, spec = attempt.host, attempt.trial.spec
    settings = spec.train
    rate = settings.learning_rate if learning_rate is None else learning_rate
    _check_precision(host)
    examples = host.task.training(spec.task, host.tokenizer, settings.max_length)
    model = host.put_on(start, trainable=True)
    total = steps or settings.steps or _steps(settings, len(examples))
    watch = _Watch(total, attempt.progress)
    trainer = transformers.Trainer(
        model=model,
        args=_arguments(host, work=attempt.paths.work, steps=total, learning_rate=rate),
        train_dataset=examples,
        data_collator=collator(host.task.model, host.tokenizer),
        callbacks=[watch],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    watch.refuse_bad()
    host.save(attempt.paths.adapter)
    curve = stretches(watch.losses)
    return Training(
        steps=total,
        seconds=seconds,
        losses=curve,
        still_falling=still_falling(curve),
        learning_rate=rate,
        alpha=alpha,
    )


class _Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Notes the loss of every step, and tells how far it is."""

    def __init__(self, total: int, progress: ProgressReport) -> None:
        self.losses: list[float] = []
        self._total = total
        self._progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Called by the Trainer after each step, since `logging_steps` is 1."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Called by the Trainer after each optimizer step."""
        self._progress("train", state.global_step, self._total)

    def refuse_bad(self) -> None:
        """Say so where a loss was no finite number, with the first such step."""
        for step, loss in enumerate(self.losses, start=1):
            if not math.isfinite(loss):
                raise TrialError(
                    f"the training loss is no number from step {step} on",
                    remedy="Lower `train.learning_rate`, or train in bfloat16 or float32.",
                )


def _arguments(host: Host, *, work: Path, steps: int, learning_rate: float) -> Any:
    settings, seed = host.spec.train, host.spec.seed
    cpu = host.device.type == "cpu"
    return transformers.TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=steps,
        learning_rate=learning_rate,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        warmup_steps=round(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        seed=seed,
        data_seed=seed,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        # The collator decides what the model gets.
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
    )


def _steps(settings: TrainSettings, examples: int) -> int:
    """Optimizer steps of so many epochs, the last batch of each included."""
    batches = -(-examples // settings.batch_size)
    per_epoch = -(-batches // settings.gradient_accumulation)
    return max(1, round((settings.epochs or 1.0) * per_epoch))


def collator(kind: ModelKind, tokenizer: Any) -> Any:
    """Pads on the right; labels of tokens are padded with what is not learned, never rewritten."""
    if kind == "sequence_classification":
        return transformers.DataCollatorWithPadding(tokenizer)
    return transformers.DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED)


def _check_precision(host: Host) -> None:
    precision, dtype = host.spec.train.precision, host.spec.model.dtype
    if precision == "float16" and host.device.type == "cpu":
        raise UsageError(
            "train.precision is float16, which trains on a GPU only",
            remedy="Use bfloat16 or float32 on a CPU.",
        )
    if precision == "float32" and dtype != "float32" and host.heads:
        raise UsageError(
            f"train.precision is float32 and model.dtype is {dtype}: the head of "
            f"{host.spec.task.name} cannot compute in both",
            remedy="Set train.precision to bfloat16, or model.dtype to float32.",
        )
