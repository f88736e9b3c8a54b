"""Packed tensors seen as the weights they stand for.

What a format defines takes the place of the tensors it is made of, under the name and shape that
the running model has: matching sees no difference. What is packed and cannot be read keeps its
reason.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradience.audit.base.packed import FORMATS
from gradience.audit.base.packed.format import Checkpoint, PackedWeight, Refusal
from gradience.audit.base.weights import TensorFacts
from gradience.tensors.gguf_file import ARCHITECTURE, BLOCKS, live_names
from gradience.tensors.stored import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A checkpoint as weights.

    Attributes
    ----------
    facts : mapping of str to TensorFacts
        Every tensor that is not part of a packed weight, and every packed weight.
    packed : mapping of str to PackedWeight
        Those of `facts` that are packed.
    refused : mapping of str to str
        Parameters that are packed and cannot be read, and why.
    """

    facts: Mapping[str, TensorFacts]
    packed: Mapping[str, PackedWeight] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def unpack(
    tensors: Mapping[str, TensorFacts], config: Mapping[str, Any], read: Callable[[str], Array]
) -> Unpacked:
    """Find the packed weights of a checkpoint.

    Parameters
    ----------
    tensors : mapping of str to TensorFacts
        Every stored tensor.
    config : mapping
        `quantization_config` of the model; empty when there is none.
    read : callable
        Reads one small tensor that says how others are packed, of those that `notes` lists.

    Examples
    --------
    >>> stored = {n: TensorFacts(shape=s, dtype=d) for n, s, d in (
    ...     ("up.weight", (8, 4), "F8_E4M3"), ("up.weight_scale", (8, 1), "F32"))}
    >>> unpack(stored, {}, lambda name: None).facts
    {'up.weight': TensorFacts(shape=(8, 4), dtype='F8_E4M3 scaled by F32 (8, 1)', packed='fp8')}
    """
    checkpoint = Checkpoint(tensors=tensors, config=config, read=read)
    packed: dict[str, PackedWeight] = {}
    refused: dict[str, str] = {}
    for format in FORMATS.values():
        for found in format.find(checkpoint):
            if isinstance(found, Refusal):
                refused[found.name] = found.why
            elif found.name not in packed:
                packed[found.name] = found
    parts = {name for weight in packed.values() for name in weight.members.values()}
    facts = {name: facts for name, facts in tensors.items() if name not in parts}
    facts |= {name: weight.facts for name, weight in packed.items()}
    refused = {name: why for name, why in refused.items() if name not in packed}
    return Unpacked(facts=facts, packed=packed, refused=refused)


def notes(names: Iterable[str]) -> list[str]:
    """The small tensors whose content says how others are packed.

    Examples
    --------
    >>> notes(["up.weight", "up.weight.absmax", "up.weight.quant_state.bitsandbytes__nf4"])
    ['up.weight.quant_state.bitsandbytes__nf4']
    """
    marks = [mark for format in FORMATS.values() for mark in format.notes]
    return [name for name in names if any(mark in name for mark in marks)]


def stands_for(name: str) -> str:
    """The parameter that the codes of a packed weight stand for, by the name of their tensor.

    Examples
    --------
    >>> stands_for("q_proj.qweight"), stands_for("experts.down_proj_blocks"), stands_for("lm_head")
    ('q_proj.weight', 'experts.down_proj', 'lm_head')
    """
    for codes, parameter in (
        (".qweight", ".weight"),
        (".weight_packed", ".weight"),
        ("_blocks", ""),
    ):
        if name.endswith(codes):
            return name.removesuffix(codes) + parameter
    return name


def aliases(names: Mapping[str, TensorFacts], metadata: Mapping[str, str]) -> dict[str, str]:
    """Names in the running model of the tensors of a GGUF file; empty for any other.

    Parameters
    ----------
    names : mapping
        Tensors by their names in the file.
    metadata : mapping of str to str
        Of the file, as `open_gguf` gives it.
    """
    architecture = metadata.get(ARCHITECTURE, "")
    if not architecture:
        return {}
    return dict(_aliases(names, live_names(architecture, int(metadata[BLOCKS]))))


def _aliases(
    names: Mapping[str, TensorFacts], live: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for module, stored in live.items():
        for parameter in ("weight", "bias"):
            if f"{stored}.{parameter}" in names:
                yield f"{module}.{parameter}", f"{stored}.{parameter}"
