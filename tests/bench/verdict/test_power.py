"""Power as planned is power as simulated, and a plan that cannot tell says what could."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gradience.bench.verdict import power
from gradience.bench.verdict.anova import anova

ROOT = Path(__file__).parents[3]


def simulation():
    spec = importlib.util.spec_from_file_location("simulation", ROOT / "benchmarks/verdict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulation"] = module
    spec.loader.exec_module(module)
    return module


SIMULATION = simulation()


def test_integer_mean_squares_of_the_simulation_are_those_of_the_product():
    world = SIMULATION.World(items=60, seeds=3, discordance=0.25, persistent=0.5, seed_sd=0.01)
    d = SIMULATION.differences(np.random.default_rng(0), world, 20, 0.02)
    mine, theirs = SIMULATION.mean_squares(d), anova(d)
    for name in ("mean", "ms_seeds", "ms_items", "ms_rest"):
        np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), atol=1e-12)


WORLDS = [
    {"items": 200, "seeds": 8, "discordance": 0.05, "persistent": 0.5, "seed_sd": 0.0},
    {"items": 500, "seeds": 3, "discordance": 0.12, "persistent": 0.0, "seed_sd": 0.007},
    {"items": 1319, "seeds": 2, "discordance": 0.05, "persistent": 0.9, "seed_sd": 0.015},
    {"items": 1319, "seeds": 3, "discordance": 0.12, "persistent": 0.5, "seed_sd": 0.007},
    {"items": 1319, "seeds": 5, "discordance": 0.12, "persistent": 0.5, "seed_sd": 0.007},
    {"items": 1319, "seeds": 3, "discordance": 0.05, "persistent": 0.9, "seed_sd": 0.015},
    {"items": 1319, "seeds": 8, "discordance": 0.25, "persistent": 0.9, "seed_sd": 0.015},
]


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: "-".join(map(str, w.values())))
def test_false_safe_stays_below_eight_percent_and_power_is_as_planned(world):
    """2000 benches each: three binomial standard errors, 2 points and the lattice of few items."""
    replicates = 2000
    found = SIMULATION.rates(SIMULATION.World(**world), replicates, np.random.default_rng(11))
    assert found.false_safe <= 0.08
    assert found.false_pass <= 0.08 + 3 * np.sqrt(0.08 * 0.92 / replicates)
    few = 0.06 if world["items"] * world["discordance"] < 50 else 0.02
    error = 3 * np.sqrt(found.planned * (1 - found.planned) / replicates)
    assert abs(found.passed - found.planned) <= few + error


def test_the_rules_in_use_call_harm_safe_where_the_verdict_does_not():
    world = SIMULATION.World(items=200, seeds=2, discordance=0.12, persistent=0.9, seed_sd=0.0)
    found = SIMULATION.rates(world, 1000, np.random.default_rng(0))
    assert found.worst_seed[0] > 0.25
    assert found.seed_t[0] > 0.15
    assert found.false_safe < 0.08


@pytest.mark.parametrize("seeds", [2, 3, 4, 8])
def test_the_size_of_the_test_is_below_eight_percent_for_any_variances(seeds):
    sizes = [
        power.chance(
            power.Design(seeds=seeds, items=2000, v_seeds=a, v_items=b, v_rest=0.1),
            margin=0.025,
            level=0.05,
            loss=0.025,
        )
        for a in np.geomspace(1e-7, 1.0, 25)
        for b in (0.0, 0.01, 0.1, 0.5, 2.0)
    ]
    assert max(sizes) < (0.07 if seeds == 2 else 0.064)


def test_without_variance_of_seeds_and_rest_it_is_the_noncentral_t():
    """Items that differ alike with every seed: only the mean square of items is left."""
    design = power.Design(seeds=4, items=150, v_seeds=0, v_items=0.05, v_rest=0)
    se = np.sqrt(0.05 / 150)
    exact = stats.nct.sf(stats.t.isf(0.05, 149), 149, 0.05 / se)
    assert power.chance(design, margin=0.05, level=0.05) == pytest.approx(exact, abs=0.002)


def test_with_seeds_that_vary_alone_it_is_the_noncentral_t_over_seeds():
    design = power.Design(seeds=4, items=100_000, v_seeds=1e-4, v_items=0, v_rest=0)
    exact = stats.nct.sf(stats.t.isf(0.05, 3), 3, 0.025 / np.sqrt(1e-4 / 4))
    assert power.chance(design, margin=0.025, level=0.05) == pytest.approx(exact, abs=0.003)


def test_one_seed_can_show_nothing():
    assert power.planned(items=5000, seeds=1, margin=0.025, level=0.05) == 0


def test_enough_is_the_first_number_that_is():
    design = power.of_pairs(
        items=800, seeds=3, discordance=0.12, persistent_share=0.5, seed_sd=0.007
    )
    need = power.enough(design, margin=0.025, level=0.05, power=0.8)

    def chance(**changed):
        return power.chance(replace(design, **changed), margin=0.025, level=0.05)

    assert chance(seeds=need.seeds) >= 0.8 > chance(seeds=need.seeds - 1)
    assert chance(items=need.items) >= 0.8 > chance(items=need.items - 1)


def test_a_small_test_set_cannot_be_saved_by_seeds():
    design = power.of_pairs(
        items=200, seeds=3, discordance=0.12, persistent_share=0.5, seed_sd=0.007
    )
    need = power.enough(design, margin=0.025, level=0.05, power=0.8)
    assert need.seeds is None
    assert need.items is not None
    assert need.items > 500


def test_the_simulation_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/verdict.py", "--quick", "--replicates", "100"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Highest false SAFE" in done.stdout, done.stderr
