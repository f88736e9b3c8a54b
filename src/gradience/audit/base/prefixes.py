"""One rewriting of prefixes for a whole group of layers, never a guess per layer.

An adapter names modules as they hang in the model it was trained in; the checkpoint names them as
they hung in the class that was saved: with or without a head, alone or inside a larger model. Both
names end alike, so what differs is a prefix, and it differs the same way for every layer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gradience.audit.base.weights import BaseWeight

Rewriting = tuple[str, str]
"""(prefix in the adapter, prefix in the checkpoint), both without the common dotted suffix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Weights by wanted name, and the names among whose weights nothing decides."""

    chosen: Mapping[str, BaseWeight]
    ambiguous: Mapping[str, tuple[BaseWeight, ...]]


WRAPPERS = frozenset(
    {"model", "transformer", "language_model", "base_model", "module", "_orig_mod", "backbone"}
)
"""Attributes that hold a model and say nothing about which part of it is meant."""


def rewriting(adapter: str, base: str) -> Rewriting:
    """What is left of two names without their longest common dotted suffix.

    Examples
    --------
    >>> rewriting("model.language_model.layers.0.q_proj", "language_model.model.layers.0.q_proj")
    ('model.language_model', 'language_model.model')
    >>> rewriting("model.layers.0.q_proj", "layers.0.q_proj")
    ('model', '')
    """
    ours, theirs = adapter.split("."), base.split(".")
    while ours and theirs and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    return ".".join(ours), ".".join(theirs)


def is_plausible(pair: Rewriting) -> bool:
    """Whether two prefixes can name the same place.

    `encoder` is not `decoder` and layer 0 is not layer 1; but `model.language_model` can be
    `language_model.model`, and `bert` can be nothing.

    Examples
    --------
    >>> is_plausible(("bert", "")), is_plausible(("encoder", "decoder"))
    (True, False)
    """
    ours, theirs = (_meaningful(prefix) for prefix in pair)
    if any(part.isdigit() for part in (*ours, *theirs)):
        return False
    return ours <= theirs or theirs <= ours


def _meaningful(prefix: str) -> Counter[str]:
    return Counter(part for part in prefix.split(".") if part and part not in WRAPPERS)


def choose(options: Mapping[Rewriting, Mapping[str, BaseWeight]]) -> Choice:
    """Choose one rewriting after another, each for the layers that are left.

    The same name comes first, then the rewriting that serves most layers, then the one with the
    longest common suffix. Where the next two say different things about a layer with equal right,
    or give one weight to two layers, neither is chosen.

    Parameters
    ----------
    options : mapping of Rewriting to mapping of str to BaseWeight
        For each rewriting, the weight it gives to each wanted name; shapes agree.
    """
    chosen: dict[str, BaseWeight] = {}
    ambiguous: dict[str, tuple[BaseWeight, ...]] = {}
    given = _Given(weights=set(), stacks={})
    left = options
    while left := _still_open(left, chosen.keys() | ambiguous.keys(), given):
        best = max(_rank(pair, found) for pair, found in left.items())
        equal = {pair: left[pair] for pair in sorted(left) if _rank(pair, left[pair]) == best}
        disputed = _disputed(list(equal.values()))
        for pair, found in equal.items():
            for name, weight in found.items():
                if name in disputed:
                    ambiguous[name] = (*ambiguous.get(name, ()), weight)
                else:
                    chosen[name] = weight
                    given.weights.add(weight.key)
                    given.stacks.setdefault(_stack(name), _moved(pair, _stack(name)))
    return Choice(chosen=chosen, ambiguous=ambiguous)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """Weights that have their layer, and the place in the base of each stack of layers."""

    weights: set[str]
    stacks: dict[str, str]

    def allows(self, pair: Rewriting, name: str, weight: BaseWeight) -> bool:
        """A weight serves one name, and the layers of one stack stay together."""
        place = self.stacks.get(_stack(name))
        return weight.key not in self.weights and place in (None, _moved(pair, _stack(name)))


def _stack(name: str) -> str:
    """The name up to its first number, which counts the layers; all of it when there is none."""
    words = name.split(".")
    return ".".join(words[: next((i for i, w in enumerate(words) if w.isdigit()), len(words))])


def _moved(pair: Rewriting, stack: str) -> str:
    """Where a rewriting puts a stack."""
    ours, theirs = pair
    return ".".join(part for part in (theirs, stack.removeprefix(ours).lstrip(".")) if part)


def _rank(pair: Rewriting, found: Mapping[str, BaseWeight]) -> tuple[bool, int, int]:
    stripped = len(pair[0].split(".")) if pair[0] else 0
    return pair == ("", ""), len(found), -stripped


def _still_open(
    left: Mapping[Rewriting, Mapping[str, BaseWeight]], decided: set[str], given: _Given
) -> dict[Rewriting, dict[str, BaseWeight]]:
    """What the rewritings say of names not yet decided, with what is not yet given away."""
    rest = {
        pair: {n: w for n, w in found.items() if n not in decided and given.allows(pair, n, w)}
        for pair, found in left.items()
    }
    return {pair: found for pair, found in rest.items() if found}


def _disputed(equal: list[dict[str, BaseWeight]]) -> set[str]:
    """Names that get two weights, and names that get a weight which another name gets too."""
    weights: dict[str, set[str]] = {}
    takers: dict[str, set[str]] = {}
    for found in equal:
        for name, weight in found.items():
            weights.setdefault(name, set()).add(weight.key)
            takers.setdefault(weight.key, set()).add(name)
    shared = {name for names in takers.values() if len(names) > 1 for name in names}
    return shared | {name for name, keys in weights.items() if len(keys) > 1}
