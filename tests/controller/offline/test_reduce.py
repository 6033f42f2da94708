"""``operando reduce`` as a person or a script calls it: output, files, exit codes, wrong input."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from controller.offline import reduce
from controller.offline.values import parse_energy, pm, quantity, table
from tests.data_sets import GPL, need, reference

SOIL, CONTROL, CAVE = (
    f"gamma/{name}" for name in ("soil_be7_ucb009.Spe", "soil_no_be7_ucb016.Spe", "cave_background_2017.spe")
)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = reduce.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def result(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["schema"] == "operando/reduce/1"
    assert document["not_reduced"] == []
    return document


def quantities(node: object) -> list[dict]:
    if isinstance(node, dict):
        own = [node] if {"value", "sigma_stat"} <= set(node) else []
        return own + [q for child in node.values() for q in quantities(child)]
    return [q for child in node for q in quantities(child)] if isinstance(node, list) else []


def test_the_three_natural_spectra_as_json(capsys):
    document = result(capsys, "gamma", need(SOIL, "soil"), need(CONTROL, "soil"), need(CAVE, "cave"))
    soil, control, cave = document["files"]
    assert [entry["be7"]["detected"] for entry in (soil, control, cave)] == [True, False, False]
    for entry in (soil, control, cave):
        be7 = entry["be7"]
        assert 0 < be7["decision_threshold"] < be7["detection_limit"]
        assert be7["upper_limit"] > max(0, be7["net"]["value"])
        assert be7["neighbours"][0]["name"] == "Ac-228 478.3"
        assert be7["neighbours"][0]["area"]["sigma_sys"] > 0
        assert len(entry["sha256"]) == 64
        assert entry["calibration"]["covariance"]
        assert entry["counts"] == reference("gamma")[entry["file"]]["total_counts"]
    assert soil["sha256"] == "53792ecc9b7293c343fe72a08024f7200a203b2040862dc451ce26fadc2c298c"


def test_every_value_has_both_errors_and_a_unit(capsys):
    document = result(capsys, "gamma", need(SOIL, "soil"))
    found = quantities(document)
    assert len(found) > 100
    for entry in found:
        assert set(entry) == {"value", "sigma_stat", "sigma_sys", "unit"}
        assert entry["unit"] in {"counts", "keV", "channel", "1"}


def test_tables_for_people_say_what_was_found(capsys):
    code, out, _ = run(capsys, "gamma", need(SOIL, "soil"), need(CONTROL, "soil"))
    assert code == 0
    assert "7Be 477.6 keV: DETECTED, 660 ± 39 ± 8 counts" in out
    assert "7Be 477.6 keV: not claimed, 123 ± 43 ± 11 counts are below the threshold" in out
    assert "Ac-228 478.3 keV 74.1 ± 1.0 ± 5.8 counts, predicted from Ac-228 911.2 keV" in out
    assert "K-40 1460.8" in out
    assert "nan" not in out


def test_eu152_and_the_scintillators(capsys):
    names = ("eu152_7cm.Spe", "csi_ba133_cs137.spe", "nai_background.spe")
    eu, csi, nai = result(capsys, "gamma", *(need(f"gamma/{name}", name) for name in names))["files"]
    assert eu["calibration"]["largest_residual_kev"] < 0.1
    assert eu["source"] == "Eu-152"
    assert not eu["be7"]["decided"]
    assert csi["detector"] == nai["detector"] == "scintillator"
    assert [line["known_kev"] for line in csi["lines"]][:3] == [80.9979, 356.0129, 661.657]


def test_list_mode_events_and_times(capsys):
    path = need("gamma/ba133_listmode.Lis", "Ba-133 through the command", GPL)
    (entry,) = result(capsys, "gamma", path)["files"]
    known = reference("gamma")["ba133_listmode.Lis"]
    assert (entry["events"], entry["adc_min"], entry["adc_max"]) == (467_295, 37, 8005)
    assert entry["last_event_s"] == pytest.approx(known["last_event_s"], abs=1e-9)
    assert entry["rate_per_s"] == pytest.approx(known["mean_rate_cps_real"], rel=1e-4)


def test_the_claim_can_be_asked_for_at_another_level(capsys):
    """The weak structure of the control spectrum is 2.9 sigma: five percent of false claims would call it."""
    (entry,) = result(capsys, "gamma", need(CONTROL, "soil"), "--alpha", 0.05)["files"]
    assert entry["be7"]["alpha"] == 0.05
    assert entry["be7"]["detected"]


def test_figures_and_files_are_written_whole(capsys, tmp_path):
    out = tmp_path / "new" / "folder"
    code, text, _ = run(capsys, "gamma", need(SOIL, "soil"), "--out", out)
    assert code == 0
    names = {path.name for path in out.iterdir()}
    stem = "soil_be7_ucb009"
    assert names == {"result.json", "tables.txt", "result.h5"} | {
        f"{stem}-{figure}.png" for figure in ("spectrum", "lines", "calibration", "477keV", "efficiency")
    }
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
        assert path.stat().st_size > 20_000
        assert path.name in text
    assert json.loads((out / "result.json").read_text())["files"][0]["be7"]["detected"]
    assert "DETECTED" in (out / "tables.txt").read_text()
    with h5py.File(out / "result.h5") as file:
        data = file[stem]["spectrum"]
        assert int(data["values"][:].sum()) == 1_002_737  # counts in the file
        energy = data["energy"]
        assert energy.attrs["units"] == "keV"
        potassium = (energy[:] > 1458) & (energy[:] < 1463)
        assert energy[:][potassium][data["values"][:][potassium].argmax()] == pytest.approx(1460.82, abs=0.4)


def test_figures_as_svg_and_two_files_of_one_name(capsys, tmp_path):
    (tmp_path / "a").mkdir()
    source = need("gamma/nai_background.spe", "NaI")
    copy = tmp_path / "a" / source.name
    copy.write_bytes(source.read_bytes())
    code, _, _ = run(capsys, "gamma", source, copy, "--out", tmp_path / "out", "--figures", "svg")
    assert code == 0
    pictures = sorted((tmp_path / "out").glob("*.svg"))
    assert len(pictures) == 2
    assert all("K-40 1460.8" in path.read_text() for path in pictures)


def test_the_map_in_the_clone(capsys, tmp_path):
    """The npz carries no calibration: it is given, as the GeoPIXE header has it."""
    path = need("xrf/xfm_20x10_2det.npz", "micro-XRF map")
    (entry,) = result(capsys, "xrf", path, "--gain", "10 eV", "--out", tmp_path)["files"]
    assert [d["counts"] for d in entry["detectors"]] == [832_210, 944_790]
    maps = {(m["name"], m["detector"]): m for m in entry["maps"]}
    known = reference("xrf")["xfm_20x10_2det.GeoPIXE"]["elements"]
    for name, line in (("Ca Ka", "Ca"), ("Fe Ka", "Fe"), ("Ti Ka", "Ti")):
        for d in (0, 1):
            assert maps[name, d]["roi_counts"] == known[line][f"roi_counts_det{d}"]
            fit = next(g for g in entry["detectors"][d]["groups"] if g["name"] == name)
            assert maps[name, d]["fitted"]["value"] == pytest.approx(fit["area"]["value"], rel=0.005)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "xfm_20x10_2det-maps.png", "xfm_20x10_2det-spectrum-0.png", "xfm_20x10_2det-spectrum-1.png",
    }  # fmt: skip


def test_the_map_as_the_instrument_wrote_it_gives_the_same(capsys):
    why = "1.4 MB, too large for the clone"
    path = need("xrf/xfm_20x10_2det.GeoPIXE", "micro-XRF map through the command", why)
    (ours,) = result(capsys, "xrf", path)["files"]
    decoded = need("xrf/xfm_20x10_2det.npz", "micro-XRF map")
    (theirs,) = result(capsys, "xrf", decoded, "--gain", "10 eV")["files"]
    for a, b in zip(ours["detectors"], theirs["detectors"], strict=True):
        assert a["groups"] == b["groups"]
    assert [m["roi_counts"] for m in ours["maps"]] == [m["roi_counts"] for m in theirs["maps"]]
    assert ours["map"]["dwell_s"] == pytest.approx(0.1)


def test_multi_detector_file_and_steel(capsys):
    (srm,) = result(capsys, "xrf", need("xrf/srm1832_thin_glass_4det.mca", "SRM 1832"))["files"]
    assert [round(d["live_s"], 2) for d in srm["detectors"]] == [96.36, 96.16, 87.73, 77.40]
    calcium = next(g for g in srm["detectors"][0]["groups"] if g["name"] == "Ca Ka")
    assert calcium["rate"]["value"] == pytest.approx(calcium["area"]["value"] / 96.360748)
    steel = need("xrf/steel.spe", "steel")
    words = ("--gain", "11.93 eV", "--elements", "V, Cr, Mn, Fe, Ni, Cu, W:L")
    (entry,) = result(capsys, "xrf", steel, *words)["files"]
    iron = next(g for g in entry["detectors"][0]["groups"] if g["name"] == "Fe Ka")
    assert iron["area"]["value"] == pytest.approx(3_072_381, rel=0.02)


# --- wrong input -----------------------------------------------------------------------------------------


def test_all_wrong_files_are_named_at_once_and_nothing_is_written(capsys, tmp_path):
    broken = tmp_path / "broken.Spe"
    broken.write_bytes(need(SOIL, "soil").read_bytes()[:20_000])
    empty = tmp_path / "empty.Spe"
    empty.touch()
    words = ("gamma", need(SOIL, "soil"), broken, empty, tmp_path / "missing.Spe", "--out", tmp_path / "out")
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert len(err.strip().split("\n")) == 3
    assert "broken.Spe: $DATA: expected 8192 counts, found 2" in err
    assert "(a truncated file)" in err
    assert "empty.Spe: expected a recording, found an empty file" in err
    assert "missing.Spe: expected a readable file (No such file or directory)" in err
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_reduced_is_a_gap(capsys, tmp_path):
    flat = tmp_path / "flat.Spe"
    flat.write_text("$DATA:\n0 999\n" + "100\n" * 1000)
    code, out, err = run(capsys, "gamma", need(SOIL, "soil"), flat)
    assert code == 6
    assert "DETECTED" in out
    assert "not reduced: " in err
    assert "no known pattern of lines fits" in err
    code, out, err = run(capsys, "gamma", flat, "--json")
    assert code == 2
    assert json.loads(out)["files"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gamma", "x", "--alpha", "0.7"), "--alpha 0.7 must lie between 0 and 0.5"),
        (("gamma", "x", "--source", "moon"), "--source 'moon' is not one of natural"),
        (("xrf", "x", "--gain", "10"), "'10' is not an energy: write a number and a unit (eV, keV, MeV)"),
        (("xrf", "x", "--gain", "ten eV"), "'ten' in 'ten eV' is not a number"),
        (("xrf", "x", "--gain", "-1 eV"), "must be positive"),
        (("xrf", "x", "--offset", "1 eV"), "--offset needs --gain"),
        (("xrf", "x", "--elements", "Fe, Unobtainium"), "no K lines of 'Unobtainium' are listed"),
        (("xrf", "x", "--low", "5 keV", "--high", "4 keV"), "--high must be above --low"),
    ],
)
def test_options_that_make_no_sense(capsys, words: tuple[str, ...], message: str):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [(), ("alchemy", "x"), ("gamma",)])
def test_wrong_arguments_end_with_two(capsys, words: tuple[str, ...]):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "usage: operando reduce" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("gamma", "x", "--sauce", "Eu-152"), "gamma has no option --sauce; did you mean --source?"),
        (("impedance", "x", "--circut=R0"), "impedance has no option --circut; did you mean --circuit?"),
        (("gamma", "x", "--circuit", "R0"), "gamma has no option --circuit (operando reduce gamma --help)"),
        (("gamma", "x", "--alpha", "0.1", "y"), "'y' belongs to no option: write all files before"),
        (("--json", "gamma", "x"), "the technique comes first: operando reduce gamma FILE ... --json ..."),
    ],
)
def test_an_option_that_nobody_knows_is_answered_with_the_one_that_was_meant(capsys, words, told: str):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_file_of_a_merge_that_is_not_there_is_named_once(capsys, tmp_path):
    code, out, err = run(capsys, "maps", tmp_path / "a.npz", tmp_path / "b.npz", "--merge", "--lines", "Fe")
    assert (code, out) == (2, "")
    for line, name in zip(err.splitlines(), "ab", strict=True):
        assert line.count(f"{name}.npz") == 1


def test_a_copy_of_a_file_is_not_counted_twice(capsys, tmp_path):
    first = tmp_path / "a.npz"
    np.savez(first, Fe=np.arange(12).reshape(3, 4))
    copy, other = tmp_path / "copied.npz", tmp_path / "other.npz"
    copy.write_bytes(first.read_bytes())
    np.savez(other, Fe=np.arange(12)[::-1].reshape(3, 4))
    assert other.stat().st_size == first.stat().st_size
    code, out, err = run(capsys, "maps", first, other, copy, "--merge")
    assert (code, out) == (2, "")
    assert err == f"operando reduce: {copy} has the same content as {first}: it would be counted twice\n"
    code, _, err = run(capsys, "maps", first, first, "--merge")
    assert (code, err) == (2, f"operando reduce: {first}: given twice, it would be counted twice\n")
    code, _, err = run(capsys, "maps", first, other, "--merge")
    assert (code, err) == (0, "")


def test_a_run_is_handed_to_its_own_reduction(capsys, tmp_path):
    code, out, err = run(capsys, "ion-beam", tmp_path / "no-run")
    assert (code, out) == (2, "")
    assert "no-run" in err
    assert "Traceback" not in err


def test_help_shows_an_example(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "operando reduce gamma soil.Spe" in out


def test_a_technique_that_does_not_fit_the_file_says_so(capsys):
    code, _, err = run(capsys, "gamma", need("xrf/xfm_20x10_2det.npz", "micro-XRF map"))
    assert code == 2
    assert "a map or several detectors: use the technique xrf" in err
    code, _, err = run(capsys, "xrf", need("xrf/xfm_20x10_2det.npz", "micro-XRF map"))
    assert code == 2
    assert 'the file has no energy calibration: give --gain "10 eV"' in err


def test_an_output_folder_that_cannot_be_made(capsys, tmp_path):
    (tmp_path / "file").touch()
    words = ("gamma", need("gamma/nai_background.spe", "NaI"), "--out", tmp_path / "file" / "out")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "cannot write to" in err


# --- small parts -----------------------------------------------------------------------------------------


def test_energies_with_units():
    assert parse_energy("12 eV") == pytest.approx(0.012)
    assert parse_energy("-1.5 keV") == -1.5
    for text in ("", "12", "12 s", "inf keV", "1 2 keV"):
        with pytest.raises(ValueError, match=r"unit|finite"):
            parse_energy(text)


def test_values_and_tables():
    assert pm(12.345, 0.21, 0.4) == "12.35 ± 0.21 ± 0.40"  # two digits of the largest error
    assert pm(math.nan, 1.0) == "-"
    assert quantity(1.0, math.inf, 0.0, "keV")["sigma_stat"] is None
    assert table(("a", "b"), [("xx", "1"), ("y", "222")]) == "  a     b\n  xx    1\n  y   222"


def test_json_on_disk_is_the_json_on_screen(capsys, tmp_path):
    path = need("gamma/csi_ba133_cs137.spe", "CsI")
    document = result(capsys, "gamma", path, "--out", tmp_path)
    assert json.loads(Path(tmp_path / "result.json").read_text()) == document


def test_who_reads_the_output_may_stop_reading(tmp_path):
    """``operando reduce ... | head`` ends without a complaint, and the results are there."""
    file = need("gamma/eu152_7cm.Spe", "a long table")
    out = tmp_path / "out"
    words = [sys.executable, "-m", "controller.cli", "reduce", "gamma", str(file), "--out", str(out)]
    reader, writer = os.pipe()
    os.close(reader)  # nobody reads at all
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120, text=True)
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == ""
    assert (out / "result.json").stat().st_size > 0
