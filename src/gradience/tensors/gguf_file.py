"""GGUF files: names, shapes and types now, bytes when asked; the library says what they mean.

A packed tensor is listed with the shape that it stands for and the type `GGUF Q4_K`; reading it
gives its rows as bytes, which `dequantised` turns into numbers a few rows at a time.
"""

import mmap
import os
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradience.errors import TensorFileError, of_an_extra, shown
from gradience.tensors.content import refuse_empty
from gradience.tensors.dtypes import numpy_dtype
from gradience.tensors.fingerprint import sampled_digest
from gradience.tensors.gguf_header import GgufHeader, GgufTensor, parse_gguf_header
from gradience.tensors.header import AGAIN
from gradience.tensors.mapped import forget, map_file, unmap
from gradience.tensors.regular import regular_file
from gradience.tensors.stored import Array, StoredTensor
from gradience.tensors.tensor_file import TensorFile

PACKED = "GGUF "
"""What the type of a packed tensor begins with; the library's word for it follows."""

ARCHITECTURE = "general.architecture"
BLOCKS = "block_count"
"""Keys of the metadata of an open file."""

MAGIC = b"GGUF"

# Types that are numbers as they are; BF16 is stored as ml_dtypes has it.
_PLAIN = frozenset({"F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"})


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a GGUF file does.

    Raises
    ------
    TensorFileError
        If it cannot be read.
    """
    with regular_file(Path(path)) as (file, _):
        return file.read(len(MAGIC)) == MAGIC


def open_gguf(path: str | os.PathLike[str], *, sample: bool = False) -> TensorFile:
    """Open a GGUF file; tensors are read when asked.

    Parameters
    ----------
    path : path
    sample : bool
        Take its `sampled_digest`.

    Returns
    -------
    TensorFile
        Its `metadata` holds `ARCHITECTURE` and the number of `BLOCKS`.

    Raises
    ------
    TensorFileError
        If it is missing, truncated, or contradicts itself.
    MissingExtraError
        If the library `gguf` is not installed.
    """
    path = Path(path)
    gguf = library()
    with regular_file(path) as (file, size):
        refuse_empty(path, size)
        mapped = map_file(path, file, size)
        status = os.fstat(file.fileno())
        sampled = sampled_digest(file, size) if sample else None
    try:
        header = parse_gguf_header(mapped)
        tensors = {t.name: _stored(gguf, mapped, t) for t in header.tensors}
        metadata = _metadata(header)
    except ValueError as error:
        unmap(mapped)
        raise TensorFileError(
            f"{path} is a GGUF file that cannot be read: {error}", remedy=AGAIN
        ) from error
    return TensorFile(
        path=path,
        format="gguf",
        nbytes=size,
        tensors=tensors,
        status=status,
        sampled=sampled,
        metadata=metadata,
        _close=lambda: unmap(mapped),
    )


def dequantised(rows: Array, dtype: str) -> NDArray[np.float32]:
    """Rows of a packed tensor as numbers.

    Parameters
    ----------
    rows : (m, bytes per row) uint8
        From `StoredTensor.read`.
    dtype : str
        Of the tensor: `GGUF Q4_K`.

    Raises
    ------
    TensorFileError
        If the library does not know how.
    """
    gguf = library()
    try:
        kind = gguf.GGMLQuantizationType[dtype.removeprefix(PACKED)]
        # Its tables divide by scales of zero and overflow halves as llama.cpp does.
        with np.errstate(all="ignore"):
            numbers: NDArray[np.float32] = gguf.quants.dequantize(rows, kind)
    except (KeyError, NotImplementedError) as error:
        raise TensorFileError(
            f"the gguf library does not unpack {dtype}: {error}",
            remedy="Install a newer one (pip install -U gguf), or name the model that it was "
            "converted from.",
        ) from error
    return numbers


def block_bytes(dtype: str) -> int:
    """Bytes of one block of a packed type: `GGUF Q4_K` has 144."""
    gguf = library()
    return int(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype.removeprefix(PACKED)]][1])


def live_names(architecture: str, blocks: int) -> Mapping[str, str]:
    """Module names of running models, and the name each has in a GGUF file of that architecture.

    Several names of the first kind lead to one of the second: models name alike what llama.cpp
    holds for the same. Empty for an architecture that the library does not know.
    """
    gguf = library()
    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        return {}
    return {
        live: stored
        for live, (_, stored) in gguf.get_tensor_name_map(
            known[architecture], blocks
        ).mapping.items()
        if live != stored
    }


def library() -> Any:
    """The module `gguf`.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    with of_an_extra(
        "GGUF files are read by the library gguf, which is not installed",
        remedy='pip install "gradience[gguf]"',
    ):
        import gguf  # noqa: PLC0415 - an extra, and 0.15 s
    return gguf


def _stored(gguf: Any, mapped: mmap.mmap, tensor: GgufTensor) -> StoredTensor:
    """A tensor whose bytes are there: as numbers, or as rows of packed blocks."""
    kind = str(gguf.GGMLQuantizationType(tensor.kind).name)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.kind)]
    if tensor.shape[-1] % block:
        raise ValueError(f"{shown(tensor.name)} of shape {tensor.shape} is not whole in {kind}")
    *rows, columns = tensor.shape
    stored = (*rows, columns // block * size)
    end = tensor.begin + prod(stored)
    if end > len(mapped):
        raise ValueError(f"{shown(tensor.name)} ends at byte {end} of {len(mapped)}")
    dtype = kind if kind in _PLAIN else PACKED + kind
    return StoredTensor(
        name=tensor.name,
        dtype=dtype,
        shape=tensor.shape,
        nbytes=prod(stored),
        read=partial(_view, mapped, tensor.begin, stored, dtype),
        release=partial(forget, mapped, tensor.begin, end),
    )


def _view(mapped: mmap.mmap, begin: int, stored: tuple[int, ...], dtype: str) -> Array:
    if 0 in stored:
        return np.empty(stored, np.uint8 if dtype.startswith(PACKED) else numpy_dtype(dtype))
    octets: Array = np.frombuffer(mapped, np.uint8, prod(stored), begin).reshape(stored)
    return octets if dtype.startswith(PACKED) else octets.view(numpy_dtype(dtype))


def _metadata(header: GgufHeader) -> dict[str, str]:
    """The architecture and its number of blocks, which decide what names mean."""
    architecture = header.values.get(ARCHITECTURE)
    if architecture is None:
        return {}
    blocks = header.values.get(f"{architecture}.{BLOCKS}", 0)
    sound = isinstance(architecture, str) and architecture.isprintable()
    if not sound or not isinstance(blocks, int) or not 0 <= blocks <= len(header.tensors):
        raise ValueError(f"architecture {shown(architecture)} of {shown(blocks)} blocks")
    return {ARCHITECTURE: str(architecture), BLOCKS: str(blocks)}
