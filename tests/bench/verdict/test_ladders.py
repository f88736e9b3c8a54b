"""Levels between and within ladders: Holm and fixed sequences at the ends, error held between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from gradience.bench.verdict import ladders

P = st.floats(0, 1)


def run(table, level=0.05):
    names = [[f"{i}.{j}" for j in range(len(row))] for i, row in enumerate(table)]
    p = {f"{i}.{j}": v for i, row in enumerate(table) for j, v in enumerate(row)}
    return ladders.run(names, level=level, p_values=p, passes=lambda name, held: p[name] <= held)


def holm(p_values, level):
    passed = set()
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[i] > level / (len(p_values) - rank):
            break
        passed.add(f"{i}.0")
    return passed


def test_one_ladder_is_a_fixed_sequence_at_the_full_level():
    found = run([[0.04, 0.05, 0.06, 0.001]])
    assert [t.passed for t in found.values()] == [True, True, False, False]
    assert {t.level for t in found.values()} == {0.05}
    assert found["0.3"].stopped_at == "0.2"
    assert found["0.2"].stopped_at == ""


@given(st.lists(P, min_size=1, max_size=6), st.sampled_from([0.01, 0.05, 0.3]))
def test_ladders_of_one_step_are_holm(p_values, level):
    found = run([[p] for p in p_values], level)
    assert {name for name, t in found.items() if t.passed} == holm(p_values, level)


def test_a_finished_ladder_hands_its_level_to_the_others():
    found = run([[0.01], [0.04, 0.2], [0.9]])
    assert found["0.0"].level == pytest.approx(0.05 / 3)
    # A part of 1/3 and half of the first ladder's 1/3.
    assert found["1.0"].level == pytest.approx(0.025)
    assert not found["1.0"].passed
    assert found["2.0"].level == pytest.approx(0.025)


@given(st.lists(st.lists(P, min_size=1, max_size=4), min_size=1, max_size=4), st.randoms())
def test_who_passes_does_not_depend_on_the_order_of_the_ladders(table, random):
    passed = {name for name, t in run(table).items() if t.passed}
    order = list(range(len(table)))
    random.shuffle(order)
    again = run([table[i] for i in order])
    assert {
        f"{order[int(name.split('.')[0])]}.{name.split('.')[1]}"
        for name, t in again.items()
        if t.passed
    } == passed


@given(st.lists(st.lists(P, min_size=1, max_size=4), min_size=1, max_size=4))
def test_every_step_is_decided_and_none_passes_below_one_that_does_not(table):
    found = run(table)
    assert len(found) == sum(map(len, table))
    for i, row in enumerate(table):
        passed = [found[f"{i}.{j}"].passed for j in range(len(row))]
        assert passed == sorted(passed, reverse=True)
    assert sum(t.level for n, t in found.items() if not t.passed and not t.stopped_at) <= 0.0501


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("true_steps", [(0, 0, 0), (2, 1, 0), (1, 1, 1)])
def test_the_chance_of_any_false_pass_stays_at_the_level(correlation, true_steps):
    """Three ladders of three steps; below a ladder's first `true_steps` the truth is the margin."""
    rng = np.random.default_rng(7)
    replicates, wrong = 4000, 0
    z = np.sqrt(1 - correlation) * rng.standard_normal((replicates, 3, 3))
    z += np.sqrt(correlation) * rng.standard_normal((replicates, 1, 1))
    for i, good in enumerate(true_steps):
        z[:, i, :good] += 6.0
    for p in 1 - ndtr(z):
        found = run(p.tolist())
        wrong += any(
            found[f"{i}.{j}"].passed for i, good in enumerate(true_steps) for j in range(good, 3)
        )
    assert wrong / replicates <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / replicates)


def test_without_ladders_there_is_nothing_to_test():
    assert run([]) == {}
