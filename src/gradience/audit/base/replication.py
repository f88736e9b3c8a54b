"""PEFT's `layer_replication`: a model grown by repeating layers of its base.

`[[0, 4], [2, 5]]` makes a model of the layers 0, 1, 2, 3, 2, 3, 4 of the base. The adapter counts
the layers of the grown model; the base has only those that were copied.
"""

import re
from collections.abc import Sequence
from typing import TypeGuard

from gradience.errors import AdapterConfigError

# Far above any model; a config may not ask for a list of a billion numbers.
_MOST_LAYERS = 100_000
_LAYER = re.compile(r"\d{1,6}")


def origins(replication: object) -> tuple[int, ...] | None:
    """The base layer behind each layer of the grown model; None when no layer is repeated.

    Parameters
    ----------
    replication : list of [start, end], or None
        As adapter_config.json says it: not to be trusted.

    Raises
    ------
    AdapterConfigError
        If it is anything else.

    Examples
    --------
    >>> origins([[0, 4], [2, 5]])
    (0, 1, 2, 3, 2, 3, 4)
    """
    if replication is None or replication == []:
        return None
    given = replication if isinstance(replication, list | tuple) else (replication,)
    pairs = [pair for pair in given if _is_range(pair)]
    if len(pairs) < len(given) or _count(pairs) > _MOST_LAYERS:
        raise AdapterConfigError(
            f"layer_replication is {str(replication)[:100]!r}, not a list of [start, end]",
            remedy="Correct layer_replication in adapter_config.json, such as [[0, 4], [2, 5]].",
        )
    return tuple(layer for start, end in pairs for layer in range(start, end))


def original(name: str, layers: Sequence[int] | None) -> str:
    """A module's name with its first number, which counts layers, mapped back to the base.

    Examples
    --------
    >>> original("model.layers.4.mlp.experts.4", (0, 1, 2, 3, 2, 3, 4))
    'model.layers.2.mlp.experts.4'
    """
    words = name.split(".")
    at = next((i for i, word in enumerate(words) if _LAYER.fullmatch(word)), None)
    if layers is not None and at is not None and int(words[at]) < len(layers):
        words[at] = str(layers[int(words[at])])
    return ".".join(words)


def _is_range(pair: object) -> TypeGuard[Sequence[int]]:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(end, int) and not isinstance(end, bool) and end >= 0 for end in pair)
    )


def _count(pairs: Sequence[Sequence[int]]) -> int:
    return sum(max(end - start, 0) for start, end in pairs)
