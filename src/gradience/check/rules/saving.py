"""What is saved, how often, and how much of it stays."""

import math
from collections.abc import Iterator

from gradience.check.finding_kinds import (
    BEST_NOT_SAVED,
    CANNOT_RESUME,
    KEEPS_EVERY_CHECKPOINT,
    NEVER_SAVES,
)
from gradience.check.records import Setup
from gradience.findings import Finding

_MANY = 20
_SHORT_STEPS = 500
_DEFAULT_STEPS = 500.0  # of save_steps and logging_steps, in TrainingArguments
_FINE = 1_000_000  # as transformers compares shares of a run: without rounding


def saving(setup: Setup) -> Iterator[Finding]:
    """Findings about the save policy."""
    training = setup.training
    strategy = str(training.get("save_strategy", ""))
    steps = setup.number("max_steps") or 0
    yield from _best(setup)
    if strategy == "no":
        if not 0 < steps <= _SHORT_STEPS:
            yield NEVER_SAVES.found('save_strategy is "no"')
        return
    saves = _saves(setup, strategy, steps)
    if saves > _MANY and not setup.number("save_total_limit"):
        yield KEEPS_EVERY_CHECKPOINT.found(f"{saves} checkpoints, and no save_total_limit")
    if training.get("save_only_model") is True:
        yield CANNOT_RESUME.found("save_only_model is true")


def _best(setup: Setup) -> Iterator[Finding]:
    """What a Trainer refuses: the best model may be one that was not saved."""
    training = setup.training
    save = str(training.get("save_strategy", "steps"))
    if training.get("load_best_model_at_end") is not True or save == "best":
        return
    evaluate = str(training.get("eval_strategy", "no"))
    if evaluate != save:
        yield BEST_NOT_SAVED.found(f"eval_strategy is {evaluate!r}, and save_strategy {save!r}")
    elif evaluate == "steps":
        # TrainingArguments takes logging_steps where eval_steps is not given.
        saved, seen = (
            setup.number(name) or setup.number(other) or _DEFAULT_STEPS
            for name, other in (("save_steps", "save_steps"), ("eval_steps", "logging_steps"))
        )
        if (saved < 1) != (seen < 1) or round(saved * _FINE) % round(seen * _FINE):
            yield BEST_NOT_SAVED.found(
                f"save_steps {saved:g} is no multiple of eval_steps {seen:g}"
            )


def _saves(setup: Setup, strategy: str, steps: float) -> int:
    """How many checkpoints the run will write; 0 where the configuration does not tell."""
    if strategy == "epoch":
        return math.ceil(setup.number("num_train_epochs") or 0)
    every = setup.number("save_steps") or 0
    if strategy not in ("", "steps") or every <= 0:
        return 0
    if every < 1:
        return math.ceil(1 / every)  # a share of the run
    return math.ceil(steps / every) if steps > 0 else 0
