"""Measured gamma spectra: the reference values of tests/data/gamma, and the 477.6 keV decision."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from drivers.files import any_file, ortec_spe
from drivers.files.recordings import RecordedEvents
from edge.calibration import EnergyScale
from edge.gamma import GammaResult, reduce_germanium
from edge.gamma_be7 import Be7Result, find_be7, fit_efficiency, predict_shares
from edge.gamma_broad import reduce_broad
from edge.gamma_lines import BE7, BROAD_SETS, COMPTON_EDGE_CS137_KEV, INTERFERENCES, LINES, line
from edge.peaks import fit_templates, gaussian
from tests.data_sets import GPL, need, reference

REFERENCE = reference("gamma")
GERMANIUM = (
    "soil_be7_ucb009.Spe", "soil_no_be7_ucb016.Spe", "cave_background_2017.spe", "eu152_7cm.Spe",
)  # fmt: skip
EVERY_LINE = [(file, name) for file in GERMANIUM for name in REFERENCE[file]["lines"]]


@cache
def counts_of(file: str) -> np.ndarray:
    return ortec_spe.read(need(f"gamma/{file}", "all lines")).counts


@cache
def reduced(file: str) -> GammaResult:
    spectrum = ortec_spe.read(need(f"gamma/{file}", "all lines"))
    assert spectrum.energy_kev is not None
    return reduce_germanium(spectrum.counts, EnergyScale(spectrum.energy_kev, spectrum.centre))


@cache
def be7(file: str) -> Be7Result:
    return find_be7(counts_of(file), reduced(file))


def measured(file: str, name: str):
    """Return our line for a reference name such as "Pb-214 351.9"."""
    nuclide, energy = name.split()
    near = [m for m in reduced(file).lines if abs(m.line.energy_kev - float(energy)) < 0.5]
    return next(m for m in near if m.line.nuclide == nuclide)


@pytest.mark.parametrize(("file", "name"), EVERY_LINE)
def test_centroid_fwhm_and_area_of_the_reference(file: str, name: str):
    """The reference fits one Gaussian on a line with data weights and quotes statistical errors only."""
    ours, theirs = measured(file, name), REFERENCE[file]["lines"][name]
    assert ours.alone is not None
    gain = ours.fwhm_kev / ours.fit.peaks[0].fwhm
    recorded = float(reduced(file).recorded.energy_kev(ours.alone.centroid))
    assert abs(recorded - theirs["centroid_keV"]) < theirs["centroid_err"] + 0.001  # printed to 1 eV
    assert abs(ours.alone.area - theirs["net_area"]) < theirs["net_area_err"]
    assert ours.alone.area_sigma == pytest.approx(theirs["net_area_err"], rel=0.03)
    fwhm_error = max(0.02 * theirs["fwhm_keV"], ours.alone.fwhm_sigma * gain)
    assert abs(ours.alone.fwhm * gain - theirs["fwhm_keV"]) < fwhm_error


@pytest.mark.parametrize(("file", "name"), EVERY_LINE)
def test_with_neighbours_the_area_agrees_within_its_own_errors(file: str, name: str):
    ours, theirs = measured(file, name), REFERENCE[file]["lines"][name]
    sigma = math.hypot(ours.area_sigma_stat, ours.area_sigma_sys, theirs["net_area_err"])
    assert abs(ours.area - theirs["net_area"]) < 1.5 * sigma


@pytest.mark.parametrize(
    ("file", "source"), [(f, "Eu-152" if f.startswith("eu") else "natural") for f in GERMANIUM]
)
def test_the_source_is_recognised_and_totals_and_range_are_those_of_the_reference(file: str, source: str):
    assert reduced(file).source == source
    assert counts_of(file).sum() == REFERENCE[file]["total_counts"]
    assert counts_of(file).size == REFERENCE[file]["channels"]
    span = reduced(file).recorded.range_kev(counts_of(file).size)
    assert span == pytest.approx(REFERENCE[file]["energy_first_last_keV"], abs=0.001)


def test_eu152_recalibration_is_below_a_tenth_of_a_kev_with_covariance():
    fit = reduced("eu152_7cm.Spe").corrected
    assert len(fit.residuals_kev) == 7
    assert np.abs(fit.residuals_kev).max() < 0.1
    assert fit.scale.covariance is not None
    assert np.all(
        np.linalg.eigvalsh(fit.scale.covariance / np.outer(*[np.sqrt(np.diag(fit.scale.covariance))] * 2)) > 0
    )
    assert np.all(fit.scale.gain_kev(np.arange(16384)) > 0)  # rises everywhere
    recorded = np.array([m.recorded_kev - m.line.energy_kev for m in reduced("eu152_7cm.Spe").calibration])
    assert recorded.max() > 1.0  # what the file's own calibration is off


@pytest.mark.parametrize("file", GERMANIUM[:3])
def test_the_soil_and_cave_scales_are_corrected_with_their_own_lines(file: str):
    result = reduced(file)
    assert len(result.calibration) == 9
    for m in result.calibration:
        total = math.hypot(m.centroid_sigma_kev, m.energy_sigma_sys_kev)
        assert abs(m.energy_kev - m.line.energy_kev) < 4 * total
    potassium = next(m for m in result.lines if m.line.nuclide == "K-40")
    assert abs(potassium.energy_kev - 1460.820) < 0.05
    assert abs(potassium.recorded_kev - 1460.820) > 0.2  # recorded: off by -0.76, -0.22 and +0.67 keV


# --- the 477.6 keV line ----------------------------------------------------------------------------------


def test_be7_is_found_in_the_soil_that_has_it():
    d = be7("soil_be7_ucb009.Spe").decision
    assert d.detected
    assert d.value > 10 * d.sigma
    assert d.value == pytest.approx(660, abs=2 * d.sigma)
    assert d.threshold < d.detection_limit < d.value < d.upper_limit


@pytest.mark.parametrize("file", ["soil_no_be7_ucb016.Spe", "cave_background_2017.spe"])
def test_be7_is_not_claimed_where_it_is_not(file: str):
    d = be7(file).decision
    assert not d.detected
    assert 0 < d.threshold < d.detection_limit < math.inf
    assert max(d.value, 0) < d.upper_limit


def test_the_weak_structure_of_the_reference_is_seen_before_the_subtraction():
    """Reference: 140 +- 44 counts at 477.25 keV (recorded), FWHM 1.2 keV fixed, nothing subtracted."""
    file = "soil_no_be7_ucb016.Spe"
    scale = reduced(file).recorded
    low, high = (round(scale.channel(477.25 + half, 8192)) for half in (-7, 7))
    x = np.arange(low, high + 1.0)
    gain = float(scale.gain_kev(x.mean()))
    bump = gaussian(x, scale.channel(477.25, 8192), 1.2 / gain)
    fit = fit_templates(counts_of(file)[low : high + 1], np.stack([bump, np.ones_like(x), x - x.mean()]))
    theirs = REFERENCE[file]["Be-7 477.6 (position and width fixed)"]
    assert abs(fit.amplitudes[0] - theirs["net_area"]) < theirs["net_area_err"]
    assert math.sqrt(fit.covariance[0, 0]) == pytest.approx(theirs["net_area_err"], rel=0.05)
    assert be7(file).decision.value < fit.amplitudes[0]  # part of it was Ac-228


def test_the_ac228_share_follows_from_911_kev_by_hand():
    """478.33/911.204 keV: 0.209/25.8 by intensity; the relative efficiency is near (911/478)^0.65 here."""
    result = be7("soil_be7_ucb009.Spe")
    share = result.shares[0]
    assert (share.line.energy_kev, share.reference.energy_kev) == (478.33, 911.204)
    area = next(m.area for m in reduced("soil_be7_ucb009.Spe").lines if m.line == share.reference)
    ratio = result.efficiency.ratio(478.33, 911.204)[0]
    assert share.area == pytest.approx(area * 0.209 / 25.8 * ratio)
    assert ratio == pytest.approx((911.204 / 478.33) ** 0.65, rel=0.08)
    # branching: 0.015 / 0.209 and 0.4 / 25.8, efficiency a few percent
    assert share.sigma_sys / share.area == pytest.approx(math.hypot(0.072, 0.0155, 0.026), rel=0.1)
    assert share.sigma_stat / share.area == pytest.approx(85 / 5991, rel=0.05)


def test_the_efficiency_ratio_agrees_with_the_two_lines_of_ac228_alone():
    """463.0 and 911.2 keV of one nuclide give it directly, without any curve."""
    for file in ("soil_be7_ucb009.Spe", "soil_no_be7_ucb016.Spe"):
        lines = {m.line.name: m for m in reduced(file).lines}
        low, high = lines["Ac-228 463.0"], lines["Ac-228 911.2"]
        direct = (low.area / 4.40) / (high.area / 25.8)
        error = direct * math.hypot(low.area_sigma_stat / low.area, 0.07 / 4.40, 0.4 / 25.8)
        curve = be7(file).efficiency
        assert abs(curve.ratio(463.004, 911.204)[0] - direct) < 2 * math.hypot(
            error, curve.ratio_sigma(463.004, 911.204), curve.scatter * direct
        )


def test_every_part_of_the_uncertainty_is_in_the_decision():
    r = be7("soil_no_be7_ucb016.Spe")
    counting = ("counting of this region", "counting of the reference lines")
    stat = math.hypot(*(r.budget[name] for name in counting))
    rest = math.hypot(*(value for name, value in r.budget.items() if name not in counting))
    assert r.decision.sigma_stat == pytest.approx(stat)
    assert r.decision.sigma_sys == pytest.approx(rest)
    assert r.budget["branching ratios and efficiency"] > 2
    assert r.decision.variance_at_zero > r.budget["background"] ** 2


def test_neighbours_of_one_nuclide_are_correlated():
    lines = reduced("soil_be7_ucb009.Spe").lines
    shares, stat, sys = predict_shares(lines, fit_efficiency(lines))
    names = [share.line.name for share in shares]
    a, b, c = names.index("Ac-228 478.3"), names.index("Ac-228 474.8"), names.index("Pb-214 480.4")
    assert stat[a, b] == pytest.approx(shares[a].sigma_stat * shares[b].sigma_stat)
    assert stat[a, c] == pytest.approx(0.0)
    assert sys[a, a] == pytest.approx(shares[a].sigma_sys ** 2)
    assert np.all(np.linalg.eigvalsh(stat + sys) > -1e-9)


@pytest.mark.slow
def test_false_claims_and_pulls_over_drawn_regions():
    """The region of the soil without the line is drawn again 3200 times from its fit, without and with it."""
    file = "soil_no_be7_ucb016.Spe"
    r = be7(file)
    part = slice(r.first, r.first + r.counts.size)
    rng = np.random.default_rng(478)
    shapes = np.stack([
        r.line / r.decision.value, np.ones_like(r.counts), r.energies_kev - r.energies_kev.mean()
    ])  # fmt: skip
    for true, rate in ((0.0, r.decision.alpha), (r.decision.detection_limit, 0.95)):
        mean = r.continuum + r.neighbours + true * shapes[0]
        pulls, claims = [], 0
        for _ in range(3200):
            fit = fit_templates(rng.poisson(mean), shapes, offset=r.neighbours)
            pulls.append((fit.amplitudes[0] - true) / math.sqrt(fit.covariance[0, 0]))
            claims += fit.amplitudes[0] > r.decision.threshold
        assert 0.95 < np.std(pulls) < 1.05
        assert abs(np.mean(pulls)) < 0.1
        # the threshold also holds systematic errors, which are not drawn here: at most the stated rates
        assert claims / 3200 <= 0.003 if true == 0 else claims / 3200 >= rate - 0.01
    counts = counts_of(file).copy()
    counts[part] = rng.poisson(r.continuum + r.neighbours + 2 * r.decision.detection_limit * shapes[0])
    assert find_be7(counts, reduced(file)).decision.detected


def test_where_the_neighbours_cannot_be_predicted_nothing_is_decided():
    with pytest.raises(ValueError, match="too few for an efficiency"):
        find_be7(counts_of("eu152_7cm.Spe"), reduced("eu152_7cm.Spe"))


def test_the_data_of_the_lines_are_those_of_ensdf():
    assert (BE7.energy_kev, BE7.intensity) == (477.6035, 10.44)
    assert line("Ac-228", 478.3).intensity == 0.209
    assert line("Ac-228", 911.2).intensity == 25.8
    mc2, energy = 510.999, 661.657
    assert pytest.approx(2 * energy**2 / (mc2 + 2 * energy), abs=0.02) == COMPTON_EDGE_CS137_KEV
    assert len({(entry.nuclide, entry.energy_kev) for entry in LINES}) == len(LINES)
    assert all(weak.nuclide == strong.nuclide for weak, strong in INTERFERENCES)
    with pytest.raises(ValueError, match="no line"):
        line("Ac-228", 500.0)


def test_unknown_or_empty_spectra_are_refused():
    scale = EnergyScale((0.0, 0.38))
    with pytest.raises(ValueError, match="empty"):
        reduce_germanium(np.zeros(8192), scale)
    flat = np.random.default_rng(1).poisson(100, 8192)
    with pytest.raises(ValueError, match="no known set"):
        reduce_germanium(flat, scale)
    with pytest.raises(ValueError, match="unknown source"):
        reduce_germanium(flat, scale, source="moon dust")


# --- scintillators ---------------------------------------------------------------------------------------


def test_csi_lines_are_found_without_a_calibration():
    counts = counts_of("csi_ba133_cs137.spe")
    assert counts.sum() == 166_239
    result = reduce_broad(counts)
    assert result.source == "Ba-133 + Cs-137"
    found = {one.line.name: one for one in result.lines}
    for name, known in (("Ba-133 81.0", 81.0), ("Ba-133 356.0", 356.0), ("Cs-137 661.7", 661.7)):
        assert abs(found[name].energy_kev - known) < 0.5 * found[name].fwhm_kev
        assert found[name].significance > 10


def test_nai_potassium_is_the_strongest_line_above_one_mev_and_predicted_by_the_others():
    counts = counts_of("nai_background.spe")
    assert counts.sum() == 398_163
    result = reduce_broad(counts)
    assert result.source == "natural"
    above = [one for one in result.lines if one.energy_kev > 1000]
    strongest = max(above, key=lambda one: one.area)
    assert strongest.line.name == "K-40 1460.8"
    assert abs(strongest.predicted_kev - 1460.8) < 0.5 * strongest.fwhm_kev
    assert abs(strongest.energy_kev - 1460.8) < 0.3 * strongest.fwhm_kev


def test_a_scintillator_spectrum_without_a_pattern_is_refused():
    with pytest.raises(ValueError, match="empty"):
        reduce_broad(np.zeros(1000))
    with pytest.raises(ValueError, match="no known pattern"):
        reduce_broad(np.random.default_rng(2).poisson(50, 1000))
    with pytest.raises(ValueError, match="unknown source"):
        reduce_broad(np.ones(1000), source="moon dust")


@pytest.mark.parametrize(
    ("file", "source"), [("nai_background.spe", "natural"), ("csi_ba133_cs137.spe", "Ba-133 + Cs-137")]
)
def test_a_few_counts_more_or_less_do_not_change_what_a_scintillator_shows(file: str, source: str):
    """Once a single count below the discriminator moved the start of the search, and a fit was refused."""
    counts, rng = counts_of(file), np.random.default_rng(5)
    changed = []
    for channel, more in [(5, 3), (0, 1), (*rng.integers(0, counts.size, 1), 2)]:
        changed.append(counts.copy())
        changed[-1][channel] += more
    changed.append(rng.binomial(counts, 0.98))
    changed.append(counts + rng.poisson(0.02 * counts))
    changed.append(counts + rng.poisson(0.01, counts.size))
    for y in changed:
        result = reduce_broad(y)
        assert result.source == source
        required = BROAD_SETS[source][0]
        assert {one.line for one in result.lines} >= set(required)
        for one in result.lines:
            assert abs(one.energy_kev - one.line.energy_kev) < 0.6 * one.fwhm_kev


# --- list mode -------------------------------------------------------------------------------------------


def test_ba133_list_mode_peaks_are_where_the_reference_has_them():
    """The peaks are broad and skewed (reference chi2 6 to 68 per degree), so ours carry a large error."""
    recording = any_file.read(need("gamma/ba133_listmode.Lis", "Ba-133 peaks", GPL))
    assert isinstance(recording, RecordedEvents)
    spectrum = recording.spectrum()
    result = reduce_germanium(spectrum.counts, EnergyScale(spectrum.energy_kev or (), spectrum.centre))
    theirs = REFERENCE["ba133_listmode.Lis"]["peaks_in_channels"]
    assert result.source == "Ba-133"
    assert len(result.lines) == len(theirs) == 5
    for ours, (name, peak) in zip(result.lines, theirs.items(), strict=True):
        assert abs(ours.line.energy_kev - float(name)) < 0.1
        gain = ours.fwhm_kev / ours.fit.peaks[0].fwhm
        sigma = ours.centroid_sigma_sys_kev / gain
        assert abs(ours.channel - peak["centroid_channel"]) < max(3 * sigma, 0.1 * peak["fwhm_channels"])
    for channel, ours in zip((219.5, 828.5, 974.8), (result.lines[i] for i in (0, 2, 3)), strict=True):
        assert ours.channel == pytest.approx(channel, abs=0.5)
