"""The interval of a spectral norm holds the norm, for every matrix that was ever trouble."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import threadpoolctl  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from factories_matrices import (
    MATRICES,
    Array,
    gaussian,
    trained_like,
    true_norm,
    with_spectrum,
)
from gradience.audit.base.spectral_norm import Crew, Goal, NormInterval, row_blocks, spectral_norm
from gradience.blas import one_thread
from gradience.errors import UnmeasurableError, UsageError

ROUNDING = 1e-12


@pytest.fixture(autouse=True, scope="module")
def oracle_on_one_thread() -> Iterator[None]:
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


DTYPES = (
    np.float64,
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
)


def assert_certified(interval: NormInterval, W: Array, width: float = 1e-3) -> None:
    truth = true_norm(W)
    assert interval.lower <= truth * (1 + ROUNDING)
    assert truth <= interval.upper * (1 + ROUNDING)
    assert interval.lower <= interval.upper <= interval.frobenius
    assert interval.frobenius == pytest.approx(np.linalg.norm(W.astype(np.float64)), rel=1e-13)
    assert interval.width <= width


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ml_dtypes.bfloat16])
def test_the_interval_holds_the_norm_of_a_dense_svd(name: str, dtype: DTypeLike) -> None:
    W = MATRICES[name]().astype(dtype)
    assert_certified(spectral_norm(W), W)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (40, 90)])
def test_every_stored_dtype_is_measured_as_it_is_stored(
    dtype: DTypeLike, shape: tuple[int, int]
) -> None:
    W = (10 * trained_like(*shape)).astype(dtype)
    assert_certified(spectral_norm(W), W)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["flat", "gaussian", "cluster of 8", "rank three", "trained-like"])
def test_no_seed_breaks_the_interval(name: str, seed: int) -> None:
    W = MATRICES[name]().astype(np.float32)
    assert_certified(spectral_norm(W, Goal(seed=seed)), W)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: gaussian(90, 80, seed),
        lambda seed: with_spectrum(np.r_[np.full(8, 1.02), np.linspace(1, 0.5, 62)], 90, 80, seed),
        lambda seed: with_spectrum(np.r_[1.02, np.full(69, 1.0)], 90, 80, seed),
    ],
    ids=["gaussian", "cluster of 8", "one above a plateau"],
)
def test_the_upper_bound_fails_no_more_often_than_eta(draw: Callable[[int], Array]) -> None:
    trials, eta = 200, 0.05
    failures = 0
    for seed in range(trials):
        W = draw(seed).astype(np.float32)
        # So wide a goal that most runs stop long before the top of the spectrum is resolved.
        interval = spectral_norm(W, Goal(eta=eta, seed=seed, width=0.05))
        truth = true_norm(W)
        assert interval.lower <= truth * (1 + ROUNDING)
        failures += interval.upper < truth
    assert failures <= 0.06 * trials


def test_an_eta_near_one_does_fail_so_that_the_test_above_can() -> None:
    failures = 0
    for seed in range(100):
        W = with_spectrum(np.r_[1.02, np.full(69, 1.0)], 90, 80, seed).astype(np.float32)
        interval = spectral_norm(W, Goal(eta=0.9, seed=seed, max_passes=3))
        failures += interval.upper < true_norm(W)
    assert 0 < failures <= 90


def test_with_the_default_eta_no_run_fails_however_early_it_stops() -> None:
    for seed in range(60):
        W = gaussian(90, 80, seed).astype(np.float32)
        interval = spectral_norm(W, Goal(seed=seed, max_passes=2 + seed % 5))
        assert interval.lower <= true_norm(W) <= interval.upper
        assert interval.passes <= 2 + seed % 5


def test_the_interval_reached_is_reported_when_the_passes_run_out() -> None:
    W = MATRICES["gaussian"]()
    wide = spectral_norm(W, Goal(max_passes=4))
    assert wide.width > 1e-3
    assert_certified(wide, W, width=10.0)


@pytest.mark.parametrize("width", [1e-1, 1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("name", ["trained-like", "power law", "rank three", "tall"])
def test_the_width_asked_for_is_the_width_reached(name: str, width: float) -> None:
    W = MATRICES[name]()
    assert_certified(spectral_norm(W, Goal(width=width)), W, width=width)


def test_a_wider_goal_takes_fewer_passes() -> None:
    W = MATRICES["gaussian"]().astype(np.float32)
    passes = [spectral_norm(W, Goal(width=width)).passes for width in (1e-1, 1e-2, 1e-3)]
    assert passes == sorted(set(passes))


def test_a_zero_matrix_has_norm_zero_and_width_zero() -> None:
    interval = spectral_norm(np.zeros((300, 200), dtype=np.float16))
    assert interval == NormInterval(lower=0.0, upper=0.0, frobenius=0.0, passes=1)
    assert interval.width == 0.0


@given(
    power=st.integers(-125, 120),
    shape=st.sampled_from([(100, 90), (90, 300), (30, 50)]),
    dtype=st.sampled_from([np.float32, np.float64, ml_dtypes.bfloat16]),
)
@settings(max_examples=40, deadline=None)
def test_a_power_of_two_scales_the_interval_exactly(
    power: int, shape: tuple[int, int], dtype: DTypeLike
) -> None:
    W = np.clip(gaussian(*shape), 2**-6, 4.0).astype(np.float16).astype(dtype)
    scaled = np.ldexp(W.astype(np.float64), power).astype(dtype)
    one, other = spectral_norm(W), spectral_norm(scaled)
    # Up to 2^60 the scale rides on the vectors, beyond on the block: same numbers, other order.
    for name in ("lower", "upper", "frobenius"):
        assert getattr(other, name) == pytest.approx(np.ldexp(getattr(one, name), power), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-30, 1e30, 1e150, 1e300])
def test_no_scale_of_float64_overflows(scale: float) -> None:
    W = trained_like(120, 100)
    one, other = spectral_norm(W), spectral_norm(scale * W)
    assert other.lower / scale == pytest.approx(one.lower, rel=1e-6)
    assert other.upper / scale == pytest.approx(one.upper, rel=1e-6)
    assert other.width <= 1e-3


def test_a_tiny_first_block_does_not_spoil_the_scale() -> None:
    W = gaussian(400, 100).astype(np.float32)
    for scale in (1e-30, 1e-10):
        graded = np.concatenate([np.tile(W * np.float32(scale), (4, 1)), W])
        assert_certified(spectral_norm(graded), graded)
        small = graded[:, :50]
        assert_certified(spectral_norm(small), small)


def test_a_norm_above_float64_is_refused() -> None:
    with pytest.raises(UnmeasurableError, match="above what float64 holds"):
        spectral_norm(np.full((100, 100), 1e308))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_transposing_and_permuting_keep_the_norm(dtype: DTypeLike) -> None:
    W = trained_like(300, 200).astype(dtype)
    rng = np.random.default_rng(1)
    shuffled = W[rng.permutation(300)][:, rng.permutation(200)]
    for other in (W.T, shuffled, -W, W[::-1]):
        assert_certified(spectral_norm(other), W)


@dataclass(frozen=True)
class Pieces:
    """Arrays of any dtypes stacked, handed over in blocks that reuse one buffer."""

    parts: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return sum(len(p) for p in self.parts), self.parts[0].shape[1]

    def blocks(self, rows: int) -> Iterator[Array]:
        for part in self.parts:
            for start in range(0, len(part), rows):
                piece = part[start : start + rows].copy()
                yield piece
                piece.fill(np.nan)


@given(cuts=st.sets(st.integers(1, 299), max_size=6), columns=st.sampled_from([40, 150]))
@settings(max_examples=15, deadline=None)
def test_where_the_rows_are_cut_changes_only_rounding(cuts: set[int], columns: int) -> None:
    W = trained_like(300, columns).astype(np.float32)
    whole = spectral_norm(W)
    cut = spectral_norm(Pieces(tuple(np.split(W, sorted(cuts)))))
    assert cut.lower == pytest.approx(whole.lower, rel=1e-9)
    assert cut.upper == pytest.approx(whole.upper, rel=1e-5)
    assert cut.frobenius == pytest.approx(whole.frobenius, rel=1e-13)
    assert cut.passes == whole.passes


def test_pieces_may_differ_in_dtype() -> None:
    W = trained_like(200, 100)
    parts = (W[:90].astype(ml_dtypes.bfloat16), W[90:150].astype(np.float32), W[150:])
    stacked = np.concatenate([part.astype(np.float64) for part in parts])
    assert_certified(spectral_norm(Pieces(parts)), stacked)


def test_a_column_slice_and_a_mapped_file_are_measured_in_place(tmp_path: Any) -> None:
    W = trained_like(300, 400).astype(np.float32)
    np.save(tmp_path / "w.npy", W)
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    assert spectral_norm(mapped) == spectral_norm(W)
    assert_certified(spectral_norm(mapped[:, 100:300]), W[:, 100:300])


@pytest.mark.parametrize("shape", [(300, 200), (30, 20), (20, 900)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("value", "name"), [(np.nan, "1 NaN"), (np.inf, "1 Inf"), (-np.inf, "1 Inf")]
)
def test_a_value_that_is_not_finite_is_refused_by_name(
    shape: tuple[int, int], dtype: DTypeLike, value: float, name: str
) -> None:
    W = gaussian(*shape).astype(dtype)
    W[shape[0] - 2, 3] = value
    if not np.isinf(value) or np.isinf(W.astype(np.float32)).any():
        with pytest.raises(UnmeasurableError, match=name):
            spectral_norm(W)
    else:  # float8_e4m3fn has no infinity: it stores NaN
        with pytest.raises(UnmeasurableError, match="1 NaN"):
            spectral_norm(W)


def test_a_nan_that_signals_is_refused_as_any_other() -> None:
    """One flipped bit makes it of an infinity; numpy warns where it is widened."""
    W = np.ones((200, 200), dtype=np.float32)
    W.view(np.uint32)[7, 7] = 0x7F800001
    with pytest.raises(UnmeasurableError, match="1 NaN"):
        spectral_norm(W)


def test_a_matrix_of_nothing_but_nan_is_not_taken_for_zero() -> None:
    with pytest.raises(UnmeasurableError, match="40000 NaN"):
        spectral_norm(np.full((200, 200), np.nan, dtype=np.float32))


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(UnmeasurableError, match="two dimensions"):
        spectral_norm(np.ones(5))
    with pytest.raises(UnmeasurableError, match="two dimensions"):
        row_blocks(np.ones((2, 3, 4)))
    with pytest.raises(UnmeasurableError, match="no elements"):
        spectral_norm(np.ones((0, 3)))
    with pytest.raises(UnmeasurableError, match="complex"):
        spectral_norm(np.ones((100, 100), dtype=np.complex64))


@pytest.mark.parametrize("bad", [{"width": 0.0}, {"eta": 1.0}, {"max_passes": 1}])
def test_options_that_cannot_be_meant_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        spectral_norm(np.ones((3, 3)), Goal(**bad))


def test_the_same_seed_gives_the_same_interval() -> None:
    W = trained_like(300, 200).astype(np.float32)
    assert spectral_norm(W, Goal(seed=3)) == spectral_norm(W, Goal(seed=3))
    assert spectral_norm(W, Goal(seed=3)) != spectral_norm(W, Goal(seed=4))


def threads() -> set[int]:
    return {
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    }


@pytest.mark.parametrize(
    ("environ", "inside"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2), ({"HOME": "/"}, 1)]
)
def test_blas_has_one_thread_unless_the_user_chose(environ: dict[str, str], inside: int) -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threads()
        with one_thread(environ):
            assert threads() == ({inside} if inside == 1 else before)
        assert threads() == before


def test_the_norm_holds_one_thread_when_it_is_given_the_environment() -> None:
    seen: list[set[int]] = []

    @dataclass(frozen=True)
    class Watched:
        shape: tuple[int, int] = (100, 90)

        def blocks(self, rows: int) -> Iterator[Array]:
            seen.append(threads())
            yield np.ones((100, 90), dtype=np.float32)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threads()
        spectral_norm(Watched(), environ={})
        assert seen
        assert all(held == {1} for held in seen)
        seen.clear()
        spectral_norm(Watched(), environ={"OMP_NUM_THREADS": "2"})
        spectral_norm(Watched())
        assert all(held == before for held in seen)


@pytest.mark.parametrize("shape", [(4000, 600), (600, 4000), (1500, 17000)])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_share_the_rows_change_only_rounding(
    shape: tuple[int, int], threads: int
) -> None:
    W = trained_like(*shape).astype(ml_dtypes.bfloat16)
    alone = spectral_norm(W)
    with ThreadPoolExecutor(threads) as pool:
        shared = spectral_norm(W, crew=Crew(pool=pool, threads=threads))
        assert shared == spectral_norm(W, crew=Crew(pool=pool, threads=threads))
    assert shared.lower == pytest.approx(alone.lower, rel=1e-9)
    assert shared.upper == pytest.approx(alone.upper, rel=1e-6)
    assert shared.frobenius == pytest.approx(alone.frobenius, rel=1e-13)
    assert shared.passes == alone.passes


def test_what_cannot_be_divided_is_measured_by_one_thread() -> None:
    W = trained_like(3000, 800).astype(np.float32)
    with ThreadPoolExecutor(2) as pool:
        shared = spectral_norm(Pieces((W,)), crew=Crew(pool=pool, threads=2))
        assert shared == spectral_norm(Pieces((W,)))


def test_a_nan_in_any_span_is_refused() -> None:
    W = gaussian(3000, 800).astype(np.float32)
    W[2900, 3] = np.nan
    with (
        ThreadPoolExecutor(2) as pool,
        pytest.raises(UnmeasurableError, match="1 NaN"),
    ):
        spectral_norm(W, crew=Crew(pool=pool, threads=2))
