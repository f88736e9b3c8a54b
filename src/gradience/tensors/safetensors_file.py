"""Safetensors files as views of the mapped file: nothing is copied, nothing is trusted.

The library's own reader copies every tensor it returns (1.6 GB/s against 30 GB/s mapped, measured
on one core), so the header is parsed here too and the views are made from its offsets; the library
is asked for a second opinion, so that no file is read here that it would refuse.

The size is checked when the file is opened. A file that another process shortens afterwards ends
this process with SIGBUS when a lost page is touched: that is how mapped files work, in the
library's reader too. Writers that replace files atomically, as the Hub's cache does, are safe.
"""

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from blake3 import blake3
from safetensors import SafetensorError, safe_open

from gradience.errors import TensorFileError, shown
from gradience.tensors.content import (
    HEAD_BYTES,
    MAX_HEADER_BYTES,
    foreign_content,
    is_safetensors,
    refuse_empty,
    refuse_lfs_pointer,
)
from gradience.tensors.dtypes import is_readable, numpy_dtype
from gradience.tensors.fingerprint import sampled_digest
from gradience.tensors.header import AGAIN, Entry, parse_header
from gradience.tensors.mapped import forget, map_file, unmap
from gradience.tensors.regular import regular_file
from gradience.tensors.stored import Array, StoredTensor
from gradience.tensors.tensor_file import TensorFile

LENGTH_BYTES = 8
"""Of the length of the header, with which a file begins."""


def open_safetensors(path: str | os.PathLike[str], *, sample: bool = False) -> TensorFile:
    """Open a safetensors file; tensors are read when asked.

    Parameters
    ----------
    path : path
        A regular file, or a symbolic link to one; its name may have any suffix.
    sample : bool
        Take its `sampled_digest`.

    Returns
    -------
    TensorFile
        Its tensors are read-only views of the file. Tensors of sub-byte types are listed and
        cannot be read.

    Raises
    ------
    LfsPointerError
        If a Git LFS pointer stands in its place.
    TensorFileError
        If the file is missing, not a regular file, not safetensors, truncated, or if its header
        contradicts itself, the format or the file. Names the file and the value.
    """
    path = Path(path)
    with regular_file(path) as (file, size):
        header = _read_header(path, file, size)
        data_start = LENGTH_BYTES + len(header)
        parsed = parse_header(path, header, data_nbytes=size - data_start)
        _second_opinion(path)
        mapped = map_file(path, file, size)
        status = os.fstat(file.fileno())
        sampled = sampled_digest(file, size) if sample else None
    tensors = {entry.name: _stored(path, mapped, data_start, entry) for entry in parsed.entries}
    return TensorFile(
        path=path,
        format="safetensors",
        nbytes=size,
        tensors=tensors,
        status=status,
        sampled=sampled,
        metadata=parsed.metadata,
        data_start=data_start,
        header_digest=f"blake3:{blake3(header).hexdigest()}",
        _close=lambda: unmap(mapped),
    )


def _read_header(path: Path, file: BinaryIO, size: int) -> bytes:
    """The header's bytes, after everything that can be told without parsing them."""
    length = header_length(path, file.read(HEAD_BYTES), size)
    file.seek(LENGTH_BYTES)
    return file.read(length)


def header_length(source: Path | str, head: bytes, size: int) -> int:
    """Bytes of the header, as the beginning of a file says, held against the file's size.

    Parameters
    ----------
    source : Path or str
        For the errors.
    head : bytes
        The first `HEAD_BYTES`, or all there are.
    size : int
        Of the whole file.

    Raises
    ------
    TensorFileError
        If it cannot be a safetensors file; says what it is instead, where that can be told.
    """
    refuse_empty(source, size)
    refuse_lfs_pointer(source, head)
    foreign = None if is_safetensors(head) else foreign_content(head)
    if foreign is not None:
        raise TensorFileError(f"{source} is {foreign}, not a safetensors file", remedy=AGAIN)
    if size < LENGTH_BYTES:
        raise TensorFileError(
            f"{source} has {size} bytes; a safetensors file begins with {LENGTH_BYTES}",
            remedy=AGAIN,
        )
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        limit = f"the format's limit of {MAX_HEADER_BYTES}"
        raise TensorFileError(
            f"{source}: its header claims {length} bytes, above {limit}; not a safetensors file?",
            remedy=AGAIN,
        )
    if length > size - LENGTH_BYTES:
        short = length - (size - LENGTH_BYTES)
        raise TensorFileError(
            f"{source}: its header claims {length} bytes and the file has {size}: {short} bytes of "
            "the header are missing",
            remedy="It is truncated: download it again, or save it again on a disk with room.",
        )
    return length


def _second_opinion(path: Path) -> None:
    """Refuse what the format's own reader refuses."""
    try:
        with safe_open(os.fspath(path), framework="np"):
            return
    except SafetensorError as error:
        raise TensorFileError(
            f"{path}: the safetensors library refuses it: {error}", remedy=AGAIN
        ) from error


def _stored(path: Path, mapped: mmap.mmap, data_start: int, entry: Entry) -> StoredTensor:
    begin = data_start + entry.begin
    end = data_start + entry.end
    return StoredTensor(
        name=entry.name,
        dtype=entry.dtype,
        shape=entry.shape,
        nbytes=end - begin,
        read=_reader(path, mapped, begin, entry),
        release=lambda: forget(mapped, begin, end),
    )


def _reader(path: Path, mapped: mmap.mmap, begin: int, entry: Entry) -> Callable[[], Array]:
    def read() -> Array:
        readable(path, entry)
        return view(mapped, begin, entry)

    return read


def readable(source: Path | str, entry: Entry) -> None:
    """Refuse a tensor of a type that is packed several to a byte.

    Raises
    ------
    TensorFileError
    """
    if not is_readable(entry.dtype):
        raise TensorFileError(
            f"{source}: tensor {shown(entry.name)} is stored as {entry.dtype}, several numbers "
            "to a byte, which only its quantisation scheme can read",
            remedy="Save it as F32, F16, BF16 or F8.",
        )


def view(data: mmap.mmap | memoryview, begin: int, entry: Entry) -> Array:
    """The array of a tensor whose bytes begin at `begin`; read-only, copied only to align it."""
    dtype = numpy_dtype(entry.dtype)
    count = (entry.end - entry.begin) // dtype.itemsize
    if count == 0:
        array: Array = np.empty(entry.shape, dtype)
    else:
        array = np.frombuffer(data, dtype, count, begin).reshape(entry.shape)
        if array.flags.aligned:
            return array
        # The format aligns nothing by force; BLAS and some CPUs want whole words.
        array = array.copy()
    array.setflags(write=False)
    return array
