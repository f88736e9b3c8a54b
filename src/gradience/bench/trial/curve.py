"""What a loss curve says: its shape in few numbers, and whether it was still falling. Pure."""

import math
from collections.abc import Sequence
from itertools import pairwise

STRETCHES = 50
"""A curve is kept as the means of at most so many equal stretches."""

_TOO_SHORT = 10
_CLEARLY = 0.02


def stretches(losses: Sequence[float]) -> tuple[float, ...]:
    """Means of at most 50 stretches of a run, equal to within one step, first to last.

    Examples
    --------
    >>> stretches([3.0, 2.0, 1.0])
    (3.0, 2.0, 1.0)
    """
    parts = min(STRETCHES, len(losses))
    edges = [round(i * len(losses) / parts) for i in range(parts + 1)] if parts else [0]
    return tuple(math.fsum(losses[start:end]) / (end - start) for start, end in pairwise(edges))


def still_falling(curve: Sequence[float]) -> bool:
    """Whether a run ended while its loss was still falling clearly: it is undertrained.

    The rule: of the last 40 % of the stretches, the later half has a mean below that of the earlier
    half by more than 2 % of it, and by more than three standard errors of their difference. A run
    of fewer than 10 stretches (10 optimizer steps) is too short to have ended in anything else.

    Parameters
    ----------
    curve : sequence of float
        Mean losses of equal stretches, first to last.

    Examples
    --------
    >>> still_falling([2.0 ** -i for i in range(20)]), still_falling([1.0, 0.5, *[0.2] * 18])
    (True, False)
    """
    if len(curve) < _TOO_SHORT:
        return True
    half = len(curve) // 5
    early, late = curve[-2 * half : -half], curve[-half:]
    fall = _mean(early) - _mean(late)
    error = math.sqrt(_mean_variance(early) + _mean_variance(late))
    return fall > _CLEARLY * abs(_mean(early)) and fall > 3.0 * error


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_variance(values: Sequence[float]) -> float:
    """Squared standard error of a mean, around the trend of the stretch.

    The differences of neighbours see the noise and not the fall (von Neumann, Ann. Math. Stat.
    12(4), 1941); what the fall itself adds makes the rule more careful.
    """
    if len(values) < 2:
        return 0.0
    steps = [(b - a) ** 2 for a, b in pairwise(values)]
    return math.fsum(steps) / (2 * len(steps)) / len(values)
