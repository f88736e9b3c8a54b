"""Every weight of a base model that an adapter could change, and how a key names one."""

import re
from collections import defaultdict
from collections.abc import Mapping

from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.quantised import packing
from gradience.audit.base.weights import BaseWeight, Part, TensorFacts, as_matrix

# Positions and masks are kept as integers: no adapter changes them.
_NO_WEIGHTS = frozenset({"I64", "I32", "BOOL"})
# As transformers names a stack of experts, and as llama.cpp does.
_STACKED = re.compile(r"(^|\.)experts\.|_exps\.weight$")


def matrices(tensors: Mapping[str, TensorFacts]) -> tuple[dict[str, BaseWeight], dict[str, str]]:
    """The weights of a base model as adapters meet them, and why others are left out.

    Parameters
    ----------
    tensors : mapping of str to TensorFacts

    Returns
    -------
    weights : dict of str to BaseWeight
        By key. Stacked experts are one weight each; a kernel counts as a matrix, a packed weight
        as what it stands for.
    left_out : dict of str to str
        Packed tensors that no format could read, and in which format they are packed.
    """
    siblings: defaultdict[str, set[str]] = defaultdict(set)
    for name in tensors:
        module, _, parameter = name.rpartition(".")
        siblings[module].add(parameter)
    weights: dict[str, BaseWeight] = {}
    left_out: dict[str, str] = {}
    for name, facts in tensors.items():
        if len(facts.shape) < 2 or 0 in facts.shape or facts.dtype in _NO_WEIGHTS:
            continue
        module, _, parameter = name.rpartition(".")
        how = packing(parameter, siblings[module], facts)
        if how:
            left_out[name] = how
            continue
        for weight in _weights(name, facts):
            weights[weight.key] = weight
    return weights, left_out


def weight_of(key: str, norm: BaseNorm, tensors: Mapping[str, TensorFacts]) -> BaseWeight | None:
    """The weight that a key of a file of norms names; None where the base has none like it.

    Examples
    --------
    >>> tensors = {"a": TensorFacts(shape=(3, 2, 5), dtype="F32")}
    >>> norm = BaseNorm(lower=1, upper=1, frobenius=1, shape=(2, 5), dtype="F32",
    ...                 width=1e-3, eta=1e-9, passes=7)
    >>> weight_of("a[2]", norm, tensors).parts
    (Part(tensor='a', index=2),)
    >>> weight_of("a[3]", norm, tensors), weight_of("b", norm, tensors)
    (None, None)
    """
    parts = tuple(_part(text) for text in key.split(" + "))
    shapes = [_part_shape(part, tensors) for part in parts]
    rows = sum(shape[0] for shape in shapes if shape)
    columns = {shape[1] for shape in shapes if shape}
    same_type = {tensors[p.tensor].dtype for p in parts if p.tensor in tensors} == {norm.dtype}
    if None in shapes or len(columns) != 1 or not same_type:
        return None
    if norm.shape != (rows, columns.pop()):
        return None
    return BaseWeight(parts=parts, stored_shape=norm.shape, dtype=norm.dtype)


def _weights(name: str, facts: TensorFacts) -> list[BaseWeight]:
    if len(facts.shape) == 3 and (facts.packed or _STACKED.search(name)):
        parts = [Part(tensor=name, index=at) for at in range(facts.shape[0])]
        shape = (facts.shape[1], facts.shape[2])
    else:
        parts, shape = [Part(tensor=name)], as_matrix(facts.shape)
    return [BaseWeight(parts=(part,), stored_shape=shape, dtype=facts.dtype) for part in parts]


def _part(text: str) -> Part:
    found = re.fullmatch(r"(.+)\[(\d+)\]", text)
    return Part(tensor=found[1], index=int(found[2])) if found else Part(tensor=text)


def _part_shape(part: Part, tensors: Mapping[str, TensorFacts]) -> tuple[int, int] | None:
    facts = tensors.get(part.tensor)
    if facts is None or len(facts.shape) < 2:
        return None
    if part.index is None:
        return None if facts.packed and len(facts.shape) > 2 else as_matrix(facts.shape)
    inside = len(facts.shape) > 2 and part.index < facts.shape[0]
    return as_matrix(facts.shape[1:]) if inside else None
