"""compressed-tensors: integers of 2, 4 or 8 bits packed into words by rows, or plain int8.

Packed codes are unsigned, their zero is 2 ** (bits - 1); zero points, where there are any, are
packed the same way along the outputs. Float formats are in `float8` and `float4`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradience.audit.base.packed.bits import byte_table, unpack_words
from gradience.audit.base.packed.float8 import tile_of
from gradience.audit.base.packed.format import (
    Checkpoint,
    Decoder,
    Format,
    Members,
    PackedWeight,
    Refusal,
    Shapes,
)
from gradience.audit.base.packed.scaled import Grid, ScaledLevels, scale_grid, tile_for
from gradience.audit.base.weights import TensorFacts
from gradience.errors import UnmeasurableError
from gradience.tensors.stored import Array

_BITS = (2, 4, 8)
_ROLES = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx")


def _find(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    for module, facts in checkpoint.ending(".weight_packed"):
        if facts.dtype == "I32":
            yield _packed(module, facts, checkpoint)
    if checkpoint.method not in ("compressed-tensors", "compressed_tensors"):
        return
    for module, facts in checkpoint.ending(".weight"):
        scaled = f"{module}.weight_scale" in checkpoint.tensors
        if facts.dtype == "I8" and len(facts.shape) == 2 and scaled:
            yield _int8(module, facts, checkpoint)


def _int8(module: str, facts: TensorFacts, checkpoint: Checkpoint) -> PackedWeight | Refusal:
    name, members = f"{module}.weight", _members(module, checkpoint)
    tile = tile_of(checkpoint.config)
    scale = checkpoint.tensors[members["weight_scale"]].shape
    matrix = (facts.shape[0], facts.shape[1])
    why = checkpoint.misfit(members, {"weight_zero_point": [scale]})
    if why or min(matrix) < 1 or tile_for(scale, matrix, tile) is None:
        why = why or f"scales of shape {scale} for a weight of shape {matrix}"
        return Refusal(name=name, why=f"compressed-tensors int8 with {why}")
    return PackedWeight(
        name=name,
        facts=_labelled(matrix, f"int8{f' in tiles of {tile}' if tile else ''}"),
        members=members,
        decode=_DecodeInt8(tile),
    )


def _packed(module: str, facts: TensorFacts, checkpoint: Checkpoint) -> PackedWeight | Refusal:
    name, members = f"{module}.weight", _members(module, checkpoint)
    stored = f"{module}.weight_shape"
    if "weight_scale" not in members or stored not in checkpoint.tensors:
        return Refusal(name=name, why="compressed-tensors without its weight_scale or weight_shape")
    shape = tuple(int(n) for n in checkpoint.read(stored).reshape(-1))
    whole = len(shape) == 2 and len(facts.shape) == 2 and min(shape) > 0
    bits = next((b for b in _BITS if whole and facts.shape[1] == -(-shape[1] * b // 32)), 0)
    if not bits or facts.shape[0] != shape[0]:
        return Refusal(
            name=name,
            why=f"compressed-tensors, a weight of shape {shape} in words of shape {facts.shape}",
        )
    scale = checkpoint.tensors[members["weight_scale"]].shape
    groups = scale[-1] if len(scale) == 2 else 1
    fitting: dict[str, Shapes] = {
        "weight_zero_point": [(-(-shape[0] * bits // 32), groups)],
        "weight_g_idx": [shape[1:]],
    }
    why = checkpoint.misfit(members, fitting)
    if why or tile_for(scale, (shape[0], shape[1])) is None:
        why = why or f"scales of shape {scale} for a weight of shape {shape}"
        return Refusal(name=name, why=f"compressed-tensors with {why}")
    return PackedWeight(
        name=name,
        facts=_labelled(shape, f"int{bits}"),
        members=members,
        decode=_DecodePacked(shape, bits),
    )


def _labelled(shape: tuple[int, ...], label: str) -> TensorFacts:
    return TensorFacts(
        shape=shape, dtype=f"compressed-tensors {label}", packed="compressed_tensors"
    )


def _members(module: str, checkpoint: Checkpoint) -> dict[str, str]:
    return checkpoint.present({role: f"{module}.{role}" for role in _ROLES})


@dataclass(frozen=True, slots=True)
class _DecodePacked:
    shape: tuple[int, ...]
    bits: int

    def __call__(self, members: Members, index: int | None) -> Decoder:
        rows, columns = self.shape
        words = members["weight_packed"]
        scale = _in_order(members["weight_scale"], members.get("weight_g_idx"), (rows, columns))
        zero = None
        if "weight_zero_point" in members:
            fields = unpack_words(np.ascontiguousarray(members["weight_zero_point"].T), self.bits)
            zero = Grid(fields.T[:rows].astype(np.float32), scale.height, scale.groups)
        middle = 0 if zero else 2 ** (self.bits - 1)
        return ScaledLevels(
            shape=(rows, columns),
            codes=lambda start, stop: np.ascontiguousarray(words[start:stop]).view(np.uint8),
            table=byte_table(np.arange(2**self.bits) - middle),
            scale=scale,
            zero=zero,
        )


@dataclass(frozen=True, slots=True)
class _DecodeInt8:
    tile: tuple[int, int] | None

    def __call__(self, members: Members, index: int | None) -> Decoder:
        weight = members["weight"]
        shape = (weight.shape[0], weight.shape[1])
        point = members.get("weight_zero_point")
        return ScaledLevels(
            shape=shape,
            codes=lambda start, stop: weight[start:stop].view(np.uint8),
            table=byte_table(np.arange(256).astype(np.uint8).view(np.int8)),
            scale=scale_grid(members["weight_scale"].astype(np.float32), shape, self.tile),
            zero=None if point is None else scale_grid(point.astype(np.float32), shape, self.tile),
        )


def _in_order(scale: Array, g_idx: Array | None, shape: tuple[int, int]) -> Grid:
    """Scales by group of columns, the columns out of order where they were quantised so."""
    values = scale.astype(np.float32)
    # -1 stands for an order that was not kept.
    if g_idx is None or g_idx.min() < 0 or values.ndim != 2:
        return scale_grid(values, shape)
    if g_idx.max() >= values.shape[1]:
        raise UnmeasurableError(
            f"weight_g_idx names group {g_idx.max()}, where there are {values.shape[1]}",
            remedy="Download the base model again; its tensors contradict each other.",
        )
    return Grid(values, 1, np.asarray(g_idx, dtype=np.intp))


COMPRESSED_TENSORS = Format(
    title="compressed-tensors",
    reads="`pack-quantized` of 2, 4 and 8 bits, symmetric and not, by row or group, activation "
    "order; `int-quantized` and `naive-quantized` int8",
    refuses="`pack-quantized` of 3, 5, 6 and 7 bits, whose layout changed between releases; "
    "`marlin-24` and sparse formats",
    source="compressed-tensors `compressors/pack_quantized`, `quantization/lifecycle/forward.py`",
    find=_find,
    notes=(".weight_shape",),
)
