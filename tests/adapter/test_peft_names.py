"""One classifier and one layer parser, over the names of many architectures."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.adapter.names import layer_index, layer_key, module_type, natural_key

BLOCK = "model.layers.3"
NAMES = {
    "attention": """
        transformer.h.3.attn.c_attn transformer.h.3.attn.c_proj
        model.layers.3.self_attn.q_proj model.layers.3.self_attn.o_proj
        model.layers.3.self_attn.qkv_proj model.layers.3.self_attn.dense
        gpt_neox.layers.3.attention.query_key_value gpt_neox.layers.3.attention.dense
        transformer.h.3.self_attention.query_key_value transformer.h.3.self_attention.dense
        bert.encoder.layer.3.attention.self.query bert.encoder.layer.3.attention.output.dense
        distilbert.transformer.layer.3.attention.q_lin
        distilbert.transformer.layer.3.attention.out_lin
        encoder.block.3.layer.0.SelfAttention.q decoder.block.3.layer.1.EncDecAttention.o
        model.decoder.layers.3.encoder_attn.out_proj vit.layers.3.attention.q_proj
        vit.encoder.layer.3.attention.attention.query transformer.blocks.3.attn.Wqkv
        layers.3.attention.wo model.layers.3.linear_attn.in_proj_qkvz
        down_blocks.0.attentions.1.transformer_blocks.3.attn1.to_q
        down_blocks.0.attentions.1.transformer_blocks.3.attn2.to_out.0
        transformer_blocks.3.attn.add_q_proj double_blocks.3.img_attn.qkv
        lora_unet_down_blocks_0_attentions_1_transformer_blocks_3_attn1_to_q
        lora_te_text_model_encoder_layers_3_self_attn_q_proj
        layers.3.q_proj layers.3.query deberta.encoder.layer.3.attention.self.query_proj
    """,
    "mlp": """
        transformer.h.3.mlp.c_fc transformer.h.3.mlp.c_proj
        model.layers.3.mlp.gate_proj model.layers.3.mlp.up_proj model.layers.3.mlp.down_proj
        gpt_neox.layers.3.mlp.dense_h_to_4h transformer.h.3.mlp.dense_4h_to_h
        bert.encoder.layer.3.intermediate.dense bert.encoder.layer.3.output.dense
        distilbert.transformer.layer.3.ffn.lin1 encoder.block.3.layer.1.DenseReluDense.wi_0
        model.encoder.layers.3.fc1 model.decoder.layers.3.fc2 vit.layers.3.mlp.fc2
        model.layers.3.mlp.experts model.layers.3.mlp.experts.gate_up_proj[7]
        model.layers.3.block_sparse_moe.experts.5.w1 model.layers.3.mlp.shared_expert.up_proj
        layers.3.feed_forward.w2 transformer.h.3.mlp.w1 layers.3.w1
        down_blocks.0.attentions.1.transformer_blocks.3.ff.net.0.proj
        transformer_blocks.3.ff_context.net.2 single_transformer_blocks.3.proj_mlp
        lora_unet_down_blocks_0_attentions_1_transformer_blocks_3_ff_net_0_proj
        lora_te_text_model_encoder_layers_3_mlp_fc1
    """,
    "embedding": """
        model.embed_tokens transformer.wte transformer.wpe transformer.word_embeddings
        bert.embeddings.word_embeddings bert.embeddings.token_type_embeddings gpt_neox.embed_in
        shared model.decoder.embed_positions backbone.embeddings embeddings.tok_embeddings
    """,
    "other": """
        lm_head classifier score embed_out pre_classifier proj_out
        model.layers.3.mlp.gate model.layers.3.block_sparse_moe.gate model.layers.3.mlp.router
        model.layers.3.mlp.shared_expert_gate
        backbone.layers.3.mixer.in_proj backbone.layers.3.mixer.x_proj
        down_blocks.0.resnets.3.conv1 down_blocks.0.resnets.3.time_emb_proj
        down_blocks.0.attentions.3.proj_in lora_unet_down_blocks_0_attentions_3_proj_in
        time_embedding.linear_1 embeddings.patch_embeddings.projection conv_in
        encoder.embedding_hidden_mapping_in multi_modal_projector.linear_1
    """,
}
CASES = [(name, kind) for kind, names in NAMES.items() for name in names.split()]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_module_type(name, kind):
    assert module_type(name) == kind


@pytest.mark.parametrize("name", [n for n, _ in CASES if any(x in n for x in (".3.", "_3_"))])
def test_layer_index_is_that_of_the_block(name):
    assert layer_index(name) == 3
    assert layer_key(name).endswith("3")
    assert name.startswith(layer_key(name))


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens", "conv_in", "", "layers", "h.x"])
def test_modules_outside_of_a_stack_have_no_layer(name):
    assert layer_index(name) is None
    assert layer_key(name) == ""


def test_encoder_and_decoder_layers_are_told_apart():
    encoder, decoder = (f"model.{side}.layers.3.fc1" for side in ("encoder", "decoder"))
    assert layer_index(encoder) == layer_index(decoder)
    assert layer_key(encoder) != layer_key(decoder)


def test_every_gpt2_block_has_its_own_layer():
    names = [f"transformer.h.{i}.mlp.c_proj" for i in range(12)]
    assert [layer_index(n) for n in names] == list(range(12))


@pytest.mark.parametrize("style", [".", "_"])
def test_all_parts_of_one_block_share_its_key(style):
    parts = ["attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "norm1"]
    names = [f"up_blocks.1.attentions.0.transformer_blocks.2.{p}" for p in parts]
    keys = {layer_key(n.replace(".", style)) for n in names}
    assert len(keys) == 1


def test_numbers_in_names_sort_as_numbers():
    names = [f"h.{i}.x.{j}" for i in range(12) for j in (1, 2, 10)]
    mixed = names.copy()
    random.Random(0).shuffle(mixed)
    assert sorted(mixed, key=natural_key) == names


@given(st.lists(st.text("h.0127x_", max_size=12), max_size=6))
def test_any_names_can_be_sorted_and_classified(names):
    for name in sorted(names, key=natural_key):
        assert module_type(name) in NAMES
        assert name.startswith(layer_key(name))


def test_absurd_numbers_are_no_error():
    name = "layers." + "9" * 5000 + ".q_proj"
    assert module_type(name) == "attention"
    assert natural_key(name) > natural_key("layers.8.q_proj")
    assert layer_index(name) is None
