"""What a packed format is: how its weights are found among tensors, and how they are read.

A packed weight is several tensors of the checkpoint (codes, scales, zero points) that stand for one
parameter of the running model. A format finds them by name and shape, says what the parameter is
called and which shape it has, and gives its rows as float32, a few at a time.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradience.audit.base.weights import TensorFacts
from gradience.tensors.stored import Array

Floats = NDArray[np.float32]
Shapes = Collection[tuple[int, ...]]
Members = Mapping[str, Array]
"""The arrays of one weight, by the role they have in its format."""


class Decoder(Protocol):
    """A packed matrix, opened: any rows of it as numbers."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix it stands for."""
        ...

    def rows(self, start: int, stop: int) -> Floats:
        """Rows as float32, in memory of their own: (stop - start, columns)."""
        ...

    def squared_steps(self, start: int, stop: int) -> float | None:
        """Sum over these rows of the squared step of each number; None where it is not defined.

        The step of a number is the width of the interval that the format rounds to it, with the
        scale it is stored under.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeight:
    """One parameter of the running model that is stored packed.

    Attributes
    ----------
    name : str
        Of the parameter, such as `model.layers.0.self_attn.q_proj.weight`.
    facts : TensorFacts
        Its shape, and as `dtype` a label that holds all that decides how it is read: norms that
        are remembered under another label are measured again.
    members : mapping of str to str
        Role to name of the tensor.
    decode : callable
        Opens one matrix: the members, and an index into a stack of experts or None.
    transposed : bool
        The decoder's rows are the columns of the parameter.
    stacked : frozenset of str
        Roles of members that hold the matrices of a stack one after the other, along their first
        dimension: of those, `decode` is given the entry of its index alone.
    rows_in_order : bool
        False where a format's converter may permute rows: norms do not care, a magnitude per row
        does.
    """

    name: str
    facts: TensorFacts
    members: Mapping[str, str]
    decode: Callable[[Members, int | None], Decoder] = field(repr=False, compare=False)
    transposed: bool = False
    stacked: frozenset[str] = frozenset()
    rows_in_order: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A packed weight that cannot be read, and why; `name` is that of the parameter."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What formats look for weights in.

    Attributes
    ----------
    tensors : mapping of str to TensorFacts
        Every tensor that is stored.
    config : mapping
        `quantization_config` of the model's config.json; empty when there is none.
    read : callable
        Reads one tensor by name; for the few bytes that say how a weight is packed, and only of
        those that `Format.notes` names.
    """

    tensors: Mapping[str, TensorFacts]
    config: Mapping[str, Any]
    read: Callable[[str], Array] = field(repr=False)

    @property
    def method(self) -> str:
        """`quant_method` of the config, in lower case."""
        return str(self.config.get("quant_method", "")).lower()

    def ending(self, end: str) -> Iterator[tuple[str, TensorFacts]]:
        """Tensors whose name has this ending, as (what stands before it, facts)."""
        for name, facts in self.tensors.items():
            if name.endswith(end):
                yield name.removesuffix(end), facts

    def misfit(self, members: Mapping[str, str], shapes: Mapping[str, Shapes]) -> str:
        """Which member has a shape that does not fit the others; empty when all do.

        Parameters
        ----------
        members : mapping of str to str
        shapes : mapping of str to shapes
            Role to the shapes that fit. Members that are not there, and roles not named, pass.
        """
        for role, fitting in shapes.items():
            if role in members and (found := self.tensors[members[role]].shape) not in fitting:
                return (
                    f"{members[role]} of shape {found}, where {' or '.join(map(str, fitting))} fits"
                )
        return ""

    def present(self, members: Mapping[str, str]) -> dict[str, str]:
        """The members that are stored."""
        return {role: name for role, name in members.items() if name in self.tensors}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to pack weights.

    Attributes
    ----------
    title : str
        What its users call it.
    reads : str
        What is read, for the table of formats.
    refuses : str
        What is refused by name.
    source : str
        Where its layout is defined.
    find : callable
        Every weight of a checkpoint that is in this format.
    notes : tuple of str
        What is in the names of the small tensors that `find` reads.
    """

    title: str
    reads: str
    refuses: str
    source: str
    find: Callable[[Checkpoint], Iterator[PackedWeight | Refusal]] = field(repr=False)
    notes: tuple[str, ...] = ()
