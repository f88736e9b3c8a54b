"""Rewrite an adapter: truncate it, store its factors in fewer bytes, or as they are.

Each function takes an adapter that was read and gives what is to be written, with the error of the
change that this has. Nothing here touches the disk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
from blake3 import blake3

from gradience.adapter.delta import Product
from gradience.adapter.dialects.peft_keys import parse_key
from gradience.adapter.read import adapter_from_state_dict
from gradience.adapter.records import Adapter, LoraLayer
from gradience.audit.byte_use import stored_tensors
from gradience.audit.records import TruncationRule
from gradience.audit.spectrum import NonFinite, spectra
from gradience.audit.suggest import ranks_at
from gradience.compress import factors
from gradience.compress.slots import Slot, check_dialect, config_of, slots_of, with_ranks
from gradience.errors import UnmeasurableError, UnsupportedAdapterError, UsageError
from gradience.tensors.dtypes import numpy_dtype
from gradience.tensors.stored import Array, StoredTensor

Encoding = Literal["bf16", "int8"]

_RANK_AXIS = {"lora_A": 0, "lora_B": 1, "lora_embedding_A": 0, "lora_embedding_B": 1}
_BF16_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """An adapter that is about to be written.

    Attributes
    ----------
    tensors : mapping of str to array
        By PEFT's names.
    config : mapping
        adapter_config.json.
    ranks : mapping of str to int
        By layer; empty where no rank was changed.
    errors : mapping of str to float
        ||dW - dW'||_F / ||dW||_F by layer, before rounding to the stored type; empty where no rank
        was changed.
    relative_error : float or None
        The same over the whole adapter; for an encoding, of the encoded factors. None where the
        factors do not determine the change (DoRA), or are not two (LoHa, LoKr).
    factor_bytes : int
        Bytes of the factors: of the encoding that was asked for, where that is int8.
    """

    tensors: Mapping[str, Array]
    config: Mapping[str, Any]
    ranks: Mapping[str, int]
    errors: Mapping[str, float]
    relative_error: float | None
    factor_bytes: int


def ranks_by_energy(adapter: Adapter, share: float, rule: TruncationRule) -> dict[str, int]:
    """The rank of each layer that keeps a share of the energy, as the audit suggests it.

    Parameters
    ----------
    share : float
        Of sum sigma^2; above 0, at most 1.
    rule : str
        See `gradience.audit.suggest.ranks_at`.

    Raises
    ------
    UsageError
        If `share` is no share.
    UnsupportedAdapterError
        If a factor holds NaN or Inf.
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(
            f"an energy of {share} cannot be kept", remedy="Give a share, such as 0.9."
        )
    found = spectra([(layer.delta, layer.scale) for layer in adapter.layers])
    values = []
    for layer, spectrum in zip(adapter.layers, found, strict=True):
        if isinstance(spectrum, NonFinite):
            raise _not_finite(layer.label)
        values.append(spectrum.values)
    names = [layer.label for layer in adapter.layers]
    return dict(zip(names, ranks_at(share, rule, values), strict=True))


def truncate(adapter: Adapter, ranks: Mapping[str, int] | int) -> Rewritten:
    """Cut every layer to its rank by SVD: the best approximation of that rank.

    A layer that has no more than its rank keeps its factors bit by bit. The others get balanced
    factors (B^T B = A A^T) in the stored type of the old ones.

    Parameters
    ----------
    adapter : Adapter
        LoRA or AdaLoRA in PEFT's names; AdaLoRA becomes plain LoRA.
    ranks : int or mapping of str to int
        By layer; experts of one parameter, which share a rank in PEFT, get the largest of theirs.

    Raises
    ------
    UsageError
        If a rank is below 1.
    UnsupportedAdapterError
        If a layer has no thin factors, is DoRA, or holds NaN or Inf; if the adapter is not PEFT's.
    """
    return _changed(adapter, ranks, lambda pair, rank, label: factors.truncated(pair, rank))


def random_subspace(
    adapter: Adapter, ranks: Mapping[str, int] | int | None, *, seed: int
) -> Rewritten:
    """Project every change on a random subspace of the same rank: the control that must fail.

    Parameters
    ----------
    ranks : int, mapping of str to int, or None
        None for each layer's own.
    seed : int
        With the layer's name it determines its subspace, whatever the order of the layers.

    Raises
    ------
    UsageError, UnsupportedAdapterError
        As `truncate`.
    """

    def project(pair: factors.Pair, rank: int, label: str) -> factors.Cut:
        digest = blake3(label.encode()).digest(length=8)
        rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
        return factors.projected(pair, rank, rng)

    wanted = {x.label: x.rank for x in adapter.layers} if ranks is None else ranks
    return _changed(adapter, wanted, project, always=True)


def first_directions(
    adapter: Adapter, ranks: Mapping[str, int] | int, alpha: float | None
) -> Rewritten:
    """An untrained adapter at a lower rank: the first k rows of A, the first k columns of B.

    For `retrain`: rows of an untrained A are independent draws whose size depends on the inputs
    alone, so that the first k are what training at rank k would have begun with.

    Parameters
    ----------
    ranks : int or mapping of str to int
    alpha : float or None
        For every module; None to keep the scale of each.

    Raises
    ------
    UsageError, UnsupportedAdapterError
        As `truncate`.
    """

    def first(pair: factors.Pair, rank: int, label: str) -> factors.Cut:
        kept = factors.Pair(left=pair.left[:, :rank], right=pair.right[:rank])
        return factors.Cut(pair=kept, lost=factors.distance(pair, kept), whole=factors.norm(pair))

    return _changed(adapter, ranks, first, alpha=alpha)


def resaved(adapter: Adapter) -> Rewritten:
    """Every tensor and the config as they are.

    Raises
    ------
    UnsupportedAdapterError
        If the adapter is not in PEFT's names.
    """
    check_dialect(adapter)
    tensors = {tensor.name: tensor.read() for _, tensor in stored_tensors(adapter)}
    return _kept(adapter, tensors, nbytes=factor_bytes(adapter), error=0.0)


def encoded(adapter: Adapter, encoding: Encoding) -> Rewritten:
    """The factors in fewer bytes, at the rank they have; everything else as it is.

    bf16: rounded to nearest even, and stored so. int8: one byte per number and a float32 scale per
    direction (row of A, column of B); no adapter format holds that, so the tensors are what a
    loader would make of it, in the type they had, and `factor_bytes` counts the int8 form.

    Raises
    ------
    UnsupportedAdapterError
        If int8 is asked of factors without a dimension of rank (LoHa, LoKr, AdaLoRA's diagonal),
        or a factor holds NaN or Inf; if the adapter is not in PEFT's names.
    """
    check_dialect(adapter)
    tensors: dict[str, Array] = {}
    nbytes = 0
    for kind, tensor in stored_tensors(adapter):
        array = tensor.read()
        if kind == "factors":
            array, size = _encode(tensor, array, encoding)
            nbytes += size
        tensors[tensor.name] = array
    after = adapter_from_state_dict(
        tensors, adapter.config, source=f"{adapter.source} as {encoding}"
    )
    try:
        error = change_error(adapter, after)
    except UnmeasurableError:
        error = None
    return _kept(adapter, tensors, nbytes=nbytes, error=error)


def factor_bytes(adapter: Adapter) -> int:
    """Stored bytes of the factors of an adapter."""
    return sum(tensor.nbytes for kind, tensor in stored_tensors(adapter) if kind == "factors")


def change_error(before: Adapter, after: Adapter) -> float:
    """||dW - dW'||_F / ||dW||_F over two adapters of one model, from what is stored.

    Raises
    ------
    UnmeasurableError
        If the two do not adapt the same weights, or a change is no product of two thin factors, or
        DoRA, whose change depends on the base.
    """
    others = {layer.label: layer for layer in after.layers}
    if set(others) != {layer.label for layer in before.layers}:
        raise UnmeasurableError(
            f"{before.source} and {after.source} do not adapt the same weights",
            remedy="Compare an adapter with one that was made from it.",
        )
    parts = []
    for layer in before.layers:
        one, other = _plain(layer), _plain(others[layer.label])
        scales = (layer.scale, others[layer.label].scale)
        whole = abs(layer.scale) * factors.norm(one)
        parts.append((factors.distance(one, other, scales=scales), whole))
    return factors.relative(parts)


_Change = Callable[[factors.Pair, int, str], factors.Cut]


def _changed(
    adapter: Adapter,
    ranks: Mapping[str, int] | int,
    change: _Change,
    *,
    alpha: float | None = None,
    always: bool = False,
) -> Rewritten:
    """Every slot at its new rank; `always` changes those too that have no more than it."""
    slots = slots_of(adapter)
    wanted = _ranks_by_slot(slots, ranks)
    tensors: dict[str, Array] = {}
    new: dict[str, int] = {}
    parts: dict[str, tuple[float, float]] = {}
    for slot in slots:
        cuts = [_cut(slot, layer, wanted[slot.name], change, always) for layer in slot.layers]
        new[slot.name] = cuts[0].pair.left.shape[1]
        tensors |= slot.packed([cut.pair for cut in cuts], _factor_dtype(slot))
        for layer, cut in zip(slot.layers, cuts, strict=True):
            size = abs(layer.scale)
            parts[layer.label] = (size * cut.lost, size * cut.whole)
    nbytes = sum(array.nbytes for name, array in tensors.items() if not name.endswith(".bias"))
    own = {tensor.name for layer in adapter.layers for tensor in layer.tensors}
    tensors |= {t.name: t.read() for _, t in stored_tensors(adapter) if t.name not in own}
    return Rewritten(
        tensors=tensors,
        config=config_of(adapter, slots, new)
        if alpha is None
        else with_ranks(adapter.config, new, dict.fromkeys(new, alpha)),
        ranks={layer.label: new[slot.name] for slot in slots for layer in slot.layers},
        errors={label: factors.relative([part]) for label, part in parts.items()},
        relative_error=factors.relative(list(parts.values())),
        factor_bytes=nbytes,
    )


def _cut(slot: Slot, layer: LoraLayer, rank: int, change: _Change, always: bool) -> factors.Cut:
    pair = factors.load(slot.product(layer))
    if not (np.isfinite(pair.left).all() and np.isfinite(pair.right).all()):
        raise _not_finite(layer.label)
    if pair.left.shape[1] <= rank and not always:
        return factors.Cut(pair=pair, lost=0.0, whole=factors.norm(pair))
    return change(pair, rank, layer.label)


def _ranks_by_slot(slots: Sequence[Slot], ranks: Mapping[str, int] | int) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for slot in slots:
        for layer in slot.layers:
            rank = ranks if isinstance(ranks, int) else ranks[layer.label]
            if rank < 1:
                raise UsageError(
                    f"{layer.label} cannot be cut to rank {rank}", remedy="Give a rank from 1."
                )
            wanted[slot.name] = max(wanted.get(slot.name, 0), rank)
    # Pairs of one slot (an attention and its output projection) share the rank that both can have.
    for slot in slots:
        own = max(slot.product(layer).rank for layer in slot.layers)
        wanted[slot.name] = min(wanted[slot.name], own)
    return wanted


def _kept(
    adapter: Adapter, tensors: Mapping[str, Array], *, nbytes: int, error: float | None
) -> Rewritten:
    """An adapter whose ranks are what they were."""
    return Rewritten(
        tensors=tensors,
        config=adapter.config,
        ranks={},
        errors={},
        relative_error=error,
        factor_bytes=nbytes,
    )


def _encode(tensor: StoredTensor, array: Array, encoding: Encoding) -> tuple[Array, int]:
    """What stands for a factor, and the bytes it takes."""
    if not np.isfinite(array.astype(np.float32)).all():
        raise _not_finite(tensor.name)
    if encoding == "bf16":
        narrow = array if array.dtype.itemsize <= _BF16_BYTES else array.astype(ml_dtypes.bfloat16)
        return narrow, narrow.nbytes
    key = parse_key(tensor.name)
    if key is None or key.part not in _RANK_AXIS:
        raise UnsupportedAdapterError(
            f"{tensor.name} has no dimension of rank to give int8 scales to",
            remedy="int8 is for LoRA's A and B; store this adapter as bf16.",
        )
    values, scales = factors.int8(array, _RANK_AXIS[key.part])
    return (values * scales).astype(array.dtype), values.nbytes + scales.nbytes


def _factor_dtype(slot: Slot) -> np.dtype[Any]:
    """The stored type of A."""
    keys = {tensor: parse_key(tensor.name) for tensor in slot.layers[0].tensors}
    return next(
        numpy_dtype(tensor.dtype)
        for tensor, key in keys.items()
        if key is not None and key.part in ("lora_A", "lora_embedding_A")
    )


def _plain(layer: LoraLayer) -> factors.Pair:
    if not isinstance(layer.delta, Product) or layer.magnitude is not None:
        raise UnmeasurableError(
            f"{layer.label} is {layer.method}: its factors alone do not give its change",
            remedy="Compare LoRA with LoRA.",
        )
    return factors.load(layer.delta)


def _not_finite(name: str) -> UnsupportedAdapterError:
    return UnsupportedAdapterError(
        f"{name} holds NaN or Inf: nothing can be made of it",
        remedy="Use an earlier checkpoint; `gradience audit` names every such tensor.",
    )
