"""What every chart of the report shares. Pure.

A spec names roles (a mark's style, the category range, the heatmap range) and no colour; the page
gives the roles their colours from its style sheet, for light and for dark.

Texts of an adapter stand in `data` and in scale domains only: Vega-Lite pastes titles, unescaped,
into expressions.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure: what it is called, how to read it, and its Vega-Lite specification.

    Attributes
    ----------
    spec : dict
        Plain JSON-able data: no NaN, no infinity.
    renderer : str
        canvas where there are thousands of marks.
    """

    title: str
    caption: str
    spec: Spec
    renderer: Literal["svg", "canvas"] = "svg"


def base_spec(description: str, *, height: int) -> Spec:
    """As wide as its container, so that it fits a phone and a desk."""
    return {
        "$schema": SCHEMA,
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
    }


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers of 1, 2, 5 on a log axis, fewer where they would meet; [] lets Vega choose.

    Examples
    --------
    >>> log_ticks(0.03, 1.0), log_ticks(1e-5, 1.0, most=6)
    ([0.05, 0.1, 0.2, 0.5, 1.0], [1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if 2 <= len(inside) <= most:
            return inside
    return inside[:: math.ceil(len(inside) / most)] if inside else []


def rounded(value: float, digits: int = 4) -> float:
    """Few digits: a chart shows no more, and the file stays small."""
    return float(f"{value:.{digits}g}")


def tip(field: str, title: str, value_format: str = "") -> Spec:
    """One line of a tooltip: a field, what it is called, and how its number is written."""
    shown = {"format": value_format, "type": "quantitative"} if value_format else {}
    return {"field": field, "title": title, "type": "nominal"} | shown
