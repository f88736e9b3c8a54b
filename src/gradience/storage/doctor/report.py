"""A diagnosis as a page: where the bytes go, then each trouble by name with its command. Pure."""

from collections.abc import Iterator

from gradience.findings import Severity
from gradience.page import Page, Table, Text, Tone
from gradience.storage.doctor.finding_kinds import Trouble
from gradience.storage.doctor.records import (
    Diagnosis,
    ProgramSummary,
    TroubledFinding,
    WhereTo,
)
from gradience.units import format_size

_TONES: dict[str, Tone] = {
    Severity.ERROR: "bad",
    Severity.WARNING: "warn",
    Severity.INFO: "dim",
}


def page(diagnosis: Diagnosis) -> Page:
    """What the terminal shows."""
    return (
        *_headline(diagnosis),
        *_program(diagnosis.program),
        _places(diagnosis.places),
        *_troubles(diagnosis),
        *(Text(text=f"not known: {reason}", tone="dim") for reason in diagnosis.unasked),
    )


def _headline(diagnosis: Diagnosis) -> Iterator[Text]:
    counts = {s: sum(f.severity == s for f in diagnosis.findings) for s in Severity}
    words = [f"{n} {s}{'s' if n > 1 else ''}" for s, n in reversed(counts.items()) if n]
    grave = counts[Severity.ERROR] + counts[Severity.WARNING]
    yield Text(text=f"{diagnosis.interpreter} (Python {diagnosis.python})", tone="title")
    if not words:
        yield Text(text="HEALTHY: no findings.", tone="good")
    else:
        tone: Tone = "bad" if counts[Severity.ERROR] else "warn" if grave else "good"
        yield Text(text=", ".join(words), tone=tone)


def _program(program: ProgramSummary | None) -> Iterator[Text | Table]:
    if program is None:
        return
    yield Text(text=f"Program: {' '.join(program.command)}", tone="title")
    rows = [
        (s.name or s.how, s.value if s.value is not None else "(computed)", _line(s.line), s.how)
        for s in program.sets
    ]
    rows += [(p.keyword, p.value, _line(p.line), p.call) for p in program.places]
    if rows:
        yield Table(
            title="What the program sets",
            head=("name", "value", "line", "by"),
            rows=tuple(rows),
            left=frozenset({0, 1, 3}),
        )


def _line(number: int | None) -> str:
    return str(number) if number else "-"


def _places(places: tuple[WhereTo, ...]) -> Table:
    """One row for each path; libraries that share it side by side."""
    grouped: dict[tuple[str, str], list[WhereTo]] = {}
    for place in places:
        grouped.setdefault((place.purpose, place.path), []).append(place)
    rows = []
    for (purpose, path), group in grouped.items():
        first = group[0]
        rows.append(
            (
                purpose,
                path,
                "yes" if first.exists else "not yet",
                first.because,
                ", ".join(p.library for p in group),
                f"{first.mount} ({first.fs_type})" if first.mount else "-",
                "-" if first.free_bytes is None else format_size(first.free_bytes),
            )
        )
    ruled = sorted({place.library for place in places if not place.asked})
    return Table(
        title="Where the bytes go",
        head=("what", "path", "there", "decided by", "libraries", "disk", "free"),
        rows=tuple(rows),
        left=frozenset({0, 1, 2, 3, 4, 5}),
        spare=("libraries", "there"),
        note=f"Not asked, by the documented rule: {', '.join(ruled)}." if ruled else "",
    )


def _troubles(diagnosis: Diagnosis) -> Iterator[Text]:
    for trouble in Trouble:
        found = [f for f in diagnosis.findings if f.trouble == trouble]
        if found:
            yield Text(text=f"{trouble}", tone="title")
            for finding in found:
                yield from _finding(finding)


def _finding(finding: TroubledFinding) -> Iterator[Text]:
    yield Text(
        text=f"{finding.severity}: {finding.message} [{finding.code}]",
        tone=_TONES[finding.severity],
    )
    yield Text(text=f"  $ {finding.remedy}", tone="plain")
