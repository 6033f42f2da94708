"""Lithium where the reference had none: found at its rate, never claimed where nothing changed."""

import math

import numpy as np
import pytest

from edge.appearance import appearance
from edge.geometry import Grid
from edge.ion_beam import Events, IonBeamReducer, PassDone, PassStart, ScanStart, Settings
from edge.scan_data import Counters, PassEnd
from edge.uncertainty import Estimate
from tests.edge.ion_beam_model import CONTINUUM, CURRENT_A, RANGE_KEV, RATES, SETTINGS, Model

CLAIMS = 0.00135  # accepted rate of false ones, three sigma of a normal distribution


def counted(rng, signal, background, times=1.0):
    """Window and band of equal width, as a scan of so many times the usual length counts them."""
    gross, band = rng.poisson((signal + background) * times), rng.poisson(background * times)
    return float(gross - band), float(gross + band)


def told(rng, before, now, background, times):
    """What is said of a scan that is ``times`` as long as its reference."""
    (n, var), (then, var_then) = counted(rng, now, background, times), counted(rng, before, background)
    more = Estimate(n - times * then, math.sqrt(var + times**2 * var_then), 0.0, "counts")
    scan, reference = (
        Estimate(v, math.sqrt(max(s, 1.0)), 0.0, "counts") for v, s in ((n, var), (then, var_then))
    )
    return appearance(scan, reference, more)


@pytest.mark.parametrize("background", [3.0, 60.0, 4_000.0])
@pytest.mark.parametrize("times", [1.0, 5.0])
def test_nothing_appears_where_there_is_nothing(background, times):
    rng = np.random.default_rng(21)
    claims = [told(rng, 0.0, 0.0, background, times) is not None for _ in range(6_000)]
    assert np.mean(claims) < 3.0 * CLAIMS


def test_what_a_longer_scan_finds_has_not_appeared():
    """Salt of 20 counts on 100: hidden in the reference, plain in a scan ten times as long, always there."""
    rng = np.random.default_rng(22)
    found = [told(rng, 20.0, 20.0, 100.0, 10.0) for _ in range(4_000)]
    assert np.mean([one is not None for one in found]) < 3.0 * CLAIMS


def test_currie_by_hand():
    """Four paired blanks of 100: the gain is above 3.00 sqrt(4 B) from 60 counts on (Currie 1968, k = 3)."""
    reference = Estimate(0.0, math.sqrt(200.0), 0.0, "counts")

    def gain(net):
        more = Estimate(net, math.sqrt(net + 400.0), 0.0, "counts")
        return appearance(Estimate(net, math.sqrt(net + 200.0), 0.0, "counts"), reference, more)

    threshold = gain(400.0)["threshold"]
    assert 60.0 <= threshold < 60.0 * 1.06, "the background with its upper limit: a little above"
    assert gain(59.0) is None
    assert gain(65.0) is not None
    assert gain(400.0)["sigmas"] == pytest.approx(3.0 * 400.0 / threshold, rel=1e-3)
    assert gain(400.0)["text"].startswith("lithium appeared: 400 ± 24 counts, none in the reference; ")


def test_a_little_salt_in_the_reference_does_not_hide_plating():
    """100 +- 26 counts at first, 1535 +- 134 then: the ratio is 3.4 sigma, the gain 1435 / 131 or so."""
    before, now = Estimate(100.0, 24.0, 10.0, "counts"), Estimate(1535.0, 44.0, 127.0, "counts")
    more = Estimate(1435.0, 50.0, 127.0, "counts")
    found = appearance(now, before, more)
    assert not found["none_before"]
    assert 10.0 < found["sigmas"] < 11.3
    assert "1535 ± 134 counts, 100 ± 26 in the reference" in found["text"]
    assert appearance(now, before, more, "host") is None, "a ratio with x and state of charge says it"
    rich = Estimate(9000.0, 100.0, 60.0, "counts")  # a solid electrolyte, and a tenth more
    tenth = Estimate(900.0, 140.0, 80.0, "counts")
    assert appearance(Estimate(9900.0, 105.0, 60.0, "counts"), rich, tenth) is None


def test_without_the_beam_charge_nothing_is_compared():
    one = Estimate(400.0, 25.0, 0.0, "counts")
    assert appearance(one, Estimate(0.0, 14.0, 0.0, "counts"), None) is None


def scan(reducer, model, number, name, purpose, passes):
    reducer.add(ScanStart(number, name, purpose, Grid(**model.raster())))
    for n in range(1, passes + 1):
        reducer.add(PassStart(number, n))
        counters = {}
        for detector in ("pixe", "pige"):
            _, channel, frame, fast, whole_s = model.one_pass(detector)
            reducer.add(Events(number, n, detector, channel, frame))
            counters[detector] = Counters(channel.size, fast, whole_s, whole_s)
        end = PassEnd(True, "", tuple(range(model.ny)), model.charge(), counters)
        reducer.add(PassDone(number, n, end))


@pytest.fixture(scope="module")
def plated():
    """A separator without lithium; then some is there from the beginning of the charge, then more."""
    model = Model(40, 48, dwell=0.1, blur=3.0, seed=31)
    reducer = IonBeamReducer(Settings.from_dict(SETTINGS))
    for number, (name, purpose, plating, passes) in enumerate(
        (("as prepared", "reference", 0.0, 4), ("charging", "charging", 4.0, 6), ("after", "after", 8.0, 4))
    ):
        model.separator = plating
        scan(reducer, model, number, name, purpose, passes)
    return model, reducer.result().to_dict()


def of(layers, name="separator"):
    return next(layer for layer in layers if layer["name"] == name)


def test_plated_lithium_is_told_with_its_counts(plated):
    """Expected by the rates of the model alone: line in the window, beam times, widths in keV."""
    _, result = plated
    layer = of(result["layers"])
    one = layer["appeared"]
    assert layer["verdict"] == "appeared"
    per_nc = layer["quantities"]["li_per_charge"]
    in_window = math.erf(6.0 / (6.0 / 2.3548) / math.sqrt(2.0))  # +- one FWHM of a Gaussian
    expected = 8.0 * RATES["pige"]["Li"][1] / (CURRENT_A * 1e9) * in_window
    assert abs(per_nc["value"] - expected) < 3 * math.hypot(per_nc["sigma_stat"], per_nc["sigma_sys"])
    charge_nc = one["counts"]["value"] / per_nc["value"]
    seconds = charge_nc / (CURRENT_A * 1e9)
    gain, error = one["gained"]["value"], math.hypot(one["gained"]["sigma_stat"], one["gained"]["sigma_sys"])
    assert abs(gain - expected * charge_nc) < 3 * error
    low, high = RANGE_KEV["pige"]
    background = CONTINUUM["pige"][1] / (high - low) * 12.0 * seconds  # 12 keV of window, 15 keV of band
    blanks = 3.0 * math.sqrt(2.0 * background * (1.0 + 12.0 / 15.0))  # Currie 1968, two equal scans
    assert blanks < one["threshold"] < 2.0 * blanks, "with the errors of place, slope and background"
    assert one["sigmas"] == pytest.approx(3.0 * one["gained"]["value"] / one["threshold"], rel=1e-3)
    assert one["sigmas"] > 5.0


def test_when_it_was_first_seen(plated):
    _, result = plated
    first = of(result["layers"])["appeared"]["first"]
    assert first["scan"] == "charging"
    assert first["passes"][1] < 6, "in a part of that scan"


def test_nothing_of_it_is_a_ratio_or_a_state_of_charge(plated):
    _, result = plated
    layer = of(result["layers"])
    assert {"li_relative", "li_relative_charge"} <= set(layer["undetected"])
    assert not {"x", "soc_beam"} & set(layer["quantities"])


def test_the_other_layers_say_nothing_of_it(plated):
    _, result = plated
    assert of(result["layers"], "anode")["appeared"] is None
    assert of(result["layers"], "cathode")["appeared"] is None
    assert of(result["scans"][0]["layers"])["appeared"] is None, "the reference itself"
