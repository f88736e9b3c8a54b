"""The header of a GGUF file: the two facts that name its tensors, and where each tensor is.

The library's own reader makes an array of every word of the vocabulary: nine seconds and 600 MB to
open a model of 150 000 words. This one steps over them, and believes no number before it was held
against the size of the file.

Source: ggml `docs/gguf.md`, versions 2 and 3.
"""

import mmap
import struct

import msgspec

_MAX_DIMENSIONS = 4
_MAX_DEPTH = 4
_STRING, _ARRAY = 8, 9
# struct code of each kind of value, by its number.
_SCALARS = dict(enumerate("BbHhIifB")) | {10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in _SCALARS.items()}


class GgufTensor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tensor is said to be.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Rows first, as numpy has it.
    kind : int
        Number of its type.
    begin : int
        Offset of its data in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a header says: values that are one number or one string, by key, and the tensors."""

    values: dict[str, object]
    tensors: tuple[GgufTensor, ...]


def parse_gguf_header(data: mmap.mmap) -> GgufHeader:
    """Read the header of a mapped file.

    Raises
    ------
    ValueError
        If it is of another version or byte order, ends early, or contradicts itself.
    """
    cursor = _Cursor(data)
    if cursor.take(4) != b"GGUF":
        raise ValueError("it does not begin as a GGUF file")
    version = cursor.number("I")
    if version not in (2, 3):
        turned = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = "big-endian" if turned in (2, 3) else f"version {version}"
        raise ValueError(f"it is {what}, where little-endian versions 2 and 3 are known")
    count, pairs = cursor.number("Q"), cursor.number("Q")
    values: dict[str, object] = {}
    for _ in range(pairs):
        key = cursor.string()
        value = cursor.value(cursor.number("I"), depth=0)
        if value is not None:
            values[key] = value
    described = [_described(cursor) for _ in range(count)]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment}")
    start = -(-cursor.at // alignment) * alignment
    names = {name for name, *_ in described}
    if len(names) != len(described):
        raise ValueError("two of its tensors have one name")
    return GgufHeader(
        values=values,
        tensors=tuple(
            GgufTensor(name=name, shape=shape, kind=kind, begin=start + offset)
            for name, shape, kind, offset in described
        ),
    )


def _described(cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    dimensions = cursor.number("I")
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"{name!r} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    return name, shape, cursor.number("I"), cursor.number("Q")


class _Cursor:
    """A place in the data, moved by what is read there."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.at = 0

    def skip(self, count: int) -> int:
        """Step over bytes that must be there; gives where they begin."""
        begin = self.at
        if count > self.size - begin:
            raise ValueError(f"it ends at byte {self.size}, inside its header")
        self.at = begin + count
        return begin

    def take(self, count: int) -> bytes:
        begin = self.skip(count)
        return self.data[begin : self.at]

    def number(self, code: str) -> int:
        form = f"<{code}"
        return int(struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0])

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind: int, *, depth: int) -> object:
        """A number or a string; arrays are stepped over and give None."""
        if kind in _SCALARS:
            found: object = struct.unpack_from(
                f"<{_SCALARS[kind]}", self.data, self.skip(_SIZES[kind])
            )[0]
            return found
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth >= _MAX_DEPTH:
            raise ValueError(f"a value of kind {kind} at byte {self.at}")
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            self.skip(count * _SIZES[inner])
        elif inner == _STRING:
            for _ in range(count):
                self.skip(self.number("Q"))
        else:
            for _ in range(count):
                self.value(inner, depth=depth + 1)
        return None
