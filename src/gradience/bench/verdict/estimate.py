"""What the paired scores of one variant say: estimate, bounds, p-value, power.

A loss of the margin is ruled out when (mean + margin) / standard error exceeds Student's t. For
scores of 0 and 1 the error is that of a loss of the margin where the measured one is smaller
(`shares`).
"""

import math
from dataclasses import dataclass

import numpy as np

from gradience.bench.verdict import shares
from gradience.bench.verdict.anova import Anova, anova, by_cluster
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
            return float((1 - min(margin, 1.0)) ** self.clusters) if self.binary else 0.0
        if self.standard_error == 0:
            return 0.0 if self.mean > -margin else 1.0
        return float(student_upper_tail((self.mean + margin) / self._error(margin), self.df))

    def p_worse(self, margin: float = 0.0) -> float:
        """Of "it loses the margin or less": small where a larger loss is shown."""
        if self.standard_error == 0:
            return 0.0 if self.mean < -margin else 1.0
        return float(student_upper_tail(-(self.mean + margin) / self.standard_error, self.df))

    def bounds(self, level: float) -> tuple[float, float]:
        """One-sided bounds, each missed with probability `level`."""
        if self.identical and self.binary:
            most = 1 - level ** (1 / self.clusters)
            return -most, most
        if self.standard_error == 0:
            return self.mean, self.mean
        t = float(student_critical(level, self.df))
        half = t * self.standard_error
        spread = self.v_items + self.v_rest
        lower = self.mean - half
        if self._are_shares and spread:
            lower = shares.lower_bound(
                mean=self.mean,
                error=self.standard_error,
                sampling=self._sampling,
                spread=spread,
                t=t,
            )
        most = 1.0 if self.binary else math.inf
        return max(lower, -most), min(self.mean + half, most)

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

    def _error(self, margin: float) -> float:
        """The standard error to hold a loss of the margin against."""
        more = (self._raising(margin) - 1) * self._sampling
        return math.sqrt(self.standard_error**2 + more)

    def _raising(self, margin: float) -> float:
        return float(shares.raising(self.v_items, self.v_rest, margin)) if self._are_shares else 1.0

    @property
    def _sampling(self) -> float:
        """What items and rest add to the square of the standard error."""
        return (self.v_items + self.v_rest / self.seeds) / self.clusters

    @property
    def _are_shares(self) -> bool:
        """A cluster's sum may lose the margin with any variance: single items only."""
        return self.binary and self.clusters == self.items


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
        identical=identical,
        binary=paired.binary,
    )
