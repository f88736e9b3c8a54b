"""Groups and their statistics: one percentile rule, shares that add up."""

import numpy as np
import pytest

from factories_layers import make_layer
from gradience.audit.aggregate import by_block, by_type, concentration, stats, stats_of


def make_model(blocks: int = 4):
    return [
        make_layer(f"model.layers.{i}.{part}", [1.0 + i, 0.5])
        for i in range(blocks)
        for part in ("self_attn.q_proj", "mlp.up_proj")
    ]


def test_percentiles_are_numpys_default() -> None:
    values = [1.0, 5.0, 2.0, 8.0]
    got = stats(values)
    assert (got.p10, got.median, got.p90) == tuple(np.percentile(values, [10, 50, 90]))
    assert (got.count, got.mean, got.max) == (4, 4.0, 8.0)


def test_types_and_blocks_partition_the_energy() -> None:
    layers = make_model()
    for groups in (by_type(layers), by_block(layers)):
        assert sum(g.energy_share for g in groups) == pytest.approx(1)
        assert sum(g.layers for g in groups) == len(layers)
        assert sum(g.parameters for g in groups) == sum(a.parameters for a in layers)
    assert [g.name for g in by_block(layers)] == [f"model.layers.{i}" for i in range(4)]
    assert [g.name for g in by_type(layers)] == ["attention", "mlp"]


def test_concentration_of_equal_blocks_is_even() -> None:
    layers = [make_layer(f"model.layers.{i}.self_attn.q_proj", [1.0]) for i in range(5)]
    found = concentration(by_block(layers))
    assert found is not None
    assert found.hhi == pytest.approx(1 / 5)
    assert found.top3_share == pytest.approx(3 / 5)


def test_an_untrained_adapter_has_no_shares() -> None:
    layers = [make_layer("model.layers.0.self_attn.q_proj", [0.0, 0.0])]
    assert by_type(layers)[0].energy_share is None
    assert concentration(by_block(layers)) is None


def test_a_metric_that_was_measured_nowhere_has_no_statistics() -> None:
    found = stats_of([make_layer("a.q_proj", [0.0])])
    assert "stable_rank" not in found
    assert found["spectral_norm"].max == 0.0
