"""Names of kohya files: dots became underscores, and cannot be put back without the base.

So the base's names are flattened instead, under every place where a component may hang; the place
that serves most layers of a component is taken for all of them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from gradience.adapter.records import LoraLayer
from gradience.audit.base.fitting import Fitting
from gradience.audit.base.renames import Source
from gradience.audit.base.weights import BaseWeight, TensorFacts, Unmatched

# Prefix of the file, and where that component may hang in the base: diffusers' folders, then the
# names of the original single-file checkpoints, then a component given alone.
_FIRST_TEXT_ENCODER = (
    "text_encoder.",
    "text_encoder.text_model.",
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.",
    "text_model.",
    "",
)
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "lora_te1_": _FIRST_TEXT_ENCODER,
    "lora_te2_": (
        "text_encoder_2.",
        "text_encoder_2.text_model.",
        "conditioner.embedders.1.transformer.",
    ),
    "lora_te3_": ("text_encoder_3.",),
    "lora_te_": _FIRST_TEXT_ENCODER,
    "lora_unet_": ("unet.", "transformer.", "model.diffusion_model.", ""),
    "lora_transformer_": ("transformer.", ""),
}


def is_flat(name: str) -> bool:
    """Whether a module name is flattened as kohya's scripts do.

    Examples
    --------
    >>> is_flat("lora_te_text_model_encoder_layers_0_mlp_fc1"), is_flat("model.layers.0.mlp.fc1")
    (True, False)
    """
    return "." not in name and component_of(name) != ""


def match_flat(layers: Sequence[LoraLayer], fitting: Fitting) -> dict[str, BaseWeight]:
    """Find the base weights of layers with flattened names.

    Parameters
    ----------
    layers : sequence of LoraLayer
        With names for which `is_flat` holds.
    fitting : Fitting
        Says whether a tensor has the shape of a layer.

    Returns
    -------
    dict of str to BaseWeight
        By label; layers that found none, or several, are left out.
    """
    groups: defaultdict[str, list[LoraLayer]] = defaultdict(list)
    for layer in layers:
        groups[component_of(layer.name)].append(layer)
    found: dict[str, BaseWeight] = {}
    for component, members in groups.items():
        found |= _match_component(component, members, fitting)
    return found


def why_not(layer: LoraLayer, base: Mapping[str, TensorFacts]) -> Unmatched:
    """Say that the name is not there, or in which shape it is."""
    component = component_of(layer.name)
    for root in COMPONENTS[component]:
        flattened = flattened_names(base, root)
        for name in _spellings(layer.name.removeprefix(component)):
            for stored in flattened.get(name, ()):
                return Unmatched(
                    reason="wrong_shape",
                    message=f"{layer.label} changes a weight of shape {layer.shape}, and {stored} "
                    f"of the base has shape {base[stored].shape}",
                )
    return Unmatched(
        reason="no_tensor",
        message=f"no tensor of the base becomes {layer.label} when its dots are replaced by _",
    )


def flattened_names(names: Iterable[str], root: str) -> dict[str, tuple[str, ...]]:
    """Weights below `root` by flattened module name; names that collide share an entry.

    Examples
    --------
    >>> flattened_names(["unet.mid.0.to_q.weight", "unet.mid.0.to_q.bias"], "unet.")
    {'mid_0_to_q': ('unet.mid.0.to_q.weight',)}
    """
    flattened: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        if name.startswith(root) and name.endswith(".weight"):
            flat = name.removeprefix(root).removesuffix(".weight").replace(".", "_")
            flattened[flat].append(name)
    return {flat: tuple(found) for flat, found in flattened.items()}


def component_of(name: str) -> str:
    """The prefix of a flattened name that says in which part of a pipeline it is; or nothing."""
    return next((prefix for prefix in COMPONENTS if name.startswith(prefix)), "")


def _match_component(
    component: str, layers: Sequence[LoraLayer], fitting: Fitting
) -> dict[str, BaseWeight]:
    """The place that serves most layers of a component; the first listed of equals."""
    best: dict[str, BaseWeight] = {}
    for root in COMPONENTS[component]:
        flattened = flattened_names(fitting.base, root)
        found = {}
        for layer in layers:
            stored = {
                weight
                for name in _spellings(layer.name.removeprefix(component))
                for tensor in flattened.get(name, ())
                if (weight := fitting.weight(layer, Source(tensor=tensor))) is not None
            }
            if len(stored) == 1:
                found[layer.label] = stored.pop()
        if len(found) > len(best):
            best = found
    return best


def _spellings(name: str) -> tuple[str, ...]:
    """The name itself and, for the original U-Net's numbering, the name diffusers gives it."""
    renamed = _diffusers_name(name)
    return (name,) if renamed == name else (name, renamed)


_RESNET = (
    ("in_layers_2", "conv1"),
    ("emb_layers_1", "time_emb_proj"),
    ("out_layers_3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)


def _diffusers_name(name: str) -> str:
    """Name in diffusers of a module of SDXL's original U-Net: three places make one block.

    The numbering follows `diffusers/loaders/lora_conversion_utils.py`.

    Examples
    --------
    >>> _diffusers_name("input_blocks_4_1_transformer_blocks_0_attn1_to_q")
    'down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q'
    """
    found = re.match(r"(input_blocks|output_blocks|middle_block)_(\d+)(?:_(\d+))?_(.*)$", name)
    if not found:
        return name
    where, first, second, tail = found.groups()
    number = int(first)
    if where == "middle_block":
        place = "mid_block_attentions_0" if number == 1 else f"mid_block_resnets_{number // 2}"
        is_attention = number == 1
    else:
        down = where == "input_blocks"
        block, slot = divmod(number - 1 if down else number, 3)
        is_attention = second == "1"
        kind = "attentions" if is_attention else "resnets"
        if down and tail == "op":
            return f"down_blocks_{block}_downsamplers_0_conv"
        if not down and tail == "conv":
            return f"up_blocks_{block}_upsamplers_0_conv"
        place = f"{'down' if down else 'up'}_blocks_{block}_{kind}_{slot}"
    for old, new in () if is_attention else _RESNET:
        tail = tail.replace(old, new)
    return f"{place}_{tail}"
