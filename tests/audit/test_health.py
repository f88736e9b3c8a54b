"""Health: each trouble has its code, and a healthy adapter none."""

import numpy as np
import pytest

from factories_layers import make_byte_use, make_layer
from gradience.audit.health import health, verdict
from gradience.findings import Severity

RNG = np.random.default_rng(1)
PARTS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def make_model(blocks: int = 8, parts=PARTS, **replaced):
    """Regular layers, with the spectra of some replaced by name (None leaves the module out)."""
    layers = []
    for i in range(blocks):
        for part in parts:
            name = f"model.layers.{i}.{part}"
            values = replaced.get(name, np.exp(RNG.normal(0, 0.3)) * np.array([1.0, 0.4, 0.1]))
            if values is not None:
                layers.append(make_layer(name, values))
    return layers


def codes(layers, *, use=None, zero_factors=(), chosen_blocks=False):
    use = use or make_byte_use(factors=1000)
    found = health(layers, use, zero_factors=zero_factors, chosen_blocks=chosen_blocks)
    return {f.code: f for f in found}


def test_a_regular_adapter_has_no_finding() -> None:
    assert codes(make_model()) == {}


def test_an_adapter_of_zeros_is_untouched_not_dead() -> None:
    layers = [make_layer(f"model.layers.{i}.q_proj", [0.0, 0.0]) for i in range(4)]
    found = codes(layers)
    assert set(found) == {"untouched"}
    assert found["untouched"].severity == Severity.ERROR


def test_a_module_of_zeros_among_others_is_dead() -> None:
    name = "model.layers.3.mlp.down_proj"
    found = codes(make_model(**{name: [0.0, 0.0, 0.0]}))
    assert found["dead_modules"].modules == (name,)


def test_zeros_in_both_factors_are_a_broken_file() -> None:
    name = "model.layers.3.mlp.down_proj"
    found = codes(make_model(**{name: [0.0, 0.0, 0.0]}), zero_factors=[name])
    assert set(found) == {"zero_filled"}
    assert found["zero_filled"].severity == Severity.ERROR


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
def test_a_module_far_from_its_kind_is_an_outlier(factor: float) -> None:
    name = "model.layers.5.self_attn.q_proj"
    found = codes(make_model(**{name: np.array([1.0, 0.4, 0.1]) * factor}))
    assert found["outlier_modules"].modules == (name,)


def test_a_missing_module_and_a_missing_block_are_named() -> None:
    gone = {f"model.layers.2.{part}": None for part in PARTS}
    found = codes(make_model(**gone, **{"model.layers.6.mlp.down_proj": None}))
    assert set(found["missing_layers"].modules) == {
        "model.layers.2",
        "model.layers.6.mlp.down_proj",
    }


def test_blocks_that_were_left_out_on_purpose_are_not_missing() -> None:
    gone = {f"model.layers.{i}.{part}": None for part in PARTS for i in (0, 1, 2)}
    assert "missing_layers" in codes(make_model(**gone))
    assert "missing_layers" not in codes(make_model(**gone), chosen_blocks=True)


def test_a_hybrid_model_that_alternates_its_blocks_is_regular() -> None:
    layers = [
        make_layer(f"model.layers.{i}.{'self_attn.q_proj' if i % 2 else 'mixer.in_proj'}", [1.0])
        for i in range(8)
    ]
    assert "missing_layers" not in codes(layers)


def test_a_change_larger_than_its_base_is_reported() -> None:
    found = codes([make_layer("model.layers.0.q_proj", [3.0, 1.0], base=2.0)])
    assert "1.5" in found["large_change"].message


@pytest.mark.parametrize("kind", ["head", "embedding"])
def test_bytes_that_are_not_the_adapter_are_reported(kind: str) -> None:
    found = codes(make_model(), use=make_byte_use(factors=400, **{kind: 600}))
    assert found[f"{kind}_dominates_bytes"].message.startswith("60% of the bytes")
    assert not codes(make_model(), use=make_byte_use(factors=600, **{kind: 400}))


def test_the_verdict_is_that_of_the_gravest() -> None:
    dead = list(codes(make_model(**{"model.layers.3.mlp.down_proj": [0.0] * 3})).values())
    zero = list(codes([make_layer("a.q_proj", [0.0])]).values())
    assert verdict([]) == "healthy"
    assert verdict(dead) == "look"
    assert verdict([*dead, *zero]) == "broken"


def test_numbers_that_count_no_blocks_are_no_gap() -> None:
    names = [f"model.layers.{i}.q_proj" for i in (1, 2, 9_999)]
    names += [f"tower.layers.{number}.q_proj" for number in (10**7, 10**8, "9" * 5000)]
    layers = [make_layer(name, [1.0, 0.5]) for name in names]
    assert codes(layers) == {}


def test_a_change_that_overwhelms_its_base_is_an_error() -> None:
    found = codes([make_layer("model.layers.0.q_proj", [300.0, 1.0], base=2.0)])
    assert set(found) == {"overwhelming_change"}
    assert found["overwhelming_change"].severity == Severity.ERROR


def test_an_initialisation_that_moved_the_base_says_nothing_by_its_size() -> None:
    layers = [make_layer("model.layers.0.q_proj", [3.0, 1.0], base=2.0)]
    use = make_byte_use(factors=1000)
    assert not list(health(layers, use, zero_factors=(), chosen_blocks=False, base_moved=True))
