"""Looking again with more seeds: what it does to the level, and that planned looks keep it."""

import numpy as np
import pytest

from factories_worlds import pair_scores
from gradience.bench.records import Variant
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict import decide
from gradience.bench.verdict.estimate import estimate
from gradience.bench.verdict.pairing import Paired

LOOKS = (3, 4, 5, 6, 8)
WORLDS = 600


def safe_at_a_look(claim, rng):
    """Whether a variant that loses the margin is SAFE at one of the looks, and at the first."""
    scores = pair_scores(rng, (LOOKS[-1], 1000), loss=claim.margin, discordance=0.15, seed_sd=0.012)
    passed = []
    for seeds in LOOKS:
        paired = Paired(
            variant=Variant(name="v", action="truncate"),
            seeds=tuple(range(seeds)),
            differences=scores[:seeds].astype(float),
            clusters=None,
            binary=True,
            bounded=True,
        )
        passed.append(decide.passes(estimate(paired), claim, claim.level_of_look))
    return any(passed), passed[0]


def rates(looks):
    claim = ClaimSettings(margin=0.04, looks=looks)
    rng = np.random.default_rng(5)
    return np.mean([safe_at_a_look(claim, rng) for _ in range(WORLDS)], axis=0)


def test_looks_that_were_not_planned_err_more_often_than_the_level_says():
    at_any, at_first = rates(looks=1)
    assert at_first <= 0.08
    assert at_any > 0.08
    assert at_any <= len(LOOKS) * 0.05


def test_looks_that_were_planned_err_no_oftener_than_the_level():
    at_any, _ = rates(looks=len(LOOKS))
    assert at_any <= 0.05


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_the_levels_of_all_looks_are_the_level(looks):
    claim = ClaimSettings(margin=0.04, looks=looks)
    assert looks * claim.level_of_look == pytest.approx(claim.level)


def test_one_look_is_what_earlier_settings_meant():
    assert ClaimSettings(margin=0.04).words() == "margin 0.04, level 0.05, power 0.8"
    assert ClaimSettings(margin=0.04).level_of_look == 0.05
