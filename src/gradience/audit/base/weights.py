"""The nouns of matching: what a checkpoint says of a tensor, and which tensors make one weight.

A weight of the running model need not be one tensor of the checkpoint: experts are stacked, gate
and up projections are fused. So a base weight is a stack of parts, as they are stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

Reason = Literal["no_tensor", "wrong_shape", "ambiguous", "quantised", "not_this_base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """What is known of a stored tensor without reading its data.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
        In the words of the safetensors format: F32, BF16 and so on. Of a packed weight, the words
        of its format, with all that decides how it is read.
    packed : str
        The format of a packed weight, a name in `packed.FORMATS`; empty for plain numbers. Its
        shape is that of what it stands for.
    """

    shape: tuple[int, ...]
    dtype: str
    packed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One tensor of the checkpoint, or one slice of it.

    Attributes
    ----------
    tensor : str
        Its name in the checkpoint.
    index : int or None
        Index into its first dimension: one expert of a stacked tensor.
    """

    tensor: str
    index: int | None = None

    @property
    def key(self) -> str:
        """`name`, or `name[index]`."""
        return self.tensor if self.index is None else f"{self.tensor}[{self.index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseWeight:
    """The weight that a layer changes, as parts of the checkpoint stacked by rows.

    Attributes
    ----------
    parts : tuple of Part
        Top to bottom; all of one width.
    stored_shape : (rows, columns)
        Of the stack as stored; a kernel of more dimensions counts as (first, product of the rest).
    dtype : str
        Of the first part.
    transposed : bool
        The stack is (in, out): GPT-2's Conv1D, embeddings, some stacked experts.
    """

    parts: tuple[Part, ...]
    stored_shape: tuple[int, int]
    dtype: str
    transposed: bool = False

    @property
    def key(self) -> str:
        """Name of the stack; equal keys of one base are equal numbers."""
        return " + ".join(part.key for part in self.parts)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), as the change is laid out."""
        rows, columns = self.stored_shape
        return (columns, rows) if self.transposed else (rows, columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """Why a layer has no base weight: a stable word, and a sentence with names and shapes."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What was found for each layer.

    Attributes
    ----------
    found : mapping of str to BaseWeight
        By label of the layer.
    unmatched : mapping of str to Unmatched
        Every other layer, by label.
    verdict : str
        Empty, or the sentence that says why this is not the base of the adapter; then nothing is
        found.
    """

    found: Mapping[str, BaseWeight] = field(default_factory=dict)
    unmatched: Mapping[str, Unmatched] = field(default_factory=dict)
    verdict: str = ""


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """(first, product of the rest): how a kernel of any dimension is seen as a matrix.

    Examples
    --------
    >>> as_matrix((320, 4, 3, 3))
    (320, 36)
    """
    return shape[0], prod(shape[1:])
