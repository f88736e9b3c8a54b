"""The positive control: the probe's change on random directions of the same rank. It must fail."""

from gradience.bench.actions.action import Action, Attempt, Made
from gradience.compress.rewrite import random_subspace
from gradience.compress.write import write_peft


def make(attempt: Attempt) -> Made:
    """Project the probe's change on a subspace drawn from the trial's seed."""
    variant = attempt.variant
    own = variant.rank is None and variant.energy is None
    ranks = None if own else attempt.ranks()
    new = random_subspace(attempt.of_probe("adapter"), ranks, seed=attempt.trial.spec.seed)
    write_peft(attempt.paths.adapter, new)
    return Made()


RANDOM = Action(description="control: random directions of the same rank; must fail", make=make)
