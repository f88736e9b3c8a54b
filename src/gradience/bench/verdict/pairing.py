"""From results to paired scores: the same items, the same seed, the same environment, or an error.

A difference means something only where variant and probe differ in nothing but the adapter.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from gradience.bench.records import PROBE, Items, TrialResult, TrialSpec, Variant
from gradience.errors import TrialResultError

_MEND = "Remove the trial's directory and run the bench again; only that trial runs."


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Scores of a variant minus those of the probe of the same seed.

    Attributes
    ----------
    seeds : (S,) tuple of int
        Those for which both are there.
    differences : (S, n) float64
    clusters : (n,) int or None
        0 to G - 1; None where items are independent.
    binary, bounded : bool
        Whether every score is 0 or 1; whether every score lies within 0 and 1.
    """

    variant: Variant
    seeds: tuple[int, ...]
    differences: NDArray[np.float64]
    clusters: NDArray[np.intp] | None
    binary: bool
    bounded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """All results of one bench, checked against one another.

    Attributes
    ----------
    by_variant : mapping of str to mapping of int to TrialResult
        By seed, in order of the seed; the probe first, then ladders from the top, then controls.
    """

    by_variant: Mapping[str, Mapping[int, TrialResult]]
    binary: bool
    bounded: bool
    clusters: NDArray[np.intp] | None

    @property
    def probes(self) -> Mapping[int, TrialResult]:
        """The probe of every seed."""
        return self.by_variant.get(PROBE, {})

    def pair(self, name: str) -> Paired | None:
        """A variant against its probes; None where no seed has both."""
        found = self.by_variant[name]
        seeds = tuple(seed for seed in found if seed in self.probes)
        if not seeds:
            return None
        rows = [_scores(found[seed]) - _scores(self.probes[seed]) for seed in seeds]
        return Paired(
            variant=found[seeds[0]].trial.spec.variant,
            seeds=seeds,
            differences=np.stack(rows),
            clusters=self.clusters,
            binary=self.binary,
            bounded=self.bounded,
        )


def check(results: Sequence[TrialResult]) -> Scored:
    """Hold the results of one bench against one another.

    Raises
    ------
    TrialResultError
        If item ids, their order or their clusters differ between two trials, a score is not
        finite, two results are of one variant and seed, a variant is not that of another seed, or
        a trial differs from the probe of its seed in more than its adapter.
    """
    if not results:
        raise TrialResultError(
            "no trial has a result, so there is nothing to judge",
            remedy="Run `gradience bench` until trials are done; their logs say why they failed.",
        )
    ordered = sorted(results, key=_place)
    first = ordered[0]
    for result in ordered:
        _check_items(result)
        _check_same_items(result, first)
    table: dict[str, dict[int, TrialResult]] = {}
    for result in ordered:
        spec = result.trial.spec
        there = table.setdefault(spec.variant.name, {})
        if spec.seed in there:
            raise TrialResultError(
                f"trials {there[spec.seed].trial.id} and {result.trial.id} are both of "
                f"{spec.variant.name} with seed {spec.seed}",
                remedy="Keep one: two runs of one seed are no two seeds.",
            )
        there[spec.seed] = result
    for found in table.values():
        for seed, result in found.items():
            _check_variant(result, next(iter(found.values())))
            probe = table.get(PROBE, {}).get(seed)
            if probe is not None and probe is not result:
                _check_pair(result, probe)
    return Scored(
        by_variant=table,
        binary=all(score in (0.0, 1.0) for r in results for score in r.items.scores),
        bounded=all(0.0 <= score <= 1.0 for r in results for score in r.items.scores),
        clusters=_codes(first.items),
    )


def _place(result: TrialResult) -> tuple[bool, bool, str, int, str, int]:
    """The probe, then the ladders from the top, then the controls, each by seed."""
    spec = result.trial.spec
    v = spec.variant
    return v.name != PROBE, not v.ladder, v.ladder, v.step, v.name, spec.seed


def _scores(result: TrialResult) -> NDArray[np.float64]:
    return np.asarray(result.items.scores, np.float64)


def _codes(items: Items) -> NDArray[np.intp] | None:
    if not items.clusters:
        return None
    numbers = {name: i for i, name in enumerate(dict.fromkeys(items.clusters))}
    return np.asarray([numbers[name] for name in items.clusters], np.intp)


def _check_items(result: TrialResult) -> None:
    items, name = result.items, result.trial.id
    for what, there in (("scores", items.scores), ("clusters", items.clusters or items.ids)):
        if len(there) != len(items.ids):
            raise TrialResultError(
                f"trial {name} has {len(there)} {what} for {len(items.ids)} items", remedy=_MEND
            )
    if len(set(items.ids)) != len(items.ids):
        twice = Counter(items.ids).most_common(1)[0][0]
        raise TrialResultError(
            f"trial {name} has item {twice!r} more than once",
            remedy="Item ids must be unique: mend the task's data.",
        )
    finite = np.isfinite(items.scores)
    if not finite.all():
        at = int(np.argmin(finite))
        raise TrialResultError(
            f"trial {name} has score {items.scores[at]} for item {items.ids[at]!r}",
            remedy="A score must be finite: look into the trial's log.",
        )
    if len(set(items.clusters or items.ids)) < 2:
        raise TrialResultError(
            f"trial {name} has {len(items.ids)} items"
            + (" in one cluster" if items.clusters else ""),
            remedy="A verdict needs two independent items at least, and power needs hundreds.",
        )


def _check_same_items(result: TrialResult, first: TrialResult) -> None:
    if result.metric != first.metric:
        raise TrialResultError(
            f"trial {result.trial.id} is scored by {result.metric!r}, trial {first.trial.id} by "
            f"{first.metric!r}",
            remedy=_MEND,
        )
    for what in ("ids", "clusters"):
        mine, theirs = getattr(result.items, what), getattr(first.items, what)
        if mine == theirs:
            continue
        at = next(
            (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
            min(len(mine), len(theirs)),
        )
        here, there = (repr(x[at]) if at < len(x) else "missing" for x in (mine, theirs))
        kind = "item" if what == "ids" else "cluster of item"
        raise TrialResultError(
            f"{kind} {at + 1} of trial {result.trial.id} is {here}, of trial {first.trial.id} "
            f"{there}",
            remedy="All trials must be scored on the same items in the same order: " + _MEND,
        )


def _check_variant(result: TrialResult, first: TrialResult) -> None:
    if result.trial.spec.variant != first.trial.spec.variant:
        raise TrialResultError(
            f"trials {first.trial.id} and {result.trial.id} are both called "
            f"{result.trial.spec.variant.name} and are made differently",
            remedy="Give the variants different names.",
        )


def _check_pair(result: TrialResult, probe: TrialResult) -> None:
    needs, name = result.trial.needs, result.trial.id
    if needs and probe.trial.id not in needs:
        raise TrialResultError(
            f"trial {name} starts from {', '.join(needs)}, but the probe of its seed is "
            f"{probe.trial.id}",
            remedy=_MEND,
        )
    differing = differences(result.trial.spec, probe.trial.spec, apart=("variant",))
    if differing:
        raise TrialResultError(
            f"trial {name} differs from its probe {probe.trial.id} in {', '.join(differing)}",
            remedy=_MEND,
        )


def differences(one: TrialSpec, other: TrialSpec, *, apart: Sequence[str]) -> list[str]:
    """Names of the fields in which two specs differ, apart from these."""
    names = [field.name for field in msgspec.structs.fields(TrialSpec) if field.name not in apart]
    return [name for name in names if getattr(one, name) != getattr(other, name)]
