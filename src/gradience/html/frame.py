"""A report as one file: text and tables that read without scripts, charts drawn over them.

Nothing of an adapter is trusted. Its texts are escaped, its data lies in JSON blocks that hold no
`<`, and a content security policy lets only the two scripts run whose digests it names, without
eval, and lets nothing load from anywhere.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

from gradience import __version__
from gradience.errors import of_an_extra
from gradience.html.markup import escape
from gradience.html.spec import Chart

_LICENCE = (
    "Charts: Vega, Vega-Lite and Vega-Embed, (c) University of Washington Interactive Data Lab "
    "and contributors, BSD 3-Clause."
)


def document(
    *, title: str, kind: str, body: Iterable[str], figures: "Figures", now: datetime
) -> str:
    """One self-contained page: opened from disk, it asks the network for nothing.

    Parameters
    ----------
    title : str
        Of the window.
    kind : str
        What the page is: `adapter audit`.
    body : iterable of str
        Markup, escaped by who made it.
    figures : Figures
        That `body` was made with.
    now : datetime
        Aware; printed as the date of the report.

    Returns
    -------
    str
        HTML, to be written as UTF-8. About 0.9 MB of it is the chart library.

    Raises
    ------
    MissingExtraError
        If vl-convert-python, which carries the chart library, is not installed.
    """
    library = _chart_library()
    script = _asset("report.js")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(library, script)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta name="generator" content="gradience {escape(__version__)}">',
            f"<title>{escape(title)} - Gradience {escape(kind.rsplit(maxsplit=1)[-1])}</title>",
            f"<style>{_asset('style.css')}</style>",
            "</head>",
            "<body>",
            f'<header><p class="kind">Gradience <span>{escape(kind)}</span></p>{_date(now)}'
            "</header>",
            "<main>",
            *body,
            "</main>",
            f"<footer><p>gradience {escape(__version__)}. {escape(_LICENCE)}</p></footer>",
            *figures.data,
            f"<!-- {_LICENCE} -->",
            f"<script>{library}</script>",
            f"<script>{script}</script>",
            "</body>",
            "</html>\n",
        ]
    )


class Figures:
    """Numbers the charts of a page and keeps their data for its end."""

    def __init__(self) -> None:
        self.data: list[str] = []

    def add(self, chart: Chart | None) -> str:
        """The figure that will show a chart; "" for none."""
        if chart is None:
            return ""
        name = f"spec-{len(self.data) + 1}"
        self.data.append(
            f'<script type="application/json" id="{name}">{_json(chart.spec)}</script>'
        )
        caption = f"<p>{escape(chart.caption)}</p>" if chart.caption else ""
        return (
            "<figure>"
            f"<figcaption><h4>{escape(chart.title)}</h4>{caption}</figcaption>"
            f'<div class="chart" data-spec="{name}" data-renderer="{chart.renderer}">'
            f"<noscript><p>The chart needs JavaScript; the tables hold its numbers.</p></noscript>"
            f"</div></figure>"
        )

    def row(self, found: Iterable[Chart]) -> str:
        """Figures side by side where there is room."""
        return f'<div class="row">{"".join(map(self.add, found))}</div>'


def _date(now: datetime) -> str:
    shown = now.strftime("%Y-%m-%d %H:%M %Z").strip()
    return f'<p><time datetime="{now.isoformat(timespec="seconds")}">{escape(shown)}</time></p>'


def _json(data: Any) -> str:
    """JSON that no HTML parser can leave: ASCII, and none of `<`, `>`, `&`.

    Raises
    ------
    ValueError
        On NaN or infinity, which JSON has not.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    """Only these scripts; styles inline, which Vega's SVG needs; nothing from any address.

    Blocks of type application/json are data and need no leave. Vega runs with its expression
    interpreter, so 'unsafe-eval' is not needed.
    """
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script; two seconds to make, so made once."""
    with of_an_extra(
        "the HTML report needs vl-convert-python, which carries the chart library",
        remedy='pip install "gradience[html]"',
    ):
        import vl_convert  # noqa: PLC0415 - an extra; 60 MB
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a function its names cannot meet those of the page. In JavaScript strings "\/" is "/".
    safe = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f'(function(){{"use strict";{safe}\n}})();'


def _asset(name: str) -> str:
    return resources.files("gradience.html").joinpath(name).read_text(encoding="utf-8")
