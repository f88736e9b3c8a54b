"""The negative control: the probe, read and written again. Its scores differ by exactly nothing."""

from gradience.bench.actions.action import Action, Attempt, Made
from gradience.compress.rewrite import resaved
from gradience.compress.write import write_peft


def make(attempt: Attempt) -> Made:
    """Write the probe's tensors and config as they were read."""
    write_peft(attempt.paths.adapter, resaved(attempt.of_probe("adapter")))
    return Made()


RESAVE = Action(description="control: the probe, written again; differs by nothing", make=make)
