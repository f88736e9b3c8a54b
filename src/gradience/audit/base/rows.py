"""A base weight as a stream of rows, whatever its parts: mapped, never put together as a whole.

A part is an array that is stored as it is, or a packed matrix whose rows become numbers as they are
asked for; a stack of either is streamed from top to bottom.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np

from gradience.audit.base.packed.format import Decoder, PackedWeight
from gradience.audit.base.weights import BaseWeight, Part, as_matrix
from gradience.errors import UnmeasurableError
from gradience.tensors.stored import Array, StoredTensor

# Numbers that are unpacked at once: 2 MB, which stay in the cache until they are used.
_UNPACKED_AT_ONCE = 1 << 19
# Numbers of a packed matrix whose columns are gathered at once, for the few who want its transpose.
_GATHERED_AT_ONCE = 1 << 24


class TensorSource(Protocol):
    """What hands out tensors by name: a `BaseModel`, or a fake in a test."""

    @property
    def packed(self) -> Mapping[str, PackedWeight]:
        """Weights that are packed, by name."""
        ...

    def tensor(self, name: str) -> StoredTensor:
        """One tensor, not yet read."""
        ...


@dataclass(frozen=True, slots=True)
class _Plain:
    """A tensor that is stored as numbers, or one expert of it."""

    part: Part
    stored: StoredTensor

    @property
    def nbytes(self) -> int:
        stored = self.stored
        return stored.nbytes if self.part.index is None else stored.nbytes // stored.shape[0]

    @property
    def height(self) -> int:
        return self.stored.shape[0 if self.part.index is None else 1]

    def blocks(self, rows: int, start: int, stop: int) -> Iterator[Array]:
        if start < stop:
            matrix = self._matrix()
        for first in range(start, stop, rows):
            yield matrix[first : min(first + rows, stop)]

    def columns(self, start: int, stop: int) -> Array:
        return self._matrix()[:, start:stop]

    def squared_steps(self) -> float | None:
        return None

    def release(self) -> None:
        self.stored.release()

    def _matrix(self) -> Array:
        index = self.part.index
        array = self.stored.read() if index is None else self.stored.at(index)
        return array.reshape(as_matrix(array.shape))


@dataclass(eq=False, slots=True)
class _Packed:
    """A packed weight, or one expert of it: a few rows of numbers at a time.

    It is opened once, for all passes and threads, until it is released.
    """

    part: Part
    weight: PackedWeight
    members: Mapping[str, StoredTensor]
    _opened: Decoder | None = field(default=None, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    @property
    def nbytes(self) -> int:
        whole = sum(stored.nbytes for stored in self.members.values())
        return whole if self.part.index is None else whole // self.weight.facts.shape[0]

    @property
    def height(self) -> int:
        return self.weight.facts.shape[-1 if self.weight.transposed else -2]

    def blocks(self, rows: int, start: int, stop: int) -> Iterator[Array]:
        decoder = self._decoder()
        for first, last in _ranges(decoder, rows, start, stop):
            yield decoder.rows(first, last)

    def columns(self, start: int, stop: int) -> Array:
        whole = self.blocks(_UNPACKED_AT_ONCE, 0, self.height)
        return np.concatenate([block[:, start:stop] for block in whole])

    def squared_steps(self) -> float | None:
        decoder = self._decoder()
        total = 0.0
        for first, last in _ranges(decoder, _UNPACKED_AT_ONCE, 0, self.height):
            squares = decoder.squared_steps(first, last)
            if squares is None:
                return None
            total += squares
        return total

    def release(self) -> None:
        with self._lock:
            self._opened = None
        for stored in self.members.values():
            stored.release()

    def _decoder(self) -> Decoder:
        with self._lock:
            if self._opened is None:
                arrays = {role: self._read(role) for role in self.members}
                self._opened = self.weight.decode(arrays, self.part.index)
            return self._opened

    def _read(self, role: str) -> Array:
        stored, index = self.members[role], self.part.index
        if index is None or role not in self.weight.stacked:
            return stored.read()
        return stored.at(index)


def _ranges(decoder: Decoder, rows: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Rows that are unpacked together."""
    step = max(1, min(rows, _UNPACKED_AT_ONCE // max(decoder.shape[1], 1)))
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The parts stacked as they are stored, or some rows of them; implements `Divisible`.

    Attributes
    ----------
    parts : tuple
    shape : (rows, columns)
        Of what is streamed.
    first : int
        The first row of it in the stack.
    """

    parts: tuple[_Plain | _Packed, ...]
    shape: tuple[int, int]
    first: int = 0

    @property
    def nbytes(self) -> int:
        """Stored bytes of the parts."""
        return sum(part.nbytes for part in self.parts)

    def blocks(self, rows: int) -> Iterator[Array]:
        """Blocks of at most `rows` rows, top to bottom: as stored, or float32 where packed."""
        first, last = self.first, self.first + self.shape[0]
        above = 0
        for part in self.parts:
            start, stop = max(first - above, 0), min(last - above, part.height)
            yield from part.blocks(rows, start, stop)
            above += part.height

    def between(self, start: int, stop: int) -> "StoredRows":
        """Rows `start` up to `stop`, to be streamed independently of any other part."""
        return StoredRows(self.parts, (stop - start, self.shape[1]), self.first + start)

    def rounding(self) -> float | None:
        """Frobenius norm of the error that packing numbers near these makes; None if not packed.

        Numbers that lie anywhere in a step are wrong by step / sqrt(12) in the mean square
        (Bennett, Bell Syst. Tech. J. 27(3), 1948); the steps are those at the stored numbers.
        """
        total = 0.0
        for part in self.parts:
            squares = part.squared_steps()
            if squares is None:
                return None
            total += squares / 12.0
        return float(np.sqrt(total))

    def release(self) -> None:
        """Give the pages of every part back."""
        for part in self.parts:
            part.release()


@dataclass(frozen=True, slots=True)
class TransposedRows:
    """The transpose of a stored stack: a block of rows is a block of stored columns."""

    stored: StoredRows

    @property
    def shape(self) -> tuple[int, int]:
        """(columns, rows) of what is stored."""
        return self.stored.shape[1], self.stored.shape[0]

    def blocks(self, rows: int) -> Iterator[Array]:
        """Blocks of at most `rows` rows, top to bottom."""
        parts = self.stored.parts
        # A packed matrix is unpacked from the top for each block: fewer and taller ones.
        packed = any(isinstance(part, _Packed) for part in parts)
        step = max(rows, _GATHERED_AT_ONCE // max(self.shape[1], 1)) if packed else rows
        for first in range(0, self.shape[0], step):
            pieces = [part.columns(first, first + step).T for part in parts]
            block = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
            for start in range(0, len(block), rows):
                yield block[start : start + rows]

    def release(self) -> None:
        """Give the pages of every part back."""
        self.stored.release()


def stored_rows(base: TensorSource, weight: BaseWeight) -> StoredRows:
    """A base weight as it is stored: norms do not care for the orientation, and this is faster.

    Raises
    ------
    BaseModelError
        If a shard cannot be had.
    """
    parts = tuple(_opened(base, part) for part in weight.parts)
    # Only whole parameters are packed the other way round, never the parts of a stack.
    turned = _turned(parts)
    return StoredRows(parts, weight.stored_shape[::-1] if turned else weight.stored_shape)


def rows(base: TensorSource, weight: BaseWeight) -> StoredRows | TransposedRows:
    """A base weight as (out, in), the orientation of the change.

    Raises
    ------
    BaseModelError
        If a shard cannot be had.
    UnmeasurableError
        If the format may have permuted the rows.
    """
    stored = stored_rows(base, weight)
    if any(isinstance(part, _Packed) and not part.weight.rows_in_order for part in stored.parts):
        raise UnmeasurableError(
            f"the rows of {weight.key} may be in another order than in the model (GGUF)",
            remedy="Name the model that the file was converted from.",
        )
    return TransposedRows(stored) if weight.transposed != _turned(stored.parts) else stored


def _turned(parts: tuple[_Plain | _Packed, ...]) -> bool:
    """Whether parts are streamed by the columns of what they stand for."""
    return any(isinstance(part, _Packed) and part.weight.transposed for part in parts)


def _opened(base: TensorSource, part: Part) -> _Plain | _Packed:
    packed = base.packed.get(part.tensor)
    if packed is None:
        return _Plain(part, base.tensor(part.tensor))
    return _Packed(part, packed, {r: base.tensor(name) for r, name in packed.members.items()})
