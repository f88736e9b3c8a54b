"""A proof proves: never a bound that is too low, always one that is 1e-6 above the norm."""

import ml_dtypes
import numpy as np
import pytest

from factories_matrices import MATRICES, gaussian, trained_like, true_norm
from gradience.audit.base.row_blocks import row_blocks
from gradience.audit.base.spectral_norm import Goal, spectral_norm
from gradience.audit.norms.proof import is_proved
from gradience.errors import UnmeasurableError

SMALL = [name for name in MATRICES if name not in ("tall", "wide")]


@pytest.mark.parametrize("name", SMALL)
def test_a_bound_below_the_norm_is_never_proved_and_one_above_always(name: str) -> None:
    W = MATRICES[name]()
    norm = true_norm(W)
    assert is_proved(row_blocks(W), norm * (1 + 1e-6))
    for short in (1e-3, 1e-9, 1e-12):
        assert not is_proved(row_blocks(W), norm * (1 - short)) or norm == 0.0


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
def test_neither_shape_nor_scale_matters(shape: tuple[int, int], scale: float) -> None:
    W = scale * gaussian(*shape)
    norm = true_norm(W)
    assert is_proved(row_blocks(W), norm * (1 + 1e-8))
    assert not is_proved(row_blocks(W), norm * (1 - 1e-8))


def test_the_upper_end_of_a_measured_interval_is_proved() -> None:
    for seed in range(10):
        W = trained_like(300, 200, seed).astype(ml_dtypes.bfloat16)
        assert is_proved(row_blocks(W), spectral_norm(W, Goal(seed=seed)).upper)


def test_what_is_not_finite_is_not_proved() -> None:
    W = gaussian(100, 90)
    W[3, 3] = np.nan
    assert not is_proved(row_blocks(W), 1e9)


def test_a_proof_that_would_not_fit_is_refused_before_anything_is_read() -> None:
    class Huge:
        shape = (100_000, 90_000)

        def blocks(self, rows: int) -> object:
            raise AssertionError("read")

    with pytest.raises(UnmeasurableError, match="194 GB"):
        is_proved(Huge(), 1.0)  # type: ignore[arg-type]
