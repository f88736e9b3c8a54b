"""Layers and facts as tests need them: from a spectrum, measured by the real metrics."""

from collections.abc import Sequence

import numpy as np

from gradience.adapter.delta import Matrix, Product
from gradience.adapter.records import LoraLayer
from gradience.audit.facts import BaseFacts, LayerFacts
from gradience.audit.measure import audit_layer
from gradience.audit.records import ByteUse, LayerAudit


def make_facts(
    values: Sequence[float],
    *,
    rank: int | None = None,
    base: float | None = None,
    rounding: float | None = None,
):
    s = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    return LayerFacts(
        values=s,
        spectral=float(s[0]) if s.size else 0.0,
        frobenius=float(np.linalg.norm(s)),
        rank=rank or len(s),
        left_norm=1.0,
        right_norm=2.0,
        base=None
        if base is None
        else BaseFacts(lower=base, upper=base * 1.001, frobenius=2 * base, rounding=rounding),
    )


def make_layer(
    name: str,
    values: Sequence[float],
    *,
    base: float | None = None,
    method: str = "lora",
    rounding: float | None = None,
) -> LayerAudit:
    """A 64 x 64 module of rank len(values)."""
    rank = len(values)
    delta = Product(
        left=Matrix(shape=(64, rank), load=lambda: np.zeros((64, rank))),
        right=Matrix(shape=(rank, 64), load=lambda: np.zeros((rank, 64))),
    )
    layer = LoraLayer(
        name=name, delta=delta, scale=2.0, rank=rank, parameters=128 * rank, nbytes=512 * rank,
        method=method,
    )  # fmt: skip
    facts = make_facts(values, base=base, rounding=rounding)
    return audit_layer(layer, facts, with_base=base is not None)


def make_byte_use(**by_kind: int) -> ByteUse:
    total = sum(by_kind.values())
    return ByteUse(
        file=total + 100, tensors=total, by_kind=by_kind, by_dtype={"F32": total},
        as_bf16=total // 2,
    )  # fmt: skip
