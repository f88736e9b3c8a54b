"""Names short enough for an axis. Pure.

A module path says three things: the block, the kind of module, and what all modules share. A chart
has an axis for the first two, and no room for the third.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from gradience.audit.records import LayerAudit

_INDEX = re.compile(r"(?:(?<=[._])|^)\d+(?=[._]|$)|\[\d+\]")
_REPEATED = re.compile(r"([._])[._]+")


def kinds(layers: Iterable[LayerAudit]) -> dict[str, str]:
    """Kind of every layer by its name: `q_proj`, or `attn1.to_q` where `to_q` says too little.

    The shortest end of the path behind the block that no other kind of module shares; indices
    (experts, repeated sublayers) are left out, so that those fall together.
    """
    paths = {layer.name: _path(layer) for layer in layers}
    short = _shortest_ends(set(paths.values()))
    return {name: short[path] for name, path in paths.items()}


def blocks(names: Sequence[str]) -> dict[str, str]:
    """Label of every block by its name: its number where the rest is the same for all.

    Examples
    --------
    >>> blocks(["model.layers.0", "model.layers.1"])
    {'model.layers.0': '0', 'model.layers.1': '1'}
    >>> blocks(["unet.down.0", "unet.mid"])
    {'unet.down.0': 'down.0', 'unet.mid': 'mid'}
    """
    shared = _shared_start([name.split(".") for name in names])
    return {name: ".".join(name.split(".")[shared:]) for name in names}


def block_family(names: Sequence[str]) -> str:
    """What `blocks` leaves out, for the title of the axis; "" if nothing."""
    shared = _shared_start([name.split(".") for name in names])
    return ".".join(names[0].split(".")[:shared]) if names else ""


def sources(names: Sequence[str]) -> list[str]:
    """Adapters by what tells them apart; two with one name are numbered.

    Examples
    --------
    >>> sources(["runs/a", "runs/b"]), sources(["runs/a"]), sources(["a", "a"])
    (['a', 'b'], ['runs/a'], ['a (1)', 'a (2)'])
    """
    parts = [name.rstrip("/").split("/") for name in names]
    shared = _shared_start(parts) if len(names) > 1 else 0
    short = ["/".join(part[shared:]) for part in parts]
    return [
        f"{name} ({short[: i + 1].count(name)})" if short.count(name) > 1 else name
        for i, name in enumerate(short)
    ]


def _path(layer: LayerAudit) -> str:
    inside = layer.name.removeprefix(layer.block or "").strip("._") or layer.name
    return _REPEATED.sub(r"\1", _INDEX.sub("", inside)).strip("._") or inside


def _shortest_ends(paths: set[str]) -> Mapping[str, str]:
    ends: dict[str, set[str]] = {}
    for path in paths:
        for end in _ends(path):
            ends.setdefault(end, set()).add(path)
    return {path: next((e for e in _ends(path) if len(ends[e]) == 1), path) for path in paths}


def _ends(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]


def _shared_start(parts: Sequence[Sequence[str]]) -> int:
    if not parts:
        return 0
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return shared
