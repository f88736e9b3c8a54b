"""What one checkpoint of a Trainer holds, from the shapes of the base model: pure.

A full run saves every weight in the type it has in memory; an adapter run saves A and B of each
target in float32 (PEFT casts adapters of half-precision models: `autocast_adapter_dtype`).

References
----------
transformers 5.24, `Trainer._save_checkpoint`; PEFT 0.21, `tuners/lora/layer.py`,
`tuners/tuners_utils.py` (`check_target_module_exists`), `utils/save_and_load.py`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from gradience.adapter.targets import is_named, unnamed, why_no_pattern
from gradience.errors import UsageError
from gradience.storage.preflight.optimizers import Shape

_FLOAT_BYTES = 4
_ENTRY_BYTES = 75  # of a tensor in the header of safetensors, beside its name
_PREFIX_BYTES = len("base_model.model.") + len(".lora_A.weight")
_OUTPUT_LAYERS = ("lm_head", "embed_out", "output", "score", "classifier", "wte", "wpe")
_EMBEDDING = re.compile(r"(^|\.)(embed\w*|wte|wpe|\w*embeddings?|shared)(\.|$)")
_PACKED = ("U8", "I8", "I32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A weight of the base model.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
        As safetensors names it: `BF16`.
    itemsize : int
        Bytes of one number.
    """

    shape: Shape
    dtype: str
    itemsize: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run trains and saves.

    Attributes
    ----------
    saved_bytes : int
        Weights in a checkpoint.
    weights : tuple of (shape, itemsize)
        That are trained.
    doubt : str
        Why the numbers may be wrong; "" where nothing says so.
    """

    saved_bytes: int
    weights: tuple[tuple[Shape, int], ...]
    doubt: str = ""


def full(base: Mapping[str, Tensor], itemsize: int | None) -> Trained:
    """Every weight is trained.

    Parameters
    ----------
    itemsize : int, optional
        Of the weights in memory; by default as they are in the file.
    """
    kept = [(name, t, itemsize or t.itemsize) for name, t in base.items()]
    return Trained(
        saved_bytes=sum(prod(t.shape) * size + _ENTRY_BYTES + len(n) for n, t, size in kept),
        weights=tuple((t.shape, size) for _, t, size in kept),
    )


def adapter(
    base: Mapping[str, Tensor],
    *,
    rank: int,
    targets: Sequence[str] | str,
    modules_to_save: Sequence[str] = (),
    dora: bool = False,
) -> Trained:
    """A LoRA adapter of one rank.

    Parameters
    ----------
    targets : sequence of str, or str
        As PEFT's `target_modules`: ends of names; one regular expression; or `all-linear`.

    Raises
    ------
    UsageError
        If a regular expression is none.
    """
    if why := why_no_pattern(targets):
        raise UsageError(
            f"targets: {why}",
            remedy="Write names, one regular expression for whole names, or all-linear.",
        )
    shapes: list[Shape] = []
    names = 0
    packed = False
    modules = _modules(base)
    for module, tensor in modules:
        if _is_target(module, tensor, targets):
            packed |= tensor.dtype in _PACKED
            out, into = prod(tensor.shape[:-1]), tensor.shape[-1]
            shapes += [(rank, into), (out, rank)]
            names += 2 * (len(module) + _PREFIX_BYTES)
            if dora:
                shapes.append((out,))
                names += len(module) + _PREFIX_BYTES
    missing = _missing(targets, [module for module, _ in modules], found=bool(shapes))
    for name, tensor in base.items():
        module = name.rpartition(".")[0]
        if any(is_named(module, end) for end in modules_to_save):
            shapes.append(tensor.shape)
            names += len(name) + _PREFIX_BYTES
    return Trained(
        saved_bytes=sum(prod(s) * _FLOAT_BYTES + _ENTRY_BYTES for s in shapes) + names,
        weights=tuple((shape, _FLOAT_BYTES) for shape in shapes),
        doubt=""
        if not (missing or packed)
        else "the weights are packed by a quantisation: their shapes are not those of the layers"
        if packed
        else f"no layer of the model is named {', '.join(missing)}",
    )


def _modules(base: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Layers with a matrix."""
    return [
        (name.removesuffix(".weight"), tensor)
        for name, tensor in base.items()
        if name.endswith(".weight") and len(tensor.shape) >= 2
    ]


def _is_target(module: str, tensor: Tensor, targets: Sequence[str] | str) -> bool:
    if targets == "all-linear":
        last = module.rpartition(".")[2]
        linear = len(tensor.shape) == 2 and not _EMBEDDING.search(module)
        return linear and last not in _OUTPUT_LAYERS
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(is_named(module, end) for end in targets)


def _missing(targets: Sequence[str] | str, modules: Sequence[str], *, found: bool) -> Sequence[str]:
    """Targets that are no layer."""
    if isinstance(targets, str):
        return [] if found else [targets]
    return unnamed(targets, modules)
