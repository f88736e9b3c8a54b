"""The algebra of a change that is two thin factors, in float64, without forming the change.

Two thin QRs leave an r by r core: dW = B A = Q_B (R_B R_A^T) Q_A^T. Its SVD is the SVD of the
change, and cutting it after k values is the best there is of rank k, in the Frobenius and in the
spectral norm (Eckart & Young, Psychometrika 1(3), 1936; Mirsky 1960).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradience.adapter.delta import Product

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`left @ right`, before the scale.

    Attributes
    ----------
    left : (m, r) float64
    right : (r, n) float64
    """

    left: Floats
    right: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A truncation and what it loses.

    Attributes
    ----------
    pair : Pair
        Balanced: left.T @ left = right @ right.T = diag(s), so that neither factor needs a wider
        range of numbers than the other.
    lost, whole : float
        ||dW - dW_k||_F and ||dW||_F, without the scale.
    """

    pair: Pair
    lost: float
    whole: float


def load(product: Product) -> Pair:
    """Both factors of a change in float64."""
    left = product.left.load().astype(np.float64)
    product.left.release()
    right = product.right.load().astype(np.float64)
    product.right.release()
    return Pair(left=left, right=right)


def truncated(pair: Pair, rank: int) -> Cut:
    """The best approximation of at most this rank.

    Parameters
    ----------
    pair : Pair
        (m, r) and (r, n).
    rank : int
        From 1; more than the factors have leaves the product as it is, to rounding.

    Returns
    -------
    Cut
        (m, k) and (k, n) for k = min(rank, r, m, n).

    Examples
    --------
    >>> pair = Pair(left=np.diag([4.0, 3.0]), right=np.eye(2))
    >>> cut = truncated(pair, 1)
    >>> cut.pair.left.shape, round(cut.lost, 12), round(cut.whole, 12)
    ((2, 1), 3.0, 5.0)
    """
    left, upper = np.linalg.qr(pair.left)
    right, lower = np.linalg.qr(pair.right.T)
    u, s, vt = np.linalg.svd(upper @ lower.T)
    root = np.sqrt(s[:rank])
    kept = Pair(
        left=(left @ u[:, : len(root)]) * root,
        right=root[:, None] * (right @ vt[: len(root)].T).T,
    )
    return Cut(pair=kept, lost=float(np.linalg.norm(s[rank:])), whole=float(np.linalg.norm(s)))


def projected(pair: Pair, rank: int, rng: np.random.Generator) -> Cut:
    """The change projected on a random subspace of its outputs: Q Q^T dW, Q uniform, (m, rank).

    It keeps about rank/m of the energy of any change: what a truncation is worth that keeps the
    same rank and knows nothing of the change.
    """
    q, _ = np.linalg.qr(rng.standard_normal((len(pair.left), min(rank, len(pair.left)))))
    kept = Pair(left=q, right=(q.T @ pair.left) @ pair.right)
    return Cut(pair=kept, lost=distance(pair, kept), whole=norm(pair))


def norm(pair: Pair) -> float:
    """||left @ right||_F."""
    return float(np.linalg.norm(_core(pair.left, pair.right)))


def distance(one: Pair, other: Pair, *, scales: tuple[float, float] = (1.0, 1.0)) -> float:
    """||s_1 B_1 A_1 - s_2 B_2 A_2||_F, as the norm of one product of stacked factors.

    Its rounding is of the order of the norms of the two, not of their difference; equal factors
    have distance 0.
    """
    same = np.array_equal(one.left, other.left) and np.array_equal(one.right, other.right)
    if same and scales[0] == scales[1]:
        return 0.0
    left = np.hstack([scales[0] * one.left, -scales[1] * other.left])
    return float(np.linalg.norm(_core(left, np.vstack([one.right, other.right]))))


def relative(parts: Sequence[tuple[float, float]]) -> float:
    """sqrt(sum lost^2 / sum whole^2) over modules; 0 for a change of zero.

    Examples
    --------
    >>> relative([(3.0, 4.0), (4.0, 3.0)])
    1.0
    """
    lost, whole = (math.hypot(*values) for values in zip(*parts, strict=True))
    return lost / whole if whole > 0.0 else 0.0


def int8(array: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers of one byte, and one float32 scale per index of `axis`.

    Symmetric, to nearest even: the largest magnitude of a slice becomes 127. A factor's slices are
    its directions (rows of A, columns of B), so that a strong direction does not coarsen a weak
    one, and the scales add 4 bytes to each direction of a factor.

    Returns
    -------
    (values, scales)
        `values * scales` is what stands for `array`; the scales have shape (..., n, ...) to
        broadcast.
    """
    others = tuple(i for i in range(array.ndim) if i != axis)
    largest = np.abs(array.astype(np.float32)).max(axis=others, keepdims=True, initial=0.0)
    scales = (largest / np.float32(127)).astype(np.float32)
    divisor = np.where(scales > 0, scales, np.float32(1))
    values = np.clip(np.rint(array.astype(np.float32) / divisor), -127, 127)
    return values.astype(np.int8), scales


def _core(left: Floats, right: Floats) -> Floats:
    """A small matrix with the singular values of left @ right."""
    _, upper = np.linalg.qr(left)
    _, lower = np.linalg.qr(right.T)
    core: Floats = upper @ lower.T
    return core
