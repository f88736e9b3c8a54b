"""One adapted weight: from its spectrum and its base norm to every metric. Pure."""

import msgspec

from gradience.adapter.names import layer_key, module_type
from gradience.adapter.records import LoraLayer
from gradience.audit.facts import LayerFacts
from gradience.audit.metrics import METRICS
from gradience.audit.records import BaseComparison, LayerAudit
from gradience.errors import UnmeasurableError


def audit_layer(
    layer: LoraLayer,
    facts: LayerFacts,
    *,
    with_base: bool,
    direction_only: bool = False,
    bias_norm: float | None = None,
) -> LayerAudit:
    """Every metric of one layer.

    Parameters
    ----------
    layer : LoraLayer
    facts : LayerFacts
    with_base : bool
        A base model was asked for: metrics that need one are unmeasured, with a reason, where it
        has no answer, rather than left out.
    direction_only : bool
        The spectrum is that of DoRA's direction, not of the whole change.
    bias_norm : float or None
    """
    metrics, unmeasured = _measured(facts, with_base=with_base)
    return msgspec.structs.replace(
        _described(layer),
        singular_values=() if facts.values is None else tuple(facts.values.tolist()),
        relative_error=facts.relative_error if facts.relative_error < 1.0 else None,
        spectrum_of="direction" if direction_only else "change",
        metrics=metrics,
        unmeasured=unmeasured,
        base=_comparison(facts),
        bias_norm=bias_norm,
    )


def unmeasured_layer(layer: LoraLayer, reason: str, *, with_base: bool) -> LayerAudit:
    """A layer of which nothing can be said but what it stores: its factors are not finite."""
    asked = {
        name: reason
        for name, metric in METRICS.items()
        if not metric.needs_packed and (with_base or not metric.needs_base)
    }
    return msgspec.structs.replace(_described(layer), unmeasured=asked)


def _described(layer: LoraLayer) -> LayerAudit:
    """What is known of a layer before it is measured."""
    return LayerAudit(
        name=layer.label,
        module_type=module_type(layer.name),
        block=layer_key(layer.name) or None,
        shape=layer.shape,
        rank=layer.rank,
        scale=layer.scale,
        dtypes=tuple(sorted({tensor.dtype for tensor in layer.tensors})),
        parameters=layer.parameters,
        nbytes=layer.nbytes,
        kind=layer.kind,
        method=layer.method,
    )


def _measured(facts: LayerFacts, *, with_base: bool) -> tuple[dict[str, float], dict[str, str]]:
    metrics: dict[str, float] = {}
    unmeasured: dict[str, str] = {}
    for name, metric in METRICS.items():
        if metric.needs_base and not with_base:
            continue
        if metric.needs_packed and (facts.base is None or facts.base.rounding is None):
            continue
        try:
            metrics[name] = metric.measure(facts)
        except UnmeasurableError as error:
            unmeasured[name] = str(error)
    return metrics, unmeasured


def _comparison(facts: LayerFacts) -> BaseComparison | None:
    base = facts.base
    if base is None or base.lower == 0.0:
        return None
    return BaseComparison(
        lower=base.lower,
        upper=base.upper,
        frobenius=base.frobenius,
        udr_lower=facts.spectral / base.upper,
        udr_upper=facts.spectral / base.lower,
    )
