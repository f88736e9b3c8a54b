"""Suggestions: exact errors, honest units, never from the stable rank."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories_layers import make_layer
from gradience.audit.servers import VLLM_RANKS, server_rank
from gradience.audit.suggest import suggest, truncation_error

RNG = np.random.default_rng(0)


def power_law(rank: int, decay: float = 1.0) -> list[float]:
    return [(i + 1) ** -decay for i in range(rank)]


def test_the_error_is_that_of_the_truncated_matrix() -> None:
    u, _ = np.linalg.qr(RNG.standard_normal((40, 6)))
    v, _ = np.linalg.qr(RNG.standard_normal((30, 6)))
    s = np.array(power_law(6))
    whole = u * s @ v.T
    for k in range(1, 7):
        cut = u[:, :k] * s[:k] @ v[:, :k].T
        expected = np.linalg.norm(whole - cut) / np.linalg.norm(whole)
        assert truncation_error(make_layer("a", list(s)), k) == pytest.approx(expected, abs=1e-12)


def test_every_suggestion_keeps_its_share_of_energy() -> None:
    layers = [make_layer(f"m.layers.{i}.q_proj", power_law(16, 0.5 + i / 8)) for i in range(8)]
    for s in suggest(layers, 0):
        if s.rule in ("per_module", "uniform_max"):
            assert s.worst_error <= math.sqrt(1 - s.energy) + 1e-9
            assert s.relative_error <= s.worst_error * (1 + 1e-12)
        assert s.parameters < sum(a.parameters for a in layers)


def test_a_rank_above_32_can_be_suggested() -> None:
    """A cap at 32 once told an adapter that needs 50 to take 32."""
    layers = [make_layer("m.layers.0.q_proj", [1.0] * 55 + [1e-3] * 9)]
    ranks = {s.rank for s in suggest(layers, 0) if s.energy == 0.9}
    assert ranks == {50}


def test_the_strongest_module_does_not_hide_the_worst() -> None:
    layers = [
        make_layer("m.layers.0.q_proj", [100.0, 1.0, 1.0, 1.0]),
        make_layer("m.layers.1.q_proj", [1.0, 1.0, 1.0, 1.0]),
    ]
    found = next(s for s in suggest(layers, 0) if s.rule == "uniform_median" and s.energy == 0.9)
    assert found.worst_module == "m.layers.1.q_proj"
    assert found.worst_error == pytest.approx(math.sqrt((4 - found.rank) / 4))


def test_ranks_are_given_in_what_a_server_allocates() -> None:
    assert [server_rank(r) for r in (1, 2, 8, 9, 24, 257, 512, 513)] == [
        1, 8, 8, 16, 32, 320, 512, None,
    ]  # fmt: skip
    layers = [make_layer("m.layers.0.q_proj", power_law(32, 2.0))]
    found = next(s for s in suggest(layers, 0) if s.rule == "uniform_max" and s.energy == 0.9)
    assert found.server_rank_before == 32
    assert found.server_rank in VLLM_RANKS
    assert found.server_rank < 32
    assert "vLLM default (max_lora_rank 16)" in found.clears


def test_a_limit_on_bytes_counts_what_truncation_leaves() -> None:
    layers = [make_layer("m.layers.0.q_proj", power_law(32, 2.0))]
    found = next(s for s in suggest(layers, 200_000_000) if s.rule == "uniform_max")
    assert not any("Cloudflare" in name for name in found.clears)


def test_nothing_is_suggested_where_nothing_can_be_cut() -> None:
    assert suggest([make_layer("a", [0.0, 0.0])], 0) == ()
    assert suggest([make_layer("a", [1.0, 1.0])], 0) == ()
    assert suggest([make_layer("a", power_law(8), method="lokr")], 0) == ()
    assert suggest([make_layer("a", power_law(8), method="dora")], 0) == ()
    assert suggest([], 0) == ()


@given(st.lists(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=16), min_size=1, max_size=6))
def test_errors_are_shares_and_uniform_max_is_never_worse_than_median(spectra) -> None:
    layers = [make_layer(f"m.layers.{i}.q_proj", sorted(s)[::-1]) for i, s in enumerate(spectra)]
    found = {(s.energy, s.rule): s for s in suggest(layers, 0)}
    for s in found.values():
        assert 0 <= s.relative_error <= s.worst_error * (1 + 1e-12) <= 1 + 1e-12
    for energy in (0.9, 0.95, 0.99):
        if {(energy, "uniform_median"), (energy, "uniform_max")} <= found.keys():
            larger = found[energy, "uniform_max"]
            smaller = found[energy, "uniform_median"]
            assert larger.relative_error <= smaller.relative_error * (1 + 1e-12)
