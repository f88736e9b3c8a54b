"""What holds for every registered dialect: its own files are its own, and nobody else's."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories_adapters import (
    dense,
    diffusers_arrays,
    factor,
    kohya_arrays,
    peft_arrays,
    peft_config,
    write_safetensors,
)
from gradience.adapter.dialects import DIALECTS
from gradience.adapter.dialects.dialect import Dialect
from gradience.adapter.read import adapter_from_state_dict, open_adapter
from gradience.errors import AdapterError, GradienceError
from gradience.tensors.opening import tensors_in_memory


def renamed(arrays, old, new):
    return {name.replace(old, new): array for name, array in arrays.items()}


def pair(stem, down="lora_A.weight", up="lora_B.weight"):
    return {f"{stem}.{down}": factor(2, 5), f"{stem}.{up}": factor(6, 2)}


SAMPLES = {
    "peft": [
        peft_arrays(),
        renamed(peft_arrays(), "base_model.model.", ""),
        renamed(peft_arrays(), ".weight", ".default.weight"),
        pair("base_model.model.transformer.h.0.attn.c_attn"),
        pair("transformer.h.0.attn.c_attn"),
        pair("base_model.model.down_blocks.0.attentions.0.to_q"),
        pair("base_model.model.unet.x"),
    ],
    "kohya": [
        kohya_arrays(),
        kohya_arrays(alpha=None),
        pair("lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        pair("lycoris_transformer_blocks_0_attn_to_q"),
        {"lora_unet_x.lokr_w1": factor(2, 2), "lora_unet_x.lokr_w2": factor(3, 3)},
        {"lycoris_x.diff": factor(3, 3)},
    ],
    "diffusers": [
        diffusers_arrays(),
        pair("unet.conv_in"),
        pair("transformer.transformer_blocks.0.attn.to_q"),
        pair("transformer.blocks.0.attn1.to_out.0"),
        pair("transformer_2.blocks.0.attn1.to_q"),
        pair("down_blocks.0.resnets.0.conv1"),
        pair("diffusion_model.double_blocks.0.img_attn.qkv"),
        pair("diffusion_model.blocks.0.ffn.0", "lora_down.weight", "lora_up.weight"),
        pair("text_encoder.text_model.encoder.layers.0.self_attn.q_proj"),
        pair("mid_block.attentions.0.attn1.processor.to_q_lora", "down.weight", "up.weight"),
    ],
}
CASES = [(name, arrays) for name, samples in SAMPLES.items() for arrays in samples]


def test_every_dialect_has_samples():
    assert set(SAMPLES) == set(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_registered_under_its_own_name(name):
    dialect = DIALECTS[name]
    assert isinstance(dialect, Dialect)
    assert dialect.name == name
    assert dialect.description


@pytest.mark.parametrize(("name", "arrays"), CASES)
def test_exactly_one_dialect_recognises_a_file(name, arrays):
    assert [d.name for d in DIALECTS.values() if d.recognises(set(arrays))] == [name]


@pytest.mark.parametrize("name", DIALECTS)
def test_no_dialect_recognises_a_full_model_or_nothing(name):
    full = ["model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "down_blocks.0.conv.bias"]
    assert not DIALECTS[name].recognises(full)
    assert not DIALECTS[name].recognises([])


@pytest.mark.parametrize(("name", "arrays"), CASES)
def test_every_byte_of_a_file_is_accounted_for(tmp_path, name, arrays):
    stray = {"stray.numbers": np.arange(3, dtype=np.float32)}
    path = write_safetensors(tmp_path / "adapter_model.safetensors", {**arrays, **stray})
    if name == "peft":
        (tmp_path / "adapter_config.json").write_text(json.dumps(peft_config()))
    adapter = open_adapter(path)
    assert adapter.dialect == name
    assert adapter.layers
    read = [tensor.name for layer in adapter.layers for tensor in layer.tensors]
    read += [extra.tensor.name for extra in adapter.extras]
    read += [tensor.name for tensor in adapter.unread]
    assert sorted(read) == sorted([*arrays, *stray])
    for layer in adapter.layers:
        assert layer.nbytes == sum(tensor.nbytes for tensor in layer.tensors)


@pytest.mark.parametrize(("name", "arrays"), [case for case in CASES if len(case[1]) > 1])
def test_a_lost_factor_is_an_error_that_names_its_partner(name, arrays):
    lost = next(iter(arrays))
    rest = {n: array for n, array in arrays.items() if n != lost}
    config = peft_config() if name == "peft" else None
    stem = lost.rpartition(".lora")[0] or lost.partition(".lo")[0]
    with pytest.raises(AdapterError) as caught:
        adapter_from_state_dict(rest, config)
    assert stem.removeprefix("base_model.model.").split(".processor")[0] in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("name", DIALECTS)
def test_reading_nothing_makes_nothing(name):
    parts = DIALECTS[name].read(tensors_in_memory({}), None, {})
    assert (parts.layers, parts.extras, parts.unread) == ((), (), ())


def loha_parts(core):
    """Shapes of one LoHa module of 6 outputs and 5 inputs."""
    first = (2, 6) if core else (6, 2)
    parts = {f"hada_w{i}_{side}": first if side == "a" else (2, 5) for i in (1, 2) for side in "ab"}
    return {**parts, "hada_t1": (2, 2, 3, 3), "hada_t2": (2, 2, 3, 3)} if core else parts


W1, W2 = {"lokr_w1": (2, 3)}, {"lokr_w2": (3, 4, 3, 3)}
W1_AB = {"lokr_w1_a": (2, 1), "lokr_w1_b": (1, 3)}
W2_AB, W2_CORE = {"lokr_w2_a": (3, 2), "lokr_w2_b": (2, 4)}, {"lokr_t2": (2, 2, 3, 3)}
FAMILIES = [
    {"lora_A.weight": (2, 5), "lora_B.weight": (6, 2), "lora_B.bias": (6,)},
    {"lora_A.default.weight": (2, 5), "lora_B.default.weight": (6, 2)},
    {"lora_A.weight": (2, 5), "lora_B.weight": (6, 2), "lora_magnitude_vector": (6,)},
    {"lora_down.weight": (2, 5, 3, 3), "lora_up.weight": (6, 2, 1, 1), "alpha": ()},
    {"lora_down.weight": (2, 5), "lora_up.weight": (6, 2), "dora_scale": (6, 1)},
    {"lora_down.weight": (2, 5), "lora_mid.weight": (2, 2, 3, 3), "lora_up.weight": (6, 2)},
    {"lora.down.weight": (2, 5), "lora.up.weight": (6, 2), "alpha": ()},
    {**loha_parts(core=False), "alpha": ()},
    loha_parts(core=True),
    {**W1, **W2, "alpha": ()},
    {**W1_AB, **W2},
    {**W1, **W2_AB, "alpha": (1,)},
    {**W1_AB, **W2_AB, **W2_CORE},
    {"diff": (6, 5, 3, 3), "diff_b": (6,)},
    {"lora_embedding_A": (2, 9), "lora_embedding_B": (6, 2)},
    {"lora_A": (2, 5), "lora_B": (6, 2), "lora_E": (2, 1), "ranknum": ()},
]
PATHS = (
    "base_model.model.model.layers.0.self_attn.q_proj",
    "lora_unet_mid_block_attentions_0_proj_in",
    "unet.mid_block.attentions.0.attn1.to_q",
)


@st.composite
def files(draw):
    """A module as some library writes it, with a part lost, a shape bent, a type changed."""
    path, parts = draw(st.sampled_from(PATHS)), dict(draw(st.sampled_from(FAMILIES)))
    for part in draw(st.lists(st.sampled_from(sorted(parts)), max_size=2, unique=True)):
        bent = draw(st.none() | st.lists(st.integers(0, 3), max_size=4))
        if bent is None:
            del parts[part]
        else:
            parts[part] = tuple(bent)
    kinds = [np.float32] * 4 + [np.float16, np.int64]
    return {
        f"{path}.{part}": np.ones(shape, draw(st.sampled_from(kinds)))
        for part, shape in parts.items()
    }


CONFIGS = (None, peft_config(), peft_config(peft_type="LOHA", alpha=4), {"peft_type": "LOKR"})


@settings(max_examples=600, deadline=None)
@given(files(), st.sampled_from(CONFIGS))
def test_any_file_is_read_to_the_last_byte_or_refused_in_words(arrays, config):
    with suppress(GradienceError):
        adapter = adapter_from_state_dict(arrays, config)
        read = [tensor.name for layer in adapter.layers for tensor in layer.tensors]
        read += [extra.tensor.name for extra in adapter.extras]
        read += [tensor.name for tensor in adapter.unread]
        assert sorted(read) == sorted(arrays)
        for layer in adapter.layers:
            change = dense(layer)
            assert change.shape == layer.shape
            assert np.isfinite(change).all()
