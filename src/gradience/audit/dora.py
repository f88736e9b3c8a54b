"""DoRA's true change, which needs the base weight: diag(d) (W + s B A) - W.

DoRA rescales every row of W + s B A to a learned magnitude m, so d_i = m_i / ||w_i + s (B A)_i||
and the change is not of low rank: (D - I) W + D s B A. It is streamed by rows and never kept whole,
but for weights small enough to decompose.

References
----------
Liu et al., DoRA, arXiv 2402.09353, eq. 5; PEFT `tuners/lora/dora.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradience.adapter.delta import Product
from gradience.adapter.records import LoraLayer
from gradience.audit.base.spectral_norm import Goal, RowBlocks, spectral_norm
from gradience.errors import AdapterError, UnmeasurableError

_DENSE_LIMIT = 1024
"""Smaller side up to which all singular values are computed: 0.3 s a module, and 8 MB."""

_BLOCK = 256

Matrix64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoraChange:
    """The change of one DoRA layer as a matrix that is streamed by rows; implements `RowBlocks`.

    Attributes
    ----------
    shape : (out, in)
    base : RowBlocks
        The base weight, (out, in).
    left, right : float64
        s * B (out, r) and A (r, in).
    ratio : (out,) float64
        d = m / ||W + s B A||, by rows.
    """

    shape: tuple[int, int]
    base: RowBlocks
    left: Matrix64 = field(repr=False)
    right: Matrix64 = field(repr=False)
    ratio: Matrix64 = field(repr=False)

    def blocks(self, rows: int) -> Iterator[Matrix64]:
        """Consecutive row blocks of the change, each at most `rows` rows."""
        start = 0
        for block in self.base.blocks(rows):
            stop = start + len(block)
            ratio = self.ratio[start:stop, None]
            update = self.left[start:stop] @ self.right
            yield (ratio - 1.0) * block.astype(np.float64) + ratio * update
            start = stop


@dataclass(frozen=True, slots=True, kw_only=True)
class DoraNorms:
    """What is known of a change: its values where it is small, its norms always."""

    values: Matrix64 | None
    spectral: float
    frobenius: float
    relative_error: float


def dora_change(layer: LoraLayer, base: RowBlocks) -> DoraChange:
    """The true change of a DoRA layer beside its base weight.

    Parameters
    ----------
    layer : LoraLayer
        With a magnitude, and a change that is a product.
    base : RowBlocks
        The base weight in the layer's orientation, (out, in).

    Raises
    ------
    AdapterError
        If the magnitude has not one number per row.
    UnmeasurableError
        If a row of W + s B A is zero, or the magnitude is not finite.
    """
    if layer.magnitude is None or not isinstance(layer.delta, Product):
        raise UnmeasurableError(
            f"{layer.label} has no DoRA magnitude over a product", remedy="Audit it as LoRA."
        )
    magnitude = _float64(layer.magnitude.read()).ravel()
    if magnitude.size != layer.shape[0]:
        raise AdapterError(
            f"{layer.label}: the DoRA magnitude has {magnitude.size} numbers for "
            f"{layer.shape[0]} rows",
            remedy="Save the adapter again with the PEFT release that trained it.",
        )
    left = layer.scale * _float64(layer.delta.left.load())
    right = _float64(layer.delta.right.load())
    norms = _row_norms(base, left, right)
    if not np.isfinite(magnitude).all() or (norms == 0.0).any():
        raise UnmeasurableError(
            "the DoRA magnitude is not finite, or a row of W + s B A is zero",
            remedy="Check the adapter against its base model.",
        )
    return DoraChange(shape=layer.shape, base=base, left=left, right=right, ratio=magnitude / norms)


def dora_norms(change: DoraChange, *, width: float) -> DoraNorms:
    """Singular values of a change whose smaller side is at most 1024; else its norms.

    Parameters
    ----------
    change : DoraChange
    width : float
        Relative width asked of the interval of the spectral norm, for the larger ones.

    Raises
    ------
    UnmeasurableError
        If the change holds NaN or infinity.
    """
    if min(change.shape) <= _DENSE_LIMIT:
        values = _float64(np.linalg.svd(_dense(change), compute_uv=False))
        return DoraNorms(
            values=values,
            spectral=float(values[0]),
            frobenius=float(np.linalg.norm(values)),
            relative_error=_dense_error(values),
        )
    norm = spectral_norm(change, Goal(width=width))
    error = norm.upper / norm.lower - 1.0 if norm.lower > 0 else 0.0
    return DoraNorms(
        values=None, spectral=norm.lower, frobenius=norm.frobenius, relative_error=error
    )


def _dense(change: DoraChange) -> Matrix64:
    """The change, or its transpose where that is the smaller problem for the SVD."""
    return np.concatenate(list(change.blocks(_BLOCK)))


def _dense_error(values: Matrix64) -> float:
    """Rounding of a float64 SVD, relative to values down to 1e-6 of the largest."""
    return float(len(values) * np.finfo(np.float64).eps * 1e6) if values[0] > 0 else 0.0


def _row_norms(base: RowBlocks, left: Matrix64, right: Matrix64) -> Matrix64:
    norms, start = np.empty(base.shape[0]), 0
    for weight in base.blocks(_BLOCK):
        stop = start + len(weight)
        adapted = weight.astype(np.float64) + left[start:stop] @ right
        norms[start:stop] = np.linalg.norm(adapted, axis=1)
        start = stop
    return norms


def _float64(array: NDArray[Any]) -> Matrix64:
    return np.asarray(array, dtype=np.float64)
