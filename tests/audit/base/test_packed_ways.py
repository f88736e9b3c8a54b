"""A packed base is the same base whichever way it is read: by threads, by torch, from its norms."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from factories_bases import lora_layer
from factories_packed import MODULE, bitsandbytes_4bit, fp8, gptq, write_packed
from gradience.audit.base.devices import ON_CPU, Cpu
from gradience.audit.base.known import Settings
from gradience.audit.base.measured import measure
from gradience.audit.base.norms import BaseNorms, base_norms
from gradience.audit.base.norms_only import GivenNorms
from gradience.audit.base.source import BaseModel, open_base
from gradience.audit.base.weights import BaseWeight, Part
from gradience.audit.norms import library, travel
from gradience.audit.norms.keep import measure_base
from gradience.audit.norms.verify import Check, verify

pytestmark = pytest.mark.usefixtures("one_blas_thread")

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ROWS, COLUMNS = 768, 512
PACKED = [
    pytest.param(lambda: gptq(inputs=COLUMNS, outputs=ROWS, act_order=True), id="GPTQ"),
    pytest.param(lambda: bitsandbytes_4bit(shape=(ROWS, COLUMNS), nested=True), id="nf4"),
]
every_way = pytest.mark.parametrize("make", PACKED)


def weight_in(base: BaseModel) -> BaseWeight:
    facts = base.tensors[f"{MODULE}.weight"]
    return BaseWeight(
        parts=(Part(tensor=f"{MODULE}.weight"),), stored_shape=(ROWS, COLUMNS), dtype=facts.dtype
    )


def audited(base: BaseModel, cache: Path, given: GivenNorms | None = None) -> BaseNorms:
    layers = [lora_layer(MODULE, (ROWS, COLUMNS))]
    return base_norms(layers, base, Settings(cache, NOW, given=given))


@pytest.fixture
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The norms of a packed base in a file, its weights in `base` beside it."""
    write_packed(tmp_path / "base", request.param())
    with open_base(tmp_path / "base") as base:
        kept = measure_base(base, Settings(tmp_path / "kept", NOW))
    assert (kept.weights, kept.left_out) == (1, {})
    travel.export(tmp_path / "norms.json", library.read(kept.path), now=NOW)
    return tmp_path / "norms.json"


every_export = pytest.mark.parametrize("exported", PACKED, indirect=True)


@every_way
def test_several_threads_measure_what_one_does(make: Any, tmp_path: Path) -> None:
    with open_base(write_packed(tmp_path / "base", make())) as base:
        weight = weight_in(base)
        (one,) = measure(base, [weight]).norms.values()
        (many,) = measure(base, [weight], device=Cpu(threads=3)).norms.values()
    # The rows are added up in another order, and nothing else is different.
    assert many.lower == pytest.approx(one.lower, rel=1e-6)
    assert many.upper == pytest.approx(one.upper, rel=1e-6)
    assert many.frobenius == pytest.approx(one.frobenius, rel=1e-12)
    assert (many.rounding, many.passes, many.dtype) == (one.rounding, one.passes, one.dtype)


@every_way
def test_torch_measures_what_the_cpu_does(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="this path is torch's")
    from gradience.audit.base.torch_device import host  # noqa: PLC0415 - needs torch

    packed = make()
    with open_base(write_packed(tmp_path / "base", packed)) as base:
        weight = weight_in(base)
        (here,) = measure(base, [weight]).norms.values()
        (there,) = measure(base, [weight], device=host()).norms.values()
    largest = float(np.linalg.svd(packed.dense, compute_uv=False)[0])
    assert there.lower <= largest * (1 + 1e-6)
    assert largest <= there.upper * (1 + 1e-6)
    assert there.upper <= there.lower * 1.001
    assert there.frobenius == pytest.approx(here.frobenius, rel=1e-9)
    assert there.rounding == here.rounding


@every_export
def test_the_norms_of_a_packed_base_serve_without_it(exported: Path, tmp_path: Path) -> None:
    given = travel.fetch(exported)
    alone = audited(given.base(), tmp_path / "empty", given)
    with open_base(tmp_path / "base") as base:
        beside = audited(base, tmp_path / "own")
        given.check_same(base)
        nothing_left = audited(base, tmp_path / "new", given)
    (own,) = beside.by_layer.values()
    for brought in (alone, nothing_left):
        assert [structs.replace(n, told_by="") for n in brought.by_layer.values()] == [own]
    assert alone.by_layer[MODULE].rounding is not None
    assert (alone.unmatched, alone.bytes_read, nothing_left.bytes_read) == ({}, 0, 0)
    assert not alone.has_weights


@every_export
def test_the_norms_of_a_packed_base_are_checked_against_it(exported: Path, tmp_path: Path) -> None:
    with open_base(tmp_path / "base") as base:
        how = Check(sample=None, prove=1, seed=0, devices=ON_CPU)
        found = verify(travel.fetch(exported), base, how)
    (check,) = found.checked
    assert (check.outcome, check.proved) == ("agrees", True)
    assert found.same_base


def test_why_a_weight_is_refused_travels_with_the_norms(tmp_path: Path) -> None:
    packed = fp8()
    (scale,) = (name for name in packed.tensors if "scale" in name)
    plain = {"model.layers.1.self_attn.q_proj.weight": np.eye(8, dtype=np.float32)}
    odd = {**packed.tensors, scale: np.ones((7, 3), np.float32), **plain}
    write_packed(tmp_path / "base", replace(packed, tensors=odd))
    with open_base(tmp_path / "base") as base:
        kept = measure_base(base, Settings(tmp_path / "kept", NOW))
        assert set(base.refused) == {packed.parameter}
    assert library.read(kept.path).refused == base.refused
