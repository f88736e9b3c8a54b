"""The tables of the report: exact values behind rounded ones. Pure."""

from collections.abc import Sequence

from gradience.audit.aggregate import energy, types_and_all
from gradience.audit.html.wording import NO_PROOF, VERDICTS
from gradience.audit.metrics import METRICS
from gradience.audit.records import AdapterAudit, LayerAudit, Stats, Suggestion
from gradience.html.markup import (
    Cell,
    Head,
    code,
    escape,
    name_cell,
    number_cell,
    table,
    text_cell,
)
from gradience.html.wording import share
from gradience.page import count
from gradience.units import format_size, plural

_RULES = {
    "per_module": "each module its own",
    "uniform_median": "one for all, median",
    "uniform_p90": "one for all, p90",
    "uniform_max": "one for all, max",
}


def columns(audits: Sequence[AdapterAudit]) -> list[str]:
    """Metrics with a column: those marked so that were measured at least once."""
    return [n for n, m in METRICS.items() if m.column and any(n in a.overall for a in audits)]


def modules_table(audit: AdapterAudit, limit: int) -> str:
    """Every module, or the `limit` with the most energy."""
    total = sum(map(energy, audit.layers))
    shown = columns([audit])
    kept = {a.name for a in sorted(audit.layers, key=energy, reverse=True)[:limit]}
    layers = [a for a in audit.layers if a.name in kept]
    left_out = len(audit.layers) - len(layers)
    note = (
        f"<p class='note'>The {len(layers)} modules with the most energy; {left_out} more are in "
        "<code>gradience audit --json</code>.</p>"
        if left_out
        else ""
    )
    head = (
        Head(title="module", numeric=False),
        Head(title="type", numeric=False),
        Head(title="shape", note="out x in"),
        Head(title="rank"),
        Head(title="scale", note="what the loader multiplies B @ A with"),
        Head(title="parameters"),
        Head(title="energy", note="share of the squared Frobenius norm of the whole change"),
        *(_metric_head(name) for name in shown),
    )
    rows = (_module_row(layer, total, shown) for layer in layers)
    return note + table(head, rows, label="All modules", sortable=True, tall=True)


def _metric_head(name: str) -> Head:
    return Head(title=METRICS[name].title, note=METRICS[name].definition)


def _module_row(layer: LayerAudit, total: float, shown: Sequence[str]) -> tuple[Cell, ...]:
    out, into = layer.shape
    part = energy(layer) / total if total else None
    return (
        name_cell(layer.name),
        text_cell(layer.module_type),
        number_cell(out * into, f"{out} x {into}"),
        number_cell(layer.rank),
        number_cell(layer.scale),
        number_cell(layer.parameters, count(layer.parameters)),
        number_cell(part, share(part)),
        *(number_cell(layer.metrics.get(n), note=layer.unmeasured.get(n, "")) for n in shown),
    )


def types_table(audit: AdapterAudit) -> str:
    """Medians by module type."""
    shown = columns([audit])
    head = (
        Head(title="type", numeric=False),
        Head(title="modules"),
        Head(title="parameters"),
        Head(title="energy"),
        *(_metric_head(name) for name in shown),
    )
    rows = [
        (
            text_cell(group.name),
            number_cell(group.layers),
            number_cell(group.parameters, count(group.parameters)),
            number_cell(group.energy_share, share(group.energy_share)),
            *(_median(group.stats.get(name)) for name in shown),
        )
        for group in types_and_all(audit)
    ]
    note = '<p class="note">Medians over the modules of each type.</p>'
    return note + table(head, rows, label="By module type")


def _median(stats: Stats | None) -> Cell:
    return number_cell(stats.median if stats else None, note="" if stats else "not measured")


def suggestions_table(audit: AdapterAudit) -> str:
    """Truncations, the exact error of each, and what a server makes of it."""
    if not audit.suggestions:
        return (
            "<p>None: no truncation makes a module smaller, or a module has no spectrum to "
            "truncate.</p>"
        )
    head = (
        Head(
            title="energy kept",
            numeric=False,
            note="share of the squared Frobenius norm of each module",
        ),
        Head(title="rank per module", numeric=False),
        Head(title="rank", note="the largest over the modules"),
        Head(title="parameters"),
        Head(title="bytes"),
        Head(title="error of dW", note="||dW - dW_k||_F / ||dW||_F over the whole adapter"),
        Head(title="worst module"),
        Head(title="vLLM max_lora_rank", note="before → after"),
        Head(title="limits cleared", numeric=False, wrap=True),
    )
    rows = [_suggestion_row(s) for s in audit.suggestions]
    return f'<p class="note">{escape(NO_PROOF)}</p>{table(head, rows, label="Truncations")}'


def _suggestion_row(s: Suggestion) -> tuple[Cell, ...]:
    before, after = (str(r) if r else "none" for r in (s.server_rank_before, s.server_rank))
    return (
        number_cell(s.energy, f"{s.energy:.0%}"),
        text_cell(_RULES[s.rule]),
        number_cell(s.rank),
        number_cell(s.parameters, count(s.parameters)),
        number_cell(s.nbytes, format_size(s.nbytes)),
        number_cell(s.relative_error, share(s.relative_error)),
        number_cell(s.worst_error, share(s.worst_error), note=s.worst_module),
        number_cell(s.server_rank, f"{before} → {after}")
        if s.server_rank
        else Cell(markup=escape(f"{before} → {after}")),
        text_cell(", ".join(s.clears) or "-"),
    )


def comparison_table(audits: Sequence[AdapterAudit], names: Sequence[str]) -> str:
    """A row per adapter, linked to its section."""
    shown = columns(audits)
    head = (
        Head(title="adapter", numeric=False),
        Head(title="verdict", numeric=False),
        Head(title="findings"),
        Head(title="modules"),
        Head(title="rank", note="the largest"),
        Head(title="parameters"),
        Head(title="bytes"),
        *(_metric_head(name) for name in shown),
    )
    rows = []
    for i, (name, audit) in enumerate(zip(names, audits, strict=True), start=1):
        sign, word = VERDICTS[audit.verdict]
        rank = max((layer.rank for layer in audit.layers), default=None)
        rows.append(
            (
                Cell(markup=f'<a href="#adapter-{i}">{code(name)}</a>'),
                Cell(markup=f'<span class="verdict {audit.verdict}">{sign} {word}</span>'),
                number_cell(len(audit.findings)),
                number_cell(len(audit.layers)),
                number_cell(rank),
                number_cell(audit.parameters, count(audit.parameters)),
                number_cell(audit.byte_use.file, format_size(audit.byte_use.file)),
                *(_median(audit.overall.get(metric)) for metric in shown),
            )
        )
    note = '<p class="note">Metrics are medians over the modules of each adapter.</p>'
    return note + table(head, rows, label=plural(len(audits), "adapter"), sortable=True)


def definitions(audits: Sequence[AdapterAudit]) -> str:
    """Every metric that some number of the report is of, with its source."""
    used = [name for name in METRICS if any(name in a.overall for a in audits)]
    items = "\n".join(
        f"<div><dt>{escape(METRICS[n].title)} {code(n)}</dt>"
        f"<dd>{escape(METRICS[n].definition)} <cite>{escape(METRICS[n].source)}</cite></dd></div>"
        for n in used
    )
    return f'<dl class="definitions">{items}</dl>'
