"""Maps from others: reference values of tests/data/xrf through windows, errors of net counts and ratios."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from controller.offline.maps import parse_lines
from controller.offline.maps_reduce import MapReport, reduce_map
from controller.offline.maps_sums import LineAsked, MapOptions
from drivers.files import foreign_maps
from edge.binning import Goal
from edge.foreign_maps import MassSums, Window, channel_windows, divide, line_map, make_window
from edge.uncertainty import pulls
from tests.data_sets import GPL, need, reference

REFERENCE = reference("xrf")
EDS, JEOL, XFM = "eds_p45_75x100", "jeol_stem_512", "xfm_20x10_2det"


def asked(entry: dict) -> tuple[LineAsked, ...]:
    return tuple(LineAsked(name, e["line_keV"], "keV") for name, e in entry["elements"].items())


@cache
def reduced(file: str, entry: str, why: str) -> MapReport:
    path = need(f"xrf/{file}", f"map windows of {entry}", why) if why else need(f"xrf/{file}", "map windows")
    gain = 0.010 if file.startswith("xfm") else None
    return reduce_map(
        foreign_maps.read(path), MapOptions(asked(REFERENCE[entry]), relative=0.2, gain_kev=gain)
    )


@pytest.mark.parametrize(
    ("file", "entry"),
    [(f"{EDS}.npz", f"{EDS}.bcf"), (f"{EDS}.bcf", f"{EDS}.bcf"), (f"{JEOL}_events.npz", f"{JEOL}.pts")],
)
def test_region_counts_centres_of_mass_and_largest_pixels(file: str, entry: str):
    report = reduced(file, entry, GPL)
    for line in report.data["lines"]:
        theirs = REFERENCE[entry]["elements"][line["name"]]
        assert line["gross_counts"] == theirs["roi_counts"]
        assert line["max_pixel"] == theirs["max_pixel"]
        assert line["centre_of_mass_y_x"] == pytest.approx(theirs["centre_of_mass_y_x"], abs=0.006)
    assert report.counted.spectrum is not None
    assert report.counted.spectrum.counts.sum() == REFERENCE[entry]["total_counts"]


def test_micro_xrf_map_of_two_detectors():
    report = reduced(f"{XFM}.npz", f"{XFM}.GeoPIXE", "")
    for line in report.data["lines"]:
        theirs = REFERENCE[f"{XFM}.GeoPIXE"]["elements"][line["name"]]
        assert line["gross_counts"] == theirs["roi_counts_det0"] + theirs["roi_counts_det1"]


def test_live_time_of_the_micro_xrf_map():
    path = need(f"xrf/{XFM}.GeoPIXE", "live time of the micro-XRF map")
    recorded = foreign_maps.read(path)
    report = reduce_map(recorded, MapOptions(parse_lines("Fe"), relative=0.05))
    rate = report.table.rate()
    assert rate is not None
    live = 0.1 * (1.0 - recorded.dead_fraction.astype(float)).sum()  # 100 ms dwell, two detectors
    assert report.data["live_s"] == pytest.approx(live)
    assert (rate[0] * report.table.live_s).sum() == pytest.approx(report.table.net.sum())


def test_net_is_gross_less_the_scaled_bands():
    counts = np.array([[[50]], [[6]], [[10]]])
    both = line_map(Window("a", 5.0, 4.0, 6.0, ((2.0, 3.0), (7.0, 8.0))), counts, [20, 10, 10])
    assert float(both.net[0, 0]) == 50 - 16  # two counts under each channel pair: 20/20 x (6 + 10)
    assert float(both.variance[0, 0]) == 50 + 16
    assert both.sigma_sys == pytest.approx(abs(12 - 20) / 12**0.5)
    one = line_map(Window("a", 5.0, 4.0, 6.0, ((2.0, 3.0),)), counts, [20, 10, 0])
    assert float(one.net[0, 0]) == 50 - 12
    assert float(one.variance[0, 0]) == 50 + 4 * 6
    none = line_map(Window("a", 5.0, 4.0, 6.0), counts, [20, 0, 0])
    assert (float(none.net[0, 0]), none.sigma_sys) == (50.0, 0.0)


def test_a_band_on_another_line_is_left_out():
    lines = [1.254, 1.487, 1.74]
    assert len(make_window("Al", 1.487, 0.085, lines, True).bands) == 0
    assert len(make_window("Si", 1.74, 0.085, lines, True).bands) == 1
    assert len(make_window("Fe", 6.4, 0.085, [*lines, 6.4], True).bands) == 2
    assert make_window("Fe", 6.4, 0.085, [6.4], False).bands == ()


@pytest.mark.parametrize("level", [0.5, 5.0, 80.0])
def test_pulls_of_net_counts_and_ratios_in_regions(level: float):
    """Two lines on a sloped background, 3 200 regions and more at few, medium and many counts per pixel.

    The regions come from a third line, so that only counting is tested; what a line gains when it shapes
    its own regions is in test_binning.
    """
    rng = np.random.default_rng(41)
    axis = np.arange(120.0)
    a, b = (np.exp(-0.5 * ((axis - place) / 4.0) ** 2) for place in (30.0, 85.0))
    windows = [make_window(n, c, 9.0, [30.0, 85.0], True) for n, c in (("a", 30.0), ("b", 85.0))]
    table = channel_windows(windows, axis).astype(float)
    widths = table.sum(axis=1)
    mean = table @ (level * (0.15 - 0.0006 * axis + a / a.sum() + 1.5 * b / b.sum()))
    truth = [level * part * (a[21:40].sum() - a[8:17].sum() * 19 / 18) / a.sum() for part in (1.0, 1.5)]
    n = 128 if level < 1 else 48
    everywhere = np.ones((n, n), bool)
    net, ratio = [], []
    while sum(len(part) for part in net) < 3_200:
        maps = rng.poisson(mean, (n, n, 6)).transpose(2, 0, 1).reshape(2, 3, n, n)
        lines = [line_map(w, maps[k], widths[3 * k : 3 * k + 3]) for k, w in enumerate(windows)]
        counts = rng.poisson(level, (3, n, n))
        guide = line_map(Window("guide", 0.0, -1.0, 1.0), counts, [1, 0, 0])
        found = divide([*lines, guide], guide, Goal(relative=0.045), everywhere)
        net.append((found.net[0] - truth[0] * found.regions.pixels) / found.sigma[0])
        value, sigma = found.ratio("b", "a")
        ratio.append((value - truth[1] / truth[0]) / sigma)
    for found_pulls in (np.concatenate(net), np.concatenate(ratio)):
        average, std = pulls(found_pulls, 0.0, np.ones(found_pulls.size))
        assert abs(average) < 0.1
        assert 0.95 < std < 1.05


def test_mass_spectra_merge_exactly_and_keep_what_is_no_count_apart():
    window = make_window("Li", 7.016, 0.05, [7.016], True)
    edges = np.linspace(0.0, 20.0, 41)
    parts = [MassSums(4, (window,), edges) for _ in range(3)]
    spectra = [(0, [7.0, 7.016, 8.0], [3.0, 4.0, 9.0]), (2, [7.11, 6.93], [5.0, 1.0]), (3, [7.0], [0.5])]
    for spectrum in spectra:
        parts[0].add(*spectrum)
        parts[1 + spectrum[0] // 2].add(*spectrum)
    parts[2].merge(parts[1])
    assert np.array_equal(parts[0].maps, parts[2].maps)
    assert parts[0].maps.tolist() == [[7, 0, 0, 0], [0, 0, 1, 0], [0, 0, 5, 0]]
    assert parts[0].not_counts == parts[2].not_counts == 1
    assert parts[0].spectrum.sum() == parts[0].totals.sum() == 22
    with pytest.raises(ValueError, match="same windows"):
        parts[0].merge(MassSums(4, (), edges))
    with pytest.raises(ValueError, match="pixel 4"):
        parts[0].add(4, [], [])


def test_windows_without_channels_are_all_named():
    with pytest.raises(ValueError, match=r"Fe.*Cu"):
        channel_windows(
            [make_window(n, c, 0.1, [], True) for n, c in (("Fe", 6.4), ("Cu", 8.0))], np.arange(5.0)
        )
