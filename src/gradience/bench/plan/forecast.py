"""What a bench will take, before it runs: trials, bytes, time, and whether the test could tell.

Pure but for what arrives as arguments; what cannot be known is absent and said.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from gradience.bench.driver.budget import Part, evictions, worth
from gradience.bench.plan.costs import Cost, Shapes, cost
from gradience.bench.plan.trials import variants
from gradience.bench.records import PROBE, Bench, TrialResult, Variant
from gradience.bench.verdict.power import planned

Number = TypeVar("Number", int, float)

FORECAST_SCHEMA = "gradience.bench_forecast/v1"

DISCORDANCE = 0.12
PERSISTENT_SHARE = 0.5
SEED_SD = 0.007
"""What the power assumes where nothing is measured: docs/verdict.md says where it comes from."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The trials of one variant.

    Attributes
    ----------
    trials, done : int
        Over the seeds.
    kept, peak : int or None
        Bytes of one trial, when done and while it runs; None where nothing is known.
    exact : bool
        Whether the bytes follow from shapes or files, and are no upper bound.
    seconds : float or None
        Of one trial, as trials like it took.
    """

    variant: str
    action: str
    trials: int
    done: int
    kept: int | None = None
    peak: int | None = None
    exact: bool = True
    seconds: float | None = None

    @property
    def kept_by_all(self) -> int | None:
        """Bytes of all its trials, when done."""
        return None if self.kept is None else self.kept * self.trials

    @property
    def seconds_left(self) -> float | None:
        """Of the trials that are not done."""
        left = self.trials - self.done
        return self.seconds * left if self.seconds is not None else None if left else 0.0


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """The chance that the test passes a variant that loses nothing.

    Attributes
    ----------
    power, asked : float
    level : float
        That of the claim, in equal parts over looks and ladders, as the test begins.
    looks, ladders : int
        Of how many of each it is a part.
    items, seeds : int
    discordance, persistent_share, seed_sd : float
        What it assumes: items whose score differs, the share of that which is the same with every
        seed, and the standard deviation between seeds.
    """

    power: float
    asked: float
    level: float
    items: int
    seeds: int
    discordance: float
    persistent_share: float
    seed_sd: float
    looks: int = 1
    ladders: int = 1


class Forecast(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The plan of a bench and what it costs: the content of `--dry-run --json`.

    Attributes
    ----------
    rows : tuple of Row
    modules, per_rank : int
        Weights that the adapter changes, and parameters for each unit of rank.
    kept : int or None
        Bytes of every trial, when all are done.
    seconds : float or None
        Of what is left to do, side by side; None where a kind of trial was never measured.
    slots : int
    removed : mapping of str to int
        Adapters that go by the end to stay in the budget, by variant.
    over : int
        Bytes by which the largest trial alone exceeds the budget: the bench does not fit.
    power : Power or None
        None where the score is no yes or no, so that nothing is known before a run.
    unknown : tuple of str
        What is not known, and what would tell.
    refused : mapping of str to str
        Results of other code or versions, not used.
    history : tuple of str
        What the report will say of looks and claims before this one.
    """

    name: str
    rows: tuple[Row, ...]
    modules: int
    per_rank: int
    slots: int
    device: str
    kept: int | None = None
    seconds: float | None = None
    budget: int | None = None
    removed: dict[str, int] = {}
    over: int = 0
    power: Power | None = None
    unknown: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    history: tuple[str, ...] = ()


def forecast(
    bench: Bench,
    *,
    results: Sequence[TrialResult],
    shapes: Shapes,
    items: int,
    slots: int,
    binary: bool,
    budget: int | None = None,
    measured: Mapping[str, float] | None = None,
    refused: Mapping[str, str] | None = None,
    history: Sequence[str] = (),
) -> Forecast:
    """Cost and power of a plan.

    Parameters
    ----------
    bench : Bench
    results : sequence of TrialResult
        What is done already.
    shapes : Shapes
    items : int
        Test items of a trial.
    slots : int
        Trials at once.
    binary : bool
        Whether an item is right or wrong.
    budget : int or None
        Bytes.
    measured : mapping of str to float, optional
        Seconds of a trial by action, from a timed start of a probe.
    refused : mapping, optional
    history : sequence of str
        Notes on what was decided here before.
    """
    rows = tuple(
        _row(
            variant,
            {t.id for t in bench.trials if t.spec.variant.name == variant.name},
            cost(variant, lora=bench.settings.lora, shapes=shapes, results=results, items=items),
            results,
            measured or {},
        )
        for variant in variants(bench.settings)
    )
    removed, over = _removed(rows, budget)
    seconds = _sum(row.seconds_left for row in rows)
    return Forecast(
        name=bench.settings.name,
        rows=rows,
        modules=shapes.modules,
        per_rank=shapes.per_rank,
        slots=slots,
        device=bench.trials[0].spec.device,
        kept=_sum(row.kept_by_all for row in rows),
        seconds=None if seconds is None else seconds / slots,
        budget=budget,
        removed=removed,
        over=over,
        power=_power(bench, items) if binary else None,
        unknown=tuple(_unknown(rows, shapes, timed=seconds is not None, binary=binary)),
        refused=dict(refused or {}),
        history=tuple(history),
    )


def _sum(values: Iterable[Number | None]) -> Number | None:
    """None where one of them is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def _removed(rows: Sequence[Row], budget: int | None) -> tuple[dict[str, int], int]:
    """What the rule of the budget takes by the end, and by how much one trial alone is above it."""
    if budget is None or any(row.kept is None for row in rows):
        return {}, 0
    parts = [
        Part(
            trial=f"{row.variant} {i}",
            part="adapter",
            nbytes=row.kept or 0,
            worth=worth(row.action),
        )
        for row in rows
        for i in range(row.trials)
    ]
    over = sum(part.nbytes for part in parts) - budget
    gone = {part.trial for part in evictions(parts, over)} if over > 0 else set()
    removed = {
        row.variant: sum(f"{row.variant} {i}" in gone for i in range(row.trials)) for row in rows
    }
    largest = max((row.peak or 0 for row in rows), default=0)
    return {name: count for name, count in removed.items() if count}, max(0, largest - budget)


def _row(
    variant: Variant,
    ids: Collection[str],
    found: Cost,
    results: Sequence[TrialResult],
    measured: Mapping[str, float],
) -> Row:
    return Row(
        variant=variant.name,
        action=variant.action,
        trials=len(ids),
        done=sum(result.trial.id in ids for result in results),
        kept=found.kept,
        peak=found.peak,
        exact=found.exact,
        seconds=measured.get(variant.action) if found.seconds is None else found.seconds,
    )


def _power(bench: Bench, items: int) -> Power:
    claim, seeds = bench.settings.claim, len(bench.settings.seeds)
    ladders = len(bench.settings.variants)
    level = claim.level_of_look / ladders
    return Power(
        level=level,
        power=planned(
            items=items,
            seeds=seeds,
            margin=claim.margin,
            level=level,
            discordance=DISCORDANCE,
            persistent_share=PERSISTENT_SHARE,
            seed_sd=SEED_SD,
        ),
        asked=claim.power,
        items=items,
        seeds=seeds,
        discordance=DISCORDANCE,
        persistent_share=PERSISTENT_SHARE,
        seed_sd=SEED_SD,
        looks=claim.looks,
        ladders=ladders,
    )


def _unknown(rows: Sequence[Row], shapes: Shapes, *, timed: bool, binary: bool) -> list[str]:
    told = [shapes.doubt] if shapes.doubt else []
    if not shapes.exact:
        told.append(
            "Bytes: which modules `all-linear` means is known only to the loaded model; counted "
            "is every matrix whose name is no embedding's and no head's."
        )
    if any(not row.exact and row.action != PROBE for row in rows) and shapes.exact:
        told.append("Bytes of an energy: its ranks follow from the probe; counted is the most.")
    if not timed:
        told.append(
            "Time: nothing like it was measured; --measure starts a probe, times it for a while "
            "and stops it."
        )
    if not binary:
        told.append("Power: it depends on the spread of the scores, which the first run shows.")
    return told
