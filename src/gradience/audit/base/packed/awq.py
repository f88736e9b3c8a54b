"""AWQ: four-bit integers, eight to a word in an order of its own, scaled by groups of inputs.

GEMM packs along the outputs: `qweight` is (in, out / 8), `scales` (groups, out), `qzeros`
(groups, out / 8). GEMV packs along the inputs, in order: `qweight` is (out, in / 8), `scales`
(out, groups padded), `qzeros` (out, groups / 8 padded).
"""

from collections.abc import Iterator

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
_ORDER = np.array([0, 4, 1, 5, 2, 6, 3, 7])


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
    qweight = checkpoint.tensors[members["qweight"]]
    scales = checkpoint.tensors[members["scales"]].shape
    version = str(checkpoint.config.get("version", "gemm")).lower()
    if len(scales) != 2:
        return None
    if qweight.dtype == "I32" and qweight.shape[1] * 8 == scales[1]:
        return PackedWeight(
            name=name,
            facts=TensorFacts(
                shape=(scales[1], qweight.shape[0]), dtype="AWQ 4-bit GEMM", packed="awq"
            ),
            members=members,
            decode=_gemm,
        )
    if checkpoint.method != "awq":
        return None
    length = checkpoint.config.get("group_size", checkpoint.config.get("q_group_size"))
    inputs = qweight.shape[1] * 8
    if (
        version == "gemv"
        and qweight.dtype == "I32"
        and qweight.shape[0] == scales[0]
        and isinstance(length, int)
        and length > 0
        and inputs % length == 0
        and inputs // length <= scales[1]
    ):
        return PackedWeight(
            name=name,
            facts=TensorFacts(
                shape=(qweight.shape[0], inputs), dtype=f"AWQ 4-bit GEMV {length}", packed="awq"
            ),
            members=members,
            decode=lambda members, index: _gemv(members, length),
        )
    return Refusal(name=name, why=f"AWQ of version {version} in {qweight.dtype} {qweight.shape}")


def _gemm(members: Members, index: int | None) -> Decoder:
    qweight, scales = members["qweight"], members["scales"]
    inputs, outputs = qweight.shape[0], scales.shape[1]
    length = -(-inputs // len(scales))

    def codes(start: int, stop: int) -> Bytes:
        first = start // 8
        block = _outputs_in_order(qweight[:, first : -(-stop // 8)])
        return np.ascontiguousarray(block[:, start - 8 * first : stop - 8 * first].T)

    return ScaledLevels(
        shape=(outputs, inputs),
        codes=codes,
        table=byte_table(np.arange(256)),
        scale=Grid(np.ascontiguousarray(scales.T, dtype=np.float32), 1, length),
        zero=Grid(
            np.ascontiguousarray(_outputs_in_order(members["qzeros"]).T, dtype=np.float32),
            1,
            length,
        ),
    )


def _outputs_in_order(words: Array) -> Bytes:
    """(rows, k) words to (rows, 8 k) codes, outputs ascending."""
    fields = unpack_words(words, 4).reshape(len(words), -1, 8)
    return fields[:, :, _ORDER].reshape(len(words), -1)


def _gemv(members: Members, length: int) -> Decoder:
    qweight = members["qweight"]
    outputs, inputs = qweight.shape[0], qweight.shape[1] * 8
    count = inputs // length
    zeros = unpack_words(members["qzeros"], 4)[:, :count]
    return ScaledLevels(
        shape=(outputs, inputs),
        codes=lambda start, stop: np.ascontiguousarray(qweight[start:stop]).view(np.uint8),
        table=byte_table(np.arange(16)),
        scale=Grid(members["scales"][:, :count].astype(np.float32), 1, length),
        zero=Grid(zeros.astype(np.float32), 1, length),
    )


AWQ = Format(
    title="AWQ",
    reads="4 bits, versions GEMM and GEMV, any group size",
    refuses="GEMV-fast, Marlin and llm-awq layouts",
    source="AutoAWQ `utils/packing_utils.py`, `dequantize_gemm`, and `modules/linear/gemv.py`",
    find=_find,
)
