"""Learning rate and batch."""

from collections.abc import Iterator
from math import prod

from gradience.check.finding_kinds import (
    BATCH_LARGE,
    LEARNING_RATE_HIGH,
    LEARNING_RATE_OF_FULL_FINETUNING,
    LEARNING_RATE_ZERO,
)
from gradience.check.records import Setup
from gradience.findings import Finding

_FULL_FINETUNING = 2e-5
_HIGH = 5e-3
_LARGE_BATCH = 512

# Preference and policy training moves less on purpose: their arguments tell them.
_GENTLE = ("beta", "num_generations", "cliprange", "kl_coef", "epsilon_high")


def optimizing(setup: Setup) -> Iterator[Finding]:
    """Findings about the rate and the batch of an adapter's training."""
    if setup.adapter is None:
        return
    rate = setup.number("learning_rate")
    if rate is not None and rate <= 0:
        yield LEARNING_RATE_ZERO.found(f"learning_rate is {rate:g}")
    elif rate is not None and rate <= _FULL_FINETUNING and not _is_gentle(setup):
        yield LEARNING_RATE_OF_FULL_FINETUNING.found(f"learning_rate is {rate:g}")
    elif rate is not None and rate > _HIGH and _is_adam(setup):
        yield LEARNING_RATE_HIGH.found(f"learning_rate is {rate:g}")
    parts = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size")
    batch = prod(int(setup.number(part) or 1) for part in parts)
    if batch >= _LARGE_BATCH:
        yield BATCH_LARGE.found(f"{batch} examples make a step")


def _is_gentle(setup: Setup) -> bool:
    return any(name in setup.training for name in _GENTLE)


def _is_adam(setup: Setup) -> bool:
    return "adam" in str(setup.training.get("optim") or "adamw").lower()
