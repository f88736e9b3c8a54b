"""What `GradienceCallback` costs a run: its share of a step, a line of its log, the disk watcher.

    python benchmarks/guard_overhead.py            # MiniLM with LoRA, batches of 8 x 128 tokens
    python benchmarks/guard_overhead.py --tokens 32 --steps 60

All in CPU seconds within one run, so that a busy machine slows both sides alike.
"""

import argparse
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from gradience.storage.guard.watcher import EVERY_SECONDS
from gradience.storage.watch.run import Watch
from gradience.vnext.integrations.hf import GradienceCallback
from survival_run import CLASSES, VOCABULARY, make_model

_MOST = 0.005  # the promise


class Timed(GradienceCallback):
    """Counts the CPU seconds of its own events, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[float] = []
        self.lines: list[float] = []

    def on_log(self, *words: Any, **more: Any) -> None:
        """Count it, for itself."""
        begun = time.thread_time()
        super().on_log(*words, **more)
        self.lines.append(time.thread_time() - begun)

    def on_pre_optimizer_step(self, *words: Any, **more: Any) -> None:
        """Count it."""
        begun = time.thread_time()
        super().on_pre_optimizer_step(*words, **more)
        self.spent.append(time.thread_time() - begun)

    def on_step_end(self, *words: Any, **more: Any) -> None:
        """Count it, in the same step."""
        begun = time.thread_time()
        super().on_step_end(*words, **more)
        self.spent[-1] += time.thread_time() - begun


class Steps(TrainerCallback):
    """Counts the CPU seconds of whole steps."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Mark the beginning."""
        self.marks.append(time.process_time())

    @property
    def spent(self) -> list[float]:
        """From one beginning to the next."""
        return [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]


def train(out: Path, arguments: argparse.Namespace, callbacks: list[TrainerCallback]) -> None:
    """A run that saves once, at its end."""
    set_seed(0)
    words = torch.randint(10, VOCABULARY, (256, arguments.tokens))
    data = [{"input_ids": row, "labels": int(row[0]) % CLASSES} for row in words]
    Trainer(
        model=make_model(arguments.model, adapter=not arguments.full),
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=arguments.steps,
            per_device_train_batch_size=8,
            save_steps=arguments.steps,
            logging_steps=1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=data,
        callbacks=callbacks,
    ).train()


def tick_seconds(place: Path, count: int = 20) -> float:
    """CPU seconds of one look of the watcher."""
    watch = Watch({"run": place}, environ=os.environ, home=Path.home(), clock=time.monotonic)
    watch.tick(now=datetime.now(UTC), patience=None)
    begun = time.process_time()
    for _ in range(count):
        watch.tick(now=datetime.now(UTC), patience=None)
    return (time.process_time() - begun) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--model", default="minilm", choices=["tiny", "minilm"])
    parser.add_argument("--full", action="store_true", help="train all weights, not an adapter")
    arguments = parser.parse_args()
    timed, steps = Timed(), Steps()
    with tempfile.TemporaryDirectory() as name:
        train(Path(name) / "out", arguments, [timed, steps])
        tick = tick_seconds(Path(name))
    step = statistics.median(steps.spent)
    own = statistics.median(timed.spent)
    print(f"step                {step * 1e3:9.2f} ms")
    print(f"callback            {own * 1e3:9.3f} ms  {own / step:.4%} of a step")
    line = statistics.median(timed.lines)
    print(f"telemetry, a line   {line * 1e3:9.3f} ms  {line / step:.4%} of a step")
    share = tick / EVERY_SECONDS
    print(f"watcher, one look   {tick * 1e3:9.3f} ms  {share:.4%} of {EVERY_SECONDS:g} s")
    print(f"together            {'':12}  {(own + line) / step + share:.4%}")
    shortest = (own + line) / (_MOST - share)
    print(f"{_MOST:.1%} of a step      {shortest * 1e3:9.0f} ms would be that step")


if __name__ == "__main__":
    main()
