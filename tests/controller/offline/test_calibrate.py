"""``operando calibrate``: from a file or a run to the table that a station file takes."""

import hashlib
import json
import tomllib

import cbor2
import numpy as np
import pytest

from controller.config.instruments.amptek import EnergyScale
from controller.offline.calibrate import main
from drivers.files import any_file
from tests.data_sets import need


@pytest.fixture
def run(tmp_path):
    """A run's folder with a reference scan and a calibrate step whose detector saw a europium source."""
    counts = any_file.read(need("gamma/eu152_7cm.Spe", "the energy scale"))[0].counts
    products = tmp_path / "20260101-000000-test" / "products"
    products.mkdir(parents=True)
    for scan, purpose, values in ((1, "reference", np.zeros(counts.size)), (2, "calibrate", counts)):
        fields = {
            "name": purpose, "purpose": purpose, "scan": scan, "detector": "pige",
            "energy_kev": [float(e) for e in 0.2 + 0.183 * np.arange(counts.size)],
            "values": [int(value) for value in values],
        }  # fmt: skip
        (products / f"scan{scan:03d}_spectrum_pige_0001.cbor").write_bytes(cbor2.dumps(fields))
    return products.parent


def test_a_file_gives_the_table_of_a_station(tmp_path, capsys):
    source, out = need("gamma/eu152_7cm.Spe", "the energy scale"), tmp_path / "out"
    assert main([str(source), "--lines", "Eu-152", "--out", str(out), "--device", "pige"]) == 0
    text = capsys.readouterr().out
    assert "7 lines found" in text
    assert "offset 8.4" in text
    table = tomllib.loads((out / "energy.toml").read_text())["device"]["pige"]["energy"]
    scale = EnergyScale.model_validate(table)  # as the station file takes it
    told = json.loads((out / "calibration.json").read_text())
    assert scale.gain_kev == pytest.approx(told["gain_kev"], rel=1e-7)
    assert scale.measured.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert scale.measured.on.isoformat() == "2018-09-13"  # the day of the measurement, from the file
    assert "measured" not in scale.model_dump()  # drivers get offset and gain, as before
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_gives_the_spectrum_of_its_calibrate_steps(run, tmp_path, capsys):
    assert main([str(run), "--lines", "Eu-152", "--out", str(tmp_path / "out")]) == 0
    assert "20260101-000000-test: calibrate: 7 lines found" in capsys.readouterr().out
    table = tomllib.loads((tmp_path / "out" / "energy.toml").read_text())
    assert list(table["device"]) == ["pige"]
    assert table["device"]["pige"]["energy"]["gain"].startswith("182.90")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--detector", "pixe"], "has no spectra of pixe: there are pige"),
        (["--scan", "later"], "has no scan later: there are reference, calibrate"),
        (["--near", "0.37"], "two numbers in keV, such as --near 0,0.37"),
        (["--lines", "Li"], "decays in flight"),
    ],
)
def test_wrong_words_are_refused_and_nothing_is_left(run, tmp_path, capsys, words, says):
    assert main([str(run), "--lines", "Eu-152", "--out", str(tmp_path / "out"), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "energy.toml").write_text("mine")
    assert main([str(run), "--lines", "Eu-152", "--out", str(tmp_path / "out")]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "out" / "energy.toml").read_text() == "mine"


def test_a_spectrum_that_does_not_tell_is_refused(tmp_path, capsys):
    assert (
        main(
            [
                str(need("xrf/steel.spe", "the energy scale")),
                "--lines",
                "Cr,Fe,Ni",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "name more lines, or say the rough calibration (--near OFFSET,GAIN)" in capsys.readouterr().err
