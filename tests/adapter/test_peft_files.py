"""What is in a PEFT file beside its factors, and the spellings of old and wrapped files."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from factories_peft import (
    TinyNet,
    dense,
    distance,
    noise,
    one_layer,
    read_arrays,
    save_and_reload,
    scaled,
)
from gradience.adapter.config import misspelt
from gradience.adapter.dialects.peft import DIALECT
from gradience.adapter.read import read_config
from gradience.errors import AdapterError
from gradience.tensors.opening import open_tensor_file

peft = pytest.importorskip("peft")
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def pair(module, *, suffix=".weight", seed=0, rank=2):
    return {
        f"{module}.lora_A{suffix}": noise(rank, 4, seed=seed),
        f"{module}.lora_B{suffix}": noise(6, rank, seed=seed),
    }


def codes(parts):
    return [f.code for f in parts.findings]


def every_tensor(parts):
    in_layers = [t.name for x in parts.layers for t in x.tensors]
    return sorted(
        in_layers + [x.tensor.name for x in parts.extras] + [t.name for t in parts.unread]
    )


def tiny_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        vocab_size=20,
        max_position_embeddings=8,
    )
    return transformers.BertForSequenceClassification(config)


def tiny_llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=12,
        vocab_size=20,
    )
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("make", "options", "save", "kinds"),
    [
        (tiny_bert, {"target_modules": ["query"], "task_type": "SEQ_CLS"}, {}, {"head": 2}),
        (
            tiny_bert,
            {"target_modules": ["query"], "modules_to_save": ["pooler", "LayerNorm"]},
            {},
            {"norm": 6, "other": 2},
        ),
        (tiny_bert, {"target_modules": ["query"], "bias": "lora_only"}, {}, {"bias": 1}),
        (tiny_bert, {"target_modules": ["query"], "bias": "all"}, {}, {"bias": 11}),
        (
            tiny_llama,
            {"target_modules": ["q_proj", "embed_tokens"]},
            {},
            {"embedding": 1},
        ),
        (
            tiny_llama,
            {"target_modules": ["q_proj"]},
            {"save_embedding_layers": True},
            {"embedding": 1, "head": 1},
        ),
        (
            tiny_llama,
            {"target_modules": ["q_proj"], "trainable_token_indices": [1, 3]},
            {},
            {"tokens": 1},
        ),
    ],
    ids=["head", "modules", "lora_only", "all", "embedding", "resized", "tokens"],
)
def test_what_peft_saves_beside_the_factors_is_named(tmp_path, make, options, save, kinds):
    config = peft.LoraConfig(r=2, **options)
    saved = save_and_reload(make, config, tmp_path, **save)
    parts = saved.parts()
    found = {}
    for extra in parts.extras:
        found[extra.kind] = found.get(extra.kind, 0) + 1
    assert found == kinds
    assert parts.unread == ()
    assert parts.findings == ()
    for layer in parts.layers:
        assert distance(scaled(layer), saved.peft_delta(layer.name)) < 1e-6


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("base_model.model.", ".weight"),
        ("base_model.model.", ".default.weight"),
        ("base_model.model.", ".my-adapter_1.weight"),
        ("base_model.model.", ""),
        ("base_model.model.", ".default"),
        ("", ".weight"),
        ("module.base_model.model.", ".weight"),
        ("_orig_mod.base_model.model.", ".default.weight"),
        ("base_model.model._fsdp_wrapped_module.", ".weight"),
        ("base_model.model.base_model.model.", ".weight"),
    ],
)
def test_every_spelling_names_the_same_layer(prefix, suffix):
    module = "model.layers.0.self_attn.q_proj"
    arrays = pair(prefix + module, suffix=suffix)
    parts = read_arrays(arrays, LORA)
    assert DIALECT.recognises(arrays)
    assert [x.name for x in parts.layers] == [module]
    assert (parts.layers[0].scale, parts.findings) == (2.0, ())
    assert every_tensor(parts) == sorted(arrays)


def test_wrappers_inside_of_the_path_are_taken_out():
    arrays = pair("base_model.model.h.0._orig_mod.attn._checkpoint_wrapped_module.q")
    assert [x.name for x in read_arrays(arrays, LORA).layers] == ["h.0.attn.q"]


@pytest.mark.parametrize("suffix", [".weight", ""])
def test_dora_magnitude_is_found_under_both_names(suffix):
    arrays = pair("base_model.model.x")
    arrays[f"base_model.model.x.lora_magnitude_vector{suffix}"] = noise(6)
    layer = read_arrays(arrays, LORA | {"use_dora": True}).layers[0]
    assert layer.method == "dora"
    assert layer.magnitude.shape == (6,)
    assert len(layer.tensors) == 3


def test_dora_without_its_magnitude_is_an_error():
    with pytest.raises(AdapterError, match=r"x: .* its lora_magnitude_vector is not"):
        read_arrays(pair("base_model.model.x"), LORA | {"use_dora": True})


def test_weights_saved_under_two_names_are_counted_once():
    arrays = pair("base_model.model.x") | pair("base_model.model.x", suffix=".default.weight")
    parts = read_arrays(arrays, LORA)
    assert len(parts.layers) == 1
    assert codes(parts) == ["weights_saved_twice"]
    assert "differ" not in parts.findings[0].message
    assert every_tensor(parts) == sorted(arrays)
    assert parts.layers[0].parameters == 20
    assert [t.name for t in parts.layers[0].tensors] == [
        "base_model.model.x.lora_A.weight",
        "base_model.model.x.lora_B.weight",
    ]


def test_two_names_with_different_contents_are_said_to_differ():
    arrays = pair("base_model.model.x") | pair("x", suffix=".other.weight", seed=1)
    parts = read_arrays(arrays, LORA)
    assert "2 of them differ" in parts.findings[0].message
    wanted = arrays["base_model.model.x.lora_B.weight"] @ arrays["base_model.model.x.lora_A.weight"]
    assert distance(dense(parts.layers[0].delta), wanted) < 1e-6


def test_one_unknown_tensor_is_said_as_one():
    parts = read_arrays(pair("base_model.model.x") | {"base_model.model.y": noise(2, 2)}, LORA)
    assert parts.findings[0].message.startswith("1 tensor was not read: base_model.model.y")


def test_unknown_tensors_are_counted_and_named():
    arrays = pair("base_model.model.x")
    arrays |= {f"base_model.model.y.{i}.weight": noise(2, 2) for i in range(5)}
    parts = read_arrays(arrays, LORA)
    assert codes(parts) == ["unread_tensors"]
    assert "5 tensors were not read: base_model.model.y.0.weight" in parts.findings[0].message
    assert "and 2 more" in parts.findings[0].message
    assert len(parts.unread) == 5


def test_without_a_config_the_scale_is_assumed_aloud():
    parts = read_arrays(pair("base_model.model.x"))
    assert codes(parts) == ["scale_assumed"]
    layer = parts.layers[0]
    assert (layer.scale, layer.alpha, layer.configured_rank) == (1.0, None, None)


def test_without_alpha_pefts_default_is_taken_aloud():
    parts = read_arrays(pair("base_model.model.x"), {"peft_type": "LORA", "r": 2})
    assert codes(parts) == ["alpha_missing"]
    assert parts.layers[0].scale == 4.0


def test_tensors_win_over_a_config_of_another_rank():
    arrays = pair("base_model.model.x", rank=4) | pair("base_model.model.y")
    parts = read_arrays(arrays, LORA)
    assert codes(parts) == ["rank_mismatch"]
    assert parts.findings[0].modules == ("x",)
    layer = one_layer(parts, "x")
    assert (layer.rank, layer.configured_rank, layer.scale) == (4, 2, 1.0)
    assert "The scale takes that of the tensors: 1 for x, with alpha 4 and rank 4" in (
        parts.findings[0].message
    )


@pytest.mark.parametrize(
    ("key", "meant"),
    [("lora_alhpa", "lora_alpha"), ("use_rs_lora", "use_rslora"), ("rank_patern", "rank_pattern")],
)
def test_a_key_that_is_nearly_one_that_decides_is_named(key, meant):
    config = {k: v for k, v in LORA.items() if k != meant} | {key: LORA.get(meant)}
    parts = read_arrays(pair("base_model.model.x"), config)
    (finding,) = [f for f in parts.findings if f.code == "config_key_misspelt"]
    assert f"`{key}` has no effect; is `{meant}` meant?" in finding.message


def test_no_key_that_peft_writes_is_taken_for_a_misspelt_one():
    for kind in (peft.LoraConfig, peft.AdaLoraConfig, peft.LoHaConfig, peft.LoKrConfig):
        keys = {field.name: None for field in fields(kind)}
        assert misspelt(keys) == {}
        for missing in keys:
            assert misspelt({k: 1 for k in keys if k != missing}) == {}


def test_a_base_model_without_revision_is_noted():
    named = LORA | {"base_model_name_or_path": "org/model"}
    assert codes(read_arrays(pair("x"), named)) == ["base_revision_missing"]
    assert codes(read_arrays(pair("x"), named | {"revision": "abc"})) == []


def test_layers_come_in_the_order_of_the_model():
    arrays = {}
    for i in (10, 2, 1):
        arrays |= pair(f"base_model.model.h.{i}.q")
    assert [x.name for x in read_arrays(arrays, LORA).layers] == ["h.1.q", "h.2.q", "h.10.q"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x.lora_A.weight": noise(2, 4)},
            r"x: .*x\.lora_A\.weight is there and its lora_B is not",
        ),
        (
            {"x.lora_B.weight": noise(4, 2)},
            r"x: .*x\.lora_B\.weight is there and its lora_A is not",
        ),
        (
            {"x.lora_A.weight": noise(2, 4), "x.lora_B.weight": noise(4, 3)},
            r"x: the ranks disagree: .* \[2, 4\].*\[4, 3\]",
        ),
        (
            {"x.lora_A.weight": noise(2, 4), "x.lora_B.weight": noise(4, 4)},
            r"x: the ranks disagree",
        ),
        (
            {"x.lora_A.weight": noise(4, 4), "x.lora_B.weight": noise(4, 2)},
            r"x: the ranks disagree",
        ),
        ({"x.lora_A.weight": noise(8), "x.lora_B.weight": noise(4, 2)}, r"x: .*shape \[8\]"),
        ({"x.lora_A.weight": noise(2, 0), "x.lora_B.weight": noise(4, 2)}, r"shape \[2, 0\]"),
        ({"x.lora_A.weight": noise(0), "x.lora_B.weight": noise(0)}, r"shape \[0\]"),
        (
            {"x.lora_A.weight": np.ones((2, 4), np.int8), "x.lora_B.weight": noise(4, 2)},
            r"x: .*x\.lora_A\.weight is stored as I8",
        ),
        ({"x.lora_embedding_A": noise(2, 4)}, r"lora_embedding_B is not"),
        ({"x.lora_E": noise(2, 1)}, r"lora_A is not"),
        ({"x.lora_A": noise(2, 4), "x.lora_B": noise(3, 2), "x.lora_E": noise(3, 1)}, "disagree"),
        (
            {
                "x.lora_A": np.array(1.0, np.float32),
                "x.lora_B": noise(3, 2),
                "x.lora_E": noise(3, 1),
            },
            "shape",
        ),
        ({"x.hada_w1_a": noise(4, 2)}, r"hada_w1_b is not"),
        (
            {f"x.hada_{k}": noise(4, 2) for k in ("w1_a", "w1_b", "w2_a", "w2_b")},
            "do not fit together",
        ),
        ({"x.lokr_w1": noise(4, 2)}, r"lokr_w2_a is not"),
        (
            {"x.lokr_w1": noise(4, 2), "x.lokr_w2_a": noise(4, 2), "x.lokr_w2_b": noise(3, 2)},
            "do not fit together",
        ),
        (
            {"x.lora_A.weight": noise(4, 4), "x.lora_B.weight": noise(6, 2, 1)},
            "enable_lora",
        ),
    ],
)
def test_parts_that_do_not_make_an_update_are_one_error(arrays, message):
    named = {f"base_model.model.{name}": array for name, array in arrays.items()}
    with pytest.raises(AdapterError, match=message) as error:
        read_arrays(named, LORA)
    assert error.value.remedy


def test_an_unsharded_save_is_explained():
    arrays = {"x.lora_A.weight": noise(0), "x.lora_B.weight": noise(0)}
    with pytest.raises(AdapterError) as error:
        read_arrays(arrays, LORA)
    assert "ZeRO-3" in error.value.remedy


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        (["base_model.model.x.lora_A.weight"], True),
        (["transformer.h.0.attn.lora_A.weight"], True),
        (["unet.mid_block.attn.lora_A.weight"], False),
        (["text_encoder.layers.0.q_proj.lora_A.weight"], False),
        (["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"], False),
        (["lora_unet_mid_block.hada_w1_a", "lora_unet_mid_block.alpha"], False),
        (["lora_unet_x.lora_down.weight"], False),
        (["model.layers.0.weight"], False),
        ([], False),
    ],
)
def test_peft_files_are_told_apart_by_their_keys(names, ours):
    assert DIALECT.recognises(names) is ours


def test_a_torch_file_reads_like_a_safetensors_file(tmp_path):
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["lin"])
    saved = save_and_reload(TinyNet, config, tmp_path, safe_serialization=False)
    tensors = open_tensor_file(tmp_path / "adapter_model.bin").tensors
    parts = DIALECT.read(tensors, read_config(tmp_path / "adapter_config.json"), {})
    assert distance(scaled(one_layer(parts, "lin")), saved.peft_delta("lin")) < 1e-6


def test_the_fused_projection_of_2023_is_a_grouped_convolution():
    # MergedLinear of PEFT 0.2: F.conv1d over the stacked factors, rows of zeros where disabled.
    enabled, rank, part, wide = (True, False, True), 3, 4, 5
    a, b = noise(2 * rank, wide), noise(2 * part, rank, 1)
    stacked = torch.nn.functional.conv1d(torch.tensor(a)[None], torch.tensor(b), groups=2)[0]
    wanted = np.zeros((3, part, wide), np.float32)
    wanted[[0, 2]] = stacked.reshape(2, part, wide).numpy()
    arrays = {"x.lora_A.weight": a, "x.lora_B.weight": b}
    config = LORA | {"r": rank, "lora_alpha": 6, "enable_lora": list(enabled)}
    parts = read_arrays(arrays, config | {"fan_in_fan_out": True})
    layer = parts.layers[0]
    assert (layer.scale, layer.rank, layer.configured_rank) == (2.0, 6, 6)
    assert layer.base_transposed
    assert distance(dense(layer.delta), wanted.reshape(12, wide)) < 1e-6
    assert parts.findings == ()
