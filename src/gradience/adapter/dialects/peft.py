"""PEFT's own files: `adapter_model.safetensors` or `.bin` beside `adapter_config.json`.

The keys say which module and which part of its update a tensor is (`peft_keys`), the config says
by how much the update is multiplied (`peft_layers`), and what is neither is a head, an embedding
or unknown (`peft_extras`). Every tensor of the file ends in exactly one of the three.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from gradience.adapter.config import AdapterConfig, misspelt
from gradience.adapter.dialects import peft_keys
from gradience.adapter.dialects.dialect import Dialect
from gradience.adapter.dialects.peft_experts import parameters_by_path
from gradience.adapter.dialects.peft_extras import sort_extras
from gradience.adapter.dialects.peft_keys import Twins
from gradience.adapter.dialects.peft_layers import Update, layers_of
from gradience.adapter.finding_kinds import (
    ALPHA_AMBIGUOUS,
    ALPHA_MISSING,
    BASE_REVISION_MISSING,
    CONFIG_KEY_MISSPELT,
    DELTA_DEPENDS_ON_INPUT,
    INIT_CHANGES_BASE,
    LAYERS_REPLICATED,
    RANK_MISMATCH,
    SCALE_ASSUMED,
    UNREAD_TENSORS,
    WEIGHTS_SAVED_TWICE,
)
from gradience.adapter.names import natural_key
from gradience.adapter.parts import Parts
from gradience.adapter.patterns import matching_values
from gradience.adapter.records import LoraLayer
from gradience.errors import UnsupportedAdapterError
from gradience.findings import Finding
from gradience.hub_ids import is_repo_id
from gradience.tensors.stored import StoredTensor
from gradience.units import plural

_SHOWN = 3
# Initialisations that subtract their factors from the base weight (peft.tuners.lora.layer).
_MOVES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


def recognises(names: Collection[str]) -> bool:
    """Whether a file with these tensor names is PEFT's."""
    return peft_keys.recognises(names)


def read(
    tensors: Mapping[str, StoredTensor],
    config: AdapterConfig | None,
    metadata: Mapping[str, str],
) -> Parts:
    """Make layers of the tensors of a PEFT file.

    Parameters
    ----------
    tensors : mapping of str to StoredTensor
        By their keys in the file.
    config : AdapterConfig or None
        Without one the scale is taken as 1, and a finding says so.
    metadata : mapping
        Of the file; PEFT keeps nothing there that matters.

    Raises
    ------
    AdapterError
        If factors are missing, cannot be factors, or contradict each other.
    UnsupportedAdapterError
        If a LoRA variant routes by its input and so has no one change of the weight.
    """
    if config is not None and config.raw.get("arrow_config"):
        raise UnsupportedAdapterError(
            f"{config.source}: an Arrow router (`arrow_config`) mixes other adapters by the input, "
            "so there is no one change of the weight",
            remedy="Audit the adapters it routes between.",
        )
    grouped = peft_keys.group(tensors)
    parameters = parameters_by_path(grouped.updates.keys(), config)
    updates = [
        Update(path=path, parts=parts, parameter=parameters.get(path), config=config)
        for path, parts in grouped.updates.items()
    ]
    layers = [layer for update in updates for layer in layers_of(update)]
    layers.sort(key=lambda x: (natural_key(x.name), x.parameter, x.expert or 0))
    extras, unknown = sort_extras(grouped.beside, config)
    findings = [
        *_config_findings(config),
        *_alpha_findings(updates, config),
        *_rank_findings(layers),
        *_twin_findings(grouped.twins),
        *_unread_findings(unknown),
    ]
    doubles = [other for twins in grouped.twins for other in twins.others]
    return Parts(
        layers=tuple(layers),
        extras=extras,
        unread=(*unknown, *doubles),
        findings=tuple(findings),
    )


def _config_findings(config: AdapterConfig | None) -> list[Finding]:
    if config is None:
        return [SCALE_ASSUMED.found("There is no adapter_config.json: scale 1 was assumed.")]
    found = [
        CONFIG_KEY_MISSPELT.found(f"{config.source}: `{key}` has no effect; is `{meant}` meant?")
        for key, meant in misspelt(config.raw).items()
    ]
    if config.alpha is None:
        found.append(ALPHA_MISSING.found(f"{config.source} names no alpha: PEFT's 8 was taken."))
    init = str(config.init).lower()
    if init.startswith(_MOVES_BASE):
        message = f"init_lora_weights is {config.init!r}: it moved part of the base weight."
        found.append(INIT_CHANGES_BASE.found(message))
    if config.raw.get("kasa_config"):
        message = "KaSA removes the smallest singular values of the base weight before training."
        remedy = "PEFT does not convert KaSA; compare with the truncated base."
        found.append(INIT_CHANGES_BASE.found(message, remedy=remedy))
    if config.raw.get("alora_invocation_tokens"):
        message = "aLoRA acts on the tokens after its invocation sequence only."
        found.append(DELTA_DEPENDS_ON_INPUT.found(message))
    if config.raw.get("layer_replication"):
        message = f"layer_replication is {config.raw['layer_replication']}."
        found.append(LAYERS_REPLICATED.found(message))
    # A path of a training machine has no revision to record.
    if config.base_model and is_repo_id(config.base_model) and not config.base_revision:
        message = f"{config.base_model} is named without a revision."
        found.append(BASE_REVISION_MISSING.found(message))
    return found


def _alpha_findings(updates: Sequence[Update], config: AdapterConfig | None) -> list[Finding]:
    """Modules whose alpha depends on the order of the keys, which PEFT does not keep."""
    pattern = {} if config is None else config.alpha_pattern
    disputed: dict[str, list[float]] = {}
    for update in updates if len(pattern) > 1 else ():
        alphas = list(dict.fromkeys(matching_values(pattern, update.pattern_name)))
        if len(alphas) > 1:
            disputed[update.name] = alphas
    if not disputed:
        return []
    name, alphas = next(iter(disputed.items()))
    message = (
        f"alpha_pattern names {' and '.join(f'{alpha:g}' for alpha in alphas)} for {name}; "
        f"{alphas[0]:g} was taken. {len(disputed)} modules have more than one."
    )
    return [ALPHA_AMBIGUOUS.found(message, modules=disputed)]


def _rank_findings(layers: Sequence[LoraLayer]) -> list[Finding]:
    other = [x for x in layers if x.configured_rank not in (None, x.rank)]
    if not other:
        return []
    shown = ", ".join(f"{x.label} {x.rank} (config {x.configured_rank})" for x in other[:_SHOWN])
    message = f"{len(other)} of {len(layers)} layers have another rank than configured: {shown}."
    first = other[0]
    if first.method in ("lora", "dora") and first.alpha is not None:
        message += (
            f" The scale takes that of the tensors: {first.scale:g} for {first.label}, with alpha "
            f"{first.alpha:g} and rank {first.rank}."
        )
    return [RANK_MISMATCH.found(message, modules=(x.label for x in other))]


def _twin_findings(twins: Sequence[Twins]) -> list[Finding]:
    if not twins:
        return []
    differ = [t for t in twins if not all(_equal(t.taken, other) for other in t.others)]
    first = twins[0]
    message = (
        f"{len(twins)} tensors are in the file under several names, such as {first.taken.name} and "
        f"{first.others[0].name}; the first was taken."
    )
    if differ:
        message += f" {len(differ)} of them differ in content, such as {differ[0].taken.name}."
    return [WEIGHTS_SAVED_TWICE.found(message, modules=(t.taken.name for t in twins))]


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    equal = np.array_equal(one.read().view(np.uint8), other.read().view(np.uint8))
    one.release()
    other.release()
    return bool(equal)


def _unread_findings(unknown: Sequence[StoredTensor]) -> list[Finding]:
    if not unknown:
        return []
    names = ", ".join(t.name for t in unknown[:_SHOWN])
    rest = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    were = plural(len(unknown), "tensor was", "tensors were")
    return [UNREAD_TENSORS.found(f"{were} not read: {names}{rest}.")]


DIALECT = Dialect(
    name="peft",
    description="adapter_config.json with adapter_model.safetensors or .bin, as PEFT saves them",
    recognises=recognises,
    read=read,
)
