"""The norms of one base weight, as they are remembered and carried about."""

from math import inf

import msgspec

# A flat spectrum stops at three times the width that was asked for; beyond this the third digit of
# a ratio is no longer known.
_MUCH_WIDER = 10.0


class BaseNorm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Norms of one base weight, and how they were asked for.

    Attributes
    ----------
    lower, upper : float
        Interval that holds the spectral norm; `upper` with probability 1 - eta.
    frobenius : float
        Frobenius norm, exact to rounding.
    shape : (rows, columns)
        As stored; of a packed weight, that of what it stands for.
    dtype : str
        As stored, in the words of the safetensors format; of a packed weight, its format.
    width : float
        Relative width that was asked for; what was reached is in the interval.
    eta : float
    passes : int
        How often the weight was read.
    rounding : float or None
        Frobenius norm of the error that packing numbers near these makes, see
        `StoredRows.rounding`; None where the weight is not packed, or its format defines no step.
    told_by : str
        The file that these numbers were taken from on its word: nobody held them against the
        weight. Empty where they were measured here, or were measured again and agreed.
    """

    lower: float
    upper: float
    frobenius: float
    shape: tuple[int, int]
    dtype: str
    width: float
    eta: float
    passes: int
    rounding: float | None = None
    told_by: str = ""

    @property
    def reached(self) -> float:
        """Relative width of the interval, upper / lower - 1; 0 for a zero matrix."""
        if self.lower > 0.0:
            return self.upper / self.lower - 1.0
        return inf if self.upper > 0.0 else 0.0

    def is_much_wider(self, than: float) -> bool:
        """Whether the interval says too little where a relative width of `than` was asked for."""
        return self.reached > _MUCH_WIDER * than
