"""Sizes and durations, there and back."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradience.errors import UsageError
from gradience.units import format_size, parse_duration, parse_size


@given(st.integers(min_value=0, max_value=10**17))
def test_a_size_survives_printing_to_three_digits(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= 0.005 * size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "10 bananas", "1e3", "\u0661\u0660"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


def test_durations() -> None:
    assert parse_duration("1.5h") == timedelta(minutes=90)
    with pytest.raises(UsageError):
        parse_duration("7 fortnights")
