"""Several files of spectra that are one measurement: added exactly, and what is unlike is refused."""

from __future__ import annotations

import json

import numpy as np

from controller.offline import reduce
from tests.data_sets import need
from tests.drivers.files import makers


def test_files_that_are_parts_of_one_measurement_are_added_exactly(tmp_path, capsys):
    """A spectrum dealt out at random to three files and merged again is the spectrum in every number."""
    whole = need("gamma/soil_be7_ucb009.Spe", "a spectrum in three parts").read_text().split("\n")
    at = next(n for n, line in enumerate(whole) if line.startswith("$DATA")) + 2
    counts = np.array([int(word) for word in whole[at : at + 8192]])
    rng = np.random.default_rng(3)
    parts = rng.multinomial(counts, [0.5, 0.3, 0.2]).T
    paths = []
    for number, part in enumerate((*parts, counts)):
        paths.append(tmp_path / f"{number}.Spe")
        live = "900 930" if number == 3 else "300 310"
        paths[-1].write_bytes(makers.spe(part.tolist(), live=live, calibration="0.0 0.3657 0.0 keV"))
    assert reduce.main(["gamma", "--json", str(paths[3])]) == 0
    (one,) = json.loads(capsys.readouterr().out)["files"]
    assert reduce.main(["gamma", "--json", "--merge", *map(str, paths[:3])]) == 0
    (merged,) = json.loads(capsys.readouterr().out)["files"]
    for entry in (one, merged):
        for name in ("file", "sha256", "inputs", "notes", "started"):
            entry.pop(name, None)
    assert merged == one
    assert reduce.main(["gamma", "--merge", str(paths[0]), str(paths[0])]) == 2
    assert "given twice" in capsys.readouterr().err


def test_files_that_do_not_belong_together_are_not_added(capsys):
    soil = need("gamma/soil_be7_ucb009.Spe", "soil")
    other = need("gamma/nai_background.spe", "another detector")
    assert reduce.main(["gamma", "--merge", str(other), str(soil)]) == 2
    assert "different numbers of channels" in capsys.readouterr().err


def test_x_ray_spectra_of_one_sample_are_added_exactly(tmp_path, capsys):
    steel = need("xrf/steel.spe", "steel in two parts")
    whole = steel.read_text().split("\n")
    at = next(n for n, line in enumerate(whole) if line.startswith("$DATA")) + 2
    end = next(n for n in range(at, len(whole)) if n + 1 == len(whole) or whole[n + 1].startswith("$"))
    rng = np.random.default_rng(6)
    halves = [list(whole), list(whole)]
    for n in range(at, end + 1):
        counts = [int(float(word)) for word in whole[n].split()]
        first = rng.binomial(counts, 0.3)
        for half, part in zip(halves, (first, np.array(counts) - first), strict=True):
            half[n] = " ".join(map(str, part))
    words = ["--gain", "11.93 eV", "--elements", "Cr, Mn, Fe, Ni, Cu, W:L"]
    paths = [tmp_path / f"{k}.spe" for k in range(2)]
    for path, half in zip(paths, halves, strict=True):
        path.write_text("\n".join(half))
    assert reduce.main(["xrf", str(steel), *words, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["files"]
    assert reduce.main(["xrf", *map(str, paths), *words, "--merge", "--json"]) == 0
    (merged,) = json.loads(capsys.readouterr().out)["files"]
    assert merged["notes"] == ["the sum of 0.spe, 1.spe"]
    for entry in (one, merged):
        for detector in entry["detectors"]:
            detector.update(live_s=0, real_s=0, dead_fraction=0)  # the header stands in both halves
            for group in detector["groups"]:
                group["rate"] = None
    assert merged["detectors"] == one["detectors"]
    glass = need("xrf/srm1832_thin_glass_4det.mca", "four detectors")
    assert reduce.main(["xrf", str(steel), str(glass), "--merge"]) == 2
    assert "different numbers of detectors" in capsys.readouterr().err
