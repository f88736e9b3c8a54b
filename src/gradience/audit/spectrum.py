"""Singular values of a weight change from its factors, without forming the change.

dW = scale * B @ A has the singular values of scale * F_B @ F_A^T for any F_B, F_A with
F_B^T F_B = B^T B and F_A^T F_A = A A^T: matrices of r columns, not of d (see `gram`). Everything
after the one pass over the factors is r by r and runs batched over all modules of one rank.

Each spectrum carries a bound of its own error. It has two kinds of parts:

- multiplicative: F_B is off by (I + X), which moves every singular value by at most ||X||,
  relatively, the small ones included (Ostrowski 1959; Eisenstat & Ipsen, SIAM J. Numer. Anal.
  32(6), 1995);
- additive: rounding of the r by r product and of its SVD moves singular values by at most a few
  u || |F_B| |F_A|^T ||, which weighs most on the smallest value that the promise covers. B and A
  that cancel (B @ A far below ||B|| ||A||) make it large, and that is the truth: their product is
  not determined better in float64.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from gradience.adapter.delta import Delta, Dense, Kronecker, Product
from gradience.audit.cores import PROMISED_ERROR, PROMISED_RANGE, Cores, settled, svd_rounding
from gradience.audit.factors import Side
from gradience.audit.gram import UNIT, Floats, NonFinite, Workspace, count_nonfinite

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["PROMISED_ERROR", "PROMISED_RANGE", "NonFinite", "Spectrum", "spectra"]

# Numbers in one stacked array: a quarter of a MiB, all temporaries of a thread some 4 MiB, and few
# enough modules in a batch to be shared out evenly among threads where those pay.
_BATCH = 1 << 15

Method = Literal["gram", "qr", "dense", "kronecker", "zero"]


class Spectrum(msgspec.Struct, frozen=True, kw_only=True):
    """Singular values of one weight change, and how well they are known.

    Attributes
    ----------
    values : (k,) float64
        Descending, with abs(scale) multiplied in, in units of the base weight. k is the rank that
        the factors allow: min(r, m, n) for a product.
    relative_error : float
        Bound on |computed - true| / true of every value above 1e-6 of the first. At 1 or more
        (inf included) nothing is known of the smallest of them: B and A cancel.
    method : str
        "gram": Gram matrices only. "qr": at least one factor needed a QR. "dense": the matrix
        itself. "kronecker": products of the values of the parts. "zero": B, A, or the scale is 0.
    left_norm : float or None
        Frobenius norm of B, without the scale; products only.
    right_norm : float or None
        Frobenius norm of A, without the scale; products only.
    """

    values: Floats
    relative_error: float
    method: Method
    left_norm: float | None = None
    right_norm: float | None = None


def spectra(
    deltas: Sequence[tuple[Delta, float]],
    *,
    done: Callable[[int], None] | None = None,
    pool: "Executor | None" = None,
) -> list[Spectrum | NonFinite]:
    """Singular values of `scale * delta` for every pair of (delta, scale).

    Each stored matrix is loaded, widened chunk by chunk into one buffer, and released; a second
    time only where a QR is needed. Memory: the r by r matrices of one batch, not the file.

    Parameters
    ----------
    deltas : sequence of (Delta, float)
    done : callable, optional
        Called with the number of modules finished since the last call.
    pool : Executor, optional
        Threads, each with a batch at a time; the numbers are the same.

    Returns
    -------
    list of Spectrum or NonFinite
        In the order of `deltas`. NaN or Inf anywhere in a delta gives a `NonFinite`, no numbers.

    Notes
    -----
    Relative error <= 1e-8 for every value above 1e-6 of the first wherever `relative_error` says
    so; the threads of BLAS are the caller's business.
    """
    work = Workspace()
    results: dict[int, Spectrum | NonFinite] = {}
    report = done or (lambda modules: None)

    def measured(batch: list[_Item]) -> list[tuple[int, Spectrum | NonFinite]]:
        with np.errstate(all="ignore"):  # of this thread
            return list(_products(batch, work))

    for found in (pool.map if pool else map)(measured, _batches(deltas)):
        results.update(found)
        report(len(found))
    with np.errstate(all="ignore"):
        for index, (delta, scale) in enumerate(deltas):
            if index not in results:
                results[index] = _single(delta, scale, work)
                report(1)
    return [results[index] for index in range(len(deltas))]


_Item = tuple[int, Product, float]


def _batches(deltas: Iterable[tuple[Delta, float]]) -> Iterator[list[_Item]]:
    """Products whose small matrices have the same shapes, as many as one batch may hold."""
    groups: dict[tuple[int, int, int], list[_Item]] = {}
    for index, (delta, scale) in enumerate(deltas):
        if isinstance(delta, Product) and _count(delta) > 0:
            r = delta.rank
            # r + 1 stands for "taller than r", where F is r by r whatever the height.
            key = (r, min(delta.shape[0], r + 1), min(delta.shape[1], r + 1))
            groups.setdefault(key, []).append((index, delta, scale))
    for (r, rows, columns), items in groups.items():
        size = max(1, _BATCH // max(1, r * max(rows, columns)))
        for start in range(0, len(items), size):
            yield items[start : start + size]


def _products(items: list[_Item], work: Workspace) -> Iterator[tuple[int, Spectrum | NonFinite]]:
    """Spectra of one batch."""
    rank = items[0][1].rank
    left = Side("left", [product.left for _, product, _ in items], rank)
    right = Side("right", [product.right for _, product, _ in items], rank)
    broken: dict[int, NonFinite] = {}
    for row in range(len(items)):
        if found := [bad for side in (left, right) if (bad := side.read(row, work)) is not None]:
            broken[row] = _merged(found)
    nonzero = np.any(left.lengths * right.lengths > 0.0, axis=1).tolist()
    rows = [row for row in range(len(items)) if nonzero[row] and row not in broken]
    cores = settled(left, right, np.array(rows, dtype=np.intp), work)
    place = {row: at for at, row in enumerate(rows)}
    left_norms, right_norms = left.norms(), right.norms()
    for row, (index, product, scale) in enumerate(items):
        if row in broken:
            yield index, broken[row]
            continue
        if row in place:
            method = _method(left, right, row)
            spectrum = _from_core(cores, place[row], scale, method)
        else:
            spectrum = _zero(product, scale)
        if isinstance(spectrum, Spectrum):
            spectrum = replace(spectrum, left_norm=left_norms[row], right_norm=right_norms[row])
        yield index, spectrum


def _method(left: Side, right: Side, row: int) -> Method:
    if left.by_qr[row] or right.by_qr[row]:
        return "qr"
    return "dense" if left.direct and right.direct else "gram"


def _merged(found: list[NonFinite]) -> NonFinite:
    """One record for both factors."""
    return NonFinite(
        where=" and ".join(bad.where for bad in found),
        nans=sum(bad.nans for bad in found),
        infs=sum(bad.infs for bad in found),
    )


def _from_core(cores: Cores, at: int, scale: float, method: Method) -> Spectrum | NonFinite:
    return _scaled(
        cores.values[at], int(cores.exponents[at]), scale, float(cores.error[at]), method
    )


def _count(delta: Delta) -> int:
    """How many singular values may differ from zero."""
    return min(delta.rank, *delta.shape)


def _zero(delta: Delta, scale: float) -> Spectrum | NonFinite:
    """Nothing but zeros; the scale must still be a number."""
    return _scaled(np.zeros(_count(delta)), 0, scale, 0.0, "zero")


def _scaled(
    values: Floats, exponent: int, scale: float, error: float, method: Method
) -> Spectrum | NonFinite:
    """The spectrum `abs(scale) * values * 2**exponent`, unless that leaves float64."""
    if not np.isfinite(scale):
        return NonFinite(where="scale", nans=int(np.isnan(scale)), infs=int(np.isinf(scale)))
    if scale == 0.0 or method == "zero":
        return Spectrum(values=np.zeros(len(values)), relative_error=0.0, method="zero")
    mantissa, more = np.frexp(abs(scale))
    result = np.ldexp(values * mantissa, exponent + int(more))
    infs = int(np.isinf(result).sum())
    if infs:
        return NonFinite(where="product", nans=0, infs=infs)
    return Spectrum(values=result, relative_error=error + _underflow(values, result), method=method)


def _underflow(values: Floats, result: Floats) -> float:
    """What the smallest covered value loses below 2**-1022, where float64 has fewer digits."""
    smallest = result[values > PROMISED_RANGE * values[0]].min(initial=np.inf)
    if smallest >= np.finfo(np.float64).smallest_normal:
        return 0.0
    return float(np.finfo(np.float64).smallest_subnormal / smallest) if smallest > 0.0 else np.inf


def _single(delta: Delta, scale: float, work: Workspace) -> Spectrum | NonFinite:
    """Spectrum of one delta of any form."""
    if _count(delta) == 0:
        return _zero(delta, scale)
    if isinstance(delta, Dense):
        return _dense(delta, scale)
    if isinstance(delta, Kronecker):
        return _kronecker(delta, scale, work)
    ((_, spectrum),) = _products([(0, delta, scale)], work)
    return spectrum


def _dense(delta: Dense, scale: float) -> Spectrum | NonFinite:
    """Spectrum of a matrix that is its own best description."""
    full = delta.matrix.load().astype(np.float64)
    delta.matrix.release()
    if not np.isfinite(full).all():
        return count_nonfinite(delta.matrix, "matrix")
    top = np.abs(full).max(initial=0.0)
    if top == 0.0:
        return _zero(delta, scale)
    exponent = int(np.frexp(top)[1])
    values = np.linalg.svd(np.ldexp(full, -exponent), compute_uv=False)
    smallest = values[values > PROMISED_RANGE * values[0]].min()
    error = UNIT * svd_rounding(min(full.shape)) * float(values[0] / smallest)
    return _scaled(values, exponent, scale, error, "dense")


def _kronecker(delta: Kronecker, scale: float, work: Workspace) -> Spectrum | NonFinite:
    """Every product of a value of one part and a value of the other (Horn & Johnson, 4.2.15)."""
    parts = {
        "left": _single(delta.left, 1.0, work),
        "right": _single(delta.right, 1.0, work),
    }
    values, exponent, error = np.ones(1), 0, UNIT
    for name, part in parts.items():
        if isinstance(part, NonFinite):
            return replace(part, where=f"{name}.{part.where}")
        if part.method == "zero":
            return _zero(delta, scale)
        power = int(np.frexp(part.values[0])[1])
        values = np.multiply.outer(values, np.ldexp(part.values, -power)).ravel()
        exponent += power
        # A value in the range of the whole is made of two in the range of their parts.
        error += part.relative_error
    values = np.sort(values)[::-1][: min(delta.shape)]
    return _scaled(values, exponent, scale, error, "kronecker")
