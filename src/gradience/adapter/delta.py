"""The change of one weight, in the form its file defines it: never multiplied out.

Three forms cover what adapters store. `Product` is LoRA and everything that reduces to two thin
factors (AdaLoRA, conv, grouped, LoHa through a Khatri-Rao product). `Kronecker` is LoKr: its
singular values are the products of those of its parts. `Dense` is a matrix that is small enough,
or full enough, to be its own best description.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from numpy.typing import NDArray


def _nothing() -> None:
    """Release of a matrix that lives in memory."""


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """A real matrix that is read when asked.

    Attributes
    ----------
    shape : (rows, columns)
    load : callable
        Gives the array of that shape, in any real dtype (bfloat16 and float8 of ml_dtypes
        included); a view where the file allows.
    release : callable
        Says that the pages of the last `load` are not needed now.
    """

    shape: tuple[int, int]
    load: Callable[[], NDArray[Any]]
    release: Callable[[], None] = _nothing


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """`left @ right`: (m, r) times (r, n)."""

    left: Matrix
    right: Matrix

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """r, the inner dimension: an upper bound of the rank of the product."""
        return self.left.shape[1]


class Dense(msgspec.Struct, frozen=True, kw_only=True):
    """The matrix itself."""

    matrix: Matrix

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.matrix.shape

    @property
    def rank(self) -> int:
        """The smaller dimension."""
        return min(self.matrix.shape)


class Kronecker(msgspec.Struct, frozen=True, kw_only=True):
    """`kron(left, right)`, as numpy and torch define it."""

    left: "Product | Dense"
    right: "Product | Dense"

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        (a, b), (c, d) = self.left.shape, self.right.shape
        return a * c, b * d

    @property
    def rank(self) -> int:
        """Product of the ranks of the parts."""
        return self.left.rank * self.right.rank


Delta = Product | Dense | Kronecker
