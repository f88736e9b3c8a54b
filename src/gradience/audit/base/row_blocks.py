"""A matrix that is handed over in blocks of rows, in the dtype it is stored in.

A base weight is not always one array: fused projections are stored in pieces, experts are stacked,
a delta may touch only some columns. What the norms need is smaller than an array: consecutive rows,
a cache-sized block at a time, so that bfloat16 is widened where it is used and never as a whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gradience.errors import UnmeasurableError

Array = NDArray[Any]

# Booleans, integers, floats, and V: the kind numpy gives to the dtypes of ml_dtypes.
_REAL_KINDS = "biufV"


class RowBlocks(Protocol):
    """A matrix that is streamed by rows, as often as asked."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def blocks(self, rows: int) -> Iterator[Array]:
        """Yield every row once, in order, as arrays of at most `rows` rows and all columns.

        Any real dtype, the ones of ml_dtypes included; the dtype may change from block to block.
        A block is only looked at until the next one is asked for, so its memory may be reused.
        """
        ...


@runtime_checkable
class Divisible(RowBlocks, Protocol):
    """A matrix of which several threads can stream several parts at once."""

    def between(self, start: int, stop: int) -> RowBlocks:
        """Rows `start` up to `stop` of it, to be streamed independently of any other part."""
        ...


@dataclass(frozen=True, slots=True)
class _ArrayRows:
    """The rows of one array, in memory or mapped."""

    array: Array

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.array.shape
        return rows, columns

    def blocks(self, rows: int) -> Iterator[Array]:
        for start in range(0, len(self.array), rows):
            yield self.array[start : start + rows]

    def between(self, start: int, stop: int) -> RowBlocks:
        return _ArrayRows(self.array[start:stop])


def row_blocks(array: Array) -> RowBlocks:
    """Stream one array by rows.

    Parameters
    ----------
    array : (m, n) any real dtype
        In memory or mapped, contiguous or not; it is not copied. Rows whose entries lie apart in
        memory (a transposed view) work and take several times as long.

    Returns
    -------
    RowBlocks

    Raises
    ------
    UnmeasurableError
        If the array does not have two dimensions, or its dtype is not real.
    """
    if array.ndim != 2:
        raise UnmeasurableError(
            f"a norm of a matrix needs two dimensions, this has shape {array.shape}",
            remedy="Reshape it to the matrix whose norm is meant.",
        )
    if array.dtype.kind not in _REAL_KINDS:
        raise UnmeasurableError(
            f"the norm of a real matrix was asked for, this has dtype {array.dtype}",
            remedy="Convert it to a real dtype first.",
        )
    return _ArrayRows(array)


def is_lossy_in_float32(dtype: np.dtype[Any]) -> bool:
    """Whether values of this dtype may be rounded when stored as float32."""
    return dtype.itemsize > 4 or (dtype.kind in "iu" and dtype.itemsize == 4)
