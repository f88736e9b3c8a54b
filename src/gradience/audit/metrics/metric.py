"""What a metric is: a number of one adapted weight, with its definition and its source."""

from collections.abc import Callable

import msgspec

from gradience.audit.facts import LayerFacts


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One number of one adapted weight.

    Attributes
    ----------
    title : str
        Column heading.
    definition : str
        One sentence, with the formula; s_i are the singular values of the scaled change.
    source : str
        Paper or specification.
    measure : callable
        Raises `UnmeasurableError` where the number is not defined.
    unit : str
        "" for a dimensionless number, "rank" for a count of directions, "weight" for units of the
        base weight.
    needs_base : bool
        Left out, rather than unmeasured, when no base model was asked for.
    needs_packed : bool
        Left out where the base weight is not stored packed.
    column : bool
        Shown in the table of modules.
    """

    title: str
    definition: str
    source: str
    measure: Callable[[LayerFacts], float]
    unit: str = ""
    needs_base: bool = False
    needs_packed: bool = False
    column: bool = False
