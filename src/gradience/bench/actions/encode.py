"""Two yardsticks: the probe at full rank, its factors in fewer bytes.

A float32 adapter cut to half its rank has the bytes of bf16 at full rank, and cut to a quarter
those of int8 at full rank (plus a scale per direction). That is what a truncation has to beat: a
rung of a ladder is to be compared with the yardstick of about its `factor_bytes`.
"""

from functools import partial

from gradience.bench.actions.action import Action, Attempt, Made
from gradience.compress.rewrite import Encoding, encoded
from gradience.compress.write import write_peft


def make(attempt: Attempt, encoding: Encoding) -> Made:
    """Encode the probe's factors; int8 is written as the numbers that it stands for."""
    new = encoded(attempt.of_probe("adapter"), encoding)
    write_peft(attempt.paths.adapter, new)
    return Made(factor_bytes=new.factor_bytes)


BF16 = Action(
    description="control: factors in bfloat16, half the bytes at full rank",
    make=partial(make, encoding="bf16"),
)
INT8 = Action(
    description="control: factors in int8, a quarter of the bytes at full rank",
    make=partial(make, encoding="int8"),
)
