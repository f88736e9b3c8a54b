"""The promise: 1e-8 of every singular value above 1e-6 sigma_1, with a bound that is true."""

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file

from factories_spectra import (
    exact_singular_values,
    matrix,
    needs_longdouble,
    orthogonal,
    product,
)
from gradience.adapter.delta import Delta, Dense, Kronecker, Matrix, Product
from gradience.audit.spectrum import (
    PROMISED_ERROR,
    PROMISED_RANGE,
    NonFinite,
    Spectrum,
    spectra,
)

Array = NDArray[Any]
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "adapters"


def spectrum(delta: Delta, scale: float = 1.0) -> Spectrum:
    (result,) = spectra([(delta, scale)])
    assert isinstance(result, Spectrum)
    return result


def observed_error(found: Spectrum, truth: NDArray[Any], scale: float = 1.0) -> float:
    """Largest relative error of the values that the promise covers."""
    covered = found.values > PROMISED_RANGE * found.values[0]
    true = truth[: len(found.values)][covered] * abs(scale)
    return float((np.abs(found.values[covered] - true) / true).max())


# --- hard factors -------------------------------------------------------------------------------

Maker = Callable[[np.random.Generator], tuple[Array, Array]]
M, N, R = 330, 290, 9


def gaussian(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((M, R)), rng.standard_normal((R, N))


def graded(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    return B * 1e-6, A * 1e6


def graded_inside(rng: np.random.Generator) -> tuple[Array, Array]:
    (B, A), g = gaussian(rng), 10.0 ** rng.uniform(-12, 12, R)
    return B * g, A / g[:, None]


def graded_by_rank(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    return B * 10.0 ** rng.uniform(-12, 12, R), A


def graded_rows(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    return B * 10.0 ** rng.uniform(-12, 12, (M, 1)), A


def graded_columns(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    return B, A * 10.0 ** rng.uniform(-12, 12, N)


def duplicated(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    B[:, -1] = B[:, 0]
    return B, A


def rank_deficient(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    return B[:, :3] @ rng.standard_normal((3, R)), A


def rank_deficient_both(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = rank_deficient(rng)
    return B, rng.standard_normal((R, 4)) @ A[:4]


def nearly_dependent(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    return B[:, :1] + 1e-7 * B, A


def some_columns_zero(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    B[:, 2:5] = 0
    A[4:6] = 0
    return B, A


def equal_entries(rng: np.random.Generator) -> tuple[Array, Array]:
    return np.full((M, R), 0.1, np.float32), np.full((R, N), 0.3, np.float32)


def signs(rng: np.random.Generator) -> tuple[Array, Array]:
    B, A = gaussian(rng)
    return (np.sign(B) * 0.1).astype(np.float32), (np.sign(A) * 0.7).astype(np.float32)


def spread(decades: float, where: str) -> Maker:
    """Singular values from 1 down to 10**-decades, hidden by a rotation where said."""

    def make(rng: np.random.Generator) -> tuple[Array, Array]:
        U, V, Q = orthogonal(rng, M, R), orthogonal(rng, N, R), orthogonal(rng, R, R)
        t = np.logspace(0, -decades, R)
        if where == "left":
            return (U * t) @ Q.T, Q @ V.T
        if where == "right":
            return U @ Q, Q.T @ (t[:, None] * V.T)
        if where == "both":
            return (U * np.sqrt(t)) @ Q.T, Q @ (np.sqrt(t)[:, None] * V.T)
        return U * t, V.T.copy()

    make.__name__ = f"spread_{decades:g}_{where}"
    return make


HARD: list[Maker] = [
    gaussian,
    graded,
    graded_inside,
    graded_by_rank,
    graded_rows,
    graded_columns,
    duplicated,
    rank_deficient,
    rank_deficient_both,
    nearly_dependent,
    some_columns_zero,
    equal_entries,
    signs,
    *[spread(d, w) for d in (2, 5.9, 8, 12) for w in ("left", "right", "both", "diagonal")],
]


@needs_longdouble
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("make", HARD, ids=lambda make: make.__name__)
def test_the_promise_holds_and_the_bound_covers_the_error(make: Maker, dtype: str) -> None:
    B, A = make(np.random.default_rng(3))
    number = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    B, A = B.astype(number), A.astype(number)
    found = spectrum(product(B, A))
    error = observed_error(found, exact_singular_values(B, A))
    assert error <= found.relative_error <= PROMISED_ERROR
    assert len(found.values) == R
    assert (np.diff(found.values) <= 0).all()


@needs_longdouble
@pytest.mark.parametrize("decades", [2, 4, 6, 8, 10, 12])
def test_factors_that_cancel_get_a_larger_bound_and_a_true_one(decades: int) -> None:
    rng = np.random.default_rng(decades)
    t, Q = np.logspace(0, -decades, R), orthogonal(rng, R, R)
    B = (orthogonal(rng, M, R) * t) @ Q.T
    A = Q @ (t[::-1, None] * orthogonal(rng, N, R).T)
    found = spectrum(product(B, A))
    assert observed_error(found, exact_singular_values(B, A)) <= found.relative_error
    assert (found.relative_error <= PROMISED_ERROR) == (decades <= 6)


def test_a_product_that_cancels_entirely_says_that_nothing_is_known() -> None:
    rng = np.random.default_rng(0)
    B = np.repeat(rng.standard_normal((50, 1)), 2, axis=1)
    A = rng.standard_normal((1, 40)) * np.array([[1.0], [-1.0]])
    found = spectrum(product(B, A))
    assert found.relative_error >= 1.0
    assert found.values[0] <= 1e-13


@pytest.mark.parametrize("rank", [1, 2, 16, 64, 65, 130])
def test_values_agree_with_a_dense_svd_at_every_rank(rank: int) -> None:
    rng = np.random.default_rng(rank)
    B, A = rng.standard_normal((1500, rank)), rng.standard_normal((rank, 300))
    B *= np.logspace(0, -3, rank)
    found = spectrum(product(B, A), -0.5)
    truth = np.linalg.svd(B @ A, compute_uv=False)
    assert found.method == "gram"
    assert observed_error(found, truth, 0.5) <= found.relative_error <= 1e-10
    assert found.left_norm == pytest.approx(np.linalg.norm(B), rel=1e-14)
    assert found.right_norm == pytest.approx(np.linalg.norm(A), rel=1e-14)


@pytest.mark.parametrize(
    "dtype",
    [
        np.float16,
        np.float32,
        np.float64,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e5m2,
    ],
)
def test_every_storage_type_is_widened_exactly(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    B, A = rng.standard_normal((700, 8)).astype(dtype), rng.standard_normal((8, 2100)).astype(dtype)
    truth = np.linalg.svd(B.astype(np.float64) @ A.astype(np.float64), compute_uv=False)
    found = spectrum(product(B, A))
    assert observed_error(found, truth) <= 1e-13


SMALL_SHAPES = (
    "1x1x1 1x1x900 900x1x1 1x4x30 30x4x1 7x7x7 5x12x8 "
    "5x12x300 300x12x5 12x12x40 40x12x12 3x300x4 13x12x13"
)


@pytest.mark.parametrize("shape", SMALL_SHAPES.split())
def test_any_shape_has_as_many_values_as_its_rank_allows(shape: str) -> None:
    m, r, n = (int(side) for side in shape.split("x"))
    rng = np.random.default_rng(m * r * n)
    B, A = rng.standard_normal((m, r)), rng.standard_normal((r, n))
    found = spectrum(product(B, A), 3.0)
    assert len(found.values) == min(m, r, n)
    truth = np.linalg.svd(B @ A, compute_uv=False)
    assert observed_error(found, truth, 3.0) <= max(found.relative_error, 1e-12) <= PROMISED_ERROR


@pytest.mark.parametrize("fill", [(0, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("shape", [(40, 4, 30), (3, 4, 30), (3, 4, 2)])
def test_a_zero_factor_gives_zeros_without_error(
    fill: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    m, r, n = shape
    found = spectrum(product(np.full((m, r), fill[0]) * 1.0, np.full((r, n), fill[1]) * 1.0))
    assert (found.method, found.relative_error) == ("zero", 0.0)
    assert found.values.tolist() == [0.0] * min(shape)
    assert found.left_norm == pytest.approx(fill[0] * np.sqrt(m * r))


def test_factors_that_never_meet_and_a_zero_scale_give_zeros_too() -> None:
    rng = np.random.default_rng(0)
    B, A = rng.standard_normal((40, 4)), rng.standard_normal((4, 30))
    assert spectrum(product(B, A), 0.0).method == "zero"
    B[:, :2], A[2:] = 0, 0
    assert spectrum(product(B, A)).method == "zero"


@pytest.mark.parametrize(("b", "a"), [(1e30, 1e30), (1e-30, 1e-30), (1e30, 1e-30), (1e-40, 1.0)])
def test_huge_and_tiny_float32_factors_keep_their_digits(b: float, a: float) -> None:
    rng = np.random.default_rng(5)
    B = (rng.uniform(0.5, 1, (400, 6)) * b).astype(np.float32)
    A = (rng.uniform(-1, 1, (6, 300)) * a).astype(np.float32)
    truth = np.linalg.svd((B.astype(np.float64) / b) @ (A.astype(np.float64) / a))[1]
    assert observed_error(spectrum(product(B, A), 1.0), truth * b * a) <= 1e-13


@pytest.mark.parametrize("shape", [(90, 5, 70), (4, 5, 70), (4, 5, 3)])
@pytest.mark.parametrize(("b", "a"), [(300, -300), (-200, 200), (150, 150), (-140, -140)])
def test_float64_factors_whose_squares_leave_the_range_are_fine(
    shape: tuple[int, int, int], b: int, a: int
) -> None:
    m, r, n = shape
    rng = np.random.default_rng(6)
    B, A = rng.standard_normal((m, r)), rng.standard_normal((r, n))
    truth = np.linalg.svd(B @ A, compute_uv=False)
    found = spectrum(product(B * 2.0 ** (3 * b), A * 2.0 ** (3 * a)))
    assert observed_error(found, truth * 2.0 ** (3 * (a + b))) <= found.relative_error + 1e-13
    assert found.left_norm == pytest.approx(np.linalg.norm(B) * 2.0 ** (3 * b))


def test_rows_graded_over_the_whole_range_of_float64_are_fine() -> None:
    rng = np.random.default_rng(7)
    B, A = rng.standard_normal((60, 4)), rng.standard_normal((4, 50))
    g = 2.0 ** np.array([1000, 300, -300, -1000])
    truth = np.linalg.svd(B @ A, compute_uv=False)
    assert observed_error(spectrum(product(B * g, A / g[:, None])), truth) <= 1e-12


# --- laws ---------------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)


@st.composite
def factor_pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    rng = np.random.default_rng(draw(seeds))
    m, n, r = (draw(st.integers(1, k)) for k in (40, 40, 8))
    grading = 10.0 ** rng.uniform(-4, 4, r)
    return rng.standard_normal((m, r)) * grading, rng.standard_normal((r, n)) / grading[:, None]


def assert_same(one: Spectrum, other: Spectrum) -> None:
    """Equal as far as the bounds of both reach."""
    tolerance = one.relative_error + other.relative_error + 1e-13
    covered = one.values > 1.1 * PROMISED_RANGE * one.values[0]
    np.testing.assert_allclose(one.values[covered], other.values[covered], rtol=tolerance)


LAW = settings(max_examples=40, deadline=None)


@LAW
@given(factor_pairs(), seeds)
def test_an_orthogonal_change_of_basis_between_the_factors_changes_nothing(
    factors: tuple[Array, Array], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    B, A = factors
    lengths = np.linalg.norm(B, axis=0)
    B, A = B / lengths, A * lengths[:, None]  # else the change of basis itself rounds too much
    G = orthogonal(rng, B.shape[1], B.shape[1])
    assert_same(spectrum(product(B, A)), spectrum(product(B @ G.T, G @ A)))


@LAW
@given(factor_pairs(), st.floats(-1e6, 1e6).filter(lambda c: abs(c) > 1e-6))
def test_the_scale_comes_out_as_its_absolute_value(factors: tuple[Array, Array], c: float) -> None:
    one, scaled = spectrum(product(*factors)), spectrum(product(*factors), c)
    np.testing.assert_allclose(scaled.values, abs(c) * one.values, rtol=1e-15)


@LAW
@given(factor_pairs(), seeds)
def test_permuting_rows_and_columns_changes_nothing(
    factors: tuple[Array, Array], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    B, A = factors
    rows, columns = rng.permutation(B.shape[0]), rng.permutation(A.shape[1])
    assert_same(spectrum(product(B, A)), spectrum(product(B[rows], A[:, columns])))


@LAW
@given(factor_pairs())
def test_the_transpose_has_the_same_values(factors: tuple[Array, Array]) -> None:
    B, A = factors
    one, turned = spectrum(product(B, A)), spectrum(product(A.T, B.T))
    assert_same(one, turned)
    assert (one.left_norm, one.right_norm) == pytest.approx((turned.right_norm, turned.left_norm))


@LAW
@given(st.lists(factor_pairs(), min_size=1, max_size=6), seeds)
def test_neighbours_and_order_do_not_matter(pairs: list[tuple[Array, Array]], seed: int) -> None:
    deltas = [(product(B, A), 1.0 + i) for i, (B, A) in enumerate(pairs)]
    order = np.random.default_rng(seed).permutation(len(deltas))
    alone = [spectrum(*deltas[i]) for i in order]
    for one, other in zip(alone, spectra([deltas[i] for i in order]), strict=True):
        assert isinstance(other, Spectrum)
        np.testing.assert_allclose(one.values, other.values, rtol=1e-13, atol=1e-13 * one.values[0])
        assert one.method == other.method


# --- what is no number --------------------------------------------------------------------------


def test_nan_and_inf_are_counted_by_factor_and_leave_the_neighbours_alone() -> None:
    rng = np.random.default_rng(2)
    pairs = [(rng.standard_normal((50, 3)), rng.standard_normal((3, 40))) for _ in range(5)]
    pairs[1][0][3:5, 1] = np.nan
    pairs[2][1][0, 7] = -np.inf
    pairs[3][0][0, 0], pairs[3][1][2, 2] = np.inf, np.nan
    found = spectra([(product(B.astype(np.float32), A), 1.0) for B, A in pairs])
    assert found[1] == NonFinite(where="left", nans=2, infs=0)
    assert found[2] == NonFinite(where="right", nans=0, infs=1)
    assert found[3] == NonFinite(where="left and right", nans=1, infs=1)
    assert [str(bad) for bad in found[1:4]] == [
        "factor B: 2 NaN",
        "factor A: 1 Inf",
        "factors B and A: 1 NaN and 1 Inf",
    ]
    for i in (0, 4):
        assert isinstance(found[i], Spectrum)


@pytest.mark.parametrize("m", [2, 50])
def test_a_single_nan_in_bfloat16_is_found(m: int) -> None:
    B, A = np.ones((m, 3), ml_dtypes.bfloat16), np.ones((3, 40), ml_dtypes.bfloat16)
    B[m - 1, 2] = np.nan
    assert spectra([(product(B, A), 1.0)]) == [NonFinite(where="left", nans=1, infs=0)]


def test_a_scale_or_a_result_outside_float64_is_no_spectrum() -> None:
    big = product(np.full((9, 1), 1e200), np.full((1, 9), 1e200))
    small = product(np.ones((9, 1)), np.zeros((1, 9)))
    found = spectra([(big, 1.0), (big, 1e-200), (small, float("nan")), (small, float("inf"))])
    assert found[0] == NonFinite(where="product", nans=0, infs=1)
    assert isinstance(found[1], Spectrum)
    assert found[1].values[0] == pytest.approx(9e200)
    assert found[2] == NonFinite(where="scale", nans=1, infs=0)
    assert found[3] == NonFinite(where="scale", nans=0, infs=1)


# --- other forms --------------------------------------------------------------------------------


def test_dense_values_are_those_of_the_matrix() -> None:
    W = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    found = spectrum(Dense(matrix=matrix(W)), -2.0)
    truth = np.linalg.svd(W.astype(np.float64), compute_uv=False)
    assert found.method == "dense"
    assert observed_error(found, truth, 2.0) <= found.relative_error <= PROMISED_ERROR
    assert found.left_norm is None
    W[3, 3] = np.nan
    assert spectra([(Dense(matrix=matrix(W)), 1.0)]) == [NonFinite(where="matrix", nans=1, infs=0)]
    assert spectrum(Dense(matrix=matrix(np.zeros((3, 4))))).method == "zero"


def test_kronecker_values_are_the_products_of_those_of_the_parts() -> None:
    rng = np.random.default_rng(0)
    W, B, A = (rng.standard_normal(s) for s in ((4, 6), (12, 3), (3, 10)))
    delta = Kronecker(left=Dense(matrix=matrix(W)), right=product(B, A))
    found = spectrum(delta, 0.5)
    truth = np.linalg.svd(np.kron(W, B @ A), compute_uv=False)
    assert found.method == "kronecker"
    assert len(found.values) == 12
    assert observed_error(found, truth, 0.5) <= max(found.relative_error, 1e-13)
    zero = Kronecker(left=Dense(matrix=matrix(W)), right=product(0 * B, A))
    assert spectrum(zero).values.tolist() == [0.0] * 12
    A[0, 0] = np.inf
    assert spectra([(delta, 1.0)]) == [NonFinite(where="right.right", nans=0, infs=1)]


# --- streaming ----------------------------------------------------------------------------------


class Ledger:
    """Matrices that count who holds them."""

    def __init__(self) -> None:
        self.held = self.most = 0

    def matrix(self, array: Array) -> Matrix:
        def load() -> Array:
            self.held += 1
            self.most = max(self.most, self.held)
            return array

        def release() -> None:
            self.held -= 1

        return Matrix(shape=(array.shape[0], array.shape[1]), load=load, release=release)


def test_one_matrix_is_held_at_a_time_and_every_module_is_reported() -> None:
    rng, ledger = np.random.default_rng(0), Ledger()
    deltas: list[tuple[Delta, float]] = []
    for make in HARD:
        B, A = make(rng)
        deltas.append((Product(left=ledger.matrix(B), right=ledger.matrix(A)), 1.0))
    deltas.insert(2, (Dense(matrix=ledger.matrix(np.eye(3))), 1.0))
    steps: list[int] = []
    found = spectra(deltas, done=steps.append)
    assert sum(steps) == len(found) == len(deltas)
    assert (ledger.held, ledger.most) == (0, 1)
    assert found[2].method == "dense"  # type: ignore[union-attr]


def test_memory_does_not_grow_with_the_number_of_modules() -> None:
    rank, modules, height = 128, 48, 512
    rng = np.random.default_rng(0)
    B = rng.standard_normal((height, rank)).astype(np.float32)
    delta = product(B, np.ascontiguousarray(B.T))
    tracemalloc.start()
    spectra([(delta, 1.0)] * modules)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_nothing_to_measure_is_an_empty_list() -> None:
    assert spectra([]) == []


@pytest.mark.parametrize("shape", [(0, 3, 5), (4, 0, 5), (4, 3, 0)])
def test_a_matrix_without_entries_has_no_values(shape: tuple[int, int, int]) -> None:
    m, r, n = shape
    found = spectrum(product(np.zeros((m, r)), np.zeros((r, n))))
    assert (found.method, found.values.tolist()) == ("zero", [])


# --- real adapters ------------------------------------------------------------------------------


def real_pairs(tensors: dict[str, Array]) -> list[tuple[Array, Array]]:
    names = (("lora_A", "lora_B"), ("lora.down", "lora.up"))
    return [
        (np.squeeze(tensors[key.replace(down, up)]), np.squeeze(tensors[key]))
        for down, up in names
        for key in tensors
        if down in key and np.squeeze(tensors[key]).ndim == 2
    ]


@pytest.mark.parametrize(
    "file",
    [
        "distilbert-imdb/adapter_model.safetensors",
        "gpt2-tigrinya/adapter_model.safetensors",
        "sd15-diffusers/pytorch_lora_weights.safetensors",
    ],
)
def test_real_adapters_keep_the_promise_without_a_qr(file: str) -> None:
    if not (SHARED / file).exists():
        pytest.skip("../shared/adapters is not here")
    pairs = real_pairs(load_file(SHARED / file))
    found = spectra([(product(B, A), 1.0) for B, A in pairs])
    for i, (B, A) in enumerate(pairs):
        one = found[i]
        assert isinstance(one, Spectrum)
        assert one.method == "gram"
        assert one.relative_error <= PROMISED_ERROR
        if i % 8 == 0 and B.shape[0] * A.shape[1] <= 1 << 20:
            truth = np.linalg.svd(B.astype(np.float64) @ A.astype(np.float64), compute_uv=False)
            assert observed_error(one, truth) <= PROMISED_ERROR


def test_threads_give_the_same_numbers_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    pairs: list[tuple[Delta, float]] = [
        (product(rng.standard_normal((300, r)), rng.standard_normal((r, 200))), 0.5)
        for r in (4, 16, *[64] * 20, 16, 4, 70)  # several batches of one rank
    ]
    bad = rng.standard_normal((300, 16))
    bad[7, 3] = np.nan
    pairs.append((product(bad, rng.standard_normal((16, 200))), 1.0))
    told: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        shared = spectra(pairs, done=told.append, pool=pool)
    assert sum(told) == len(pairs)
    for one, other in zip(spectra(pairs), shared, strict=True):
        if isinstance(one, Spectrum):
            assert isinstance(other, Spectrum)
            np.testing.assert_array_equal(one.values, other.values)
        else:
            assert one == other
