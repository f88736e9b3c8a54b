"""bitsandbytes: four-bit levels with a scale for each run, or int8 with a scale for each row.

Four bits: `weight` holds two codes to a byte, the first in the high half; `absmax` scales each run
of `blocksize` elements of the flattened weight, and may itself be packed (double quantisation).
What kind and shape it is, is JSON in a tensor of bytes.
"""

from collections.abc import Iterator
from math import prod

import msgspec
import numpy as np

from gradience.audit.base.packed.bits import Bytes, Floats, byte_table
from gradience.audit.base.packed.format import (
    Checkpoint,
    Decoder,
    Format,
    Members,
    PackedWeight,
    Refusal,
    Shapes,
)
from gradience.audit.base.packed.scaled import FlatGrid, Grid, ScaledLevels, of_levels
from gradience.audit.base.weights import TensorFacts
from gradience.tensors.dtypes import storage_bits

_STATE = ".quant_state.bitsandbytes__"


class _QuantState(msgspec.Struct, frozen=True):
    """What bitsandbytes writes of a weight as JSON (`QuantState.as_dict`)."""

    quant_type: str
    blocksize: int
    shape: tuple[int, ...]
    nested_blocksize: int = 256
    nested_offset: float = 0.0


def _find_4bit(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    for name in checkpoint.tensors:
        weight, found, kind = name.rpartition(_STATE)
        if not found or weight not in checkpoint.tensors:
            continue
        roles = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
        members = checkpoint.present({role: f"{weight}.{role}" for role in roles})
        yield _weight_4bit(weight, members, name, kind, checkpoint)


def _weight_4bit(
    weight: str, members: dict[str, str], state: str, kind: str, checkpoint: Checkpoint
) -> PackedWeight | Refusal:
    try:
        read = msgspec.json.decode(checkpoint.read(state).tobytes(), type=_QuantState)
    except msgspec.DecodeError as error:
        return Refusal(name=weight, why=f"bitsandbytes 4-bit whose quant_state is damaged: {error}")
    needed = {"absmax", "quant_map"}
    if "absmax" in members and checkpoint.tensors[members["absmax"]].dtype == "U8":
        needed |= {"nested_absmax", "nested_quant_map"}
    missing = sorted(needed - members.keys())
    if missing:
        return Refusal(name=weight, why=f"bitsandbytes 4-bit without its {', '.join(missing)}")
    sizes = (*read.shape, read.blocksize, read.nested_blocksize)
    if len(read.shape) not in (2, 3) or min(sizes) < 1 or kind not in ("nf4", "fp4"):
        return Refusal(name=weight, why=f"bitsandbytes 4-bit {kind} of shape {read.shape}")
    total = prod(read.shape)
    runs = -(-total // read.blocksize)
    fitting: dict[str, Shapes] = {
        "absmax": [(runs,), (runs, 1)],
        "quant_map": [(16,)],
        "nested_absmax": [(-(-runs // read.nested_blocksize),)],
        "nested_quant_map": [(256,)],
    }
    why = checkpoint.misfit(members, fitting)
    stored = checkpoint.tensors[weight]
    if why or storage_bits(stored.dtype, stored.shape) < 4 * total:
        why = why or f"{stored.dtype} {stored.shape} for a weight of shape {read.shape}"
        return Refusal(name=weight, why=f"bitsandbytes 4-bit with {why}")
    return PackedWeight(
        name=weight,
        facts=TensorFacts(
            shape=read.shape,
            dtype=f"bitsandbytes {kind} in runs of {read.blocksize}",
            packed="bitsandbytes_4bit",
        ),
        members={"weight": weight, **members},
        decode=lambda members, index: _decode_4bit(members, index, read),
    )


def _decode_4bit(members: Members, index: int | None, state: _QuantState) -> Decoder:
    rows, columns = state.shape[-2:]
    octets = np.ascontiguousarray(members["weight"]).reshape(-1).view(np.uint8)
    offset = rows * columns * (index or 0)
    runs = slice(offset // state.blocksize, -(-(offset + rows * columns) // state.blocksize))

    # Rows of odd length share bytes with their neighbours: there, one code to a byte.
    whole_bytes = columns % 2 == 0

    def codes(start: int, stop: int) -> Bytes:
        first, last = offset + start * columns, offset + stop * columns
        touched = octets[first // 2 : -(-last // 2)]
        if whole_bytes:
            return touched.reshape(stop - start, -1)
        nibbles = np.stack((touched >> 4, touched & 15), axis=1).reshape(-1)
        return nibbles[first % 2 :][: last - first].reshape(stop - start, columns)

    return of_levels(
        _levels(members["quant_map"], whole_bytes),
        shape=(rows, columns),
        codes=codes,
        table=lambda levels: byte_table(levels, high_first=True),
        scale=FlatGrid(_absmax(members, state, runs), state.blocksize, offset % state.blocksize),
    )


def _levels(quant_map: Floats, whole_bytes: bool) -> Floats:
    """The sixteen levels, padded to a byte's codes where each code has a byte of its own."""
    levels = quant_map.astype(np.float32)
    return levels if whole_bytes else np.concatenate([levels, np.repeat(levels[-1:], 240)])


def _absmax(members: Members, state: _QuantState, runs: slice) -> Floats:
    """Scales of some runs as float32, unpacked where they are packed themselves."""
    absmax = members["absmax"].reshape(-1)[runs]
    if absmax.dtype != np.uint8:
        return absmax.astype(np.float32)
    outer = np.arange(runs.start, runs.stop) // state.nested_blocksize
    levels = members["nested_quant_map"].astype(np.float32)[absmax]
    scaled = levels * members["nested_absmax"].astype(np.float32)[outer]
    unpacked: Floats = scaled + np.float32(state.nested_offset)
    return unpacked


def _find_8bit(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    for name, facts in checkpoint.tensors.items():
        module, _, parameter = name.rpartition(".")
        if parameter != "weight" or facts.dtype != "I8" or len(facts.shape) != 2:
            continue
        scales = next((s for s in (f"{module}.SCB", f"{name}.SCB") if s in checkpoint.tensors), "")
        if scales:
            layout = _layout(module, checkpoint)
            why = checkpoint.misfit({"SCB": scales}, {"SCB": [facts.shape[:1]]})
            if layout or why or min(facts.shape) < 1:
                how = f"in the layout {layout}" if layout else f"with {why or 'nothing in it'}"
                yield Refusal(name=name, why=f"bitsandbytes 8-bit {how}")
                continue
            yield PackedWeight(
                name=name,
                facts=TensorFacts(
                    shape=facts.shape, dtype="bitsandbytes int8", packed="bitsandbytes_8bit"
                ),
                members={"weight": name, "scales": scales},
                decode=_decode_8bit,
            )


def _layout(module: str, checkpoint: Checkpoint) -> str:
    """The order that the numbers lie in, where it is not by rows."""
    name = f"{module}.weight_format"
    if name not in checkpoint.tensors:
        return ""
    codes = checkpoint.read(name).reshape(-1).tolist()
    code = codes[0] if len(codes) == 1 else -1
    known = dict(enumerate(("", "col32", "col_turing", "col_ampere")))
    return known.get(code, str(code))


def _decode_8bit(members: Members, index: int | None) -> Decoder:
    weight, scales = members["weight"], members["scales"].astype(np.float32).reshape(-1)
    rows, columns = weight.shape
    return ScaledLevels(
        shape=(rows, columns),
        codes=lambda start, stop: weight[start:stop].view(np.uint8),
        table=byte_table(np.arange(256).astype(np.uint8).view(np.int8)),
        # 127 is the largest code: `weight * SCB / 127` (bitsandbytes `int8_vectorwise_dequant`).
        scale=Grid((scales / np.float32(127))[:, None], 1, columns),
    )


BITSANDBYTES_4BIT = Format(
    title="bitsandbytes 4-bit",
    reads="nf4 and fp4, any block size, double quantisation, any `quant_storage`, stacked experts",
    refuses="weights without their `quant_state`",
    source="bitsandbytes `functional.py`, `QuantState` and `dequantize_4bit`",
    find=_find_4bit,
    notes=(_STATE,),
)
BITSANDBYTES_8BIT = Format(
    title="bitsandbytes 8-bit",
    reads="int8 with a scale for each row (`SCB`)",
    refuses="the column layouts of releases before 0.45",
    source="bitsandbytes `functional.py`, `int8_vectorwise_dequant`",
    find=_find_8bit,
    notes=(".weight_format",),
)
