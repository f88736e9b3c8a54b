"""Names that differ between a checkpoint and the model that runs.

A checkpoint keeps the names of the release it was published with; transformers renames and fuses
while loading. An adapter is saved with the running model's names. The tables below hold what a
prefix cannot explain; they follow `transformers/conversion_mapping.py` (5.23) and grow by a line.

A live name keeps the names it may come from; nothing is renamed in place, so a model that was
saved under its live names is found as well.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gradience.audit.base.weights import Part, TensorFacts

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_QUERY_KEY_VALUE = (
    (r"\.attention\.(?:attention|self)\.query\.", ".attention.q_proj."),
    (r"\.attention\.(?:attention|self)\.key\.", ".attention.k_proj."),
    (r"\.attention\.(?:attention|self)\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)

RENAMES: Mapping[str, Rules] = {
    # Checkpoint name to live name; the rules of a row are applied in order.
    "vit": _rules(
        (r"(^|\.)encoder\.layer\.(\d+)\.", r"\1layers.\2."),
        *_QUERY_KEY_VALUE,
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"(\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    ),
    "dinov2, swin": _rules(*_QUERY_KEY_VALUE, (r"\.mlp\.weights_out\.", ".mlp.down_proj.")),
    "mixtral, minimax": _rules((r"\.block_sparse_moe\.", ".mlp.")),
    "phimoe": _rules(
        (r"\.block_sparse_moe\.gate\.", ".mlp.router."), (r"\.block_sparse_moe\.", ".mlp.")
    ),
    "granitemoe": _rules(
        (r"\.block_sparse_moe\.input_linear\.weight$", ".block_sparse_moe.experts.gate_up_proj"),
        (r"\.block_sparse_moe\.output_linear\.weight$", ".block_sparse_moe.experts.down_proj"),
        (r"\.block_sparse_moe\.router\.layer\.", ".block_sparse_moe.router."),
    ),
    "aria": _rules(
        (r"\.mlp\.experts\.fc1\.weight$", ".mlp.experts.gate_up_proj"),
        (r"\.mlp\.experts\.fc2\.weight$", ".mlp.experts.down_proj"),
    ),
    "gpt_neox": _rules((r"^embed_out\.", "lm_head.")),
}

_EXPERT = re.compile(r"^(.*\.experts)\.(\d+)\.(\w+)\.weight$")
# What GGUF keeps of all experts of a block under one name.
_ALL_EXPERTS = re.compile(r"^(.*\.experts)\.([a-z]\w*)\.weight$")
# Row blocks of the fused live parameter, top to bottom: Concatenate(dim=1) over (gate, up).
_FUSED_EXPERT = {
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
    "w1": ("gate_up_proj", 0),
    "w3": ("gate_up_proj", 1),
    "down_proj": ("down_proj", 0),
    "w2": ("down_proj", 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the numbers of one live parameter are in the checkpoint.

    Attributes
    ----------
    tensor : str
        The one tensor that holds it; empty where each expert has parts of its own.
    index : int or None
        The entry of that tensor along its first dimension, where it is one of a stack.
    experts : mapping of int to tuple of Part
        Parts of each expert, top to bottom.
    """

    tensor: str = ""
    index: int | None = None
    experts: Mapping[int, tuple[Part, ...]] = field(default_factory=dict)


def live_parameters(
    base: Mapping[str, TensorFacts], aliases: Mapping[str, str] | None = None
) -> dict[str, tuple[Source, ...]]:
    """Every name that a parameter may have in the running model, with its possible sources.

    Parameters
    ----------
    base : mapping of str to TensorFacts
        The tensors of the checkpoint.
    aliases : mapping of str to str, optional
        Further live names, and the tensor each may come from.

    Returns
    -------
    dict of str to tuple of Source
        More than one source means that the tables disagree; a tensor stored under the very name
        always comes alone.
    """
    stored = set(base)
    live: dict[str, list[Source]] = {name: [Source(tensor=name)] for name in stored}
    for alias, name in (*_aliases(stored), *(aliases or {}).items()):
        if alias not in stored and Source(tensor=name) not in live.setdefault(alias, []):
            live[alias].append(Source(tensor=name))
    for alias, source in [*_unstacked(live, base)]:
        if alias not in stored:
            live.setdefault(alias, []).append(source)
    for alias, source in _stacks(live):
        if alias not in stored:
            live.setdefault(alias, []).append(source)
    return {name: tuple(sources) for name, sources in live.items()}


def _aliases(stored: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(stored):
        for rules in RENAMES.values():
            alias = name
            for pattern, replacement in rules:
                alias = pattern.sub(replacement, alias)
            if alias != name:
                yield alias, name


def _unstacked(
    live: Mapping[str, list[Source]], base: Mapping[str, TensorFacts]
) -> Iterator[tuple[str, Source]]:
    """A tensor that holds one projection of all experts, seen as the module of each expert.

    Where gate and up are in it together it is the running model's own parameter, under a name
    with `weight` behind it.
    """
    for name, (source, *others) in live.items():
        found = _ALL_EXPERTS.match(name)
        if found is None or others or len(base[source.tensor].shape) != 3:
            continue
        if found[2] in _FUSED_EXPERT:
            for expert in range(base[source.tensor].shape[0]):
                one = Source(tensor=source.tensor, index=expert)
                yield f"{found[1]}.{expert}.{found[2]}.weight", one
        else:
            yield name.removesuffix(".weight"), source


def _stacks(live: Mapping[str, list[Source]]) -> list[tuple[str, Source]]:
    """Per-expert linear weights seen as the stacked parameter that the running model has."""
    stacks: defaultdict[str, defaultdict[int, dict[int, Part]]]
    stacks = defaultdict(lambda: defaultdict(dict))
    for name, sources in live.items():
        found = _EXPERT.match(name)
        if found and found[3] in _FUSED_EXPERT and len(sources) == 1:
            parameter, position = _FUSED_EXPERT[found[3]]
            part = Part(tensor=sources[0].tensor, index=sources[0].index)
            stacks[f"{found[1]}.{parameter}"][int(found[2])][position] = part
    return [
        (
            alias,
            Source(experts={e: tuple(p[i] for i in sorted(p)) for e, p in experts.items()}),
        )
        for alias, experts in stacks.items()
    ]
