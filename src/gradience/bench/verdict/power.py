"""The chance to rule out a loss of the margin: before a bench, for its plan, and after it.

Given the mean squares, the test rejects when the mean exceeds -margin + t(df) se, and the mean is
normal and independent of them. MS_seeds has few degrees of freedom and moves both se and df, so
the chance is averaged over its chi-square distribution; the other mean squares have hundreds and
stand at their expectation. (A noncentral t, with df at their expectation too, is what remains when
MS_seeds does not vary; with three seeds it is up to 23 points off.)
"""

from dataclasses import dataclass, replace

import numpy as np

from gradience.bench.verdict import shares
from gradience.bench.verdict.anova import Anova
from gradience.bench.verdict.distributions import (
    Floats,
    chi_square_quantile,
    normal_cdf,
    student_critical,
)

_POINTS = 64  # within 0.12 points of 8192, over the grid of benchmarks/verdict.py
_MOST_SEEDS = 64
_MOST_ITEMS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How many seeds and items, and how much each of them varies.

    Attributes
    ----------
    seeds, items : int
        Items are clusters where items share something.
    v_seeds, v_items, v_rest : float
        Variance components of the difference to the probe, in squared units of the score.
    """

    seeds: int
    items: int
    v_seeds: float
    v_items: float
    v_rest: float

    @property
    def components(self) -> Floats:
        """Of seeds, items and rest."""
        return np.array([self.v_seeds, self.v_items, self.v_rest])


@dataclass(frozen=True, slots=True, kw_only=True)
class Enough:
    """The fewest that reach the power that was asked for, the other number left as it is.

    Attributes
    ----------
    seeds, items : int or None
        None where no number up to 64 seeds, or a million items, is enough.
    """

    seeds: int | None
    items: int | None


def chance(
    design: Design,
    *,
    margin: float,
    level: float,
    loss: float = 0.0,
    truth: Design | None = None,
) -> float:
    """Chance that a loss of `margin` is ruled out when `loss` is the truth.

    With `loss=margin` it is the size of the test. One seed rules out nothing: 0.

    Parameters
    ----------
    margin, loss : float
        Positive, in units of the score.
    level : float
        One-sided.
    truth : Design, optional
        How the mean really varies, where the test takes it to vary as `design` says.

    Examples
    --------
    >>> one = Design(seeds=5, items=1319, v_seeds=0.007**2, v_items=0.06, v_rest=0.06)
    >>> round(chance(one, margin=0.025, level=0.05), 2)
    0.92
    """
    found = chances(
        design.seeds,
        design.items,
        design.components,
        margin=margin - loss,
        level=level,
        truth=None if truth is None else truth.components,
    )
    return float(found)


def chances(
    seeds: int,
    items: int,
    components: Floats,
    *,
    margin: float,
    level: float,
    truth: Floats | None = None,
) -> Floats:
    """`chance` at no loss for (3, ...) components of seeds, items and rest: (...)."""
    v_seeds, v_items, v_rest = components
    if seeds < 2 or items < 2:
        return np.zeros_like(v_rest)
    share = (np.arange(_POINTS) + 0.5) / _POINTS
    factor = chi_square_quantile(share, seeds - 1) / (seeds - 1)
    still = np.ones(_POINTS)
    found = Anova(
        seeds=seeds,
        items=items,
        mean=np.zeros((*v_rest.shape, _POINTS)),
        ms_seeds=np.multiply.outer(v_rest + items * v_seeds, factor),
        ms_items=np.multiply.outer(v_rest + seeds * v_items, still),
        ms_rest=np.multiply.outer(v_rest, still),
    )
    room = margin - student_critical(level, found.df) * found.standard_error
    v_seeds, v_items, v_rest = components if truth is None else truth
    spread = np.sqrt(v_seeds / seeds + v_items / items + v_rest / (seeds * items))[..., None]
    # Without any variance the chance is 0 or 1, by the sign of what is left of the margin.
    z = np.divide(room, spread, out=np.copysign(np.inf, room), where=spread > 0)
    return np.asarray(normal_cdf(z).mean(axis=-1))


def of_shares(
    design: Design, *, margin: float, gain: float = 0.0, unevenness: float = 1.0
) -> tuple[Design, Design]:
    """For scores within 0 and 1: as it is, and with the variance of items that the loss brings.

    Both must suffice: the error of the second is mostly of items, has more degrees of freedom by
    that, and could pass what the first does not. See `shares`.
    """
    least = float(shares.least_spread(gain, margin, unevenness=unevenness))
    return design, replace(design, v_items=max(least, design.v_items))


def of_pairs(
    *, items: int, seeds: int, discordance: float, persistent_share: float, seed_sd: float
) -> Design:
    """The design of scores of 0 and 1.

    Parameters
    ----------
    discordance : float
        Share of items that the variant answers differently from its probe (right or wrong).
    persistent_share : float
        Share of these that differ in the same way with every seed.
    seed_sd : float
        Standard deviation over seeds of the true difference: 0.007 for 0.7 points.
    """
    return Design(
        seeds=seeds,
        items=items,
        v_seeds=seed_sd**2,
        v_items=persistent_share * discordance,
        v_rest=(1 - persistent_share) * discordance,
    )


def planned(
    *,
    items: int,
    seeds: int,
    margin: float,
    level: float,
    discordance: float = 0.12,
    persistent_share: float = 0.5,
    seed_sd: float = 0.007,
) -> float:
    """Power of a plan at no loss, from assumed variances; see `of_pairs`.

    The defaults are those of a fine-tuned language model on exact match; docs/verdict.md says
    where they come from.

    Examples
    --------
    >>> round(planned(items=200, seeds=5, margin=0.025, level=0.05), 2)
    0.35
    """
    design = of_pairs(
        items=items,
        seeds=seeds,
        discordance=discordance,
        persistent_share=persistent_share,
        seed_sd=seed_sd,
    )
    designs = of_shares(design, margin=margin)
    return min(chance(one, margin=margin, level=level, truth=design) for one in designs)


def enough(design: Design, *, margin: float, level: float, power: float) -> Enough:
    """How many seeds, with these items, or items, with these seeds, reach the power."""

    def reaches(changed: Design) -> bool:
        return chance(changed, margin=margin, level=level) >= power

    seeds = next((s for s in range(2, _MOST_SEEDS + 1) if reaches(replace(design, seeds=s))), None)
    if not reaches(replace(design, items=_MOST_ITEMS)):
        return Enough(seeds=seeds, items=None)
    low, high = 1, _MOST_ITEMS  # low is not enough, high is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(replace(design, items=middle)) else (middle, high)
    return Enough(seeds=seeds, items=high)
