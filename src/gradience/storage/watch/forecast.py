"""How fast something fills, and when it is full: pure arithmetic over samples.

The rate is the median of the slopes between all pairs of samples (Theil-Sen): one checkpoint that
is written at once, or one file that is deleted, does not bend the line that the rest draws.

References
----------
Sen, J. Am. Stat. Assoc. 63, 1968; Theil, 1950.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from statistics import median

WINDOW_SECONDS = 60.0
STEADY_BYTES_PER_SECOND = 4096.0  # a log file that is written to is no growth
_MOST_SAMPLES = 60  # pairs grow with the square


class Trend(StrEnum):
    """Which way it goes."""

    UNKNOWN = "unknown"
    STEADY = "steady"
    GROWING = "growing"
    SHRINKING = "shrinking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was used at a time.

    Attributes
    ----------
    seconds : float
        On any clock that does not jump.
    used : int
        Bytes, or inodes.
    """

    seconds: float
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the samples of a window say.

    Attributes
    ----------
    trend : Trend
        `unknown` with fewer than two samples.
    per_second : float, optional
        Bytes, or inodes; None if unknown.
    seconds_to_full : float, optional
        None unless growing, and the room is known.
    """

    trend: Trend
    per_second: float | None = None
    seconds_to_full: float | None = None


def recent(samples: Sequence[Sample], window: float) -> tuple[Sample, ...]:
    """The samples of the last `window` seconds, thinned evenly to sixty; the last one is kept."""
    if not samples:
        return ()
    last = samples[-1].seconds
    inside = [s for s in samples if last - s.seconds <= window]
    if len(inside) <= _MOST_SAMPLES:
        return tuple(inside)
    step = (len(inside) - 1) / (_MOST_SAMPLES - 1)
    return tuple(inside[round(i * step)] for i in range(_MOST_SAMPLES))


def slope(samples: Sequence[Sample]) -> float | None:
    """Units per second; None if no two samples lie at different times.

    Examples
    --------
    >>> slope([Sample(seconds=0, used=0), Sample(seconds=1, used=9), Sample(seconds=2, used=20)])
    10.0
    """
    slopes = [
        (b.used - a.used) / (b.seconds - a.seconds)
        for a, b in combinations(samples, 2)
        if b.seconds > a.seconds
    ]
    return median(slopes) if slopes else None


def forecast(
    samples: Sequence[Sample],
    free: int | None,
    *,
    window: float = WINDOW_SECONDS,
    steady: float = STEADY_BYTES_PER_SECOND,
) -> Forecast:
    """What the last `window` seconds say about the time to full.

    Parameters
    ----------
    samples : sequence of Sample
        In the order of time.
    free : int, optional
        What is left; None where that is not known.
    steady : float
        A slower rate counts as none.

    Examples
    --------
    >>> samples = [Sample(seconds=t, used=t * 1_000_000) for t in range(5)]
    >>> forecast(samples, 30_000_000).seconds_to_full
    30.0
    """
    rate = slope(recent(samples, window))
    if rate is None:
        return Forecast(trend=Trend.UNKNOWN)
    if abs(rate) < steady:
        return Forecast(trend=Trend.STEADY, per_second=rate)
    if rate < 0:
        return Forecast(trend=Trend.SHRINKING, per_second=rate)
    seconds = None if free is None else free / rate
    return Forecast(trend=Trend.GROWING, per_second=rate, seconds_to_full=seconds)
