"""The nouns of an adapter: what a dialect makes of a file."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gradience.adapter.delta import Delta
from gradience.findings import Finding
from gradience.tensors.stored import StoredTensor

Method = Literal["lora", "dora", "adalora", "loha", "lokr", "full"]
LayerKind = Literal["linear", "conv", "embedding", "expert"]
ExtraKind = Literal["head", "embedding", "bias", "tokens", "norm", "other"]


class LoraLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One adapted weight: `W + scale * delta`.

    Attributes
    ----------
    name : str
        Path of the module in the base model as the adapter names it, without PEFT's
        `base_model.model.` prefix: `model.layers.0.self_attn.q_proj`. For kohya files the
        flattened name: `lora_unet_down_blocks_0_attentions_0_proj_in`.
    parameter : str
        Name of the parameter in that module; `weight` but for PEFT's `target_parameters`.
        Empty when the file cannot tell which one it is.
    expert : int or None
        Index into the first dimension of a stacked MoE parameter.
    method : str
    kind : str
    delta : Delta
        The change before `scale`, as an (out, in) matrix; a conv kernel is flattened to
        (out, in * kh * kw); an embedding is (dim, vocabulary).
    scale : float
        What the loader multiplies with: alpha/r, alpha/sqrt(r) for rsLoRA, and so on.
    alpha : float or None
        As configured; None when neither the config nor the file says.
    rank : int
        Rank that the tensors allocate.
    configured_rank : int or None
        Rank that the config (with rank_pattern) asks for; None without a config.
    base_transposed : bool
        The base stores this weight as (in, out): GPT-2's Conv1D, embeddings.
    tensors : tuple of StoredTensor
        Every tensor of this layer, for counting bytes; a tensor is in one layer only. For an
        expert of a stacked parameter, the tensors ride with expert 0 and the others have none.
    parameters : int
        Trainable numbers of this layer, this expert's share for experts.
    nbytes : int
        Stored bytes of this layer, this expert's share for experts.
    magnitude : StoredTensor or None
        DoRA's magnitude vector: (out,) numbers in any shape.
    bias : StoredTensor or None
        Bias of lora_B (`lora_bias`); it changes the layer's bias, not its weight.
    """

    name: str
    delta: Delta
    scale: float
    rank: int
    method: Method = "lora"
    kind: LayerKind = "linear"
    parameter: str = "weight"
    expert: int | None = None
    alpha: float | None = None
    configured_rank: int | None = None
    base_transposed: bool = False
    tensors: tuple[StoredTensor, ...] = ()
    parameters: int = 0
    nbytes: int = 0
    magnitude: StoredTensor | None = None
    bias: StoredTensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the change."""
        return self.delta.shape

    @property
    def label(self) -> str:
        """The name to print: module, parameter when it is not `weight`, expert."""
        tail = "" if self.parameter in ("weight", "") else f".{self.parameter}"
        return f"{self.name}{tail}" + ("" if self.expert is None else f"[{self.expert}]")


class ExtraTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that an adapter carries beside its factors: a head, an embedding, a bias."""

    kind: ExtraKind
    tensor: StoredTensor


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter as read: every tensor of its file is in `layers`, `extras` or `unread`.

    Attributes
    ----------
    source : str
        What the user named: a path, or `org/name@revision`.
    files : tuple of str
        The files it was read from.
    dialect : str
        Name of the dialect that read it.
    layers : tuple of LoraLayer
        In the order of the base model: by name with numbers compared as numbers.
    extras : tuple of ExtraTensor
    unread : tuple of StoredTensor
        Tensors that no rule knows; reported, never dropped in silence.
    config : mapping
        adapter_config.json as read, or what stands for it in the dialect.
    base_model : str or None
        `base_model_name_or_path` of the config.
    base_revision : str or None
    peft_type : str
    findings : tuple of Finding
        What reading it brought up: scale assumed, weights saved twice.
    fingerprint : str
        `blake3:...` of the weights and the config; two adapters with one fingerprint are equal.
    """

    source: str
    files: tuple[str, ...]
    dialect: str
    layers: tuple[LoraLayer, ...]
    extras: tuple[ExtraTensor, ...] = ()
    unread: tuple[StoredTensor, ...] = ()
    config: Mapping[str, Any] = msgspec.field(default_factory=dict)
    base_model: str | None = None
    base_revision: str | None = None
    peft_type: str = "LORA"
    findings: tuple[Finding, ...] = ()
    fingerprint: str = ""
