"""One streaming pass over W: X -> X (W^T W), or x -> ||W x||, while each block is in the cache.

A block of rows C gives C^T (C X) at once, so that one read serves both products, and bfloat16 is
widened inside the cache. Everything is computed for W / 2^e with 2^e near its largest entry: a
power of two changes no digit, and neither 1e-30 nor 1e+30 leaves the range of float32.
"""

from collections.abc import Iterator
from math import frexp, isfinite, ldexp, sqrt
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradience.audit.base.row_blocks import Array, RowBlocks, is_lossy_in_float32
from gradience.errors import UnmeasurableError

Floats = NDArray[np.float64]

# Elements of a block that is asked for; its sum goes to float64, which costs per block.
_BLOCK_ELEMENTS = 1 << 21
# Elements that are widened to float64 at once: 2 MB. A quarter of it costs a fifth more.
_BUFFER_ELEMENTS = 1 << 18
# OpenBLAS takes its small-matrix path below rows * columns * vectors = 1e6; above it a product
# with four vectors costs three times as much.
_PRODUCT_LIMIT = 1_000_000
# Wider products would leave too few rows below that limit.
_PRODUCT_COLUMNS = 8192
# Up to here the scale rides on X and on the sum, for nothing; beyond it the block is scaled.
_FREE_EXPONENT = 60


class GramStream:
    """The operator W^T W / 4^exponent of a streamed matrix, and the count of its passes.

    Parameters
    ----------
    matrix : RowBlocks
        W, (m, n), not empty.

    Attributes
    ----------
    passes : int
        How often all of W was read.
    lossy : bool
        Whether a block was seen that float32 rounds.
    zero : bool
        Whether W is all zero.
    exponent : int
        Everything is computed for W / 2^exponent.
    """

    def __init__(self, matrix: RowBlocks) -> None:
        self.matrix = matrix
        self.shape = matrix.shape
        self.passes = 0
        self.lossy = False
        self.zero = False
        self.exponent = self._first_exponent()
        self._scratch: Array = np.empty((0, self.shape[1]), dtype=np.float32)

    def apply(self, X: Floats, dtype: DTypeLike) -> Floats:
        """X W^T W / 4^exponent: one pass, products in `dtype`, sums over blocks in float64.

        Parameters
        ----------
        X : (b, n) float64
            One vector per row.
        dtype : float32 or float64
            Arithmetic of the products.

        Returns
        -------
        (b, n) float64
            Not finite exactly where W is not, or where the scale does not fit W.
        """
        vectors, columns = X.shape
        pieces = -(-columns // _PRODUCT_COLUMNS)
        cuts = [slice(k * columns // pieces, (k + 1) * columns // pieces) for k in range(pieces)]
        height = max(1, _PRODUCT_LIMIT * pieces // (vectors * columns))
        scale = ldexp(1.0, -self._free_exponent)
        parts = [np.ascontiguousarray(X[:, cut] * scale, dtype=dtype) for cut in cuts]
        rest = list(zip(parts, cuts, strict=True))[1:]
        total = np.zeros((vectors, columns))
        buffer = self._buffer(dtype, height)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for block in self._blocks():
                image = np.zeros((vectors, columns), dtype=dtype)
                shares = [(image[:, cut], cut) for cut in cuts]
                for rows in self._widened(block, buffer):
                    Y = parts[0] @ rows[:, cuts[0]].T
                    for part, cut in rest:
                        Y += part @ rows[:, cut].T
                    for share, cut in shares:
                        np.add(share, Y @ rows[:, cut], out=share)
                total += image
        self.passes += 1
        return total * scale

    def stretch(self, x: Floats) -> tuple[float, float]:
        """||W x|| and ||W||_F, both over 2^exponent, in float64: one pass.

        Parameters
        ----------
        x : (n,) float64

        Returns
        -------
        tuple of float
        """
        stretched = squares = 0.0
        scale = ldexp(1.0, -self._free_exponent)
        buffer = self._buffer(np.float64, _BUFFER_ELEMENTS // self.shape[1])
        for block in self._blocks():
            for rows in self._widened(block, buffer):
                y = (rows @ x) * scale
                stretched += float(y @ y)
                flat = rows.ravel()
                squares += float(flat @ flat) * scale * scale
        self.passes += 1
        return sqrt(stretched), sqrt(squares)

    def small(self) -> Floats:
        """W^T W or W W^T, whichever is smaller, over 4^exponent, in float64: one pass.

        Returns
        -------
        (k, k) float64
            k = min(m, n).
        """
        m, n = self.shape
        with np.errstate(over="ignore", invalid="ignore"):
            if n <= m:
                total = np.zeros((n, n))
                buffer = self._buffer(np.float64, _BUFFER_ELEMENTS // self.shape[1])
                for block in self._blocks():
                    for rows in self._widened(block, buffer):
                        total += rows.T @ rows
            else:
                # Blocks may reuse their memory, and are few here: m is small.
                whole = np.concatenate([block.copy() for block in self.matrix.blocks(m)])
                total = np.zeros((m, m))
                for start in range(0, n, _BLOCK_ELEMENTS // m):
                    part = whole[:, start : start + _BLOCK_ELEMENTS // m].astype(np.float64)
                    part = np.ldexp(part, self._free_exponent - self.exponent)
                    total += part @ part.T
            scale = ldexp(1.0, -self._free_exponent)
            total *= scale * scale
        self.passes += 1
        return total

    def rescale(self) -> None:
        """Read all of W for its largest entry, and refuse NaN and Inf.

        Raises
        ------
        UnmeasurableError
            If an entry is NaN or Inf.
        """
        largest, nans, infinities = 0.0, 0, 0
        for block in self._blocks():
            wide = block.astype(np.float64)
            bad = int(np.count_nonzero(~np.isfinite(wide)))
            nan = int(np.count_nonzero(np.isnan(wide))) if bad else 0
            nans, infinities = nans + nan, infinities + bad - nan
            largest = max(largest, float(np.abs(wide).max(initial=0.0)))
        self.passes += 1
        if nans or infinities:
            found = [f"{n} {name}" for n, name in ((nans, "NaN"), (infinities, "Inf")) if n]
            raise UnmeasurableError(
                f"the matrix of shape {self.shape} holds {' and '.join(found)}: it has no norm",
                remedy="Check the file it was read from; it may be damaged or still being written.",
            )
        self.exponent = frexp(largest)[1]

    @property
    def _free_exponent(self) -> int:
        """The part of the scale that rides on the vectors."""
        return self.exponent if abs(self.exponent) <= _FREE_EXPONENT else 0

    def _blocks(self) -> Iterator[Array]:
        """Blocks of W as they are stored, and a note of the dtypes that float32 rounds."""
        for block in self.matrix.blocks(max(16, _BLOCK_ELEMENTS // self.shape[1])):
            self.lossy = self.lossy or is_lossy_in_float32(block.dtype)
            yield block

    def _buffer(self, dtype: DTypeLike, rows: int) -> Array:
        """Room for a few rows, kept from pass to pass: fresh memory costs a fault per page."""
        kept = self._scratch
        if kept.dtype != dtype or len(kept) < rows:
            self._scratch = kept = np.empty((max(1, rows), self.shape[1]), dtype=dtype)
        return kept[: max(1, rows)]

    def _first_exponent(self) -> int:
        """Exponent of the largest entry of the first block that is not all zero.

        The largest entry of all W may be greater, never by much in a real weight; where it is by
        so much that a product overflows, the first pass says so and `rescale` looks at all of W.
        """
        for block in self.matrix.blocks(max(8, _BUFFER_ELEMENTS // (4 * self.shape[1]))):
            largest = float(np.abs(block.astype(np.float64)).max(initial=0.0))
            if largest != 0.0:
                return frexp(largest)[1] if isfinite(largest) else 0
        self.passes += 1
        self.zero = True
        return 0

    def _widened(self, block: Array, buffer: Array) -> Iterator[Array]:
        """A few rows at a time in the dtype of the buffer, scaled where the vectors cannot be."""
        if self._free_exponent != self.exponent:
            block = np.ldexp(block.astype(np.float64), -self.exponent)
        as_it_lies = _usable(block, buffer.dtype)
        for start in range(0, len(block), len(buffer)):
            rows = block[start : start + len(buffer)]
            if not as_it_lies:
                target = buffer[: len(rows)]
                target[...] = rows
                rows = target
            yield rows


def _usable(block: Array, dtype: np.dtype[Any]) -> bool:
    """Whether BLAS can read the block where it lies."""
    return block.dtype == dtype and block.flags.c_contiguous and block.flags.aligned
