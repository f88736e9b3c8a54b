"""Truncation by SVD, without training: the best of that rank for the change, not the task."""

from gradience.bench.actions.action import Action, Attempt, Made
from gradience.compress.rewrite import truncate
from gradience.compress.write import write_peft


def make(attempt: Attempt) -> Made:
    """Cut the probe to the variant's rank, or to the ranks of its energy."""
    write_peft(attempt.paths.adapter, truncate(attempt.of_probe("adapter"), attempt.ranks()))
    return Made()


TRUNCATE = Action(description="cut the probe to a lower rank by SVD", make=make)
