"""Scores within 0 and 1: few changed items are no proof that few will change.

A difference of -1, 0 or 1 whose mean is -m has the variance (share of changed items) - m^2, and no
fewer than m of the items have changed: m (1 - m) at least. Where fewer changed than that, the
variance that was measured is not one that a loss of m can have, and a test that trusts it takes a
lucky draw of few items for certainty: with 3 expected losses and 1 seen, it errs in 20 % instead
of 5 %. So the spread is raised to what the loss would bring, as score tests do (Nam, Biometrics
53(4), 1997; Tango, Statistics in Medicine 17(8), 1998). It is the variance of items that is raised,
whatever differs from seed to seed: what was not seen may be lost with every seed alike, and the
little that was seen does not show that it is not.

Items that share something may be lost together, and those of large clusters before others: G
clusters of n_g items hold at least as much as sum n_g / max n_g independent items, and nothing more
is taken for granted. Few changed clusters do not show how their items hang together.

Where nothing varies at all, be it that no score changed or that gains and losses cancel within
every cluster, no variance is left to raise. Markov's inequality still holds: of independent
clusters whose mean is -m and which lose 1 at most, each shows c or more with a chance of
(1 - m) / (1 + c).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def least_spread(gain: ArrayLike, margin: float, *, unevenness: float = 1.0) -> Floats:
    """The variance of items, or clusters, that a loss of the margin has at least.

    (1 - m)(m + c) is that of scores which are c but for those lost whole, with mean -m.

    Parameters
    ----------
    gain : (...) float64
        What was gained on the whole, or by the usual item: it must be lost too before there is a
        loss. 0 where it is negative.
    margin : float
        From -1 to 1; negative where a gain is held against a smaller one.
    unevenness : float
        Clusters over their effective number, 1 or more; 1 for single items.

    Examples
    --------
    >>> float(least_spread(0.0, 0.5)), float(least_spread(0.25, 0.5, unevenness=2))
    (0.25, 0.75)
    """
    most = np.maximum(np.asarray(gain, np.float64), 0.0)
    return np.asarray(np.maximum((1 - margin) * (margin + most), 0.0) * unevenness)


def unseen(mean: ArrayLike, margin: float, independent: ArrayLike) -> Floats:
    """Chance that so many independent clusters, which lose the margin, all show `mean` or more.

    Examples
    --------
    >>> float(unseen(0.0, 0.5, 3)), float(unseen(0.5, 0.25, 2)), float(unseen(-0.5, 0.25, 9))
    (0.125, 0.25, 1.0)
    """
    above = np.maximum(1 + np.asarray(mean, np.float64), np.finfo(np.float64).tiny)
    return np.asarray(np.clip((1 - margin) / above, 0.0, 1.0) ** np.asarray(independent))


def least_unseen(mean: float, level: float, independent: float) -> float:
    """The margin at which `unseen` comes down to the level.

    Examples
    --------
    >>> least_unseen(0.0, 0.125, 3), least_unseen(0.5, 0.25, 2)
    (0.5, 0.25)
    """
    return float(1 - (1 + mean) * level ** (1 / independent))


def effective_clusters(clusters: NDArray[np.intp]) -> float:
    """As how many independent items clusters count when nothing is known of what is lost.

    All items of one cluster may be lost together, and the largest clusters before others: then
    what is lost is drawn from as many as the largest ones would be, if there were no others.

    Parameters
    ----------
    clusters : (n,) int
        0 to G - 1.

    Returns
    -------
    float
        Items over those of the largest cluster: from 1 to G; G where all are of one size.

    Examples
    --------
    >>> effective_clusters(np.array([0, 0, 1, 1])), effective_clusters(np.array([0, 0, 0, 1]))
    (2.0, 1.3333333333333333)
    """
    return float(clusters.size / np.bincount(clusters).max())
