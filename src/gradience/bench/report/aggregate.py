"""Join benches: the seeds of one bench that ran in several places, or several benches side by side.

Two directories hold one bench when their probes differ in nothing but the seed and the environment
(versions, code, device): the same model, data, task, adapter and training. Pairs stay within one
directory, so a variant is never held against a probe of another machine.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gradience.bench.ledger import Ledger
from gradience.bench.plan.trials import content_key
from gradience.bench.records import PROBE, Bench, BenchReport, Failure, Trial, TrialResult, Variant
from gradience.bench.report.judged import history, lost_trials
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict.judge import judge
from gradience.errors import TrialResultError, UsageError

SCHEMA = "gradience.benches/v1"


class Benches(msgspec.Struct, frozen=True, kw_only=True):
    """Benches that were joined.

    Attributes
    ----------
    reports : tuple of BenchReport
        One per bench.
    directories : tuple of tuple of str
        Of each of them.
    """

    reports: tuple[BenchReport, ...]
    directories: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One directory."""

    root: Path
    bench: Bench
    results: tuple[TrialResult, ...]
    failures: tuple[Failure, ...]


def aggregate(roots: Sequence[Path]) -> Benches:
    """Join the runs in these directories.

    Raises
    ------
    ArtifactError
        If one is not the directory of a bench.
    UsageError
        If a directory has no result, or two of one bench claim different things.
    TrialResultError
        If results of one bench cannot be compared.
    """
    groups: dict[str, list[_Run]] = {}
    for root in roots:
        run = _read(root)
        groups.setdefault(_key(run), []).append(run)
    return Benches(
        reports=tuple(_join(runs) for runs in groups.values()),
        directories=tuple(tuple(str(run.root) for run in runs) for runs in groups.values()),
    )


def _read(root: Path) -> _Run:
    ledger = Ledger(root)
    bench = ledger.bench()
    results = ledger.results(bench.trials)
    if not any(result.trial.spec.variant.name == PROBE for result in results):
        raise UsageError(
            f"{root} holds no finished probe, so there is nothing to join",
            remedy="Run the bench there first, or leave the directory out.",
        )
    return _Run(root=root, bench=bench, results=results, failures=lost_trials(ledger, bench))


def _key(run: _Run) -> str:
    """The same for two runs of one bench."""
    spec = run.bench.trials[0].spec
    return content_key(msgspec.structs.replace(spec, seed=0, device=""))


def _join(runs: Sequence[_Run]) -> BenchReport:
    claim = _claim(runs)
    taken: list[TrialResult] = []
    notes: list[str] = []
    probes: dict[int, tuple[TrialResult, Path]] = {}
    for run in runs:
        mine = {r.trial.spec.seed: r for r in run.results if r.trial.spec.variant.name == PROBE}
        for seed, probe in mine.items():
            first, where = probes.setdefault(seed, (probe, run.root))
            if not _one(first, probe):
                notes.append(
                    f"Seed {seed} ran in {where} and in {run.root}, with other scores: what is in "
                    f"{run.root} is left out, as one seed twice is no two seeds."
                )
        for result in run.results:
            seed = result.trial.spec.seed
            if seed in mine and _one(probes[seed][0], mine[seed]):
                taken.append(result)
    results = _once(_relabelled(taken))
    names = ", ".join(dict.fromkeys(run.bench.settings.name for run in runs))
    failures = [f for run in runs for f in run.failures if not _made(f, results)]
    report = judge(
        name=names, claim=claim, results=results, failures=failures, waiting=_waiting(runs)
    )
    notes += dict.fromkeys(note for run in runs for note in history(run.bench))
    if len(runs) > 1:
        notes.append(f"Joined from {len(runs)} directories.")
    return msgspec.structs.replace(
        report,
        notes=(*report.notes, *notes),
        joined_from=tuple(str(run.root.absolute()) for run in runs),
    )


def _waiting(runs: Sequence[_Run]) -> list[str]:
    """Trials that one directory planned and none has done or failed at.

    By variant and seed: another machine may have done it, under the id that its device makes.
    """
    over = {result.trial.name for run in runs for result in run.results}
    over |= {f"{failure.variant} seed {failure.seed}" for run in runs for failure in run.failures}
    planned = {trial.name: run.root for run in reversed(runs) for trial in run.bench.trials}
    return [
        f"{name} in {root}" if len(runs) > 1 else name
        for name, root in planned.items()
        if name not in over
    ]


def _claim(runs: Sequence[_Run]) -> ClaimSettings:
    """The claim that all share: a margin cannot be chosen after the fact."""
    first = runs[0]
    for run in runs[1:]:
        if run.bench.settings.claim != first.bench.settings.claim:
            raise UsageError(
                f"{first.root} and {run.root} are runs of one bench with different claims: "
                f"{first.bench.settings.claim.words()} and {run.bench.settings.claim.words()}",
                remedy="Join runs of one claim only.",
            )
    return first.bench.settings.claim


def _one(first: TrialResult, other: TrialResult) -> bool:
    """Whether two results are of one trial, and say the same."""
    return first.trial.id == other.trial.id and first.items == other.items


def _relabelled(results: Sequence[TrialResult]) -> Iterator[TrialResult]:
    """The results with steps counted over all runs: one may have tested ranks that another has not.

    Raises
    ------
    TrialResultError
        If one name stands for two ways to make an adapter.
    """
    steps = _steps(result.trial.spec.variant for result in results)
    for result in results:
        spec = result.trial.spec
        variant = msgspec.structs.replace(spec.variant, step=steps.get(spec.variant.name, 0))
        changed = msgspec.structs.replace(spec, variant=variant)
        trial: Trial = msgspec.structs.replace(result.trial, spec=changed)
        yield msgspec.structs.replace(result, trial=trial)


def _steps(variants: Iterator[Variant]) -> Mapping[str, int]:
    ladders: dict[str, dict[str, Variant]] = {}
    for variant in variants:
        there = ladders.setdefault(variant.ladder, {}).setdefault(variant.name, variant)
        if msgspec.structs.replace(there, step=variant.step) != variant:
            raise TrialResultError(
                f"{variant.name} is made in different ways in these runs",
                remedy="Join runs whose variants of one name have one action, rank and training.",
            )
    return {
        name: step
        for label, ladder in ladders.items()
        if label  # the probe and the controls have no steps
        for step, name in enumerate(sorted(ladder, key=lambda n: _size(ladder[n])))
    }


def _size(variant: Variant) -> tuple[float, float, int]:
    """Sorts from the largest down."""
    return -(variant.rank or 0), -(variant.energy or 0), variant.step


def _once(results: Iterator[TrialResult]) -> list[TrialResult]:
    """One result per trial; of two runs of one trial the first."""
    return list({result.trial.id: result for result in reversed(list(results))}.values())


def _made(failure: Failure, results: Sequence[TrialResult]) -> bool:
    """Whether a trial that failed in one place was done in another."""
    return any(result.trial.id == failure.trial for result in results)
