"""Train at the lower rank from the probe's own step-0 state, over the same order of data.

A starts as the first k rows of the probe's untrained A, B as zero, the head as the probe's
untrained head. What differs from the probe is the rank, and alpha and learning rate as the variant
says: a lower rank whose scale or rate was left to chance would be another experiment.
"""

from gradience.bench.actions.action import Action, Attempt, Made
from gradience.compress.rewrite import first_directions
from gradience.compress.write import write_peft


def make(attempt: Attempt) -> Made:
    """Cut the step-0 adapter, train the result as the probe was trained."""
    from gradience.bench.trial.training import train  # noqa: PLC0415 - torch, where it is needed

    variant, lora = attempt.variant, attempt.trial.spec.lora
    alpha = variant.alpha
    if alpha is None and variant.alpha_rule == "keep_alpha":
        alpha = lora.alpha
    start = attempt.paths.work / "start"
    cut = first_directions(attempt.of_probe("step0"), attempt.ranks(), alpha)
    write_peft(start, cut)
    training = train(
        attempt,
        start,
        alpha=float(cut.config["lora_alpha"]),
        learning_rate=variant.learning_rate,
    )
    return Made(training=training)


RETRAIN = Action(
    description="train at the lower rank from the probe's step-0 state",
    make=make,
    trains=True,
    from_weights=False,
)
