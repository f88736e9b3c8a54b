"""What a module's name says: its type, its layer, its place in the order.

The one classifier and the one layer parser of Gradience: two of each would disagree inside one
report. A name is cut at dots, underscores and capitals, so that `SelfAttention.q`, `self_attn.q`
and kohya's `lora_te_..._self_attn_q_proj` meet the same table. The marker nearest to the leaf
decides, which makes GPT-2's `mlp.c_proj` an MLP and `attn.c_proj` attention. A leaf such as
`q_proj` or `w1` decides only when nothing around it does.
"""

import re
from typing import Literal

ModuleType = Literal["attention", "mlp", "embedding", "other"]

MODULE_TYPES: tuple[ModuleType, ...] = ("attention", "mlp", "embedding", "other")
"""Every type, in the order of reports."""

_ATTENTION = frozenset({"attn", "attn1", "attn2", "attention", "att", "mha"})
_MLP = frozenset(
    {"mlp", "ffn", "ff", "feed", "feedforward", "fc1", "fc2"}
    | {"experts", "expert", "intermediate", "relu", "moe"}
)
# Tables that are looked up by an index. A projection into the model (ViT's patches, a diffusion
# model's time) is a matrix like others, and a head (lm_head) is none of the three: "other".
_EMBEDDINGS = re.compile(
    r"(?:^|_)(?:embed_tokens|embed_tokens_per_layer|embed_positions|embed_in|wte|wpe|wtt"
    r"|(?:word|tok|token|position|token_type)_embeddings?|embeddings?|shared)$"
)
# A router chooses experts; its update is not comparable with that of an MLP's weight.
_ROUTERS = re.compile(
    r"(?:^|[._])router(?:[._]|$)|(?:^|\.)(?:gate|shared_expert_gate)(?:\.weight)?$"
)
_LEAVES: tuple[tuple[re.Pattern[str], ModuleType], ...] = (
    (
        re.compile(
            r"(?:^|_)(?:[qkvo]_proj|qkv|qkv_proj|kv_proj|q_lin|k_lin|v_lin|query|key|value"
            r"|query_key_value|to_[qkv]|to_out(?:_0)?|to_qkv|w_?qkv|(?:query|key|value)_proj)$"
        ),
        "attention",
    ),
    (
        re.compile(
            r"(?:^|_)(?:(?:gate|up|down|gate_up)_proj|w[123]|v1|w[io]|wi_[01]|c_fc|fc_(?:in|out)"
            r"|lin[12]|dense_h_to_4h|dense_4h_to_h|output_dense)$"
        ),
        "mlp",
    ),
)

# Modules that hold numbered blocks.
_BLOCKS = (
    "layers|layer|h|blocks|block|resblocks|transformer_blocks|single_transformer_blocks"
    "|double_blocks|single_blocks|joint_blocks|down_blocks|up_blocks|input_blocks|output_blocks"
    "|middle_block|attentions|resnets|motion_modules|stages|albert_layer_groups|albert_layers"
    "|decoder_layers|encoder_layers"
)
# Four digits: no model has 10 000 blocks, and a report may not list a billion that are missing.
_NUMBERED = re.compile(rf"(?:^|[._])({_BLOCKS})[._](\d{{1,4}})(?=[._]|$)")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DIGITS = re.compile(r"(\d+)")


def module_type(name: str) -> ModuleType:
    """Classify a module by its name.

    Parameters
    ----------
    name : str
        As in `LoraLayer.name` or `LoraLayer.label`: dotted, or flattened with underscores.

    Returns
    -------
    str
        `attention`, `mlp`, `embedding` (lookup tables only) or `other` (heads, routers,
        convolutions, state-space mixers, projections between parts).

    Examples
    --------
    >>> module_type("transformer.h.0.mlp.c_proj"), module_type("transformer.h.0.attn.c_proj")
    ('mlp', 'attention')
    >>> module_type("model.embed_tokens"), module_type("lm_head")
    ('embedding', 'other')
    """
    bare = re.sub(r"(?:\[\d+\])+$", "", name)
    flat = _CAMEL.sub("_", bare).replace(".", "_").lower()
    if _EMBEDDINGS.search(flat):
        return "embedding"
    if _ROUTERS.search(bare):
        return "other"
    for token in reversed(flat.split("_")):
        if token in _ATTENTION:
            return "attention"
        if token in _MLP:
            return "mlp"
    return next((kind for leaf, kind in _LEAVES if leaf.search(flat)), "other")


def layer_index(name: str) -> int | None:
    """Number of the block a module is in, within its stack; None outside of a stack.

    Experts, sub-layers and list items are no blocks.

    Examples
    --------
    >>> layer_index("model.layers.3.mlp.experts.5.w1"), layer_index("lm_head")
    (3, None)
    >>> layer_index("encoder.block.3.layer.0.SelfAttention.q")  # T5: layer.0 is a sub-layer
    3
    """
    block = _block(name)
    return None if block is None else int(block[2])


def layer_key(name: str) -> str:
    """Path of the block a module is in: distinct for encoder and decoder; empty outside.

    Examples
    --------
    >>> layer_key("model.decoder.layers.3.self_attn.q_proj")
    'model.decoder.layers.3'
    >>> layer_key("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q")
    'lora_unet_down_blocks_0_attentions_1_transformer_blocks_0'
    """
    block = _block(name)
    return "" if block is None else name[: block.end()]


def _block(name: str) -> re.Match[str] | None:
    """The innermost numbered block, T5's sub-layers aside."""
    found = list(_NUMBERED.finditer(name))
    if len(found) > 1 and (found[-2][1], found[-1][1]) == ("block", "layer"):
        found.pop()
    return found[-1] if found else None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that compares the numbers in a name as numbers.

    Examples
    --------
    >>> sorted(["h.10", "h.2", "h.1"], key=natural_key)
    ['h.1', 'h.2', 'h.10']
    """
    # The length stands for the leading digits: int() refuses very long numbers.
    parts = ((part.lstrip("0") or "0") if part.isdecimal() else part for part in _pieces(name))
    return tuple((0, len(p), p) if p.isdecimal() else (1, 0, p) for p in parts)


def _pieces(name: str) -> list[str]:
    return [piece for piece in _DIGITS.split(name) if piece]
