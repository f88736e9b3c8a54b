"""`bench.html`: one page, offline, the answer first. Pure but for the chart library."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from gradience.bench.records import BenchReport, Verdict
from gradience.bench.report import charts
from gradience.bench.report.page import PASSED, TONES
from gradience.bench.report.rows import (
    Answer,
    Row,
    answers,
    claim_sentence,
    probe_of,
    rows,
    sentence,
    sizes_note,
    unit,
)
from gradience.bench.verdict import words
from gradience.html.frame import Figures, document
from gradience.html.markup import (
    Cell,
    Head,
    code,
    escape,
    name_cell,
    number_cell,
    prose,
    table,
    text_cell,
)
from gradience.html.wording import share
from gradience.page import count
from gradience.units import format_seconds, format_size, plural

_BADGES = {"good": ("", "✓"), "warn": ("look", "?"), "bad": ("broken", "✕")}
"""Class in the style sheet and sign by tone; the words say the same."""


def render(report: BenchReport, *, now: datetime) -> str:
    """One self-contained page; see `gradience.html.frame.document`.

    Raises
    ------
    MissingExtraError
        If vl-convert-python, which carries the chart library, is not installed.
    """
    figures = Figures()
    return document(
        title=report.name,
        kind="compression bench",
        body=_body(report, rows(report), figures),
        figures=figures,
        now=now,
    )


def _body(report: BenchReport, found: Sequence[Row], figures: Figures) -> Iterator[str]:
    yield f'<section class="adapter">{_headline(report, found)}'
    yield _notes(report)
    yield f"<h3>Verdicts</h3>{_key_numbers(report)}{_verdicts(report, found)}{_reasons(report)}"
    yield figures.add(charts.forest(report))
    yield f"<h3>Score against size</h3>{figures.row(charts.by_size(report, found))}"
    yield f"<h3>Behind the means</h3>{figures.row(charts.by_seed(report, found))}"
    yield figures.add(charts.won_and_lost(report)) + _components(report)
    yield f"<h3>Controls</h3>{_controls(report)}"
    yield f"<h3>Training and cost</h3>{figures.row(charts.training(report))}"
    yield figures.row(charts.cost(found)) + _adapters(report, found)
    if report.failures:
        yield f"<h3>Trials that failed</h3>{_failures(report)}"
    yield f"</section><section><h3>Provenance</h3>{_provenance(report)}{_trials(report)}</section>"


def _badge(decision: str) -> str:
    kind, sign = _BADGES[TONES[decision]]
    return (
        f'<span class="verdict {kind}"><span aria-hidden="true">{sign}</span> '
        f"{escape(decision)}</span>"
    )


def _headline(report: BenchReport, found: Sequence[Row]) -> str:
    told = answers(found)
    lines = "".join(
        f'<p class="headline answer">{_badge(_decision(answer))} '
        f"<span>{escape(sentence(answer, probe_of(found), report))}</span></p>"
        for answer in told
    )
    none = "" if told else '<p class="headline">No variant could be judged.</p>'
    return (
        f"<h1>{escape(report.name)}</h1>{lines}{none}"
        f'<p class="summary">{escape(claim_sentence(report))}</p>'
    )


def _decision(answer: Answer) -> str:
    """SAFE where some step is, else what stopped the first."""
    first = answer.steps[0].verdict
    if answer.smallest is not None or first is None:
        return "SAFE"
    return first.decision


def _notes(report: BenchReport) -> str:
    if not report.notes:
        return ""
    items = "".join(
        f'<li class="warning"><p><strong>note</strong> {prose(note)}</p></li>'
        for note in report.notes
    )
    return f'<h3>Read this first</h3><ul class="findings">{items}</ul>'


def _key_numbers(report: BenchReport) -> str:
    seeds = {score.seed for score in report.scores}
    seconds = sum(result.seconds for result in report.results)
    items = max((v.items for v in report.verdicts), default=0)
    clusters = max((v.clusters for v in report.verdicts), default=0)
    facts = [
        ("seeds", str(len(seeds)), ", ".join(map(str, sorted(seeds)))),
        ("items", str(items), f"in {clusters} clusters" if clusters != items else "independent"),
        ("margin", words.amount(report.claim.margin, binary=report.binary), report.metric),
        ("trials", str(len(report.results)), plural(len(report.failures), "failure")),
        ("work", format_seconds(seconds), "sum over trials"),
    ]
    body = "".join(
        f"<div><dt>{escape(title)}</dt><dd>{escape(value)}</dd>"
        f'<dd class="spread">{escape(more)}</dd></div>'
        for title, value, more in facts
    )
    return f'<dl class="numbers">{body}</dl>'


def _verdicts(report: BenchReport, found: Sequence[Row]) -> str:
    probe = probe_of(found)
    head = (
        Head(title="variant", numeric=False),
        Head(title="decision", numeric=False),
        Head(title=f"difference{unit(report)}", note=f"mean {report.metric} minus the probe's"),
        Head(title="lower", note="one-sided bound at the level"),
        Head(title="upper", note="one-sided bound at the level"),
        Head(title="p", note="of a loss of the margin or more"),
        Head(title="level", note="what p was held against"),
        Head(title="power", note="chance that the test passes at no loss"),
        Head(title="rank"),
        Head(title="bytes"),
        Head(title="of probe"),
    )
    body = [_verdict_row(row, row.verdict, probe, report) for row in found if row.verdict]
    return table(head, body, label="Verdicts")


def _verdict_row(row: Row, v: Verdict, probe: Row | None, report: BenchReport) -> tuple[Cell, ...]:
    part = row.nbytes / probe.nbytes if probe else None
    untested = "" if v.tested else " not tested"
    return (
        name_cell(row.name),
        Cell(markup=_badge(v.decision) + untested),
        *(_signed(x, report) for x in (v.difference, v.lower, v.upper)),
        number_cell(v.p_value, words.p_value(v.p_value)),
        number_cell(v.level, words.level(v.level)),
        number_cell(v.power, words.chance(v.power)),
        number_cell(row.ranks[2], row.rank),
        number_cell(row.nbytes, format_size(round(row.nbytes))),
        number_cell(part, share(part)),
    )


def _signed(value: float, report: BenchReport) -> Cell:
    return number_cell(value, words.bare(value, binary=report.binary))


def _reasons(report: BenchReport) -> str:
    """In sight for what is not SAFE, below a fold for what is: the table has those numbers."""
    safe = [v for v in report.verdicts if v.decision == "SAFE"]
    other = [v for v in report.verdicts if v.decision != "SAFE"]
    folded = f"<details><summary>Reasons of SAFE</summary>{_listed(safe)}</details>" if safe else ""
    return (_listed(other) if other else "") + folded


def _listed(verdicts: Sequence[Verdict]) -> str:
    items = "".join(
        f"<div><dt>{code(v.variant)}</dt><dd>{escape(v.reason)}</dd></div>" for v in verdicts
    )
    return f'<dl class="definitions">{items}</dl>'


def _components(report: BenchReport) -> str:
    head = (
        Head(title="variant", numeric=False),
        Head(title="standard error"),
        Head(title="df", note="Satterthwaite"),
        Head(title="sd of seeds"),
        Head(title="sd of items"),
        Head(title="sd of the rest"),
        Head(title="bootstrap", note="bounds, over seeds and items"),
        Head(title="McNemar p", note="exact, two-sided, seeds pooled"),
    )
    body = [
        (
            name_cell(v.variant),
            number_cell(v.standard_error),
            number_cell(v.df, f"{v.df:.1f}"),
            *(number_cell(v.components[k] ** 0.5) for k in ("seeds", "items", "residual")),
            number_cell(
                v.bootstrap_lower,
                " to ".join(
                    words.bare(x, binary=report.binary)
                    for x in (v.bootstrap_lower, v.bootstrap_upper)
                ),
            ),
            number_cell(v.mcnemar_p, None if v.mcnemar_p is None else words.p_value(v.mcnemar_p)),
        )
        for v in report.verdicts
    ]
    note = (
        '<p class="note">Standard deviations in units of the score. Bootstrap and McNemar are '
        "second read-outs: neither decides.</p>"
    )
    return note + table(head, body, label="Behind the verdicts")


def _controls(report: BenchReport) -> str:
    head = (
        Head(title="control", numeric=False),
        Head(title="result", numeric=False),
        Head(title="expected", numeric=False, wrap=True),
        Head(title="observed", numeric=False, wrap=True),
    )
    body = [
        (
            name_cell(c.variant),
            Cell(markup=_passed(c.passed)),
            *map(text_cell, (c.expectation, c.observed)),
        )
        for c in report.controls
    ]
    return table(head, body, label="Controls")


def _passed(passed: bool | None) -> str:
    if passed is None:
        return escape(PASSED[passed])
    kind = "" if passed else "broken"
    return f'<span class="verdict {kind}">{escape(PASSED[passed])}</span>'


def _adapters(report: BenchReport, found: Sequence[Row]) -> str:
    head = (
        Head(title="variant", numeric=False),
        Head(title=report.metric),
        Head(title="rank"),
        Head(title="parameters"),
        Head(title="bytes", note=sizes_note(found)),
        Head(title="error of dW", note="||dW - dW'||_F / ||dW||_F against the probe"),
        Head(title="seconds"),
    )
    body = [
        (
            name_cell(row.name),
            number_cell(row.score, words.score(row.score, binary=report.binary)),
            number_cell(row.ranks[2], row.rank),
            number_cell(row.parameters, count(round(row.parameters))),
            number_cell(row.nbytes, format_size(round(row.nbytes))),
            number_cell(row.error, share(row.error), note="" if row.error else "not measured"),
            number_cell(row.seconds, f"{row.seconds:.1f}"),
        )
        for row in found
    ]
    return table(head, body, label="Adapters", sortable=True)


def _failures(report: BenchReport) -> str:
    head = tuple(
        Head(title=title, numeric=False, wrap=title == "message")
        for title in ("variant", "seed", "trial", "message", "log")
    )
    body = [
        (
            name_cell(f.variant),
            text_cell(f.seed),
            name_cell(f.trial),
            text_cell(f.message),
            name_cell(f.log),
        )
        for f in report.failures
    ]
    return table(head, body, label="Trials that failed")


def _provenance(report: BenchReport) -> str:
    spec = report.results[0].trial.spec
    model = code(spec.model.id) + (
        f" at {code(spec.model.revision)}" if spec.model.revision else ""
    )
    facts: Mapping[str, str] = {
        "base model": model,
        "its fingerprint": code(spec.base),
        "task": code(spec.task.name),
        **{f"data: {name}": code(digest) for name, digest in spec.data.items()},
        "code": code(spec.code),
        "device": escape(spec.device),
        "versions": escape(", ".join(f"{k} {v}" for k, v in report.versions.items())),
        "to check": "<code>gradience bench verify DIR</code> computes every verdict again from the "
        "trials' own files",
    }
    items = "".join(
        f"<div><dt>{escape(title)}</dt><dd>{value}</dd></div>" for title, value in facts.items()
    )
    return f'<dl class="definitions">{items}</dl>'


def _trials(report: BenchReport) -> str:
    head = (
        Head(title="variant", numeric=False),
        Head(title="seed"),
        Head(title=report.metric),
        Head(title="seconds"),
        Head(title="trial", numeric=False),
        Head(title="adapter", numeric=False, note="fingerprint of weights and config"),
        Head(title="scores", numeric=False, note="BLAKE3 of item ids, scores and clusters"),
    )
    gone = set(report.evicted)
    body = [
        (
            name_cell(s.variant),
            number_cell(s.seed, str(s.seed)),
            number_cell(s.mean, words.score(s.mean, binary=report.binary)),
            number_cell(r.seconds, f"{r.seconds:.1f}"),
            name_cell(s.trial),
            Cell(
                markup=f"<code>{escape(r.adapter.fingerprint[:12])}</code>"
                + (" evicted" if s.trial in gone else ""),
                note=r.adapter.fingerprint,
            ),
            Cell(markup=f"<code>{escape(s.digest[:12])}</code>", note=s.digest),
        )
        for s, r in zip(report.scores, report.results, strict=True)
    ]
    more = (
        f"<p class='note'>{len(gone)} adapters were removed for the disk budget.</p>"
        if gone
        else ""
    )
    return f"<h4>Trials</h4>{more}{table(head, body, label='Trials', sortable=True, tall=True)}"
