"""Baselines and events: the measured traces, exactness at every border, pulls, gaps and drift."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.offline.particles_options import open_trace
from edge.particles_baseline import baseline, clip_level
from edge.particles_events import ParticleReducer, TraceResult
from edge.particles_kernels import quiet
from edge.particles_runs import EventRules, Events
from edge.particles_thresholds import Threshold
from edge.uncertainty import pulls
from tests.data_sets import GPL, need, reference
from tests.edge.particles_model import spaced, two_lines

REFERENCE = reference("spicp")
AS_REFERENCE = EventRules(Threshold("currie-ld"), edge="threshold", min_points=1)


def reduced(x: np.ndarray, rules: EventRules, lines: tuple[str, ...] = ("Au",)) -> TraceResult:
    reducer = ParticleReducer(lines, rules)
    reducer.add(0, x)
    return reducer.result()


@pytest.mark.parametrize("name", ["au50nm_agilent_0p1ms.csv", "au50nm_long.npz", "au_tofwerk_1ms.csv"])
def test_the_measured_traces(name: str):
    theirs = REFERENCE[name]
    reducer = ParticleReducer(("Au",), AS_REFERENCE)
    for block in open_trace(need(f"spicp/{name}", "events", GPL)).blocks():
        reducer.add(block.first, block.samples)
    result = reducer.result()
    events, ((_, found),) = result.events[0], result.baselines[0]
    assert result.n_samples == theirs["samples"]
    assert found.iterated_counts == pytest.approx(theirs["background_mean_counts"], abs=5e-4)
    assert found.threshold == pytest.approx(theirs["threshold_counts"], abs=2e-3)
    assert len(events) == theirs["regions_above_threshold"]
    long = events.where(events.points >= 3)
    assert len(long) == theirs["regions_at_least_3_points"]
    if len(long):
        assert float(np.median(long.gross_counts)) == pytest.approx(
            theirs["median_signal_counts_ge3"], abs=0.05
        )
        assert float(np.mean(long.stop - long.start)) == pytest.approx(
            theirs["mean_width_points_ge3"], abs=5e-3
        )


def test_the_measured_background_has_gaps_and_no_particles():
    """Its 16 missing samples cut it into 17 stretches; as zeros they would make 0.123 counts into 0.121."""
    reducer = ParticleReducer(("Au",), EventRules(Threshold("compound"), min_points=1))
    path = need("spicp/au_tofwerk_background_1ms.csv", "gaps", GPL)
    for block in open_trace(path).blocks():
        reducer.add(block.first, block.samples)
    result = reducer.result()
    assert result.n_missing == len(REFERENCE[path.name]["missing_indices"])
    assert len(result.events[0]) == 0


# --- exactness --------------------------------------------------------------------------------------------


def same(a: TraceResult, b: TraceResult) -> None:
    assert a.baselines == b.baselines
    for mine, theirs in zip(a.events, b.events, strict=True):
        for name in Events.__dataclass_fields__:
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name


TRACE, _ = two_lines(np.full(150, 0.6), 3, samples=12_000)
TRACE[0, 4000] = TRACE[1, 9001] = np.nan
RULES = EventRules(window=2000)
WHOLE = reduced(TRACE, RULES, ("Li", "Mn"))


@given(cuts=st.lists(st.integers(1, 11_999), max_size=12), order=st.randoms())
@settings(max_examples=25, deadline=None)
def test_any_chunks_and_any_order_of_parts_give_the_same_bits(cuts: list[int], order):
    borders = [0, *sorted(set(cuts)), TRACE.shape[1]]
    chunked = ParticleReducer(("Li", "Mn"), RULES)
    parts = []
    for a, b in itertools.pairwise(borders):
        chunked.add(a, TRACE[:, a:b])
        part = ParticleReducer(("Li", "Mn"), RULES)
        part.add(a, TRACE[:, a:b])
        parts.append(part)
    same(chunked.result(), WHOLE)
    order.shuffle(parts)
    merged = ParticleReducer(("Li", "Mn"), RULES)
    for part in parts:
        merged.merge(part)
    same(merged.result(), WHOLE)


@pytest.mark.parametrize("offset", range(-14, 15))
def test_an_event_at_a_window_border_is_one_event_with_its_whole_area(offset: int):
    """The same samples lie in the middle of a window, and on the border of two windows."""
    pulse = np.array([3, 12, 40, 90, 120, 80, 45, 10, 3.0])
    ones = np.tile([0.0, 2.0], 4000)
    found = []
    for at in (1000, 2000 + 2 * (offset // 2) + offset % 2):
        x = ones.copy()
        x[at - 40 : at + 41] = 0.0  # the same neighbours at both places
        x[at : at + pulse.size] = pulse
        events = reduced(x, EventRules(window=2000)).events[0]
        assert len(events) == 1
        assert not events.cut[0]
        found.append((events.start[0] - at, events.stop[0] - at, events.gross_counts[0, 0], events.points[0]))
    assert found[0] == found[1]


def test_overlapping_parts_and_disorder_are_refused():
    a, b = ParticleReducer(("Li",), RULES), ParticleReducer(("Li",), RULES)
    a.add(0, np.ones(100))
    b.add(50, np.ones(100))
    with pytest.raises(ValueError, match="overlap"):
        a.merge(b)
    with pytest.raises(ValueError, match="order"):
        a.add(99, np.ones(1))
    with pytest.raises(ValueError, match="same lines and rules"):
        a.merge(ParticleReducer(("Mn",), RULES))
    with pytest.raises(ValueError, match="infinite"):
        a.add(200, np.array([np.inf]))
    with pytest.raises(ValueError, match="shape"):
        a.add(200, np.ones((2, 3)))
    with pytest.raises(ValueError, match="no samples"):
        ParticleReducer(("Li",), RULES).result()
    few = ParticleReducer(("Li",), RULES)
    few.add(0, np.ones(20))
    with pytest.raises(ValueError, match="background samples"):
        few.result()
    with pytest.raises(ValueError, match="different names"):
        ParticleReducer(("Li", "Li"), RULES)
    with pytest.raises(ValueError, match="min_points"):
        EventRules(min_points=0)
    with pytest.raises(ValueError, match="neither"):
        EventRules(edge="half")  # type: ignore[arg-type]


# --- by hand ----------------------------------------------------------------------------------------------


def test_area_height_width_and_error_by_hand():
    """A pulse on a background of mean 1: the first sample at or below the mean and one more belong to it."""
    x = np.tile([0.0, 2.0], 500)
    x[490:510] = 1.0
    x[500:505] = [3, 6, 21, 10, 2]
    result = reduced(x, EventRules(Threshold("currie-ld"), min_points=2))
    ((_, b),) = result.baselines[0]
    assert b.threshold == clip_level(b.iterated_counts)
    events = result.events[0]
    assert (events.start.tolist(), events.stop.tolist(), events.peak.tolist()) == ([500], [505], [502])
    assert events.points.tolist() == [2]  # 21 and 10 lie above 1 + 3.29 + 2.71 = 7, 6 does not
    assert b.mean_counts == pytest.approx(1.0, abs=0.01)
    assert events.gross_counts[0, 0] == 3 + 6 + 21 + 10 + 2 + 4 * 1  # two samples on either side
    assert events.area_counts[0, 0] == pytest.approx(46 - 9 * b.mean_counts)
    assert events.height_counts[0] == pytest.approx(21 - b.mean_counts)
    assert events.sigma_counts[0, 0] ** 2 == pytest.approx(46 + (9 * b.sigma_counts) ** 2)
    only_above = reduced(x, EventRules(Threshold("currie-ld"), edge="threshold", min_points=2)).events[0]
    assert only_above.gross_counts[0, 0] == 31


def test_an_event_at_a_gap_or_an_end_is_marked_as_cut():
    x = np.random.default_rng(2).poisson(0.5, 3000).astype(float)
    x[:3] += 50
    x[1000:1006] += 50
    x[1003] = np.nan
    x[2000:2004] += 50
    events = reduced(x, EventRules(min_points=2)).events[0]
    assert events.cut.tolist() == [True, True, True, False]


def test_the_quiet_mean_leaves_out_the_neighbourhood_of_every_claim():
    rng = np.random.default_rng(0)
    for guard, n in itertools.product((0, 1, 4), (1, 7, 60, 600)):
        x = rng.poisson(1.2, n).astype(float)
        bad = x > 3
        near = np.array([bad[max(i - guard, 0) : i + guard + 1].any() for i in range(n)])
        count, total, squares = quiet(x, 3.0, guard)
        assert count == np.count_nonzero(~near)
        assert (total, squares) == pytest.approx((x[~near].sum(), (x[~near] ** 2).sum()))


def test_a_drifting_background_is_followed_and_an_almost_empty_window_borrows():
    rng = np.random.default_rng(6)
    rate = np.linspace(0.5, 15.0, 100_000)
    x = rng.poisson(rate).astype(float)
    result = reduced(x, EventRules(window=10_000))
    for number, b in result.baselines[0]:
        truth = rate[number * 10_000 : (number + 1) * 10_000].mean()
        assert abs(b.mean_counts - truth) < 4 * b.sigma_counts + 0.005
        assert not b.borrowed
    assert len(result.events[0]) == 0
    level = [b.threshold for _, b in result.baselines[0]]
    assert level == sorted(level)
    with_one = reduced(x, EventRules(min_points=1))
    assert len(with_one.events[0]) > 20  # the end of the drift is taken for particles
    x[20_000:29_950] = np.nan  # 50 samples are left of a window: too few
    holed = reduced(x, EventRules(window=10_000)).baselines[0]
    assert holed[2][1].borrowed
    assert holed[2][1].mean_counts == holed[1][1].mean_counts


def test_negative_samples_are_no_counts():
    with pytest.raises(ValueError, match="no counts"):
        baseline([np.full(500, -1.0)], Threshold())


# --- uncertainties ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mu", "background"), [(5000, 0.2), (2000, 5.0), (600, 0.5), (200, 0.8), (200, 5.0), (100, 0.5)]
)
def test_pulls_of_the_area(mu: float, background: float):
    """3300 particles each; nothing is detected or missed by chance at these sizes."""
    events = reduced(spaced(mu, background, 3300, seed=11), EventRules()).events[0]
    assert len(events) == 3300
    mean, std = pulls(events.area_counts[:, 0], mu, events.sigma_counts[:, 0])
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05


def test_summing_only_above_the_threshold_is_biased_and_our_area_is_not():
    """What many programs do loses the feet of a particle: several sigma at 100 counts."""
    x = spaced(100, 0.5, 3300, seed=12)
    cut = reduced(x, EventRules(edge="threshold")).events[0]
    ours = reduced(x, EventRules()).events[0]
    assert pulls(cut.area_counts[:, 0], 100, cut.sigma_counts[:, 0])[0] < -1.5
    assert abs(pulls(ours.area_counts[:, 0], 100, ours.sigma_counts[:, 0])[0]) < 0.1


def test_coverage_at_few_counts():
    """60 counts on 0.5 per sample: a tenth is missed; the intervals of those found hold their levels."""
    events = reduced(spaced(60, 0.5, 3300, seed=13), EventRules(min_points=2)).events[0]
    off = np.abs(events.area_counts[:, 0] - 60) / events.sigma_counts[:, 0]
    assert len(events) > 3200
    assert np.mean(off < 1) == pytest.approx(0.683, abs=0.04)
    assert np.mean(off < 2) == pytest.approx(0.954, abs=0.02)


@pytest.mark.parametrize("background", [0.05, 0.8, 12.0])
def test_pulls_of_the_baseline(background: float):
    """3200 traces of 400 samples without particles."""
    rng = np.random.default_rng(14)
    found = [baseline([rng.poisson(background, 400).astype(float)], Threshold()) for _ in range(3200)]
    off = np.array([b.mean_counts for b in found if b]) - background
    sigma = np.sqrt(background / np.array([b.n_samples for b in found if b]))
    assert abs(np.mean(off / sigma)) < 0.1
    assert 0.95 < np.std(off / sigma) < 1.05
    own = np.array([b.sigma_counts for b in found if b])
    if background * 400 > 100:
        assert 0.95 < np.std(off / own) < 1.05


def test_false_events_stay_at_the_promised_rate():
    x = np.random.default_rng(15).poisson(0.8, 2_000_000).astype(float)
    result = reduced(x, EventRules(Threshold("poisson", alpha=1e-4), min_points=1))
    promised = 2_000_000 * Threshold("poisson", alpha=1e-4).false_rate(0.8)
    assert len(result.events[0]) == pytest.approx(promised, abs=4 * promised**0.5)
    assert len(reduced(x, EventRules()).events[0]) == 0
