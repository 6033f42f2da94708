"""Line health: percentiles against numpy's, and what is published."""

import numpy as np
import pytest

from drivers.line_stats import Latencies, LineStats


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_percentile_is_never_too_short_and_at_most_9_percent_too_long(fraction):
    seconds = np.random.default_rng(5).lognormal(np.log(0.02), 1.0, 5000)
    latencies = Latencies()
    for one in seconds:
        latencies.add(float(one))
    true_s = float(np.quantile(seconds, fraction, method="inverted_cdf"))
    assert true_s <= latencies.quantile_s(fraction) <= true_s * 1.0906
    assert sum(count for _, count in latencies.filled()) == 5000


def test_nothing_was_timed():
    told = LineStats(replies=3).as_dict()
    assert [told[name] for name in ("mean_ms", "p50_ms", "p99_ms", "max_ms")] == [None] * 4


def test_extremes_have_a_place():
    latencies = Latencies()
    for seconds in (0.0, 1e-9, 1e9):
        latencies.add(seconds)
    assert sum(latencies.counts) == 3
    assert latencies.counts[0] == 2


def test_no_percentile_is_longer_than_the_longest():
    stats = LineStats()
    stats.measured(0.0101)
    told = stats.as_dict()
    assert told["p50_ms"] == told["p99_ms"] == told["max_ms"] == pytest.approx(10.1)
