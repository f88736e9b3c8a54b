"""Packed bases as a whole: stacks, memory, what is remembered, what is refused and why."""

import json
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import lora_layer
from factories_packed import EXPERTS, MODULE, bitsandbytes_4bit, fp8, gptq
from gradience.audit.base.known import Settings
from gradience.audit.base.match import match
from gradience.audit.base.measured import measure
from gradience.audit.base.norms import BaseNorms, base_norms
from gradience.audit.base.source import open_base

pytestmark = pytest.mark.usefixtures("one_blas_thread")

Array = np.ndarray


def write(directory: Path, tensors: dict[str, Array], config: Any = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    if config is not None:
        (directory / "config.json").write_text(json.dumps({"quantization_config": config}))
    return directory


def norms_of(layers, base: Path, cache: Path) -> BaseNorms:
    with open_base(base) as opened:
        return base_norms(layers, opened, Settings(cache, datetime(2026, 1, 1, tzinfo=UTC)))


def moved(tensors: dict[str, Array], module: str) -> dict[str, Array]:
    return {name.replace(MODULE, module): array for name, array in tensors.items()}


@pytest.mark.parametrize("make", [gptq, fp8])
def test_experts_packed_one_by_one_are_the_stack_that_the_running_model_has(
    make, tmp_path: Path
) -> None:
    """The live parameter is gate over up, of every expert; on the disk each is packed alone."""
    packed = make()
    tensors: dict[str, Array] = {}
    for expert in range(2):
        for name in ("gate_proj", "up_proj"):
            tensors |= moved(dict(packed.tensors), f"{EXPERTS}.{expert}.{name}")
    write(tmp_path, tensors, dict(packed.config))
    m, n = packed.dense.shape
    layer = lora_layer(EXPERTS, (2 * m, n), parameter="gate_up_proj", expert=1, kind="expert")
    with open_base(tmp_path) as base:
        weight = match([layer], base.tensors).found[layer.label]
        norm = measure(base, [weight]).norms[weight.key]
    assert len(weight.parts) == 2
    largest = np.linalg.svd(np.vstack([packed.dense] * 2), compute_uv=False)[0]
    assert norm.lower <= largest * (1 + 1e-6)
    assert largest <= norm.upper * (1 + 1e-6)
    assert norm.rounding == pytest.approx(np.sqrt(2 * np.sum(packed.steps**2) / 12), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: bitsandbytes_4bit(shape=(1024, 4096)), (1024, 4096)),
        (lambda: gptq(inputs=4096, outputs=1024, group=128, act_order=True), (1024, 4096)),
    ],
)
def test_memory_is_a_few_blocks_of_rows(make, shape: tuple[int, int], tmp_path: Path) -> None:
    """The weight as float32 is 16 MB; it is never there as a whole."""
    packed = make()
    write(tmp_path, dict(packed.tensors), dict(packed.config))
    with open_base(tmp_path) as base:
        weight = match([lora_layer(MODULE, shape)], base.tensors).found[MODULE]
        tracemalloc.start()
        try:
            measure(base, [weight])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 12e6


def test_norms_are_remembered_with_their_rounding(tmp_path: Path) -> None:
    packed = bitsandbytes_4bit()
    write(tmp_path / "base", dict(packed.tensors))
    layers = [lora_layer(MODULE, packed.dense.shape)]
    first, second = (norms_of(layers, tmp_path / "base", tmp_path / "cache") for _ in range(2))
    assert first.bytes_read > 0
    assert second.bytes_read == 0
    assert first.by_layer == second.by_layer
    assert first.by_layer[MODULE].rounding is not None


def test_another_reading_of_the_same_bytes_is_measured_anew(tmp_path: Path) -> None:
    """What version of GPTQ the zero points follow is in config.json, not in the weights file."""
    packed = gptq()
    layers = [lora_layer(MODULE, packed.dense.shape)]
    found = []
    for layout in ("gptq", "gptq_v2"):
        config = dict(packed.config) | {"checkpoint_format": layout}
        write(tmp_path / "base", dict(packed.tensors), config)
        found.append(norms_of(layers, tmp_path / "base", tmp_path / "cache").by_layer[MODULE])
    assert found[0].frobenius == pytest.approx(np.linalg.norm(packed.dense), rel=1e-6)
    assert found[0].frobenius != pytest.approx(found[1].frobenius, rel=1e-3)


def test_quantize_config_of_older_models_is_read(tmp_path: Path) -> None:
    packed = gptq(version=2)
    write(tmp_path, dict(packed.tensors))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "quantize_config.json").write_text(json.dumps(dict(packed.config)))
    layers = [lora_layer(MODULE, packed.dense.shape)]
    norm = norms_of(layers, tmp_path, tmp_path / "cache").by_layer[MODULE]
    assert norm.frobenius == pytest.approx(np.linalg.norm(packed.dense), rel=1e-6)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (replace(gptq(), config={"quant_method": "gptq", "checkpoint_format": "marlin"}), "marlin"),
        (
            replace(
                bitsandbytes_4bit(),
                tensors=dict(bitsandbytes_4bit().tensors)
                | {
                    f"{MODULE}.weight.quant_state.bitsandbytes__nf4": np.frombuffer(
                        b'{"quant_type": 3}', np.uint8
                    )
                },
            ),
            "quant_state is damaged",
        ),
    ],
)
def test_a_packed_weight_that_is_not_read_says_why(packed, words: str, tmp_path: Path) -> None:
    write(tmp_path / "base", dict(packed.tensors), dict(packed.config))
    layers = [lora_layer(MODULE, packed.dense.shape)]
    result = norms_of(layers, tmp_path / "base", tmp_path / "cache")
    assert result.by_layer == {}
    assert words in result.unmatched[MODULE]
    assert [f.code for f in result.findings] == ["base_weights_quantised"]


def test_the_names_of_an_adapter_match_packed_weights_as_they_match_plain_ones(
    tmp_path: Path,
) -> None:
    """Prefixes differ by the class a model was loaded with; packing changes nothing in that."""
    packed = gptq()
    for stored, named in (
        (f"model.language_model.{MODULE.removeprefix('model.')}", MODULE),
        (MODULE.removeprefix("model."), MODULE),
    ):
        write(tmp_path / "base", moved(dict(packed.tensors), stored))
        with open_base(tmp_path / "base") as base:
            matches = match([lora_layer(named, packed.dense.shape)], base.tensors)
        assert matches.found[named].key == f"{stored}.weight"


def test_a_packed_weight_of_another_shape_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, dict(gptq().tensors))
    with open_base(tmp_path) as base:
        matches = match([lora_layer(MODULE, (64, 128))], base.tensors)
    assert matches.found == {}
    assert "shape (64, 96)" in matches.verdict


def test_a_packed_stack_is_no_matrix_as_a_whole(tmp_path: Path) -> None:
    """Its flattened shape may be that of a layer; what is packed is a matrix for each expert."""
    packed = bitsandbytes_4bit(shape=(3, 40, 96))
    write(tmp_path, dict(packed.tensors))
    with open_base(tmp_path) as base:
        assert match([lora_layer(MODULE, (3, 40 * 96))], base.tensors).found == {}
