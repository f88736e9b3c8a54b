"""LoRA: delta = B @ A, in the layouts it is stored in.

- linear: A (r, in), B (out, r)
- conv: A (r, in, *kernel), B (out, r / groups, 1, ...): B reads its group's channels only, which
  is a block-diagonal B; the change is the dense kernel (out, in * kernel) that forward() applies
- fused `enable_lora` of PEFT 0.1 and 0.2: A (r * n, in) stacks n enabled projections, B
  (n * out / len, r, 1) is a grouped convolution, and disabled projections are rows of zeros
- stacked experts (`target_parameters`): A (E * r, in) expert by expert, B (out, r * E) rank by rank
- embedding: A (r, vocabulary), B (dim, r)
"""

import math
from collections.abc import Sequence

import numpy as np

from gradience.adapter.delta import Matrix, Product
from gradience.adapter.methods.matrices import Float64, computed, float64, stored
from gradience.errors import AdapterError
from gradience.tensors.stored import StoredTensor

_UNSHARDED = (
    "An empty or one-dimensional factor is a shard that was not gathered: save under "
    "deepspeed.zero.GatheredParameters (ZeRO-3) or FSDP.summon_full_params."
)
_SAVE_AGAIN = "Save the adapter again with save_pretrained; the file does not fit together."


def check_factor(module: str, tensor: StoredTensor, *, dimensions: int = 2) -> None:
    """Refuse a factor that cannot be one.

    Raises
    ------
    AdapterError
        If it has fewer than `dimensions` dimensions, none of some, or whole numbers.
    """
    shape = list(tensor.shape)
    if len(shape) < dimensions or 0 in shape:
        raise AdapterError(
            f"{module}: {tensor.name} has shape {shape}; a factor has at least {dimensions} "
            "dimensions and none of them is 0",
            remedy=_UNSHARDED,
        )
    if not tensor.dtype.startswith(("F", "BF")):
        raise AdapterError(
            f"{module}: {tensor.name} is stored as {tensor.dtype}, which is no real number format",
            remedy="Save the adapter in float32, float16 or bfloat16; quantised factors need "
            "their scales and are not read.",
        )


def lora_delta(module: str, a: StoredTensor, b: StoredTensor) -> Product:
    """B @ A for linear and convolutional layers, grouped ones included.

    Parameters
    ----------
    module : str
        For messages.
    a : (r, in, *kernel)
    b : (out, r / groups, *ones)

    Returns
    -------
    Product
        (out, in * kernel).

    Raises
    ------
    AdapterError
        If the ranks disagree.
    """
    (out, per_group), rank = b.shape[:2], a.shape[0]
    if math.prod(b.shape[2:]) != 1 or rank % per_group or out % (rank // per_group):
        raise mismatch(module, a, b)
    groups = rank // per_group
    if groups > 1 and len(b.shape) == 2:
        raise mismatch(module, a, b)
    left = stored(b) if groups == 1 else _block_diagonal_rows(b, groups)
    return Product(left=left, right=stored(a))


def mismatch(module: str, a: StoredTensor, b: StoredTensor) -> AdapterError:
    """The error for factors whose shapes do not fit together."""
    return AdapterError(
        f"{module}: the ranks disagree: {a.name} is {list(a.shape)}, {b.name} is {list(b.shape)}",
        remedy=_SAVE_AGAIN,
    )


def _block_diagonal_rows(b: StoredTensor, groups: int) -> Matrix:
    """B (out, r, ...) of a grouped convolution as (out, groups * r): one block per group."""
    out, per_group = b.shape[:2]

    def spread() -> Float64:
        blocks = float64(b).reshape(groups, out // groups, per_group)
        full = np.zeros((groups, out // groups, groups, per_group))
        each = np.arange(groups)
        full[each, :, each, :] = blocks
        return full.reshape(out, groups * per_group)

    return computed((out, groups * per_group), spread)


def fused_delta(module: str, a: StoredTensor, b: StoredTensor, enabled: Sequence[bool]) -> Product:
    """The fused projection of 2023: `enable_lora` says which parts of the output are adapted.

    Parameters
    ----------
    a : (r * n, in)
    b : (n * part, r, 1)
        n projections are enabled, each of `part` rows.
    enabled : sequence of bool
        One per projection stacked in the base weight.

    Returns
    -------
    Product
        (len(enabled) * part, in).

    Raises
    ------
    AdapterError
        If the shapes contradict `enabled`.
    """
    on = [i for i, adapted in enumerate(enabled) if adapted]
    if not on or a.shape[0] != len(on) * b.shape[1] or b.shape[0] % len(on):
        raise AdapterError(
            f"{module}: {a.name} {list(a.shape)} and {b.name} {list(b.shape)} do not fit "
            f"`enable_lora` {list(enabled)}",
            remedy="Put `enable_lora` of the training run into adapter_config.json.",
        )
    part, rank = b.shape[0] // len(on), a.shape[0]
    rows = len(enabled) * part
    dense = _block_diagonal_rows(b, len(on))

    def place() -> Float64:
        full = np.zeros((len(enabled), part, rank))
        full[on] = dense.load().reshape(len(on), part, rank)
        return full.reshape(rows, rank)

    return Product(left=computed((rows, rank), place), right=stored(a))


def expert_deltas(a: StoredTensor, b: StoredTensor, experts: int) -> tuple[Product, ...]:
    """One delta per expert of a stacked parameter (PEFT's ParamWrapper).

    PEFT reads A as (experts, r, in) and B as (out, r, experts): the expert is the slow index of
    A and the fast one of B.

    Parameters
    ----------
    a : (experts * r, in)
    b : (out, r * experts)
    """
    return tuple(_expert(a, b, expert, experts) for expert in range(experts))


def _expert(a: StoredTensor, b: StoredTensor, expert: int, experts: int) -> Product:
    rank = a.shape[0] // experts
    rows = slice(expert * rank, (expert + 1) * rank)
    return Product(
        left=stored(b, (b.shape[0], rank), lambda array: array[:, expert::experts]),
        right=stored(a, (rank, a.shape[1]), lambda array: array[rows]),
    )


def diagonal_delta(a: StoredTensor, b: StoredTensor, diagonal: StoredTensor) -> Product:
    """B @ diag(E) @ A: AdaLoRA (E is (r, 1)) and KaSA (E is (r,)).

    AdaLoRA may prune a module to rank 0; its change is a product of zeros of rank 1.
    """
    (rank, columns), rows = a.shape, b.shape[0]
    if rank == 0:
        left = computed((rows, 1), lambda: np.zeros((rows, 1)))
        right = computed((1, columns), lambda: np.zeros((1, columns)))
        return Product(left=left, right=right)

    def weighted() -> Float64:
        return float64(a) * float64(diagonal).reshape(rank, 1)

    return Product(left=stored(b), right=computed((rank, columns), weighted))


def block_diagonal_delta(
    module: str, a: StoredTensor, b: StoredTensor, blocks: int, *, of_a: bool
) -> Product:
    """BD-LoRA: one of the factors is block-diagonal and stored as its blocks, stacked.

    Parameters
    ----------
    a : (r, in), or (r, in / blocks) with `of_a`
    b : (out, r), or (out, r / blocks) without

    Raises
    ------
    AdapterError
        If the shapes do not divide into so many blocks.
    """
    split = a if of_a else b
    inner = (a.shape[0], b.shape[1] * (1 if of_a else blocks))
    if len(a.shape) != 2 or len(b.shape) != 2 or inner[0] != inner[1] or split.shape[0] % blocks:
        raise mismatch(module, a, b)
    if of_a:
        return Product(left=stored(b), right=_block_diagonal_rows(a, blocks))
    return Product(left=_block_diagonal_rows(b, blocks), right=stored(a))


def pooled_delta(a: StoredTensor, b: StoredTensor, group: int) -> Product:
    """QA-LoRA: A sees the mean of each group of inputs, times the number of groups.

    Parameters
    ----------
    a : (r, in / group)
    b : (out, r)
    """
    rank, groups = a.shape

    def spread() -> Float64:
        return np.repeat(float64(a), group, axis=1) * (groups / group)

    return Product(left=stored(b), right=computed((rank, groups * group), spread))
