"""Loss curves whose end is known."""

import math
import random

import pytest

from gradience.bench.trial.curve import still_falling, stretches


def noisy(values: list[float], noise: float, *, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [value + rng.gauss(0.0, noise) for value in values]


@pytest.mark.parametrize("seed", range(20))
def test_a_curve_that_has_flattened_is_not_falling(seed: int) -> None:
    flat = [0.3 + math.exp(-i / 40) for i in range(1000)]
    assert not still_falling(stretches(noisy(flat, 0.1, seed=seed)))


@pytest.mark.parametrize("seed", range(20))
def test_a_curve_that_falls_to_its_end_is_falling(seed: int) -> None:
    steep = [2.0 - 1.5 * i / 1000 for i in range(1000)]
    assert still_falling(stretches(noisy(steep, 0.1, seed=seed)))


def test_noise_alone_seldom_falls() -> None:
    curves = (stretches(noisy([1.0] * 500, 0.3, seed=seed)) for seed in range(200))
    assert sum(map(still_falling, curves)) <= 4


def test_a_rising_curve_is_not_falling() -> None:
    assert not still_falling([1.0 + i / 10 for i in range(30)])


def test_a_run_of_a_few_steps_is_undertrained() -> None:
    assert still_falling([0.1] * 9)
    assert not still_falling([0.1] * 10)


@pytest.mark.parametrize("steps", [1, 7, 50, 51, 99, 1234])
def test_stretches_cover_every_step_once(steps: int) -> None:
    losses = [float(i) for i in range(steps)]
    found = stretches(losses)
    assert len(found) == min(steps, 50)
    assert list(found) == sorted(found)
    if steps % len(found) == 0:
        assert sum(found) / len(found) == pytest.approx(sum(losses) / steps)


def test_no_steps_make_no_stretches() -> None:
    assert stretches([]) == ()
