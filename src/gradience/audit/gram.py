"""Small triangles that stand for tall factors, and how far they may be from the truth.

For the singular values of B @ A only F with F^T F = B^T B matters, never B itself. Three ways give
such an F of r columns, each column scaled to length 1 with its length kept beside it, so that a
graded factor (rows of 1e6 next to rows of 1e-6) is as easy as any other:

- a factor with no more rows than columns is its own F;
- the Cholesky factor of the Gram matrix, summed in float64: one cheap pass, error ~ kappa^2;
- a blocked Householder QR: five times the cost, error ~ kappa.

kappa is the condition of the factor with unit columns. Rounding errors are modelled as independent
with mean zero (Higham & Mary, SIAM J. Sci. Comput. 41(5), 2019): a sum of n terms is off by
sqrt(n) u, not n u; one systematic share, n u, is kept because equal entries do round alike.
"""

import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gradience.adapter.delta import Matrix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_PLACES = {"left": "factor B", "right": "factor A", "left and right": "factors B and A"}

UNIT: float = float(np.finfo(np.float64).eps) / 2
"""u, the unit roundoff of float64."""

_BUFFER = 1 << 16  # numbers widened at a time: 512 KiB, so that they stay in the L2 cache
_WIDE = 64  # columns from which one large product beats a batch of small ones
_QR_ROWS = 256  # rows of one block of the QR: longer chains round worse, shorter ones are slower


class NonFinite(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no spectrum: something in it is not a number.

    Attributes
    ----------
    where : str
        "left" (B), "right" (A), "matrix", "scale"; "product" when every factor is finite and the
        values themselves exceed float64. Parts of a Kronecker product read "left.right" and so on.
    nans : int
        NaN among its numbers.
    infs : int
        +Inf and -Inf among them.
    """

    where: str
    nans: int
    infs: int

    def __str__(self) -> str:
        if self.where == "product":
            return "the singular values are too large for float64"
        found = ((self.nans, "NaN"), (self.infs, "Inf"))
        counts = " and ".join(f"{count} {name}" for count, name in found if count)
        return f"{_PLACES.get(self.where, self.where)}: {counts}"


class Workspace(threading.local):
    """One float64 buffer for all widening: fresh arrays would cost a page fault per 4 KiB.

    Each thread that uses it has a buffer of its own.
    """

    def __init__(self) -> None:
        self._flat: Floats = np.empty(_BUFFER)

    def chunks(self, tall: NDArray[Any], exponents: Integers, rows: int) -> Iterator[Floats]:
        """Walk down `tall` in float64: `rows` rows at a time, column j times 2**-exponents[j].

        Parameters
        ----------
        tall : (long, r) array of any real dtype and any strides
        exponents : (r,) int64
        rows : int

        Yields
        ------
        (rows, r) float64
            Valid until the next one; the last may be shorter.
        """
        long, r = tall.shape
        if rows * r > self._flat.size:
            self._flat = np.empty(rows * r)
        row_major = abs(tall.strides[0]) >= abs(tall.strides[1])
        scaled = bool(exponents.any())
        for start in range(0, long, rows):
            part = tall[start : start + rows]
            flat = self._flat[: part.size]
            # The buffer takes the order of the source: a transposing copy is 4x slower.
            chunk = flat.reshape(part.shape) if row_major else flat.reshape(part.shape[::-1]).T
            chunk[...] = part
            if scaled:
                # Columns far below the largest lose subnormal digits: 1e-300 of the rest.
                np.ldexp(chunk, -exponents, out=chunk)
            yield chunk


def exponents_of(tall: NDArray[Any], work: Workspace) -> Integers:
    """Powers of two that keep the squares of a factor in range: (r,) int64, mostly zeros.

    The square of anything stored in 32 bits or fewer fits float64; only wider types need a scale.
    """
    zeros = np.zeros(tall.shape[1], dtype=np.int64)
    if tall.dtype.itemsize <= 4:
        return zeros
    top = np.zeros(tall.shape[1])
    for chunk in work.chunks(tall, zeros, _rows(tall.shape[1])):
        np.maximum(top, np.abs(chunk).max(axis=0), out=top)
    return np.frexp(np.where(np.isfinite(top), top, 0.0))[1].astype(np.int64)


def gram(tall: NDArray[Any], exponents: Integers, work: Workspace) -> Floats:
    """`tall.T @ tall` in float64, its columns scaled by 2**-exponents.

    Parameters
    ----------
    tall : (long, r) array of any real dtype
    exponents : (r,) int64
    work : Workspace

    Returns
    -------
    (r, r) float64
        NaN or Inf on the diagonal exactly where a column holds one.
    """
    r = tall.shape[1]
    total = np.zeros((r, r))
    chain = _chain(r)
    for chunk in work.chunks(tall, exponents, _rows(r)):
        # Wide: one product, which BLAS knows to be symmetric, and makes half of it.
        whole = len(chunk) // chain * chain if r < _WIDE else 0
        if whole:
            split = _split(chunk[:whole], chain)
            # By a copy of itself: numpy takes X.T @ X to syrk, which at these sizes takes twice as
            # long as OpenBLAS's product of small matrices.
            total += np.matmul(split.transpose(0, 2, 1), split.copy(order="K")).sum(axis=0)
        if whole < len(chunk):
            rest = chunk[whole:]
            total += rest.T @ rest
    return total


def triangle(tall: NDArray[Any], exponents: Integers, work: Workspace) -> Floats:
    """R of a QR factorisation of a tall matrix, block by block, columns times 2**-exponents.

    Parameters
    ----------
    tall : (long, r) array of any real dtype, long >= r
    exponents : (r,) int64
    work : Workspace

    Returns
    -------
    (r, r) float64

    References
    ----------
    Demmel, Grigori, Hoemmen & Langou, SIAM J. Sci. Comput. 34(1), 2012 (TSQR).
    """
    rows = _qr_rows(tall.shape[1])
    blocks = [_r(chunk) for chunk in work.chunks(tall, exponents, rows)]
    return blocks[0] if len(blocks) == 1 else _r(np.concatenate(blocks))


def _r(block: Floats) -> Floats:
    R: Floats = np.linalg.qr(block, mode="r")  # type: ignore[assignment]  # mode="r" is no pair
    return R


def widened(tall: NDArray[Any], exponents: Integers) -> Floats:
    """A float64 copy, columns times 2**-exponents."""
    return np.ldexp(tall.astype(np.float64), -exponents)


def count_nonfinite(matrix: Matrix, where: str) -> NonFinite:
    """Count NaN and Inf in a stored matrix."""
    nans, infs = 0, 0
    for row in matrix.load():
        values = row.astype(np.float64)
        nans += int(np.isnan(values).sum())
        infs += int(np.isinf(values).sum())
    matrix.release()
    return NonFinite(where=where, nans=nans, infs=infs)


@cache
def gram_rounding(r: int, long: int) -> tuple[float, float]:
    """How far D^-1 (F^T F - B^T B) D^-1 may be from 0, for F by `gram` and Cholesky.

    D are the column lengths. A product passes n additions on its way into a sum. Equal entries
    round alike, by at most 2/3 n u of the sum (each doubling of the sum halves what came before).

    Parameters
    ----------
    r, long : int
        Columns and rows of the factor.

    Returns
    -------
    random : float
        Twice the standard deviation of an entry, sums, Cholesky and scaling together. For
        independent entries of size e, || L^-1 E L^-T || stays below sqrt(2) e trace(C^-1).
    systematic : float
        Norm of the part with one sign, which may meet the worst direction: times || C^-1 ||.
    """
    rows = _rows(r)
    n = min(_chain(r), long) + rows // _chain(r) + -(-long // rows)
    random = 2.0 * float(np.sqrt(n) + np.sqrt(r)) + 4.0
    return UNIT * random, UNIT * n * 2.0 / 3.0


def qr_rounding(r: int) -> float:
    """Bound of ||dB D^-1||_2 for R from `triangle`, the exact R of B + dB, D the column lengths.

    Householder QR works column by column (Higham, Accuracy and Stability of Numerical Algorithms,
    theorem 19.4): each of r reflections turns a column with an error of about u times its length,
    in two levels of blocks.
    """
    return UNIT * (4.0 * float(np.sqrt(r)) + 8.0)


def qr_systematic(r: int) -> float:
    """What `qr_rounding` leaves out: the length of a column of equal entries rounds one way.

    It stretches whole columns, alike where their entries are alike, so it is relative in every
    singular value and never amplified by a condition.
    """
    return UNIT * _qr_rows(r)


def _qr_rows(r: int) -> int:
    return max(_QR_ROWS, 2 * r)


def _chain(r: int) -> int:
    """Products summed in one go: longer sums round worse, shorter ones are slower."""
    return 256 if r < _WIDE else 4096


def _rows(r: int) -> int:
    """Rows to widen at a time: a multiple of the chain that fills the buffer."""
    chain = _chain(r)
    return max(chain, _BUFFER // r // chain * chain)


def _split(chunk: Floats, chain: int) -> Floats:
    """View (k * chain, r) as (k, chain, r), also where the chunk is a transposed view."""
    r = chunk.shape[1]
    if chunk.flags.c_contiguous:
        return chunk.reshape(-1, chain, r)
    return chunk.T.reshape(r, -1, chain).transpose(1, 2, 0)
