"""Draw the charts of a bench report as SVG, for a page that cannot run a script.

python docs/bench_figures.py out/bench.json docs/sst2
"""

import sys
from pathlib import Path

import vl_convert

from gradience import artifacts
from gradience.bench.records import REPORT_SCHEMA, BenchReport
from gradience.bench.report import charts
from gradience.bench.report.rows import rows
from gradience.html.spec import Chart, Spec

# The roles of the page, in colours that can be read on white and on black.
_INK = "#768390"
_THEME: Spec = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "gridColor": "#76839033",
        "domainColor": _INK,
        "tickColor": _INK,
    },
    "legend": {"labelColor": _INK, "titleColor": _INK},
    "range": {"ordinal": ["#2da44e", "#cf4a43", "#bf8700", _INK, "#4a90c2"]},
    "style": {
        "single": {"color": "#4a90c2"},
        "range": {"color": "#4a90c2", "strokeWidth": 3, "strokeOpacity": 0.45},
        "label": {"color": _INK},
        "thread": {"color": _INK, "strokeOpacity": 0.6, "strokeWidth": 1.5},
        "reference": {"color": _INK, "strokeDash": [4, 4], "strokeWidth": 1},
    },
}


def main(report: Path, out: Path) -> None:
    """Write one file per chart that a reader of the verdicts needs."""
    told = artifacts.decode(report.read_bytes(), REPORT_SCHEMA, BenchReport, source=str(report))
    found = rows(told)
    by_bytes, _ = charts.by_size(told, found)
    wanted = {"ladder": charts.forest(told), "bytes": by_bytes, "items": charts.won_and_lost(told)}
    out.mkdir(parents=True, exist_ok=True)
    for name, chart in wanted.items():
        if chart is not None:
            (out / f"{name}.svg").write_text(_svg(chart), encoding="utf-8")


def _svg(chart: Chart) -> str:
    spec = chart.spec | {
        "width": 640,
        "padding": 10,
        "config": chart.spec.get("config", {}) | _THEME,
    }
    drawn: str = vl_convert.vegalite_to_svg(spec)
    return drawn


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
