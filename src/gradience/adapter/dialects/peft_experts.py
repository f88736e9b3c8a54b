"""Which parameter a PEFT update belongs to, where PEFT does not adapt `weight`.

`target_parameters` wraps a module once per parameter: the wrapper that is met first is the
innermost, so the keys tell the parameters of one module apart by how many `base_layer` they hold,
and by nothing else. PEFT meets them in the order in which the module registered them. An
nn.MultiheadAttention is wrapped as a whole: its own update is that of `in_proj_weight`.
"""

from collections.abc import Collection

from gradience.adapter.config import AdapterConfig
from gradience.adapter.dialects.peft_keys import base_name
from gradience.adapter.names import natural_key

# The order in which every MoE of transformers registers its stacked weights.
_REGISTERED = ("gate_up_proj", "w1", "v1", "gate_proj", "up_proj", "down_proj", "w2")


def parameters_by_path(paths: Collection[str], config: AdapterConfig | None) -> dict[str, str]:
    """The wrapped paths whose update is of a parameter other than a layer's `weight`.

    Parameters
    ----------
    paths : collection of str
        Every wrapped path of the file that has an update.
    config : AdapterConfig or None

    Returns
    -------
    dict
        Path to parameter name; an empty name where the file cannot tell which one it is. A path
        that is absent is an ordinary layer.
    """
    found = {path: "in_proj_weight" for path in paths if f"{path}.base_layer.out_proj" in paths}
    if config is None or not config.target_parameters:
        return found
    wrapped: dict[str, list[str]] = {}
    for path in paths:
        wrapped.setdefault(base_name(path), []).append(path)
    for module, nested in wrapped.items():
        names = _targeted(module, len(nested), config)
        # The path with the most `base_layer` is the innermost wrapper.
        nested.sort(key=len, reverse=True)
        found.update(zip(nested, names, strict=False))
    return found


def _targeted(module: str, wrappers: int, config: AdapterConfig) -> list[str]:
    """Parameters of a module that the config targets, innermost wrapper first."""
    dotted, bare = set(), set()
    for target in config.target_parameters:
        holder, _, parameter = target.rpartition(".")
        if not holder:
            bare.add(parameter)
        elif f".{module}".endswith(f".{holder}"):
            dotted.add(parameter)
    names = dotted
    if bare and (dotted or wrappers > 1 or _looks_stacked(module, config)):
        names = dotted | bare
    if len(names) == wrappers and (wrappers == 1 or names <= set(_REGISTERED)):
        return sorted(names, key=lambda n: (_order(n), natural_key(n)))
    return [""] * wrappers if names else []


def _looks_stacked(module: str, config: AdapterConfig) -> bool:
    """Whether a bare target such as `down_proj` may name a parameter of this module itself.

    PEFT writes bare names when it converts an adapter of a model whose experts were modules.
    """
    last = module.rpartition(".")[2]
    targeted = config.target_modules
    return last.endswith("experts") and (isinstance(targeted, str) or last not in targeted)


def _order(name: str) -> int:
    return _REGISTERED.index(name) if name in _REGISTERED else len(_REGISTERED)
