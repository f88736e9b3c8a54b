"""From measured layers to the whole audit: groups, bytes, suggestions, findings, verdict. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradience.adapter.records import Adapter
from gradience.audit.aggregate import by_block, by_type, concentration, stats_of
from gradience.audit.byte_use import byte_use
from gradience.audit.health import health, verdict
from gradience.audit.layers import MeasuredLayers
from gradience.audit.records import AdapterAudit, BaseUse, LayerAudit
from gradience.audit.suggest import suggest
from gradience.findings import by_weight

if TYPE_CHECKING:
    from gradience.audit.base.norms import BaseNorms

_LIMITS = (0.1, 0.3, 1.0)


def assemble(
    adapter: Adapter, measured: MeasuredLayers, norms: "BaseNorms | None", *, file_bytes: int
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
            *health(
                layers,
                use,
                zero_factors=measured.zero_factors,
                chosen_blocks=_blocks_are_chosen(adapter),
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
        verdict=verdict(findings),
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
    ratios = [layer.metrics["udr"] for layer in layers if "udr" in layer.metrics]
    return BaseUse(
        model=norms.model,
        revision=norms.revision,
        fingerprint=norms.fingerprint,
        with_udr=len(ratios),
        without={a.name: a.unmeasured["udr"] for a in layers if "udr" in a.unmeasured},
        above={f"{x:g}": sum(r > x for r in ratios) / len(ratios) for x in _LIMITS}
        if ratios
        else {},
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
