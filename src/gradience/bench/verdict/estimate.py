"""What the paired scores of one variant say: estimate, bounds, p-value, power.

A loss of the margin is ruled out when (mean + margin) / standard error exceeds Student's t. For
scores within 0 and 1 the error is that of a loss of the margin where the measured one is smaller,
and no sample says more than one in which nothing varies (`shares`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradience.bench.verdict import shares
from gradience.bench.verdict.anova import Anova, anova, by_cluster, of_components
from gradience.bench.verdict.distributions import student_critical, student_upper_tail
from gradience.bench.verdict.pairing import Paired
from gradience.bench.verdict.power import Design, chance, of_shares

_ROUNDING = 1e-12


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
    usual : float
        Median over items of their mean difference: what an item gains that is not lost.
    identical : bool
        Whether every score equals the probe's, bit for bit.
    binary : bool
        Whether every score is 0 or 1.
    bounded : bool
        Whether every score lies within 0 and 1.
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
    usual: float
    identical: bool
    binary: bool
    bounded: bool

    def p_value(self, margin: float) -> float:
        """Of "it loses the margin or more".

        Where nothing varies there is no variance to test with. For scores within 0 and 1 the chance
        that a loss of the margin shows in none of the clusters bounds p (`shares.unseen`), and a
        sample that varies cannot say more than one that does not. Other scores that do not vary at
        all come from one function, as far as any test can see.
        """
        return self._tail(margin)

    def p_worse(self, margin: float = 0.0) -> float:
        """Of "it loses the margin or less": small where a larger loss is shown."""
        return self._tail(-margin, side=-1)

    def _tail(self, margin: float, side: int = 1) -> float:
        """Of "the truth is -margin or less", with every difference times `side`."""
        mean = side * self.mean
        least = 0.0
        if self.bounded and mean > -margin:  # at or below it the test says enough
            least = float(shares.unseen(mean, margin, self.independent))
        if self.standard_error == 0:
            return least if mean > -margin else 1.0
        tables = [_table(mean, design) for design in self._designs(margin, side)]
        errors, df = zip(*((table.standard_error, table.df) for table in tables), strict=True)
        tails = student_upper_tail((mean + margin) / np.asarray(errors), np.asarray(df))
        return max(least, float(tails.max()))

    def bounds(self, level: float) -> tuple[float, float]:
        """One-sided bounds, each missed with probability `level`."""
        # 0.0 - x and not -x: no bound is -0.0.
        return 0.0 - self._ruled_out(level), self._ruled_out(level, side=-1)

    def _ruled_out(self, level: float, side: int = 1) -> float:
        """The smallest margin at which `_tail` comes down to the level."""
        mean = side * self.mean
        half = float(student_critical(level, self.df)) * self.standard_error
        if not self.bounded:
            return half - mean
        low = max(half - mean, shares.least_unseen(mean, level, self.independent))
        if self.standard_error == 0 or low >= 1:
            return min(low, 1.0)
        if self._tail(low, side) <= level * (1 + 1e-9):  # rounding
            return low
        high = 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self._tail(middle, side) > level else (low, middle)
        return high

    def too_few(self, level: float) -> bool:
        """Whether so few clusters are independent that all of them may agree by chance.

        That they agree in sign has the chance 0.5^G where the truth is at the margin: the smallest
        p of any test that asks for no more than a symmetric spread (Fisher's sign flips).
        """
        return bool(0.5**self.independent > level)

    def power(self, margin: float, level: float) -> float:
        """Chance to rule out a loss of the margin at no loss; 0 where nothing can be shown."""
        if self.seeds == 1 or self.too_few(level):
            return 0.0
        if self.standard_error == 0:
            return float(self.p_value(margin) <= level)
        return min(chance(one, margin=margin, level=level) for one in self._designs(margin))

    def design(self, margin: float, level: float) -> Design:
        """What the power depends on: of the designs that must both suffice, the less powerful."""

        def power(design: Design) -> float:
            return chance(design, margin=margin, level=level)

        return min(self._designs(margin), key=power)

    def _designs(self, margin: float, side: int = 1) -> Sequence[Design]:
        """Of which each must suffice."""
        measured = Design(
            seeds=self.seeds,
            items=self.clusters,
            v_seeds=self.v_seeds,
            v_items=self.v_items,
            v_rest=self.v_rest,
        )
        if not self.bounded:
            return (measured,)
        uneven = self.clusters / self.independent
        gain = max(side * self.mean, side * self.usual)
        return of_shares(measured, margin=margin, gain=gain, unevenness=uneven)


def _table(mean: float, design: Design) -> Anova:
    return of_components(
        design.seeds,
        design.items,
        np.asarray(mean),
        v_seeds=np.asarray(design.v_seeds),
        v_items=np.asarray(design.v_items),
        v_rest=np.asarray(design.v_rest),
    )


def estimate(paired: Paired) -> Estimate:
    """The estimate from the paired scores of one variant."""
    differences = paired.differences
    table = differences if paired.clusters is None else by_cluster(differences, paired.clusters)
    found: Anova = anova(table)
    identical = not np.any(differences)
    v_seeds, v_items, v_rest = map(float, found.components)
    # Of equal numbers the mean may differ in the last bits, and its error from 0.
    constant = bool(np.ptp(table) <= _ROUNDING * np.max(np.abs(differences)))
    return Estimate(
        mean=float(table[0, 0]) if constant else float(found.mean),
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
        usual=float(np.median(differences.mean(axis=0))),
        identical=identical,
        binary=paired.binary,
        bounded=paired.bounded,
    )
