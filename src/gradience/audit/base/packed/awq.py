"""AWQ: four-bit integers, eight to a word in an order of its own, scaled by groups of inputs.

GEMM packs along the outputs: `qweight` is (in, out / 8), `scales` (groups, out), `qzeros`
(groups, out / 8). GEMV packs along the inputs, in order: `qweight` is (out, in / 8), `scales`
(out, groups padded), `qzeros` (out, groups / 8 padded).
"""

from collections.abc import Callable, Iterator
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
)
from gradience.audit.base.packed.scaled import Grid, ScaledLevels
from gradience.audit.base.weights import TensorFacts
from gradience.tensors.stored import Array

# Output 8 c + i lies in nibble _ORDER[i] of word c (AutoAWQ `AWQ_REVERSE_ORDER`).
_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def _find(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    for module, facts in checkpoint.ending(".qweight"):
        members = checkpoint.present(
            {role: f"{module}.{role}" for role in ("qweight", "qzeros", "scales")}
        )
        if len(members) < 3 or len(facts.shape) != 2:
            continue
        found = _weight(f"{module}.weight", members, checkpoint)
        if found is not None:
            yield found


def _weight(
    name: str, members: dict[str, str], checkpoint: Checkpoint
) -> PackedWeight | Refusal | None:
    decode: Callable[[Members, int | None], Decoder]
    qweight = checkpoint.tensors[members["qweight"]]
    scales = checkpoint.tensors[members["scales"]].shape
    if len(scales) != 2:
        return None
    if qweight.dtype == "I32" and qweight.shape[1] * 8 == scales[1]:
        shape, label, decode = (scales[1], qweight.shape[0]), "GEMM", _gemm
        fitting = (scales[0], qweight.shape[1])
    elif checkpoint.method != "awq":
        return None
    else:
        version = str(checkpoint.config.get("version", "gemm")).lower()
        length = checkpoint.config.get("group_size", checkpoint.config.get("q_group_size"))
        inputs = qweight.shape[1] * 8
        if (
            (version, qweight.dtype, qweight.shape[0]) != ("gemv", "I32", scales[0])
            or not isinstance(length, int)
            or length < 1
            or not 0 < inputs // length <= scales[1]
            or inputs % length
        ):
            how = f"of version {version} in {qweight.dtype} {qweight.shape}"
            return Refusal(name=name, why=f"AWQ {how}, groups of {length}")
        shape, label, decode = (scales[0], inputs), f"GEMV {length}", _DecodeGemv(length)
        fitting = (scales[0], scales[1] // 8)
    why = checkpoint.misfit(members, {"qzeros": [fitting]})
    if why or min(*scales, *shape) < 1:
        return Refusal(name=name, why=f"AWQ with {why or 'nothing in it'}")
    return PackedWeight(
        name=name,
        facts=TensorFacts(shape=shape, dtype=f"AWQ 4-bit {label}", packed="awq"),
        members=members,
        decode=decode,
    )


def _gemm(members: Members, index: int | None) -> Decoder:
    qweight, scales = members["qweight"], members["scales"]
    inputs, outputs = qweight.shape[0], scales.shape[1]
    length = -(-inputs // len(scales))

    def codes(start: int, stop: int) -> Bytes:
        first = start // 8
        block = _by_output(qweight[:, first : -(-stop // 8)])
        return block[start - 8 * first : stop - 8 * first]

    return ScaledLevels(
        shape=(outputs, inputs),
        codes=codes,
        table=byte_table(np.arange(256)),
        scale=Grid(np.ascontiguousarray(scales.T, dtype=np.float32), 1, length),
        zero=Grid(_by_output(members["qzeros"]).astype(np.float32), 1, length),
    )


def _by_output(words: Array) -> Bytes:
    """(rows, k) words to (8 k, rows) codes, outputs ascending."""
    turned = np.ascontiguousarray(words.T).view(np.uint32)
    codes = np.empty((len(turned), 8, len(words)), np.uint8)
    for at, nibble in enumerate(_ORDER):
        np.bitwise_and(
            turned >> np.uint32(4 * nibble), np.uint32(15), out=codes[:, at], casting="unsafe"
        )
    return codes.reshape(-1, len(words))


@dataclass(frozen=True, slots=True)
class _DecodeGemv:
    length: int

    def __call__(self, members: Members, index: int | None) -> Decoder:
        qweight = members["qweight"]
        outputs, inputs = qweight.shape[0], qweight.shape[1] * 8
        count = inputs // self.length
        zeros = unpack_words(members["qzeros"], 4)[:, :count]
        return ScaledLevels(
            shape=(outputs, inputs),
            codes=lambda start, stop: np.ascontiguousarray(qweight[start:stop]).view(np.uint8),
            table=byte_table(np.arange(16)),
            scale=Grid(members["scales"][:, :count].astype(np.float32), 1, self.length),
            zero=Grid(zeros.astype(np.float32), 1, self.length),
        )


AWQ = Format(
    title="AWQ",
    reads="4 bits, versions GEMM and GEMV, any group size",
    refuses="GEMV-fast, Marlin and llm-awq layouts",
    source="AutoAWQ `utils/packing_utils.py`, `dequantize_gemm`, and `modules/linear/gemv.py`",
    find=_find,
)
