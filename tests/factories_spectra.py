"""Factors with known difficulties, and singular values in more than double precision."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradience.adapter.delta import Matrix, Product

Extended = NDArray[np.longdouble]

needs_longdouble = pytest.mark.skipif(
    np.finfo(np.longdouble).eps > 2e-19, reason="long double is no wider than double here"
)


def matrix(array: NDArray[Any]) -> Matrix:
    return Matrix(shape=(array.shape[0], array.shape[1]), load=lambda: array)


def product(B: NDArray[Any], A: NDArray[Any]) -> Product:
    return Product(left=matrix(B), right=matrix(A))


def orthogonal(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def exact_singular_values(B: NDArray[Any], A: NDArray[Any]) -> Extended:
    """Singular values of B @ A in long double: the product where it is small, else two QRs."""
    B, A = B.astype(np.longdouble), A.astype(np.longdouble)
    r = B.shape[1]
    if r >= min(B.shape[0], A.shape[1]):
        return _jacobi(B @ A)
    return _jacobi(_triangle(B) @ _triangle(A.T).T)


def _triangle(matrix: Extended) -> Extended:
    """R of a Householder QR; numpy.linalg has none in long double."""
    R = matrix.copy()
    for j in range(min(R.shape)):
        v = R[j:, j].copy()
        length = np.sqrt(v @ v)
        if length == 0:
            continue
        v[0] += length if v[0] >= 0 else -length
        v /= np.abs(v).max()
        R[j:, j:] -= np.outer(v * (2 / (v @ v)), v @ R[j:, j:])
    return np.triu(R[: min(R.shape)])


def _jacobi(matrix: Extended) -> Extended:
    """One-sided Jacobi, after one QR that sorts the work (Drmac & Veselic 2008)."""
    wide = matrix.shape[0] < matrix.shape[1]
    X = _triangle(matrix.T if wide else matrix).T.copy()
    for _sweep in range(60):
        if sum(_rotate(X, i, j) for i in range(X.shape[1]) for j in range(i)) == 0:
            break
    return np.sort(np.sqrt((X * X).sum(axis=0)))[::-1]


def _rotate(X: Extended, i: int, j: int) -> bool:
    x, y = X[:, i], X[:, j]
    a, b, c = x @ x, y @ y, x @ y
    if abs(c) <= 2e-19 * np.sqrt(a) * np.sqrt(b):
        return False
    zeta = (b - a) / (2 * c)
    t = (1 if zeta >= 0 else -1) / (abs(zeta) + np.sqrt(1 + zeta * zeta))
    cosine = 1 / np.sqrt(1 + t * t)
    X[:, i], X[:, j] = cosine * (x - t * y), cosine * (t * x + y)
    return True
