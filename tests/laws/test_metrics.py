"""What every spectrum metric obeys, whatever the spectrum."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories_layers import make_facts
from gradience.audit.metrics import METRICS
from gradience.audit.metrics.energy_rank import smallest_rank
from gradience.errors import UnmeasurableError

spectra = st.lists(st.floats(min_value=1e-9, max_value=1e9), min_size=1, max_size=32)
scales = st.sampled_from([1e-30, 1e-7, 0.5, 1.0, 3.0, 1e12])

SCALE_FREE = [
    "stable_rank",
    "effective_rank",
    "effective_rank_energy",
    "energy_rank_90",
    "energy_rank_95",
    "energy_rank_99",
    "utilization",
]
NORMS = ["spectral_norm", "frobenius_norm", "nuclear_norm"]


def measure(name: str, facts) -> float:
    return METRICS[name].measure(facts)


@pytest.mark.parametrize("name", SCALE_FREE)
@given(values=spectra, scale=scales)
def test_shape_metrics_ignore_scale(name: str, values: list[float], scale: float) -> None:
    scaled = make_facts([scale * v for v in values])
    if name.startswith("energy_rank"):
        # A share that is met to the last bit may fall on either side after rounding.
        assert abs(measure(name, scaled) - measure(name, make_facts(values))) <= 1
    else:
        assert measure(name, scaled) == pytest.approx(measure(name, make_facts(values)))


@pytest.mark.parametrize("name", NORMS)
@given(values=spectra, scale=scales)
def test_norms_are_homogeneous(name: str, values: list[float], scale: float) -> None:
    scaled = make_facts([scale * v for v in values])
    assert measure(name, scaled) == pytest.approx(scale * measure(name, make_facts(values)))


@given(values=spectra)
def test_ranks_are_ordered_and_bounded(values: list[float]) -> None:
    facts = make_facts(values)
    k90, k95, k99 = (measure(f"energy_rank_{p}", facts) for p in (90, 95, 99))
    assert 1 <= k90 <= k95 <= k99 <= len(values)
    for name in ("stable_rank", "effective_rank", "effective_rank_energy"):
        assert 1 - 1e-9 <= measure(name, facts) <= len(values) + 1e-9
    # Renyi entropies fall with their order: entropy of s, of s^2, then s_max.
    stable, energy, entropy = (
        measure(n, facts) for n in ("stable_rank", "effective_rank_energy", "effective_rank")
    )
    assert stable <= energy * (1 + 1e-9)
    assert energy <= entropy * (1 + 1e-9)
    assert 0 < measure("utilization", facts) <= 1 + 1e-9


@given(values=spectra)
def test_norm_inequalities(values: list[float]) -> None:
    facts = make_facts(values)
    spectral, frobenius, nuclear = (measure(n, facts) for n in NORMS)
    assert spectral <= frobenius * (1 + 1e-12)
    assert frobenius <= nuclear * (1 + 1e-12)
    assert nuclear <= math.sqrt(len(values)) * frobenius * (1 + 1e-12)


@given(values=spectra, share=st.sampled_from([0.9, 0.95, 0.99]))
def test_the_energy_rank_is_the_smallest_that_keeps_its_share(values, share) -> None:
    s = np.sort(np.array(values))[::-1]
    energy = np.cumsum((s / s[0]) ** 2)
    k = smallest_rank(s, share)
    assert energy[k - 1] / energy[-1] >= share - 1e-9
    assert k == 1 or energy[k - 2] / energy[-1] < share + 1e-9


def test_a_flat_spectrum_uses_all_of_its_rank() -> None:
    facts = make_facts([0.1] * 10)
    assert measure("stable_rank", facts) == pytest.approx(10)
    assert measure("effective_rank", facts) == pytest.approx(10)
    assert measure("utilization", facts) == pytest.approx(1)
    assert measure("energy_rank_90", facts) == 9
    assert measure("condition", facts) == pytest.approx(1)


def test_a_tiny_change_has_the_stable_rank_of_its_shape() -> None:
    """An absolute epsilon in the ratio once gave 0.0014 here, where the truth is 1.92."""
    values = np.array([1.0, 0.9, 0.3, 0.14]) * 1e-7
    expected = float(np.sum(values**2) / values[0] ** 2)
    assert measure("stable_rank", make_facts(values)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", list(METRICS))
def test_an_untrained_module_has_norms_of_zero_and_no_shape(name: str) -> None:
    facts = make_facts([0.0] * 8, base=2.0, rounding=0.5)
    if name in ("spectral_norm", "frobenius_norm", "udr", "udr_frobenius"):
        assert measure(name, facts) == 0.0
    elif name == "balance":
        assert measure(name, facts) == 0.5
    else:
        with pytest.raises(UnmeasurableError, match="zero"):
            measure(name, facts)


def test_udr_never_understates() -> None:
    facts = make_facts([3.0, 1.0], base=2.0)
    assert measure("udr", facts) == 1.5
    assert measure("udr_frobenius", facts) == pytest.approx(math.sqrt(10) / 4)
    assert measure("sdi", facts) == pytest.approx(math.log10(1.5))


def test_udr_without_a_base_says_so() -> None:
    with pytest.raises(UnmeasurableError, match="no base model was given"):
        measure("udr", make_facts([1.0]))


def test_a_rank_that_is_not_used_has_no_condition() -> None:
    with pytest.raises(UnmeasurableError, match="cannot be told from zero"):
        measure("condition", make_facts([1.0, 1e-17]))


@given(values=spectra, scale=scales)
def test_rounding_weighs_less_the_larger_the_change(values: list[float], scale: float) -> None:
    one, other = (make_facts([c * v for v in values], base=2.0, rounding=0.5) for c in (1, scale))
    expected = measure("merge_rounding", one) / scale
    assert measure("merge_rounding", other) == pytest.approx(expected)


def test_a_base_that_is_not_packed_has_no_merge_rounding() -> None:
    with pytest.raises(UnmeasurableError, match="not packed"):
        measure("merge_rounding", make_facts([1.0], base=2.0))
