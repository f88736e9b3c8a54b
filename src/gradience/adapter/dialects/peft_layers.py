"""From the parts of one module to its layers: the right delta and the scale PEFT applies.

The parts present decide the form, the config decides the scale, and the tensors decide the rank:
where the two disagree PEFT would not load the file, so the scale follows what is stored.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from gradience.adapter.config import AdapterConfig
from gradience.adapter.delta import Delta, Product
from gradience.adapter.dialects.peft_keys import LOHA_PARTS, LOKR_PARTS, base_name
from gradience.adapter.methods.lora import (
    block_diagonal_delta,
    check_factor,
    diagonal_delta,
    expert_deltas,
    fused_delta,
    lora_delta,
    mismatch,
    pooled_delta,
)
from gradience.adapter.methods.lycoris import loha_delta, lokr_delta
from gradience.adapter.records import LayerKind, LoraLayer, Method
from gradience.errors import AdapterConfigError, AdapterError
from gradience.tensors.stored import StoredTensor

_ADALORA_INIT_R = 12
_QALORA_GROUP = 16


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one module's update.

    Attributes
    ----------
    path : str
        The module as PEFT wraps it.
    parts : mapping
        By part name.
    parameter : str or None
        The parameter, where `target_parameters` or nn.MultiheadAttention says that it is not
        `weight`; empty when the file cannot tell which; None for an ordinary layer.
    config : AdapterConfig or None
    """

    path: str
    parts: Mapping[str, StoredTensor]
    parameter: str | None
    config: AdapterConfig | None

    @property
    def name(self) -> str:
        """Name of the module in the base model."""
        return base_name(self.path)

    @property
    def pattern_name(self) -> str:
        """The name PEFT matches with rank_pattern and alpha_pattern."""
        if self.parameter in (None, "", "in_proj_weight"):
            # A module inside a wrapped one (out_proj of attention) takes what its wrapper got.
            return base_name(self.path.partition(".base_layer.")[0])
        return f"{self.name}.{self.parameter}"

    def need(self, part: str, beside: str) -> StoredTensor:
        """A part that the update cannot do without.

        Raises
        ------
        AdapterError
            Names the module, the part that is missing and the one that is there.
        """
        if part in self.parts:
            return self.parts[part]
        raise AdapterError(
            f"{self.name}: {self.parts[beside].name} is there and its {part} is not",
            remedy="The file is incomplete: save the adapter again, or download it again.",
        )

    def factor(self, part: str, beside: str) -> StoredTensor:
        """A part that is a matrix of real numbers, checked."""
        tensor = self.need(part, beside)
        check_factor(self.name, tensor)
        return tensor


def layers_of(update: Update) -> tuple[LoraLayer, ...]:
    """The layers that one module's update stands for: one, or one per expert.

    Raises
    ------
    AdapterError
        If a factor is missing, cannot be one, or does not fit its partner.
    """
    parts = update.parts.keys()
    if parts & LOHA_PARTS:
        return (_loha(update),)
    if parts & LOKR_PARTS:
        return (_lokr(update),)
    if "lora_E" in parts:
        return (_adalora(update),)
    if parts & {"lora_embedding_A", "lora_embedding_B"}:
        return (_embedding(update),)
    if update.parameter not in (None, "in_proj_weight"):
        return _parameter(update)
    return (_lora(update),)


def _lora(update: Update) -> LoraLayer:
    a = update.factor("lora_A", next(iter(update.parts)))
    b = update.factor("lora_B", "lora_A")
    config, divisor, rank = update.config, a.shape[0], a.shape[0]
    kind: LayerKind = "conv" if len(a.shape) > 2 else "linear"
    blocks = _blocks(update)
    delta: Product
    if "lora_diag" in update.parts:
        _same_rank(update, a, b)
        delta = diagonal_delta(a, b, _diagonal(update, a, "lora_diag"))
    elif blocks:
        delta = block_diagonal_delta(update.name, a, b, blocks[0], of_a=blocks[1])
    elif config is not None and config.use_qalora and kind == "linear":
        _same_rank(update, a, b)
        delta = pooled_delta(a, b, _whole(config, config.raw, "qalora_group_size", _QALORA_GROUP))
    elif len(a.shape) == 2 and len(b.shape) == 3:
        delta = fused_delta(update.name, a, b, config.enable_lora if config is not None else ())
        divisor = b.shape[1]
    else:
        delta = lora_delta(update.name, a, b)
    magnitude = update.parts.get("lora_magnitude_vector")
    if magnitude is None and config is not None and config.use_dora:
        update.need("lora_magnitude_vector", "lora_A")
    return _record(
        update,
        delta,
        kind=kind,
        rank=rank,
        divisor=divisor,
        method="lora" if magnitude is None else "dora",
        transposed=config is not None and config.fan_in_fan_out and kind == "linear",
    )


def _embedding(update: Update) -> LoraLayer:
    beside = next(iter(update.parts))
    a = update.factor("lora_embedding_A", beside)
    b = update.factor("lora_embedding_B", beside)
    return _record(
        update,
        lora_delta(update.name, a, b),
        kind="embedding",
        rank=a.shape[0],
        divisor=a.shape[0],
        method="dora" if "lora_magnitude_vector" in update.parts else "lora",
        transposed=True,
    )


def _adalora(update: Update) -> LoraLayer:
    a, b = update.need("lora_A", "lora_E"), update.need("lora_B", "lora_E")
    if 0 not in a.shape[:1]:  # AdaLoRA may prune a module to rank 0
        check_factor(update.name, a)
        check_factor(update.name, b)
    _same_rank(update, a, b)
    return _record(
        update,
        diagonal_delta(a, b, _diagonal(update, a, "lora_E")),
        kind="linear",
        rank=a.shape[0],
        divisor=a.shape[0],
        method="adalora",
        transposed=update.config is not None and update.config.fan_in_fan_out,
    )


def _parameter(update: Update) -> tuple[LoraLayer, ...]:
    """A stacked parameter: its rank in the file is the rank times the number of experts."""
    a, b = update.factor("lora_A", next(iter(update.parts))), update.factor("lora_B", "lora_A")
    _same_rank(update, a, b)
    rank = None if update.config is None else update.config.rank_of(update.pattern_name)
    if rank is None or a.shape[0] % rank:
        raise AdapterError(
            f"{update.name}: {a.name} has {a.shape[0]} rows, which does not divide into experts of "
            f"rank {rank}",
            remedy="Set `r` and `rank_pattern` in adapter_config.json to those of the training.",
        )
    experts = a.shape[0] // rank
    if experts == 1:
        delta = lora_delta(update.name, a, b)
        return (_record(update, delta, kind="linear", rank=rank, divisor=rank),)
    first, *others = expert_deltas(a, b, experts)
    layer = _record(update, first, kind="expert", rank=rank, divisor=rank, expert=0, share=experts)
    rest = (replace(layer, delta=d, expert=e, tensors=()) for e, d in enumerate(others, start=1))
    return (layer, *rest)


def _loha(update: Update) -> LoraLayer:
    beside = next(iter(update.parts))
    w1a, w1b, w2a, w2b = (
        update.factor(f"hada_{part}", beside) for part in ("w1_a", "w1_b", "w2_a", "w2_b")
    )
    cores = None
    if update.parts.keys() & {"hada_t1", "hada_t2"}:
        cores = (update.factor("hada_t1", beside), update.factor("hada_t2", beside))
    delta = loha_delta(update.name, (w1a, w1b), (w2a, w2b), cores)
    return _record(
        update,
        delta,
        kind="conv" if cores else "linear",
        rank=delta.rank,
        divisor=w1b.shape[0],
        method="loha",
    )


def _lokr(update: Update) -> LoraLayer:
    beside = next(iter(update.parts))

    def half(part: str) -> StoredTensor | tuple[StoredTensor, StoredTensor]:
        if part in update.parts:
            return update.factor(part, beside)
        return update.factor(f"{part}_a", beside), update.factor(f"{part}_b", beside)

    w1, w2 = half("lokr_w1"), half("lokr_w2")
    core = update.factor("lokr_t2", beside) if "lokr_t2" in update.parts else None
    inner = {part[1].shape[0] for part in (w1, w2) if isinstance(part, tuple)}
    config = update.config
    configured = None if config is None else config.rank_of(update.pattern_name)
    if config is not None and configured is None and not inner:
        raise AdapterConfigError(
            f"{config.source}: LoKr's scale of {update.name} needs `r`, which is missing",
            remedy="Write the `r` of the training into adapter_config.json.",
        )
    conv = core is not None or (isinstance(w2, StoredTensor) and len(w2.shape) > 2)
    delta = lokr_delta(update.name, w1, w2, core)
    return _record(
        update,
        delta,
        kind="conv" if conv else "linear",
        rank=delta.rank,
        divisor=max(inner, default=configured or 1),
        method="lokr",
    )


def _record(
    update: Update,
    delta: Delta,
    *,
    kind: LayerKind,
    rank: int,
    divisor: int,
    method: Method = "lora",
    transposed: bool = False,
    expert: int | None = None,
    share: int = 1,
) -> LoraLayer:
    """Put a layer together.

    `divisor` is the r of alpha / r; `share` is the number of layers that share the tensors.
    """
    tensors = tuple(update.parts.values())
    scale, alpha, configured = _scaling(update, method, rank, divisor)
    return LoraLayer(
        name=update.name,
        parameter="weight" if update.parameter is None else update.parameter,
        expert=expert,
        method=method,
        kind=kind,
        delta=delta,
        scale=scale,
        alpha=alpha,
        rank=rank,
        configured_rank=configured,
        base_transposed=transposed,
        tensors=tensors,
        parameters=sum(t.size for t in tensors) // share,
        nbytes=sum(t.nbytes for t in tensors) // share,
        magnitude=update.parts.get("lora_magnitude_vector"),
        bias=update.parts.get("lora_B.bias"),
    )


def _scaling(
    update: Update, method: Method, rank: int, divisor: int
) -> tuple[float, float | None, int | None]:
    """Scale, alpha and configured rank of a layer, as PEFT has them after loading."""
    config = update.config
    if config is None:
        return 1.0, None, None
    alpha = config.alpha_of(update.pattern_name)
    if method == "adalora":
        # AdaLoRA divides by the rank it began with, also after pruning (resize_modules_by_rank_
        # pattern copies ranknum), and by 1e-5 more; alpha <= 0 stands for the rank.
        began = config.r or _ADALORA_INIT_R
        kept = config.kept_ranks.get(f"{update.name}.lora_E", began)
        factor = alpha if alpha > 0 else float(rank if config.kept_ranks else began)
        return factor / (began + 1e-5), alpha, kept
    configured = config.rank_of(update.pattern_name)
    # Stored rank over the r of the scale: 1 for LoRA, n for n fused projections. LoHa and LoKr
    # have another rank than r by construction.
    agrees = configured is None or configured == divisor
    shown = rank if agrees and configured is not None else configured
    if method == "loha" and not agrees and configured is not None:
        shown = configured**2
    root = config.use_rslora and method in ("lora", "dora")
    return alpha / (math.sqrt(divisor) if root else divisor), alpha, shown


def _same_rank(update: Update, a: StoredTensor, b: StoredTensor) -> None:
    if len(a.shape) != 2 or len(b.shape) != 2 or b.shape[1] != a.shape[0]:
        raise mismatch(update.name, a, b)


def _diagonal(update: Update, a: StoredTensor, part: str) -> StoredTensor:
    """The diagonal between B and A: as many numbers as A has rows."""
    diagonal = update.parts[part]
    if diagonal.size:
        check_factor(update.name, diagonal, dimensions=1)
    if diagonal.size != a.shape[0]:
        raise mismatch(update.name, a, diagonal)
    return diagonal


def _blocks(update: Update) -> tuple[int, bool] | None:
    """BD-LoRA: how many blocks, and whether A holds them; None for a module without."""
    config = update.config
    settings = None if config is None else config.block("use_bdlora")
    if config is None or not settings:
        return None
    in_a, in_b = (
        any(isinstance(p, str) and p in update.pattern_name for p in settings.get(key) or ())
        for key in ("target_modules_bd_a", "target_modules_bd_b")
    )
    if not (in_a or in_b):
        return None
    return _whole(config, settings, "nblocks", 1), in_a


def _whole(config: AdapterConfig, settings: Mapping[str, Any], key: str, default: int) -> int:
    value = settings.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise AdapterConfigError(
            f"{config.source}: `{key}` is {value!r}, which is not a whole number above 0",
            remedy="Correct the value, or save the adapter again with PEFT's save_pretrained.",
        )
    return value
