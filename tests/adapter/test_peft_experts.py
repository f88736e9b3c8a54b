"""Stacked MoE parameters (`target_parameters`), against PEFT on tiny transformers models."""

import itertools
import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from factories_peft import (
    SavedAdapter,
    distance,
    noise,
    numpy,
    read_arrays,
    save_and_reload,
    scaled,
)
from gradience.errors import AdapterError

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "head_dim": 8,
}


def mixtral():
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2)
    return transformers.MixtralForCausalLM(config)


def qwen3_moe():
    config = transformers.Qwen3MoeConfig(
        **SMALL, moe_intermediate_size=12, num_experts=3, num_experts_per_tok=2
    )
    return transformers.Qwen3MoeForCausalLM(config)


def gpt_oss():
    config = transformers.GptOssConfig(**SMALL, num_local_experts=5, num_experts_per_tok=2)
    return transformers.GptOssForCausalLM(config)


def stacked(layers, parameter, *, transposed):
    """The experts of one parameter as the (experts, ., .) array that the base stores."""
    found = [scaled(x) for x in layers if x.parameter == parameter]
    return np.stack([x.T if transposed else x for x in found])


def wrappers(saved, module):
    """PEFT's nested wrappers of a module, by the parameter that each one adapts."""
    found, wrapper = {}, saved.reloaded.base_model.model.get_submodule(module)
    while hasattr(wrapper, "parameter_name"):
        with torch.no_grad():
            found[wrapper.parameter_name] = numpy(wrapper.get_delta_weight("default"))
        wrapper = wrapper.base_layer
    return found


@pytest.mark.parametrize(
    ("make", "experts", "transposed"),
    [(mixtral, 4, False), (qwen3_moe, 3, False), (gpt_oss, 5, True)],
    ids=["mixtral", "qwen3_moe", "gpt_oss"],
)
@pytest.mark.parametrize(
    "targets",
    [
        ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        ["experts.down_proj"],
        ["gate_up_proj", "down_proj"],
    ],
    ids=["both", "one", "bare"],
)
def test_every_expert_has_its_own_delta(tmp_path, make, experts, transposed, targets):
    config = peft.LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["q_proj"],
        target_parameters=targets,
        rank_pattern={"experts.down_proj": 3},
        alpha_pattern={r".*\.gate_up_proj": 5},
    )
    saved = save_and_reload(make, config, tmp_path)
    parts = saved.parts()
    assert parts.unread == ()
    assert [f.code for f in parts.findings if f.code != "base_revision_missing"] == []
    module = "model.layers.0.mlp.experts"
    layers = [x for x in parts.layers if x.name == module]
    wanted = wrappers(saved, module)
    assert {x.parameter for x in layers} == set(wanted)
    assert len(layers) == experts * len(wanted)
    for parameter, delta in wanted.items():
        found = stacked(layers, parameter, transposed=transposed)
        assert distance(found, delta) < 1e-6
    assert {x.rank for x in layers if x.parameter == "down_proj"} == {3}
    assert all(x.kind == "expert" and x.configured_rank == x.rank for x in layers)
    # Tensors are counted once, and each expert has its share.
    total = sum(t.nbytes for x in layers for t in x.tensors)
    assert total == sum(x.nbytes for x in layers) > 0
    ordinary = next(x for x in parts.layers if x.name.endswith("q_proj"))
    assert distance(scaled(ordinary), saved.peft_delta(ordinary.name)) < 1e-6


def test_a_targeted_parameter_of_a_linear_layer_is_one_layer(tmp_path):
    config = peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=[], target_parameters=["q_proj.weight", "mlp.gate.weight"]
    )
    saved = save_and_reload(mixtral, config, tmp_path)
    layers = saved.parts().layers
    assert [x.label for x in layers] == [
        "model.layers.0.mlp.gate",
        "model.layers.0.self_attn.q_proj",
    ]
    for layer in layers:
        assert (layer.kind, layer.expert, layer.rank) == ("linear", None, 2)
        assert distance(scaled(layer), saved.peft_delta(layer.name)) < 1e-6


def test_unknown_parameters_of_one_module_are_not_guessed():
    arrays = {
        f"base_model.model.moe.{depth}lora_{part}.weight": noise(*shape)
        for depth in ("", "base_layer.")
        for part, shape in (("A", (4, 6)), ("B", (8, 4)))
    }
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_parameters": ["moe.alpha", "moe.beta"],
    }
    layers = read_arrays(arrays, config).layers
    assert {x.parameter for x in layers} == {""}
    assert len(layers) == 4


def test_rows_that_do_not_divide_into_experts_are_an_error():
    arrays = {
        "base_model.model.moe.lora_A.weight": noise(5, 6),
        "base_model.model.moe.lora_B.weight": noise(8, 5),
    }
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_parameters": ["moe.w1"]}
    with pytest.raises(AdapterError, match=r"moe: .*lora_A.* 5 rows.*rank 2"):
        read_arrays(arrays, config)


def test_experts_of_transformers_4_have_the_delta_that_peft_converts_them_to(tmp_path):
    # Saved when experts were modules; PEFT fuses w1 and w3 into gate_up_proj as it loads.
    shapes = {"w1": (16, 24), "w3": (16, 24), "w2": (24, 16)}
    arrays = {}
    for expert, (name, (wide, out)) in itertools.product(range(4), shapes.items()):
        module = f"base_model.model.model.layers.0.block_sparse_moe.experts.{expert}.{name}"
        arrays[f"{module}.lora_A.weight"] = noise(2, wide, seed=expert)
        arrays[f"{module}.lora_B.weight"] = noise(out, 2, seed=expert)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": list(shapes)}
    save_file(arrays, str(tmp_path / "adapter_model.safetensors"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of a pattern that it made itself
        reloaded = peft.PeftModel.from_pretrained(mixtral(), str(tmp_path))
    wanted = wrappers(SavedAdapter(path=tmp_path, reloaded=reloaded), "model.layers.0.mlp.experts")
    found = {
        layer.name.partition("experts.")[2]: scaled(layer)
        for layer in read_arrays(arrays, config).layers
    }
    for expert in range(4):
        fused = np.concatenate([found[f"{expert}.w1"], found[f"{expert}.w3"]])
        assert distance(fused, wanted["gate_up_proj"][expert]) < 1e-6
        assert distance(found[f"{expert}.w2"], wanted["down_proj"][expert]) < 1e-6
