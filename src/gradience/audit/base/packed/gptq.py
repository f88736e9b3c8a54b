"""GPTQ: integers packed along the inputs, a scale and a zero point for each group of inputs.

`qweight` is (in * bits / 32, out), `scales` (groups, out), `qzeros` (groups, out * bits / 32), and
`g_idx` the group of each input, out of order where the weight was quantised by activation order.
Version 1 stores zero points less one; version 2 stores them as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradience.audit.base.packed.bits import Bytes, byte_table, unpack_words
from gradience.audit.base.packed.format import (
    Checkpoint,
    Decoder,
    Format,
    Members,
    PackedWeight,
    Refusal,
    Shapes,
)
from gradience.audit.base.packed.scaled import Grid, ScaledLevels
from gradience.audit.base.weights import TensorFacts
from gradience.errors import UnmeasurableError
from gradience.tensors.stored import Array

_BITS = (2, 3, 4, 8)
_LAYOUTS = {"gptq": 1, "gptq_v2": 2}


def _find(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    layout = str(checkpoint.config.get("checkpoint_format") or "gptq").lower()
    if checkpoint.config.get("is_marlin_format"):
        layout = "marlin"
    for module, facts in checkpoint.ending(".qweight"):
        members = checkpoint.present(
            {role: f"{module}.{role}" for role in ("qweight", "qzeros", "scales", "g_idx")}
        )
        if not {"qzeros", "scales"} <= members.keys() or checkpoint.method == "awq":
            continue
        scales = checkpoint.tensors[members["scales"]].shape
        if len(scales) != 2 or len(facts.shape) != 2 or facts.shape[1] != scales[1]:
            continue
        name = f"{module}.weight"
        bits = _bits(checkpoint, members, scales)
        if layout not in _LAYOUTS:
            yield Refusal(name=name, why=f"GPTQ in the layout {layout}")
        elif bits not in _BITS or facts.dtype != "I32":
            yield Refusal(name=name, why=f"GPTQ of {bits} bits in {facts.dtype}")
        else:
            yield _weight(name, members, bits, layout, checkpoint)


def _bits(checkpoint: Checkpoint, members: dict[str, str], scales: tuple[int, ...]) -> int:
    """Bits of a code, which modules may differ in; the shapes say it better than the config."""
    packed = checkpoint.tensors[members["qzeros"]].shape
    return packed[-1] * 32 // scales[1] if packed and scales[1] else 0


def _weight(
    name: str, members: dict[str, str], bits: int, layout: str, checkpoint: Checkpoint
) -> PackedWeight | Refusal:
    count, outputs = checkpoint.tensors[members["scales"]].shape
    inputs = checkpoint.tensors[members["qweight"]].shape[0] * 32 // bits
    fitting: dict[str, Shapes] = {
        "qzeros": [(count, -(-outputs * bits // 32))],
        "qweight": [(-(-inputs * bits // 32), outputs)],
        "g_idx": [(inputs,)],
    }
    why = checkpoint.misfit(members, fitting)
    if why or min(inputs, outputs, count) < 1:
        return Refusal(name=name, why=f"GPTQ with {why or 'nothing in it'}")
    length = _length(checkpoint.config.get("group_size"), inputs, count)
    return PackedWeight(
        name=name,
        facts=TensorFacts(
            shape=(outputs, inputs), dtype=f"GPTQ {bits}-bit {layout} {length}", packed="gptq"
        ),
        members=members,
        decode=_Decode(bits, _LAYOUTS[layout], length),
    )


def _length(configured: object, inputs: int, count: int) -> int:
    """Inputs of a group: as the config says, by which the last one may be shorter."""
    if isinstance(configured, int) and configured > 0 and -(-inputs // configured) == count:
        return configured
    return -(-inputs // count)


@dataclass(frozen=True, slots=True)
class _Decode:
    bits: int
    version: int
    length: int

    def __call__(self, members: Members, index: int | None) -> Decoder:
        qweight, scales = members["qweight"], members["scales"]
        inputs, outputs = qweight.shape[0] * 32 // self.bits, scales.shape[1]
        zeros = unpack_words(members["qzeros"], self.bits)[:, :outputs]
        if self.version == 1:
            # In the width of a code: 0 is stored as all ones (gptqmodel, `_shift_gptq_qzeros`).
            zeros = (zeros + np.uint8(1)) & np.uint8(2**self.bits - 1)
        groups = _groups(members.get("g_idx"), self.length, len(scales))
        wide = self.bits in (2, 4, 8)

        def codes(start: int, stop: int) -> Bytes:
            words = np.ascontiguousarray(qweight[:, start:stop].T)
            return words.view(np.uint8) if wide else unpack_words(words, self.bits)

        return ScaledLevels(
            shape=(outputs, inputs),
            codes=codes,
            table=byte_table(np.arange(2**self.bits if wide else 256)),
            scale=Grid(np.ascontiguousarray(scales.T, dtype=np.float32), 1, groups),
            zero=Grid(np.ascontiguousarray(zeros.T, dtype=np.float32), 1, groups),
        )


def _groups(g_idx: Array | None, length: int, count: int) -> "int | Array":
    """The group of each input, or the length of a group where they are in order."""
    if g_idx is None or np.array_equal(g_idx, np.arange(len(g_idx)) // length):
        return length
    if g_idx.min() < 0 or g_idx.max() >= count:
        raise UnmeasurableError(
            f"g_idx names groups {g_idx.min()} to {g_idx.max()}, where there are {count}",
            remedy="Download the base model again; its tensors contradict each other.",
        )
    return np.asarray(g_idx, dtype=np.intp)


GPTQ = Format(
    title="GPTQ",
    reads="2, 3, 4 and 8 bits, any group size, activation order (`g_idx`), checkpoint formats "
    "`gptq` (zero points less one) and `gptq_v2`",
    refuses="Marlin, planar and other layouts of `checkpoint_format`; 5, 6 and 7 bits",
    source="gptqmodel `nn_modules/qlinear`, `dequantize_weight`, and `utils/model_dequant.py`, "
    "`_correct_gptq_v1_qzeros`",
    find=_find,
)
