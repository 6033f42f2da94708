import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.history import MOST_SERIES, History, Series


def rows(series):
    return list(zip(*(list(column) for column in series.columns()), strict=True))


def test_few_samples_are_kept_as_they_are():
    series = Series()
    for n in range(100):
        series.add(1000.0 + n, float(n))
    assert [(t, v) for t, v, _, _ in rows(series)] == [(1000.0 + n, float(n)) for n in range(100)]


def test_a_spike_is_never_lost_however_many_samples_come():
    series = Series(points=200)
    for n in range(50_000):
        series.add(0.5 * n, 7.0 if n == 31_234 else -5.0 if n == 44_444 else 1.0)
    assert len(series) <= 200
    _, _, low, high = zip(*rows(series), strict=True)
    assert (max(high), min(low)) == (7.0, -5.0)
    peak = high.index(7.0)
    assert series.columns()[0][peak] == pytest.approx(0.5 * 31_234, abs=0.5 * 50_000 / 90)
    assert series.columns()[0][-1] == 0.5 * 49_999  # the newest is there as it was
    assert list(series.columns()[0]) == sorted(series.columns()[0])


VALUES = st.one_of(st.none(), st.floats(-1e3, 1e3, width=32))


@given(st.lists(st.tuples(st.floats(0, 1e4), VALUES), max_size=60))
def test_order_and_repeats_do_not_matter(samples):
    once, again = Series(points=20), Series(points=20)
    shuffled = samples * 2
    random.Random(1).shuffle(shuffled)
    for t, value in sorted(samples, key=lambda one: one[0]):
        once.add(t, value)
    for t, value in shuffled:
        again.add(t, value)
    known = [value for _, value in samples if value is not None]
    for series in (once, again):
        valid = [row for row in rows(series) if not math.isnan(row[1])]
        assert len(series) <= 20
        assert bool(valid) == bool(known)
        if known:
            assert max(row[3] for row in valid) == max(known)
            assert min(row[2] for row in valid) == min(known)


def test_what_is_invalid_is_a_hole():
    series = Series()
    for t, value in ((1.0, 3.0), (2.0, None), (3.0, math.nan), (4.0, 5.0)):
        series.add(t, value)
    values = list(series.columns()[1])
    assert [math.isnan(v) for v in values] == [False, True, True, False]
    series.add(2.1, 4.0)  # it was known after all
    assert series.columns()[1][1] == 4.0


def test_errors_go_with_their_points():
    series = Series()
    series.add(1.0, 0.5)
    assert series.error_column() is None
    series.add(2.0, 0.6, 0.01)
    errors = series.error_column()
    assert math.isnan(errors[0])
    assert errors[1] == pytest.approx(0.01)


def test_the_number_of_series_is_bounded():
    history = History()
    told = [history.add(f"m/{n}", 1.0, 1.0) for n in range(MOST_SERIES + 5)]
    assert told.count(True) == MOST_SERIES == len(history.series)
