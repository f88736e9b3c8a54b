"""A proof that no singular value of a matrix is above a bound: no chance in it, no start vector.

If hi^2 I - W^T W has a Cholesky factorisation, it is positive semidefinite, and ||W||_2 <= hi. In
floating point the proof stands when all that rounding can have done is taken off the diagonal
first: the error of the Gram matrix, and what a factorisation that ran to its end may hide.

References
----------
Rump, "Verification of positive definiteness", BIT 46, 2006: if Cholesky of A runs to its end, the
smallest eigenvalue of A is above -gamma_{k+1} / (1 - gamma_{k+1}) tr(A), whatever the order of
operations. Higham, Accuracy and Stability of Numerical Algorithms, section 3.5 (Gram matrix).
"""

from math import frexp

import numpy as np
from numpy.typing import NDArray

from gradience.audit.base.row_blocks import RowBlocks
from gradience.errors import UnmeasurableError

Floats = NDArray[np.float64]

_UNIT = 2.0**-53
_BLOCK_ELEMENTS = 1 << 22
# Three float64 matrices of this order take 6 GB.
_LARGEST_ORDER = 16_384
# Above what the constants themselves round to.
_MARGIN = 1.01


def is_proved(matrix: RowBlocks, upper: float) -> bool:
    """Whether `upper` is proved to be no smaller than the spectral norm.

    Parameters
    ----------
    matrix : RowBlocks
        W, (m, n). Takes three float64 matrices of order min(m, n), and n m min(m, n) operations.
    upper : float
        What is to be proved.

    Returns
    -------
    bool
        True is certain. False is no refutation where `upper` is within 1e-8 of the norm.

    Raises
    ------
    UnmeasurableError
        If the smaller side is so large that the proof would not fit into memory.

    Examples
    --------
    >>> from gradience.audit.base.row_blocks import row_blocks
    >>> W = row_blocks(np.diag([3.0, 2.0, 1.0]))
    >>> is_proved(W, 3.0001), is_proved(W, 2.9999)
    (True, False)
    """
    k = min(matrix.shape)
    if k > _LARGEST_ORDER:
        raise UnmeasurableError(
            f"a proof for a matrix of shape {matrix.shape} takes {3 * 8 * k * k / 1e9:.0f} GB",
            remedy=f"Prove weights whose smaller side is at most {_LARGEST_ORDER}.",
        )
    if upper <= 0.0:
        return all(not block.astype(np.float64).any() for block in matrix.blocks(256))
    # Near one: a power of two changes no digit.
    exponent = frexp(upper)[1]
    bound = float(np.ldexp(upper, -exponent)) ** 2
    G = _gram(matrix, exponent)
    trace = float(np.trace(G))
    if not np.isfinite(trace):
        return False
    inner = _gamma(max(matrix.shape) + 2)
    hidden = _gamma(k + 1) / (1.0 - _gamma(k + 1)) * k * bound
    off = _MARGIN * (inner / (1.0 - inner) * trace + hidden + 4.0 * _UNIT * (bound + trace))
    np.negative(G, out=G)
    G[np.diag_indices(k)] += bound - off
    try:
        np.linalg.cholesky(G)
    except np.linalg.LinAlgError:
        return False
    return True


def _gamma(operations: int) -> float:
    """Higham's gamma_n: the relative error of n operations in a row."""
    return operations * _UNIT / (1.0 - operations * _UNIT)


def _gram(matrix: RowBlocks, exponent: int) -> Floats:
    """W^T W or W W^T, whichever is smaller, over 4^exponent, in float64."""
    m, n = matrix.shape
    total = np.zeros((min(m, n), min(m, n)))
    with np.errstate(over="ignore", invalid="ignore"):
        if n <= m:
            for block in matrix.blocks(max(1, _BLOCK_ELEMENTS // n)):
                rows = np.ldexp(block.astype(np.float64), -exponent)
                total += rows.T @ rows
        else:
            whole = np.concatenate([block.copy() for block in matrix.blocks(m)])
            step = max(1, _BLOCK_ELEMENTS // m)
            for start in range(0, n, step):
                columns = np.ldexp(whole[:, start : start + step].astype(np.float64), -exponent)
                total += columns @ columns.T
    return total
