"""What holds for every packed format: its weights are found, read, measured, and no other's."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import lora_layer
from factories_packed import SAMPLES, Packed
from gradience.audit.base.match import match
from gradience.audit.base.measured import measure
from gradience.audit.base.packed import FORMATS
from gradience.audit.base.packed.format import Checkpoint, PackedWeight
from gradience.audit.base.quantised import packing
from gradience.audit.base.rows import rows
from gradience.audit.base.source import BaseModel, open_base
from gradience.audit.base.unpack import unpack
from gradience.audit.base.weights import TensorFacts
from gradience.tensors.opening import tensors_in_memory
from gradience.tensors.stored import StoredTensor

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


def write(directory: Path, packed: Packed) -> Path:
    save_file(dict(packed.tensors), directory / "model.safetensors")
    config = {"quantization_config": dict(packed.config)} if packed.config else {}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


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
    with open_base(write(tmp_path, packed)) as base:
        weight = found_in(base, packed)
        blocks = list(rows(base, weight).blocks(height))
    assert all(block.dtype == np.float32 and len(block) <= height for block in blocks)
    dense = packed.dense.T if weight.transposed else packed.dense
    np.testing.assert_allclose(np.concatenate(blocks), dense, rtol=1e-6, atol=1e-12)


@every_variant
def test_the_interval_holds_the_norm_of_the_dense_weight(name: str, make, tmp_path: Path) -> None:
    packed = make()
    with open_base(write(tmp_path, packed)) as base:
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


def test_a_plain_checkpoint_is_left_as_it_is() -> None:
    stored = tensors_in_memory(
        {"m.q.weight": np.ones((4, 4), np.float32), "m.q.bias": np.ones(4, np.float32)}
    )
    plain = {n: facts_of(t) for n, t in stored.items()}
    unpacked = unpack(plain, {}, lambda name: stored[name].read())
    assert unpacked.facts == plain
    assert unpacked.packed == unpacked.refused == {}
    assert packing("weight", ["weight", "bias"], plain["m.q.weight"]) == ""
