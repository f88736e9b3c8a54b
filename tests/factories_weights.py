"""Arrays as weights of a base, and what a device makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from factories_matrices import Array
from gradience.audit.base.devices import Device
from gradience.audit.base.packed.format import PackedWeight
from gradience.audit.base.rows import StoredRows, stored_rows
from gradience.audit.base.spectral_norm import DEFAULT_GOAL, Goal
from gradience.audit.base.weights import BaseWeight, Part
from gradience.tensors.stored import StoredTensor


@dataclass
class Weights:
    """Arrays as base weights, and which of them are open."""

    arrays: dict[str, Array]
    released: list[str] = field(default_factory=list)
    packed: Mapping[str, PackedWeight] = field(default_factory=dict)

    def tensor(self, name: str) -> StoredTensor:
        array = self.arrays[name]
        return StoredTensor(
            name=name,
            dtype=str(array.dtype),
            shape=array.shape,
            nbytes=array.nbytes,
            read=lambda: array,
            release=lambda: self.released.append(name),
        )

    def weights(self) -> list[BaseWeight]:
        return [
            BaseWeight(parts=(Part(tensor=name),), stored_shape=a.shape, dtype=str(a.dtype))
            for name, a in self.arrays.items()
        ]

    def open(self, weight: BaseWeight) -> StoredRows:
        return stored_rows(self, weight)


def measured(device: Device, arrays: dict[str, Array], goal: Goal = DEFAULT_GOAL) -> dict[str, Any]:
    """The interval of each, or why it has none; all were opened, and all are closed."""
    source = Weights(arrays)
    found = {w.key: result for w, result in device.intervals(source.weights(), source.open, goal)}
    assert set(found) == set(arrays)
    assert set(source.released) == set(arrays)
    return found
