"""GGUF: llama.cpp's block formats, unpacked by the library that defines them.

Names are llama.cpp's own (`blk.0.attn_q.weight`); which names of running models they stand for is
the library's to say. Its converters may permute the rows of a weight, which no norm sees.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gradience.audit.base.packed.bits import Bytes, Floats
from gradience.audit.base.packed.format import (
    Checkpoint,
    Decoder,
    Format,
    Members,
    PackedWeight,
    Refusal,
)
from gradience.audit.base.weights import TensorFacts
from gradience.errors import TensorFileError
from gradience.tensors.gguf_file import PACKED, block_bytes, dequantised

LOWEST_BITS = {
    "Q4_0": (2, 18, 0x11),
    "Q4_1": (4, 20, 0x11),
    "Q5_0": (6, 22, 0x11),
    "Q5_1": (8, 24, 0x11),
    "Q8_0": (2, 34, 0x01),
    "Q2_K": (16, 80, 0x55),
    "Q3_K": (32, 96, 0x55),
    "Q4_K": (16, 144, 0x11),
    "Q5_K": (48, 176, 0x11),
    "Q6_K": (0, 128, 0x11),
}
"""Where in a block the lowest bits of the codes are, and which bits (ggml-common.h): a code with
its lowest bit turned is the next level up or down, so that the difference is the step."""


def _find(checkpoint: Checkpoint) -> Iterator[PackedWeight | Refusal]:
    for name, facts in checkpoint.tensors.items():
        if not facts.dtype.startswith(PACKED) or len(facts.shape) not in (2, 3):
            continue
        try:
            dequantised(np.zeros((1, block_bytes(facts.dtype)), np.uint8), facts.dtype)
        except TensorFileError as error:
            yield Refusal(name=name, why=str(error))
            continue
        yield PackedWeight(
            name=name,
            facts=TensorFacts(shape=facts.shape, dtype=facts.dtype, packed="gguf"),
            members={"weight": name},
            decode=_opener(facts),
            stacked=frozenset({"weight"}) if len(facts.shape) == 3 else frozenset(),
            rows_in_order=False,
        )


def _opener(facts: TensorFacts) -> Callable[[Members, int | None], Decoder]:
    def decode(members: Members, index: int | None) -> Decoder:
        return _Blocks((facts.shape[-2], facts.shape[-1]), members["weight"], facts.dtype)

    return decode


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Rows of blocks; implements `Decoder`."""

    shape: tuple[int, int]
    data: Bytes
    dtype: str

    def rows(self, start: int, stop: int) -> Floats:
        """Rows as float32."""
        return dequantised(self.data[start:stop], self.dtype)

    def squared_steps(self, start: int, stop: int) -> float | None:
        """Sum of the squared steps of these rows; None for types of uneven levels."""
        place = LOWEST_BITS.get(self.dtype.removeprefix(PACKED))
        if place is None:
            return None
        first, last, bits = place
        turned = self.data[start:stop].copy()
        turned.reshape(-1, block_bytes(self.dtype))[:, first:last] ^= np.uint8(bits)
        steps = self.rows(start, stop) - dequantised(turned, self.dtype)
        return float(np.square(steps, dtype=np.float64).sum())


GGUF = Format(
    title="GGUF",
    reads="every type that the library `gguf` unpacks (Q2_K to Q8_0, IQ, TQ, MXFP4), of every "
    "architecture whose names it maps, experts one by one or fused as the running model has them; "
    "one file or a split one; needs `gradience[gguf]`",
    refuses="architectures and types that the library does not know; DoRA, because converters may "
    "permute rows",
    source="llama.cpp `gguf-py`: `quants.py`, `tensor_mapping.py`",
    find=_find,
)
