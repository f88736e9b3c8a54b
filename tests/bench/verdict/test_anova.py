"""The mean squares, their errors and the t-test, against dense least squares and textbooks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gradience.bench.verdict.anova import anova, by_cluster


def least_squares(table):
    """Mean squares from two regressions: residual sums of squares of nested linear models."""
    seeds, items = table.shape
    y = table.ravel()
    s, i = np.divmod(np.arange(y.size), items)
    columns = {
        "mean": np.ones((y.size, 1)),
        "seeds": (s[:, None] == np.arange(seeds)).astype(float),
        "items": (i[:, None] == np.arange(items)).astype(float),
    }

    def residual(*names):
        X = np.hstack([columns[name] for name in names])
        fitted = X @ np.linalg.lstsq(X, y, rcond=None)[0]
        return float(np.sum((y - fitted) ** 2))

    both = residual("mean", "seeds", "items")
    return (
        (residual("mean", "items") - both) / (seeds - 1),
        (residual("mean", "seeds") - both) / (items - 1),
        both / ((seeds - 1) * (items - 1)),
    )


@pytest.mark.parametrize("shape", [(2, 2), (3, 20), (5, 40)])
def test_mean_squares_are_those_of_nested_least_squares(shape):
    table = np.random.default_rng(shape).integers(-1, 2, shape).astype(float)
    found = anova(table)
    assert [float(found.ms_seeds), float(found.ms_items), float(found.ms_rest)] == pytest.approx(
        least_squares(table), rel=1e-9, abs=1e-12
    )


def test_the_randomized_block_example_of_a_textbook():
    """Box, Hunter & Hunter, Statistics for Experimenters, 1978, table 7.1: penicillin yield.

    Blends (5) by treatments (4): mean squares 66.0 and 23.3, residual 18.8.
    """
    yields = np.array(
        [[89, 88, 97, 94], [84, 77, 92, 79], [81, 87, 87, 85], [87, 92, 89, 84], [79, 81, 80, 88]]
    )
    found = anova(yields)
    assert float(found.mean) == 86
    assert float(found.ms_seeds) == pytest.approx(66.0)
    assert float(found.ms_items) == pytest.approx(70 / 3)
    assert float(found.ms_rest) == pytest.approx(226 / 12)


def test_variance_and_df_are_those_of_the_formula_where_no_component_is_negative():
    rng = np.random.default_rng(3)
    table = rng.normal(size=(4, 1)) + 2 * rng.normal(size=30) + rng.normal(size=(4, 30))
    found = anova(table)
    A, B, E = float(found.ms_seeds), float(found.ms_items), float(found.ms_rest)
    assert min(A, B) > E
    variance = table.mean(0).var(ddof=1) / 30 + table.mean(1).var(ddof=1) / 4 - E / 120
    assert float(found.standard_error) ** 2 == pytest.approx(variance)
    df = (A + B - E) ** 2 / (A**2 / 3 + B**2 / 29 + E**2 / 87)
    assert float(found.df) == pytest.approx(df)


@given(st.integers(0, 10**6), st.integers(3, 6), st.integers(5, 40))
def test_a_negative_component_never_shrinks_the_error_or_buys_degrees_of_freedom(key, seeds, items):
    table = np.random.default_rng(key).integers(-1, 2, (seeds, items)).astype(float)
    found = anova(table)
    variance = float(found.standard_error) ** 2 * seeds * items
    squares = [float(x) for x in (found.ms_seeds, found.ms_items, found.ms_rest)]
    assert variance >= max(squares) * (1 - 1e-12)
    assert all(float(part) >= 0 for part in found.components)
    if squares[0] < squares[2] and variance > 0:
        # Seeds that agree by luck still count as one component on seeds - 1 degrees of freedom.
        share = squares[2] / variance
        assert float(found.df) <= max(seeds - 1, (seeds - 1) / share**2) * (1 + 1e-12)


def test_two_seeds_have_two_degrees_of_freedom_at_most():
    table = np.random.default_rng(0).normal(size=(2, 5000))
    assert 1 <= float(anova(table).df) <= 2


def test_one_seed_is_a_paired_t_test_over_items():
    x, y = np.random.default_rng(1).normal(size=(2, 50))
    found = anova((x - y)[None])
    t = float(found.mean / found.standard_error)
    assert t == pytest.approx(stats.ttest_rel(x, y).statistic)
    assert float(found.df) == 49


def test_clusters_of_one_item_change_nothing():
    table = np.random.default_rng(0).normal(size=(3, 12))
    np.testing.assert_allclose(by_cluster(table, np.arange(12)), table)


def test_equal_clusters_are_their_means():
    table = np.random.default_rng(0).normal(size=(3, 12))
    np.testing.assert_allclose(
        by_cluster(table, np.repeat(np.arange(4), 3)), table.reshape(3, 4, 3).mean(2)
    )


def test_unequal_clusters_keep_the_mean_over_items_and_the_error_of_a_ratio():
    """Cochran 1977, eq. 6.13: the error of a ratio mean over clusters, one seed."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 9, 40)
    clusters = np.repeat(np.arange(40), sizes)
    d = rng.normal(size=clusters.size) + rng.normal(size=40)[clusters]
    found = anova(by_cluster(d[None], clusters))
    assert float(found.mean) == pytest.approx(d.mean())
    sums = np.bincount(clusters, d)
    variance = np.sum((sums - d.mean() * sizes) ** 2) / 39 / 40 / sizes.mean() ** 2
    assert float(found.standard_error) == pytest.approx(math.sqrt(variance))


def test_sizes_of_clusters_add_no_variance_of_their_own():
    """Seeds that shift every item alike leave no residual, however unequal the clusters."""
    clusters = np.repeat(np.arange(3), (1, 5, 30))
    table = np.repeat([[0.1], [0.2], [0.4]], 36, axis=1)
    found = anova(by_cluster(table, clusters))
    assert float(found.ms_rest) == pytest.approx(0, abs=1e-25)
    assert float(found.ms_items) == pytest.approx(0, abs=1e-25)
