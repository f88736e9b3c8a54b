"""From records to Vega-Lite specifications: energy, UDR, bytes, comparison. Pure."""

import math
from collections.abc import Mapping, Sequence

from gradience.audit.aggregate import energy
from gradience.audit.html import labels
from gradience.audit.html.colors import type_color
from gradience.audit.metrics import METRICS
from gradience.audit.records import AdapterAudit, LayerAudit
from gradience.html.spec import Chart, Spec, base_spec, log_ticks, rounded, tip
from gradience.html.wording import share
from gradience.page import number
from gradience.units import format_size, plural

_STEP = 22
_POINT: Spec = {"type": "point", "filled": True}
_UDR_LIMITS = (0.1, 0.3, 1.0)


def energy_map(audit: AdapterAudit) -> Chart | None:
    """Energy share by block and kind; None without blocks or without energy."""
    total = sum(map(energy, audit.layers))
    cells = _cells(audit)
    if not cells or total == 0:
        return None
    values = [
        _cell(key, inside) | {"v": rounded(sum(map(energy, inside)) / total)}
        for key, inside in cells.items()
    ]
    color = {
        "field": "v",
        "type": "quantitative",
        "scale": {"type": "sqrt", "zero": True},
        "legend": _gradient("share of the energy", ".1~%"),
    }
    return Chart(
        title="Energy by block and module",
        caption="Share of the squared Frobenius norm of the whole change, for the blocks of "
        f"{_family(audit)}. The colour follows the square root, so that small shares can be told "
        "apart.",
        spec=_heatmap(audit, values, "Energy share by block and module", color, ".2~%"),
    )


def energy_bars(audit: AdapterAudit) -> Chart | None:
    """Energy share per block, stacked by module type."""
    total = sum(map(energy, audit.layers))
    if not audit.by_block or total == 0:
        return None
    parts: dict[tuple[str, str], float] = {}
    for layer in audit.layers:
        if layer.block is not None:
            key = (layer.block, layer.module_type)
            parts[key] = parts.get(key, 0.0) + energy(layer) / total
    names = labels.blocks([group.name for group in audit.by_block])
    values = [
        {"b": names[block], "name": block, "t": kind, "v": rounded(share)}
        for (block, kind), share in parts.items()
    ]
    return Chart(
        title="Energy by block",
        caption=_concentration(audit),
        spec=base_spec("Energy share of each block", height=200)
        | {
            "data": {"values": values},
            "mark": {"type": "bar"},
            "encoding": {
                "x": _block_axis(audit),
                "y": {
                    "field": "v",
                    "type": "quantitative",
                    "stack": "zero",
                    "title": "share of the energy",
                    "axis": {"format": ".1~%", "tickCount": 4},
                },
                "color": type_color({kind for _, kind in parts}),
                "tooltip": [
                    tip("name", "block"),
                    tip("t", "type"),
                    tip("v", "share of the energy", ".2~%"),
                ],
            },
        },
    )


def udr_map(audit: AdapterAudit) -> Chart | None:
    """UDR by block and kind, the largest where several modules share a cell."""
    cells = _cells(audit)
    if audit.base is None or not any(_udr(a) for inside in cells.values() for a in inside):
        return None
    values = [_cell(key, inside) | _largest(inside) for key, inside in cells.items()]
    seen = [v["v"] for v in values if v["v"] is not None]
    color = {
        "field": "v",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False},
        "legend": _gradient("UDR (log)", "~g") | {"values": log_ticks(min(seen), max(seen), 4)},
    }
    return Chart(
        title="UDR by block and module",
        caption="How large the change is beside the weight it changes. Grey cells: "
        "zero, or not measured; the tooltip says why."
        if len(seen) < len(values)
        else "How large the change is beside the weight it changes.",
        spec=_heatmap(audit, values, "UDR by block and module", color, ".3~g"),
    )


def udr_strip(audit: AdapterAudit) -> Chart | None:
    """Every module's UDR on a log axis, by kind, with its interval."""
    kind = labels.kinds(audit.layers)
    layers = [a for a in audit.layers if _udr(a)]
    if not layers:
        return None
    values = [_udr_row(a, kind[a.name]) for a in layers]
    drawn = {kind[a.name] for a in layers}
    order = [k for k in dict.fromkeys(kind.values()) if k in drawn]
    y = {
        "field": "k",
        "type": "nominal",
        "title": None,
        "scale": {"domain": order},
        "axis": {"labelLimit": 110, "grid": True, "domain": False, "ticks": False},
    }
    x = {
        "type": "quantitative",
        "title": "UDR (log)",
        "scale": {"type": "log", "nice": False, "padding": 10},
        "axis": _log_axis([v["v"] for v in values]),
    }
    interval = {
        "mark": {"type": "rule"},
        "encoding": {
            "x": {**x, "field": "lo"},
            "x2": {"field": "hi"},
            "y": y,
            "color": type_color({a.module_type for a in layers}),
        },
    }
    points = {
        "mark": {**_POINT, "size": 46, "opacity": 0.7},
        "encoding": {
            "x": {**x, "field": "v"},
            "y": y,
            "color": type_color({a.module_type for a in layers}),
            "tooltip": [
                tip("m", "module"),
                tip("v", "UDR", ".4~g"),
                tip("lo", "at least", ".4~g"),
                tip("hi", "at most", ".4~g"),
            ],
        },
    }
    top = max(v["v"] for v in values)
    return Chart(
        title="UDR by kind of module",
        caption=_udr_caption(audit, layers),
        spec=base_spec("UDR of every module by kind", height=(_STEP + 2) * len(order))
        | {"data": {"values": values}, "layer": [*_limits(x, top), interval, points]},
    )


def byte_bars(audit: AdapterAudit) -> tuple[Chart, ...]:
    """Bytes by kind of tensor and by stored type."""
    use = audit.byte_use
    return tuple(
        Chart(title=title, caption="", spec=_bars(title, sizes))
        for title, sizes in (
            ("Bytes by kind of tensor", use.by_kind),
            ("Bytes by stored type", use.by_dtype),
        )
        if sum(sizes.values())
    )


def comparison(audits: Sequence[AdapterAudit], names: Sequence[str]) -> tuple[Chart, ...]:
    """p10, median and p90 of a metric, a row per adapter; UDR where a base is there."""
    found = (
        _ranges(audits, names, "utilization", log=False),
        _ranges(audits, names, "udr", log=True),
        _ranges(audits, names, "spectral_norm", log=True),
    )
    return tuple(chart for chart in found if chart is not None)[:2]


def _ranges(
    audits: Sequence[AdapterAudit], names: Sequence[str], metric: str, *, log: bool
) -> Chart | None:
    named = {
        name: stats
        for name, audit in zip(names, audits, strict=True)
        if (stats := audit.overall.get(metric)) is not None and (stats.p10 > 0 or not log)
    }
    if not named:
        return None
    found = named.values()
    values = [
        {"a": name, "lo": rounded(s.p10), "v": rounded(s.median), "hi": rounded(s.p90)}
        for name, s in named.items()
    ]
    title = METRICS[metric].title
    x: Spec = {
        "type": "quantitative",
        "title": f"{title} (log)" if log else title,
        "scale": {"type": "log", "nice": False, "padding": 10} if log else {"zero": True},
        "axis": _log_axis([end for s in found for end in (s.p10, s.p90)])
        if log
        else {"format": "~g", "tickCount": 5},
    }
    y: Spec = {
        "field": "a",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(names)},
        "axis": {"labelLimit": 130, "domain": False, "ticks": False},
    }
    tooltip = [
        tip("a", "adapter"),
        *(tip(f, t, ".3~g") for f, t in (("lo", "p10"), ("v", "median"), ("hi", "p90"))),
    ]
    return Chart(
        title=title[0].upper() + title[1:],
        caption="Median over the modules, with the range from p10 to p90.",
        spec=base_spec(f"{title} of each adapter", height=26 * len(names))
        | {
            "data": {"values": values},
            "encoding": {"y": y, "tooltip": tooltip},
            "layer": [
                {
                    "mark": {"type": "rule", "style": "range"},
                    "encoding": {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}},
                },
                {
                    "mark": {**_POINT, "size": 90, "opacity": 1, "style": "single"},
                    "encoding": {"x": {**x, "field": "v"}},
                },
            ],
        },
    )


def _cells(audit: AdapterAudit) -> Mapping[tuple[str, str, str], list[LayerAudit]]:
    """Layers by (block, label of the block, kind); those outside of any block are in no cell."""
    kind = labels.kinds(audit.layers)
    names = labels.blocks([group.name for group in audit.by_block])
    cells: dict[tuple[str, str, str], list[LayerAudit]] = {}
    for layer in audit.layers:
        if layer.block is not None:
            key = (layer.block, names[layer.block], kind[layer.name])
            cells.setdefault(key, []).append(layer)
    return cells


def _cell(key: tuple[str, str, str], inside: Sequence[LayerAudit]) -> Spec:
    _, block, kind = key
    name = inside[0].name
    more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
    return {"b": block, "k": kind, "m": f"{name}{more}"}


def _heatmap(
    audit: AdapterAudit, values: Sequence[Spec], about: str, color: Spec, value_format: str
) -> Spec:
    kinds = list(dict.fromkeys(v["k"] for v in values))
    y = {
        "field": "k",
        "type": "nominal",
        "title": None,
        "scale": {"domain": kinds},
        "axis": {"labelLimit": 110, "domain": False, "ticks": False},
    }
    value = tip("v", color["legend"]["title"], value_format)
    absent = {
        "transform": [{"filter": "!isValid(datum.v)"}],
        "mark": {"type": "rect", "style": "absent"},
        "encoding": {"tooltip": [tip("m", "module"), tip("why", "not shown")]},
    }
    present = {
        "transform": [{"filter": "isValid(datum.v)"}],
        "mark": {"type": "rect"},
        "encoding": {"color": color, "tooltip": [tip("m", "module"), value]},
    }
    some_absent = any(v["v"] is None for v in values)
    return base_spec(about, height=_STEP * len(kinds)) | {
        "data": {"values": list(values)},
        "encoding": {"x": _block_axis(audit), "y": y},
        "layer": [absent, present] if some_absent else [present],
    }


def _block_axis(audit: AdapterAudit) -> Spec:
    names = [group.name for group in audit.by_block]
    short = list(labels.blocks(names).values())
    numbers = all(label.isdigit() for label in short)
    return {
        "field": "b",
        "type": "ordinal",
        "title": "block",
        "scale": {"domain": short},
        "axis": {
            "labelAngle": 0 if numbers else -60,
            "labelOverlap": True,
            "labelLimit": 96,
            "domain": False,
            "ticks": False,
        },
    }


def _family(audit: AdapterAudit) -> str:
    """What all blocks are below of: `model.layers`."""
    return labels.block_family([group.name for group in audit.by_block]) or "the model"


def _concentration(audit: AdapterAudit) -> str:
    """The sentence under the bars."""
    spread = audit.concentration
    if spread is None:
        return ""
    strongest = max(audit.by_block, key=lambda group: group.energy_share or 0.0)
    return (
        f"The strongest block, {strongest.name}, holds {share(spread.top1_share)} of the energy "
        f"inside the {spread.blocks} blocks and the three strongest "
        f"{share(spread.top3_share)}; the Herfindahl-Hirschman index is {number(spread.hhi)} "
        f"(even: {number(1 / spread.blocks)}, all in one block: 1)."
    )


def _udr(layer: LayerAudit) -> float:
    """UDR where it can stand on a log axis, else 0."""
    return layer.metrics.get("udr", 0.0)


def _largest(inside: Sequence[LayerAudit]) -> Spec:
    found = [value for a in inside if (value := _udr(a))]
    if found:
        return {"v": rounded(max(found))}
    return {"v": None, "why": inside[0].unmeasured.get("udr", "the change is zero")}


def _log_axis(values: Sequence[float]) -> Spec:
    ticks = log_ticks(min(values), max(values), 5)
    return {"format": "~g", "labelOverlap": True} | ({"values": ticks} if ticks else {})


def _udr_row(layer: LayerAudit, kind: str) -> Spec:
    value = _udr(layer)
    lower, upper = (layer.base.udr_lower, layer.base.udr_upper) if layer.base else (value, value)
    return {
        "m": layer.name,
        "k": kind,
        "t": layer.module_type,
        "v": rounded(value),
        "lo": rounded(lower, 6),
        "hi": rounded(upper, 6),
    }


def _udr_caption(audit: AdapterAudit, layers: Sequence[LayerAudit]) -> str:
    widths = [a.base.udr_upper / a.base.udr_lower - 1 for a in layers if a.base]
    width = f" Intervals are at most {number(100 * max(widths), 2)}% wide." if widths else ""
    left_out = len(audit.layers) - len(layers)
    missing = f" Not shown: {plural(left_out, 'module')}, zero or not measured." if left_out else ""
    return f"One point per module; a rule marks its interval.{width}{missing}"


def _limits(x: Spec, top: float) -> list[Spec]:
    """Reference lines at the limits that some module reaches."""
    reached = [limit for limit in _UDR_LIMITS if limit <= top]
    line = {
        "data": {"values": [{"x": limit} for limit in reached]},
        "mark": {"type": "rule", "style": "reference"},
        "encoding": {"x": {**x, "field": "x"}},
    }
    return [line] if reached else []


def _bars(about: str, sizes: Mapping[str, int]) -> Spec:
    total = sum(sizes.values())
    values = [
        {"k": kind, "v": size, "label": f"{format_size(size)} ({share(size / total)})"}
        for kind, size in sizes.items()
    ]
    # Room at the right for the label of the longest bar, which stands outside of it.
    x = {
        "field": "v",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, math.ceil(max(sizes.values()) * 1.9)], "nice": False},
    }
    y = {
        "field": "k",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(sizes)},
        "axis": {"labelLimit": 100, "domain": False, "ticks": False},
    }
    return base_spec(about, height=28 * len(sizes)) | {
        "data": {"values": values},
        "encoding": {"y": y, "x": x, "tooltip": [tip("k", "what"), tip("label", "bytes")]},
        "layer": [
            {"mark": {"type": "bar", "style": "single"}},
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "style": "label"},
                "encoding": {"text": {"field": "label"}},
            },
        ],
    }


def _gradient(title: str, value_format: str) -> Spec:
    return {
        "title": title,
        "orient": "top",
        "direction": "horizontal",
        "gradientLength": 180,
        "gradientThickness": 10,
        "format": value_format,
        "titleLimit": 260,
        "tickCount": 4,
    }
