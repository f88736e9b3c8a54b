"""The factors of an adapter as PEFT stores them, module by module, and the config that fits them.

PEFT gives one rank and one alpha to each name that it matches with `rank_pattern`: a module, all
experts of a stacked parameter, an attention with its output projection. Such a name is a slot, and
here every change of rank goes through slots, so that what is written is what PEFT can hold.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradience.adapter.delta import Product
from gradience.adapter.dialects.peft_keys import base_name, parse_key
from gradience.adapter.finding_kinds import INIT_CHANGES_BASE
from gradience.adapter.patterns import pattern_value
from gradience.adapter.records import Adapter, LoraLayer
from gradience.compress.factors import Pair
from gradience.errors import UnsupportedAdapterError
from gradience.tensors.stored import Array

_PREFIX = "base_model.model."
_ADALORA_ONLY = frozenset(
    {"init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight"}
    | {"total_step"}
)
# Forms of LoRA that are written as plain factors, and the keys that ask PEFT for them.
_FORMS = frozenset({"use_qalora", "qalora_group_size", "use_bdlora", "enable_lora"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One pair of stored factors.

    Attributes
    ----------
    path : str
        The module as PEFT wraps it.
    name : str
        What PEFT matches with `rank_pattern`; pairs of one name share rank and alpha.
    layers : tuple of LoraLayer
        One, or one per expert.
    kernel : tuple of int
        Dimensions of A beyond its rank: (in,) or (in, height, width).
    """

    path: str
    name: str
    layers: tuple[LoraLayer, ...]
    kernel: tuple[int, ...]

    @property
    def scale(self) -> float:
        """What PEFT multiplies with."""
        return self.layers[0].scale

    def product(self, layer: LoraLayer) -> Product:
        """The factors of one of its layers; `slots_of` let no other form through."""
        assert isinstance(layer.delta, Product)
        return layer.delta

    def packed(self, pairs: Sequence[Pair], dtype: np.dtype[Any]) -> dict[str, Array]:
        """The tensors that PEFT stores for these factors, one pair per layer, of one rank.

        Raises
        ------
        UnsupportedAdapterError
            If a number is beyond the type: the balanced factors of a huge change may be.
        """
        rank = pairs[0].left.shape[1]
        a = np.concatenate([pair.right for pair in pairs]).reshape(-1, *self.kernel)
        # PEFT reads B of stacked experts as (out, rank, expert): the expert is the fast index.
        b = np.stack([pair.left for pair in pairs], axis=-1).reshape(len(pairs[0].left), -1)
        assert a.shape[0] == b.shape[1] == rank * len(pairs)
        if len(self.kernel) > 1:
            b = b.reshape(*b.shape, *[1] * (len(self.kernel) - 1))
        embedding = self.layers[0].kind == "embedding"
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        tail = "" if embedding else ".weight"
        with np.errstate(over="ignore"):  # said below
            factors = {
                f"{_PREFIX}{self.path}.{part}{tail}": array.astype(dtype)
                for part, array in zip(names, (a, b), strict=True)
            }
        if not all(np.isfinite(factor).all() for factor in factors.values()):
            raise UnsupportedAdapterError(
                f"{self.path}: its change is too large for factors in {dtype}",
                remedy="`gradience audit` says how large it is; was alpha or the rate too high?",
            )
        if (bias := self.layers[0].bias) is not None:
            factors[f"{_PREFIX}{self.path}.lora_B.bias"] = np.array(bias.read())
        return factors


def slots_of(adapter: Adapter) -> tuple[Slot, ...]:
    """The factors of an adapter whose rank can be changed, in the order of the model.

    Raises
    ------
    UnsupportedAdapterError
        Names the module and why its rank cannot be changed, or why the adapter cannot be written
        as a PEFT directory with another rank.
    """
    check_dialect(adapter)
    for finding in adapter.findings:
        if finding.code == INIT_CHANGES_BASE.code:
            raise UnsupportedAdapterError(
                f"{adapter.source}: {finding.message} At another rank PEFT would move another part",
                remedy="Save it as plain LoRA: save_pretrained(..., "
                "path_initial_model_for_weight_conversion=...).",
            )
    grouped: dict[str, list[LoraLayer]] = {}
    for layer in adapter.layers:
        _check(layer)
        # The tensors of stacked experts ride with expert 0, which comes first.
        first = grouped[next(reversed(grouped))][0] if layer.expert else layer
        grouped.setdefault(_path(first), []).append(layer)
    return tuple(_slot(path, tuple(layers)) for path, layers in grouped.items())


def check_dialect(adapter: Adapter) -> None:
    """Refuse what is not in PEFT's names.

    Raises
    ------
    UnsupportedAdapterError
    """
    if adapter.dialect != "peft":
        raise UnsupportedAdapterError(
            f"{adapter.source} is in {adapter.dialect} format; a PEFT directory names its modules "
            "otherwise",
            remedy="Convert it with the library that wrote it, or save it with PEFT.",
        )


def config_of(adapter: Adapter, slots: Sequence[Slot], ranks: Mapping[str, int]) -> dict[str, Any]:
    """adapter_config.json of plain LoRA for new ranks, with every scale as it was.

    Parameters
    ----------
    adapter : Adapter
    slots : sequence of Slot
    ranks : mapping of str to int
        By slot name.

    Returns
    -------
    dict
        `r` is the largest rank, since servers size their buffers by it; modules that differ are
        named in full in `rank_pattern` and `alpha_pattern`.
    """
    raw = dict(adapter.config)
    rslora = bool(raw.get("use_rslora")) and adapter.peft_type == "LORA"
    alphas = {s.name: alpha_for(s.scale, ranks[s.name], rslora=rslora) for s in slots}
    return with_ranks(raw, ranks, alphas)


def with_ranks(
    raw: Mapping[str, Any], ranks: Mapping[str, int], alphas: Mapping[str, float]
) -> dict[str, Any]:
    """A config of plain LoRA with these ranks and alphas, by slot name."""
    config = {key: value for key, value in raw.items() if key not in _ADALORA_ONLY | _FORMS}
    largest = max(ranks.values())
    ((alpha, _),) = Counter(alphas[n] for n, r in ranks.items() if r == largest).most_common(1)
    return config | {
        "peft_type": "LORA",
        "r": largest,
        "lora_alpha": _whole(alpha),
        "rank_pattern": _pattern(ranks, largest),
        "alpha_pattern": {k: _whole(v) for k, v in _pattern(alphas, alpha).items()},
    }


def alpha_for(scale: float, rank: int, *, rslora: bool) -> float:
    """The alpha with which a rank has this scale: alpha / rank, or alpha / sqrt(rank) for rsLoRA.

    The shortest decimal that gives the scale to the last bit; where none does, the nearest number.

    Examples
    --------
    >>> alpha_for(2.0, 3, rslora=False), alpha_for(16 / 8**0.5, 2, rslora=True)
    (6.0, 8.0)
    """
    divisor = math.sqrt(rank) if rslora else float(rank)
    near = scale * divisor
    decimals = (float(f"{near:.{digits}g}") for digits in range(1, 17))
    beside = (near, math.nextafter(near, math.inf), math.nextafter(near, -math.inf))
    return next((alpha for alpha in (*decimals, *beside) if alpha / divisor == scale), near)


def _pattern(values: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """A pattern by which PEFT gives every name its value, with as few names as that takes.

    A name is also matched where it is the tail of a longer one: longer names come first, and are
    named even at the default where a tail of theirs is named.
    """
    pattern: dict[str, Any] = {}
    for name in sorted(values, key=len):
        if pattern_value(pattern, name, default) != values[name]:
            pattern = {name: values[name], **pattern}
    # PEFT sorts the keys when it saves the config again, and takes the first that matches: where a
    # name would catch another one, `^` holds it to the beginning.
    return {
        (f"^{name}" if _catches(name, value, values) else name): value
        for name, value in pattern.items()
    }


def _catches(name: str, value: Any, values: Mapping[str, Any]) -> bool:
    return any(
        other != name and wanted != value and pattern_value({name: True}, other, False)
        for other, wanted in values.items()
    )


def _check(layer: LoraLayer) -> None:
    reason = None
    if layer.method == "dora" or layer.magnitude is not None:
        reason = (
            "is DoRA: its magnitude is that of base weight and change together, and does not fit "
            "another change"
        )
    elif not isinstance(layer.delta, Product) or layer.method not in ("lora", "adalora"):
        reason = f"is {layer.method}, which is no product of two thin factors"
    elif any(".lora_diag" in tensor.name for tensor in layer.tensors):
        reason = "is KaSA, which changes the base weight"
    elif layer.kind == "conv" and _grouped(layer):
        reason = "is a grouped convolution, whose B reads the channels of its group only"
    if reason is not None:
        raise UnsupportedAdapterError(
            f"{layer.label} {reason}; its rank cannot be changed",
            remedy="Train at the lower rank, or store the factors as bfloat16 (--dtype bf16).",
        )


def _grouped(layer: LoraLayer) -> bool:
    a, b = (next(t for t in layer.tensors if f".{p}" in t.name) for p in ("lora_A", "lora_B"))
    return a.shape[0] != b.shape[1]


def _path(layer: LoraLayer) -> str:
    keys = (parse_key(tensor.name) for tensor in layer.tensors)
    return next(key.path for key in keys if key is not None)


def _slot(path: str, layers: tuple[LoraLayer, ...]) -> Slot:
    first = layers[0]
    if first.parameter in ("weight", "", "in_proj_weight") and first.expert is None:
        # A module inside a wrapped one (out_proj of attention) takes what its wrapper got.
        name = base_name(path.partition(".base_layer.")[0])
    else:
        name = f"{first.name}.{first.parameter}"
    kernel: tuple[int, ...] = first.shape[1:]
    if first.kind == "conv":
        kernel = next(t for t in first.tensors if ".lora_A" in t.name).shape[1:]
    return Slot(path=path, name=name, layers=layers, kernel=kernel)


def _whole(alpha: float) -> float | int:
    """As people write it: 16 and not 16.0."""
    return int(alpha) if float(alpha).is_integer() else float(alpha)
