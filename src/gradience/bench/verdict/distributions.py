"""The few distributions that the verdict needs, from scipy's special functions.

`scipy.special` is imported on first use: an extra, and 60 ms that other commands need not pay.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradience.errors import of_an_extra

Floats = NDArray[np.float64]


@cache
def _special() -> Any:
    with of_an_extra(
        "a verdict needs scipy, for its t distribution",
        remedy="pip install 'gradience[stats]'",
    ):
        from scipy import special  # noqa: PLC0415 - an extra
    return special


def normal_cdf(x: ArrayLike) -> Floats:
    """P(Z <= x)."""
    return np.asarray(_special().ndtr(x), np.float64)


def student_upper_tail(t: ArrayLike, df: ArrayLike) -> Floats:
    """P(T > t) with `df` degrees of freedom."""
    return np.asarray(_special().stdtr(df, -np.asarray(t)), np.float64)


def student_critical(level: ArrayLike, df: ArrayLike) -> Floats:
    """The t that is exceeded with probability `level`."""
    return np.asarray(-_special().stdtrit(df, level), np.float64)


def chi_square_quantile(share: ArrayLike, df: float) -> Floats:
    """The value below which lies a `share` of chi-square with `df` degrees of freedom."""
    return np.asarray(2 * _special().gammaincinv(df / 2, share), np.float64)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of n tries."""
    return float(_special().bdtr(k, n, p))
