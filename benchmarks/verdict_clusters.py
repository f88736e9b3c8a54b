"""Simulated benches whose items come in clusters: how often a variant is falsely SAFE.

Each world has a number of clusters of so many items, some seeds, and a true loss of just the
margin, so that every pass is false; and beside it the same world without that loss, where every
pass is right. What is lost, and how:

    single   items are lost one by one
    tied     all items of a cluster are lost together
    half     half of the clusters are tied
    large    where clusters differ in size: the largest are lost whole, and no others
    cancel   a cluster is lost whole, and in every other one as many items are won as lost
    noise    a cluster is lost whole, and with every seed other items change, won as often as lost
    graded   scores in fifths: a cluster is lost whole, in others an item by a fifth, or won by it

`won` is the share of items that is won, beside as many that are lost; `same` the share of what
changes that changes alike with every seed. Beside the verdict stand its parts: the test without its
power gate, and the t-test by the measured variance alone.

    python benchmarks/verdict_clusters.py [--replicates 2000] [--quick]
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradience.bench.records import Variant
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict import decide
from gradience.bench.verdict.distributions import student_upper_tail
from gradience.bench.verdict.estimate import Estimate, estimate
from gradience.bench.verdict.pairing import Paired

CLAIM = ClaimSettings(margin=0.05)
SHAPES = ((2, (5,)), (3, (5,)), (5, (5,)), (5, (100,)), (20, (5,)), (60, (5,)))
SHAPES += ((60, (20,)), (60, (1, 9)), (120, (5,)), (200, (5,)), (200, (1,)))
SHAPES += ((480, (9, *[1] * 9)),)  # one in ten is large
KINDS = ("single", "tied", "half", "large", "cancel", "noise", "graded")
WON = (0.0, 0.02)
SAME = (1.0, 0.5)
SEEDS = (3, 8)  # of "noise"; 3 elsewhere

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How items change."""

    groups: int
    sizes: tuple[int, ...]
    kind: str
    won: float = 0.0
    same: float = 1.0
    seeds: int = 3

    @property
    def clusters(self) -> NDArray[np.intp]:
        """Of every item."""
        return np.repeat(np.arange(self.groups), np.resize(self.sizes, self.groups))


def worlds(*, quick: bool = False) -> Iterator[World]:
    """Every cell; quick: without the large ones, and one kind of seeds."""
    for (groups, sizes), kind in itertools.product(SHAPES[:6] if quick else SHAPES, KINDS):
        if kind == "large" and len(set(sizes)) == 1:
            continue
        spread = kind in ("single", "tied", "half")
        for won, same, seeds in itertools.product(
            WON if spread else (0.0,),
            SAME[:1] if quick or not spread else SAME,
            SEEDS if kind == "noise" else SEEDS[:1],
        ):
            yield World(groups=groups, sizes=sizes, kind=kind, won=won, same=same, seeds=seeds)


def differences(rng: np.random.Generator, world: World, loss: float) -> Floats:
    """Scores against the probe's of one bench, (seeds, items)."""
    clusters = world.clusters
    if world.kind == "large":
        sizes = np.bincount(clusters)
        largest = sizes == sizes.max()
        share = loss * clusters.size / sizes[largest].sum()
        lost = -(largest & (rng.random(world.groups) < share)).astype(np.float64)
        return np.tile(lost[clusters], (world.seeds, 1))
    if world.kind not in ("single", "tied", "half"):
        whole = (rng.random(world.groups) < loss)[clusters]
        return np.where(whole, -1.0, _small(rng, world, clusters))
    share = {"single": 0.0, "half": 0.5, "tied": 1.0}[world.kind]
    tied = (rng.random(world.groups) < share)[clusters]

    def uniform(seeds: int) -> Floats:
        """One number for every item, or for its cluster where that is tied."""
        by_cluster = rng.random((seeds, world.groups))[:, clusters]
        return np.where(tied, by_cluster, rng.random((seeds, clusters.size)))

    draws = np.where(uniform(1) < world.same, uniform(1), uniform(world.seeds))
    return np.where(draws < loss + world.won, -1.0, np.where(draws > 1 - world.won, 1.0, 0.0))


def _small(rng: np.random.Generator, world: World, clusters: NDArray[np.intp]) -> Floats:
    """What changes in clusters that are not lost, (seeds, items), and comes to nothing."""
    if world.kind == "cancel":
        first = np.flatnonzero(np.diff(clusters, prepend=-1))
        found = np.zeros(clusters.size)
        found[first] = 1.0
        found[first[first + 1 < clusters.size] + 1] = -1.0
        return np.tile(np.where(np.bincount(clusters)[clusters] > 1, found, 0.0), (world.seeds, 1))
    if world.kind == "noise":
        return rng.choice([-1.0, 0.0, 1.0], size=(world.seeds, clusters.size), p=[0.02, 0.96, 0.02])
    part = rng.choice([-0.2, 0.0, 0.2], size=clusters.size, p=[0.02, 0.96, 0.02])
    return np.tile(part, (world.seeds, 1))


def judged(world: World, found: Floats) -> NDArray[np.bool_]:
    """Whether one bench is SAFE, whether its test passes, whether the bare t-test does."""
    one = estimate(
        Paired(
            variant=Variant(name="v", action="truncate"),
            seeds=tuple(range(world.seeds)),
            differences=found,
            clusters=None if world.sizes == (1,) else world.clusters,
            binary=world.kind != "graded",
            bounded=True,
        )
    )
    return np.array(
        [
            decide.passes(one, CLAIM, CLAIM.level),
            one.p_value(CLAIM.margin) <= CLAIM.level,
            measured_alone(one) <= CLAIM.level,
        ]
    )


def measured_alone(found: Estimate) -> float:
    """p by the measured variance, whatever a loss of the margin would bring."""
    if found.standard_error == 0:
        return float(found.mean <= -CLAIM.margin)
    t = (found.mean + CLAIM.margin) / found.standard_error
    return float(student_upper_tail(t, found.df))


def shares(world: World, replicates: int, rng: np.random.Generator, loss: float) -> Floats:
    """How often each of `judged` holds, in percent."""
    each = (judged(world, differences(rng, world, loss)) for _ in range(replicates))
    return np.sum(list(each), axis=0) * (100 / replicates)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="up to 60 clusters, seeds alike")
    options = parser.parse_args()
    rng = np.random.default_rng(2026)
    print("Percent at a loss of the margin (false), then at no loss (right).")
    rates_of = "SAFE | passes | bare t"
    print(f"| clusters | of | lost | won, same, seeds | {rates_of} | {rates_of} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    found: dict[tuple[int, tuple[int, ...]], list[Floats]] = {}
    for world in worlds(quick=options.quick):
        false = shares(world, options.replicates, rng, CLAIM.margin)
        right = shares(world, options.replicates, rng, 0.0)
        found.setdefault((world.groups, world.sizes), []).append(np.array([*false, *right]))
        name = f"{world.groups} | {_each(world.sizes)} | {world.kind}"
        rates = " | ".join(f"{rate:.1f}" for rate in (*false, *right))
        print(f"| {name} | {world.won:g}, {world.same:g}, {world.seeds} | {rates} |", flush=True)
    print("\nHighest false rates, and mean right ones, over the worlds of each shape:")
    for (groups, sizes), of_shape in found.items():
        shown = (*np.max(of_shape, axis=0)[:3], *np.mean(of_shape, axis=0)[3:])
        cells = " | ".join(f"{rate:.1f}" for rate in shown)
        print(f"| {groups} of {_each(sizes)} | {cells} |")
    return int(max(rates[0] for some in found.values() for rates in some) > 8)


def _each(sizes: tuple[int, ...]) -> str:
    few, many = sizes[0], sizes[1:]
    return f"{few} and {len(many)} x {many[0]}" if len(many) > 1 else " and ".join(map(str, sizes))


if __name__ == "__main__":
    sys.exit(main())
