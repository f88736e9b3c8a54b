"""The spectra chart: one line per module, or bands where lines would cover each other. Pure.

Values are relative to the module's largest one: the shape says how much of the rank is used, and
modules of different strength can be compared.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradience.audit.html.colors import TYPES, type_color
from gradience.audit.records import AdapterAudit, LayerAudit
from gradience.html.spec import Chart, Spec, base_spec, log_ticks, rounded

MAX_LINES = 300
"""Above this many modules the chart shows bands, and lines for the extremes only."""

FLOOR = 1e-6
"""Relative values below this are not drawn: the promise of accuracy ends there."""

_EXTREMES = 5


def spectra(audit: AdapterAudit) -> Chart | None:
    """Normalised singular values of every module; None where no module has any."""
    layers = [a for a in audit.layers if a.singular_values and a.singular_values[0] > 0]
    if not layers:
        return None
    if len(layers) <= MAX_LINES:
        layout, how = _lines(layers), "One line per module."
        data: dict[str, Any] = {"values": [_record(layer) for layer in layers]}
    else:
        extreme = _extremes(layers)
        layout = _bands(layers)
        data = {"values": [_record(layer) for layer in extreme]}
        how = (
            f"{len(layers)} modules: the band holds 80 % of each type, the thick line is its "
            f"median, thin lines are the {len(extreme)} modules with the flattest and the "
            "steepest spectrum of their type."
        )
    return Chart(
        title="Spectra",
        caption=" ".join([how, "A line that falls early uses little of its rank.", *_notes(audit)]),
        spec=base_spec("Singular values relative to the largest", height=320)
        | {"data": data, "layer": layout},
        renderer="canvas",
    )


def _notes(audit: AdapterAudit) -> Iterator[str]:
    relative = [v / a.singular_values[0] for a in audit.layers for v in a.singular_values[-1:] if v]
    if any(value < FLOOR for value in relative):
        yield f"Values below {FLOOR:g} of the largest are not drawn."
    none = sum(not (a.singular_values and a.singular_values[0] > 0) for a in audit.layers)
    if none:
        yield f"{none} of {len(audit.layers)} modules have no spectrum to draw."
    if any(a.spectrum_of == "direction" for a in audit.layers):
        yield "DoRA without its base model: the spectrum is that of the direction B @ A."


def _record(layer: LayerAudit) -> Spec:
    """One module as one row; the chart unfolds `s`, which keeps the file small."""
    first = layer.singular_values[0]
    relative = [v / first for v in layer.singular_values]
    return {
        "m": layer.name,
        "t": layer.module_type,
        "r": layer.rank,
        "s1": rounded(first),
        "s": [rounded(v) for v in relative if v >= FLOOR],
    }


def _x() -> Spec:
    return {
        "field": "i",
        "type": "quantitative",
        "title": "index i of the singular value",
        "scale": {"nice": False, "zero": False},
        "axis": {"tickMinStep": 1, "format": "d", "grid": False},
    }


def _y(layers: Sequence[LayerAudit], field: str = "s") -> Spec:
    last = min(v / a.singular_values[0] for a in layers for v in a.singular_values if v > 0)
    return {
        "field": field,
        "type": "quantitative",
        "title": "s_i / s_1 (log)",
        "scale": {"type": "log", "nice": False},
        "axis": {"format": "~g", "values": log_ticks(max(last, FLOOR), 1.0)},
    }


_UNFOLD = [
    {"flatten": ["s"]},
    {"window": [{"op": "row_number", "as": "i"}], "groupby": ["m"]},
    {"calculate": "datum.s * datum.s1", "as": "sigma"},
]


def _lines(layers: Sequence[LayerAudit]) -> list[Spec]:
    opacity = 0.6 if len(layers) <= 100 else 0.4
    color = type_color({layer.module_type for layer in layers})
    hovered = {"param": "hover", "empty": False}
    line = {
        "transform": _UNFOLD,
        "mark": {"type": "line", "interpolate": "linear"},
        "encoding": {
            "x": _x(),
            "y": _y(layers),
            "detail": {"field": "m", "type": "nominal"},
            "color": color,
            "strokeWidth": {"condition": {**hovered, "value": 3.5}, "value": 1.3},
            "opacity": {"condition": {**hovered, "value": 1}, "value": opacity},
        },
    }
    # A line answers the pointer with its first datum only, so unseen points carry the tooltip.
    point = {
        "transform": _UNFOLD,
        "params": [
            {
                "name": "hover",
                "select": {
                    "type": "point",
                    "fields": ["m"],
                    "on": "pointerover",
                    "clear": "pointerout",
                },
            }
        ],
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0},
        "encoding": {
            "x": _x(),
            "y": _y(layers),
            "color": color,
            "tooltip": [
                {"field": "m", "title": "module", "type": "nominal"},
                {"field": "r", "title": "allocated rank", "type": "quantitative"},
                {"field": "i", "title": "i", "type": "quantitative"},
                {"field": "sigma", "title": "s_i", "type": "quantitative", "format": ".3~g"},
                {"field": "s", "title": "s_i / s_1", "type": "quantitative", "format": ".3~g"},
            ],
        },
    }
    return [line, point]


def _bands(layers: Sequence[LayerAudit]) -> list[Spec]:
    quantiles = list(_quantiles(layers))
    color = type_color({layer.module_type for layer in layers})
    band = {
        "data": {"values": quantiles},
        "mark": {"type": "area", "opacity": 0.25, "tooltip": None},
        "encoding": {"x": _x(), "y": _y(layers, "lo"), "y2": {"field": "hi"}, "color": color},
    }
    median = {
        "data": {"values": quantiles},
        "mark": {"type": "line", "strokeWidth": 3},
        "encoding": {"x": _x(), "y": _y(layers, "mid"), "color": color},
    }
    return [band, *_lines(_extremes(layers)), median]


def _quantiles(layers: Sequence[LayerAudit]) -> Iterator[Spec]:
    """p10, median and p90 of s_i / s_1 by type and index, over the modules that reach index i."""
    for kind in TYPES:
        spectra = [
            np.asarray(a.singular_values) / a.singular_values[0]
            for a in layers
            if a.module_type == kind
        ]
        for i in range(max(map(len, spectra), default=0)):
            reached = [s[i] for s in spectra if len(s) > i and s[i] >= FLOOR]
            if reached:
                lo, mid, hi = np.percentile(reached, [10, 50, 90])
                yield {
                    "t": kind,
                    "i": i + 1,
                    "lo": rounded(lo),
                    "mid": rounded(mid),
                    "hi": rounded(hi),
                }


def _extremes(layers: Sequence[LayerAudit]) -> list[LayerAudit]:
    """The flattest and the steepest spectra of each type, by stable rank over rank."""
    chosen: list[LayerAudit] = []
    for kind in TYPES:
        ranked = sorted(
            (a for a in layers if a.module_type == kind),
            key=lambda a: a.metrics.get("stable_rank", 1.0) / a.rank,
        )
        chosen += ranked if len(ranked) <= 2 * _EXTREMES else _both_ends(ranked)
    return chosen


def _both_ends(ranked: list[LayerAudit]) -> list[LayerAudit]:
    return ranked[:_EXTREMES] + ranked[-_EXTREMES:]
