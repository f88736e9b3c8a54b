"""The report of an audit: a section per adapter, several compared at the top."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from gradience.audit.html import charts, labels, sections, tables
from gradience.audit.html.spectra import spectra
from gradience.audit.records import AdapterAudit
from gradience.html.frame import Figures, document
from gradience.units import plural

_ROWS = 1500
"""Rows of module tables in one report; shared by its adapters."""


def render(audits: Sequence[AdapterAudit], *, now: datetime) -> str:
    """One self-contained page; see `gradience.html.frame.document`.

    Parameters
    ----------
    audits : sequence of AdapterAudit
        One section each; several are compared at the top.
    now : datetime
        Aware; printed as the date of the report.

    Raises
    ------
    MissingExtraError
        If vl-convert-python, which carries the chart library, is not installed.
    """
    names = labels.sources([audit.source for audit in audits])
    figures = Figures()
    return document(
        title=names[0] if len(audits) == 1 else plural(len(audits), "adapter"),
        kind="adapter audit",
        body=_body(audits, names, figures),
        figures=figures,
        now=now,
    )


def _body(audits: Sequence[AdapterAudit], names: Sequence[str], figures: Figures) -> Iterator[str]:
    if len(audits) != 1:
        yield f"<section><h1>{plural(len(audits), 'adapter')} compared</h1>"
        yield tables.comparison_table(audits, names)
        yield figures.row(charts.comparison(audits, names)) + "</section>"
    for i, (audit, name) in enumerate(zip(audits, names, strict=True), start=1):
        rows = max(50, _ROWS // len(audits))
        yield f'<section class="adapter" id="adapter-{i}">'
        yield from _adapter(audit, name, figures, level=1 if len(audits) == 1 else 2, rows=rows)
        yield "</section>"
    yield f"<section><h3>Definitions</h3>{sections.columns_note(audits)}</section>"


def _adapter(
    audit: AdapterAudit, name: str, figures: Figures, *, level: int, rows: int
) -> Iterator[str]:
    yield sections.headline(audit, name, level=level)
    yield f"<h3>Findings</h3>{sections.findings(audit)}"
    yield f"<h3>Key numbers</h3>{sections.key_numbers(audit)}{tables.types_table(audit)}"
    yield f"<h3>What it learned</h3>{figures.add(spectra(audit))}"
    yield figures.add(charts.energy_map(audit)) + figures.add(charts.energy_bars(audit))
    yield f"<h3>Beside the base model</h3>{sections.udr_text(audit)}"
    yield figures.add(charts.udr_map(audit)) + figures.add(charts.udr_strip(audit))
    yield f"<h3>Where the bytes are</h3>{sections.bytes_text(audit)}"
    yield figures.row(charts.byte_bars(audit))
    yield f"<h3>Truncations worth testing</h3>{sections.suggestions(audit)}"
    yield f"<h3>All modules</h3>{tables.modules_table(audit, rows)}"
    yield f"<h3>Provenance</h3>{sections.provenance(audit)}"
