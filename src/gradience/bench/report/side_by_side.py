"""Several benches as one page: a row per ladder, and the answer of each. Pure."""

from collections.abc import Iterator

from gradience.bench.records import BenchReport
from gradience.bench.report import page as one
from gradience.bench.report.aggregate import Benches
from gradience.bench.report.rows import Answer, Row, answers, probe_of, rows
from gradience.bench.verdict import words
from gradience.page import Page, Table, Text, percent
from gradience.units import format_size

_HEAD = (
    "bench",
    "model",
    "task",
    "seeds",
    "items",
    "ladder",
    "smallest SAFE",
    "rank",
    "bytes",
    "of probe",
    "difference (bounds)",
    "margin",
)


def page(benches: Benches) -> Page:
    """One bench as its own page, several side by side."""
    if len(benches.reports) == 1:
        return one.page(benches.reports[0])
    lines = [line for report in benches.reports for line in _rows(report)]
    notes = [
        Text(text=f"note: {report.name}: {note}", tone="warn")
        for report in benches.reports
        for note in report.notes
    ]
    table = Table(
        title=f"{len(benches.reports)} benches",
        head=_HEAD,
        rows=tuple(lines),
        left=frozenset({0, 1, 2, 5, 6}),
        spare=("model", "of probe", "items", "task"),
        note="The smallest step of each ladder that is SAFE at its own bench's margin; levels are "
        "shared within a bench, not over benches.",
    )
    return (table, *notes)


def _rows(report: BenchReport) -> Iterator[tuple[str, ...]]:
    found = rows(report)
    spec = report.results[0].trial.spec
    for answer in answers(found):
        first = answer.steps[0].verdict
        yield (
            report.name,
            spec.model.id,
            spec.task.name,
            str(first.seeds) if first else "-",
            str(first.items) if first else "-",
            answer.ladder,
            *_answer(answer, probe_of(found), report),
            words.amount(report.claim.margin, binary=report.binary),
        )


def _answer(answer: Answer, probe: Row | None, report: BenchReport) -> tuple[str, ...]:
    row = answer.smallest
    if row is None or row.verdict is None:
        if report.waiting:
            return "not judged", "-", "-", "-", "-"
        first = answer.steps[0].verdict
        return f"none ({first.decision})" if first else "none", "-", "-", "-", "-"
    v = row.verdict
    return (
        row.name,
        row.rank,
        format_size(round(row.nbytes)),
        percent(row.nbytes / probe.nbytes) if probe else "-",
        words.interval(v.difference, v.lower, v.upper, binary=report.binary),
    )
