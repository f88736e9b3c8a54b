import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gradience.storage.watch.forecast import (
    STEADY_BYTES_PER_SECOND,
    Sample,
    Trend,
    forecast,
    recent,
    slope,
)

rates = st.integers(min_value=10_000, max_value=10**10)
counts = st.integers(min_value=2, max_value=40)
offsets = st.integers(min_value=0, max_value=10**13)


def line(rate: float, count: int, *, start: int = 0, step: float = 1.0) -> list[Sample]:
    return [Sample(seconds=i * step, used=start + round(rate * i * step)) for i in range(count)]


@st.composite
def series(draw: st.DrawFn) -> list[Sample]:
    used = draw(st.lists(st.integers(0, 10**12), min_size=2, max_size=30))
    gaps = draw(st.lists(st.floats(0.1, 1.5), min_size=len(used), max_size=len(used)))
    seconds = 0.0
    samples = []
    for gap, value in zip(gaps, used, strict=True):
        seconds += gap
        samples.append(Sample(seconds=seconds, used=value))
    return samples


@given(rates, counts, offsets, st.integers(0, 10**14))
def test_even_growth_is_full_when_the_room_divided_by_the_rate_says(rate, count, start, free):
    told = forecast(line(rate, count, start=start), free)
    assert told.trend is Trend.GROWING
    assert told.per_second == pytest.approx(rate)
    assert told.seconds_to_full == pytest.approx(free / rate)


@given(series(), offsets, st.floats(0, 10**6))
def test_neither_the_clock_nor_what_was_there_before_matters(samples, bytes_before, seconds_before):
    moved = [
        Sample(seconds=s.seconds + seconds_before, used=s.used + bytes_before) for s in samples
    ]
    assert slope(moved) == pytest.approx(slope(samples), rel=1e-3, abs=1.0)


@given(series())
def test_backwards_in_bytes_is_backwards_in_rate(samples):
    most = max(s.used for s in samples)
    mirrored = [Sample(seconds=s.seconds, used=most - s.used) for s in samples]
    assert slope(mirrored) == pytest.approx(-slope(samples), rel=1e-9, abs=1e-6)


@given(series())
def test_what_never_shrinks_is_not_called_shrinking(samples):
    ordered = [
        Sample(seconds=s.seconds, used=used)
        for s, used in zip(samples, sorted(s.used for s in samples), strict=True)
    ]
    assert forecast(ordered, 10**9).trend is not Trend.SHRINKING


@given(rates, st.integers(12, 40), st.integers(0, 39), st.integers(0, 10**13))
def test_one_wild_sample_does_not_bend_the_line(rate, count, where, wild):
    samples = line(rate, count)
    index = where % count
    samples[index] = Sample(seconds=samples[index].seconds, used=wild)
    assert slope(samples) == pytest.approx(rate, rel=0.01)


@given(offsets, counts)
def test_what_stands_is_steady_and_never_full(used, count):
    told = forecast(line(0, count, start=used), 10**9)
    assert (told.trend, told.per_second, told.seconds_to_full) == (Trend.STEADY, 0, None)


@given(rates, counts)
def test_what_shrinks_is_never_full(rate, count):
    told = forecast(line(-rate, count, start=10**13), 10**9)
    assert (told.trend, told.seconds_to_full) == (Trend.SHRINKING, None)


@given(series(), st.floats(0.0, 100.0))
def test_only_the_window_is_looked_at_and_the_last_sample_is_always_in_it(samples, window):
    kept = recent(samples, window)
    assert kept[-1] == samples[-1]
    assert set(kept) <= set(samples)
    assert all(samples[-1].seconds - s.seconds <= window for s in kept)


@given(st.integers(61, 400))
def test_many_samples_are_thinned_evenly_from_the_first_to_the_last(count):
    samples = line(10_000, count, step=0.1)
    kept = recent(samples, 1000.0)
    assert len(kept) == 60
    assert (kept[0], kept[-1]) == (samples[0], samples[-1])
    assert slope(kept) == pytest.approx(10_000, rel=1e-3)


def test_one_sample_and_no_time_are_no_forecast():
    assert forecast([], 5).trend is Trend.UNKNOWN
    assert forecast([Sample(seconds=1, used=1)], 5).trend is Trend.UNKNOWN
    same = [Sample(seconds=1, used=1), Sample(seconds=1, used=9)]
    assert forecast(same, 5).per_second is None


def test_growth_into_unknown_room_has_a_rate_and_no_time():
    told = forecast(line(10**6, 5), None)
    assert (told.trend, told.seconds_to_full) == (Trend.GROWING, None)


@given(st.floats(0.0, 0.9))
def test_a_log_file_that_is_written_to_is_no_growth(share):
    assume(share > 0)
    told = forecast(line(STEADY_BYTES_PER_SECOND * share, 10), 10**9)
    assert told.trend is Trend.STEADY
