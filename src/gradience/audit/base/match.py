"""Which tensor of the base model does a layer of the adapter change?

Names decide together with shapes: a name that ends alike and a shape that agrees, under one
rewriting of prefixes for all layers (`prefixes`), with the fusions and renames of transformers
taken back (`renames`). What stays open is left open, with its reason: never a guess.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gradience.adapter.records import LoraLayer
from gradience.audit.base import flat
from gradience.audit.base.fitting import Fitting, is_conv1d
from gradience.audit.base.layout import COMPONENTS
from gradience.audit.base.prefixes import WRAPPERS, choose, is_plausible, rewriting
from gradience.audit.base.quantised import packing
from gradience.audit.base.renames import Source, live_parameters
from gradience.audit.base.replication import original, origins
from gradience.audit.base.weights import (
    BaseWeight,
    Matches,
    TensorFacts,
    Unmatched,
)

# Models of one width share much: Mistral's attention is found in Mixtral, its MLP is not.
_SHARE = 0.75

_HEADS = frozenset(
    {
        "lm_head",
        "embed_out",
        "proj_out",
        "output",
        "decoder",
        "vocab_projector",
        "generator_lm_head",
    }
)
_EMBEDDINGS = frozenset(
    {
        "embed_tokens",
        "wte",
        "word_embeddings",
        "shared",
        "embed_in",
        "tok_embeddings",
        "token_embd",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """A parameter of the running model that the checkpoint can fill."""

    module: str
    parameter: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class _Index:
    """The checkpoint, arranged for looking up by the end of a name."""

    base: Mapping[str, TensorFacts]
    refused: Mapping[str, str]
    sites: dict[tuple[tuple[str, ...], str], list[_Site]] = field(default_factory=dict)
    siblings: dict[str, set[str]] = field(default_factory=dict)
    modules: dict[tuple[tuple[str, ...], str], set[str]] = field(default_factory=dict)

    def near(self, module: str) -> list[_Site]:
        """Sites whose module ends in the same word, in the same numbered places."""
        return self.sites.get(_place(module), [])


def match(
    layers: Sequence[LoraLayer],
    base: Mapping[str, TensorFacts],
    *,
    tied: bool | None = None,
    layer_replication: object = None,
    refused: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Matches:
    """Find the base weight of every layer.

    Parameters
    ----------
    layers : sequence of LoraLayer
        Of one adapter: they are matched together.
    base : mapping of str to TensorFacts
        Every tensor of the base model, packed ones as what they stand for.
    tied : bool or None
        `tie_word_embeddings` of the base; None when not known. A head that is not stored is the
        input embedding if True, or if the base was saved with a head and still holds none.
    layer_replication : list of [start, end], optional
        As adapter_config.json says it; see `replication`.
    refused : mapping of str to str, optional
        Parameters of the base that are packed and cannot be read, and why.
    aliases : mapping of str to str, optional
        Names in the running model of tensors that have others in the base.

    Returns
    -------
    Matches
        Each layer's label is in `found` or in `unmatched`. When fewer than three quarters of the
        layers find a weight of their name and shape, `verdict` says that this is not the base.

    Raises
    ------
    AdapterConfigError
        If `layer_replication` is not a list of pairs.
    """
    index = _index(base, refused or {}, aliases or {})
    fitting = Fitting(base, is_conv1d(base))
    repeated = origins(layer_replication)
    wanted = {layer.label: _wanted(layer, repeated) for layer in layers}
    choice = choose(_options(layers, wanted, index, fitting))
    by_flat_name = flat.match_flat([layer for layer in layers if flat.is_flat(layer.name)], fitting)
    found: dict[str, BaseWeight] = {}
    unmatched: dict[str, Unmatched] = {}
    for layer in layers:
        name = wanted[layer.label]
        weight = choice.chosen.get(name) or by_flat_name.get(layer.label)
        if weight is None and name not in choice.ambiguous:
            weight = _tied_weight(layer, fitting, tied)
        if weight is not None:
            found[layer.label] = weight
        else:
            unmatched[layer.label] = _why_not(layer, name, choice.ambiguous.get(name, ()), index)
    return _judged(layers, found, unmatched, base)


def _index(
    base: Mapping[str, TensorFacts], refused: Mapping[str, str], aliases: Mapping[str, str]
) -> _Index:
    index = _Index(base, refused)
    for name, sources in live_parameters(base, aliases).items():
        module, _, parameter = name.rpartition(".")
        site = _Site(module=module, parameter=parameter, sources=sources)
        index.sites.setdefault(_place(module), []).append(site)
    for name in base:
        module = name
        # `weight` and `weight.quant_state.bitsandbytes__nf4` are both of one module.
        for _ in range(3):
            module = module.rpartition(".")[0]
            if module:
                index.siblings.setdefault(module, set()).add(name[len(module) + 1 :])
                index.modules.setdefault(_place(module), set()).add(module)
    return index


def _place(module: str) -> tuple[tuple[str, ...], str]:
    """The numbers in a module's path, and its last word: they agree where two names can."""
    words = module.split(".")
    return tuple(word for word in words if word.isdigit()), words[-1]


def ending(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The numbers in a parameter's name and its last two words: alike where two names can be.

    Examples
    --------
    >>> ending("model.layers.3.self_attn.q_proj.weight")
    (('3',), ('q_proj', 'weight'))
    """
    words = name.split(".")
    return tuple(word for word in words if word.isdigit()), tuple(words[-2:])


def _wanted(layer: LoraLayer, repeated: Sequence[int] | None) -> str:
    """Name of the parameter in the model before its layers were repeated, expert included."""
    expert = "" if layer.expert is None else f"[{layer.expert}]"
    return f"{original(layer.name, repeated)}.{layer.parameter}{expert}"


def _module(wanted: str) -> str:
    return wanted.rpartition(".")[0]


def _options(
    layers: Iterable[LoraLayer], wanted: Mapping[str, str], index: _Index, fitting: Fitting
) -> dict[tuple[str, str], dict[str, BaseWeight]]:
    """For each rewriting of prefixes, the weights it gives: right shape, plain numbers."""
    options: defaultdict[tuple[str, str], dict[str, BaseWeight]] = defaultdict(dict)
    for layer in layers:
        name = wanted[layer.label]
        seen: defaultdict[tuple[str, str], set[BaseWeight]] = defaultdict(set)
        for site in _named_alike(layer, name, index):
            if _packed(site, index):
                continue
            weights = {w for s in site.sources if (w := fitting.weight(layer, s)) is not None}
            seen[rewriting(_module(name), site.module)] |= weights
        for pair, given in seen.items():
            # Two weights under one name (two unnamed parameters of a module) decide nothing.
            if len(given) == 1:
                options[pair][name] = given.pop()
    return options


def _named_alike(layer: LoraLayer, wanted: str, index: _Index) -> Iterator[_Site]:
    module = _module(wanted)
    for site in index.near(module):
        named = site.parameter == layer.parameter or not layer.parameter
        if named and is_plausible(rewriting(module, site.module)):
            yield site


def _packed(site: _Site, index: _Index) -> str:
    facts = index.base.get(f"{site.module}.{site.parameter}")
    return packing(site.parameter, index.siblings.get(site.module, ()), facts)


def _tied_weight(layer: LoraLayer, fitting: Fitting, tied: bool | None) -> BaseWeight | None:
    """The input embedding, for a head or a second embedding that the checkpoint does not store."""
    last = layer.name.rpartition(".")[2]
    if last not in _HEADS | _EMBEDDINGS:
        return None
    weights = {
        weight
        for name in fitting.base
        if name.endswith(".weight") and name.split(".")[-2] in _EMBEDDINGS
        if last not in _HEADS or _shares_with_head(name, tied)
        if (weight := fitting.weight(layer, Source(tensor=name))) is not None
    }
    return weights.pop() if len(weights) == 1 else None


def _shares_with_head(embedding: str, tied: bool | None) -> bool:
    """Whether a head that is not stored must be this embedding.

    A model saved without its head lacks the head for that reason alone. Where the config does not
    say, a wrapper's name in front tells that the model was saved with its head.
    """
    return embedding.split(".", 1)[0] in WRAPPERS if tied is None else tied


def _why_not(
    layer: LoraLayer, wanted: str, candidates: Sequence[BaseWeight], index: _Index
) -> Unmatched:
    if candidates:
        names = " or ".join(sorted({weight.key for weight in candidates}))
        return Unmatched(
            reason="ambiguous", message=f"{layer.label} may be {names}: nothing decides which"
        )
    if flat.is_flat(layer.name):
        return flat.why_not(layer, index.base)
    module = _module(wanted)
    for stored, siblings in _modules_alike(module, index):
        facts = index.base.get(f"{stored}.{layer.parameter}")
        how = index.refused.get(f"{stored}.{layer.parameter}") or packing(
            layer.parameter, siblings, facts
        )
        if how:
            return Unmatched(
                reason="quantised",
                message=f"the base weight of {layer.label} is packed ({how}) at {stored}: "
                "its numbers are not those of the weight",
            )
    return _other_shape(layer, wanted, index)


def _modules_alike(module: str, index: _Index) -> Iterator[tuple[str, set[str]]]:
    for stored in sorted(index.modules.get(_place(module), ())):
        if is_plausible(rewriting(module, stored)):
            yield stored, index.siblings[stored]


def _other_shape(layer: LoraLayer, wanted: str, index: _Index) -> Unmatched:
    """Say which shape the tensor of that name has, or that there is none of that name."""
    sites = sorted(
        _named_alike(layer, wanted, index), key=lambda s: len(rewriting(wanted, s.module)[0])
    )
    stored = next((s.tensor for site in sites for s in site.sources if s.tensor), "")
    if stored:
        return Unmatched(
            reason="wrong_shape",
            message=f"{layer.label} changes a weight of shape {layer.shape}, and {stored} of the "
            f"base has shape {index.base[stored].shape}",
        )
    return Unmatched(
        reason="no_tensor", message=f"the base has no tensor whose name ends like {layer.label}"
    )


def _component(layer: LoraLayer) -> str:
    """The part of a pipeline that a layer is in: a base may well be one part alone."""
    first = layer.name.partition(".")[0]
    return flat.component_of(layer.name) or (first if first in COMPONENTS else "")


def _judged(
    layers: Sequence[LoraLayer],
    found: Mapping[str, BaseWeight],
    unmatched: Mapping[str, Unmatched],
    base: Mapping[str, TensorFacts],
) -> Matches:
    """Withdraw everything when too little of the adapter fits to be its base."""
    known = {k for k, why in unmatched.items() if why.reason in ("quantised", "ambiguous")}
    shares: defaultdict[str, list[bool]] = defaultdict(list)
    for layer in layers:
        # A head or an embedding may be resized, or not saved, without the base being another.
        if any(word.isdigit() for word in re.split(r"[._]", layer.name)):
            shares[_component(layer)].append(layer.label in found or layer.label in known)
    if not shares:
        shares[""] = [layer.label in found or layer.label in known for layer in layers]
    if not layers or any(sum(fits) >= _SHARE * len(fits) for fits in shares.values()):
        return Matches(found=found, unmatched=unmatched)
    verdict = _verdict(layers, found, unmatched, base)
    withdrawn = Unmatched(reason="not_this_base", message=verdict)
    return Matches(
        unmatched={layer.label: unmatched.get(layer.label, withdrawn) for layer in layers},
        verdict=verdict,
    )


def _verdict(
    layers: Sequence[LoraLayer],
    found: Mapping[str, BaseWeight],
    unmatched: Mapping[str, Unmatched],
    base: Mapping[str, TensorFacts],
) -> str:
    odd = [u for u in unmatched.values() if u.reason == "wrong_shape"]
    head = f"this is not the base of this adapter: {len(found)} of {len(layers)} modules fit"
    if odd:
        return f"{head}; {odd[0].message}"
    ours = next(layer for layer in layers if layer.label in unmatched)
    theirs = next((n for n, f in sorted(base.items()) if len(f.shape) > 1), "no matrix at all")
    shape = base[theirs].shape if theirs in base else ""
    return (
        f"{head}; the adapter names {ours.label} {ours.shape}, the base has names like "
        f"{theirs} {shape}".rstrip()
    )
