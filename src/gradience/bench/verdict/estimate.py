"""What the paired scores of one variant say: estimate, bounds, p-value, power.

A loss of the margin is ruled out when (mean + margin) / standard error exceeds Student's t. For
scores of 0 and 1 the error is that of a loss of the margin where the measured one is smaller
(`shares`).
"""

import math
from dataclasses import dataclass

import numpy as np

from gradience.bench.verdict import shares
from gradience.bench.verdict.anova import Anova, anova, by_cluster, of_components
from gradience.bench.verdict.distributions import student_critical, student_upper_tail
from gradience.bench.verdict.pairing import Paired
from gradience.bench.verdict.power import Design, chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Mean difference of a variant from its probe, and how well it is known.

    Attributes
    ----------
    mean, standard_error, df : float
    v_seeds, v_items, v_rest : float
        Variance components.
    seeds, items, clusters : int
    independent : float
        Clusters less what uneven sizes cost; items where there are no clusters (`shares`).
    identical : bool
        Whether every score equals the probe's, bit for bit.
    binary : bool
        Whether every score is 0 or 1.
    """

    mean: float
    standard_error: float
    df: float
    v_seeds: float
    v_items: float
    v_rest: float
    seeds: int
    items: int
    clusters: int
    independent: float
    identical: bool
    binary: bool

    def p_value(self, margin: float) -> float:
        """Of "it loses the margin or more".

        Where no score differs there is no variance to test with. For scores of 0 and 1 a loss of
        the margin needs at least that share of changed items, and the chance to draw G independent
        ones with no change is at most (1 - margin)^G. Other scores that agree bit for bit come
        from one function, as far as any test can see.
        """
        if self.identical:
            return float((1 - min(margin, 1.0)) ** self.independent) if self.binary else 0.0
        if self.standard_error == 0:
            return 0.0 if self.mean > -margin else 1.0
        error, df = self._error(margin)
        return float(student_upper_tail((self.mean + margin) / error, df))

    def p_worse(self, margin: float = 0.0) -> float:
        """Of "it loses the margin or less": small where a larger loss is shown."""
        if self.standard_error == 0:
            return 0.0 if self.mean < -margin else 1.0
        return float(student_upper_tail(-(self.mean + margin) / self.standard_error, self.df))

    def bounds(self, level: float) -> tuple[float, float]:
        """One-sided bounds, each missed with probability `level`."""
        if self.identical and self.binary:
            most = 1 - level ** (1 / self.independent)
            return -most, most
        if self.standard_error == 0:
            return self.mean, self.mean
        half = float(student_critical(level, self.df)) * self.standard_error
        lower, upper, most = self.mean - half, self.mean + half, 1.0 if self.binary else math.inf
        if 0 < -lower < 1 and self._raising(-lower) > 1:
            lower = -self._least_ruled_out(level, -lower)
        return max(lower, -most), min(upper, most)

    def _least_ruled_out(self, level: float, low: float) -> float:
        """The smallest loss above `low` that the test rules out, by halving."""
        high = 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p_value(middle) > level else (low, middle)
        return high

    def power(self, margin: float, level: float) -> float:
        """Chance to rule out a loss of the margin when there is no loss; 0 with one seed."""
        if self.seeds == 1:
            return 0.0
        if self.identical or self.standard_error == 0:
            return float(self.p_value(margin) <= level)
        return chance(self.design(margin), margin=margin, level=level)

    def design(self, margin: float) -> Design:
        """What the power depends on."""
        raising = self._raising(margin)
        return Design(
            seeds=self.seeds,
            items=self.clusters,
            v_seeds=self.v_seeds,
            v_items=raising * self.v_items,
            v_rest=raising * self.v_rest,
        )

    def _error(self, margin: float) -> tuple[float, float]:
        """Standard error to hold a loss of the margin against, with its degrees of freedom."""
        raising = self._raising(margin)
        if raising == 1:
            return self.standard_error, self.df
        raised = of_components(
            self.seeds,
            self.clusters,
            np.asarray(self.mean),
            v_seeds=np.asarray(self.v_seeds),
            v_items=np.asarray(raising * self.v_items),
            v_rest=np.asarray(raising * self.v_rest),
        )
        return float(raised.standard_error), float(raised.df)

    def _raising(self, margin: float) -> float:
        if not self.binary:
            return 1.0
        uneven = self.clusters / self.independent
        return float(shares.raising(self.v_items, self.v_rest, margin, unevenness=uneven))


def estimate(paired: Paired) -> Estimate:
    """The estimate from the paired scores of one variant."""
    differences = paired.differences
    table = differences if paired.clusters is None else by_cluster(differences, paired.clusters)
    found: Anova = anova(table)
    identical = not np.any(differences)
    v_seeds, v_items, v_rest = map(float, found.components)
    constant = bool(np.all(differences == differences[0, 0]))
    return Estimate(
        # Of equal numbers the mean may differ in the last bit, and its error from 0.
        mean=float(differences[0, 0]) if constant else float(found.mean),
        standard_error=0.0 if constant else float(found.standard_error),
        df=float(found.df),
        v_seeds=0.0 if constant else v_seeds,
        v_items=0.0 if constant else v_items,
        v_rest=0.0 if constant else v_rest,
        seeds=found.seeds,
        items=differences.shape[1],
        clusters=found.items,
        independent=found.items
        if paired.clusters is None
        else shares.effective_clusters(paired.clusters),
        identical=identical,
        binary=paired.binary,
    )
