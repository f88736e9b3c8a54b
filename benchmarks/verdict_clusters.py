"""Simulated benches whose items come in clusters: how often a variant is falsely SAFE.

Passages of several questions, three seeds that change the same items, a true loss of just the
margin, so that every pass is false. `tied` is the share of clusters whose items change all
together; `won` the share of items that is won beside what is lost. Beside the test stands the same
without the floor of `shares`: the measured variance of clusters alone.

    python benchmarks/verdict_clusters.py [--replicates 2000]
"""

import argparse
import itertools

import numpy as np

from gradience.bench.records import Variant
from gradience.bench.verdict.distributions import student_upper_tail
from gradience.bench.verdict.estimate import Estimate, estimate
from gradience.bench.verdict.pairing import Paired

MARGIN, LEVEL, SEEDS = 0.05, 0.05, 3
SHAPES = ((20, (5,)), (60, (5,)), (60, (20,)), (60, (1, 9)), (200, (5,)))
TIED = (0.0, 0.5, 1.0)
WON = (0.0, 0.02)


def drawn(rng: np.random.Generator, clusters: np.ndarray, *, tied: float, won: float) -> Estimate:
    """The estimate of one bench."""
    groups = int(clusters.max()) + 1
    together = rng.random(groups) < tied
    draws = np.where(together[clusters], rng.random(groups)[clusters], rng.random(clusters.size))
    change = np.where(draws < MARGIN + won, -1.0, np.where(draws > 1 - won, 1.0, 0.0))
    return estimate(
        Paired(
            variant=Variant(name="v", action="truncate"),
            seeds=tuple(range(SEEDS)),
            differences=np.tile(change, (SEEDS, 1)),
            clusters=clusters,
            binary=True,
        )
    )


def measured_alone(found: Estimate) -> float:
    """p by the measured variance, whatever a loss of the margin would bring."""
    if found.standard_error == 0:
        return found.p_value(MARGIN)
    return float(student_upper_tail((found.mean + MARGIN) / found.standard_error, found.df))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000)
    replicates = parser.parse_args().replicates
    rng = np.random.default_rng(2026)
    print("| clusters | items of each | tied | won | falsely passes | without the floor |")
    print("|---|---|---|---|---|---|")
    for (groups, sizes), tied, won in itertools.product(SHAPES, TIED, WON):
        clusters = np.repeat(np.arange(groups), np.resize(sizes, groups))
        false = np.zeros(2)
        for _ in range(replicates):
            found = drawn(rng, clusters, tied=tied, won=won)
            false += found.p_value(MARGIN) <= LEVEL, measured_alone(found) <= LEVEL
        ours, bare = 100 * false / replicates
        each = " and ".join(map(str, sizes))
        print(f"| {groups} | {each} | {tied:g} | {won:g} | {ours:.1f} % | {bare:.1f} % |")


if __name__ == "__main__":
    main()
