"""The norms of one base weight, as they are remembered and carried about."""

import msgspec


class BaseNorm(msgspec.Struct, frozen=True, kw_only=True):
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
