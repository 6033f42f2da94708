"""No false positives: lines that are not there are 'not detected', lines that are there are found."""

import numpy as np
import pytest

from edge.ion_beam_detection import ALPHA, decide_line, decisions, missing, undetected
from edge.uncertainty import Estimate


def estimates(rng, signal, background, draws):
    """Window and band of equal width, as a run counts them."""
    gross, band = rng.poisson(signal + background, draws), rng.poisson(background, draws)
    return [
        Estimate(float(g - b), float(np.sqrt(max(g, 1) + b)), 0.0, "counts")
        for g, b in zip(gross, band, strict=True)
    ]


@pytest.mark.parametrize("background", [3.0, 60.0, 4_000.0])
def test_false_alarms_at_few_medium_and_many_counts(background):
    """Without a line: claims at the stated rate; a little more at three counts, where nothing is Gaussian."""
    rng = np.random.default_rng(12)
    claims = [decide_line("P", e).decision.detected for e in estimates(rng, 0.0, background, 20_000)]
    assert np.mean(claims) < (3.0 if background > 10 else 4.0) * ALPHA


@pytest.mark.parametrize("background", [60.0, 4_000.0])
def test_a_line_at_the_detection_limit_is_missed_at_rate_beta(background):
    rng = np.random.default_rng(13)
    limit = decide_line("P", Estimate(0.0, np.sqrt(2 * background), 0.0, "counts")).decision.detection_limit
    found = [decide_line("P", e).decision.detected for e in estimates(rng, limit, background, 20_000)]
    assert 0.01 < 1.0 - np.mean(found) < 0.08


def test_the_upper_limit_covers_what_is_there():
    rng = np.random.default_rng(14)
    limits = [decide_line("P", e).decision.upper_limit for e in estimates(rng, 8.0, 60.0, 20_000)]
    assert np.mean(np.array(limits) > 8.0) > 0.95


def test_currie():
    """Paired blanks of 100 counts at 5 %: L_C = 2.33 sqrt(B), L_D = 4.65 sqrt(B) + 2.71 (Currie 1968)."""
    from edge.detection import decide

    d = decide(0.0, np.sqrt(200.0), 0.0, 200.0, 1.0, alpha=0.05, beta=0.05)
    assert d.threshold == pytest.approx(2.33 * 10, rel=0.002)
    assert d.detection_limit == pytest.approx(2.71 + 4.65 * 10, rel=0.002)


def test_words():
    quantities = {
        "li_counts": Estimate(12.0, 9.0, 2.0, "counts"),
        "co_counts": Estimate(5_000.0, 80.0, 30.0, "counts"),
        "p_counts": Estimate(float("nan"), 1.0, 0.0, "counts"),
        "li_per_charge": Estimate(1.0, 1.0, 0.0, "1/nC"),
    }
    found = decisions(quantities)
    assert set(found) == {"Li", "Co"}
    assert found["Co"].text == "Co detected, 5000 +- 85 counts"
    assert found["Li"].text.startswith("Li not detected, < ")
    assert found["Li"].to_dict()["upper_limit"] > 12.0
    (sentence,) = missing(found, ("Li", "Co", "Zr"))
    assert sentence.startswith("Li not detected, < ")


def told(seen, **quantities):
    detection = {element: {"detected": found} for element, found in seen.items()}
    plain = {n: {"value": v, "sigma_stat": s, "sigma_sys": 0.0} for n, (v, s) in quantities.items()}
    return {"detection": detection, "quantities": plain}


def test_a_ratio_to_a_line_that_is_not_there_is_no_number():
    layer = told({"Li": True, "P": True}, li_relative=(37.0, 22.0), li_counts=(50.0, 9.0))
    before = told({"Li": False, "P": True})["detection"]
    lost = undetected(layer, before, "P")
    assert lost == {"li_relative": {"text": "Li not detected in the reference", "upper_limit": None}}
    assert undetected(layer, told({"Li": True, "P": True})["detection"], "P") == {}
    gone = undetected(told({"Li": True, "P": False}, li_relative=(3.0, 9.0)), {}, "P")
    assert gone["li_relative"] == {"text": "P not detected", "upper_limit": None}
    charge = undetected(told({"Li": True, "P": False}, li_relative_charge=(3.0, 9.0)), {}, "P")
    assert charge == {}  # nothing is divided by P there


def test_lithium_that_is_gone_has_an_upper_limit():
    """97.5 % of a Gaussian cut at zero, by hand: 0.1 + 0.2 k, Phi(k) = 1 - 0.025 Phi(0.5)."""
    layer = told({"Li": False, "Co": True}, li_relative=(0.1, 0.2), x=(0.2, 0.1), soc_charge=(0.5, 0.1))
    lost = undetected(layer, told({"Li": True, "Co": True})["detection"], "Co")
    assert lost["li_relative"]["upper_limit"] == pytest.approx(0.1 + 0.2 * 2.1128, abs=1e-3)
    assert lost["x"] == {"text": "Li not detected", "upper_limit": None}
    assert "soc_charge" not in lost
