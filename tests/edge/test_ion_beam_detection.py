"""No false positives: lines that are not there are 'not detected', lines that are there are found."""

import numpy as np
import pytest

from edge.ion_beam_detection import ALPHA, decide_line, decisions, missing
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
