"""From the coefficients of a block Lanczos run to an upper bound of the largest eigenvalue.

Let x be a unit eigenvector of M to its largest eigenvalue, and g = X^T x its inner products with
the Gaussian start block: b standard normal numbers. The three-term recurrence, read for x, says
x^T V_k = g^T P_k(lambda) with known matrix polynomials P_k. The V_k are orthonormal, so

    g^T S(lambda) g <= 1 at the true lambda,  S = sum_k P_k P_k^T.

With probability 1 - eta, ||g||^2 is at least c(b, eta). Hence every lambda at which the smallest
eigenvalue of S exceeds 1/c is not the one, whatever the spectrum, at every step of the run. The
bound is the greatest lambda that remains, up to the squared Frobenius norm. It is looked for from
above, on a grid, and not by bisection: nothing says that S grows monotonically.

References
----------
Kuczynski & Wozniakowski, SIAM J. Matrix Anal. Appl. 13(4), 1992 (random start).
Hochstenbach, ETNA 40, 2013, "Probabilistic upper bounds for the matrix two-norm".
"""

from collections.abc import Sequence
from math import exp, lgamma, log

import numpy as np
from numpy.typing import NDArray

from gradience.audit.base.krylov import Step

Floats = NDArray[np.float64]

_GRID = 100
_FINE_GRID = 24


def start_quantile(block: int, eta: float) -> float:
    """A c with P(||g||^2 <= c) <= eta for `block` standard normal numbers g.

    Parameters
    ----------
    block : int
    eta : float
        In (0, 1).

    Returns
    -------
    float
        Below the quantile of the chi-squared distribution: its density is bounded by dropping the
        factor exp(-t/2), and a tenth is left for the rounding of the recurrence.
    """
    half = block / 2
    return 0.9 * exp((log(eta) + half * log(2.0) + lgamma(half + 1)) / half)


def log_smallest(start_inverse: Floats, steps: Sequence[Step], values: Floats) -> Floats:
    """Logarithm of the smallest eigenvalue of S at each value, rounded down.

    Several runs that dropped nothing may be judged at once: their coefficients and values are
    stacked along leading dimensions, written `...` here.

    Parameters
    ----------
    start_inverse : (b, b) float64
        R^-1, where the start block is V_1 R: P_1.
    steps : sequence of Step
        Of (..., b, b) coefficients.
    values : (..., L) float64
        Candidates for the largest eigenvalue.

    Returns
    -------
    (..., L) float64
    """
    P = np.broadcast_to(start_inverse, (*values.shape, *start_inverse.shape))
    before: Floats | None = None
    coupling = start_inverse[:0]
    scale = np.zeros(values.shape)
    blocks, scales = [P], [scale]
    for step in steps:
        forward = P * values[..., None, None] - P @ _for_each(step.A)
        if before is not None:
            forward -= before @ _for_each(coupling).mT
        if step.dropped.shape[-1]:
            blocks.append(forward @ _for_each(step.dropped))
            scales.append(scale)
        if not step.B.shape[-2]:
            break
        following = forward @ _for_each(step.B_inverse)
        # P grows like a Chebyshev polynomial: kept near one, its logarithm apart.
        size = np.maximum(np.abs(following).max(axis=(-2, -1)), 1e-300)
        before, P = P / size[..., None, None], following / size[..., None, None]
        scale = scale + np.log(size)
        coupling = step.B
        blocks.append(P)
        scales.append(scale)
    top = np.max(scales, axis=0)
    factors = [np.exp(np.maximum(s - top, -300.0))[..., None, None] for s in scales]
    stacked = np.concatenate([b * f for b, f in zip(blocks, factors, strict=True)], axis=-1)
    s = np.linalg.svd(stacked, compute_uv=False)
    rounding = 2.0 * np.finfo(np.float64).eps * stacked.shape[-1] * s[..., 0]
    return np.asarray(2.0 * (np.log(np.maximum(s[..., -1] - rounding, 1e-150)) + top))


def _for_each(coefficient: Floats) -> Floats:
    """One coefficient for all the values of its run."""
    return coefficient[..., None, :, :]


def log_threshold(steps: Sequence[Step], block: int, eta: float) -> float:
    """What `log_smallest` must exceed for a value to be excluded.

    Every step that dropped directions adds at most one to the sum that was bounded by one.
    """
    drops = sum(1 for step in steps if step.dropped.shape[-1])
    return log((1 + drops) / start_quantile(block, eta))


def excludes(
    start_inverse: Floats, steps: Sequence[Step], values: Floats, eta: float
) -> NDArray[np.bool_]:
    """Whether a value is excluded as the largest eigenvalue, with failure probability eta.

    Parameters
    ----------
    start_inverse, steps
        As in `log_smallest`.
    values : (...,) float64
        One for each run.
    eta : float

    Returns
    -------
    (...,) bool
    """
    threshold = log_threshold(steps, len(start_inverse), eta)
    return np.asarray(log_smallest(start_inverse, steps, values[..., None])[..., 0] >= threshold)


def upper_bound(
    start_inverse: Floats, steps: Sequence[Step], eta: float, *, floor: float, ceiling: float
) -> float:
    """The greatest value in [floor, ceiling] that is not excluded.

    Parameters
    ----------
    start_inverse, steps
        As in `log_smallest`.
    eta : float
        Probability that the bound fails.
    floor : float
        A lower bound of the largest eigenvalue, positive.
    ceiling : float
        An upper bound that is certain: the squared Frobenius norm.

    Returns
    -------
    float
    """
    threshold = log_threshold(steps, len(start_inverse), eta)
    gap = ceiling / floor - 1.0
    if gap <= 1e-14:
        return ceiling
    grid = np.geomspace(min(1e-13, gap / 2), gap, _GRID)
    for _ in range(2):
        kept = log_smallest(start_inverse, steps, floor * (1.0 + grid)) < threshold
        if not kept.any():
            return float(floor * (1.0 + grid[0]))
        last = int(np.flatnonzero(kept)[-1])
        if last == len(grid) - 1:
            return ceiling
        grid = np.geomspace(grid[last], grid[last + 1], _FINE_GRID)
    kept = log_smallest(start_inverse, steps, floor * (1.0 + grid)) < threshold
    last = int(np.flatnonzero(kept)[-1])
    return float(floor * (1.0 + grid[min(last + 1, len(grid) - 1)]))
