"""The header of a safetensors file: parsed, and held against the bytes that follow it.

Every byte of the data belongs to exactly one tensor. That rule, the size of each tensor and the
size of the file leave no room for an offset to lie: checked once here, an offset can be mapped
without a second thought.

Source: https://github.com/huggingface/safetensors#format and `Metadata::validate` in `tensor.rs`.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from gradience.errors import TensorFileError, shown
from gradience.tensors.dtypes import DTYPE_NAMES, is_dtype, storage_bits
from gradience.tensors.strict_json import strict_json_object

_METADATA = "__metadata__"
_MAX_DIMS = 64  # numpy's own limit (NPY_MAXDIMS of numpy 2)
_MAX_BITS = 1 << 63  # more overflows what numpy and the file system count with

AGAIN = "Download the file again, or save it again with the safetensors library."


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where one tensor lies: `begin` and `end` count from the first byte after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a header says, once it has been checked: entries in the order of their data."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]


def parse_header(path: Path | str, header: bytes, *, data_nbytes: int) -> Header:
    """Parse a header and check it against the size of the data.

    Parameters
    ----------
    path : Path or str
        For the errors.
    header : bytes
        The JSON text, without the eight bytes of its length.
    data_nbytes : int
        Bytes of the file after the header.

    Raises
    ------
    TensorFileError
        Names the tensor and the value that cannot be.
    """
    found = strict_json_object(path, header, what="header")
    metadata = _checked_metadata(path, found.pop(_METADATA, None))
    entries = [_checked_entry(path, name, value) for name, value in found.items()]
    entries.sort(key=lambda e: (e.begin, e.end))
    _check_cover(path, entries, data_nbytes)
    return Header(entries=tuple(entries), metadata=metadata)


def _bad(path: Path | str, what: str) -> TensorFileError:
    return TensorFileError(f"{path}: {what}", remedy=AGAIN)


def _checked_metadata(path: Path | str, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(path, f"{_METADATA} of the header is {shown(value)}, not an object")
    for key, word in value.items():
        if not isinstance(word, str):
            raise _bad(path, f"{_METADATA}[{shown(key)}] is {shown(word)}, not a string")
    return value


def _checked_entry(path: Path | str, name: str, value: Any) -> Entry:
    if not _is_text(name):
        raise _bad(path, f"the name {shown(name)} in the header is not text")
    if not isinstance(value, dict):
        raise _bad(path, f"tensor {shown(name)} is {shown(value)} in the header, not an object")
    missing = [key for key in ("dtype", "shape", "data_offsets") if key not in value]
    if missing:
        raise _bad(path, f"tensor {shown(name)} has no {missing[0]} in the header")
    dtype = _checked_dtype(path, name, value["dtype"])
    shape = _checked_shape(path, name, value["shape"])
    begin, end = _checked_offsets(path, name, value["data_offsets"])
    entry = Entry(name=name, dtype=dtype, shape=shape, begin=begin, end=end)
    _check_size(path, entry)
    return entry


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def _checked_dtype(path: Path | str, name: str, value: object) -> str:
    if not isinstance(value, str) or not is_dtype(value):
        raise TensorFileError(
            f"{path}: tensor {shown(name)} has the unknown dtype {shown(value)}",
            remedy=f"Save it as one of {', '.join(DTYPE_NAMES)}.",
        )
    return value


def _checked_shape(path: Path | str, name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _bad(path, f"tensor {shown(name)} has the shape {shown(value)}, not a list")
    if len(value) > _MAX_DIMS:
        raise _bad(path, f"tensor {shown(name)} has {len(value)} dimensions; {_MAX_DIMS} at most")
    for dim in value:
        # `type`, not isinstance: true is an int to Python.
        if type(dim) is not int or dim < 0:
            raise _bad(path, f"tensor {shown(name)} has the dimension {shown(dim)}")
    return tuple(value)


def _checked_offsets(path: Path | str, name: str, value: object) -> tuple[int, int]:
    whole = isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)
    if not isinstance(value, list) or not whole or len(value) != 2:
        raise _bad(path, f"tensor {shown(name)} has the data_offsets {shown(value)}")
    begin, end = value
    if begin > end:
        raise _bad(path, f"tensor {shown(name)} ends before it begins: data_offsets {value}")
    return begin, end


def _check_size(path: Path | str, entry: Entry) -> None:
    # Zeros count as ones here: numpy multiplies the other dimensions of an empty array too.
    room = storage_bits(entry.dtype, tuple(max(dim, 1) for dim in entry.shape))
    if room >= _MAX_BITS:
        shape = shown(list(entry.shape))
        raise _bad(path, f"tensor {shown(entry.name)} has the impossible shape {shape}")
    nbytes, rest = divmod(storage_bits(entry.dtype, entry.shape), 8)
    if rest or nbytes != entry.end - entry.begin:
        says = f"{prod(entry.shape)} elements of {entry.dtype}"
        has = f"data_offsets {[entry.begin, entry.end]}, {entry.end - entry.begin} bytes"
        raise _bad(path, f"tensor {shown(entry.name)} of {says} has {has}")


def _check_cover(path: Path | str, entries: list[Entry], data_nbytes: int) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    cursor = 0
    for entry in entries:
        if entry.begin != cursor:
            place = f"tensor {shown(entry.name)} has data_offsets {[entry.begin, entry.end]}"
            raise _bad(path, f"{place}, which {_misplaced(entry, cursor, data_nbytes)}")
        cursor = entry.end
    if cursor > data_nbytes:
        short = cursor - data_nbytes
        raise TensorFileError(
            f"{path}: the file is {short} bytes shorter than its header says "
            f"({data_nbytes} bytes of tensor data, {cursor} expected)",
            remedy="It is truncated: download it again, or save it again on a disk with room.",
        )
    if cursor < data_nbytes:
        raise _bad(path, f"{data_nbytes - cursor} bytes at the end of the file are in no tensor")


def _misplaced(entry: Entry, cursor: int, data_nbytes: int) -> str:
    if entry.end > data_nbytes:
        return f"lie outside the file's {data_nbytes} bytes of data"
    if entry.begin < cursor:
        return f"overlap the tensor that ends at {cursor}"
    return f"leave a gap after byte {cursor}"
