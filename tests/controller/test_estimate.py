import math
from pathlib import Path

import pytest

from controller.config import check_files
from controller.estimate import estimate

ROOT = Path(__file__).parents[2]
STATION = Path(__file__).parent / "config" / "station.toml"  # 3 lithium counts per second on the host layer
EXPERIMENTS = ROOT / "hil_tests" / "experiments"


@pytest.fixture(scope="module")
def quickstart():
    return estimate(*check_files(STATION, EXPERIMENTS / "quickstart.toml"), speed=60.0)


@pytest.fixture(scope="module")
def moeller():
    return estimate(*check_files(STATION, EXPERIMENTS / "moeller2021.toml"))


def small(tmp_path, *pairs, station=()):
    """Return the estimate of the small test experiment, changed here and there."""
    text = (STATION.parent / "experiment.toml").read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    bench = STATION.read_text()
    for old, new in station:
        assert old in bench
        bench = bench.replace(old, new)
    (tmp_path / "experiment.toml").write_text(text)
    (tmp_path / "station.toml").write_text(bench)
    return estimate(*check_files(tmp_path / "station.toml", tmp_path / "experiment.toml"))


def test_quickstart_takes_about_ninety_seconds_and_shows_its_change(quickstart):
    assert 80.0 * 60.0 <= quickstart.expected_s <= 95.0 * 60.0
    assert quickstart.wall_s < 100.0
    (change,) = quickstart.changes
    assert change.expected_soc == pytest.approx(10.3 / 20.0)
    assert change.resolved
    assert change.significance > 5.0
    text = "\n".join(quickstart.lines())
    assert "the planned change of 52 % will be seen" in text
    assert "on the wall at speed 60" in text


def test_moeller_says_that_three_per_cent_cannot_be_seen(moeller):
    (change,) = moeller.changes
    assert change.expected_soc == pytest.approx(
        29.7e-6 / 0.95e-3
    )  # 3.1 %, not the 31 % that the paper prints
    assert not change.resolved
    assert change.detectable_soc > 2 * change.expected_soc
    # science notes: "a 3 sigma proof of 3.1 % needs about 150 000 counts per element and scan"
    assert 140_000 < change.counts_needed < 170_000
    text = "\n".join(moeller.lines())
    assert "the planned change of 3.1 % is NOT resolvable with these counts" in text
    assert "a 3 sigma proof of 3.1 % needs about 160 000 counts per element and scan" in text
    assert 6 * 3600 < moeller.expected_s < moeller.longest_s < 9 * 3600


def test_the_operando_scan_of_the_paper_had_about_4600_lithium_counts(moeller):
    counts = next(scan.counts["cathode"] for scan in moeller.scans if scan.purpose == "reference")
    assert 4000 < counts["Li"] < 8000
    assert counts["Co"] / counts["Li"] == pytest.approx(13.1)


def test_numbers_by_hand(tmp_path):
    found = small(
        tmp_path,
        ('normaliser = "Co"', 'normaliser = "Co"\nin_field = "50 %"'),
        ('duration = "60 s"', 'duration = "60 s"\n[[step]]\ndo = "scan"\nname = "after"\nraster = { pixels = '
         '[64, 64], size = ["100 um", "300 um"], dwell = "30 ms" }\nuntil = { passes = 8 }\ntimeout = "1 '
         'h"\n'),
    )  # fmt: skip
    reference, charging, after = found.scans
    assert (reference.purpose, charging.purpose, after.purpose) == ("reference", "charging", "after")
    beam_s = 4 * 64 * 64 * 0.03
    assert reference.beam_s == pytest.approx(beam_s)
    full = 3.0 * 0.5 * beam_s  # rate, share of the field, time
    assert reference.counts == {"cathode": {"Li": pytest.approx(full), "Co": pytest.approx(13.1 * full)}}
    # half of the charge at the end; the table falls by about 0.96 per unit of x, x by 0.25
    slope = 0.5 * 0.96  # least squares by hand: 0.168 / 0.175
    assert after.soc == pytest.approx(0.5)
    assert charging.soc == pytest.approx(0.25)
    assert after.counts["cathode"]["Li"] == pytest.approx(2 * full * (1.0 - 0.5 * slope), rel=1e-4)
    (change,) = found.changes
    now = 2 * full * (1.0 - 0.5 * slope)
    variance = 1 / full + 1 / now + 1 / (13.1 * full) + 1 / (2 * 13.1 * full)
    assert change.sigma_soc == pytest.approx(math.sqrt(variance) / slope, rel=1e-4)
    # equal counts N of both elements in both scans: 4 / N = (slope * change / 3)^2
    assert change.counts_needed == pytest.approx(4.0 / (slope * 0.5 / 3.0) ** 2, rel=1e-4)
    assert change.lithium_needed == pytest.approx(change.counts_needed / 2 * (1 + 1 / 13.1), rel=1e-6)
    assert change.hours_needed == pytest.approx(change.lithium_needed / 1.5 / 3600.0)
    assert reference.protons_per_pixel == pytest.approx(24e-12 * 0.03 * 4 / 1.602176634e-19)


def test_the_continuum_under_the_line_costs_significance(tmp_path):
    bare = small(tmp_path).changes[0]
    rates = ('lithium = "3 /s"', 'lithium = "3 /s", lithium_background = "1.5 /s"')
    loaded = small(tmp_path, station=(rates,)).changes[0]
    assert loaded.sigma_soc > 1.2 * bare.sigma_soc
    # beta = 1.5 / 3 * (1 + 0.8): the lithium needed grows from 1 + 1/13.1 to 1 + 0.9 + 1/13.1
    assert loaded.lithium_needed / bare.lithium_needed == pytest.approx((1.9 + 1 / 13.1) / (1.0 + 1 / 13.1))
    assert any("no continuum" in note for note in small(tmp_path).notes)
    assert not any("no continuum" in note for note in small(tmp_path, station=(rates,)).notes)


def test_without_a_scan_afterwards_the_end_of_the_charge_counts(tmp_path):
    found = small(tmp_path)
    (change,) = found.changes
    charging = found.scans[1]
    assert change.expected_soc == pytest.approx(0.5)
    assert change.counts_now == pytest.approx(0.2 * charging.beam_s * 1.0 * (1 - 0.5 * 0.5 * 0.96), rel=1e-3)


def test_a_normaliser_whose_rate_is_unknown(tmp_path):
    found = small(tmp_path, ('normaliser = "Co"', 'normaliser = "Fe"'), ('element = "Co"', 'element = "Fe"'))
    assert "Fe counts like lithium: its rate is not known beforehand" in found.notes
    assert set(found.scans[0].counts["cathode"]) == {"Li"}


def test_no_charge_no_change(tmp_path):
    charge = (
        (STATION.parent / "experiment.toml")
        .read_text()
        .partition('do = "charge"')[2]
        .partition("[[step.step]]")
    )
    found = small(tmp_path, ('do = "charge"' + charge[0], 'do = "rest"\nduration = "1 h"\n'))
    assert found.changes == ()
    assert found.scans[1].beam_s > 3000.0


def test_dose_and_disk(moeller, quickstart):
    # 24 pA on 450 x 450 um2; between 3 and 7 h of scans lie on top of each other
    per_hour = 24e-12 / 1.602176634e-19 * 3600.0 / (0.045 * 0.045)
    assert 3.0 * per_hour < moeller.dose_per_cm2 < 7.0 * per_hour
    assert moeller.dose_gray / 1e6 == pytest.approx(moeller.dose_per_cm2 * 110.0 * 1.602176634e-10 / 1e6)
    # raw words alone: 1100 events per second for the time of beam, 4 bytes each
    beam_s = sum(scan.beam_s for scan in quickstart.scans)
    assert 4 * 1100 * beam_s < quickstart.disk_bytes < 4 * 4 * 1100 * beam_s


def test_disk_by_hand(tmp_path):
    found = small(tmp_path)
    beam_s = sum(scan.beam_s for scan in found.scans)
    passes = sum(scan.passes for scan in found.scans)
    words = beam_s * (600.0 + 500.0 + 2 * 1e6 / 65536.0) + 2 * passes * 64 * 65
    maps = passes * 64 * 64 * 16 * 3
    readings = found.expected_s * (1 / 0.25 + 1 / 1.0 + 1 / 0.1)  # heater, cell, box
    assert found.disk_bytes == pytest.approx(4 * words + maps + 160 * readings)


def test_dose_of_the_science_note(tmp_path):
    # 24 pA x 1.5 h on 50 x 300 um2 is about 5e15 protons per cm2, of order 100 MGy
    found = small(
        tmp_path,
        ('until = { passes = 4 }\ntimeout = "30 min"', 'until = { duration = "1.5 h" }\ntimeout = "1.5 h"'),
        ('size = ["100 um", "300 um"]', 'size = ["50 um", "300 um"]'),
        ('charge = "10 uAh" }\ntimeout = "3 h"', 'charge = "10 uAh" }\ntimeout = "2 h"'),
        ('duration = "2 h"', 'duration = "1 min"'),
    )
    assert found.dose_per_cm2 == pytest.approx(5.4e15, rel=0.02)
    assert 5e7 < found.dose_gray < 2e8


def test_for_machines(quickstart):
    told = quickstart.as_dict()
    assert told["wall_s"] == pytest.approx(told["expected_s"] / 60.0)
    assert told["changes"][0]["resolved"] is True
    assert told["steps"][0]["name"] == "as prepared"
    assert {"key": "step[1]", "do": "ocv"}.items() <= told["steps"][1].items()
    assert told["scans"][0]["counts"]["cathode"]["Li"] > 1000


def test_for_people(quickstart):
    lines = quickstart.lines()
    assert lines[0].startswith("duration: about 1.4")
    assert "longest step: step[4] parallel" in lines[0]
    assert any(
        line.startswith('scan "as prepared" (reference): 4.0 passes, 15 min of beam') for line in lines
    )
    assert any(line.startswith("time of a pass goes into: beam (8") for line in lines)
    assert any(line.startswith("assumed: heating begins at 298 K") for line in lines)


def test_speed_costs_lab_time_between_passes():
    files = check_files(STATION, EXPERIMENTS / "quickstart.toml")
    assert estimate(*files, speed=60.0).expected_s > estimate(*files).expected_s


def test_the_estimate_needs_neither_numba_nor_the_reduction():
    import subprocess
    import sys

    code = (
        "import sys, controller.estimate; sys.exit(any(m in sys.modules for m in ('numba', 'edge', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
