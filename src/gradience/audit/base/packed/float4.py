"""Four-bit floats (E2M1): MXFP4 with a power of two for each 32, NVFP4 with FP8 for each 16.

gpt-oss stores stacked experts as `<name>_blocks` (experts, out, groups, 16) with `<name>_scales`;
the running model has them transposed. Linear weights are `weight_packed` (compressed-tensors) or
`weight` (ModelOpt), two codes to a byte, the first in the low half.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from gradience.audit.base.packed.bits import FLOAT4, byte_table, powers
from gradience.audit.base.packed.format import (
    Checkpoint,
    Decoder,
    Format,
    Members,
    PackedWeight,
    Refusal,
)
from gradience.audit.base.packed.scaled import Grid, of_levels
from gradience.audit.base.weights import TensorFacts
from gradience.tensors.stored import Array

_MX_GROUP, _NV_GROUP = 32, 16


def _find_mx(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    for name, facts in checkpoint.ending("_blocks"):
        scales = checkpoint.tensors.get(f"{name}_scales")
        if scales is None or facts.dtype != "U8" or facts.shape[:-1] != scales.shape:
            continue
        if (
            len(facts.shape) != 4
            or min(facts.shape) < 1
            or facts.shape[-1] * 2 != _MX_GROUP
            or scales.dtype != "U8"
        ):
            yield Refusal(name=name, why=f"MXFP4 in blocks of shape {facts.shape}")
            continue
        experts, outputs, groups, _ = facts.shape
        yield PackedWeight(
            name=name,
            facts=TensorFacts(
                shape=(experts, groups * _MX_GROUP, outputs), dtype="MXFP4", packed="mxfp4"
            ),
            members={"weight": f"{name}_blocks", "scale": f"{name}_scales"},
            decode=_decode_mx,
            transposed=True,
            stacked=frozenset({"weight", "scale"}),
        )
    for module, facts in checkpoint.ending(".weight_packed"):
        scale = checkpoint.tensors.get(f"{module}.weight_scale")
        if scale is not None and _is_halved(facts, scale, _MX_GROUP) and scale.dtype == "U8":
            yield PackedWeight(
                name=f"{module}.weight",
                facts=TensorFacts(shape=_doubled(facts), dtype="MXFP4", packed="mxfp4"),
                members={"weight": f"{module}.weight_packed", "scale": f"{module}.weight_scale"},
                decode=_decode_mx,
            )


def _decode_mx(members: Members, index: int | None) -> Decoder:
    blocks, scales = members["weight"], members["scale"]
    return _decoder(blocks.reshape(len(blocks), -1), powers(scales), _MX_GROUP)


def _find_nv(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    # compressed-tensors stores the reciprocal of what ModelOpt stores.
    for ending, whole, inverse in (
        ("weight_packed", "weight_global_scale", True),
        ("weight", "weight_scale_2", False),
    ):
        for module, facts in checkpoint.ending(f".{ending}"):
            scale = checkpoint.tensors.get(f"{module}.weight_scale")
            if scale is None or f"{module}.{whole}" not in checkpoint.tensors:
                continue
            if facts.dtype != "U8":
                continue
            one = prod(checkpoint.tensors[f"{module}.{whole}"].shape) == 1
            if not one or not _is_halved(facts, scale, _NV_GROUP) or scale.dtype != "F8_E4M3":
                yield Refusal(
                    name=f"{module}.weight",
                    why=f"NVFP4 of shape {facts.shape} with scales {scale.dtype} {scale.shape}",
                )
                continue
            members = {"weight": ending, "scale": "weight_scale", "whole": whole}
            yield PackedWeight(
                name=f"{module}.weight",
                facts=TensorFacts(shape=_doubled(facts), dtype="NVFP4", packed="nvfp4"),
                members={role: f"{module}.{end}" for role, end in members.items()},
                decode=_DecodeNv(inverse),
            )


@dataclass(frozen=True, slots=True)
class _DecodeNv:
    inverse: bool

    def __call__(self, members: Members, index: int | None) -> Decoder:
        whole = members["whole"].astype(np.float32).reshape(-1)[0]
        scales = members["scale"].astype(np.float32)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            scales = scales / whole if self.inverse else scales * whole
        return _decoder(members["weight"], scales, _NV_GROUP)


def _decoder(packed: Array, scales: Array, group: int) -> Decoder:
    return of_levels(
        FLOAT4,
        shape=(packed.shape[0], packed.shape[1] * 2),
        codes=lambda start, stop: packed[start:stop],
        table=byte_table,
        scale=Grid(scales, 1, group),
    )


def _is_halved(facts: TensorFacts, scale: TensorFacts, group: int) -> bool:
    """Whether the codes are (m, n / 2) bytes and the scales (m, n / group)."""
    if facts.dtype != "U8" or len(facts.shape) != 2 or min(facts.shape) < 1:
        return False
    return scale.shape == (facts.shape[0], facts.shape[1] * 2 // group)


def _doubled(facts: TensorFacts) -> tuple[int, ...]:
    return facts.shape[0], facts.shape[1] * 2


MXFP4 = Format(
    title="MXFP4",
    reads="stacked experts of gpt-oss (`_blocks`, `_scales`); `mxfp4-pack-quantized`",
    refuses="other block shapes",
    source="OCP Microscaling Formats Specification 1.0; transformers `integrations/mxfp4.py`, "
    "`convert_moe_packed_tensors`",
    find=_find_mx,
)
NVFP4 = Format(
    title="NVFP4",
    reads="compressed-tensors `nvfp4-pack-quantized`, ModelOpt (`weight_scale_2`)",
    refuses="scales that are not FP8 for each 16 columns",
    source="compressed-tensors `compressors/nvfp4`; NVIDIA ModelOpt `NVFP4QTensor`",
    find=_find_nv,
)
