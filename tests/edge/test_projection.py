"""Lines by projection, event by event: against a plain fit, by pulls, and as the method of a whole run."""

import copy
import math

import numpy as np
import pytest

from edge.events import PassCounts, Segmentation
from edge.ion_beam import IonBeamReducer, Settings
from edge.line_counts import coefficients, window_net, window_share
from edge.lines import lithium_window, xray_window
from edge.projection import ONE, ProjectionTable, project
from edge.settings import Detector
from edge.uncertainty import pulls
from tests.edge.ion_beam_model import SETTINGS, Model
from tests.edge.test_ion_beam import off, run

HPGE = Detector("pige", "hpge", 8192, 0.0, 0.25, 2.0, 4e-7)
SDD = Detector("pixe", "sdd", 2048, 0.0, 0.010, 0.145, 4e-7)
LITHIUM, COBALT = lithium_window(481.0, 6.0), xray_window("Co", None, 0.145)
CASES = {"Li": (HPGE, LITHIUM), "Co": (SDD, COBALT)}
DRAWS = 3_200


def segmentation(element):
    detector, window = CASES[element]
    return Segmentation.of(detector, [window], [window])


def expected(element, counts, background, slope=0.0):
    """Mean counts per channel: so many of a Gaussian in its window on so many of a continuum there."""
    detector, window = CASES[element]
    energy = np.arange(detector.channels) * detector.gain_kev
    line = np.exp(-0.5 * ((energy - window.centroid_kev) / (window.fwhm_kev / 2.3548)) ** 2)
    density = background * detector.gain_kev / window.width_kev
    middle = 0.5 * (window.bands_kev[0][0] + window.bands_kev[-1][1])
    near = (energy > window.centroid_kev - 25.0) & (energy < window.centroid_kev + 30.0)
    return counts / window_share(window) * line / line.sum() + density * near * (
        1 + slope * (energy - middle)
    )


def drawn(element, rng, mean, draws=DRAWS):
    """Projected sums of many spectra, from the columns that the events of a run are projected through."""
    columns = segmentation(element).tables(1.0).columns[:-1].astype(np.float64)
    used = np.flatnonzero(columns.any(axis=1))
    return rng.poisson(mean[used], (draws, used.size)) @ columns[used]


# --- the kernel ----------------------------------------------------------------------------------------


def test_every_event_adds_its_row():
    rng = np.random.default_rng(4)
    columns = rng.integers(-(1 << 28) + 1, 1 << 28, (41, 6)).astype(np.int32)
    pixel, channel = np.sort(rng.integers(0, 9, 5_000)), rng.integers(0, 41, 5_000)
    known = np.zeros((9, 6), np.int64)
    np.add.at(known, pixel, columns[channel].astype(np.int64))
    records = channel.astype(np.uint64) | pixel.astype(np.uint64) << np.uint64(16)
    for order in (np.arange(5_000), rng.permutation(5_000)):
        sums = np.zeros((9, 6), np.int64)
        project(np.ascontiguousarray(records[order]), columns, sums)
        assert np.array_equal(sums, known)  # exact, in any order


def test_chunks_and_merging_are_exact():
    rng = np.random.default_rng(5)
    frame = np.sort(rng.integers(1, 30, 4_000)).astype(np.int64)
    channel = rng.integers(1850, 2040, 4_000).astype(np.uint16)
    whole, *parts = (PassCounts.empty(5, 4, segmentation("Li"), 1.0003) for _ in range(3))
    whole.add(channel, frame)
    for start in range(0, 4_000, 97):
        parts[start % 2].add(channel[start : start + 97], frame[start : start + 97])
    parts[1].merge(parts[0])
    assert np.array_equal(parts[1].projected, whole.projected)
    assert whole.projected[:, 0].any()


# --- what it says --------------------------------------------------------------------------------------


def test_it_is_a_least_squares_fit():
    """The gains are those of a weighted fit: applied to exact shapes they return the amplitudes."""
    for element in CASES:
        table = segmentation(element).projection
        columns = segmentation(element).tables(1.0).columns[:-1]
        for counts, background in ((0.0, 50.0), (100.0, 0.0), (100.0, 300.0)):
            sums = expected(element, counts, background) @ columns
            assert table.net(element, sums, sums)[0] == pytest.approx(counts, abs=0.02)


def test_a_continuum_that_falls_is_corrected():
    table, columns = segmentation("Li").projection, segmentation("Li").tables(1.0).columns[:-1]
    sums = expected("Li", 100.0, 1_000.0, slope=-0.004) @ columns
    assert table.net("Li", sums, sums, -0.004)[0] == pytest.approx(100.0, abs=0.1)
    assert abs(table.net("Li", sums, sums, 0.0)[0] - 100.0) > 10.0


@pytest.mark.parametrize("element", CASES)
@pytest.mark.parametrize(("counts", "background"), [(20_000.0, 5_000.0), (200.0, 400.0), (25.0, 60.0)])
def test_pulls(element, counts, background):
    """3 200 draws at high and medium counts, and in a bin of a few pixels: 0 +- 1."""
    sums = drawn(element, np.random.default_rng(31), expected(element, counts, background))
    net, variance = segmentation(element).projection.net(element, sums, sums)
    mean, std = pulls(net, counts, np.sqrt(variance))
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05


def test_pixels_with_three_counts_add_up_without_bias():
    """Pixels of three counts of the line: every sum of a hundred of them is right, and so is its error."""
    sums = drawn("Li", np.random.default_rng(8), expected("Li", 3.0, 4.0), 320_000)
    sums = sums.reshape(DRAWS, 100, -1).sum(axis=1)
    net, variance = segmentation("Li").projection.net("Li", sums, sums)
    mean, std = pulls(net, 300.0, np.sqrt(variance))
    assert abs(mean) < 0.1
    assert 0.95 < std < 1.05


def test_it_is_better_than_a_window_and_weights_square():
    element, mean = "Li", expected("Li", 25.0, 62.0)
    sums = drawn(element, np.random.default_rng(9), mean)
    net, variance = segmentation(element).projection.net(element, sums, sums)
    tables = segmentation(element).tables(1.0)
    c = coefficients(segmentation(element), LITHIUM, tables.channels_in)
    segments = np.bincount(tables.segment_of, mean, minlength=c.size)
    assert np.std(net) < 0.97 * math.sqrt(window_net(segments, segments, c)[1])
    half, quarter = segmentation(element).projection.net(element, 0.5 * sums, 0.25 * sums)
    assert np.allclose(half, 0.5 * net)
    assert np.allclose(quarter, 0.25 * variance)


def test_the_error_of_the_scale():
    """A line displaced by half a keV: what the table says is what the columns do."""
    table, columns = segmentation("Li").projection, segmentation("Li").tables(1.0).columns[:-1]
    energy = np.arange(8192) * 0.25
    lost = []
    for shift in (-0.5, 0.5):
        line = np.exp(-0.5 * ((energy - 481.0 - shift) / (6.0 / 2.3548)) ** 2)
        lost.append(abs(float(line / line.sum() @ columns[:, 0]) / ONE - 1.0))
    assert table.placement_error(LITHIUM, 0.5) == pytest.approx(max(lost), rel=0.05)


def test_refusals():
    with pytest.raises(ValueError, match="too few to project"):
        ProjectionTable.of([LITHIUM], 5.0)
    with pytest.raises(ValueError, match="Fe is not counted by projection"):
        segmentation("Co").projection.net("Fe", np.zeros(5), np.zeros(5))


# --- the method of a run -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["projection", "fit", "window"])
def test_three_methods_one_contract(method):
    """The same experiment by each method: same keys, both errors, the truth within 3 sigma."""
    settings = copy.deepcopy(SETTINGS)
    for line in settings["lines"]:
        line["method"] = method
    reducer = IonBeamReducer(Settings.from_dict(settings))
    model = Model(24, 32, dwell=0.3, blur=5.0, seed=21)
    model.be7_hz = 0.05
    run(reducer, model, 0, "as prepared", "reference", 2)
    run(reducer, model, 1, "after", "after", 2, charge=(0.072, 0.072))
    result = reducer.result().to_dict()
    cathode = result["layers"][-1]
    assert {line["method"] for line in result["provenance"]["lines"]} == {method}
    for name in ("li_counts", "li_relative", "x", "soc_beam"):
        assert set(cathode["quantities"][name]) == {"value", "sigma_stat", "sigma_sys", "unit"}
        assert cathode["quantities"][name]["sigma_stat"] > 0
    assert abs(off(cathode["quantities"]["soc_beam"], 1.0)) < 3
