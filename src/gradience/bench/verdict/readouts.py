"""Second read-outs: exact McNemar, and a bootstrap over seeds and items. Neither decides.

McNemar takes an item seen with three seeds for three items. The bootstrap of a crossed table counts
the residual variance three times, and takes a handful of seeds for all there are: it may err to
either side. They are shown because readers ask for them, and a verdict that both contradict is
worth a second look.
"""

import numpy as np
from numpy.typing import NDArray

from gradience.bench.verdict.distributions import binomial_cdf
from gradience.bench.verdict.pairing import Paired

REPLICATES = 2000
_SEED = 20_26
_CHUNK_BYTES = 32_000_000


def mcnemar(differences: NDArray[np.float64]) -> float:
    """Exact two-sided p-value of "as many won as lost", over all seeds pooled.

    References
    ----------
    McNemar, Psychometrika 12(2), 1947; the exact form is a sign test on the discordant pairs.

    Examples
    --------
    >>> mcnemar(np.array([[1.0, 0.0, -1.0, -1.0, -1.0, -1.0]]))
    0.375
    """
    won, lost = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    return min(1.0, 2 * binomial_cdf(min(won, lost), won + lost, 0.5)) if won + lost else 1.0


def bootstrap(paired: Paired, level: float, *, replicates: int = REPLICATES) -> tuple[float, float]:
    """Percentile bounds of the mean, seeds and items (clusters) drawn anew, the same every time.

    Parameters
    ----------
    level : float
        One-sided, of each bound.

    References
    ----------
    Owen, Annals of Applied Statistics 1(2), 2007 ("pigeonhole bootstrap"): its variance
    is V_items/G + V_seeds/S + 3 V_rest/(S G) to first order.
    """
    rng = np.random.default_rng(_SEED)
    sums, sizes = _sums(paired)
    seeds, groups = sums.shape
    means: list[NDArray[np.float64]] = []
    chunk = max(1, _CHUNK_BYTES // (8 * groups))
    for start in range(0, replicates, chunk):
        now = min(chunk, replicates - start)
        drawn = _counts(rng, now, groups)
        of_seeds = _counts(rng, now, seeds)
        totals = np.einsum("rs,rs->r", drawn @ sums.T, of_seeds)
        means.append(totals / (of_seeds.sum(axis=1) * (drawn @ sizes)))
    lower, upper = np.quantile(np.concatenate(means), [level, 1 - level])
    return float(lower), float(upper)


def _sums(paired: Paired) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of the differences by seed and cluster (S, G), and items per cluster (G,)."""
    if paired.clusters is None:
        return paired.differences, np.ones(paired.differences.shape[1])
    groups = int(paired.clusters.max()) + 1
    sums = [np.bincount(paired.clusters, row, groups) for row in paired.differences]
    return np.stack(sums).astype(np.float64), np.bincount(paired.clusters, minlength=groups).astype(
        np.float64
    )


def _counts(rng: np.random.Generator, rows: int, n: int) -> NDArray[np.float64]:
    """How often each of n was drawn in n draws with replacement: (rows, n)."""
    drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
