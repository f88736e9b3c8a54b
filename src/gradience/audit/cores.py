"""Singular values of F_B F_A^T for a batch of r by r factors, and a bound of their errors."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from gradience.audit.factors import Side
from gradience.audit.gram import UNIT, Floats, Integers, Workspace, qr_rounding, qr_systematic

PROMISED_ERROR: float = 1e-8
"""Relative error that every value within the range is promised to keep."""

PROMISED_RANGE: float = 1e-6
"""Values above this fraction of the largest are covered by the promise and by the bound."""

_GRAM_SHARE = 4e-9  # two factors at this, and the promise still has room for the small steps
_WORTH_REFINING = 5e-10  # below this a factor is not what breaks the promise


class Cores(msgspec.Struct, frozen=True, kw_only=True):
    """Singular values of the small products of some rows of a batch: `values` * 2**`exponents`."""

    values: Floats
    exponents: Integers
    error: Floats


def _cores(left: Side, right: Side, rows: NDArray[np.intp]) -> Cores:
    """Singular values of F_B diag(w) F_A^T, and the bound of their relative error."""
    w, top = _weights(left, right, rows)
    scaled, plain = left.columns[rows] * w[:, None, :], right.columns[rows].transpose(0, 2, 1)
    values: Floats = np.linalg.svd(scaled @ plain, compute_uv=False).astype(np.float64, copy=False)
    cancelled = np.linalg.norm(np.abs(scaled) @ np.abs(plain), axis=(1, 2))
    r, k = w.shape[1], values.shape[1]
    covered = values > PROMISED_RANGE * values[:, :1]
    smallest = np.where(covered, values, np.inf).min(axis=1)
    # Rounding of the product (a sum of r terms; frobenius norm) and of its SVD.
    additive = UNIT * (2.0 * np.sqrt(r + 3.0) * cancelled + svd_rounding(k) * values[:, 0])
    error = left.gram_error[rows] + right.gram_error[rows]
    length = np.linalg.norm(w, axis=1)
    for side in (left, right):
        by_qr = side.by_qr[rows]
        # dB A = E diag(w) F_A^T: through B's own inverse it is relative, through ||w|| additive.
        relative = qr_rounding(r) * side.kappa[rows]
        absolute = qr_rounding(r) * length
        cheaper = relative * smallest < absolute
        error += np.where(by_qr, np.where(cheaper, relative, 0.0) + qr_systematic(r), 0.0)
        additive += np.where(by_qr & ~cheaper, absolute, 0.0)
    ratio = np.where(np.isfinite(smallest), additive / smallest, np.inf)
    return Cores(
        values=values,
        exponents=top,
        error=error + np.where(ratio < 1.0, ratio / (1.0 - ratio), np.inf),
    )


def svd_rounding(k: int) -> float:
    """Error of LAPACK's singular values, in u times the largest; k is the smaller dimension.

    LAPACK promises a modestly growing function of k; 3, 11 and 16 were seen for k = 64, 256, 512.
    """
    return 4.0 + 2.0 * float(np.sqrt(k))


def _weights(left: Side, right: Side, rows: NDArray[np.intp]) -> tuple[Floats, Integers]:
    """Product of the column lengths as w * 2**top with the largest w in [0.5, 1)."""
    mantissa, exponent = np.frexp(left.lengths[rows] * right.lengths[rows])
    exponents = exponent + left.exponents[rows] + right.exponents[rows]
    lowest = np.iinfo(np.int64).min // 4
    top = np.where(mantissa > 0.0, exponents, lowest).max(axis=1, initial=lowest)
    # A weight 2**-2000 of the largest may well underflow.
    shift = np.clip(exponents - top[:, None], -2000, 0)
    return np.ldexp(mantissa, shift), top


def settled(left: Side, right: Side, rows: NDArray[np.intp], work: Workspace) -> Cores:
    """Singular values of some rows of a batch, by QR where Gram matrices would break the promise.

    Parameters
    ----------
    left, right : Side
        Read, not yet factorised.
    rows : (n,) int
        Rows of the batch that have a product: finite, and not zero.
    work : Workspace

    Returns
    -------
    Cores
        n rows, in the order of `rows`.
    """
    for side in (left, right):
        side.factorise()
        for row in rows[side.gram_error[rows] > _GRAM_SHARE]:
            side.refine(int(row), work)
    first = _cores(left, right, rows)
    again = rows[first.error > PROMISED_ERROR]
    refined = [row for row in again if _refine(left, right, int(row), work)]
    if not refined:
        return first
    second = _cores(left, right, np.array(refined, dtype=np.intp))
    place = np.isin(rows, refined)
    for old, new in (
        (first.values, second.values),
        (first.exponents, second.exponents),
        (first.error, second.error),
    ):
        old[place] = new
    return first


def _refine(left: Side, right: Side, row: int, work: Workspace) -> bool:
    """QR of each factor whose Gram matrix has a part in a broken promise; whether there was one."""
    worse = [side for side in (left, right) if side.gram_error[row] > _WORTH_REFINING]
    for side in worse:
        side.refine(row, work)
    return bool(worse)
