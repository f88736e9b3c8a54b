"""From stored tensors to matrices: as they lie, or computed in float64 when loaded.

A matrix that is stored as it is needed is a view of the file. One that several tensors make
together is computed when it is loaded, in float64, because a product rounded to bfloat16 would
move singular values by more than the accuracy promised for the spectrum.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradience.adapter.delta import Dense, Matrix, Product
from gradience.tensors.stored import StoredTensor

Float64 = NDArray[np.float64]


def stored(
    tensor: StoredTensor,
    shape: tuple[int, int] | None = None,
    view: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> Matrix:
    """A tensor as a matrix of its stored numbers.

    Parameters
    ----------
    tensor : StoredTensor
    shape : (rows, columns), optional
        By default the first dimension by all others, which flattens a conv kernel.
    view : callable, optional
        From the stored array to the matrix, by slicing and reshaping; a reshape by default.
    """
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape[1:])
    wanted = (rows, columns) if shape is None else shape
    look = view or (lambda array: array.reshape(wanted))
    return Matrix(shape=wanted, load=lambda: look(tensor.read()), release=tensor.release)


def computed(shape: tuple[int, int], compute: Callable[[], Float64]) -> Matrix:
    """A matrix that is computed anew at each load and lives in memory until dropped."""
    return Matrix(shape=shape, load=compute)


def float64(tensor: StoredTensor) -> Float64:
    """A copy of a tensor in float64; its pages are given back at once."""
    copy = np.array(tensor.read(), dtype=np.float64)
    tensor.release()
    return copy


def product_of(left: Matrix, right: Matrix) -> Product | Dense:
    """`left @ right` as two factors, or as one matrix when the factors would be no thinner.

    Parameters
    ----------
    left, right : Matrix
        (m, k) and (k, n). For k >= min(m, n) the product is the smaller description.
    """
    (m, k), n = left.shape, right.shape[1]
    if k < min(m, n):
        return Product(left=left, right=right)

    def multiply() -> Float64:
        product = _as_float64(left.load()) @ _as_float64(right.load())
        left.release()
        right.release()
        return product

    return Dense(matrix=computed((m, n), multiply))


def _as_float64(array: NDArray[Any]) -> Float64:
    return array.astype(np.float64, copy=False)
