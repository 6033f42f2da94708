"""The whole reduction: uncertainties by pulls, merging, refusals, results on experiments drawn directly."""

import copy
import itertools
import json
import math

import numpy as np
import pytest

from edge.calibration_tables import CalibrationTable
from edge.drift import Gain
from edge.events import Segmentation
from edge.geometry import Grid, Pose, layer_weights, sums_in_layers
from edge.ion_beam import Events, IonBeamReducer, PassDone, PassStart, ScanStart, Settings
from edge.line_counts import Slope, placement_error
from edge.lithium import (
    Measured,
    Method,
    combined_systematic,
    layer_quantities,
    paper_budget,
    prior_systematic,
    through_table,
)
from edge.scan_data import MOST_BLOCKS, Counters, PassEnd, ScanData, Stamp
from edge.soc import change_verdict, outside_range, relative_soc, soc_between, soc_from_charge
from edge.uncertainty import Estimate, pulls
from tests.edge.ion_beam_model import SETTINGS, Model

DRAWS = 3_200
SETTINGS_NOW = Settings.from_dict(SETTINGS)
SEGMENTATIONS = {
    name: Segmentation.of(detector, [line.window for line in SETTINGS_NOW.lines_on(name)])
    for name, detector in SETTINGS_NOW.detectors.items()
}
CATHODE = SETTINGS_NOW.layer_index("cathode")
TABLE = CalibrationTable.named("lco-meep-2.91MeV")


# --- pulls ----------------------------------------------------------------------------------------
# Direct draw: counts per pixel and segment of a small raster for thousands of experiments at once, reduced by
# the functions that reduce a run. The draw knows layers, rates and windows; nothing of it comes from the
# estimator but where windows and bands lie.

GRID = Grid(8, 20, 100.0, 300.0)
BOUNDS = [(0.0, 0.0), (-75.0, -6.0), (6.0, 110.0)]
POSE = Pose(math.radians(2.0), 4.0, 0.0, math.radians(0.4), 0.8)
CHARGE = 3e-11  # coulomb per pixel and scan
DEAD = {"pige": 3e-5, "pixe": 8e-6}
WIDTH_KEV = {"Li": (12.0, 15.0), "Co": (0.3827, 0.3062), "P": (0.2735, 0.1525)}  # window, both bands
PER_COULOMB = {  # net counts in the window per coulomb; background density per coulomb and keV
    "Li": (0.0, 2.5e10, 1.5e11, 4.0e9),
    "Co": (0.0, 0.0, 2.0e12, 1.0e11),
    "P": (0.0, 1.2e12, 8.0e10, 2.0e11),
}
RATE_HZ = {"pige": 500.0, "pixe": 600.0}
GAIN_SIGMA = 4e-4
LONG = 40.0  # so much longer are the scans of the second set: the nuisances must show
OFF_S, OFF_HZ = 400.0, 0.05  # beam-off time, and rate in the lithium window


def expected(pose, lithium, *, slope=0.0, scale=1.0, gain=0.0, live=None):
    """Mean counts {detector: (pixels, segments)} of one experiment; every nuisance is an argument."""
    live = live or {"pige": 1.0, "pixe": 1.0}
    x, y = GRID.positions_um()
    d = pose.distance_um(x, y)
    share = np.stack([d < -85.0, (d >= -85.0) & (d < 0.0), d >= 0.0], axis=1).astype(float)
    found = {}
    for name, segmentation in SEGMENTATIONS.items():
        mean = np.zeros((GRID.nx * GRID.ny, segmentation.size))
        channels = segmentation.tables(1.0).channels_in * segmentation.detector.gain_kev
        for line in SETTINGS_NOW.lines_on(name):
            *rates, density = PER_COULOMB[line.element]
            rates = np.array(rates) * np.array([1.0, 1.0, lithium if line.element == "Li" else 1.0])
            window = line.window
            inside = segmentation.members(window.low_kev, window.high_kev)
            sigma = window.fwhm_kev / 2.3548
            kept = sum(
                s * 0.5 * math.erf((edge - window.centroid_kev * (1.0 + gain)) / sigma / math.sqrt(2))
                for s, edge in ((1, window.high_kev), (-1, window.low_kev))
            )
            full = math.erf((window.high_kev - window.centroid_kev) / sigma / math.sqrt(2))
            mean[:, inside[0]] += share @ rates * (kept / full)
            for low, high in ((window.low_kev, window.high_kev), *window.bands_kev):
                for segment in segmentation.members(low, high):
                    tilt = 1.0 + slope * (0.5 * (low + high) - 497.5) if line.element == "Li" else 1.0
                    mean[:, segment] += density * tilt * channels[segment]
        found[name] = mean * CHARGE * scale * live[name]
    return found


def measured(counts, pose, live, seconds=25.0):
    """The counts of many experiments in the layers, (draws, layers, segments)."""
    weights = layer_weights(GRID, pose, BOUNDS)
    sums, variances, charge, time_s = {}, {}, {}, {}
    for name, number in counts.items():
        sums[name], variances[name] = sums_in_layers(weights, number)
        charge[name] = weights.sum(axis=0) * CHARGE * live[name]
        time_s[name] = weights.sum(axis=0) * seconds * live[name]
    return sums, variances, charge, time_s


def reduced(now, then, off, poses, live, *, slope=0.0):
    """Quantities of the cathode for all experiments, through the real estimator."""
    method = Method(SETTINGS_NOW, SEGMENTATIONS, slope)
    channels = {name: s.tables(1.0).channels_in.astype(float) for name, s in SEGMENTATIONS.items()}
    seconds = dict.fromkeys(SEGMENTATIONS, OFF_S)
    views = [
        Measured(*measured(c, p, live), off, seconds, channels, beam_off_common=off)
        for c, p in zip((now, then), poses, strict=True)
    ]
    return layer_quantities(method, SETTINGS_NOW.layers[CATHODE], CATHODE, *views)


def draw_off(rng, draws):
    off = {name: np.zeros((draws, s.size)) for name, s in SEGMENTATIONS.items()}
    off["pige"][:, 1] = rng.poisson(OFF_HZ * OFF_S, draws)
    return off


def with_be7(mean, seconds=25.0):
    mean["pige"][:, 1] += OFF_HZ * seconds
    return mean


def test_pulls_with_the_nuisances_off():
    """(estimate - truth) / sigma_stat of 3 200 independent experiments: std 0.95 to 1.05, |mean| < 0.1."""
    rng = np.random.default_rng(2021)
    lithium = TABLE.signal_of(0.75)
    live = {"pige": 1.0, "pixe": 1.0}
    now = {k: rng.poisson(v, (DRAWS, *v.shape)) for k, v in with_be7(expected(POSE, float(lithium))).items()}
    then = {k: rng.poisson(v, (DRAWS, *v.shape)) for k, v in with_be7(expected(POSE, 1.0)).items()}
    found = reduced(now, then, draw_off(rng, DRAWS), (POSE, POSE), live)
    pixels = layer_weights(GRID, POSE, BOUNDS)[:, CATHODE].sum()
    truth = {
        "li_counts": 1.5e11 * float(lithium) * CHARGE * pixels,
        "co_counts": 2.0e12 * CHARGE * pixels,
        "li_per_charge": 1.5e11 * float(lithium) / 1e9,
        "li_relative": float(lithium),
        "li_relative_charge": float(lithium),
        "x": 0.75,
        "soc_beam": 0.5,
    }
    for name, value in truth.items():
        mean, std = pulls(found[name][0], value, found[name][1])
        print(f"{name:20s} pull mean {mean:+.3f} std {std:.3f}")
        assert abs(mean) < 0.1, name
        assert 0.95 < std < 1.05, name


def test_pulls_with_every_nuisance_drawn_from_its_prior():
    """The same against sigma_total: gain, charge, tilt, drift, dead time, normalisation, slope all drawn."""
    rng = np.random.default_rng(1906)
    lithium = float(TABLE.signal_of(0.75))
    nominal = {name: math.exp(-RATE_HZ[name] * DEAD[name]) for name in DEAD}
    now, then = drawn_with_nuisances(rng, lithium)
    off = draw_off(rng, DRAWS)
    central = reduced(now, then, off, (POSE, POSE), nominal)
    effects = variants((now, then), off, nominal)
    windows = [SETTINGS_NOW.line(element).window for element in ("Li", "Co")]
    scale = math.hypot(*(placement_error(w, GAIN_SIGMA * w.centroid_kev) for w in windows))
    truth = {"li_relative": lithium, "li_relative_charge": lithium, "x": 0.75}
    for name, true in truth.items():
        value, sigma = central[name]
        total = np.empty(DRAWS)
        for index in range(DRAWS):
            source = "li_relative" if name == "x" else name
            signal = float(central[source][0][index])
            parts = {k: float(v[source][index]) for k, v in effects.items()}
            parts |= prior_systematic(SETTINGS_NOW, source, signal)
            parts["energy_scale"] = math.sqrt(2.0) * signal * scale
            if name == "x":
                parts = through_table(TABLE, signal, parts)
                parts.pop("calibration_table")  # the draw uses the table itself
            total[index] = math.sqrt(float(sigma[index]) ** 2 + sum(p**2 for p in parts.values()))
        mean, std = pulls(value, true, total)
        print(f"{name:20s} pull mean {mean:+.3f} std {std:.3f} (against sigma_total)")
        assert abs(mean) < 0.1, name
        assert 0.95 < std < 1.05, name


def drawn_with_nuisances(rng, lithium):
    """Counts of ``DRAWS`` pairs of scans, each pair with its own draw of every nuisance."""
    priors = SETTINGS_NOW.priors
    pairs = []
    for _ in range(DRAWS):
        tau = {name: DEAD[name] * (1 + priors["dead_time"] * rng.normal()) for name in DEAD}
        live = {name: math.exp(-RATE_HZ[name] * tau[name]) for name in DEAD}
        slope = priors["background_slope_per_kev"] * rng.normal()
        normal = 1 + priors["normalisation"] * rng.normal()
        pair = []
        for signal in (lithium * normal, 1.0):
            true = POSE.moved(POSE.sigma_angle_rad * rng.normal(), POSE.sigma_position_um * rng.normal())
            charge = 1 + priors["beam_charge"] * rng.normal()
            gain = GAIN_SIGMA * rng.normal()
            mean = expected(true, signal, slope=slope, scale=LONG * charge, gain=gain, live=live)
            pair.append(with_be7(mean, 25.0 * live["pige"]))
        pairs.append(pair)
    scans = []
    for which in (0, 1):
        means = {name: np.stack([pair[which][name] for pair in pairs]) for name in SEGMENTATIONS}
        scans.append({name: rng.poisson(mean).astype(np.uint16) for name, mean in means.items()})
    return scans


def variants(scans, off, live):
    """Effect of each nuisance on each quantity per experiment, by differences as the reduction takes them."""
    nominal = (POSE, POSE)
    central = reduced(*scans, off, nominal, live)
    slope_sigma = SETTINGS_NOW.priors["background_slope_per_kev"]
    views = {"slope": [reduced(*scans, off, nominal, live, slope=s * slope_sigma) for s in (1, -1)]}
    for which in (0, 1):
        for kind, size in (("angle", (POSE.sigma_angle_rad, 0.0)), ("shift", (0.0, POSE.sigma_position_um))):
            pair = []
            for s in (1.0, -1.0):
                poses = [POSE, POSE]
                poses[which] = POSE.moved(s * size[0], s * size[1])
                pair.append(reduced(*scans, off, poses, live))
            views[f"{kind}{which}"] = pair
    found = {}
    for nuisance, (plus, minus) in views.items():
        found[nuisance] = {}
        for name in ("li_relative", "li_relative_charge"):
            up, down = plus[name][0] - central[name][0], minus[name][0] - central[name][0]
            one_way = np.maximum(np.abs(up), np.abs(down))
            found[nuisance][name] = np.where(up * down <= 0, 0.5 * np.abs(up - down), one_way)
    return found


def test_a_variant_that_goes_one_way_counts_whole():
    assert combined_systematic(1.0, {"a": (1.1, 0.9), "b": (1.2, 1.1), "c": (0.9, 1.2)}) == pytest.approx(
        {"a": 0.1, "b": 0.2, "c": 0.15}
    )


# --- experiments drawn event by event -------------------------------------------------------------


def run(reducer, model, scan, name, purpose, passes, *, charge=(0.0, 0.0), good=None, drift=0.0):
    reducer.add(ScanStart(scan, name, purpose, Grid(**model.raster())))
    start = model.place
    for n in range(1, passes + 1):
        part = (n - 0.5) / passes
        q = charge[0] + (charge[1] - charge[0]) * part
        model.lithium = float(TABLE.signal_of(1.0 - 0.5 * q / SETTINGS_NOW.capacity_coulomb))
        model.place = start + drift * part
        add_pass(reducer, model, scan, n, q, good=good is None or n not in good)


def add_pass(reducer, model, scan, n, q=0.0, *, good=True, chunk=None):
    reducer.add(PassStart(scan, n))
    counters = {}
    for name in ("pixe", "pige"):
        _, channel, frame, fast, whole_s = model.one_pass(name)
        step = chunk or max(channel.size, 1)
        for start in range(0, channel.size, step):
            part = slice(start, start + step)
            reducer.add(Events(scan, n, name, channel[part], frame[part]))
        counters[name] = Counters(channel.size, fast, whole_s, whole_s)
    stamp = Stamp(
        lab_s=200.0 * n, charge_coulomb=q, charge_sigma_coulomb=2e-4, temperature_k=333.0, voltage_v=3.9
    )
    end = PassEnd(
        good, "" if good else "a test", tuple(range(model.ny)), model.charge(), counters, stamp, stamp
    )
    reducer.add(PassDone(scan, n, end))


@pytest.fixture(scope="module")
def experiment():
    model = Model(40, 48, dwell=0.1, blur=3.0, seed=11)
    model.be7_hz = 0.02
    reducer = IonBeamReducer(SETTINGS_NOW)
    run(reducer, model, 0, "as prepared", "reference", 5)
    run(reducer, model, 1, "charging", "charging", 12, charge=(0.0, 0.036), drift=6.0)
    run(reducer, model, 2, "after", "after", 5, charge=(0.036, 0.036), good={3})
    return reducer, reducer.result().to_dict()


def layer(result, scan, name):
    entry = next(s for s in result["scans"] if s["name"] == scan)
    return next(found for found in entry["layers"] if found["name"] == name)


def off(quantity, truth):
    return (quantity["value"] - truth) / math.hypot(quantity["sigma_stat"], quantity["sigma_sys"])


def test_half_charged(experiment):
    _, result = experiment
    cathode = result["layers"][-1]
    quantities = cathode["quantities"]
    assert cathode["interval"]["scan"] == "after"
    assert abs(off(quantities["soc_beam"], 0.5)) < 3
    assert abs(off(quantities["x"], 0.75)) < 3
    assert quantities["soc_beam"]["sigma_stat"] < 0.1
    assert quantities["soc_charge"]["value"] == pytest.approx(0.5)
    assert quantities["soc_charge"]["sigma_sys"] == pytest.approx(0.5 * 0.05)
    assert quantities["soc_charge"]["sigma_stat"] == pytest.approx(2e-4 / 0.072)
    assert cathode["agree"] is True
    assert cathode["verdict"] == "change resolved"
    assert cathode["interval"]["passes"] == [1, 5]
    assert cathode["interval"]["soc_charge"] == [0.5, 0.5]


def test_both_normalisations_are_printed(experiment):
    _, result = experiment
    quantities = layer(result, "after", "cathode")["quantities"]
    assert {"li_per_charge", "li_per_normaliser", "li_relative", "li_relative_charge"} <= set(quantities)
    rate = quantities["li_per_charge"]
    assert abs(off(rate, float(TABLE.signal_of(0.75)) * 3.5 * 0.981 / 24e-3)) < 3.5  # 24 pA is 24e-3 nC/s
    assert rate["unit"] == "1/nC"


def test_x_and_soc_only_for_host_layers(experiment):
    _, result = experiment
    for name in ("anode", "separator"):
        found = layer(result, "after", name)["quantities"]
        assert not {"x", "soc_beam", "soc_charge"} & set(found)
        assert "li_relative_charge" in found
    assert "li_relative" in layer(result, "after", "separator")["quantities"]
    assert "li_relative" not in layer(result, "after", "anode")["quantities"]  # nothing represents the metal


def test_the_reference_has_no_x_of_its_own(experiment):
    _, result = experiment
    found = layer(result, "as prepared", "cathode")
    assert found["verdict"] == "reference"
    assert not {"x", "li_relative"} & set(found["quantities"])


def test_the_series_follows_the_charge(experiment):
    _, result = experiment
    bins = result["series"]["charging"]
    assert len(bins) == 8
    charge = [b["interval"]["soc_charge"] for b in bins]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(charge))
    assert [b["interval"]["passes"][0] for b in bins][:3] == [1, 3, 5]
    beam = [b["layers"][-1]["quantities"]["soc_beam"] for b in bins]
    middle = [b["layers"][-1]["quantities"]["soc_charge"]["value"] for b in bins]
    chi2 = sum(((q["value"] - m) / q["sigma_stat"]) ** 2 for q, m in zip(beam, middle, strict=True))
    assert chi2 < 25  # 8 bins that share one reference


def test_a_drifting_cell_is_followed(experiment):
    _, result = experiment
    geometry = next(s for s in result["scans"] if s["name"] == "charging")["geometry"]
    places = list(geometry["followed_um"].values())
    assert len(places) == 12
    assert places[-1] - places[0] == pytest.approx(5.5, abs=1.0)
    shift = geometry["registration"]
    assert abs(shift["shift_um"] - 3.0) < 4 * shift["sigma_shift_um"]


def test_dead_time_is_found(experiment):
    _, result = experiment
    for name, true in (("pige", 3e-5), ("pixe", 8e-6)):
        found = result["dead_time"][name]
        # the fast channel of the draw sees every photon: 0.4 us of the model's are missing
        assert abs(found["tau_s"] - true - 4e-7) < 3 * found["sigma_s"]


def test_a_refused_pass_is_named_and_not_counted(experiment):
    _, result = experiment
    after = next(s for s in result["scans"] if s["name"] == "after")
    assert after["passes"] == [1, 2, 4, 5]
    assert after["refused"] == {"3": "a test"}


def test_fit_and_windows_say_the_same(experiment):
    _, result = experiment
    entry = next(s for s in result["scans"] if s["name"] == "charging")
    for element, quantity in (("Co", "co_counts"), ("Li", "li_counts")):
        fit = entry["methods"][element]["cathode"]
        window = layer(result, "charging", "cathode")["quantities"][quantity]
        bound = 3 * math.hypot(fit["sigma"], window["sigma_stat"]) + 0.02 * window["value"]
        assert abs(fit["fit_counts"] - window["value"]) < bound


def test_dose_and_events_are_kept(experiment):
    _, result = experiment
    scan = result["dose"]["scans"][0]
    fluence = 5 * 24e-12 * 0.1 / 1.602176634e-19 / (2.5e-4 * 6.25e-4)
    assert scan["protons_per_cm2_mean"] == pytest.approx(fluence, rel=1e-3)
    events = result["scans"][0]["events"]["pige"]
    assert events["received"] == events["slow"]
    assert events["lost"] == 0
    assert result["flags"] == []


def test_the_result_is_plain(experiment):
    _, result = experiment
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_fit_can_be_the_method():
    settings = copy.deepcopy(SETTINGS)
    settings["lines"][0]["method"] = "fit"
    model = Model(24, 32, dwell=0.3, blur=5.0, seed=21)
    reducer = IonBeamReducer(Settings.from_dict(settings))
    run(reducer, model, 0, "as prepared", "reference", 2)
    run(reducer, model, 1, "after", "after", 2, charge=(0.072, 0.072))
    cathode = reducer.result().to_dict()["layers"][-1]
    assert abs(off(cathode["quantities"]["soc_beam"], 1.0)) < 3


# --- merging --------------------------------------------------------------------------------------


def test_merging_passes_and_chunks_is_exact():
    raster = ScanStart(0, "as prepared", "reference", Grid(**Model(16, 24, dwell=0.3).raster()))
    whole, *parts = (IonBeamReducer(SETTINGS_NOW) for _ in range(3))
    models = [Model(16, 24, dwell=0.3, blur=6.0, seed=31) for _ in range(3)]
    for reducer in (whole, *parts):
        reducer.add(raster)
    for n in range(1, 6):
        known = dict(whole.gains)
        add_pass(whole, models[0], 0, n)
        for number, part in enumerate(parts):
            if n % 2 == number:
                part.gains = dict(known)  # every part begins with the scale that was known then
                add_pass(part, models[1 + number], 0, n, chunk=101)
            else:
                for name in ("pixe", "pige"):
                    models[1 + number].one_pass(name)
    parts[0].merge(parts[1])
    assert parts[0].scans[0].passes == [1, 2, 3, 4, 5]
    assert parts[0].gains == whole.gains
    for key, block in whole.scans[0].blocks.items():
        other = parts[0].scans[0].blocks[key]
        assert np.array_equal(block.charge, other.charge)
        for name in ("pixe", "pige"):
            assert np.array_equal(block.detectors[name].segments, other.detectors[name].segments)
            assert np.array_equal(block.detectors[name].tallies, other.detectors[name].tallies)
    for name in ("pixe", "pige"):
        assert np.array_equal(whole.scans[0].spectra[name].rows, parts[0].scans[0].spectra[name].rows)
    assert parts[0].result().to_dict() == whole.result().to_dict()


def test_two_halves_of_one_pass():
    model = Model(8, 12, dwell=0.5, seed=32)
    _, channel, frame, *_ = model.one_pass("pixe")
    reducers = [IonBeamReducer(SETTINGS_NOW) for _ in range(3)]
    for reducer in reducers:
        reducer.add(ScanStart(0, "as prepared", "reference", Grid(**model.raster())))
        reducer.add(PassStart(0, 1))
    reducers[0].add(Events(0, 1, "pixe", channel, frame))
    reducers[1].add(Events(0, 1, "pixe", channel[:777], frame[:777]))
    reducers[2].add(Events(0, 1, "pixe", channel[777:], frame[777:]))
    reducers[2].merge(reducers[1])
    assert np.array_equal(
        reducers[2].open[(0, 1)]["pixe"].segments, reducers[0].open[(0, 1)]["pixe"].segments
    )


def test_blocks_are_bounded_and_do_not_depend_on_the_order():
    model = Model(4, 4, dwell=0.5, seed=33)
    start = ScanStart(0, "as prepared", "reference", Grid(**model.raster()))
    all_in_order, odd, even = ScanData(start), ScanData(start), ScanData(start)
    reducer = IonBeamReducer(SETTINGS_NOW)
    reducer.add(start)
    for n in range(1, 71):
        for data in (all_in_order, odd if n % 2 else even):
            reducer.scans[0] = data
            model.rng = np.random.default_rng(n)
            reducer.gains = {name: Gain(1.0, 1e-4, 1) for name in reducer.gains}
            add_pass(reducer, model, 0, n)
    odd.merge(even)
    assert len(all_in_order.blocks) <= MOST_BLOCKS
    assert set(odd.blocks) == set(all_in_order.blocks)
    for key, block in odd.blocks.items():
        same = all_in_order.blocks[key]
        assert sorted(block.passes) == sorted(same.passes)
        assert np.array_equal(block.time_us, same.time_us)
        assert np.array_equal(block.detectors["pige"].segments, same.detectors["pige"].segments)


def test_messages_out_of_order_are_refused():
    reducer = IonBeamReducer(SETTINGS_NOW)
    grid = Grid(**Model(4, 4).raster())
    none = (np.zeros(0, np.uint16), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="has not begun"):
        reducer.add(PassStart(0, 1))
    reducer.add(ScanStart(0, "a", "reference", grid))
    with pytest.raises(ValueError, match="no open pass"):
        reducer.add(Events(0, 1, "pixe", *none))
    with pytest.raises(ValueError, match="already 'a'"):
        reducer.add(ScanStart(0, "b", "reference", grid))
    reducer.add(PassStart(0, 1))
    with pytest.raises(ValueError, match="begun already"):
        reducer.add(PassStart(0, 1))
    with pytest.raises(ValueError, match="detector sem"):
        reducer.add(Events(0, 1, "sem", *none))


# --- the energy scale -----------------------------------------------------------------------------


def test_a_wrong_scale_is_found_in_the_first_pass_and_the_windows_are_laid_again():
    model = Model(16, 24, dwell=0.5, blur=6.0, seed=41)
    model.gain = {"pige": 1.0030, "pixe": 0.9960}
    reducer = IonBeamReducer(SETTINGS_NOW)
    reducer.add(ScanStart(0, "as prepared", "reference", Grid(**model.raster())))
    reducer.add(PassStart(0, 1))
    for name, true in model.gain.items():
        _, channel, frame, *_ = model.one_pass(name)
        reducer.add(Events(0, 1, name, channel, frame))
        gain = reducer.next_gain(0, 1, name)
        assert abs(gain.value - true) < 4 * gain.sigma
        assert reducer.is_misplaced(0, 1, name)
        reducer.recount(0, 1, name, moved=True)
        reducer.add(Events(0, 1, name, channel, frame))
        assert not reducer.is_misplaced(0, 1, name)


# --- charge side, verdicts ------------------------------------------------------------------------


def test_soc_from_charge_carries_capacity_offset_and_leakage():
    found = soc_from_charge(
        0.10692, 3e-4, 3.42, 0.20, leakage_a=1e-8, elapsed_s=7_200.0
    )  # 29.7 uAh, 0.95 mAh
    assert found.value == pytest.approx(0.0313, abs=1e-4)  # the paper prints 31 %
    assert found.sigma_stat == pytest.approx(3e-4 / 3.42)
    assert found.sigma_sys == pytest.approx(math.hypot(0.2 * 0.03126, 7.2e-5 / 3.42), rel=1e-3)
    with pytest.raises(ValueError, match="positive"):
        soc_from_charge(1.0, 0.0, 0.0, 0.0)


def test_soc_of_the_second_cycle():
    # table 1 of the paper, with x by table A2: 0.882, 0.829, 0.610; the paper's own x give 25.2 %
    pair = [(np.array(x), np.array(0.01)) for x in (0.829, 0.882, 0.610)]
    value, sigma = soc_between(*pair)
    assert float(value) == pytest.approx(0.195, abs=1e-3)
    q = 0.053 / 0.272
    assert float(sigma) == pytest.approx(0.01 * math.sqrt(1 + (1 - q) ** 2 + q**2) / 0.272, rel=1e-3)


def test_soc_relative_to_a_named_scan():
    settings = Settings.from_dict({**SETTINGS, "relative": {"zero": "as prepared"}})
    now = {"x": Estimate(0.75, 0.02, 0.01, "1")}
    found = relative_soc(settings, {"as prepared": {}}, now)
    assert (found.value, found.sigma_stat) == pytest.approx((0.5, 0.04))
    assert relative_soc(settings, {}, now) is None


def test_three_plus_minus_four_percent_is_not_resolved():
    """The operando scan of the paper: Co/Li 13.1 +- 0.2 then 13.3 +- 0.2."""
    signal = 13.1 / 13.3
    sigma = signal * math.hypot(0.2 / 13.1, 0.2 / 13.3)
    assert change_verdict([Estimate(signal, sigma, 0.02, "1")]) == "no change resolved"
    x = float(TABLE.x_of(signal))
    soc, error = (1 - x) / 0.5, sigma / float(TABLE.slope(signal)) / 0.5
    assert (soc, error) == pytest.approx((0.03, 0.045), abs=0.006)
    assert abs(soc - 0.31) > 5 * error  # 31 % is excluded
    assert change_verdict([Estimate(0.76, 0.02, 0.02, "1")]) == "change resolved"


def test_x_outside_its_range_is_flagged_not_clipped():
    assert outside_range(0.75) is None
    assert "1.034 is outside 0.5 to 1" in outside_range(1.034)


def test_error_budget_of_the_paper():
    budget = paper_budget(SETTINGS_NOW)
    assert budget["absolute"] == pytest.approx(0.0707, abs=1e-4)  # printed 7.1 %
    assert budget["relative"] == pytest.approx(0.0224, abs=1e-4)  # printed 2.2 %


def test_priors_apply_where_they_belong():
    assert prior_systematic(SETTINGS_NOW, "li_relative", 0.8) == pytest.approx({"normalisation": 0.016})
    other = Settings.from_dict({**SETTINGS, "same_cell": False})
    assert prior_systematic(other, "li_relative", 1.0)["cell_to_cell"] == 0.04
    assert prior_systematic(SETTINGS_NOW, "co_per_charge", 10.0) == pytest.approx({"beam_charge": 0.1})
    assert prior_systematic(SETTINGS_NOW, "li_counts", 10.0) == {}
    assert Slope().sigma == 0.0


# --- settings -------------------------------------------------------------------------------------


def changed(**changes):
    data = copy.deepcopy(SETTINGS)
    data.update(changes)
    return data


LITHIUM, *OTHERS = SETTINGS["lines"]
ZIRCONIUM = {"element": "Zr", "detector": "pixe", "line": "La"}


def banded(low, high):
    return changed(lines=[{**LITHIUM, "background_kev": [[low, high]]}, *OTHERS])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(calibration="lco-llzo-2.91MeV"), "LiCoO2 is 0.85 instead of 0.5"),
        (changed(beam={"energy_kev": 3020.0, "angle_deg": 0.0}), "3020 keV instead of 2911"),
        (changed(beam={"energy_kev": 2911.0, "angle_deg": 90.0}), "angle 90 deg"),
        (changed(calibration=None), "needs a calibration table"),
        (changed(interface=["cathode", "separator"]), "not neighbours in order"),
        (changed(reference=""), "reference"),
        (changed(typo=1), "typo: unknown key"),
        (changed(lithium_line={"centroid_kev": 511.0, "fwhm_kev": 3.0}), "at most 4.7 keV"),
        (changed(lines=SETTINGS["lines"][:2]), "normaliser P is not among"),
        (changed(lines=SETTINGS["lines"][1:]), "lithium is missing"),
        (changed(lines=[*SETTINGS["lines"], ZIRCONIUM]), "do not separate"),
        (changed(lines=[{"element": "Li", "detector": "pixe"}, *OTHERS]), "with the HPGe"),
        (banded(455.0, 470.0), "high side"),
        (banded(490.0, 515.0), "below 505 keV"),
        (banded(486.0, 500.0), "overlaps the window"),
    ],
)
def test_what_makes_no_sense_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Settings.from_dict(data)


def test_all_problems_at_once():
    with pytest.raises(ValueError, match=r"typo.*interface.*instead of 2911"):
        Settings.from_dict(changed(typo=1, interface=["a", "b"], beam={"energy_kev": 1.0, "angle_deg": 0.0}))


def test_phosphorus_in_a_layer_with_zirconium_is_refused_and_elsewhere_flagged():
    llzo = {"name": "separator", "kind": "separator", "normaliser": "P", "mass_fractions": {"LLZO": 1.0}}
    layers = [SETTINGS["layers"][0], llzo, SETTINGS["layers"][2]]
    with pytest.raises(ValueError, match="29 eV apart and do not separate at 145 eV"):
        Settings.from_dict(changed(layers=layers))
    buffer = {"name": "anode", "kind": "metal", "mass_fractions": {"LLZO": 1.0}}
    flagged = Settings.from_dict(changed(layers=[buffer, *SETTINGS["layers"][1:]]))
    assert any("Zr La (2.042 keV) lies on P Ka" in flag for flag in flagged.flags)


def test_layers_that_cannot_be_told_apart_are_refused():
    layers = copy.deepcopy(SETTINGS["layers"])
    layers[1]["normaliser"] = "Co"
    with pytest.raises(ValueError, match="their boundary cannot be seen"):
        Settings.from_dict(changed(layers=layers))


def test_without_a_reference_scan_there_is_nothing_relative():
    model = Model(16, 24, dwell=0.3, blur=6.0, seed=51)
    reducer = IonBeamReducer(SETTINGS_NOW)
    run(reducer, model, 0, "something else", "after", 2)
    result = reducer.result().to_dict()
    assert "no good pass of the reference scan 'as prepared' yet" in result["flags"]
    assert "x" not in result["layers"][-1]["quantities"]


def test_a_scan_that_cannot_be_levelled_says_why():
    model = Model(16, 24, dwell=0.3, seed=52, place=-500.0)  # only cathode in the field
    reducer = IonBeamReducer(SETTINGS_NOW)
    run(reducer, model, 0, "as prepared", "reference", 1)
    result = reducer.result().to_dict()
    assert result["layers"] == []
    assert any("not seen in this order" in flag for flag in result["flags"])


def test_without_beam_charge_the_element_ratio_remains():
    model = Model(16, 24, dwell=0.5, blur=6.0, seed=53)
    model.charge = lambda current=1.0: None
    reducer = IonBeamReducer(SETTINGS_NOW)
    run(reducer, model, 0, "as prepared", "reference", 2)
    run(reducer, model, 1, "after", "after", 2, charge=(0.072, 0.072))
    found = reducer.result().to_dict()["layers"][-1]["quantities"]
    assert not [name for name in found if "charge" in name and name != "soc_charge"]
    assert abs(off(found["soc_beam"], 1.0)) < 3
