"""Codes to numbers by table: a byte stands for one, two or four of them.

One look-up per byte costs what reading it costs, and what a code means is data: a table.
"""

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gradience.tensors.stored import Array

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def byte_table(levels: Array, *, high_first: bool = False) -> Floats:
    """The numbers that each byte stands for.

    Parameters
    ----------
    levels : (2**bits,)
        What each code of 2, 4 or 8 bits means.
    high_first : bool
        The first number is in the high bits, as bitsandbytes packs; else in the low ones.

    Returns
    -------
    (256, 8 // bits) float32

    Examples
    --------
    >>> byte_table(np.arange(16))[0x21]
    array([1., 2.], dtype=float32)
    """
    bits = (len(levels) - 1).bit_length()
    shifts = np.arange(0, 8, bits)
    if high_first:
        shifts = shifts[::-1]
    codes = (np.arange(256)[:, None] >> shifts) & (len(levels) - 1)
    return np.ascontiguousarray(np.asarray(levels, dtype=np.float32)[codes])


def look_up(codes: Bytes, table: Floats) -> Floats:
    """(rows, bytes) to (rows, bytes * numbers per byte)."""
    per_byte = table.shape[1]
    if per_byte == 1:
        return np.take(table[:, 0], codes)
    if per_byte == 2:
        # A pair of float32 fetched as one word: twice as fast as a look-up of pairs.
        pairs = np.take(table.view(np.uint64)[:, 0], codes)
        return pairs.view(np.float32).reshape(len(codes), -1)
    return np.take(table, codes, axis=0).reshape(len(codes), -1)


def steps_of(levels: Array) -> Floats:
    """Width of the interval that is rounded to each level: half way to the next on both sides.

    The outermost levels have one neighbour, and count the distance to it. A level that is not
    finite has none.

    Examples
    --------
    >>> steps_of(np.array([0.0, 1.0, 3.0]))
    array([1. , 1.5, 2. ], dtype=float32)
    """
    levels = np.asarray(levels, dtype=np.float64)
    finite = np.unique(levels[np.isfinite(levels)])
    if finite.size < 2:
        return np.zeros(levels.shape, np.float32)
    gaps = np.diff(finite)
    widths = (np.append(gaps[:1], gaps) + np.append(gaps, gaps[-1:])) / 2
    at = np.searchsorted(finite, np.where(np.isfinite(levels), levels, finite[0]))
    return np.where(np.isfinite(levels), widths[at], 0.0).astype(np.float32)


@cache
def float_levels(dtype: np.dtype[Any], bits: int = 8) -> Floats:
    """Every value of a float type of at most a byte, by its code.

    Examples
    --------
    >>> float_levels(np.dtype(ml_dtypes.float4_e2m1fn), bits=4)[:8]
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ], dtype=float32)
    """
    return np.arange(2**bits, dtype=np.uint8).view(dtype).astype(np.float32)


FLOAT4 = float_levels(np.dtype(ml_dtypes.float4_e2m1fn), bits=4)


def powers(exponents: Array) -> Floats:
    """Scales that are stored as bytes of E8M0: 2 ** (byte - 127), NaN for 255."""
    scales: Floats = exponents.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    return scales


def unpack_words(words: Array, bits: int) -> Bytes:
    """Fields of a little-endian bit stream, along the last axis.

    Parameters
    ----------
    words : (rows, k) int32
    bits : int
        2, 3, 4 or 8; fields of three bits run across words.

    Returns
    -------
    (rows, 32 k // bits) uint8

    Examples
    --------
    >>> unpack_words(np.array([[0x87654321]], np.uint32).view(np.int32), 4)
    array([[1, 2, 3, 4, 5, 6, 7, 8]], dtype=uint8)
    """
    octets = np.ascontiguousarray(words).view(np.uint8)
    if bits in (2, 4, 8):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        fields = (octets[..., None] >> shifts) & np.uint8(2**bits - 1)
        return fields.reshape(len(octets), -1)
    usable = octets.shape[1] * 8 // bits * bits
    stream = np.unpackbits(octets, axis=1, bitorder="little")[:, :usable]
    grouped = stream.reshape(len(octets), -1, bits)
    return np.packbits(grouped, axis=2, bitorder="little")[..., 0]
