"""Scores within 0 and 1: few changed items are no proof that few will change."""

import numpy as np
import pytest
from scipy.stats import binom

from gradience.bench.records import Variant
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict import decide, ladders
from gradience.bench.verdict.estimate import Estimate, estimate
from gradience.bench.verdict.pairing import Paired


def estimate_of(differences, *, clusters=None, bounded=True):
    table = np.asarray(differences, np.float64)
    return estimate(
        Paired(
            variant=Variant(name="truncate-r8", action="truncate"),
            seeds=tuple(range(len(table))),
            differences=table,
            clusters=clusters,
            binary=bounded and bool(np.isin(table, (-1, 0, 1)).all()),
            bounded=bounded,
        )
    )


def lost_by_every_seed(lost: int, *, items: int, seeds: int = 3) -> Estimate:
    return estimate_of(np.tile(np.where(np.arange(items) < lost, -1.0, 0.0), (seeds, 1)))


@pytest.mark.parametrize(
    ("items", "margin"), [(60, 0.05), (100, 0.05), (200, 0.025), (1000, 0.025), (1319, 0.025)]
)
def test_a_variant_that_only_loses_is_falsely_safe_no_oftener_than_the_level(items, margin):
    """Exact: every changed item is lost with every seed, so all depends on how many there are."""
    claim = ClaimSettings(margin=margin)
    false = sum(
        binom.pmf(lost, items, margin)
        for lost in range(int(3 * items * margin))
        if decide.passes(lost_by_every_seed(lost, items=items), claim, claim.level)
    )
    assert false < 1.1 * claim.level


def test_one_lost_item_is_no_better_than_none():
    for items in (40, 60, 100):
        p = [lost_by_every_seed(lost, items=items).p_value(0.05) for lost in range(6)]
        assert p == sorted(p)


def test_the_lower_bound_is_where_the_test_turns():
    rng = np.random.default_rng(1)
    for _ in range(200):
        items, changed = int(rng.integers(40, 400)), rng.uniform(0.005, 0.1)
        lost, won = changed * rng.uniform(0.4, 1), changed * rng.uniform(0, 0.2)
        draws = rng.random((3, items))
        draws[:, : items // 2] = draws[0, : items // 2]
        found = estimate_of(np.where(draws < lost, -1.0, np.where(draws > 1 - won, 1.0, 0.0)))
        lower, _ = found.bounds(0.05)
        if found.identical or not -0.5 < lower < 0:
            continue
        assert found.p_value(-lower * 1.001) < 0.05 < found.p_value(-lower * 0.999)


def test_where_many_items_change_the_measured_variance_decides():
    rng = np.random.default_rng(2)
    changed = rng.choice([-1.0, 0.0, 1.0], size=(3, 500), p=[0.05, 0.9, 0.05])
    changed[:, :250] = changed[0, :250]
    found = estimate_of(changed)
    design = found.design(0.025, 0.05)
    assert (design.v_items, design.v_rest) == (found.v_items, found.v_rest)


def test_clusters_that_change_as_one_are_judged_as_single_items():
    for lost in range(6):
        single = lost_by_every_seed(lost, items=60)
        whole = np.repeat(np.where(np.arange(60) < lost, -1.0, 0.0), 5)
        tied = estimate_of(np.tile(whole, (3, 1)), clusters=np.repeat(np.arange(60), 5))
        for margin in (0.025, 0.05, 0.1):
            assert tied.p_value(margin) == pytest.approx(single.p_value(margin))
        assert tied.bounds(0.05) == pytest.approx(single.bounds(0.05))


@pytest.mark.parametrize("sizes", [(5,), (1, 9), (2, 2, 2, 14)])
@pytest.mark.parametrize("tied", [0.0, 0.5, 1.0])
def test_clusters_that_only_lose_are_falsely_safe_no_oftener_than_the_level(sizes, tied):
    """Each cluster's items are lost all together, or one by one, with every seed."""
    rng = np.random.default_rng(7)
    claim = ClaimSettings(margin=0.05)
    clusters = np.repeat(np.arange(60), np.resize(sizes, 60))
    false = 0
    for _ in range(400):
        draws = rng.random(clusters.size)
        together = rng.random(60) < tied
        draws = np.where(together[clusters], rng.random(60)[clusters], draws)
        lost = np.where(draws < claim.margin, -1.0, 0.0)
        found = estimate_of(np.tile(lost, (3, 1)), clusters=clusters)
        false += decide.passes(found, claim, claim.level)
    # Two standard deviations above what 400 draws of a rate of 5 % may show.
    assert false <= 400 * claim.level + 2 * np.sqrt(400 * 0.05 * 0.95)


def cancelling(groups: int, each: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """In every cluster one item is won and one is lost, with each of three seeds."""
    one = np.zeros(each)
    one[:2] = 1, -1
    return np.tile(one, (3, groups)), np.repeat(np.arange(groups), each)


@pytest.mark.parametrize("groups", [2, 3, 5, 20, 58])
def test_gains_and_losses_that_cancel_in_every_cluster_are_no_proof(groups):
    differences, clusters = cancelling(groups)
    found = estimate_of(differences, clusters=clusters)
    assert (found.standard_error, found.identical) == (0, False)
    assert found.p_value(0.05) == pytest.approx(0.95**groups)
    assert not decide.passes(found, ClaimSettings(margin=0.05), 0.05)
    lower, upper = found.bounds(0.05)
    assert found.p_value(-lower) == pytest.approx(0.05)
    assert found.p_worse(-upper) == pytest.approx(0.05)


def test_enough_clusters_in_which_nothing_is_lost_are_safe():
    differences, clusters = cancelling(59)
    assert decide.passes(
        estimate_of(differences, clusters=clusters), ClaimSettings(margin=0.05), 0.05
    )


@pytest.mark.parametrize("shown", [-0.4, -0.2, 0.0, 0.2, 0.6])
@pytest.mark.parametrize("groups", [2, 5, 30])
def test_where_all_clusters_show_the_same_p_is_the_chance_of_that(shown, groups):
    """The worst world shows it in as many clusters as a loss of 45 points leaves room for."""
    change = np.zeros(5)
    change[: round(abs(shown) * 5)] = np.sign(shown)
    found = estimate_of(np.tile(change, (3, groups)), clusters=np.repeat(np.arange(groups), 5))
    assert found.p_value(0.45) == pytest.approx(min(1, 0.55 / (1 + shown)) ** groups, rel=1e-6)
    assert found.p_worse(-0.45) == pytest.approx(min(1, 0.55 / (1 - shown)) ** groups, rel=1e-6)


@pytest.mark.parametrize("groups", [2, 5, 20, 45, 60, 120])
@pytest.mark.parametrize(("small", "seeds"), [("by seed", 3), ("by seed", 8), ("by fifths", 3)])
def test_what_is_lost_whole_is_not_hidden_by_what_changes_a_little(groups, small, seeds):
    """Items are lost with every seed; the others change with each seed anew, or by a fifth."""
    rng = np.random.default_rng(groups)
    claim = ClaimSettings(margin=0.05)
    false = 0
    for _ in range(300):
        step, rows = (1.0, seeds) if small == "by seed" else (0.2, 1)
        little = step * rng.choice([-1, 0, 1], (rows, groups), p=[0.02, 0.96, 0.02])
        whole = rng.random(groups) < claim.margin
        table = np.where(whole, -1.0, np.broadcast_to(little, (seeds, groups)))
        false += decide.passes(estimate_of(table), claim, claim.level)
    assert false <= 300 * claim.level + 2 * np.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize("items", [2, 3, 4])
def test_a_handful_of_items_shows_nothing_whatever_the_scores_are(items):
    claim = ClaimSettings(margin=0.05)
    for differences in (np.zeros((3, items)), np.full((3, items), 0.01)):
        found = estimate_of(differences, bounded=False)
        assert not decide.passes(found, claim, claim.level)
        tested = ladders.Tested(level=claim.level, passed=False)
        decided = decide.decide(found, claim, tested, None)
        assert decided.decision == "UNDERPOWERED"
        assert "too few" in decided.reason


def falsely_safe(draw, *, margin: float, benches: int = 200) -> float:
    """Share of benches that call SAFE what `draw` gives: differences, and their clusters."""
    claim, rng, false = ClaimSettings(margin=margin), np.random.default_rng(5), 0
    for _ in range(benches):
        differences, clusters = draw(rng)
        found = estimate_of(np.tile(differences, (3, 1)), clusters=clusters)
        false += decide.passes(found, claim, claim.level)
    return false / benches


@pytest.mark.parametrize("groups", [162, 480])
def test_clusters_may_be_lost_the_larger_the_sooner(groups):
    """One in ten is nine times as large, and only those are lost: of these there are few."""

    def draw(rng):
        sizes = np.where(rng.random(groups) < 0.1, 9, 1)
        lost = (sizes == 9) & (rng.random(groups) < 0.05 * 1.8 / 0.9)
        clusters = np.repeat(np.arange(groups), sizes)
        return -lost[clusters].astype(float), clusters

    assert falsely_safe(draw, margin=0.05) < 0.05


@pytest.mark.parametrize("items", [200, 300])
def test_what_most_items_gain_does_not_hide_how_few_are_lost_whole(items):
    """One in thirteen is lost, the others gain so much that the loss is the margin."""
    lost = 0.075
    gain = (lost - 0.05) / (1 - lost)

    def draw(rng):
        return np.where(rng.random(items) < lost, -1.0, gain), None

    assert falsely_safe(draw, margin=0.05, benches=400) < 0.07
