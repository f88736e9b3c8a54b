"""From a judged bench to Vega-Lite specifications. Pure.

Names of variants stand in data and scale domains only; see `gradience.html.spec`.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean

from gradience.bench.records import BenchReport, TrialResult, Verdict
from gradience.bench.report.rows import Row, answers, probe_of, unit
from gradience.html.spec import Chart, Spec, base_spec, rounded, tip
from gradience.units import format_size

_KINDS = {
    "SAFE": "circle",
    "NOT SAFE": "cross",
    "UNDERPOWERED": "triangle-up",
    "control": "diamond",
    "probe": "square",
}
"""What a point is, and its shape; in the order of the colours of `range.ordinal`."""

_STEP = 34
_APART = 5  # pixels between points of one size


def by_size(report: BenchReport, found: Sequence[Row]) -> tuple[Chart, ...]:
    """Score against bytes and against rank, each point with the interval of its difference."""
    probe = probe_of(found)
    values = list(_points(report, found, probe)) if probe else []
    if not values or probe is None:
        return ()
    margin = rounded(_shown(probe.score - report.claim.margin, report), 6)
    caption = (
        "Mean over items and seeds. An interval is that of the paired difference to the probe, at "
        "the level of its test; dashed: the probe's score less the margin. A random subspace, far "
        "below, is left out."
    )
    return (
        Chart(
            title="Score against bytes",
            caption=caption,
            spec=_scatter(report, values, margin, "bytes", "MB of the weights file"),
        ),
        Chart(
            title="Score against rank",
            caption="The same against the mean rank over modules. Lines join the steps of a "
            "ladder; points of one size are moved a little apart.",
            spec=_scatter(report, values, margin, "rank", "mean rank"),
        ),
    )


def _points(report: BenchReport, found: Sequence[Row], probe: Row | None) -> Iterator[Spec]:
    for row in found:
        if row.action == "random" or probe is None:
            continue
        v = row.verdict
        shared = [seed for seed in row.by_seed if seed in probe.by_seed]
        gap = fmean(row.by_seed[s] - probe.by_seed[s] for s in shared) if shared else 0.0
        bounds = (v.lower, v.upper) if v else (gap, gap)
        yield {
            "m": row.name,
            "l": v.ladder if v else "",
            "d": v.decision if v else "probe" if row is probe else "control",
            "bytes": rounded(row.nbytes / 1e6),
            "rank": rounded(row.ranks[1]),
            "size": format_size(round(row.nbytes)),
            "v": rounded(_shown(probe.score + gap, report), 6),
            "lo": rounded(_shown(probe.score + bounds[0], report), 6),
            "hi": rounded(_shown(probe.score + bounds[1], report), 6),
        }


def _shown(value: float, report: BenchReport) -> float:
    return 100 * value if report.binary else value


def _scatter(
    report: BenchReport, values: Sequence[Spec], margin: float, field: str, title: str
) -> Spec:
    x: Spec = {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"zero": True, "nice": True},
        "axis": {"tickCount": 5, "grid": False},
    }
    y: Spec = {
        "type": "quantitative",
        "title": "score, %" if report.binary else "score",
        "scale": {"zero": False, "nice": True},
        "axis": {"tickCount": 5},
    }
    margin_line = {
        "data": {"values": [{"y": margin}]},
        "mark": {"type": "rule", "style": "reference"},
        "encoding": {"y": {**y, "field": "y"}},
    }
    ladders = list(dict.fromkeys(value["l"] for value in values))
    layers = [
        layer
        for place, ladder in enumerate(ladders)
        for layer in _of_ladder(values, ladder, x, y, _APART * (place - (len(ladders) - 1) / 2))
    ]
    return base_spec(f"Score against {title}", height=260) | {
        "data": {"values": list(values)},
        "layer": [margin_line, *layers],
    }


def _of_ladder(
    values: Sequence[Spec], ladder: str, x: Spec, y: Spec, aside: float
) -> Iterator[Spec]:
    """Line, intervals and points of one ladder, moved aside so that none covers another's."""
    inside = [value for value in values if value["l"] == ladder]
    data = {"data": {"values": inside}}
    if ladder and len(inside) > 1:
        yield data | {
            "mark": {"type": "line", "style": "thread", "xOffset": aside},
            "encoding": {"x": x, "y": {**y, "field": "v"}},
        }
    yield data | {
        "mark": {"type": "rule", "strokeWidth": 2, "xOffset": aside},
        "encoding": {
            "x": x,
            "y": {**y, "field": "lo"},
            "y2": {"field": "hi"},
            "color": _color(values),
        },
    }
    yield data | {
        "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "xOffset": aside},
        "encoding": {
            "x": x,
            "y": {**y, "field": "v"},
            "color": _color(values),
            "shape": _shape(values),
            "tooltip": [
                tip("m", "variant"),
                tip("d", "what"),
                tip("v", "score", ".5~g"),
                tip("lo", "at least", ".5~g"),
                tip("hi", "at most", ".5~g"),
                tip("size", "bytes"),
                tip("rank", "mean rank", ".3~g"),
            ],
        },
    }


def _color(values: Sequence[Spec]) -> Spec:
    return {
        "field": "d",
        "type": "nominal",
        "scale": {"domain": list(_KINDS), "range": "ordinal"},
        "legend": _legend(values),
    }


def _shape(values: Sequence[Spec]) -> Spec:
    return {
        "field": "d",
        "type": "nominal",
        "scale": {"domain": list(_KINDS), "range": list(_KINDS.values())},
        "legend": _legend(values),
    }


def _legend(values: Sequence[Spec]) -> Spec:
    there = {value["d"] for value in values}
    return {
        "title": None,
        "orient": "top",
        "columns": 3,
        "values": [kind for kind in _KINDS if kind in there],
    }


def forest(report: BenchReport) -> Chart | None:
    """Every step's difference with its bounds, beside zero and the margin."""
    if not report.verdicts:
        return None
    values = [_forest_row(v, report) for v in report.verdicts]
    y: Spec = {
        "field": "m",
        "type": "nominal",
        "title": None,
        "scale": {"domain": [v.variant for v in report.verdicts]},
        "axis": {"labelLimit": 150, "domain": False, "ticks": False},
    }
    x: Spec = {
        "type": "quantitative",
        "title": f"difference to the probe{unit(report)}",
        "scale": {"zero": True, "nice": True, "padding": 8},
        "axis": {"tickCount": 6},
    }
    ends = {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}}
    boot = {"x": {**x, "field": "blo"}, "x2": {"field": "bhi"}}
    return Chart(
        title="The ladder",
        caption="Tested from the top of each ladder; it stops at the first step that is not SAFE. "
        "Thick: one-sided bounds at the level of the test; thin, below: the bootstrap. SAFE needs "
        "all of the thick line right of the dashed margin.",
        spec=base_spec("Difference of every variant", height=_STEP * len(values))
        | {
            "data": {"values": values},
            "encoding": {"y": y},
            "layer": [
                _line_at([0.0], x, "thread"),
                _line_at([_shown(-report.claim.margin, report)], x, "reference"),
                {"mark": {"type": "rule", "style": "thread", "yOffset": 8}, "encoding": boot},
                {
                    "mark": {"type": "rule", "strokeWidth": 3, "strokeCap": "round"},
                    "encoding": {**ends, "color": _color(values)},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 100, "opacity": 1},
                    "encoding": {
                        "x": {**x, "field": "v"},
                        "color": _color(values),
                        "shape": _shape(values),
                        "tooltip": [
                            tip("m", "variant"),
                            tip("d", "decision"),
                            tip("v", "difference", ".3~g"),
                            tip("lo", "lower", ".3~g"),
                            tip("hi", "upper", ".3~g"),
                            tip("power", "power", ".0%"),
                        ],
                    },
                },
            ],
        },
    )


def _forest_row(v: Verdict, report: BenchReport) -> Spec:
    numbers = {
        "v": v.difference,
        "lo": v.lower,
        "hi": v.upper,
        "blo": v.bootstrap_lower,
        "bhi": v.bootstrap_upper,
    }
    shown = {key: rounded(_shown(value, report)) for key, value in numbers.items()}
    return {"m": v.variant, "d": v.decision, "power": rounded(v.power), **shown}


def _line_at(places: Sequence[float], x: Spec, style: str) -> Spec:
    return {
        "data": {"values": [{"x": rounded(place)} for place in places]},
        "mark": {"type": "rule", "style": style},
        # The rows' axis is not its own: it runs over the whole height.
        "encoding": {"x": {**x, "field": "x"}, "y": None},
    }


def by_seed(report: BenchReport, found: Sequence[Row]) -> tuple[Chart, ...]:
    """A line per seed over the steps of each ladder."""
    return tuple(
        _seed_lines(answer.ladder, [r.verdict for r in answer.steps if r.verdict], report)
        for answer in answers(found)
    )


def _seed_lines(ladder: str, steps: Sequence[Verdict], report: BenchReport) -> Chart:
    values = [
        {"m": v.variant, "s": seed, "v": rounded(_shown(mean, report))}
        for v in steps
        for seed, mean in v.per_seed.items()
    ]
    y: Spec = {
        "type": "quantitative",
        "title": f"difference{unit(report)}",
        "axis": {"tickCount": 5},
        "scale": {"zero": True, "nice": True},
    }
    encoding = {
        "x": {
            "field": "m",
            "type": "ordinal",
            "title": None,
            "scale": {"domain": [v.variant for v in steps]},
            "axis": {"labelAngle": -30, "labelLimit": 130, "domain": False, "ticks": False},
        },
        "y": {**y, "field": "v"},
        "detail": {"field": "s"},
        "tooltip": [tip("m", "variant"), tip("s", "seed"), tip("v", "difference", ".3~g")],
    }
    lines = {"mark": {"type": "line", "style": "range"}, "encoding": encoding}
    points = {
        "mark": {"type": "point", "filled": True, "size": 46, "opacity": 1, "style": "single"},
        "encoding": encoding,
    }
    margin = {
        "data": {"values": [{"y": rounded(_shown(-report.claim.margin, report))}]},
        "mark": {"type": "rule", "style": "reference"},
        "encoding": {"y": {**y, "field": "y"}},
    }
    return Chart(
        title=f"Seed by seed: {ladder}",
        caption="A line per seed; dashed: the margin.",
        spec=base_spec("Difference of every seed", height=200)
        | {"data": {"values": values}, "layer": [margin, lines, points]},
    )


def won_and_lost(report: BenchReport) -> Chart | None:
    """Items won and lost against the probe, a bar per variant and seed."""
    if not report.verdicts:
        return None
    values = [
        {
            "m": v.variant,
            "s": seed,
            "k": kind,
            "v": sign * counts[seed],
            "n": counts[seed],
            "same": v.items - v.won[seed] - v.lost[seed],
        }
        for v in report.verdicts
        for kind, sign, counts in (("won", 1, v.won), ("lost", -1, v.lost))
        for seed in v.per_seed
    ]
    seeds = max(len(v.per_seed) for v in report.verdicts)
    height = max(_STEP, 7 * seeds + 10) * len(report.verdicts)
    return Chart(
        title="Item by item",
        caption="Items that score higher (right) and lower (left) than with the probe of the same "
        "seed; a bar per seed. All others score the same.",
        spec=base_spec("Items won and lost", height=height)
        | {
            "data": {"values": values},
            "mark": {"type": "bar"},
            "encoding": {
                "y": {
                    "field": "m",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": [v.variant for v in report.verdicts], "paddingInner": 0.3},
                    "axis": {"labelLimit": 150, "domain": False, "ticks": False},
                },
                "yOffset": {"field": "s", "type": "nominal"},
                "x": {
                    "field": "v",
                    "type": "quantitative",
                    "stack": None,
                    "title": "items lost | won",
                    "axis": {"tickCount": 6, "format": "~s"},
                },
                "color": {
                    "field": "k",
                    "type": "nominal",
                    "scale": {"domain": ["won", "lost"], "range": "ordinal"},
                    "legend": {"title": None, "orient": "top"},
                },
                "tooltip": [
                    tip("m", "variant"),
                    tip("s", "seed"),
                    tip("k", "what"),
                    tip("n", "items", "d"),
                    tip("same", "the same", "d"),
                ],
            },
        },
    )


def training(report: BenchReport) -> tuple[Chart, ...]:
    """Loss of the probes, and of what was trained after them, by variant."""
    trained = [r for r in report.results if r.training is not None and r.training.losses]
    probes = [r for r in trained if r.trial.spec.variant.action == "probe"]
    others = [r for r in trained if r.trial.spec.variant.action != "probe"]
    return tuple(
        _losses(title, caption, group)
        for title, caption, group in (
            ("Training of the probes", "A line per seed.", probes),
            ("Training of the variants", "A line per variant and seed.", others),
        )
        if group
    )


def _losses(title: str, caption: str, group: Sequence[TrialResult]) -> Chart:
    values = [
        {
            "l": f"{r.trial.spec.variant.name}, seed {r.trial.spec.seed}",
            "x": round(r.training.steps * (i + 1) / len(r.training.losses)),
            "v": rounded(loss),
        }
        for r in group
        if r.training is not None
        for i, loss in enumerate(r.training.losses)
    ]
    falling = sum(1 for r in group if r.training is not None and r.training.still_falling)
    said = f" {falling} of {len(group)} were still falling at the end." if falling else ""
    return Chart(
        title=title,
        caption=caption + said,
        spec=base_spec(title, height=200)
        | {
            "data": {"values": values},
            "mark": {"type": "line", "style": "range", "strokeWidth": 1.5},
            "encoding": {
                "x": {
                    "field": "x",
                    "type": "quantitative",
                    "title": "optimizer step",
                    "axis": {"tickCount": 5, "grid": False, "format": "~s"},
                },
                "y": {
                    "field": "v",
                    "type": "quantitative",
                    "title": "training loss",
                    "scale": {"zero": False},
                    "axis": {"tickCount": 5},
                },
                "detail": {"field": "l"},
                "tooltip": [tip("l", "trial"), tip("x", "step", "d"), tip("v", "loss", ".3~g")],
            },
        },
    )


def cost(found: Sequence[Row]) -> tuple[Chart, ...]:
    """Seconds and bytes per trial, a bar per variant."""
    return (
        _bars("Seconds per trial", found, [row.seconds for row in found], "seconds", ".3~s"),
        _bars("Bytes per adapter", found, [row.nbytes for row in found], "bytes", ".3~s"),
    )


def _bars(title: str, found: Sequence[Row], sizes: Sequence[float], unit: str, how: str) -> Chart:
    values = [{"m": row.name, "v": rounded(size)} for row, size in zip(found, sizes, strict=True)]
    return Chart(
        title=title,
        caption="Mean over seeds.",
        spec=base_spec(title, height=22 * len(values))
        | {
            "data": {"values": values},
            "mark": {"type": "bar", "style": "single"},
            "encoding": {
                "y": {
                    "field": "m",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": [row.name for row in found]},
                    "axis": {"labelLimit": 150, "domain": False, "ticks": False},
                },
                "x": {
                    "field": "v",
                    "type": "quantitative",
                    "title": unit,
                    "axis": {"tickCount": 4, "format": how},
                },
                "tooltip": [tip("m", "variant"), tip("v", unit, how)],
            },
        },
    )
