"""What every action of the bench keeps, over every registered name."""

import pytest

from gradience.bench.actions import ACTIONS


@pytest.mark.parametrize("name", list(ACTIONS))
def test_an_action_says_what_it_is_and_needs(name: str) -> None:
    action = ACTIONS[name]
    assert action.description
    assert callable(action.make)
    # An error against the probe needs the probe; only the probe itself needs none.
    assert action.needs_probe or not action.from_weights
    assert action.needs_probe == (name != "probe")
