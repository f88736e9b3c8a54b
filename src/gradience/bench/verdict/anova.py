"""Mean squares of a seeds x items table, and what they say of its mean.

    d[s, g] = mu + seed_s + item_g + rest_sg        seeds, items and rest random

    MS_seeds = G sum_s (d[s, .] - d[., .])^2 / (S - 1)          expects V_rest + G V_seeds
    MS_items = S sum_g (d[., g] - d[., .])^2 / (G - 1)          expects V_rest + S V_items
    MS_rest  = sum_sg (d - d[s, .] - d[., g] + d[., .])^2 / ((S - 1)(G - 1))    expects V_rest

    Var(mean) = V_seeds / S + V_items / G + V_rest / (S G)
              = (MS_seeds + MS_items - MS_rest) / (S G)

A mean square of seeds or items below MS_rest would give a negative component. It is raised to
MS_rest: the component is then 0, the variance is never smaller than any single mean square makes
it, and the raised mean square still counts with its own few degrees of freedom, so that seeds which
happen to agree do not buy certainty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TWO_SEEDS_DF = 2.0
# With two seeds MS_seeds has one degree of freedom, and Satterthwaite's test at 5 % errs in up to
# 8.4 % (docs/verdict.md: worst case over all ratios of the components; 6.2 % with three seeds).
# Two degrees of freedom at most bring that to 6.8 %.


@dataclass(frozen=True, slots=True, kw_only=True)
class Anova:
    """Mean squares of one table, or of many along leading axes.

    Attributes
    ----------
    seeds, items : int
        S and G; items are clusters where items share something.
    mean, ms_seeds, ms_items, ms_rest : (...) float64
        With one seed `ms_seeds` and `ms_rest` are 0: neither can be estimated.
    """

    seeds: int
    items: int
    mean: Floats
    ms_seeds: Floats
    ms_items: Floats
    ms_rest: Floats

    @property
    def components(self) -> tuple[Floats, Floats, Floats]:
        """Variance of seeds, of items, of the rest; never negative."""
        return (
            np.maximum(self.ms_seeds - self.ms_rest, 0) / self.items,
            np.maximum(self.ms_items - self.ms_rest, 0) / self.seeds,
            self.ms_rest,
        )

    @property
    def standard_error(self) -> Floats:
        """Of the mean, for seeds and items drawn anew."""
        seeds, items = self._raised()
        error: Floats = np.sqrt((seeds + items - self.ms_rest) / (self.seeds * self.items))
        return error

    @property
    def df(self) -> Floats:
        """Degrees of freedom of the standard error.

        References
        ----------
        Satterthwaite, Biometrics Bulletin 2(6), 1946; for crossed random effects see Searle,
        Casella & McCulloch, Variance Components, 1992, section 3.
        """
        least = float(min(self.seeds - 1, self.items - 1)) or 1.0
        if self.seeds == 1:
            return np.full_like(self.mean, self.items - 1)
        seeds, items = self._raised()
        of_seeds, of_items = self.seeds - 1, self.items - 1
        spread = seeds**2 / of_seeds + items**2 / of_items + self.ms_rest**2 / (of_seeds * of_items)
        total = (seeds + items - self.ms_rest) ** 2
        df = np.divide(total, spread, out=np.full_like(total, least), where=spread > 0)
        most = _TWO_SEEDS_DF if self.seeds == 2 else np.inf
        limited: Floats = np.clip(df, least, most)
        return limited

    def _raised(self) -> tuple[Floats, Floats]:
        return np.maximum(self.ms_seeds, self.ms_rest), np.maximum(self.ms_items, self.ms_rest)


def anova(table: NDArray[np.floating] | NDArray[np.integer]) -> Anova:
    """Two-way mean squares of (..., S, G) differences, S >= 1 seeds by G >= 2 items.

    Examples
    --------
    >>> found = anova(np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 2.0]]))
    >>> float(found.mean), float(found.ms_seeds), float(found.ms_items), float(found.ms_rest)
    (1.5, 1.5, 1.5, 0.5)
    """
    seeds, items = table.shape[-2:]
    by_seed = table.mean(axis=-1, dtype=np.float64)
    by_item = table.mean(axis=-2, dtype=np.float64)
    mean = np.asarray(by_seed.mean(axis=-1))
    of_seeds = by_seed - mean[..., None]
    of_items = by_item - mean[..., None]
    none = np.zeros_like(mean)
    ms_seeds = ms_rest = none
    if seeds > 1:
        rest = table - of_seeds[..., :, None] - by_item[..., None, :]
        ms_seeds = items * np.square(of_seeds).sum(axis=-1) / (seeds - 1)
        ms_rest = np.square(rest).sum(axis=(-2, -1)) / ((seeds - 1) * (items - 1))
    return Anova(
        seeds=seeds,
        items=items,
        mean=mean,
        ms_seeds=ms_seeds,
        ms_items=seeds * np.square(of_items).sum(axis=-1) / (items - 1),
        ms_rest=ms_rest,
    )


def of_components(
    seeds: int, items: int, mean: Floats, *, v_seeds: Floats, v_items: Floats, v_rest: Floats
) -> Anova:
    """The table whose mean squares are what these variance components expect."""
    return Anova(
        seeds=seeds,
        items=items,
        mean=mean,
        ms_seeds=v_rest + items * v_seeds,
        ms_items=v_rest + seeds * v_items,
        ms_rest=v_rest,
    )


def by_cluster(differences: NDArray[np.float64], clusters: NDArray[np.intp]) -> NDArray[np.float64]:
    """One value per seed and cluster, such that their plain mean is the mean over items.

    z[s, g] = m_s + (G / n) sum_{i in g} (d[s, i] - m_s), with m_s the mean of seed s over its n
    items: the linearised ratio mean, so that clusters of unequal size count by their items and
    their sizes add no variance of their own. With one item per cluster z is d, with equal sizes
    it is the mean of the cluster.

    Parameters
    ----------
    differences : (S, n) float64
    clusters : (n,) int
        0 to G - 1.

    Returns
    -------
    (S, G) float64

    References
    ----------
    Cochran, Sampling Techniques, 1977, section 9A; Miller, arXiv 2411.00640, section 2.2.
    """
    groups = int(clusters.max()) + 1
    means = differences.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(clusters, row, groups) for row in differences - means])
    table: Floats = means + sums * (groups / differences.shape[1])
    return table
