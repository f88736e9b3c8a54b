"""Matching by names and shapes alone: what is found, what is refused, and what is said then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories_bases import decoder_shapes, facts, layers_of, lora_layer
from gradience.audit.base.match import match
from gradience.audit.base.weights import Part, TensorFacts
from gradience.errors import AdapterConfigError

ATTENTION = "model.layers.0.self_attn.q_proj"


def test_an_adapter_of_another_width_is_not_of_this_base() -> None:
    matches = match(layers_of(decoder_shapes(hidden=24)), facts(decoder_shapes(hidden=16)))
    assert matches.found == {}
    assert "not the base of this adapter: 0 of 14 modules fit" in matches.verdict
    assert "(24, 24)" in matches.verdict
    assert "(16, 16)" in matches.verdict
    assert set(matches.unmatched) == {layer.label for layer in layers_of(decoder_shapes())}


def test_an_adapter_of_another_architecture_is_told_both_sides_names() -> None:
    gpt2 = {"h.0.attn.c_attn.weight": (16, 48), "wte.weight": (40, 16)}
    matches = match(layers_of(decoder_shapes()), facts(gpt2))
    assert matches.found == {}
    assert "model.layers.0.self_attn.q_proj (16, 16)" in matches.verdict
    assert "h.0.attn.c_attn.weight (16, 48)" in matches.verdict


def test_a_base_that_shares_the_attention_only_is_another_base() -> None:
    """Mistral and Mixtral: equal width, equal names of the attention."""
    shapes = {n: s for n, s in decoder_shapes().items() if "mlp" not in n}
    matches = match(layers_of(decoder_shapes()), facts(shapes))
    assert matches.found == {}
    assert "8 of 14 modules fit" in matches.verdict


def test_one_part_of_a_pipeline_is_a_base_for_its_layers() -> None:
    unet = [f"unet.mid.{at}.to_q" for at in range(2)]
    text = [f"text_encoder.layers.{at}.fc1" for at in range(9)]
    matches = match(
        [lora_layer(name, (16, 16)) for name in (*unet, *text)],
        facts({"mid.0.to_q.weight": (16, 16), "mid.1.to_q.weight": (16, 16)}),
    )
    assert matches.found.keys() == set(unet)
    assert matches.verdict == ""


def test_a_resized_head_does_not_make_another_base() -> None:
    layers = [lora_layer("model.layers.0.q_proj", (16, 16)), lora_layer("lm_head", (44, 16))]
    layers.append(lora_layer("model.embed_tokens", (16, 44), base_transposed=True))
    base = {"model.layers.0.q_proj": (16, 16), "lm_head": (40, 16), "model.embed_tokens": (40, 16)}
    matches = match(layers, facts({f"{name}.weight": shape for name, shape in base.items()}))
    assert matches.found.keys() == {"model.layers.0.q_proj"}
    assert {u.reason for u in matches.unmatched.values()} == {"wrong_shape"}


def test_a_missing_tensor_leaves_its_layer_alone_unmatched() -> None:
    shapes = decoder_shapes()
    del shapes[f"{ATTENTION}.weight"]
    matches = match(layers_of(decoder_shapes()), facts(shapes))
    assert list(matches.unmatched) == [ATTENTION]
    assert matches.unmatched[ATTENTION].reason == "no_tensor"
    assert matches.verdict == ""


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    shapes = decoder_shapes() | {f"{ATTENTION}.weight": (8, 16)}
    unmatched = match(layers_of(decoder_shapes()), facts(shapes)).unmatched[ATTENTION]
    assert unmatched.reason == "wrong_shape"
    assert "(16, 16)" in unmatched.message
    assert "(8, 16)" in unmatched.message


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("model.", ""),
        ("", "model."),
        ("model.language_model.", "language_model.model."),
        ("model.language_model.", "model."),
        ("bert.", ""),
        ("", "distilbert."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("_orig_mod.model.", "model."),
    ],
)
def test_one_rewriting_of_prefixes_serves_every_layer(ours: str, theirs: str) -> None:
    layers = layers_of(decoder_shapes(prefix=ours))
    matches = match(layers, facts(decoder_shapes(prefix=theirs)))
    assert matches.unmatched == {}
    for layer in layers:
        stored = theirs + layer.name.removeprefix(ours) + ".weight"
        assert matches.found[layer.label].parts == (Part(tensor=stored),)


def test_the_parts_of_a_vision_language_model_are_rewritten_each_in_its_own_way() -> None:
    # transformers/conversion_mapping.py, "llava": what is live, and what is in the file.
    pairs = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.",
    }
    layers = [layer for ours in pairs for layer in layers_of(decoder_shapes(prefix=ours))]
    base: dict[str, TensorFacts] = {"language_model.lm_head.weight": facts({"": (40, 16)})[""]}
    for theirs in pairs.values():
        base |= facts(decoder_shapes(prefix=theirs))
    head = lora_layer("lm_head", (40, 16))
    matches = match([*layers, head], base)
    assert matches.unmatched == {}
    assert matches.found["lm_head"].key == "language_model.lm_head.weight"
    for ours, theirs in pairs.items():
        key = matches.found[f"{ours}layers.1.mlp.up_proj"].key
        assert key == f"{theirs}layers.1.mlp.up_proj.weight"


def test_an_encoder_is_never_taken_for_a_decoder() -> None:
    layers = layers_of(decoder_shapes(prefix="model.encoder."))
    assert match(layers, facts(decoder_shapes(prefix="model.decoder."))).found == {}


def test_the_layers_of_one_stack_stay_together() -> None:
    """Phi's `mlp.fc1` is in no Llama, but it is in the vision tower beside one."""
    layers = [
        lora_layer(f"model.layers.{at}.{name}", (16, 16))
        for at in range(3)
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1")
    ]
    towers = {
        "language_model.model": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "vision_tower.encoder": ("self_attn.q_proj", "mlp.fc1"),
    }
    base = {
        f"{tower}.layers.{at}.{name}.weight": (16, 16)
        for tower, names in towers.items()
        for at in range(3)
        for name in names
    }
    matches = match(layers, facts(base))
    assert sorted(matches.unmatched) == [f"model.layers.{at}.mlp.fc1" for at in range(3)]
    assert all(w.key.startswith("language_model.") for w in matches.found.values())


def test_where_encoder_and_decoder_both_fit_neither_is_guessed() -> None:
    base = decoder_shapes(prefix="model.encoder.") | decoder_shapes(prefix="model.decoder.")
    matches = match(layers_of(decoder_shapes(prefix="")), facts(base))
    assert matches.found == {}
    assert {u.reason for u in matches.unmatched.values()} == {"ambiguous"}
    one = matches.unmatched["layers.0.mlp.up_proj"].message
    assert "model.decoder.layers.0.mlp.up_proj.weight or model.encoder" in one


def test_two_parts_of_an_adapter_do_not_share_one_tensor() -> None:
    ours = decoder_shapes(prefix="encoder.") | decoder_shapes(prefix="decoder.")
    matches = match(layers_of(ours), facts(decoder_shapes(prefix="")))
    assert matches.found == {}


def test_a_layer_is_never_matched_with_another_layers_number() -> None:
    base = {
        f"model.layers.1.{n.split('.', 3)[3]}": s
        for n, s in decoder_shapes(layers=1).items()
        if "layers" in n
    }
    assert match(layers_of(decoder_shapes(layers=1)), facts(base)).found == {}


def test_a_conv1d_is_read_as_transposed_and_a_square_one_as_the_adapter_says() -> None:
    base = facts({"h.0.attn.c_attn.weight": (16, 48), "h.0.attn.c_proj.weight": (16, 16)})
    layers = [
        lora_layer("h.0.attn.c_attn", (48, 16), base_transposed=True),
        lora_layer("h.0.attn.c_proj", (16, 16), base_transposed=True),
    ]
    found = match(layers, base).found
    assert all(weight.transposed for weight in found.values())
    assert found["h.0.attn.c_attn"].shape == (48, 16)


def test_biases_tell_which_way_round_a_square_weight_is_stored() -> None:
    """PEFT writes one `fan_in_fan_out` for a model of Conv1D and Linear; it is wrong for some."""
    conv1d = {
        "h.0.c_attn.weight": (16, 48),
        "h.0.c_attn.bias": (48,),
        "h.0.c_proj.weight": (16, 16),
        "h.0.c_proj.bias": (16,),
        "head.weight": (16, 16),
    }
    linear = {**conv1d, "h.0.c_attn.weight": (48, 16)}
    for claimed in (False, True):
        layers = [
            lora_layer(name, shape, base_transposed=claimed)
            for name, shape in (
                ("h.0.c_attn", (48, 16)),
                ("h.0.c_proj", (16, 16)),
                ("head", (16, 16)),
            )
        ]
        for shapes, turned in ((conv1d, [True, True, False]), (linear, [False, False, False])):
            found = match(layers, facts(shapes)).found
            assert [found[layer.label].transposed for layer in layers] == turned


def test_a_kernel_is_flattened_and_an_embedding_turned() -> None:
    base = facts({"conv.weight": (8, 3, 5, 5), "model.embed_tokens.weight": (40, 16)})
    layers = [
        lora_layer("conv", (8, 75), kind="conv"),
        lora_layer("model.embed_tokens", (16, 40), kind="embedding", base_transposed=True),
    ]
    found = match(layers, base).found
    assert found["conv"].stored_shape == (8, 75)
    assert found["model.embed_tokens"].transposed


def test_a_head_that_is_not_stored_is_the_embedding_unless_the_config_denies_it() -> None:
    layers = [*layers_of(decoder_shapes()), lora_layer("lm_head", (40, 16))]
    saved_with_head, bare = facts(decoder_shapes()), facts(decoder_shapes(prefix=""))
    for tied, base, expected in (
        (True, saved_with_head, True),
        (True, bare, True),
        (None, saved_with_head, True),
        (None, bare, False),
        (False, saved_with_head, False),
    ):
        matches = match(layers, base, tied=tied)
        assert ("lm_head" in matches.found) is expected, (tied, next(iter(base)))
        if expected:
            assert matches.found["lm_head"].key.endswith("embed_tokens.weight")


def test_replicated_layers_find_the_layer_that_they_were_copied_from() -> None:
    layers = layers_of(decoder_shapes(layers=7))
    base = facts(decoder_shapes(layers=5))
    found = match(layers, base, layer_replication=[[0, 4], [2, 5]]).found
    for copy, origin in enumerate([0, 1, 2, 3, 2, 3, 4]):
        key = found[f"model.layers.{copy}.mlp.up_proj"].key
        assert key == f"model.layers.{origin}.mlp.up_proj.weight"


@pytest.mark.parametrize("number", ["²", "9" * 5000, "99999999"])
def test_a_number_that_counts_no_layer_is_left_alone(number: str) -> None:
    base = facts(decoder_shapes(layers=5))
    layers = [*layers_of(decoder_shapes(layers=5)), lora_layer(f"layers.{number}.up", (12, 16))]
    matches = match(layers, base, layer_replication=[[0, 4], [2, 5]])
    assert matches.unmatched[f"layers.{number}.up"].reason == "no_tensor"


@pytest.mark.parametrize(
    "value", ["all", 3, [3], [[0]], [[0, "4"]], [[0, -1]], [[0, True]], {"a": 1}, [[0, 10**12]]]
)
def test_a_replication_that_makes_no_sense_is_named(value: object) -> None:
    with pytest.raises(AdapterConfigError, match="layer_replication is"):
        match(layers_of(decoder_shapes()), facts(decoder_shapes()), layer_replication=value)


@pytest.mark.parametrize(
    "stored",
    [
        ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj"),
        ("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"),
    ],
)
def test_a_stacked_expert_finds_its_own_tensors_in_an_unstacked_checkpoint(
    stored: tuple[str, str],
) -> None:
    shapes = {f"model.layers.0.{n.format(e)}.weight": (12, 16) for n in stored for e in range(12)}
    layers = [
        lora_layer(
            "model.layers.0.mlp.experts",
            (24, 16),
            parameter="gate_up_proj",
            expert=e,
            kind="expert",
        )
        for e in range(12)
    ]
    matches = match(layers, facts(shapes))
    assert matches.unmatched == {}
    gate, up = (f"model.layers.0.{name.format(11)}.weight" for name in stored)
    assert matches.found["model.layers.0.mlp.experts.gate_up_proj[11]"].key == f"{gate} + {up}"


def test_an_expert_of_a_stacked_checkpoint_is_a_slice_in_either_order() -> None:
    base = facts({"m.experts.gate_up_proj": (3, 16, 24), "m.experts.down_proj": (3, 16, 12)})
    layers = [
        lora_layer("m.experts", (24, 16), parameter="gate_up_proj", expert=2, kind="expert"),
        lora_layer("m.experts", (16, 12), parameter="down_proj", expert=2, kind="expert"),
        lora_layer("m.experts", (16, 12), parameter="down_proj", expert=3, kind="expert"),
    ]
    matches = match([*layers, *layers_of(decoder_shapes())], base | facts(decoder_shapes()))
    assert matches.found["m.experts.gate_up_proj[2]"].transposed
    assert matches.found["m.experts.down_proj[2]"].parts == (
        Part(tensor="m.experts.down_proj", index=2),
    )
    assert matches.unmatched["m.experts.down_proj[3]"].reason == "wrong_shape"


def test_an_unnamed_parameter_is_found_by_its_shape_and_not_guessed() -> None:
    layers = [
        lora_layer("m.experts", (24, 16), parameter="", expert=0, kind="expert"),
        lora_layer("m.experts", (16, 16), parameter="", expert=1, kind="expert"),
    ]
    base = facts(
        {
            "m.experts.gate_up_proj": (3, 24, 16),
            "m.experts.down_proj": (3, 16, 16),
            "m.experts.other": (3, 16, 16),
        }
    )
    matches = match([*layers, *layers_of(decoder_shapes())], base | facts(decoder_shapes()))
    assert matches.found["m.experts[0]"].parts[0].tensor == "m.experts.gate_up_proj"
    assert list(matches.unmatched) == ["m.experts[1]"]


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ({"qweight": "I32", "qzeros": "I32", "scales": "F16"}, "GPTQ"),
        (
            {"weight": "U8", "weight.absmax": "U8", "weight.quant_state.bitsandbytes__nf4": "U8"},
            "4-bit",
        ),
        ({"weight": "I8", "SCB": "F32"}, "8-bit"),
        ({"weight": "F8_E4M3", "weight_scale_inv": "F32"}, "FP8"),
        ({"weight": "F8_E4M3", "scale_weight": "F32"}, "FP8"),
        ({"weight": "F8_E5M2", "scale": "F32"}, "FP8"),
        ({"weight_packed": "I32", "weight_scale": "F16"}, "compressed-tensors"),
        ({"weight": "I8"}, "I8"),
        ({"q_weight": "I32", "q_scale": "I32"}, "EXL2"),
        ({"trellis": "I16", "suh": "F16"}, "EXL3"),
        ({"W_q": "U8"}, "HQQ"),
        ({"codes": "I8", "codebooks": "F16"}, "AQLM"),
        ({"weight._data": "I8", "weight._scale": "F16"}, "quanto"),
    ],
)
def test_packed_weights_are_refused_by_name(names: dict[str, str], word: str) -> None:
    base = {
        f"{ATTENTION}.{n}": TensorFacts(shape=(16, 16), dtype=dtype) for n, dtype in names.items()
    }
    matches = match([lora_layer(ATTENTION, (16, 16))], base)
    assert matches.found == {}
    assert matches.unmatched[ATTENTION].reason == "quantised"
    assert word in matches.unmatched[ATTENTION].message
    assert matches.verdict == ""


def test_plain_float8_is_a_weight() -> None:
    base = {f"{ATTENTION}.weight": TensorFacts(shape=(16, 16), dtype="F8_E4M3")}
    assert match([lora_layer(ATTENTION, (16, 16))], base).unmatched == {}


KOHYA = {
    "lora_unet_down_blocks_0_attentions_0_proj_in": "unet.down_blocks.0.attentions.0.proj_in",
    "lora_te_text_model_encoder_layers_0_fc1": "text_encoder.text_model.encoder.layers.0.fc1",
    "lora_te1_text_model_encoder_layers_0_fc1": "text_encoder.text_model.encoder.layers.0.fc1",
    "lora_te2_text_model_encoder_layers_0_fc1": "text_encoder_2.text_model.encoder.layers.0.fc1",
    "lora_unet_input_blocks_4_1_proj_in": "unet.down_blocks.1.attentions.0.proj_in",
    "lora_unet_middle_block_1_proj_in": "unet.mid_block.attentions.0.proj_in",
    "lora_unet_middle_block_2_in_layers_2": "unet.mid_block.resnets.1.conv1",
    "lora_unet_output_blocks_5_1_proj_out": "unet.up_blocks.1.attentions.2.proj_out",
    "lora_unet_input_blocks_5_0_emb_layers_1": "unet.down_blocks.1.resnets.1.time_emb_proj",
    "lora_unet_input_blocks_3_0_op": "unet.down_blocks.0.downsamplers.0.conv",
    "lora_unet_output_blocks_2_2_conv": "unet.up_blocks.0.upsamplers.0.conv",
}


@pytest.mark.parametrize("name", KOHYA)
def test_a_flattened_name_finds_its_module_in_its_component(name: str) -> None:
    base = facts({f"{module}.weight": (16, 16, 1, 1) for module in set(KOHYA.values())})
    found = match([lora_layer(name, (16, 16))], base).found
    assert found[name].key == f"{KOHYA[name]}.weight"


def test_flattened_names_find_an_original_single_file_checkpoint() -> None:
    base = facts(
        {
            "model.diffusion_model.input_blocks.4.1.proj_in.weight": (16, 16),
            "cond_stage_model.transformer.text_model.encoder.layers.0.fc1.weight": (16, 16),
        }
    )
    layers = [
        lora_layer("lora_unet_input_blocks_4_1_proj_in", (16, 16)),
        lora_layer("lora_te_text_model_encoder_layers_0_fc1", (16, 16)),
    ]
    assert match(layers, base).unmatched == {}


def test_flattened_names_that_collide_are_not_guessed() -> None:
    base = facts({"unet.a.b_c.weight": (16, 16), "unet.a_b.c.weight": (16, 16)})
    assert match([lora_layer("lora_unet_a_b_c", (16, 16))], base).found == {}


@given(
    ours=st.sampled_from(["", "model.", "bert.", "model.language_model."]),
    theirs=st.sampled_from(["", "model.", "bert.", "language_model.model."]),
    dropped=st.sets(st.integers(0, 13), max_size=6),
    hidden=st.sampled_from([16, 24]),
)
def test_whatever_is_found_ends_alike_and_has_the_layers_shape(
    ours: str, theirs: str, dropped: set[int], hidden: int
) -> None:
    layers = layers_of(decoder_shapes(prefix=ours))
    shapes = decoder_shapes(hidden=hidden, prefix=theirs)
    for at in dropped:
        del shapes[theirs + layers[at].name.removeprefix(ours) + ".weight"]
    matches = match(layers, facts(shapes))
    for layer in layers:
        assert (layer.label in matches.found) != (layer.label in matches.unmatched)
        if layer.label in matches.found:
            weight = matches.found[layer.label]
            assert weight.shape == layer.shape
            assert weight.key == theirs + layer.name.removeprefix(ours) + ".weight"


words = st.sampled_from(
    ["", "model", "layers", "0", "1", "mlp", "experts", "gate_proj", "lm_head", "weight", "qweight"]
)
paths = st.lists(words, min_size=1, max_size=6).map(".".join)
shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(
    names=st.dictionaries(paths, shapes, max_size=12),
    wanted=st.lists(
        st.tuples(paths, st.integers(0, 3), st.integers(0, 3), st.sampled_from(["weight", ""])),
        max_size=8,
        unique_by=lambda one: (one[0], one[3]),
    ),
    expert=st.sampled_from([None, 0, 2]),
)
def test_no_name_and_no_shape_breaks_the_matching(
    names: dict[str, tuple[int, ...]],
    wanted: list[tuple[str, int, int, str]],
    expert: int | None,
) -> None:
    layers = [
        lora_layer(name, (out, into), parameter=parameter, expert=expert)
        for name, out, into, parameter in wanted
    ]
    matches = match(layers, facts(names))
    labels = {layer.label for layer in layers}
    assert matches.found.keys() | matches.unmatched.keys() == labels
    for layer in layers:
        if layer.label in matches.found:
            assert set(matches.found[layer.label].shape) == set(layer.shape)
