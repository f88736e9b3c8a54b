"""Truncation in factor space against dense float64 matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.compress import factors
from gradience.compress.factors import Pair


def make_pair(m: int = 40, n: int = 30, r: int = 8, *, seed: int = 0, decay: float = 0.6) -> Pair:
    rng = np.random.default_rng(seed)
    weights = decay ** np.arange(r)
    return Pair(left=rng.standard_normal((m, r)) * weights, right=rng.standard_normal((r, n)))


def dense(pair: Pair) -> np.ndarray:
    return pair.left @ pair.right


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 9),
)
def test_a_cut_is_the_best_of_its_rank_and_says_what_it_loses(
    m: int, n: int, r: int, rank: int, seed: int
) -> None:
    pair = make_pair(m, n, r, seed=seed)
    cut = factors.truncated(pair, rank)
    values = np.linalg.svd(dense(pair), compute_uv=False)
    whole = np.linalg.norm(values)
    assert cut.whole == pytest.approx(whole, rel=1e-12)
    assert cut.lost == pytest.approx(np.linalg.norm(values[rank:]), abs=1e-10 * whole)
    measured = np.linalg.norm(dense(pair) - dense(cut.pair))
    assert measured == pytest.approx(cut.lost, abs=1e-10 * whole)
    assert cut.pair.left.shape[1] == min(rank, r, m, n)


def test_new_factors_are_balanced() -> None:
    cut = factors.truncated(make_pair(), 3)
    gram = cut.pair.left.T @ cut.pair.left
    assert np.allclose(gram, cut.pair.right @ cut.pair.right.T, atol=1e-10)
    assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-10)


def test_the_distance_of_two_products_needs_neither() -> None:
    one, other = make_pair(seed=1), make_pair(r=5, seed=2)
    expected = np.linalg.norm(2.0 * dense(one) - 0.5 * dense(other))
    assert factors.distance(one, other, scales=(2.0, 0.5)) == pytest.approx(expected, rel=1e-12)
    assert factors.distance(one, one) == 0.0
    near = Pair(left=one.left * (1 + 1e-16), right=one.right * (1 + 2e-16))
    assert factors.distance(one, near) <= 1e-13 * factors.norm(one)


def test_a_random_subspace_keeps_its_share_of_dimensions_and_no_more() -> None:
    pair = make_pair(m=400, n=300, r=8)
    cut = factors.projected(pair, 8, np.random.default_rng(3))
    kept = 1 - (cut.lost / cut.whole) ** 2
    assert 0.2 * 8 / 400 < kept < 3 * 8 / 400
    assert np.linalg.norm(dense(pair) - dense(cut.pair)) == pytest.approx(cut.lost, rel=1e-10)


def test_int8_is_off_by_half_a_step_of_its_own_direction() -> None:
    array = make_pair().right.astype(np.float32)
    values, scales = factors.int8(array, 0)
    assert values.dtype == np.int8
    assert scales.shape == (8, 1)
    assert np.all(np.abs(array - values * scales) <= scales / 2 * (1 + 1e-5))
    assert np.array_equal(np.abs(values).max(axis=1), np.full(8, 127))


def test_int8_of_a_direction_of_zeros_is_zero() -> None:
    values, scales = factors.int8(np.zeros((4, 2), np.float32), 1)
    assert not (values * scales).any()


def test_a_change_of_zero_has_no_error() -> None:
    cut = factors.truncated(Pair(left=np.zeros((5, 3)), right=np.ones((3, 4))), 2)
    assert factors.relative([(cut.lost, cut.whole)]) == 0.0
