"""GGUF files through the library that defines them: names, shapes and types now, bytes when asked.

A packed tensor is listed with the shape that it stands for and the type `GGUF Q4_K`; reading it
gives its rows as bytes, which `dequantised` turns into numbers a few rows at a time.
"""

import mmap
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradience.errors import MissingExtraError, TensorFileError
from gradience.tensors.dtypes import dtype_name, numpy_dtype
from gradience.tensors.header import AGAIN
from gradience.tensors.regular import regular_file, shown
from gradience.tensors.stored import Array, StoredTensor
from gradience.tensors.tensor_file import TensorFile

PACKED = "GGUF "
"""What the type of a packed tensor begins with; the library's word for it follows."""

ARCHITECTURE = "general.architecture"
BLOCKS = "block_count"
"""Keys of the metadata of an open file."""

MAGIC = b"GGUF"

# The library reads what a file claims without looking twice: these are what it stumbles with.
_DAMAGED = (ValueError, KeyError, IndexError, TypeError, OverflowError, AttributeError)


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a GGUF file does.

    Raises
    ------
    TensorFileError
        If it cannot be read.
    """
    with regular_file(Path(path)) as (file, _):
        return file.read(len(MAGIC)) == MAGIC


def open_gguf(path: str | os.PathLike[str]) -> TensorFile:
    """Open a GGUF file; tensors are read when asked.

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
    with regular_file(path) as (_, size):
        pass
    gguf = library()
    try:
        # The file is mapped for reading: nothing is copied.
        reader = gguf.GGUFReader(path, "r")
        tensors = {t.name: _stored(t, reader.data.base) for t in reader.tensors}
        metadata = _metadata(reader)
    except _DAMAGED as error:
        raise TensorFileError(
            f"{path} is a GGUF file that its library cannot read: {error}", remedy=AGAIN
        ) from error
    return TensorFile(path=path, format="gguf", nbytes=size, tensors=tensors, metadata=metadata)


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
    try:
        import gguf  # noqa: PLC0415 - an extra, and 0.15 s
    except ImportError as error:
        raise MissingExtraError(
            "GGUF files are read by the library gguf, which is not installed",
            remedy="pip install 'gradience[gguf]'",
        ) from error
    return gguf


def _stored(tensor: Any, mapped: object) -> StoredTensor:
    data: Array = tensor.data
    name, kind = str(tensor.name), str(tensor.tensor_type.name)
    if kind == "BF16":
        # As bytes the library counts them; they are as plain as any float.
        data = data.view(numpy_dtype("BF16"))
    plain = kind in ("F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64")
    begin = int(tensor.data_offset)
    return StoredTensor(
        name=name,
        dtype=dtype_name(data.dtype) if plain else PACKED + kind,
        shape=tuple(int(n) for n in reversed(tensor.shape.tolist())),
        nbytes=int(data.nbytes),
        read=_reader(data),
        release=_forgetter(mapped, begin, begin + int(data.nbytes)),
    )


def _reader(data: Array) -> Callable[[], Array]:
    view = np.asarray(data)
    return lambda: view


def _forgetter(mapped: object, begin: int, end: int) -> Callable[[], None]:
    """Gives the pages of a tensor back; they come from the file again when touched."""

    def forget() -> None:
        if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = begin // mmap.PAGESIZE * mmap.PAGESIZE
        with suppress(OSError):
            mapped.madvise(mmap.MADV_DONTNEED, start, end - start)

    return forget


def _metadata(reader: Any) -> dict[str, str]:
    """The architecture and its number of blocks, which decide what names mean."""
    field = reader.get_field(ARCHITECTURE)
    if field is None:
        return {}
    architecture = str(field.contents())
    count = reader.get_field(f"{architecture}.{BLOCKS}")
    blocks = int(count.contents()) if count is not None else 0
    if not architecture.isprintable() or not 0 <= blocks <= len(reader.tensors):
        raise ValueError(f"architecture {shown(architecture)} of {blocks} blocks")
    return {ARCHITECTURE: architecture, BLOCKS: str(blocks)}
