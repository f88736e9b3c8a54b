"""One streaming pass over W: X -> X (W^T W), or x -> ||W x||, while each block is in the cache.

A block of rows C gives C^T (C X) at once, so that one read serves both products, and bfloat16 is
widened inside the cache. Everything is computed for W / 2^e with 2^e near its largest entry: a
power of two changes no digit, and neither 1e-30 nor 1e+30 leaves the range of float32.

Several threads share one matrix, each a span of its rows: one weight is in memory at a time. The
products go through `np.dot`, which lets go of the interpreter's lock; `@` holds on to it where the
result is small, and two threads were then no faster than one.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import pairwise
from math import frexp, isfinite, ldexp, sqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradience.audit.base.row_blocks import Array, Divisible, RowBlocks, is_lossy_in_float32
from gradience.errors import UnmeasurableError

Floats = NDArray[np.float64]
T = TypeVar("T")

# Elements of a block that is asked for; its sum goes to float64, which costs per block.
_BLOCK_ELEMENTS = 1 << 21
# Elements that are widened to float64 at once: 2 MB. A quarter of it costs a fifth more.
_BUFFER_ELEMENTS = 1 << 18
# OpenBLAS takes its small-matrix path below rows * columns * vectors = 1e6; above it a product
# with four vectors costs three times as much.
_PRODUCT_LIMIT = 1_000_000
# Wider products would leave too few rows below that limit: their columns are cut into pieces.
_PRODUCT_COLUMNS = 16384
# Up to here the scale rides on X and on the sum, for nothing; beyond it the block is scaled.
_FREE_EXPONENT = 60
# A thread that gets less than this many numbers costs more than it gives.
_SPAN_ELEMENTS = 1 << 20


class GramStream:
    """The operator W^T W / 4^exponent of a streamed matrix, and the count of its passes.

    Parameters
    ----------
    matrix : RowBlocks
        W, (m, n), not empty.
    pool : Executor, optional
        Threads that share the rows, if the matrix is `Divisible`.
    threads : int
        How many.

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

    def __init__(self, matrix: RowBlocks, pool: Executor | None = None, threads: int = 1) -> None:
        self.matrix = matrix
        self.shape = matrix.shape
        self.passes = 0
        self.lossy = False
        self.zero = False
        self.exponent = self._first_exponent()
        self._pool = pool
        spans = _spans(matrix, threads) if pool else [matrix]
        self._spans = [_Span(span) for span in spans]

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

        # `dot` would copy a piece of a row, `matmul` does not.
        product_of = np.dot if pieces == 1 else np.matmul

        def over(span: _Span) -> Floats:
            total = np.zeros((vectors, columns))
            image = np.empty((vectors, columns), dtype=dtype)
            # Results go where there is room: fresh memory costs a fault per page.
            products = [np.empty_like(part) for part in parts]
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                for block in self._blocks(span.matrix):
                    image[...] = 0.0
                    for rows in self._widened(block, span.buffer(dtype, height)):
                        Y = product_of(parts[0], rows[:, cuts[0]].T)
                        for part, cut in zip(parts[1:], cuts[1:], strict=True):
                            Y += product_of(part, rows[:, cut].T)
                        for product, cut in zip(products, cuts, strict=True):
                            image[:, cut] += product_of(Y, rows[:, cut], out=product)
                    total += image
            return total

        total = sum(self._map(over), start=np.zeros((vectors, columns)))
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
        scale = ldexp(1.0, -self._free_exponent)

        def over(span: _Span) -> tuple[float, float]:
            stretched = squares = 0.0
            buffer = span.buffer(np.float64, _BUFFER_ELEMENTS // self.shape[1])
            for block in self._blocks(span.matrix):
                for rows in self._widened(block, buffer):
                    y = np.dot(rows, x) * scale
                    stretched += float(np.dot(y, y))
                    flat = rows.ravel()
                    squares += float(np.dot(flat, flat)) * scale * scale
            return stretched, squares

        sums = self._map(over)
        self.passes += 1
        return sqrt(sum(s for s, _ in sums)), sqrt(sum(s for _, s in sums))

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
                buffer = self._spans[0].buffer(np.float64, _BUFFER_ELEMENTS // self.shape[1])
                for block in self._blocks(self.matrix):
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
        for block in self._blocks(self.matrix):
            wide = _in_double(block)
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

    def _map(self, over: "Callable[[_Span], T]") -> list[T]:
        """What is computed over each span, in their order; by the threads where there are some."""
        if self._pool is None or len(self._spans) == 1:
            return [over(span) for span in self._spans]
        return list(self._pool.map(over, self._spans))

    def _blocks(self, matrix: RowBlocks) -> Iterator[Array]:
        """Blocks of W as they are stored, and a note of the dtypes that float32 rounds."""
        for block in matrix.blocks(max(16, _BLOCK_ELEMENTS // self.shape[1])):
            self.lossy = self.lossy or is_lossy_in_float32(block.dtype)
            yield block

    def _first_exponent(self) -> int:
        """Exponent of the largest entry of the first block that is not all zero.

        The largest entry of all W may be greater, never by much in a real weight; where it is by
        so much that a product overflows, the first pass says so and `rescale` looks at all of W.
        """
        for block in self.matrix.blocks(max(8, _BUFFER_ELEMENTS // (4 * self.shape[1]))):
            largest = float(np.abs(_in_double(block)).max(initial=0.0))
            if largest != 0.0:
                return frexp(largest)[1] if isfinite(largest) else 0
        self.passes += 1
        self.zero = True
        return 0

    def _widened(self, block: Array, buffer: Array) -> Iterator[Array]:
        """A few rows at a time in the dtype of the buffer, scaled where the vectors cannot be."""
        if self._free_exponent != self.exponent:
            block = np.ldexp(_in_double(block), -self.exponent)
        as_it_lies = _usable(block, buffer.dtype)
        for start in range(0, len(block), len(buffer)):
            rows = block[start : start + len(buffer)]
            if not as_it_lies:
                target = buffer[: len(rows)]
                target[...] = rows
                rows = target
            yield rows


class _Span:
    """Some rows of W, and the room in which one thread widens them."""

    def __init__(self, matrix: RowBlocks) -> None:
        self.matrix = matrix
        self._scratch: Array = np.empty((0, matrix.shape[1]), dtype=np.float32)

    def buffer(self, dtype: DTypeLike, rows: int) -> Array:
        """Room for a few rows, kept from pass to pass: fresh memory costs a fault per page."""
        rows = max(1, rows)
        if self._scratch.dtype != dtype or len(self._scratch) < rows:
            self._scratch = np.empty((rows, self.matrix.shape[1]), dtype=dtype)
        return self._scratch[:rows]


def _spans(matrix: RowBlocks, threads: int) -> list[RowBlocks]:
    """The matrix in as many spans of rows as there are threads, but none too small to be worth it.

    Examples
    --------
    >>> from gradience.audit.base.row_blocks import row_blocks
    >>> [part.shape for part in _spans(row_blocks(np.zeros((4096, 1024))), 3)]
    [(1365, 1024), (1365, 1024), (1366, 1024)]
    """
    m, n = matrix.shape
    parts = min(threads, m * n // _SPAN_ELEMENTS, m)
    if parts < 2 or not isinstance(matrix, Divisible):
        return [matrix]
    cuts = [k * m // parts for k in range(parts + 1)]
    return [matrix.between(a, b) for a, b in pairwise(cuts)]


def _in_double(block: Array) -> Array:
    """A block in float64; a signalling NaN, as a flipped bit makes it, is no reason to warn."""
    with np.errstate(invalid="ignore"):
        return block.astype(np.float64)


def _usable(block: Array, dtype: np.dtype[Any]) -> bool:
    """Whether BLAS can read the block where it lies."""
    return block.dtype == dtype and block.flags.c_contiguous and block.flags.aligned
