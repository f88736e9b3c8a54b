"""Truncate, then train on for a few steps, with a new optimizer and the variant's learning rate."""

import math

from gradience import artifacts
from gradience.bench.actions.action import Action, Attempt, Made
from gradience.bench.plan.defaults import HEAL_SHARE
from gradience.bench.records import RESULT_SCHEMA, TrialResult
from gradience.compress.rewrite import truncate
from gradience.compress.write import write_peft
from gradience.errors import TrialError


def make(attempt: Attempt) -> Made:
    """Cut the probe, train the result for `variant.steps` steps over the same order of data."""
    from gradience.bench.trial.training import train  # noqa: PLC0415 - torch, where it is needed

    variant = attempt.variant
    start = attempt.paths.work / "start"
    cut = truncate(attempt.of_probe("adapter"), attempt.ranks())
    write_peft(start, cut)
    training = train(
        attempt,
        start,
        alpha=float(cut.config["lora_alpha"]),
        learning_rate=variant.learning_rate,
        steps=variant.steps or _tenth(attempt),
    )
    return Made(training=training)


def _tenth(attempt: Attempt) -> int:
    """Steps where the config names none and trains for epochs: a tenth of what the probe took.

    Raises
    ------
    TrialError
        If the probe's result does not say.
    """
    result = None if attempt.probe is None else attempt.probe.result
    if result is None or not result.exists():
        raise TrialError(
            f"the variant {attempt.variant.name} names no steps, and there is no result of a probe",
            remedy="Give its ladder `heal_steps`.",
        )
    probe = artifacts.decode(result.read_bytes(), RESULT_SCHEMA, TrialResult, source=str(result))
    if probe.training is None:
        raise TrialError(
            f"{result} says nothing of a training", remedy="Give the ladder `heal_steps`."
        )
    return math.ceil(HEAL_SHARE * probe.training.steps)


HEAL = Action(description="cut the probe, then train on for a few steps", make=make, trains=True)
