"""The verdicts of a bench from its results and its claim alone: pure, and the same every time."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
from blake3 import blake3

from gradience.bench.records import (
    PROBE,
    BenchReport,
    Control,
    Failure,
    Items,
    TrialResult,
    TrialScore,
    Verdict,
)
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict import controls as control_rules
from gradience.bench.verdict import decide, ladders, notes, readouts
from gradience.bench.verdict.decide import Decided
from gradience.bench.verdict.estimate import Estimate, estimate
from gradience.bench.verdict.pairing import Paired, Scored, check
from gradience.units import plural


def judge(
    *,
    name: str,
    claim: ClaimSettings,
    results: Sequence[TrialResult],
    failures: Sequence[Failure] = (),
    evicted: Sequence[str] = (),
    waiting: Sequence[str] = (),
) -> BenchReport:
    """Judge a bench.

    Parameters
    ----------
    name : str
        Of the bench.
    claim : ClaimSettings
        What SAFE means, as it was written down before the first trial.
    results : sequence of TrialResult
        With their items, in any order.
    failures : sequence of Failure
        Trials that have no result; they become notes.
    evicted : sequence of str
        Ids of trials whose adapter is gone.
    waiting : sequence of str
        Names of trials that are planned and have not run; while there are any, nothing is judged.

    Raises
    ------
    TrialResultError
        If the results cannot be compared with one another.
    MissingExtraError
        Without scipy.
    """
    scored = check(results)
    controls = control_rules.judge(scored, claim)
    verdicts = _withhold(_verdicts(scored, claim), controls, _failed_seeds(scored, failures))
    if waiting:
        verdicts = tuple(_not_judged(verdict, len(waiting)) for verdict in verdicts)
    ordered = [r for found in scored.by_variant.values() for r in found.values()]
    return BenchReport(
        name=name,
        claim=claim,
        metric=results[0].metric,
        binary=scored.binary,
        results=tuple(msgspec.structs.replace(r, items=Items(ids=(), scores=())) for r in ordered),
        scores=tuple(map(_score, ordered)),
        verdicts=verdicts,
        controls=controls,
        failures=tuple(failures),
        notes=notes.notes(scored, controls, failures, waiting),
        versions=_versions(ordered),
        evicted=tuple(evicted),
        waiting=tuple(waiting),
    )


def _verdicts(scored: Scored, claim: ClaimSettings) -> tuple[Verdict, ...]:
    pairs = {
        name: pair
        for name, found in scored.by_variant.items()
        if name != PROBE
        and next(iter(found.values())).trial.spec.variant.ladder
        and (pair := scored.pair(name)) is not None
    }
    estimates = {name: estimate(pair) for name, pair in pairs.items()}
    tested = ladders.run(
        _ladders(pairs),
        level=claim.level_of_look,
        p_values={name: found.p_value(claim.margin) for name, found in estimates.items()},
        passes=lambda name, level: decide.passes(estimates[name], claim, level),
    )
    decided: dict[str, Decided] = {}
    for ladder in _ladders(pairs):
        for name in ladder:  # from the top, so that the stop is decided before what is below it
            above = decided.get(tested[name].stopped_at)
            decided[name] = decide.decide(estimates[name], claim, tested[name], above)
    return tuple(
        _verdict(pairs[name], estimates[name], claim, tested[name], decided[name])
        for name in decided
    )


def _ladders(pairs: Mapping[str, Paired]) -> list[list[str]]:
    """Names of the variants of every ladder, from the first step down."""
    found: dict[str, list[str]] = {}
    for name, pair in sorted(pairs.items(), key=lambda item: item[1].variant.step):
        found.setdefault(pair.variant.ladder, []).append(name)
    return [found[ladder] for ladder in sorted(found)]


def _verdict(
    pair: Paired, found: Estimate, claim: ClaimSettings, tested: ladders.Tested, decided: Decided
) -> Verdict:
    lower, upper = found.bounds(tested.level)
    low, high = readouts.bootstrap(pair, tested.level)
    seeds = [str(seed) for seed in pair.seeds]
    return Verdict(
        variant=pair.variant.name,
        ladder=pair.variant.ladder,
        step=pair.variant.step,
        decision=decided.decision,
        reason=decided.reason,
        difference=found.mean,
        standard_error=found.standard_error,
        df=found.df,
        lower=lower,
        upper=upper,
        p_value=found.p_value(claim.margin),
        level=tested.level,
        power=found.power(claim.margin, tested.level),
        per_seed=dict(zip(seeds, map(float, pair.differences.mean(axis=1)), strict=True)),
        won=dict(zip(seeds, map(int, (pair.differences > 0).sum(axis=1)), strict=True)),
        lost=dict(zip(seeds, map(int, (pair.differences < 0).sum(axis=1)), strict=True)),
        components={"seeds": found.v_seeds, "items": found.v_items, "residual": found.v_rest},
        bootstrap_lower=low,
        bootstrap_upper=high,
        seeds=found.seeds,
        items=found.items,
        clusters=found.clusters,
        tested=not tested.stopped_at,
        mcnemar_p=readouts.mcnemar(pair.differences) if found.binary else None,
    )


def _failed_seeds(scored: Scored, failures: Sequence[Failure]) -> dict[str, list[int]]:
    """Seeds of which a variant failed and its probe did not, by the variant."""
    found: dict[str, list[int]] = {}
    for failure in failures:
        there = scored.by_variant.get(failure.variant, {})
        if failure.seed in scored.probes and failure.seed not in there:
            found.setdefault(failure.variant, []).append(failure.seed)
    return found


def _withhold(
    verdicts: tuple[Verdict, ...],
    controls: tuple[Control, ...],
    failed_seeds: Mapping[str, Sequence[int]],
) -> tuple[Verdict, ...]:
    """Take back what failed controls, and a variant's own failed trials, do not let stand.

    What fails is not missing by chance: a training that diverges is the loss that is looked for.
    """
    everything, safe = control_rules.withheld(controls)
    failed = ", ".join(c.variant for c in controls if c.passed is False)

    def taken_back(verdict: Verdict) -> Verdict:
        seeds = failed_seeds.get(verdict.variant, ())
        if everything or (safe and verdict.decision == "SAFE"):
            why = f"control {failed} failed"
        elif seeds and verdict.decision == "SAFE":
            why = f"its trial of seed {', '.join(map(str, sorted(seeds)))} failed"
        else:
            return verdict
        return msgspec.structs.replace(
            verdict,
            decision="UNDERPOWERED",
            reason=f"Withheld: {why}. Without that it would be {verdict.decision}: "
            f"{verdict.reason}",
        )

    return tuple(map(taken_back, verdicts))


def _not_judged(verdict: Verdict, waiting: int) -> Verdict:
    """No decision while trials of the plan wait, nor what it would be: that would be a look.

    Every verdict: a step above that is not done may yet stop the ladder, and a ladder of which
    nothing is done has its part of the level.
    """
    return msgspec.structs.replace(
        verdict,
        decision="UNDERPOWERED",
        reason=f"Not judged before the whole plan has run: {plural(waiting, 'trial')} to go.",
    )


def _score(result: TrialResult) -> TrialScore:
    return TrialScore(
        trial=result.trial.id,
        variant=result.trial.spec.variant.name,
        seed=result.trial.spec.seed,
        mean=float(np.mean(result.items.scores)),
        digest=digest(result.items),
    )


def digest(items: Items) -> str:
    """BLAKE3 of ids, scores and clusters, exact to the last bit of a score."""
    return blake3(msgspec.json.encode(items)).hexdigest()


def _versions(results: Sequence[TrialResult]) -> dict[str, str]:
    """Versions of the libraries; several of one are all named."""
    found: dict[str, list[str]] = {}
    for library, version in _every_version(results):
        there = found.setdefault(library, [])
        if version not in there:
            there.append(version)
    return {library: ", ".join(sorted(versions)) for library, versions in found.items()}


def _every_version(results: Sequence[TrialResult]) -> Iterator[tuple[str, str]]:
    for result in results:
        yield from result.trial.spec.versions.items()
