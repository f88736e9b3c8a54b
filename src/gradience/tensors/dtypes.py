"""Element types: the words of the safetensors format, and the numpy types that hold them.

The format's words are used everywhere in Gradience, for torch checkpoints and arrays in memory
too, so that a report names one type in one way. The types that numpy does not have come from
ml_dtypes. Types of less than a byte are known by their size, and have no numpy type here: they
are packed, and what a packed byte means is up to the quantisation scheme, not to the file.

Source: `safetensors/src/tensor.rs`, enum `Dtype`.
"""

from math import prod
from typing import Any

import ml_dtypes
import numpy as np

from gradience.errors import TensorFileError

_NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
_NAMES = {dtype: name for name, dtype in _NUMPY.items()}
_SUB_BYTE = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_BITS = {name: 8 * dtype.itemsize for name, dtype in _NUMPY.items()} | _SUB_BYTE

DTYPE_NAMES = tuple(_BITS)
"""Every element type that a safetensors file can have."""


def is_dtype(name: str) -> bool:
    """Whether the format knows an element type of this name.

    Examples
    --------
    >>> is_dtype("BF16"), is_dtype("bfloat16")
    (True, False)
    """
    return name in _BITS


def is_readable(name: str) -> bool:
    """Whether arrays of this type can be read: true for all but the packed sub-byte types.

    Examples
    --------
    >>> is_readable("F8_E5M2"), is_readable("F4")
    (True, False)
    """
    return name in _NUMPY


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy type of one element.

    Raises
    ------
    TensorFileError
        If the type is unknown, or packed several to a byte.

    Examples
    --------
    >>> numpy_dtype("BF16")
    dtype(bfloat16)
    """
    if name not in _NUMPY:
        raise TensorFileError(
            f"elements of type {name!r} cannot be read as numbers",
            remedy="Save the tensors as F32, F16 or BF16.",
        )
    return _NUMPY[name]


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The format's word for a numpy type, whatever its byte order.

    Raises
    ------
    TensorFileError
        If the format has no such type: complex128, objects, strings, dates.

    Examples
    --------
    >>> dtype_name(np.dtype(">f4")), dtype_name(np.dtype(bool))
    ('F32', 'BOOL')
    """
    name = _NAMES.get(dtype.newbyteorder("="))
    if name is None:
        raise TensorFileError(
            f"arrays of type {dtype} are not weights",
            remedy=f"Convert them to one of {', '.join(_NUMPY)}.",
        )
    return name


def itemsize(name: str) -> int:
    """Bytes of one element.

    Raises
    ------
    TensorFileError
        If the type is unknown, or packed several to a byte.

    Examples
    --------
    >>> itemsize("F32"), itemsize("F8_E4M3")
    (4, 1)
    """
    return numpy_dtype(name).itemsize


def storage_bits(name: str, shape: tuple[int, ...]) -> int:
    """Bits that a tensor takes, packed types included.

    Raises
    ------
    KeyError
        If the type is unknown; ask `is_dtype` first.

    Examples
    --------
    >>> storage_bits("F4", (2, 3)), storage_bits("F32", ())
    (24, 32)
    """
    return prod(shape) * _BITS[name]
