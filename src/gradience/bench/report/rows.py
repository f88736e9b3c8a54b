"""What every form of the report shows of a variant, gathered once. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gradience.bench.records import PROBE, BenchReport, Control, TrialResult, Verdict
from gradience.bench.verdict import words
from gradience.units import format_size, plural

_INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant: its verdict or control, and means over its seeds.

    Attributes
    ----------
    score : float
        Mean over items and seeds.
    by_seed : mapping of int to float
        Mean score of each seed.
    nbytes, parameters, seconds : float
    ranks : (int, float, int)
        Smallest, mean and largest over modules and seeds.
    error : float or None
        ||dW - dW'||_F / ||dW||_F against the probe.
    """

    name: str
    action: str
    verdict: Verdict | None
    control: Control | None
    score: float
    by_seed: Mapping[int, float]
    nbytes: float
    parameters: float
    seconds: float
    ranks: tuple[int, float, int]
    error: float | None

    @property
    def rank(self) -> str:
        """`8`, or `2 to 9` where modules differ."""
        low, _, high = self.ranks
        return str(high) if low == high else f"{low} to {high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a ladder came to: its smallest SAFE step, or none."""

    ladder: str
    steps: tuple[Row, ...]
    smallest: Row | None


def rows(report: BenchReport) -> tuple[Row, ...]:
    """Every variant with a result, in the order of the report: probe, ladders, controls."""
    verdicts = {v.variant: v for v in report.verdicts}
    controls = {c.variant: c for c in report.controls}
    scores: dict[str, dict[int, float]] = {}
    for one in report.scores:
        scores.setdefault(one.variant, {})[one.seed] = one.mean
    results: dict[str, list[TrialResult]] = {}
    for result in report.results:
        results.setdefault(result.trial.spec.variant.name, []).append(result)
    return tuple(
        _row(name, found, scores[name], verdicts.get(name), controls.get(name))
        for name, found in results.items()
    )


def _row(
    name: str,
    results: Sequence[TrialResult],
    scores: Mapping[int, float],
    verdict: Verdict | None,
    control: Control | None,
) -> Row:
    adapters = [result.adapter for result in results]
    ranks = [rank for adapter in adapters for rank in adapter.ranks.values()] or [0]
    errors = [a.relative_error for a in adapters if a.relative_error is not None]
    return Row(
        name=name,
        action=results[0].trial.spec.variant.action,
        verdict=verdict,
        control=control,
        score=fmean(scores.values()),
        by_seed=scores,
        nbytes=fmean(_size(result) for result in results),
        parameters=fmean(a.parameters for a in adapters),
        seconds=fmean(result.seconds for result in results),
        ranks=(min(ranks), fmean(ranks), max(ranks)),
        error=fmean(errors) if errors else None,
    )


def _size(result: TrialResult) -> int:
    """Bytes of an adapter; of the int8 yardstick, those it would have (`factor_bytes`)."""
    adapter = result.adapter
    on_disk = adapter.factor_bytes_on_disk
    if on_disk is None:  # of an earlier release, which wrote what int8 stands for in float32
        int8 = result.trial.spec.variant.action == _INT8
        on_disk = 4 * adapter.parameters if int8 else adapter.factor_bytes
    return adapter.nbytes - on_disk + adapter.factor_bytes


def sizes_note(found: Sequence[Row]) -> str:
    """What the column of bytes counts; empty where it is the files."""
    named = ", ".join(row.name for row in found if row.action == _INT8)
    if not named:
        return ""
    return (
        f"bytes of {named}: as int8 with a float32 scale for each direction; no format of "
        "adapters holds that, so the file has the numbers they stand for, at full size."
    )


def probe_of(found: Sequence[Row]) -> Row | None:
    """The probe's row; None where no probe has a result."""
    return next((row for row in found if row.name == PROBE), None)


def answers(found: Sequence[Row]) -> tuple[Answer, ...]:
    """The answer of every ladder."""
    ladders: dict[str, list[Row]] = {}
    for row in found:
        if row.verdict is not None:
            ladders.setdefault(row.verdict.ladder, []).append(row)
    return tuple(
        Answer(
            ladder=name,
            steps=tuple(steps),
            smallest=next((r for r in reversed(steps) if _decision(r) == "SAFE"), None),
        )
        for name, steps in ladders.items()
    )


def _decision(row: Row) -> str:
    return row.verdict.decision if row.verdict else ""


def sentence(answer: Answer, probe: Row | None, report: BenchReport) -> str:
    """The answer of a ladder in one sentence."""
    row = answer.smallest
    if report.waiting:
        return f"{answer.ladder}: not judged yet, {plural(len(report.waiting), 'trial')} to go."
    if row is None or row.verdict is None:
        first = answer.steps[0]
        return f"{answer.ladder}: nothing is SAFE; {first.name} is {_decision(first)}."
    size = format_size(round(row.nbytes))
    if probe is not None:
        size += (
            f", {row.nbytes / probe.nbytes:.0%} of the probe's {format_size(round(probe.nbytes))}"
        )
    return (
        f"{answer.ladder}: {row.name} is the smallest that is SAFE: rank {row.rank}, {size}; "
        f"{difference(row.verdict, report)}."
    )


def difference(verdict: Verdict, report: BenchReport) -> str:
    """The measured difference with its bounds."""
    return words.interval(verdict.difference, verdict.lower, verdict.upper, binary=report.binary)


def unit(report: BenchReport) -> str:
    """What a head adds to the name of a column of differences."""
    return ", points" if report.binary else ""


def claim_sentence(report: BenchReport) -> str:
    """What SAFE means here."""
    claim = report.claim
    looks = f" ({words.level(claim.level_of_look)} at each of {claim.looks} looks)"
    ladders = len({verdict.ladder for verdict in report.verdicts})
    over = f" over all {ladders} ladders" if ladders > 1 else ""
    return (
        f"SAFE means: a loss of {words.amount(claim.margin, binary=report.binary)} of "
        f"{report.metric} is ruled out at a one-sided level of {words.level(claim.level)}"
        f"{over}{looks if claim.looks > 1 else ''}, by a test with "
        f"at least {words.chance(claim.power)} power at no loss."
    )
