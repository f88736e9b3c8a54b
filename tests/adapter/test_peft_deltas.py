"""Scale and delta of every method, held against PEFT's own get_delta_weight on a reloaded file."""

import numpy as np
import pytest
import torch
from torch import nn

from factories_peft import (
    TinyNet,
    dense,
    distance,
    one_layer,
    save_and_reload,
    scaled,
)

peft = pytest.importorskip("peft")

CLOSE = 1e-6


@pytest.mark.parametrize("module", ["lin", "conv", "point", "line", "volume", "emb"])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_lora_on_every_kind_of_module(tmp_path, module, options):
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=[module], **options)
    saved = save_and_reload(TinyNet, config, tmp_path)
    layer = one_layer(saved.parts(), module)
    assert distance(scaled(layer), saved.peft_delta(module)) < CLOSE
    assert layer.scale == pytest.approx(6 / 2 if options else 6 / 4)
    assert (layer.rank, layer.configured_rank, layer.alpha) == (4, 4, 6)
    assert layer.kind == {"lin": "linear", "emb": "embedding"}.get(module, "conv")


def test_a_grouped_convolution_changes_what_forward_changes(tmp_path):
    # PEFT cannot form this delta (get_delta_weight raises), so its forward is the oracle.
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["grouped"])
    saved = save_and_reload(TinyNet, config, tmp_path)
    layer = one_layer(saved.parts(), "grouped")
    found = saved.reloaded.base_model.model.grouped
    x = torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        wanted = found(x) - found.base_layer(x)
        kernel = torch.tensor(scaled(layer)).reshape(12, 8, 3, 3).float()
        assert torch.allclose(nn.functional.conv2d(x, kernel), wanted, atol=1e-4)


def test_attention_is_adapted_as_in_proj_and_out_proj(tmp_path):
    config = peft.LoraConfig(r=2, lora_alpha=5, target_modules=["mha"], rank_pattern={"mha": 3})
    saved = save_and_reload(TinyNet, config, tmp_path)
    inner, outer = one_layer(saved.parts(), "mha"), one_layer(saved.parts(), "mha.out_proj")
    assert (inner.parameter, outer.parameter) == ("in_proj_weight", "weight")
    assert inner.scale == outer.scale == pytest.approx(5 / 3)
    assert distance(scaled(inner), saved.peft_delta("mha")) < CLOSE
    assert distance(scaled(outer), saved.peft_delta("mha.base_layer.out_proj")) < CLOSE


class Blocks(nn.Module):
    """Names on which a substring rule and a suffix rule differ from PEFT's."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({n: nn.Linear(8, 8) for n in ("q_proj", "xq_proj", "v_proj")})
            for _ in range(3)
        )

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("ranks", "alphas"),
    [
        ({"q_proj": 3}, {"q_proj": 7}),
        ({r"layers\.[01]\..*": 3}, {r"layers\.\d+\.v_proj": 5, "v_proj": 9}),
        ({"layers.1.q_proj": 2, "q_proj": 3}, {r".*q_proj": 4}),
        ({"proj": 3, "layers": 2}, {"q_.roj": 3, "layers.0": 9}),
        ({r"^layers\.2\.(?:q|v)_proj": 3}, {r"(layers\.)?(0|2)\.xq_proj": 2}),
    ],
)
@pytest.mark.parametrize("rslora", [False, True])
def test_patterns_follow_peft_module_by_module(tmp_path, ranks, alphas, rslora):
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "xq_proj", "v_proj"],
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_rslora=rslora,
    )
    saved = save_and_reload(Blocks, config, tmp_path)
    parts = saved.parts()
    assert len(parts.layers) == 9
    for layer in parts.layers:
        module = saved.reloaded.base_model.model.get_submodule(layer.name)
        assert (layer.rank, layer.alpha) == (module.r["default"], module.lora_alpha["default"])
        assert layer.configured_rank == layer.rank
        assert distance(scaled(layer), saved.peft_delta(layer.name)) < CLOSE
    # One of the pairs of alphas overlaps, on purpose.
    overlap = ["alpha_ambiguous"] if "v_proj" in alphas else []
    assert [f.code for f in parts.findings] == overlap


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_gpt2_stores_its_weights_transposed(tmp_path, method):
    transformers = pytest.importorskip("transformers")
    shape = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8)
    if method == "lora":
        config = peft.LoraConfig(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    else:
        config = peft.AdaLoraConfig(
            target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, total_step=10
        )
    saved = save_and_reload(lambda: transformers.GPT2LMHeadModel(shape), config, tmp_path)
    layers = saved.parts().layers
    assert [x.name.rpartition("h.0.")[2] for x in layers] == [
        "attn.c_attn",
        "attn.c_proj",
        "mlp.c_proj",
    ]
    for layer in layers:
        assert layer.base_transposed
        assert distance(scaled(layer), saved.peft_delta(layer.name)) < CLOSE


@pytest.mark.parametrize("module", ["lin", "conv", "line", "point", "emb"])
def test_dora_has_its_direction_and_its_magnitude(tmp_path, module):
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=[module], use_dora=True)

    def lengthen(model):
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "magnitude" in name:
                    weight.abs_().add_(0.5)

    saved = save_and_reload(TinyNet, config, tmp_path, change=lengthen)
    layer = one_layer(saved.parts(), module)
    assert layer.method == "dora"
    assert distance(scaled(layer), saved.peft_delta(module)) < CLOSE
    # The true change, rebuilt from the record and the base weight, is what PEFT merges.
    base = saved.reloaded.base_model.model.get_submodule(module).base_layer.weight
    before = base.detach().double().numpy().copy()
    rows = before.T if layer.base_transposed else before.reshape(before.shape[0], -1)
    direction = rows + layer.scale * dense(layer.delta)
    magnitude = np.asarray(layer.magnitude.read(), dtype=np.float64).reshape(-1, 1)
    # The norm is that of a row of the (out, in) matrix: for an embedding one per dimension.
    wanted_norm = np.linalg.norm(direction, axis=1, keepdims=True)
    rebuilt = magnitude / wanted_norm * direction
    merged = saved.reloaded.merge_and_unload().get_submodule(module).weight
    after = merged.detach().double().numpy()
    after = after.T if layer.base_transposed else after.reshape(after.shape[0], -1)
    assert distance(rebuilt, after) < CLOSE


def test_dora_of_a_transposed_weight(tmp_path):
    transformers = pytest.importorskip("transformers")
    shape = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8)
    config = peft.LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True, use_rslora=True
    )
    saved = save_and_reload(lambda: transformers.GPT2LMHeadModel(shape), config, tmp_path)
    layer = saved.parts().layers[0]
    base = saved.reloaded.base_model.model.get_submodule(layer.name).base_layer.weight
    direction = base.detach().double().numpy().T + layer.scale * dense(layer.delta)
    magnitude = np.asarray(layer.magnitude.read(), dtype=np.float64).reshape(-1, 1)
    rebuilt = magnitude / np.linalg.norm(direction, axis=1, keepdims=True) * direction
    merged = saved.reloaded.merge_and_unload().get_submodule(layer.name).weight
    assert distance(rebuilt.T, merged.detach().double().numpy()) < CLOSE


def test_lora_bias_is_kept_beside_the_weight(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["lin"], lora_bias=True)
    saved = save_and_reload(TinyNet, config, tmp_path)
    layer = one_layer(saved.parts(), "lin")
    assert layer.bias is not None
    assert layer.bias.shape == (18,)
    assert distance(scaled(layer), saved.peft_delta("lin")) < CLOSE


def test_adalora_divides_by_the_rank_it_began_with(tmp_path):
    config = peft.AdaLoraConfig(
        init_r=6, target_r=3, lora_alpha=10, target_modules=["lin", "conv"], total_step=10
    )
    kept = [True, False, True, True, False, False]

    def prune(model):
        model.peft_config["default"].rank_pattern = {
            "lin.lora_E": kept,
            "conv.lora_E": [True] * 6,
        }

    saved = save_and_reload(TinyNet, config, tmp_path, change=prune)
    parts = saved.parts()
    for name, rank in (("lin", 3), ("conv", 6)):
        layer = one_layer(parts, name)
        assert (layer.method, layer.rank, layer.configured_rank) == ("adalora", rank, rank)
        assert layer.scale == pytest.approx(10 / (6 + 1e-5), rel=1e-9)
        assert distance(scaled(layer), saved.peft_delta(name)) < CLOSE


def test_adalora_may_prune_a_module_to_nothing(tmp_path):
    config = peft.AdaLoraConfig(init_r=4, lora_alpha=10, target_modules=["lin"], total_step=10)

    def prune(model):
        model.peft_config["default"].rank_pattern = {"lin.lora_E": [False] * 4}

    layer = one_layer(save_and_reload(TinyNet, config, tmp_path, change=prune).parts(), "lin")
    assert (layer.rank, layer.configured_rank) == (0, 0)
    assert layer.shape == (18, 12)
    assert not dense(layer.delta).any()


@pytest.mark.parametrize("effective", [False, True], ids=["flat", "tucker"])
@pytest.mark.parametrize("module", ["lin", "conv", "point", "line"])
@pytest.mark.parametrize("r", [2, 5])
def test_loha(tmp_path, module, r, effective):
    config = peft.LoHaConfig(
        r=r, alpha=3, target_modules=[module], use_effective_conv2d=effective, init_weights=False
    )
    saved = save_and_reload(TinyNet, config, tmp_path)
    layer = one_layer(saved.parts(), module)
    assert (layer.method, layer.scale) == ("loha", pytest.approx(3 / r))
    assert layer.rank == min(r * r, *layer.shape) == layer.configured_rank
    assert distance(scaled(layer), saved.peft_delta(module)) < CLOSE


@pytest.mark.parametrize("effective", [False, True], ids=["flat", "tucker"])
@pytest.mark.parametrize("both", [False, True], ids=["whole", "decomposed"])
@pytest.mark.parametrize("module", ["lin", "conv", "point", "line"])
@pytest.mark.parametrize("r", [1, 2, 8])
def test_lokr(tmp_path, module, r, both, effective):
    if (module, r, effective) == ("line", 1, True):
        pytest.skip("PEFT 0.21 itself cannot form this delta: torch.kron refuses the strides")
    config = peft.LoKrConfig(
        r=r,
        alpha=3,
        target_modules=[module],
        decompose_both=both,
        use_effective_conv2d=effective,
        init_weights=False,
    )
    saved = save_and_reload(TinyNet, config, tmp_path)
    layer = one_layer(saved.parts(), module)
    assert (layer.method, layer.scale) == ("lokr", pytest.approx(3 / r))
    assert layer.configured_rank == layer.rank
    assert distance(scaled(layer), saved.peft_delta(module)) < CLOSE


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_lycoris_patterns_follow_peft(tmp_path, kind):
    make = peft.LoHaConfig if kind == "loha" else peft.LoKrConfig
    config = make(
        r=3,
        alpha=6,
        target_modules=["lin", "out"],
        rank_pattern={"o.t": 2},
        alpha_pattern={"lin": 5},
        init_weights=False,
    )
    saved = save_and_reload(TinyNet, config, tmp_path)
    for layer in saved.parts().layers:
        assert distance(scaled(layer), saved.peft_delta(layer.name)) < CLOSE


def test_bf16_factors_give_the_same_delta(tmp_path):
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["lin", "conv"])
    saved = save_and_reload(TinyNet, config, tmp_path, change=lambda m: m.to(torch.bfloat16))
    for name in ("lin", "conv"):
        layer = one_layer(saved.parts(), name)
        assert {t.dtype for t in layer.tensors} == {"BF16"}
        assert distance(scaled(layer), saved.peft_delta(name)) < CLOSE
