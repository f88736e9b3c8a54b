"""The matrix that nearly every format is: levels, less a zero point, times a scale.

    W[i, j] = (level(code[i, j]) - zero[g(i, j)]) * scale[g(i, j)]

Scales and zero points lie on a grid: one for all, for a row, for a group of columns, for a tile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from gradience.audit.base.packed.bits import Bytes, Floats, look_up, steps_of
from gradience.errors import UnmeasurableError


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers that hold for tiles of a matrix.

    Attributes
    ----------
    values : (R, C) float32
    height : int
        Rows of a tile.
    groups : int or (columns,) array of int
        Columns of a tile, or the tile of each column where they are not in order.
    """

    values: Floats
    height: int
    groups: int | NDArray[np.intp]

    def over(self, start: int, stop: int, columns: int) -> Floats:
        """For these rows, something that broadcasts over (rows, tiles, width)."""
        values = self.values[np.arange(start, stop) // self.height]
        if isinstance(self.groups, np.ndarray):
            return values[:, :, None][:, self.groups]
        if values.shape[1] * self.groups != columns:
            return np.repeat(values, self.groups, axis=1)[:, :columns, None]
        return values[:, :, None]


@dataclass(frozen=True, slots=True)
class FlatGrid:
    """Numbers that hold for runs of a matrix laid out as one line, across the ends of rows.

    Attributes
    ----------
    values : (n,) float32
    length : int
        Of a run.
    offset : int
        Elements before the matrix.
    """

    values: Floats
    length: int
    offset: int = 0

    def over(self, start: int, stop: int, columns: int) -> Floats:
        """For these rows, something that broadcasts over (rows, tiles, width)."""
        first = self.offset + start * columns
        last = self.offset + stop * columns
        if first % self.length == 0 and columns % self.length == 0:
            return self.values[first // self.length : last // self.length].reshape(
                stop - start, -1, 1
            )
        runs = np.arange(first, last) // self.length
        return self.values[runs].reshape(stop - start, columns, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledLevels:
    """A packed matrix as levels on a grid of scales; implements `Decoder`.

    Attributes
    ----------
    shape : (rows, columns)
    codes : callable
        The codes of some rows: (rows, bytes), each byte `table.shape[1]` numbers. What is beyond
        the columns is padding.
    table : (256, k) float32
        Levels by byte.
    steps : (256, k) float32 or None
        Their steps by byte; None for integers, whose step is 1.
    scale, zero : Grid or FlatGrid
    """

    shape: tuple[int, int]
    codes: Callable[[int, int], Bytes]
    table: Floats
    scale: Grid | FlatGrid
    zero: Grid | None = None
    steps: Floats | None = None

    def rows(self, start: int, stop: int) -> Floats:
        """Rows as float32."""
        block = self._looked_up(start, stop, self.table)
        if self.zero is not None:
            _in_tiles(block, self.zero.over(start, stop, self.shape[1]), np.subtract)
        return self._scaled(block, start, stop)

    def squared_steps(self, start: int, stop: int) -> float:
        """Sum of the squared steps of these rows."""
        if self.steps is None:
            block = np.ones((stop - start, self.shape[1]), np.float32)
        else:
            block = self._looked_up(start, stop, self.steps)
        return float(np.square(self._scaled(block, start, stop), dtype=np.float64).sum())

    def _looked_up(self, start: int, stop: int, table: Floats) -> Floats:
        numbers = look_up(self.codes(start, stop), table)
        if numbers.shape[1] == self.shape[1]:
            return numbers
        return np.ascontiguousarray(numbers[:, : self.shape[1]])

    def _scaled(self, block: Floats, start: int, stop: int) -> Floats:
        # What overflows is infinite, and is refused as such where norms are taken.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            _in_tiles(block, self.scale.over(start, stop, self.shape[1]), np.multiply)
        return block


def of_levels(
    levels: Floats,
    *,
    shape: tuple[int, int],
    codes: Callable[[int, int], Bytes],
    table: Callable[[Floats], Floats],
    scale: Grid | FlatGrid,
) -> ScaledLevels:
    """A matrix of levels that are not evenly spaced: each has a step of its own."""
    return ScaledLevels(
        shape=shape, codes=codes, table=table(levels), steps=table(steps_of(levels)), scale=scale
    )


def tile_for(
    scales: tuple[int, ...], shape: tuple[int, int], tile: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """Rows and columns that share one of the scales; None where no tiles cover the matrix.

    Parameters
    ----------
    scales : shape
        Of one number, of one for each row, or (R, C).
    shape : (rows, columns)
        Not empty.
    tile : (rows, columns), optional
        What the config says that a tile is; else tiles are of 128 by 128 with what is left at the
        edges, as DeepSeek's are, or share the matrix evenly.

    Examples
    --------
    >>> tile_for((), (6, 4)), tile_for((6,), (6, 4)), tile_for((2, 3), (200, 300))
    ((6, 4), (1, 4), (128, 128))
    """
    m, n = shape
    if prod(scales) == 1:
        return shape
    grid = (*scales, 1) if len(scales) == 1 else scales
    if len(grid) != 2 or min(grid) < 1:
        return None
    even = (m // grid[0], n // grid[1]) if m % grid[0] == 0 and n % grid[1] == 0 else None
    for height, width in filter(None, (tile, (128, 128), even)):
        if grid == (-(-m // height), -(-n // width)):
            return height, width
    return None


def scale_grid(values: Floats, shape: tuple[int, int], tile: tuple[int, int] | None = None) -> Grid:
    """Scales of any shape that `tile_for` finds tiles for, as a grid over the matrix.

    Raises
    ------
    UnmeasurableError
        If no tiles cover the matrix.
    """
    found = tile_for(values.shape, shape, tile)
    if found is None:
        raise UnmeasurableError(
            f"scales of shape {values.shape} do not cover a matrix of shape {shape} evenly",
            remedy="Check that the checkpoint is whole and its config.json is its own.",
        )
    table = values.reshape(1, 1) if values.size == 1 else values.reshape(len(values), -1)
    return Grid(np.ascontiguousarray(table), *found)


def _in_tiles(block: Floats, values: Floats, operation: np.ufunc) -> None:
    """Apply to each tile its number, in place."""
    rows, columns = block.shape
    tiles = values.shape[1]
    shaped = block.reshape(rows, tiles, columns // tiles)
    operation(shaped, values, out=shaped)
