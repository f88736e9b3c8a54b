"""What a PEFT file carries beside its updates: heads, embeddings, biases, trained tokens."""

import re
from collections.abc import Iterable

from gradience.adapter.config import AdapterConfig
from gradience.adapter.dialects.peft_keys import base_name, plain_name
from gradience.adapter.records import ExtraKind, ExtraTensor
from gradience.tensors.stored import StoredTensor

_TOKENS = re.compile(r"(?:^|\.)trainable_tokens_delta(?:\.\w+)?$")
# Kept by training methods of PEFT for themselves: a projection, a sampler, a count of ranks.
_STATE = re.compile(r"(?:^|\.)(?:lora_velora_embed|lora_monteclora_sampler|ranknum)(?:\.|$)")
_HEADS = frozenset(
    {"classifier", "score", "lm_head", "head", "qa_outputs", "pre_classifier", "embed_out"}
    | {"cls", "classification_head", "v_head", "value_head", "proj_out"}
)
_EMBEDDING = re.compile(r"^(?:embed|wte$|wpe$|shared$)|embeddings?$|embed_tokens")
_NORM = re.compile(r"norm|^ln(?:_|\d|$)", re.IGNORECASE)


def sort_extras(
    tensors: Iterable[StoredTensor], config: AdapterConfig | None
) -> tuple[tuple[ExtraTensor, ...], tuple[StoredTensor, ...]]:
    """Tell the tensors that PEFT saves on purpose from those that nobody knows.

    Parameters
    ----------
    tensors : iterable of StoredTensor
        Tensors that are no part of an update.
    config : AdapterConfig or None
        Its `modules_to_save` and `bias` say what belongs there; without it names decide alone.

    Returns
    -------
    (extras, unread)
    """
    extras, unread = [], []
    for tensor in tensors:
        kind = _kind(tensor.name, config)
        if kind is None:
            unread.append(tensor)
        else:
            extras.append(ExtraTensor(kind=kind, tensor=tensor))
    return tuple(extras), tuple(unread)


def _kind(name: str, config: AdapterConfig | None) -> ExtraKind | None:
    plain = base_name(plain_name(name))
    if _TOKENS.search(plain):
        return "tokens"
    if _STATE.search(plain):
        return "other"
    module, _, parameter = plain.rpartition(".")
    by_name = _by_name(module)
    if _is_saved(module, config):
        return by_name or "other"
    if parameter == "bias" and (config is None or config.bias != "none"):
        return "bias"
    # PEFT adds the head of a classification task, and resized embeddings, without being asked.
    return by_name if by_name in ("head", "embedding") else None


def _is_saved(module: str, config: AdapterConfig | None) -> bool:
    """Whether `modules_to_save` names the module or one that holds it."""
    if "modules_to_save" in module.split("."):
        return True
    wanted = config.modules_to_save if config is not None else ()
    dotted = f".{module}."
    return any(f".{name}." in dotted for name in wanted)


def _by_name(module: str) -> ExtraKind | None:
    """Head, embedding or norm, where a component of the path says so; the last one first."""
    for component in reversed(module.split(".")):
        if component in _HEADS:
            return "head"
        if _EMBEDDING.search(component):
            return "embedding"
        if _NORM.search(component):
            return "norm"
    return None
