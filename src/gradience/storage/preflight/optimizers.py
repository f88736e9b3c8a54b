"""How many bytes of state an optimizer keeps, from the shapes that it trains: pure.

References
----------
torch 2.13 `torch/optim/{adamw,sgd,adagrad,rmsprop}.py`; transformers 5.24 `optimization.py`
(Adafactor) and `Trainer.get_optimizer_cls_and_kwargs`; bitsandbytes `optim/optimizer.py`
(`min_8bit_size`, blocks of 256); torchao `optim/subclass_{4,8}bit.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]

_RECORD_BYTES = 267
"""Of each tensor in an archive of torch.save: two headers, its place in the pickle, alignment."""
_ARCHIVE_BYTES = 1_500
_BLOCK = 256
_SMALL = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What an optimizer keeps for each tensor.

    Attributes
    ----------
    copies : int
        Tensors of the shape of the weight.
    bits : int or None
        Of each number in a copy; None for those of the weight.
    factored : bool
        For a matrix only the sums of rows and columns.
    scalars : int
        Tensors of one number, such as `step`.
    """

    copies: int = 0
    bits: int | None = None
    factored: bool = False
    scalars: int = 0


_ADAM = State(copies=2, scalars=1)
_ADAM_8BIT = State(copies=2, bits=8, scalars=0)
_KINDS: dict[str, State] = {
    "adamw_torch": _ADAM,
    "adamw_torch_fused": _ADAM,
    "adamw_torch_xla": _ADAM,
    "adamw_torch_npu_fused": _ADAM,
    "adamw_anyprecision": State(copies=2, scalars=1),
    "adamw_torch_8bit": _ADAM_8BIT,
    "adamw_torch_4bit": State(copies=2, bits=4),
    "adamw_bnb_8bit": _ADAM_8BIT,
    "adamw_8bit": _ADAM_8BIT,
    "paged_adamw_8bit": _ADAM_8BIT,
    "paged_adamw_32bit": State(copies=2, bits=32),
    "ademamix": State(copies=3, bits=32),
    "paged_ademamix_32bit": State(copies=3, bits=32),
    "ademamix_8bit": State(copies=3, bits=8),
    "paged_ademamix_8bit": State(copies=3, bits=8),
    "lion_32bit": State(copies=1, bits=32),
    "paged_lion_32bit": State(copies=1, bits=32),
    "lion_8bit": State(copies=1, bits=8),
    "paged_lion_8bit": State(copies=1, bits=8),
    "sgd": State(),
    "adagrad": State(copies=1, scalars=1),
    "rmsprop": State(copies=1, scalars=1),
    "rmsprop_bnb": State(copies=1, bits=32),
    "rmsprop_bnb_32bit": State(copies=1, bits=32),
    "rmsprop_bnb_8bit": State(copies=1, bits=8),
    "adafactor": State(copies=1, factored=True, scalars=1),
    "stable_adamw": State(copies=2),
    "grokadamw": State(copies=3),
    "schedule_free_adamw": State(copies=2),
    "schedule_free_radam": State(copies=2),
    "schedule_free_sgd": State(copies=1),
}
OPTIMIZERS = tuple(_KINDS)
"""The names, as `TrainingArguments.optim` has them, whose state is known."""


def state_bytes(name: str, trained: Iterable[tuple[Shape, int]]) -> int | None:
    """Bytes of `optimizer.pt`; None for an optimizer whose state is not known.

    Parameters
    ----------
    name : str
        As `TrainingArguments.optim`.
    trained : iterable of (shape, itemsize)
        The weights that are trained, and bytes of each of their numbers.

    Examples
    --------
    >>> state_bytes("sgd", [((4, 4), 4)]), state_bytes("galore_adamw", [])
    (1504, None)
    """
    kind = _KINDS.get(name)
    if kind is None:
        return None
    each = (_of_one(kind, shape, itemsize) for shape, itemsize in trained)
    return _ARCHIVE_BYTES + sum(each)


def _of_one(kind: State, shape: Shape, itemsize: int) -> int:
    records = kind.scalars + kind.copies
    if kind.factored and len(shape) >= 2:
        rows, columns = prod(shape[:-1]), prod((*shape[:-2], shape[-1]))
        return (rows + columns) * itemsize + (records + 1) * _RECORD_BYTES
    size = kind.copies * prod(shape) * itemsize
    if kind.bits is not None:
        size = kind.copies * _packed(prod(shape), kind.bits)
    # A weight without state still has its number in the list of its group.
    return size + records * _RECORD_BYTES + (4 if not records else 0)


def _packed(count: int, bits: int) -> int:
    """Numbers of few bits, with a scale for each block; small tensors stay as they are."""
    if bits >= 32 or count < _SMALL:
        return count * 4
    return count * bits // 8 + count // _BLOCK * 4
