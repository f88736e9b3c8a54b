"""What holds for every packed format: its weights are found, read, measured, and no other's."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories_bases import lora_layer
from factories_packed import SAMPLES, Packed, write_packed
from gradience.audit.base.match import match
from gradience.audit.base.measured import measure
from gradience.audit.base.packed import FORMATS
from gradience.audit.base.packed.format import Checkpoint, PackedWeight
from gradience.audit.base.quantised import packing
from gradience.audit.base.rows import rows, stored_rows
from gradience.audit.base.source import BaseModel, open_base
from gradience.audit.base.unpack import notes, unpack
from gradience.audit.base.weights import TensorFacts
from gradience.tensors.opening import tensors_in_memory
from gradience.tensors.stored import StoredTensor

pytestmark = pytest.mark.usefixtures("one_blas_thread")

CASES = [
    pytest.param(name, make, id=f"{name}: {variant}")
    for name, variants in SAMPLES.items()
    for variant, make in variants.items()
]
every_variant = pytest.mark.parametrize(("name", "make"), CASES)


def checkpoint(packed: Packed) -> Checkpoint:
    stored = tensors_in_memory(dict(packed.tensors))
    return Checkpoint(
        tensors={n: facts_of(t) for n, t in stored.items()},
        config=packed.config,
        read=lambda name: stored[name].read(),
    )


def facts_of(tensor: StoredTensor) -> TensorFacts:
    return TensorFacts(shape=tensor.shape, dtype=tensor.dtype)


def layer_of(packed: Packed):
    module, _, parameter = packed.parameter.rpartition(".")
    m, n = packed.dense.shape
    shape, turned = ((n, m), True) if packed.expert is not None else ((m, n), False)
    kind = "linear" if packed.expert is None else "expert"
    return lora_layer(
        module, shape, parameter=parameter, expert=packed.expert, kind=kind, base_transposed=turned
    )


def found_in(base: BaseModel, packed: Packed):
    layer = layer_of(packed)
    matches = match([layer], base.tensors, refused=base.refused)
    assert matches.unmatched == {}
    return matches.found[layer.label]


class InMemory:
    """A base model of arrays."""

    def __init__(self, arrays: dict[str, np.ndarray], config: Mapping[str, Any]) -> None:
        self.stored = tensors_in_memory(arrays)
        facts = {name: facts_of(tensor) for name, tensor in self.stored.items()}
        unpacked = unpack(facts, config, lambda name: self.stored[name].read())
        self.tensors, self.packed, self.refused = unpacked.facts, unpacked.packed, unpacked.refused

    def tensor(self, name: str) -> StoredTensor:
        return self.stored[name]


def test_every_format_has_a_sample_and_says_what_it_is() -> None:
    assert list(FORMATS) == [*SAMPLES, "gguf"]
    for format in FORMATS.values():
        assert format.title
        assert format.reads
        assert format.refuses
        assert format.source


@every_variant
def test_a_weight_is_one_formats_own(name: str, make) -> None:
    packed = make()
    found = {key: list(format.find(checkpoint(packed))) for key, format in FORMATS.items()}
    claims = {key: weights for key, weights in found.items() if weights}
    ((claimed, (weight,)),) = claims.items()
    assert claimed == name == weight.facts.packed
    assert isinstance(weight, PackedWeight)
    assert weight.name == packed.parameter
    assert weight.facts.shape[-2:] == packed.dense.shape
    assert set(weight.members.values()) <= set(packed.tensors)


@every_variant
@pytest.mark.parametrize("height", [1, 7, 10_000])
def test_rows_are_the_numbers_it_stands_for(name: str, make, height: int, tmp_path: Path) -> None:
    packed = make()
    with open_base(write_packed(tmp_path, packed)) as base:
        weight = found_in(base, packed)
        blocks = list(rows(base, weight).blocks(height))
    assert all(block.dtype == np.float32 and len(block) <= height for block in blocks)
    dense = packed.dense.T if weight.transposed else packed.dense
    np.testing.assert_allclose(np.concatenate(blocks), dense, rtol=1e-6, atol=1e-12)


@every_variant
def test_rows_are_the_same_in_any_division(name: str, make, tmp_path: Path) -> None:
    packed = make()
    with open_base(write_packed(tmp_path, packed)) as base:
        stored = stored_rows(base, found_in(base, packed))
        whole = np.concatenate(list(stored.blocks(10_000)))
        cuts = [0, 1, 17, len(whole) - 3, len(whole)]
        parts = [stored.between(*cut) for cut in pairwise(cuts)]
        np.testing.assert_array_equal(
            np.concatenate([block for part in parts for block in part.blocks(5)]), whole
        )


@every_variant
def test_only_notes_are_read_to_find_weights(name: str, make) -> None:
    packed = make()
    asked: list[str] = []
    stored = checkpoint(packed)
    read = lambda name: (asked.append(name), stored.read(name))[1]  # noqa: E731 - notes the name
    unpacked = unpack(stored.tensors, packed.config, read)
    assert set(asked) <= set(notes(packed.tensors))
    members = {part for weight in unpacked.packed.values() for part in weight.members.values()}
    assert members.isdisjoint(asked)


@every_variant
def test_the_interval_holds_the_norm_of_the_dense_weight(name: str, make, tmp_path: Path) -> None:
    packed = make()
    with open_base(write_packed(tmp_path, packed)) as base:
        weight = found_in(base, packed)
        norm = measure(base, [weight]).norms[weight.key]
    largest = np.linalg.svd(packed.dense, compute_uv=False)[0]
    assert norm.lower <= largest * (1 + 1e-6)
    assert largest <= norm.upper * (1 + 1e-6)
    assert norm.upper <= norm.lower * 1.001
    assert norm.frobenius == pytest.approx(np.linalg.norm(packed.dense), rel=1e-6)
    assert norm.rounding == pytest.approx(np.sqrt(np.sum(packed.steps**2) / 12), rel=1e-5)


@every_variant
def test_what_lacks_a_part_is_refused_and_never_measured(name: str, make) -> None:
    packed = make()
    for lost in packed.tensors.keys() - packed.optional:
        tensors = {n: t for n, t in checkpoint(packed).tensors.items() if n != lost}
        stored = checkpoint(packed)
        unpacked = unpack(tensors, packed.config, stored.read)
        layer = layer_of(packed)
        matches = match([layer], unpacked.facts, refused=unpacked.refused)
        assert matches.found == {}, f"without {lost}"


def damaged(array: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers in shapes that do not fit."""
    flat = array.reshape(-1)
    cases = {
        "empty": flat[:0],
        "short": flat[: flat.size // 2],
        "flat": flat,
        "deep": array[None, None],
        "scalar": flat[:1].reshape(()),
    }
    if array.ndim >= 2 and array.shape[0] > 1:
        cases |= {"fewer rows": array[:-1], "fewer columns": array[..., :-1]}
        cases["doubled"] = np.concatenate([array, array])
    if array.dtype.kind in "iu":
        cases |= {"ones": np.full_like(array, -1 if array.dtype.kind == "i" else 255)}
    else:
        cases |= {"nan": np.full(array.shape, np.nan, array.dtype)}
    return cases


@every_variant
def test_damaged_parts_give_a_reason_and_never_a_crash(name: str, make) -> None:
    packed = make()
    for part, array in packed.tensors.items():
        for what, bad in damaged(array).items():
            base = InMemory(dict(packed.tensors) | {part: bad}, packed.config)
            found = match([layer_of(packed)], base.tensors, refused=base.refused).found
            for weight in found.values():
                measured = measure(base, [weight])
                assert {*measured.norms, *measured.reasons} == {weight.key}, what


def test_a_plain_checkpoint_is_left_as_it_is() -> None:
    stored = tensors_in_memory(
        {"m.q.weight": np.ones((4, 4), np.float32), "m.q.bias": np.ones(4, np.float32)}
    )
    plain = {n: facts_of(t) for n, t in stored.items()}
    unpacked = unpack(plain, {}, lambda name: stored[name].read())
    assert unpacked.facts == plain
    assert unpacked.packed == unpacked.refused == {}
    assert packing("weight", ["weight", "bias"], plain["m.q.weight"]) == ""
