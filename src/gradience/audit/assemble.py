"""From measured layers to the whole audit: groups, bytes, suggestions, findings, verdict. Pure."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gradience.adapter.finding_kinds import INIT_CHANGES_BASE
from gradience.adapter.records import Adapter
from gradience.audit.aggregate import by_block, by_type, concentration, stats_of
from gradience.audit.base.finding_kinds import BASE, BASE_MODEL_DIFFERS
from gradience.audit.byte_use import byte_use
from gradience.audit.health import health, verdict
from gradience.audit.layers import MeasuredLayers
from gradience.audit.records import AdapterAudit, BaseUse, LayerAudit
from gradience.audit.suggest import suggest
from gradience.findings import Finding, by_weight
from gradience.hub_ids import is_repo_id

if TYPE_CHECKING:
    from gradience.audit.base.norms import BaseNorms

_LIMITS = (0.1, 0.3, 1.0)


def assemble(
    adapter: Adapter,
    measured: MeasuredLayers,
    norms: "BaseNorms | None",
    *,
    file_bytes: int,
) -> AdapterAudit:
    """The audit of an adapter whose layers are measured.

    Parameters
    ----------
    adapter : Adapter
    measured : MeasuredLayers
    norms : BaseNorms or None
        None when no base model was asked for.
    file_bytes : int
        Size of the weights file.
    """
    layers = measured.layers
    use = byte_use(adapter, file_bytes)
    findings = by_weight(
        (
            *adapter.findings,
            *measured.findings,
            *(norms.findings if norms else ()),
            *_another_base(adapter, norms),
            *health(
                layers,
                use,
                zero_factors=measured.zero_factors,
                chosen_blocks=_blocks_are_chosen(adapter),
                base_moved=any(f.code == INIT_CHANGES_BASE.code for f in adapter.findings),
            ),
        )
    )
    blocks = by_block(layers)
    return AdapterAudit(
        source=adapter.source,
        files=adapter.files,
        fingerprint=adapter.fingerprint,
        dialect=adapter.dialect,
        peft_type=adapter.peft_type,
        recorded_base=adapter.base_model,
        recorded_revision=adapter.base_revision,
        base=_base_use(norms, layers) if norms else None,
        # A base that does not fit says nothing of the adapter.
        verdict=verdict([f for f in findings if f.code not in BASE]),
        findings=findings,
        layers=tuple(layers),
        overall=stats_of(layers),
        by_type=by_type(layers),
        by_block=blocks,
        concentration=concentration(blocks),
        byte_use=use,
        suggestions=suggest(layers, use.tensors - sum(layer.nbytes for layer in layers)),
    )


def _base_use(norms: "BaseNorms", layers: Sequence[LayerAudit]) -> BaseUse:
    with_udr = [layer for layer in layers if "udr" in layer.metrics]
    ratios = [layer.metrics["udr"] for layer in with_udr]
    used = [norms.by_layer[layer.name] for layer in with_udr]
    return BaseUse(
        model=norms.model,
        revision=norms.revision,
        fingerprint=norms.fingerprint,
        known_by=norms.known_by,
        with_udr=len(ratios),
        unchecked=sum(bool(norm.told_by) for norm in used),
        width=max((norm.reached for norm in used), default=None),
        without={a.name: a.unmeasured["udr"] for a in layers if "udr" in a.unmeasured},
        above={f"{x:g}": sum(r > x for r in ratios) / len(ratios) for x in _LIMITS}
        if ratios
        else {},
    )


def _another_base(adapter: Adapter, norms: "BaseNorms | None") -> Iterator[Finding]:
    """The adapter names one Hub model and was held against another."""
    recorded = adapter.base_model or ""
    # One in a directory has no name to compare, whatever its path looks like.
    if norms is None or norms.known_by not in ("commit", "told"):
        return
    # `gpt2` and `openai-community/gpt2` are one.
    if not all(is_repo_id(name, namespace=True) for name in (recorded, norms.model)):
        return
    if recorded.casefold() != norms.model.casefold():
        yield BASE_MODEL_DIFFERS.found(
            f"the adapter records {recorded}, and was compared with {norms.model}"
        )


def _blocks_are_chosen(adapter: Adapter) -> bool:
    """The config names the blocks to adapt, so that gaps between them are meant."""
    config = adapter.config
    targets = config.get("target_modules")
    return bool(
        config.get("layers_to_transform") is not None
        or isinstance(targets, str)
        or any(character.isdigit() for name in targets or () for character in str(name))
    )
