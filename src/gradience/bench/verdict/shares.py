"""Scores of 0 and 1 lose no more than the share of items that change: what that says of variance.

A difference of -1, 0 or 1 whose mean is -m has the variance (share of changed items) - m^2, and no
fewer than m of the items have changed: m (1 - m) at least. Where fewer changed than that, the
variance that was measured is not one that a loss of m can have, and a test that trusts it takes a
lucky draw of few items for certainty: with 3 expected losses and 1 seen, it errs in 20 % instead
of 5 %. So the spread is raised to what the loss would bring, as score tests do (Nam, Biometrics
53(4), 1997; Tango, Statistics in Medicine 17(8), 1998).

Items that share something may be lost together: G clusters of n_g items hold at least as much as
(sum n_g)^2 / sum n_g^2 independent items, Kish's effective number, and nothing more is taken for
granted. Few changed clusters do not show how their items hang together.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def raising(
    v_items: ArrayLike, v_rest: ArrayLike, margin: float, *, unevenness: float = 1.0
) -> Floats:
    """By what to multiply the variances of items and rest so that a loss of the margin fits in.

    Parameters
    ----------
    v_items, v_rest : (...) float64
        Of single items, or of clusters.
    margin : float
    unevenness : float
        Clusters over their effective number, 1 or more; 1 for single items.

    Returns
    -------
    (...) float64
        1 or more; 1 where nothing varies, which is another case (`Estimate.p_value`).

    Examples
    --------
    >>> float(raising(0.01, 0.0, 0.02)), float(raising(0.06, 0.06, 0.02))
    (1.96, 1.0)
    """
    spread = np.asarray(v_items, np.float64) + np.asarray(v_rest, np.float64)
    least = margin * (1 - margin) * unevenness
    needed = np.divide(least, spread, out=np.ones_like(spread), where=spread > 0)
    return np.asarray(np.maximum(needed, 1.0))


def effective_clusters(clusters: NDArray[np.intp]) -> float:
    """As how many independent items clusters count when all items of each change together.

    Parameters
    ----------
    clusters : (n,) int
        0 to G - 1.

    Returns
    -------
    float
        From 1 to G; G where all are of one size.

    References
    ----------
    Kish, Survey Sampling, 1965, section 11.7.

    Examples
    --------
    >>> effective_clusters(np.array([0, 0, 1, 1])), effective_clusters(np.array([0, 0, 0, 1]))
    (2.0, 1.6)
    """
    sizes = np.bincount(clusters)
    return float(clusters.size**2 / np.square(sizes).sum())
