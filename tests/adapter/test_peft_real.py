"""Adapters that people trained, where the shared folder is at hand."""

from pathlib import Path

import numpy as np
import pytest

from factories_peft import dense, scaled
from gradience.adapter.dialects.peft import DIALECT
from gradience.adapter.read import read_config
from gradience.tensors.opening import open_tensor_file

ADAPTERS = Path(__file__).parents[3] / "shared" / "adapters"

pytestmark = pytest.mark.skipif(not ADAPTERS.is_dir(), reason="../shared/adapters is not here")


def parts_of(name, file="adapter_model.safetensors"):
    tensors = open_tensor_file(ADAPTERS / name / file).tensors
    assert DIALECT.recognises(tensors)
    return DIALECT.read(tensors, read_config(ADAPTERS / name / "adapter_config.json"), {})


def test_distilbert_has_twelve_layers_and_a_head():
    parts = parts_of("distilbert-imdb")
    assert len(parts.layers) == 12
    assert {x.scale for x in parts.layers} == {2.0}
    assert sorted(x.kind for x in parts.extras) == ["head"] * 4
    assert [f.code for f in parts.findings] == ["base_revision_missing"]


def test_gpt2_is_stored_transposed():
    parts = parts_of("gpt2-tigrinya")
    assert len(parts.layers) == 36
    assert {x.scale for x in parts.layers} == {4.0}
    assert all(x.base_transposed for x in parts.layers)
    first = parts.layers[0]
    assert (first.name, scaled(first).shape) == ("transformer.h.0.attn.c_attn", (768, 2304))


def test_bloom_of_2023_has_no_change_where_it_was_not_enabled():
    parts = parts_of("bloom-alpaca-bin", "adapter_model.bin")
    assert len(parts.layers) == 24
    for layer in parts.layers[:2]:
        assert (layer.shape, layer.scale, layer.rank) == ((3072, 1024), 2.0, 16)
        delta = dense(layer.delta)
        assert not delta[1024:2048].any()
        a, b = (np.asarray(t.read(), dtype=np.float64) for t in layer.tensors)
        assert np.allclose(delta[:1024], b[:1024, :, 0] @ a[:8])
        assert np.allclose(delta[2048:], b[1024:, :, 0] @ a[8:])
