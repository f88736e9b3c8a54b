"""One tensor as a file stores it: its facts now, its numbers when asked.

Nothing is read until `read()` is called, and `release()` gives the pages back, so that a walk over
a file of any size needs the memory of one tensor.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import msgspec
from numpy.typing import NDArray

Array = NDArray[Any]
"""A numpy array of any real dtype, bfloat16 and float8 of ml_dtypes included."""


def _nothing() -> None:
    """Release of a tensor that lives in memory."""


class StoredTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor in a file, or in memory.

    Attributes
    ----------
    name : str
        Its key in the file.
    dtype : str
        In the words of the safetensors format: F64, F32, F16, BF16, F8_E4M3, I64 and so on.
    shape : tuple of int
    nbytes : int
        Bytes of its data as stored.
    read : callable
        Gives the array in its stored dtype, C-ordered and read-only: a view of the mapped file
        where the format allows. The view is valid until `release`.
    release : callable
        Says that the pages of the last `read` are not needed now.
    read_at : callable, optional
        Gives one entry along the first dimension, where that is had without the others.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    read: Callable[[], Array]
    release: Callable[[], None] = _nothing
    read_at: Callable[[int], Array] | None = None

    def at(self, index: int) -> Array:
        """One entry along the first dimension, such as one expert of a stack."""
        return self.read()[index] if self.read_at is None else self.read_at(index)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)
