"""Compute the verdicts of a report again, from the trials' own files, and say what differs.

The report names its trials, each with a digest of its scores; a trial's id is a digest of what
determines it; the claim stands in `settings.json` too. So a changed score, a swapped file, a result
left out and a margin changed afterwards each come to light. A joined report is joined again from
its runs, each of which is verified by itself first.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gradience import artifacts
from gradience.bench.ledger import SMOKE, Ledger
from gradience.bench.plan.trials import trial_id
from gradience.bench.records import (
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    Bench,
    BenchReport,
    TrialResult,
    Verdict,
)
from gradience.bench.report.aggregate import aggregate
from gradience.bench.verdict.judge import judge
from gradience.errors import ArtifactError, GradienceError, TrialResultError

SCHEMA = "gradience.bench_verify/v1"

_BOOTSTRAP = ("bootstrap_lower", "bootstrap_upper")


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What came of computing a report again.

    Attributes
    ----------
    directory : str
    name : str
        Of the bench.
    trials : int
        Results that were read.
    decisions : mapping of str to str
        As computed again, by variant; empty where the results cannot be compared.
    differences : tuple of str
        What is not as the report says; none means that it holds.
    notes : tuple of str
        What was seen beside it and speaks for or against nothing.
    """

    directory: str
    name: str
    trials: int
    decisions: dict[str, str]
    differences: tuple[str, ...]
    notes: tuple[str, ...]


def verify(root: Path) -> Verification:
    """Hold `bench.json` against `trials/*/result.json`.

    Raises
    ------
    ArtifactError
        If there is no readable `bench.json`.
    MissingExtraError
        Without scipy.
    """
    report = read_report(root)
    return _of_runs(root, report) if report.joined_from else _of_trials(root, report)


def _of_runs(root: Path, report: BenchReport) -> Verification:
    """A joined report against the directories that it names."""
    runs = tuple(map(Path, report.joined_from))
    differences: list[str] = []
    for run in runs:
        try:
            differences += (f"{run}: {difference}" for difference in verify(run).differences)
        except ArtifactError as error:
            differences.append(str(error))
    again: BenchReport | None = None
    try:
        again, *others = aggregate(runs).reports
        if others:
            differences.append(f"its {len(runs)} runs are {len(others) + 1} benches, not one")
    except GradienceError as error:
        differences.append(f"its runs cannot be joined: {error}")
    if again is not None:
        differences += _changed_results(again, report)
        differences += _reports(again, report)
    return Verification(
        directory=str(root),
        name=report.name,
        trials=len(again.results) if again else 0,
        decisions={v.variant: v.decision for v in again.verdicts} if again else {},
        differences=tuple(differences),
        notes=(f"Joined again from {', '.join(report.joined_from)}.",),
    )


def _changed_results(again: BenchReport, report: BenchReport) -> Iterator[str]:
    """Trials of a joined report that are not those of its runs."""
    told = {result.trial.id: result for result in report.results}
    for result in again.results:
        if told.pop(result.trial.id, None) != result:
            yield f"trial {result.trial.id} ({result.trial.name}) is not as bench.json says"
    yield from (f"trial {name} is in bench.json alone" for name in told)


def _of_trials(root: Path, report: BenchReport) -> Verification:
    bench, notes = _settings(root)
    results: list[TrialResult] = []
    differences = list(_claim(report, bench))
    accepted = bench.accepted if bench is not None else {}
    for told in report.results:
        found = _read(root, told.trial.id)
        if isinstance(found, str):
            differences.append(found)
            continue
        differences += _of_trial(found, told, accepted)
        results.append(msgspec.structs.replace(found, trial=told.trial))
    left_out, beside = _left_out(root, report, bench)
    if beside:
        notes.append(f"{beside} results of other settings or software lie beside these.")
    again = None
    try:
        again = judge(
            name=report.name,
            claim=report.claim,
            results=results,
            failures=report.failures,
            evicted=report.evicted,
            waiting=report.waiting,
        )
    except TrialResultError as error:
        differences.append(f"the results cannot be judged: {error}")
    return Verification(
        directory=str(root),
        name=report.name,
        trials=len(results),
        decisions={v.variant: v.decision for v in again.verdicts} if again else {},
        differences=(*differences, *left_out, *(_reports(again, report) if again else ())),
        notes=tuple(notes),
    )


def read_report(root: Path) -> BenchReport:
    """The `bench.json` of a directory.

    Raises
    ------
    ArtifactError
        If there is none, or it cannot be read.
    """
    path = root / "bench.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        if (root / "settings.json").is_file() and not path.exists():
            raise ArtifactError(
                f"{root} holds a bench that has no report yet",
                remedy="Run its `gradience bench --config ... --output-dir` again: what is done "
                "stays done, and the report comes at the end.",
            ) from error
        smoke = root / SMOKE / path.name
        if smoke.is_file() and not path.exists():
            raise ArtifactError(
                f"{root} holds a smoke run and no bench",
                remedy=f"gradience bench verify {smoke.parent} verifies that; its verdicts "
                "mean nothing.",
            ) from error
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror or error}",
            remedy="Name the directory that was given as `gradience bench --output-dir`.",
        ) from error
    return artifacts.decode(data, REPORT_SCHEMA, BenchReport, source=str(path))


def _settings(root: Path) -> tuple[Bench | None, list[str]]:
    """The plan beside the report, or the note that it is not there to compare with."""
    try:
        return Ledger(root).bench(), []
    except ArtifactError as error:
        return None, [f"The claim was not held against settings.json: {error}."]


def _claim(report: BenchReport, bench: Bench | None) -> Iterator[str]:
    if bench is None:
        return
    for field in msgspec.structs.fields(type(report.claim)):
        told = getattr(report.claim, field.name)
        written = getattr(bench.settings.claim, field.name)
        if told != written:
            yield f"claim.{field.name} is {told} in bench.json and {written} in settings.json"


def _read(root: Path, name: str) -> TrialResult | str:
    """The result in the directory of a trial, or what is wrong with it."""
    path = Ledger(root).paths(name).result
    try:
        data = path.read_bytes()
        return artifacts.decode(data, RESULT_SCHEMA, TrialResult, source=_below(path, root))
    except OSError as error:
        return f"{_below(path, root)} cannot be read: {error.strerror or error}"
    except ArtifactError as error:
        return str(error)


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root))


def _of_trial(found: TrialResult, told: TrialResult, accepted: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the file of one trial, beside its scores."""
    name = f"trials/{told.trial.id}/result.json"
    if found.trial.id != told.trial.id:
        yield f"{name} holds trial {found.trial.id}"
        return
    if trial_id(found.trial.spec, found.trial.needs) != found.trial.id:
        yield f"{name}: its spec does not make the id {found.trial.id}"
    # By its id and not by its text: names and paths are labels, which a later plan may change.
    if told.trial.id not in accepted and (
        trial_id(told.trial.spec, told.trial.needs) != told.trial.id
    ):
        yield f"{name} is of another spec than bench.json says"
    for field in msgspec.structs.fields(TrialResult):
        if field.name not in ("trial", "items") and getattr(found, field.name) != getattr(
            told, field.name
        ):
            yield f"{name}: {field.name} is not what bench.json says"


def _left_out(root: Path, report: BenchReport, bench: Bench | None) -> tuple[tuple[str, ...], int]:
    """Results of this plan that the report is silent about, and how many there are of others."""
    told = {result.trial.id for result in report.results}
    planned = {trial.id: trial.name for trial in bench.trials} if bench is not None else {}
    there = sorted(path.parent.name for path in root.glob("trials/*/result.json"))
    silent = [name for name in there if name in planned and name not in told]
    beside = sum(name not in planned and name not in told for name in there)
    return tuple(
        f"trials/{name}/result.json ({planned[name]}) is not in bench.json" for name in silent
    ), beside


def _reports(again: BenchReport, report: BenchReport) -> Iterator[str]:
    """What a report computed again says otherwise."""
    digests = {score.trial: score for score in report.scores}
    for score in again.scores:
        told = digests.get(score.trial)
        if told is None or told.digest != score.digest:
            yield (
                f"the scores of trial {score.trial} ({score.variant} seed {score.seed}) are not "
                "those of bench.json"
            )
        elif not _close(told.mean, score.mean):
            yield f"the mean of trial {score.trial} is {score.mean:.6g}, not {told.mean:.6g}"
    yield from _verdicts(again, report)
    controls = {control.variant: control for control in report.controls}
    for control in again.controls:
        if controls.pop(control.variant, None) != control:
            yield f"control {control.variant}: computed again it {_outcome(control.passed)}"
    yield from (f"control {name} is in bench.json alone" for name in controls)
    yield from (f"bench.json leaves out: {n}" for n in again.notes if n not in report.notes)


def _outcome(passed: bool | None) -> str:
    return {True: "passes", False: "fails", None: "is another yardstick"}[passed]


def _verdicts(again: BenchReport, report: BenchReport) -> Iterator[str]:
    told = {verdict.variant: verdict for verdict in report.verdicts}
    for verdict in again.verdicts:
        before = told.pop(verdict.variant, None)
        if before is None:
            yield f"{verdict.variant} has no verdict in bench.json; it is {verdict.decision}"
            continue
        changed = _changed(before, verdict)
        if changed:
            yield f"{verdict.variant}, computed again: {'; '.join(changed)}"
    yield from (f"the verdict on {name} is in bench.json alone" for name in told)


def _changed(before: Verdict, now: Verdict) -> list[str]:
    """Fields that differ, with both values where they are short."""
    # A newer numpy may draw otherwise; what decides does not rest on draws.
    loose = dict.fromkeys(_BOOTSTRAP, 0.25 * now.standard_error)
    names = [
        field.name
        for field in msgspec.structs.fields(Verdict)
        if not _same(
            getattr(before, field.name), getattr(now, field.name), loose.get(field.name, 0.0)
        )
    ]
    if len(names) > 1 and "reason" in names:
        names.remove("reason")  # it holds the numbers that follow
    return [_both(name, getattr(before, name), getattr(now, name)) for name in names]


def _both(name: str, was: object, now: object) -> str:
    if isinstance(now, dict):
        return name
    shown = (f"{x:.4g}" if isinstance(x, float) else str(x) for x in (now, was))
    return "{} {} (bench.json: {})".format(name, *shown)


def _same(was: Any, now: Any, loose: float) -> bool:
    if isinstance(was, float) and isinstance(now, float):
        return _close(was, now, loose)
    if isinstance(was, dict) and isinstance(now, dict):
        return was.keys() == now.keys() and all(_same(was[k], now[k], loose) for k in was)
    return bool(was == now)


def _close(was: float, now: float, loose: float = 0.0) -> bool:
    """Equal but for the order in which a machine adds."""
    return math.isclose(was, now, rel_tol=1e-9, abs_tol=max(1e-12, loose))
