"""The keys of a PEFT file: which module, which part of its update, under which adapter's name.

`base_model.model.<module>.<part>[.<adapter>][.weight|.bias]`. PEFT takes the adapter's name out
when it saves; files that were written by other means keep it, and wrappers (torch.compile, FSDP,
DDP) leave their names in the path. All spellings of one tensor meet in one `Key`.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from gradience.tensors.stored import StoredTensor

LORA_PARTS = frozenset(
    {"lora_A", "lora_B", "lora_E", "lora_diag", "lora_magnitude_vector"}
    | {"lora_embedding_A", "lora_embedding_B"}
)
LOHA_PARTS = frozenset(f"hada_{x}" for x in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"))
LOKR_PARTS = frozenset(f"lokr_{x}" for x in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"))
PARTS = LORA_PARTS | LOHA_PARTS | LOKR_PARTS
"""Names by which PEFT stores the parts of an update."""

_PREFIX = "base_model.model."
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# Prefixes of other formats that spell the parts of an update like PEFT.
_FOREIGN = re.compile(
    r"(?:unet|text_encoder(?:_\d)?|text_model)\b|(?:lora|lycoris|oft)_\w+\."
    r"|(?:transformer(?:_\d)?\.)?(?:single_|joint_)?transformer_blocks\.|diffusion_model\."
    r"|(?:down_blocks|mid_block|up_blocks)\."
    # The attention of diffusers models, which may stand under any root: `blocks.0.attn1.to_q`.
    r"|.*\.to_(?:[qkv]|out\.0)\."
)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One part of one update.

    Attributes
    ----------
    path : str
        The module as PEFT wraps it: `base_layer` components included.
    part : str
        `lora_A`, ...; `lora_B.bias` for the bias of a factor.
    adapter : str
        Name of the adapter where the key kept it; empty otherwise.
    """

    path: str
    part: str
    adapter: str


def plain_name(name: str) -> str:
    """A tensor's name without wrappers and without PEFT's prefix.

    Examples
    --------
    >>> plain_name("module._orig_mod.base_model.model.score.weight")
    'score.weight'
    """
    name = _WRAPPERS.sub("", name).removeprefix("module.")
    while name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
    return name


def parse_key(name: str) -> Key | None:
    """Read a tensor's name; None when it is no part of an update.

    Examples
    --------
    >>> parse_key("base_model.model.h.0.attn.lora_A.default.weight")
    Key(path='h.0.attn', part='lora_A', adapter='default')
    >>> parse_key("base_model.model.classifier.weight") is None
    True
    """
    components = plain_name(name).split(".")
    at = next((i for i in range(len(components) - 1, -1, -1) if components[i] in PARTS), None)
    if at is None:
        return None
    rest = components[at + 1 :]
    tail = rest.pop() if rest and rest[-1] in ("weight", "bias") else "weight"
    if len(rest) > 1:
        return None
    part = components[at] + (".bias" if tail == "bias" else "")
    return Key(path=".".join(components[:at]), part=part, adapter=rest[0] if rest else "")


def recognises(names: Iterable[str]) -> bool:
    """Whether a file with these keys is PEFT's, by the keys alone."""
    names = list(names)
    parts = [name for name in names if parse_key(name) is not None]
    if any(_PREFIX in name for name in parts):
        return True
    foreign = any(name.endswith(".alpha") or _FOREIGN.match(name) for name in names)
    return bool(parts) and not foreign


def base_name(path: str) -> str:
    """The module's name in the base model: PEFT's `base_layer` components taken out."""
    return ".".join(component for component in path.split(".") if component != "base_layer")


class Twins(msgspec.Struct, frozen=True, kw_only=True):
    """Two tensors under one key: the one that is taken, the ones that are not."""

    taken: StoredTensor
    others: tuple[StoredTensor, ...]


class Grouped(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors of a file by module and part.

    Attributes
    ----------
    updates : mapping
        By wrapped path, then by part.
    twins : tuple of Twins
    beside : tuple of StoredTensor
        Tensors that are no part of an update.
    """

    updates: Mapping[str, Mapping[str, StoredTensor]]
    twins: tuple[Twins, ...]
    beside: tuple[StoredTensor, ...]


def group(tensors: Mapping[str, StoredTensor]) -> Grouped:
    """Sort the tensors of a file into updates by module.

    Of two spellings of one tensor the one that PEFT writes is taken: without an adapter's name,
    then `default`, then the first by name.
    """
    found: dict[tuple[str, str], list[tuple[str, StoredTensor]]] = {}
    beside = []
    for name, tensor in tensors.items():
        key = parse_key(name)
        if key is None:
            beside.append(tensor)
        else:
            found.setdefault((key.path, key.part), []).append((key.adapter, tensor))
    updates: dict[str, dict[str, StoredTensor]] = {}
    twins = []
    for (path, part), named in found.items():
        named.sort(key=lambda entry: (entry[0] != "", entry[0] != "default", entry[0]))
        taken, *others = (tensor for _, tensor in named)
        updates.setdefault(path, {})[part] = taken
        if others:
            twins.append(Twins(taken=taken, others=tuple(others)))
    return Grouped(updates=updates, twins=tuple(twins), beside=tuple(beside))
