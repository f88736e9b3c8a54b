"""The report of an output directory, from what lies there alone."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from gradience.bench.ledger import Ledger, State
from gradience.bench.records import Bench, BenchReport, Failure
from gradience.bench.verdict import words
from gradience.bench.verdict.judge import judge


def judged(root: Path) -> BenchReport | None:
    """Judge what is done in an output directory; None where no trial is.

    Raises
    ------
    ArtifactError
        If `settings.json` or a result is missing or cannot be read.
    TrialResultError
        If results cannot be compared with one another.
    """
    ledger = Ledger(root)
    bench = ledger.bench()
    results = ledger.results(bench.trials)
    if not results:
        return None
    failures = lost_trials(ledger, bench)
    over = {result.trial.id for result in results} | {failure.trial for failure in failures}
    report = judge(
        name=bench.settings.name,
        claim=bench.settings.claim,
        results=results,
        failures=failures,
        evicted=[trial.id for trial in bench.trials if ledger.evicted(trial.id)],
        waiting=[trial.name for trial in bench.trials if trial.id not in over],
    )
    return msgspec.structs.replace(report, notes=(*report.notes, *_notes(bench)))


def lost_trials(ledger: Ledger, bench: Bench) -> tuple[Failure, ...]:
    """Trials without a result: those that failed, and those whose probe did."""
    failed = {failure.trial: failure for failure in ledger.failures(bench.trials)}
    trials = {trial.id: trial for trial in bench.trials}
    for trial in bench.trials:
        lost = next((need for need in trial.needs if ledger.blocked(need)), None)
        if lost is not None and ledger.state(trial.id) is State.PENDING:
            what = "failed" if lost in failed else "could not be trained again for its adapter"
            failed[trial.id] = Failure(
                trial=trial.id,
                variant=trial.spec.variant.name,
                seed=trial.spec.seed,
                message=f"it needs {trials[lost].name}, which {what}",
                log=str(ledger.paths(lost).log.relative_to(ledger.root)),
            )
    return tuple(failed.values())


def _notes(bench: Bench) -> list[str]:
    """What the results alone do not tell: software that was accepted, and the history."""
    told = []
    if bench.accepted:
        what = "; ".join(sorted(set(bench.accepted.values())))
        told.append(
            f"{len(bench.accepted)} of {len(bench.trials)} results come from other software and "
            f"were accepted on demand: {what}."
        )
    return [*told, *history(bench)]


def history(bench: Bench) -> list[str]:
    """Notes on what was decided with results in sight: another claim, other seeds."""
    told = []
    if bench.earlier_claims:
        before = "; ".join(claim.words() for claim in bench.earlier_claims)
        told.append(
            f"The claim was changed after there were results: before, it was {before}. A margin "
            "that is chosen after the fact proves less."
        )
    return [*told, *_looks(bench)]


def _looks(bench: Bench) -> Iterator[str]:
    """Looks at other seeds before this one, and what is left of the level.

    Looks that share their items and most of their seeds err together more often than not; that
    the sum is not exceeded is all that holds whatever they share (Bonferroni).
    """
    *earlier, _ = bench.looks or ((),)
    if not earlier:
        return
    claim, count = bench.settings.claim, len(bench.looks)
    # Of a claim that was changed it is not known which looks were held against it.
    spent = max(one.level_of_look for one in (claim, *bench.earlier_claims)) * len(earlier)
    chance = spent + claim.level_of_look
    seeds = "; ".join(", ".join(map(str, look)) for look in earlier)
    told = f"This is look {count}: verdicts were computed here before with other seeds ({seeds})."
    if chance <= claim.level * (1 + 1e-9):  # rounding
        yield f"{told} The claim allows for {claim.looks}, and each has its part of the level."
        return
    why = (
        f"The claim allows for {'one' if claim.looks == 1 else claim.looks}"
        if count > claim.looks
        else "The claim was changed, and looks before may have had a larger part of the level"
    )
    yield (
        f"{told} {why}, so the level of {words.level(claim.level)} does "
        "not hold: what loses the margin is SAFE at one of the looks with a chance of up to "
        f"{words.level(min(1.0, chance))}. Whoever means to add seeds writes "
        "claim.looks before the first look."
    )
