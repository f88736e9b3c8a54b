"""The kohya dialect: alpha / rank, and every method that LyCORIS stores under flattened names."""

import json
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from factories_adapters import dense, factor, kohya_arrays, make_tiny_unet, write_safetensors
from gradience.adapter.dialects.kohya import DIALECT
from gradience.adapter.read import adapter_from_state_dict, open_adapter
from gradience.errors import AdapterError, UnsupportedAdapterError
from gradience.tensors.opening import tensors_in_memory

NAME = "lora_unet_mid_block_attentions_0_proj_in"


def only_layer(parts, prefix=NAME):
    """The one layer of a module whose parts are given by their suffix."""
    adapter = adapter_from_state_dict({f"{prefix}.{k}": np.asarray(v) for k, v in parts.items()})
    (layer,) = adapter.layers
    assert adapter.dialect == "kohya"
    assert layer.name == prefix
    assert layer.nbytes == sum(np.asarray(v).nbytes for v in parts.values())
    return layer


# --- scale -----------------------------------------------------------------------------------


@given(
    rank=st.integers(1, 5),
    alpha=st.sampled_from([0.5, 1.0, 3.0, -2.0, 32.0]),
    dtype=st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16, np.float64]),
)
def test_the_change_is_alpha_over_rank_times_up_times_down(rank, alpha, dtype):
    arrays = kohya_arrays(rank=rank, alpha=alpha, dtype=dtype)
    (layer,) = adapter_from_state_dict(arrays).layers
    down, up, _ = (array.astype(np.float64) for array in arrays.values())
    assert layer.scale == alpha / rank
    assert (layer.rank, layer.alpha, layer.method, layer.kind) == (rank, alpha, "lora", "linear")
    assert_allclose(dense(layer), alpha / rank * up @ down, rtol=1e-12)
    assert layer.parameters == up.size + down.size


@pytest.mark.parametrize("alpha", [np.array(4, np.int64), np.array([4.0], np.float32)])
def test_alpha_may_be_a_whole_number_or_have_one_dimension(alpha):
    layer = only_layer(
        {"lora_down.weight": factor(2, 5), "lora_up.weight": factor(6, 2), "alpha": alpha}
    )
    assert layer.scale == 2.0


def test_without_alpha_the_scale_is_one_and_it_is_said():
    adapter = adapter_from_state_dict(kohya_arrays(alpha=None))
    assert adapter.layers[0].scale == 1.0
    assert adapter.layers[0].alpha is None
    (finding,) = adapter.findings
    assert finding.code == "alpha_missing"
    assert finding.modules == (NAME,)


def test_alpha_zero_is_a_scale_of_zero_and_it_is_said():
    adapter = adapter_from_state_dict(kohya_arrays(alpha=0.0))
    assert adapter.layers[0].scale == 0.0
    assert [f.code for f in adapter.findings] == ["alpha_zero"]


@pytest.mark.parametrize("alpha", [np.nan, np.inf, -np.inf])
def test_an_alpha_that_is_no_number_is_refused_by_name(alpha):
    with pytest.raises(AdapterError, match=rf"{NAME}\.alpha is (nan|-?inf)"):
        adapter_from_state_dict(kohya_arrays(alpha=alpha))


def test_an_alpha_of_several_numbers_is_refused():
    with pytest.raises(AdapterError, match="alpha is one number"):
        only_layer(
            {"lora_down.weight": factor(2, 5), "lora_up.weight": factor(6, 2), "alpha": factor(2)}
        )


# --- forms -----------------------------------------------------------------------------------


def test_a_convolution_is_flattened_as_its_kernel_lies():
    down, up = factor(3, 4, 3, 3), factor(6, 3, 1, 1, seed=1)
    layer = only_layer({"lora_down.weight": down, "lora_up.weight": up, "alpha": np.float32(1.5)})
    want = 0.5 * np.einsum("orxy,rikl->oikl", up.astype(float), down.astype(float))
    assert layer.kind == "conv"
    assert_allclose(dense(layer), want.reshape(6, -1), rtol=1e-12)


def test_a_convolution_with_a_core_is_the_einsum_of_lycoris():
    down, mid, up = factor(3, 4, 1, 1), factor(3, 3, 3, 3, seed=1), factor(6, 3, 1, 1, seed=2)
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    layer = only_layer({**parts, "alpha": np.float32(3)})
    # lycoris.modules.locon: einsum("i j k l, p i, j r -> p r k l", t, wa, wb)
    want = np.einsum(
        "ijkl,pi,jr->prkl", mid.astype(float), up[..., 0, 0].astype(float), down[..., 0, 0]
    )
    assert (layer.kind, layer.rank) == ("conv", 3)
    assert_allclose(dense(layer), want.reshape(6, -1), rtol=1e-12)


def loha(w1a, w1b, w2a, w2b):
    return {"hada_w1_a": w1a, "hada_w1_b": w1b, "hada_w2_a": w2a, "hada_w2_b": w2b}


def test_loha_is_the_hadamard_product_at_alpha_over_rank():
    w1a, w1b, w2a, w2b = factor(9, 2), factor(2, 8), factor(9, 2, seed=1), factor(2, 8, seed=1)
    layer = only_layer({**loha(w1a, w1b, w2a, w2b), "alpha": np.float32(1)})
    want = 0.5 * (w1a.astype(float) @ w1b) * (w2a.astype(float) @ w2b)
    assert (layer.method, layer.scale, layer.rank) == ("loha", 0.5, 2)
    assert_allclose(dense(layer), want, rtol=1e-6)


def test_loha_with_cores_is_the_tucker_form_of_lycoris():
    parts = loha(factor(2, 9), factor(2, 8), factor(2, 9, seed=1), factor(2, 8, seed=1))
    t1, t2 = factor(2, 2, 3, 3, seed=2), factor(2, 2, 3, 3, seed=3)
    layer = only_layer({**parts, "hada_t1": t1, "hada_t2": t2, "alpha": np.float32(2)})

    def tucker(t, a, b):
        return np.einsum("ijkl,jr,ip->prkl", *(x.astype(float) for x in (t, b, a)))

    want = tucker(t1, parts["hada_w1_a"], parts["hada_w1_b"]) * tucker(
        t2, parts["hada_w2_a"], parts["hada_w2_b"]
    )
    assert layer.kind == "conv"
    assert_allclose(dense(layer), want.reshape(9, -1), rtol=1e-9, atol=1e-12)


def test_lokr_divides_alpha_by_the_rank_of_the_factored_part():
    w1, a, b = factor(2, 3), factor(5, 2, seed=1), factor(2, 4, seed=2)
    parts = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": np.float32(1)}
    layer = only_layer(parts)
    assert (layer.method, layer.scale) == ("lokr", 0.5)
    assert_allclose(dense(layer), 0.5 * np.kron(w1.astype(float), a.astype(float) @ b), rtol=1e-6)


def test_lokr_of_two_whole_parts_is_scaled_by_nothing():
    # lycoris.modules.lokr: "if self.use_w2 and self.use_w1: alpha = lora_dim", a scale of 1,
    # whatever the file stores as alpha; diffusers drops it too (_bake_lokr_alpha_).
    w1, w2 = factor(2, 3), factor(5, 4, 3, 3, seed=1)
    layer = only_layer({"lokr_w1": w1, "lokr_w2": w2, "alpha": np.float32(7)})
    want = np.einsum("ab,cdkl->acbdkl", w1.astype(float), w2.astype(float))
    assert (layer.scale, layer.kind) == (1.0, "conv")
    assert_allclose(dense(layer), want.reshape(10, -1), rtol=1e-12)


def test_lokr_with_a_core_is_a_convolution():
    w1, core = factor(2, 3), factor(2, 2, 3, 3, seed=1)
    a, b = factor(2, 5, seed=2), factor(2, 4, seed=3)
    parts = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "lokr_t2": core}
    layer = only_layer({**parts, "alpha": np.float32(2)})
    w2 = np.einsum("ijkl,jr,ip->prkl", *(x.astype(float) for x in (core, b, a)))
    want = np.einsum("ab,cdkl->acbdkl", w1.astype(float), w2).reshape(10, -1)
    assert layer.kind == "conv"
    assert_allclose(dense(layer), want, rtol=1e-9, atol=1e-12)


def test_a_full_difference_is_its_own_change():
    diff = factor(4, 3, 3, 3)
    adapter = adapter_from_state_dict(
        {f"{NAME}.diff": diff, f"{NAME}.diff_b": factor(4), "lora_unet_norm.diff": factor(3)}
    )
    (layer,) = adapter.layers
    assert (layer.method, layer.scale, layer.kind, layer.alpha) == ("full", 1.0, "conv", None)
    assert_allclose(dense(layer), diff.reshape(4, -1))
    assert sorted(extra.kind for extra in adapter.extras) == ["bias", "norm"]
    assert adapter.findings == ()  # a difference needs no alpha


def test_dora_keeps_the_magnitude_of_rows():
    parts = {"lora_down.weight": factor(2, 5), "lora_up.weight": factor(6, 2)}
    layer = only_layer({**parts, "alpha": np.float32(2), "dora_scale": factor(6, 1)})
    assert layer.method == "dora"
    assert layer.magnitude is not None
    assert layer.magnitude.shape == (6, 1)


@pytest.mark.parametrize("out", [6, 5])
def test_a_magnitude_of_columns_is_not_taken_for_one_of_rows(out):
    # LyCORIS without wd_on_output stores (1, in); in a square weight only the shape tells.
    parts = {"lora_down.weight": factor(2, 5), "lora_up.weight": factor(out, 2)}
    layer = only_layer({**parts, "alpha": np.float32(2), "dora_scale": factor(1, 5)})
    assert layer.method == "dora"
    assert layer.magnitude is None


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("oft_blocks", "OFT"),
        ("oft_diag", "OFT"),
        ("on_input", "IA3"),
        ("a1.weight", "GLoRA"),
    ],
)
def test_methods_without_a_change_of_their_own_are_refused_by_name(part, said):
    with pytest.raises(UnsupportedAdapterError, match=said):
        adapter_from_state_dict({f"{NAME}.{part}": factor(2, 2)})


@pytest.mark.parametrize("lost", ["lora_down.weight", "lora_up.weight"])
def test_a_factor_without_its_partner_is_refused_with_both_names(lost):
    arrays = kohya_arrays()
    del arrays[f"{NAME}.{lost}"]
    left = "lora_up.weight" if "down" in lost else "lora_down.weight"
    with pytest.raises(AdapterError, match=left) as caught:
        adapter_from_state_dict(arrays)
    assert "down" in str(caught.value)
    assert "up" in str(caught.value)


def test_ranks_that_disagree_are_refused_with_their_shapes():
    arrays = {**kohya_arrays(), f"{NAME}.lora_up.weight": factor(6, 3)}
    with pytest.raises(AdapterError, match=r"\[2, 5\].*\[6, 3\]"):
        adapter_from_state_dict(arrays)


def test_half_the_channels_of_a_kernel_are_not_taken_for_groups():
    parts = {"lora_down.weight": factor(4, 5, 3, 3), "lora_up.weight": factor(6, 2, 1, 1)}
    with pytest.raises(AdapterError, match="ranks disagree"):
        only_layer(parts)


def test_two_methods_in_one_module_are_refused():
    arrays = {**kohya_arrays(), f"{NAME}.diff": factor(6, 5)}
    with pytest.raises(UnsupportedAdapterError, match="lora and full"):
        adapter_from_state_dict(arrays)


@pytest.mark.parametrize("bad", [np.zeros((0, 5), np.float32), np.zeros((2, 5), np.int64)])
def test_a_factor_that_is_empty_or_whole_numbers_is_refused(bad):
    with pytest.raises(AdapterError, match=r"lora_down\.weight"):
        adapter_from_state_dict({**kohya_arrays(), f"{NAME}.lora_down.weight": bad})


# --- the whole file --------------------------------------------------------------------------


def test_every_byte_is_a_layer_an_extra_or_unread(tmp_path):
    arrays = {
        **kohya_arrays({NAME: (6, 5), "lora_te_text_model_encoder_layers_10_mlp_fc1": (8, 4)}),
        "lora_te_text_model_encoder_layers_2_mlp_fc1.alpha": np.float32(1),
        "lora_te_text_model_encoder_layers_2_mlp_fc1.odd": factor(3),
        "bundle_emb.word.string_to_param.*": factor(2, 7),
        "stray": factor(2),
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    adapter = open_adapter(write_safetensors(tmp_path / "style.safetensors", arrays))
    assert [e.kind for e in adapter.extras] == ["tokens"]
    assert len(adapter.unread) == 3
    assert [f.code for f in adapter.findings] == ["unread_tensors"]
    total = (
        sum(layer.nbytes for layer in adapter.layers)
        + sum(extra.tensor.nbytes for extra in adapter.extras)
        + sum(tensor.nbytes for tensor in adapter.unread)
    )
    assert total == sum(array.nbytes for array in arrays.values())


def test_layers_come_in_the_order_of_their_numbers():
    names = [f"lora_te_text_model_encoder_layers_{i}_mlp_fc1" for i in (10, 2, 1)]
    adapter = adapter_from_state_dict(kohya_arrays(dict.fromkeys(names, (6, 5))))
    assert [layer.name for layer in adapter.layers] == names[::-1]


def test_metadata_tells_the_base_and_the_training_and_not_the_data_set(tmp_path):
    metadata = {
        "ss_network_dim": "2",
        "ss_network_alpha": "1",
        "ss_network_args": json.dumps({"algo": "locon"}),
        "ss_sd_model_name": "v1-5-pruned.safetensors",
        "ss_base_model_version": "sd_v1",
        "ss_tag_frequency": json.dumps({"my_photos": {"me": 20}}),
        "ss_vae_name": "None",
    }
    adapter = open_adapter(
        write_safetensors(tmp_path / "style.safetensors", kohya_arrays(), metadata)
    )
    assert adapter.base_model == "v1-5-pruned.safetensors"
    assert adapter.config["ss_network_args"] == {"algo": "locon"}
    assert adapter.config["ss_network_dim"] == "2"
    assert "ss_tag_frequency" not in adapter.config


def test_each_module_is_read_with_its_own_rank_and_alpha():
    arrays = {
        **kohya_arrays({"lora_unet_a": (6, 5)}, rank=2, alpha=1.0),
        **kohya_arrays({"lora_unet_b": (6, 5)}, rank=4, alpha=8.0),
    }
    adapter = adapter_from_state_dict(arrays)
    assert [layer.scale for layer in adapter.layers] == [0.5, 2.0]


# --- against diffusers -----------------------------------------------------------------------

MODULES = {
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (8, 8),
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2": (8, 32),
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (8, 6),
    "down_blocks.1.attentions.0.proj_in": (8, 8, 1, 1),
    "down_blocks.0.resnets.0.conv1": (4, 4, 3, 3),
}


def test_each_change_is_what_diffusers_applies_from_the_same_file(tmp_path):
    unet = make_tiny_unet()
    import torch  # noqa: PLC0415
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415

    arrays = {}
    for seed, (name, shape) in enumerate(MODULES.items()):
        flat = "lora_unet_" + name.replace(".", "_")
        ones = (1,) * (len(shape) - 2)
        arrays[f"{flat}.lora_down.weight"] = factor(2, *shape[1:], seed=seed)
        arrays[f"{flat}.lora_up.weight"] = factor(shape[0], 2, *ones, seed=seed + 100)
        arrays[f"{flat}.alpha"] = np.array(3.0, np.float32)
    path = write_safetensors(tmp_path / "style.safetensors", arrays)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state_dict, alphas = StableDiffusionPipeline.lora_state_dict(str(path))
        StableDiffusionPipeline.load_lora_into_unet(state_dict, alphas, unet, adapter_name="a")
    layers = {layer.name: layer for layer in open_adapter(path).layers}
    assert len(layers) == len(MODULES)
    for name in MODULES:
        with torch.no_grad():
            want = unet.get_submodule(name).get_delta_weight("a").double().numpy()
        got = dense(layers["lora_unet_" + name.replace(".", "_")])
        assert_allclose(got, want.reshape(got.shape), rtol=1e-5, atol=1e-6)


def test_names_without_a_factor_are_not_kohyas():
    assert not DIALECT.recognises(["lora_unet_x.alpha", "a.b.lora_down.weight"])
    assert DIALECT.read(tensors_in_memory({}), None, {}).layers == ()
