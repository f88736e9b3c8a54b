"""Every layer of an adapter, measured: spectra from the factors, then metrics.

A DoRA layer whose base weight is at hand is measured as the change it really is; without one, its
low-rank direction is, and a finding says so.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gradience.adapter.delta import Product
from gradience.adapter.finding_kinds import DORA_DIRECTION_ONLY
from gradience.adapter.records import LoraLayer
from gradience.audit.facts import BaseFacts, LayerFacts
from gradience.audit.finding_kinds import NOT_FINITE
from gradience.audit.measure import audit_layer, unmeasured_layer
from gradience.audit.records import LayerAudit
from gradience.audit.spectrum import NonFinite, Spectrum, spectra
from gradience.errors import UnmeasurableError
from gradience.findings import Finding

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from gradience.audit.base.norms import BaseNorms

Progress = Callable[[str, int, int], None]

# Numbers in factors of at least so many columns from which threads pay: narrower products are over
# before a thread gets its turn at the interpreter again.
_WORTH_THREADS = 8_000_000
_WIDE = 32
# Above it the squares, summed over all modules, may overflow.
_LARGEST = 1e150

_DIRECTION_ONLY = "a DoRA magnitude of this form is not applied: only the direction is measured"
_NORMS_ALONE = "the change of a DoRA layer needs its base weight, and only norms are here"
_NO_FULL_SPECTRUM = (
    "DoRA's change has full rank; above 1024 rows and columns only its norms are computed"
)


class MeasuredLayers(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of an adapter with their numbers.

    Attributes
    ----------
    layers : tuple of LayerAudit
        In the order given.
    zero_factors : tuple of str
        Those whose two factors are both all zeros.
    findings : tuple of Finding
    """

    layers: tuple[LayerAudit, ...]
    zero_factors: tuple[str, ...]
    findings: tuple[Finding, ...]


def audit_layers(
    layers: Sequence[LoraLayer],
    norms: "BaseNorms | None",
    *,
    width: float,
    progress: Progress,
    threads: int = 1,
) -> MeasuredLayers:
    """Measure every layer.

    Parameters
    ----------
    layers : sequence of LoraLayer
    norms : BaseNorms or None
        None when no base model was asked for.
    width : float
        Relative width asked of the spectral norm of a large DoRA change.
    progress : callable
        Told (stage, done, total).
    threads : int
        How many share the factors.
    """
    deltas = [(layer.delta, layer.scale) for layer in layers]
    with _pool(layers, threads) as pool:
        made = spectra(deltas, done=_counted(progress, len(layers)), pool=pool)
    found = [_squarable(spectrum) for spectrum in made]
    measured = [
        _measured(layer, spectrum, norms, width)
        for layer, spectrum in zip(layers, found, strict=True)
    ]
    both_zero = tuple(
        layer.label
        for layer, s in zip(layers, found, strict=True)
        if isinstance(s, Spectrum) and s.left_norm == 0.0 and s.right_norm == 0.0
    )
    return MeasuredLayers(
        layers=tuple(measured),
        zero_factors=both_zero,
        findings=(*_not_finite(measured), *_directions(measured)),
    )


def _pool(layers: Sequence[LoraLayer], threads: int) -> "AbstractContextManager[Executor | None]":
    """Threads where there is work for them: starting them takes as long as a small adapter."""
    wide = sum(layer.parameters for layer in layers if layer.rank >= _WIDE)
    if threads < 2 or wide < _WORTH_THREADS:
        return nullcontext()
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 5 ms

    return ThreadPoolExecutor(threads)


def _counted(progress: Progress, total: int) -> Callable[[int], None]:
    """Progress from counts of what is new."""
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        progress("spectra", done, total)

    return add


def _measured(
    layer: LoraLayer, spectrum: Spectrum | NonFinite, norms: "BaseNorms | None", width: float
) -> LayerAudit:
    with_base = norms is not None
    if isinstance(spectrum, NonFinite):
        return unmeasured_layer(layer, str(spectrum), with_base=with_base)
    facts = _facts(layer, spectrum, norms)
    direction_only = layer.method == "dora"
    if direction_only and norms is not None and facts.base is not None:
        if layer.magnitude is None or not isinstance(layer.delta, Product):
            facts = replace(facts, base=None, no_base=_DIRECTION_ONLY)
        elif not norms.has_weights:
            facts = replace(facts, base=None, no_base=_NORMS_ALONE)
        else:
            try:
                facts = _dora_facts(layer, facts, norms, width)
            except UnmeasurableError as error:
                return unmeasured_layer(layer, str(error), with_base=True)
            direction_only = False
    return audit_layer(
        layer,
        facts,
        with_base=with_base,
        direction_only=direction_only,
        bias_norm=_bias_norm(layer),
    )


def _facts(layer: LoraLayer, spectrum: Spectrum, norms: "BaseNorms | None") -> LayerFacts:
    base, reason = _base_facts(layer, norms)
    return LayerFacts(
        values=spectrum.values,
        spectral=float(spectrum.values[0]) if spectrum.values.size else 0.0,
        frobenius=_frobenius(spectrum.values),
        rank=min(layer.delta.rank, *layer.shape),
        relative_error=spectrum.relative_error,
        left_norm=spectrum.left_norm,
        right_norm=spectrum.right_norm,
        base=base,
        no_base=reason,
    )


def _squarable(spectrum: Spectrum | NonFinite) -> Spectrum | NonFinite:
    """The spectrum, or why there is none where its energy, a sum of squares, is beyond float64."""
    if isinstance(spectrum, Spectrum) and spectrum.values.size and spectrum.values[0] > _LARGEST:
        return NonFinite(where="product", nans=0, infs=0)
    return spectrum


def _frobenius(values: NDArray[np.float64]) -> float:
    """sqrt(sum(s_i^2)), also where the squares are below what float64 holds."""
    largest = float(values[0]) if values.size else 0.0
    return largest * float(np.linalg.norm(values / largest)) if largest > 0.0 else 0.0


def _base_facts(layer: LoraLayer, norms: "BaseNorms | None") -> tuple[BaseFacts | None, str]:
    if norms is None:
        return None, "no base model was given"
    norm = norms.by_layer.get(layer.label)
    if norm is None:
        return None, norms.unmatched.get(layer.label, "the base model has no such weight")
    return BaseFacts(
        lower=norm.lower, upper=norm.upper, frobenius=norm.frobenius, rounding=norm.rounding
    ), ""


def _dora_facts(
    layer: LoraLayer, direction: LayerFacts, norms: "BaseNorms", width: float
) -> LayerFacts:
    from gradience.audit.dora import dora_change, dora_norms  # noqa: PLC0415 - only for DoRA

    weight = norms.rows(layer.label)
    try:
        change = dora_norms(dora_change(layer, weight), width=width)
    finally:
        weight.release()
    return LayerFacts(
        values=change.values,
        spectral=change.spectral,
        frobenius=change.frobenius,
        rank=direction.rank,
        relative_error=change.relative_error,
        left_norm=direction.left_norm,
        right_norm=direction.right_norm,
        base=direction.base,
        no_values=_NO_FULL_SPECTRUM,
    )


def _bias_norm(layer: LoraLayer) -> float | None:
    if layer.bias is None:
        return None
    bias = np.asarray(layer.bias.read(), dtype=np.float64)
    norm = float(np.linalg.norm(bias)) * abs(layer.scale)
    return norm if np.isfinite(norm) else None


def _not_finite(measured: Sequence[LayerAudit]) -> tuple[Finding, ...]:
    """A change of zero has a norm; one without is not finite."""
    bad = {
        a.name: a.unmeasured["spectral_norm"] for a in measured if "spectral_norm" in a.unmeasured
    }
    if not bad:
        return ()
    first = next(iter(bad))
    return (
        NOT_FINITE.found(
            f"{len(bad)} of {len(measured)} modules; {first}: {bad[first]}", modules=bad
        ),
    )


def _directions(measured: Sequence[LayerAudit]) -> tuple[Finding, ...]:
    names = [layer.name for layer in measured if layer.spectrum_of == "direction"]
    if not names:
        return ()
    return (
        DORA_DIRECTION_ONLY.found(
            f"{len(names)} DoRA modules are measured by their direction B @ A only", modules=names
        ),
    )
