"""A base weight as a stream of rows, whatever its parts: mapped, never put together as a whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gradience.audit.base.weights import BaseWeight, Part, as_matrix
from gradience.tensors.stored import Array, StoredTensor


class TensorSource(Protocol):
    """What hands out tensors by name: a `BaseModel`, or a fake in a test."""

    def tensor(self, name: str) -> StoredTensor:
        """One tensor, not yet read."""
        ...


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The parts stacked as they are stored; implements `RowBlocks`."""

    parts: tuple[tuple[Part, StoredTensor], ...]
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Stored bytes of the parts."""
        return sum(
            stored.nbytes if part.index is None else stored.nbytes // stored.shape[0]
            for part, stored in self.parts
        )

    def blocks(self, rows: int) -> Iterator[Array]:
        """Blocks of at most `rows` rows, top to bottom, in the stored dtype."""
        for part, stored in self.parts:
            matrix = _matrix(part, stored)
            for start in range(0, matrix.shape[0], rows):
                yield matrix[start : start + rows]

    def release(self) -> None:
        """Give the pages of every part back."""
        for _, stored in self.parts:
            stored.release()


@dataclass(frozen=True, slots=True)
class TransposedRows:
    """The transpose of a stored stack: a block of rows is a block of stored columns."""

    stored: StoredRows

    @property
    def shape(self) -> tuple[int, int]:
        """(columns, rows) of what is stored."""
        return self.stored.shape[1], self.stored.shape[0]

    def blocks(self, rows: int) -> Iterator[Array]:
        """Blocks of at most `rows` rows, top to bottom, in the stored dtype."""
        matrices = [_matrix(part, stored) for part, stored in self.stored.parts]
        for start in range(0, self.shape[0], rows):
            pieces = [matrix[:, start : start + rows].T for matrix in matrices]
            yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

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
    parts = tuple((part, base.tensor(part.tensor)) for part in weight.parts)
    return StoredRows(parts, weight.stored_shape)


def rows(base: TensorSource, weight: BaseWeight) -> StoredRows | TransposedRows:
    """A base weight as (out, in), the orientation of the change.

    Raises
    ------
    BaseModelError
        If a shard cannot be had.
    """
    stored = stored_rows(base, weight)
    return TransposedRows(stored) if weight.transposed else stored


def _matrix(part: Part, stored: StoredTensor) -> Array:
    array = stored.read() if part.index is None else stored.at(part.index)
    return array.reshape(as_matrix(array.shape))
