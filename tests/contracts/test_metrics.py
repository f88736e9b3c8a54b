"""What every metric keeps, over every registered name."""

import math

import pytest

from factories_layers import make_facts
from gradience.audit.metrics import METRICS
from gradience.errors import UnmeasurableError


@pytest.mark.parametrize("name", list(METRICS))
def test_a_metric_says_what_it_is(name: str) -> None:
    metric = METRICS[name]
    assert name.isidentifier()
    assert metric.title
    assert metric.definition.endswith(".")
    assert metric.source
    assert metric.unit in ("", "rank", "weight")


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize(
    "values", [[1.0], [3.0, 1.0, 0.2], [0.0, 0.0], [1e-30, 1e-31], [1e30, 1e29], []]
)
def test_a_metric_is_a_finite_number_or_a_reason(name: str, values: list[float]) -> None:
    try:
        value = METRICS[name].measure(make_facts(values, rank=4, base=2.0, rounding=0.5))
    except UnmeasurableError as error:
        reason = str(error) and error.remedy
    else:
        assert isinstance(value, float)
        reason = math.isfinite(value)
    assert reason
