"""One side of a batch of products as small triangles F with unit columns.

F stands for its factor in every singular value of the product, and says how far each may be off:
see `gram` for the three ways to make one and `cores` for what becomes of two of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradience.adapter.delta import Matrix
from gradience.audit.gram import (
    Floats,
    Integers,
    NonFinite,
    Workspace,
    count_nonfinite,
    exponents_of,
    gram,
    gram_rounding,
    triangle,
    widened,
)


class Side:
    """F of one side (all B, or all A transposed) of every product in a batch.

    `columns` (N, p, r) have length 1, or are zero; `lengths` (N, r) times 2**`exponents` (N, r)
    are what they were. `gram_error` (N,) is the bound of the relative change of any singular value
    while F comes from a Gram matrix; `kappa` (N,) bounds the condition where it comes from a QR.
    """

    def __init__(self, where: str, matrices: Sequence[Matrix], rank: int) -> None:
        self.where = where
        self.matrices = matrices
        heights = [m.shape[0] if where == "left" else m.shape[1] for m in matrices]
        self.direct = heights[0] <= rank
        count, p = len(matrices), heights[0] if self.direct else rank
        self.rounding = np.array([gram_rounding(rank, height) for height in heights])
        self.columns: Floats = np.zeros((count, p, rank))
        self.lengths: Floats = np.zeros((count, rank))
        self.exponents: Integers = np.zeros((count, rank), dtype=np.int64)
        self.gram_error: Floats = np.zeros(count)
        self.kappa: Floats = np.zeros(count)
        self.by_qr: NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)

    def _tall(self, index: int) -> NDArray[Any]:
        array = self.matrices[index].load()
        return array if self.where == "left" else array.T

    def read(self, index: int, work: Workspace) -> NonFinite | None:
        """One pass over one factor; its Gram matrix, or itself, waits in `columns`."""
        tall = self._tall(index)
        exponents = exponents_of(tall, work)
        if self.direct:
            small = widened(tall, exponents)
            lengths = np.sqrt(np.einsum("pr,pr->r", small, small))
        else:
            small = gram(tall, exponents, work)
            lengths = np.sqrt(np.diagonal(small))
        self.matrices[index].release()
        if not np.isfinite(lengths).all():
            return count_nonfinite(self.matrices[index], self.where)
        self.columns[index], self.lengths[index] = small, lengths
        self.exponents[index] = exponents
        return None

    def factorise(self) -> None:
        """Turn what `read` left into F with unit columns; mark where Cholesky fails."""
        inverse = np.divide(
            1.0, self.lengths, where=self.lengths > 0.0, out=np.zeros_like(self.lengths)
        )
        if self.direct:
            self.columns *= inverse[:, None, :]
            return
        self.columns *= inverse[:, None, :]
        self.columns *= inverse[:, :, None]
        # A zero column has nothing to do with the others: 1 on its diagonal, length 0 outside.
        diagonal = np.arange(self.columns.shape[2])
        self.columns[:, diagonal, diagonal] = 1.0
        lower, definite = _cholesky(self.columns)
        inverted = np.linalg.inv(lower)
        products = inverted.transpose(0, 2, 1) @ inverted
        random, systematic = self.rounding.T
        # F = (I + Delta)^(1/2) F_exact, with trace and norm of C^-1 for C = L L^T.
        delta = random * np.trace(products, axis1=1, axis2=2)
        delta += systematic * np.linalg.norm(products, axis=(1, 2))
        self.columns = lower.transpose(0, 2, 1)
        self.gram_error = np.where(definite & (delta < 0.1), delta / 2 + delta**2, np.inf)

    def refine(self, index: int, work: Workspace) -> None:
        """Replace one F by the R of a QR."""
        R = triangle(self._tall(index), self.exponents[index], work)
        self.matrices[index].release()
        lengths = np.sqrt(np.einsum("pr,pr->r", R, R))
        self.columns[index] = R / np.where(lengths > 0.0, lengths, 1.0)
        self.lengths[index] = lengths
        self.kappa[index] = _inverse_norm(self.columns[index], lengths)
        self.gram_error[index] = 0.0
        self.by_qr[index] = True

    def norms(self) -> list[float]:
        """Frobenius norms of the factors."""
        top = self.exponents.max(axis=1, keepdims=True)
        scaled = np.linalg.norm(np.ldexp(self.lengths, self.exponents - top), axis=1)
        norms: list[float] = np.ldexp(scaled, top[:, 0]).tolist()
        return norms


def _cholesky(stack: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Lower Cholesky factors, and which of the stack have one (identity stands for the others)."""
    definite = np.ones(len(stack), dtype=np.bool_)
    lower: Floats = np.empty_like(stack)
    try:
        lower[...] = np.linalg.cholesky(stack)
        return lower, definite
    except np.linalg.LinAlgError:  # says that one failed, not which
        definite[...] = False
    for index, matrix in enumerate(stack):
        try:
            lower[index], definite[index] = np.linalg.cholesky(matrix), True
        except np.linalg.LinAlgError:
            lower[index] = np.eye(stack.shape[1])
    return lower, definite


def _inverse_norm(R: Floats, lengths: Floats) -> float:
    """Bound of || R^+ ||_2 of an upper triangle with unit (or zero) columns; inf if singular."""
    filled = np.where((lengths == 0.0)[:, None] & np.eye(len(R), dtype=np.bool_), 1.0, R)
    if (np.diagonal(filled) == 0.0).any():
        return np.inf
    norm = float(np.linalg.norm(np.linalg.inv(filled)))
    return norm if np.isfinite(norm) else np.inf
