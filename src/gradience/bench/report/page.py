"""A judged bench as a page to read, the answer first. Pure.

The terminal shows `page`; `bench.md` is `full_page`, which adds every number that was used.
"""

from collections.abc import Iterator, Sequence

from gradience.bench.records import BenchReport, Verdict
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
from gradience.page import Page, Table, Text, Tone, count, number, percent
from gradience.units import format_seconds, format_size, plural

TONES: dict[str, Tone] = {"SAFE": "good", "NOT SAFE": "bad", "UNDERPOWERED": "warn"}


def page(report: BenchReport, *, everything: bool = False) -> Page:
    """What the terminal shows: the reasons of what is not SAFE; `everything`: all reasons."""
    found = rows(report)
    return (
        *_headline(report, found),
        *_verdicts(report, found),
        *_reasons(report, everything=everything),
        *_controls(report),
        *_failures(report),
        _cost(report),
    )


def full_page(report: BenchReport) -> Page:
    """What `bench.md` holds: the page, and the numbers behind it."""
    found = rows(report)
    return (
        *page(report, everything=True),
        *_sizes(report, found),
        *_components(report),
        *_by_seed(report, found),
        *_provenance(report),
    )


def _headline(report: BenchReport, found: Sequence[Row]) -> Iterator[Text]:
    yield Text(text=report.name, tone="title")
    told = answers(found)
    for answer in told:
        tone = "good" if answer.smallest else _worst(answer)
        yield Text(text=sentence(answer, probe_of(found), report), tone=tone)
    if not told:
        yield Text(text="No variant could be judged.", tone="warn")
    for note in report.notes:
        yield Text(text=f"note: {note}", tone="warn")
    yield Text(text=claim_sentence(report), tone="dim")


def _worst(answer: Answer) -> Tone:
    first = answer.steps[0].verdict
    return TONES[first.decision] if first else "plain"


def _verdicts(report: BenchReport, found: Sequence[Row]) -> Iterator[Table]:
    probe = probe_of(found)
    judged = [(row, row.verdict) for row in found if row.verdict is not None]
    if not judged:
        return
    yield Table(
        title="Ladders, from the largest step down",
        head=(
            "variant",
            "decision",
            f"difference{unit(report)}",
            "lower",
            "upper",
            "p",
            "level",
            "power",
            "rank",
            "bytes",
            "of probe",
        ),
        rows=tuple(
            (
                row.name,
                v.decision + ("" if v.tested else " (not tested)"),
                *(_signed(x, report) for x in (v.difference, v.lower, v.upper)),
                words.p_value(v.p_value),
                words.level(v.level),
                words.chance(v.power),
                row.rank,
                format_size(round(row.nbytes)),
                percent(row.nbytes / probe.nbytes) if probe else "-",
            )
            for row, v in judged
        ),
        left=frozenset({0, 1}),
        spare=("upper", "of probe", "level", "rank"),
        note=f"difference: mean {report.metric} minus the probe's, over {_counts(judged[0][1])}; "
        "lower, upper: one-sided bounds at the level; p: of a loss of the margin or more; power: "
        "chance that the test passes at no loss.",
    )


def _counts(verdict: Verdict) -> str:
    clusters = f" in {verdict.clusters} clusters" if verdict.clusters != verdict.items else ""
    return f"{plural(verdict.seeds, 'seed')} and {verdict.items} items{clusters}"


def _reasons(report: BenchReport, *, everything: bool) -> Iterator[Text]:
    for v in report.verdicts:
        if everything or v.decision != "SAFE":
            yield Text(text=f"{v.variant}: {v.decision}. {v.reason}", tone="plain")


def _controls(report: BenchReport) -> Iterator[Table]:
    if report.controls:
        yield Table(
            title="Controls",
            head=("control", "result", "expected", "observed"),
            rows=tuple(
                (c.variant, PASSED[c.passed], c.expectation, c.observed) for c in report.controls
            ),
            left=frozenset({0, 1, 2, 3}),
        )


PASSED: dict[bool | None, str] = {True: "passed", False: "FAILED", None: "yardstick"}


def _failures(report: BenchReport) -> Iterator[Table]:
    if report.failures:
        yield Table(
            title="Trials that failed",
            head=("variant", "seed", "trial", "message", "log"),
            rows=tuple(
                (f.variant, str(f.seed), f.trial, f.message, f.log) for f in report.failures
            ),
            left=frozenset({0, 2, 3, 4}),
        )


def _cost(report: BenchReport) -> Text:
    seconds = sum(result.seconds for result in report.results)
    peak = max((result.peak_bytes for result in report.results), default=0)
    evicted = len(report.evicted)
    gone = f"; adapters of {evicted} evicted to stay in the disk budget" if evicted else ""
    return Text(
        text=f"{len(report.results)} trials, {format_seconds(seconds)} of work, largest process "
        f"{format_size(peak)}{gone}.",
        tone="dim",
    )


def _sizes(report: BenchReport, found: Sequence[Row]) -> Iterator[Table]:
    yield Table(
        title="Adapters",
        head=("variant", report.metric, "rank", "parameters", "bytes", "error of dW", "seconds"),
        rows=tuple(
            (
                row.name,
                words.score(row.score, binary=report.binary),
                row.rank,
                count(round(row.parameters)),
                format_size(round(row.nbytes)),
                percent(row.error),
                f"{row.seconds:.1f}",
            )
            for row in found
        ),
        note="Means over seeds. error of dW: ||dW - dW'||_F / ||dW||_F against the probe."
        + (f" {of_sizes}" if (of_sizes := sizes_note(found)) else ""),
    )


def _components(report: BenchReport) -> Iterator[Table]:
    if not report.verdicts:
        return
    yield Table(
        title="Behind the verdicts",
        head=(
            "variant",
            "standard error",
            "df",
            "sd of seeds",
            "sd of items",
            "sd of the rest",
            "bootstrap lower",
            "bootstrap upper",
            "McNemar p",
        ),
        rows=tuple(
            (
                v.variant,
                number(v.standard_error),
                f"{v.df:.1f}",
                *(number(v.components[k] ** 0.5) for k in ("seeds", "items", "residual")),
                _signed(v.bootstrap_lower, report),
                _signed(v.bootstrap_upper, report),
                "-" if v.mcnemar_p is None else words.p_value(v.mcnemar_p),
            )
            for v in report.verdicts
        ),
        note="Bootstrap over seeds and items and exact McNemar over seeds pooled are second "
        "read-outs: neither decides.",
    )


def _by_seed(report: BenchReport, found: Sequence[Row]) -> Iterator[Table]:
    judged = [row.verdict for row in found if row.verdict is not None]
    if not judged:
        return
    yield Table(
        title="By seed",
        head=("variant", "seed", f"difference{unit(report)}", "won", "lost", "same"),
        rows=tuple(
            (
                v.variant,
                seed,
                _signed(mean, report),
                str(v.won[seed]),
                str(v.lost[seed]),
                str(v.items - v.won[seed] - v.lost[seed]),
            )
            for v in judged
            for seed, mean in v.per_seed.items()
        ),
        note="won, lost, same: items that score higher, lower, and as the probe of that seed.",
    )


def _provenance(report: BenchReport) -> Iterator[Table]:
    if not report.results:
        return
    spec = report.results[0].trial.spec
    facts = {
        "base model": f"{spec.model.id}{'@' + spec.model.revision if spec.model.revision else ''}",
        "base fingerprint": spec.base,
        "task": spec.task.name,
        **{f"data: {name}": digest for name, digest in spec.data.items()},
        "code": spec.code,
        "device": spec.device,
        **report.versions,
    }
    yield Table(
        title="Provenance",
        head=("what", "value"),
        rows=tuple(facts.items()),
        left=frozenset({0, 1}),
    )
    gone = set(report.evicted)
    yield Table(
        title="Trials",
        head=("variant", "seed", "trial", report.metric, "adapter", "scores"),
        rows=tuple(
            (
                score.variant,
                str(score.seed),
                score.trial,
                words.score(score.mean, binary=report.binary),
                result.adapter.fingerprint + (" (evicted)" if score.trial in gone else ""),
                score.digest,
            )
            for score, result in zip(report.scores, report.results, strict=True)
        ),
        left=frozenset({0, 2, 4, 5}),
        note="adapter: fingerprint of weights and config; scores: BLAKE3 of item ids, scores and "
        "clusters.",
    )


def _signed(value: float, report: BenchReport) -> str:
    return words.bare(value, binary=report.binary)
