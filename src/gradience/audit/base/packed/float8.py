"""Eight-bit floats with scales beside them: one for all, for each row, or for each tile.

`weight_scale_inv` (DeepSeek, transformers), `weight_scale` (compressed-tensors, ModelOpt, vLLM),
`scale_weight` (ComfyUI) and `scale` (DeepSeek's own files) all multiply, whatever their names say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradience.audit.base.packed.bits import byte_table, float_levels, powers
from gradience.audit.base.packed.format import (
    Checkpoint,
    Decoder,
    Format,
    Members,
    PackedWeight,
    Refusal,
)
from gradience.audit.base.packed.scaled import of_levels, scale_grid, tile_for
from gradience.audit.base.weights import TensorFacts
from gradience.tensors.dtypes import numpy_dtype
from gradience.tensors.stored import Array

_WEIGHTS = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
_SCALES = frozenset({"F32", "F16", "BF16", "F64", "F8_E8M0", "U8"})


def _find(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    for name, facts in checkpoint.tensors.items():
        if facts.dtype not in _WEIGHTS or len(facts.shape) not in (2, 3):
            continue
        scale = next((s for s in _scales_of(name) if s in checkpoint.tensors), None)
        if scale is not None:
            yield _weight(name, facts, scale, checkpoint)


def _scales_of(name: str) -> Iterator[str]:
    yield f"{name}_scale_inv"
    yield f"{name}_scale"
    module, _, parameter = name.rpartition(".")
    if parameter == "weight":
        yield f"{module}.scale_weight"
        yield f"{module}.scale"


def _weight(
    name: str, facts: TensorFacts, scale: str, checkpoint: Checkpoint
) -> PackedWeight | Refusal:
    beside = checkpoint.tensors[scale]
    if beside.dtype not in _SCALES:
        return Refusal(name=name, why=f"scaled FP8 whose scales are stored as {beside.dtype}")
    tile = tile_of(checkpoint.config)
    matrix = (facts.shape[-2], facts.shape[-1])
    each = beside.shape[1:] if "scale" in _stacked(facts.shape, beside.shape) else beside.shape
    if min(facts.shape) < 1 or tile_for(each, matrix, tile) is None:
        return Refusal(
            name=name, why=f"scaled FP8 of shape {facts.shape} with scales of shape {beside.shape}"
        )
    tiles = f" in tiles of {tile[0]} x {tile[1]}" if tile else ""
    return PackedWeight(
        name=name,
        facts=TensorFacts(
            shape=facts.shape,
            dtype=f"{facts.dtype} scaled by {beside.dtype} {beside.shape}{tiles}",
            packed="fp8",
        ),
        members={"weight": name, "scale": scale},
        decode=_Decode(numpy_dtype(facts.dtype), tile),
        stacked=_stacked(facts.shape, beside.shape),
    )


@dataclass(frozen=True, slots=True)
class _Decode:
    dtype: np.dtype[Any]
    tile: tuple[int, int] | None

    def __call__(self, members: Members, index: int | None) -> Decoder:
        weight, scale = members["weight"], members["scale"]
        codes = weight.view(np.uint8)
        shape = (weight.shape[0], weight.shape[1])
        return of_levels(
            float_levels(self.dtype),
            shape=shape,
            codes=lambda start, stop: codes[start:stop],
            table=byte_table,
            scale=scale_grid(as_scales(scale), shape, self.tile),
        )


def _stacked(weight: tuple[int, ...], scales: tuple[int, ...]) -> frozenset[str]:
    """The members that are stacks of experts: scales may be shared by all."""
    if len(weight) != 3:
        return frozenset()
    own_scales = len(scales) > 0 and scales[0] == weight[0]
    return frozenset({"weight", "scale"} if own_scales else {"weight"})


def as_scales(scale: Array) -> Array:
    """Scales as float32; bytes are exponents."""
    return powers(scale) if scale.dtype == np.uint8 else scale.astype(np.float32)


def tile_of(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns that share a scale, where a config says so."""
    size = config.get("weight_block_size")
    for group in _groups(config):
        size = size or group.get("block_structure")
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(s, int) for s in size):
        return (size[0], size[1]) if min(size) > 0 else None
    return None


def _groups(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """How compressed-tensors says that weights are quantised."""
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            yield weights


FP8 = Format(
    title="scaled FP8",
    reads="E4M3 and E5M2 with a scale for all, for each row or for each tile (DeepSeek's 128 x "
    "128), in FP32, FP16, BF16 or E8M0; plain and stacked experts",
    refuses="tiles that do not cover the matrix",
    source="transformers `integrations/finegrained_fp8.py`, `Fp8Dequantize`; compressed-tensors "
    "`quantization/lifecycle/forward.py`; OCP 8-bit Floating Point Specification 1.0",
    find=_find,
)
