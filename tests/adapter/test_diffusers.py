"""The diffusers dialect: four generations of names, one change, held against diffusers itself."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from factories_adapters import (
    dense,
    diffusers_arrays,
    factor,
    make_tiny_unet,
    write_safetensors,
)
from gradience.adapter.dialects.diffusers import DIALECT
from gradience.adapter.read import adapter_from_state_dict, open_adapter
from gradience.errors import AdapterConfigError, AdapterError, UnsupportedAdapterError
from gradience.findings import Severity

SHARED = Path(__file__).resolve().parents[3] / "shared" / "adapters" / "sd15-diffusers"
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
MODULES = {
    f"{ATTENTION}.to_q": (8, 8),
    f"{ATTENTION}.to_out.0": (8, 8),
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (8, 6),
    "down_blocks.0.resnets.0.conv1": (4, 4, 3, 3),
}


def spelled(down, up, *, prefix="unet.", old=False, rank=2):
    """The modules under one spelling of the factors."""
    arrays = {}
    for seed, (name, shape) in enumerate(MODULES.items()):
        if old and "attn" not in name:
            continue
        stem, _, leaf = name.removesuffix(".0").rpartition(".")
        path = f"{prefix}{stem}.processor.{leaf}" if old else f"{prefix}{name}"
        ones = (1,) * (len(shape) - 2)
        arrays[f"{path}{down}"] = factor(rank, *shape[1:], seed=seed)
        arrays[f"{path}{up}"] = factor(shape[0], rank, *ones, seed=seed + 100)
    return arrays


SPELLINGS = {
    "lora_A": spelled(".lora_A.weight", ".lora_B.weight"),
    "lora.down": spelled(".lora.down.weight", ".lora.up.weight"),
    "old processor": spelled("_lora.down.weight", "_lora.up.weight", old=True),
    "old processor without unet": spelled(
        "_lora.down.weight", "_lora.up.weight", old=True, prefix=""
    ),
}


def unet_deltas(arrays, **kwargs):
    """What diffusers adds to each weight of a tiny UNet, as PEFT says it."""
    unet = make_tiny_unet()
    import torch  # noqa: PLC0415

    prefix = "unet" if next(iter(arrays)).startswith("unet.") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state_dict = {name: torch.from_numpy(array) for name, array in arrays.items()}
        unet.load_lora_adapter(state_dict, prefix=prefix, adapter_name="a", **kwargs)
    with torch.no_grad():
        return {
            f"unet.{name}": module.get_delta_weight("a").double().numpy()
            for name, module in unet.named_modules()
            if hasattr(module, "lora_A")
        }


def assert_same(layers, deltas):
    assert {layer.name for layer in layers} == set(deltas)
    for layer in layers:
        got = dense(layer)
        assert_allclose(got, deltas[layer.name].reshape(got.shape), rtol=1e-5, atol=1e-6)


# --- names and scale -------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["lora_A", "lora.down", "old processor"])
def test_each_change_is_what_diffusers_adds(spelling):
    arrays = SPELLINGS[spelling]
    adapter = adapter_from_state_dict(arrays)
    assert adapter.dialect == "diffusers"
    assert_same(adapter.layers, unet_deltas(arrays))


def test_every_spelling_makes_the_same_layers():
    by_spelling = {
        name: {layer.name: dense(layer) for layer in adapter_from_state_dict(arrays).layers}
        for name, arrays in SPELLINGS.items()
    }
    attention = {name for name in by_spelling["lora_A"] if "attn" in name}
    for layers in by_spelling.values():
        assert attention <= set(layers)
        for name in attention:
            assert_allclose(layers[name], by_spelling["lora_A"][name])


def test_without_alpha_or_config_the_scale_is_one_and_it_is_told_as_information():
    adapter = adapter_from_state_dict(diffusers_arrays())
    assert {layer.scale for layer in adapter.layers} == {1.0}
    assert {layer.alpha for layer in adapter.layers} == {None}
    (finding,) = adapter.findings
    assert (finding.code, finding.severity) == ("scale_assumed", Severity.INFO)


def test_mixed_ranks_without_alpha_keep_a_scale_of_one_each():
    # diffusers#14409: such files were loaded at a quarter of their strength.
    arrays = {**spelled(".lora_A.weight", ".lora_B.weight", rank=2)}
    arrays["unet.conv_in.lora_A.weight"] = factor(4, 4, 3, 3)
    arrays["unet.conv_in.lora_B.weight"] = factor(4, 4, 1, 1)
    assert_same(adapter_from_state_dict(arrays).layers, unet_deltas(arrays))


def test_an_alpha_tensor_is_divided_by_the_rank():
    arrays = {**spelled(".lora_A.weight", ".lora_B.weight")}
    arrays[f"unet.{ATTENTION}.to_q.alpha"] = np.array(3.0, np.float32)
    scales = {layer.name: layer.scale for layer in adapter_from_state_dict(arrays).layers}
    assert scales.pop(f"unet.{ATTENTION}.to_q") == 1.5
    assert set(scales.values()) == {1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": 6},
        {"lora_alpha": 6, "use_rslora": True},
        {"lora_alpha": 6, "alpha_pattern": {f"^{ATTENTION}.to_q": 1, "conv1": 12}},
    ],
)
def test_the_config_in_the_metadata_is_applied_as_diffusers_applies_it(tmp_path, changes):
    arrays = SPELLINGS["lora_A"]
    config = {"r": 2, "target_modules": list(MODULES), **changes}
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in config.items()}),
    }
    path = write_safetensors(tmp_path / "pytorch_lora_weights.safetensors", arrays, metadata)
    adapter = open_adapter(path)
    assert adapter.findings == ()
    assert {layer.configured_rank for layer in adapter.layers} == {2}
    assert adapter.config["lora_adapter_metadata"]["unet.r"] == 2
    prefixed = {f"unet.{k}": v for k, v in config.items()}
    assert_same(adapter.layers, unet_deltas(arrays, metadata=prefixed))


def test_what_diffusers_saves_is_read_as_it_was(tmp_path):
    unet = make_tiny_unet()
    import torch  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet.add_adapter(
            LoraConfig(
                r=3,
                lora_alpha=5,
                target_modules=["to_q", "to_out.0", "conv1"],
                init_lora_weights=False,
                rank_pattern={"to_q": 2},
            ),
            adapter_name="a",
        )
        unet.save_lora_adapter(tmp_path, adapter_name="a")
    with torch.no_grad():
        deltas = {
            f"unet.{name}": module.get_delta_weight("a").double().numpy()
            for name, module in unet.named_modules()
            if hasattr(module, "lora_A")
        }
    adapter = open_adapter(tmp_path)
    assert adapter.dialect == "diffusers"
    assert {layer.rank for layer in adapter.layers} == {2, 3}
    assert adapter.findings == ()
    assert_same([layer for layer in adapter.layers if "time_emb" not in layer.name], deltas)


def test_components_have_their_own_config():
    arrays = {
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": factor(2, 5),
        "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": factor(6, 2),
        "text_encoder_2.encoder.layers.0.self_attn.q_proj.lora_A.weight": factor(2, 5),
        "text_encoder_2.encoder.layers.0.self_attn.q_proj.lora_B.weight": factor(6, 2),
    }
    content = {
        "transformer.r": 2,
        "transformer.lora_alpha": 4,
        "text_encoder_2.r": 2,
        "text_encoder_2.lora_alpha": 16,
    }
    adapter = adapter_from_state_dict(
        arrays, metadata={"lora_adapter_metadata": json.dumps(content)}
    )
    assert {layer.name.partition(".")[0]: layer.scale for layer in adapter.layers} == {
        "transformer": 2.0,
        "text_encoder_2": 8.0,
    }


@pytest.mark.parametrize(
    ("down", "up", "name"),
    [
        (".to_q_lora.down.weight", ".to_q_lora.up.weight", "q_proj"),
        (".to_out_lora.down.weight", ".to_out_lora.up.weight", "out_proj"),
        (".k_proj.lora_linear_layer.down.weight", ".k_proj.lora_linear_layer.up.weight", "k_proj"),
        (".v_proj.lora_A.weight", ".v_proj.lora_B.weight", "v_proj"),
    ],
)
def test_text_encoder_modules_get_the_names_of_the_model(down, up, name):
    stem = "text_encoder.text_model.encoder.layers.0.self_attn"
    (layer,) = adapter_from_state_dict(
        {f"{stem}{down}": factor(2, 5), f"{stem}{up}": factor(6, 2)}
    ).layers
    assert layer.name == f"{stem}.{name}"


def test_files_of_comfyui_and_ai_toolkit_are_read():
    stem = "diffusion_model.double_blocks.0.img_attn.qkv"
    adapter = adapter_from_state_dict(
        {
            f"{stem}.lora_down.weight": factor(2, 5),
            f"{stem}.lora_up.weight": factor(9, 2),
            f"{stem}.alpha": np.array(1.0, np.float32),
            "diffusion_model.blocks.0.norm.diff": factor(5),
            "diffusion_model.blocks.0.ffn.diff_b": factor(5),
        }
    )
    (layer,) = adapter.layers
    assert (layer.name, layer.scale) == (stem, 0.5)
    assert sorted(extra.kind for extra in adapter.extras) == ["bias", "norm"]


def test_lokr_of_diffusers_takes_the_scale_of_its_config():
    stem = "transformer.transformer_blocks.0.attn.to_q"
    w1, w2 = factor(2, 3), factor(5, 4, seed=1)
    content = {"transformer.peft_type": "LOKR", "transformer.r": 4, "transformer.alpha": 2}
    adapter = adapter_from_state_dict(
        {f"{stem}.lokr_w1": w1, f"{stem}.lokr_w2": w2},
        metadata={"lora_adapter_metadata": json.dumps(content)},
    )
    (layer,) = adapter.layers
    # PEFT's LoKrConfig divides alpha by r even where no part is factored.
    assert (layer.method, layer.scale) == ("lokr", 0.5)
    assert adapter.peft_type == "LOKR"
    assert_allclose(dense(layer), 0.5 * np.kron(w1.astype(float), w2.astype(float)))


@pytest.mark.parametrize(
    "key", ["to_q.lora_magnitude_vector", "to_q.lora_magnitude_vector.weight", "to_q.dora_scale"]
)
def test_dora_keeps_its_magnitude(key):
    arrays = diffusers_arrays()
    stem = next(iter(arrays)).partition(".to_q")[0]
    adapter = adapter_from_state_dict({**arrays, f"{stem}.{key}": factor(6)})
    layer = next(x for x in adapter.layers if x.name.endswith("to_q"))
    assert layer.method == "dora"
    assert layer.magnitude is not None
    assert adapter.unread == ()


def test_the_bias_of_b_rides_with_its_layer():
    arrays = diffusers_arrays()
    name = next(name for name in arrays if name.endswith("up.weight"))
    adapter = adapter_from_state_dict({**arrays, name.replace("weight", "bias"): factor(6)})
    assert [layer.bias is not None for layer in adapter.layers].count(True) == 1


# --- refusals and findings -------------------------------------------------------------------


def test_alpha_and_config_that_contradict_each_other_are_refused():
    arrays = {**diffusers_arrays()}
    stem = next(iter(arrays)).removesuffix(".lora.down.weight")
    arrays[f"{stem}.alpha"] = np.array(8.0, np.float32)
    content = json.dumps({"unet.r": 2, "unet.lora_alpha": 2})
    with pytest.raises(AdapterError, match=r"alpha 8 at rank 2, a scale of 4.*says 1"):
        adapter_from_state_dict(arrays, metadata={"lora_adapter_metadata": content})


@pytest.mark.parametrize("text", ["{", "[]", '{"unet.r": "two"}', "[" * 100_000])
def test_metadata_that_is_no_config_is_one_sentence(text):
    with pytest.raises(AdapterConfigError, match="lora_adapter_metadata"):
        adapter_from_state_dict(diffusers_arrays(), metadata={"lora_adapter_metadata": text})


def test_a_rank_that_the_config_does_not_know_is_said():
    content = json.dumps({"unet.r": 8, "unet.lora_alpha": 8})
    adapter = adapter_from_state_dict(
        diffusers_arrays(), metadata={"lora_adapter_metadata": content}
    )
    assert [finding.code for finding in adapter.findings] == ["rank_mismatch"]
    assert {layer.scale for layer in adapter.layers} == {4.0}


def test_a_control_lora_is_refused_by_name():
    with pytest.raises(UnsupportedAdapterError, match="Control-LoRA"):
        adapter_from_state_dict(
            {"lora_controlnet": factor(1), "input_blocks.0.0.down": factor(2, 4)}
        )


def test_one_part_under_two_names_is_refused_with_both():
    arrays = {**SPELLINGS["lora_A"], **SPELLINGS["lora.down"]}
    with pytest.raises(AdapterError, match=r"lora_A\.weight and .*lora\.down\.weight"):
        adapter_from_state_dict(arrays)


def test_a_factor_without_its_partner_is_refused():
    arrays = diffusers_arrays()
    arrays.pop(next(iter(arrays)))
    with pytest.raises(AdapterError, match="'down' factor"):
        adapter_from_state_dict(arrays)


def test_a_full_model_is_not_taken_for_an_adapter():
    names = ["down_blocks.0.resnets.0.conv1.weight", "conv_in.bias", "time.down.weight"]
    assert not DIALECT.recognises(names)


# --- a real file -----------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared adapters are not here")
def test_a_real_stable_diffusion_adapter_is_read_to_the_last_byte():
    adapter = open_adapter(SHARED)
    assert len(adapter.layers) == 128
    assert {layer.rank for layer in adapter.layers} == {4}
    assert {layer.scale for layer in adapter.layers} == {1.0}
    assert adapter.layers[0].name == (
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    )
    assert adapter.unread == ()
    (file,) = adapter.files
    header = int.from_bytes(Path(file).read_bytes()[:8], "little")
    assert sum(layer.nbytes for layer in adapter.layers) == Path(file).stat().st_size - 8 - header
