"""``operando reduce particles`` as a person calls it: gold, drawn cells with calibration, wrong input."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from controller.offline import reduce
from controller.offline.particles_options import read_cells
from drivers.files.errors import FileError
from tests.data_sets import GPL, need, reference
from tests.edge.particles_model import two_lines

CELLS = {"pristine": 1.0, "soc41": 0.59, "soc61": 0.40, "soc81": 0.31}


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = reduce.main(["particles", *(str(word) for word in words)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four calibration cells, their list, and a cell in which 20 % of the particles kept lithium."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(81)
    rows = [("file", "lithiation", "sigma")]
    kept = np.where(rng.random(500) < 0.2, 1.0, 0.31)
    for k, (name, x) in enumerate({**CELLS, "cycled": 0.0}.items()):
        of_each = kept if name == "cycled" else np.full(500, x)
        trace, _ = two_lines(of_each, 82 + k, samples=500_000)
        li, mn = trace.astype(np.uint16)
        np.savez_compressed(folder / f"{name}.npz", Li=li, Mn=mn, dwell_s=1e-4)
        if name in CELLS:
            rows.append((f"{name}.npz", str(x), "0.005"))
    with (folder / "cells.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_the_measured_gold_as_json(capsys):
    name = "au50nm_agilent_0p1ms.csv"
    path = need(f"spicp/{name}", "command line", GPL)
    code, out, err = run(
        capsys, path, "--threshold", "currie-ld", "--edge", "threshold", "--min-points", 3, "--json"
    )
    assert (code, err) == (0, "")
    (entry,) = json.loads(out)["files"]
    theirs, (line,) = reference("spicp")[name], entry["lines"]
    assert line["name"] == "Au197"
    assert line["events"] == theirs["regions_at_least_3_points"]
    assert line["gross_median_counts"]["value"] == pytest.approx(theirs["median_signal_counts_ge3"], abs=0.05)
    assert line["mean_length"]["value"] == pytest.approx(theirs["mean_width_points_ge3"], abs=0.005)
    assert line["rate"]["unit"] == "1/s"
    assert entry["dwell_s"] == pytest.approx(1e-4)
    assert line["area_median_counts"]["value"] != line["height_median_counts"]["value"]


def test_a_single_event_has_no_error_of_its_median_and_new_names_are_told(capsys, tmp_path: Path):
    trace = np.random.default_rng(84).poisson(0.1, 5000)
    trace[2000:2004] += 40
    np.savez(tmp_path / "one.npz", Au=trace, dwell_s=1e-3)
    code, out, err = run(capsys, tmp_path / "one.npz", "--lines", "Li")
    assert (code, err) == (0, "")
    assert "note: Au of the file: called Li" in out
    assert re.search(r"Li .* 1 ± 1 +0\.20 ± 0\.20 .* 1[56]\d ± not known +\d\d[.\d]* ± not known", out)
    code, out, _ = run(capsys, tmp_path / "one.npz", "--json")
    (entry,) = json.loads(out)["files"]
    assert entry["lines"][0]["area_median_counts"]["sigma_stat"] is None
    assert not any("called" in note for note in entry["notes"])


def test_a_calibrated_cell_from_files_to_figures(capsys, drawn: Path, tmp_path: Path):
    out_dir = tmp_path / "out"
    code, out, err = run(
        capsys, drawn / "cycled.npz", "--cells", drawn / "cells.csv", "--window", "10 s",
        "--active", "120 +- 3 mAh/g", "--lithiation", "0.48 +- 0.01", "--out", out_dir,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "above the frame" in out
    assert re.search(r"\d ± \d+\.\d+ % of the particles inside it", out)
    assert "rate / (1/s)" in out
    (entry,) = json.loads((out_dir / "result.json").read_text())["files"]
    d = entry["diverging"]
    assert d["excess"]["value"] == pytest.approx(0.2, abs=3 * d["excess"]["sigma_stat"] + 0.01)
    assert d["interval_95"][0] < d["fraction"]["value"] < d["interval_95"][1]
    line = entry["calibration"]["line"]
    assert line["slope"]["value"] == pytest.approx(0.75, abs=4 * line["slope"]["sigma_stat"])
    assert entry["calibration"]["frame_used"] == "soc81"
    held = entry["held_back"]
    assert held["value"] == pytest.approx(0.2 * 0.69 * 277.58, abs=4 * held["sigma_stat"] + 1)
    assert entry["inactive"]["value"] == pytest.approx(0.48 * 277.58 - 120, abs=0.02)
    assert entry["ratio"]["coincident"] > 470
    pictures = {path.name for path in out_dir.glob("*.png")}
    assert pictures == {f"cycled-{n}.png" for n in ("trace", "ratio", "delays", "areas", "calibration")}
    with h5py.File(out_dir / "result.h5") as file:
        names: list[str] = []
        file.visit(names.append)
    for wanted in ("area_Li", "area_Mn", "height_Mn", "ratio"):
        assert any(wanted in name for name in names)


def test_csv_of_two_lines_with_names_from_the_command_line(capsys, drawn: Path, tmp_path: Path):
    with np.load(drawn / "soc41.npz") as data:
        table = np.stack([np.arange(40_000) * 1e-4, data["Li"][:40_000], data["Mn"][:40_000]], axis=1)
    path = tmp_path / "two.csv"
    np.savetxt(path, table, delimiter=",", header="Time [Sec],670.776,257.611", comments="", fmt="%.6g")
    code, out, _ = run(
        capsys, path, "--lines", "Li,Mn", "--ratio", "Li/Mn", "--coincidence", "0.3 ms", "--json"
    )
    assert code == 0
    (entry,) = json.loads(out)["files"]
    assert [line["name"] for line in entry["lines"]] == ["Li", "Mn"]
    assert entry["ratio"]["numerator"] == "Li"


def test_every_wrong_option_is_named_at_once(capsys, drawn: Path, tmp_path: Path):
    code, _, err = run(
        capsys, drawn / "cycled.npz", tmp_path / "none.csv", "--alpha", 0.9, "--dwell", "0.1",
        "--min-points", 0, "--ratio", "Li", "--active", "120 mAh/g", "--capacity", "278",
    )  # fmt: skip
    assert code == 2
    for said in ("alpha", "--dwell", "--min-points", "--ratio", "--active", "--capacity", "--lithiation"):
        assert said in err
    code, _, err = run(capsys, tmp_path / "none.csv", drawn)
    assert code == 2
    assert "none.csv" in err
    code, _, err = run(capsys, drawn / "cycled.npz", "--lines", "Ni,Co,Al")
    assert code == 2
    assert "the file has Li, Mn" in err
    code, _, err = run(capsys, drawn / "cycled.npz", "--ratio", "Li/Co")
    assert code == 2
    assert "the lines are Li, Mn" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,lithiation\na,1\n", "sigma"),
        ("file,lithiation,sigma\n", "1 to 50 cells"),
        ("file,lithiation,sigma\na.npz,2,0.1\n", "from 0 to 1.5"),
        ("file,lithiation,sigma\na.npz,0.5,0\n", "with an error"),
        ("file,lithiation,sigma\na.npz,1,0.1\na.csv,0.5,0.1\n", "different names"),
    ],
)
def test_wrong_lists_of_cells_are_named(tmp_path: Path, text: str, expected: str):
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        read_cells(path)
    assert expected in str(caught.value)


def test_measurements_of_one_sample_are_one_result(capsys, drawn: Path, tmp_path: Path):
    """Events are those of each file by itself, with its own background; what they hold counts together."""
    files = [drawn / "cycled.npz", drawn / "soc61.npz"]
    words = ("--cells", drawn / "cells.csv")
    code, out, err = run(capsys, *files, *words, "--json")
    assert (code, err) == (0, "")
    apart = json.loads(out)["files"]
    code, out, err = run(capsys, *files, *words, "--merge", "--figures", "svg", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert "note: 2 measurements: cycled.npz, soc61.npz" in out
    (one,) = json.loads((tmp_path / "result.json").read_text())["files"]
    assert one["samples"] == 1_000_000
    assert one["missing_samples"] == 0
    for k, line in enumerate(one["lines"]):
        assert line["events"] == sum(entry["lines"][k]["events"] for entry in apart)
        backgrounds = [b["mean"]["value"] for b in line["baselines"]]
        assert backgrounds == [entry["lines"][k]["baselines"][0]["mean"]["value"] for entry in apart]
        assert [b["window"] for b in line["baselines"]] == [0, 1]
    assert one["ratio"]["coincident"] == sum(entry["ratio"]["coincident"] for entry in apart)
    assert one["diverging"]["above"] == sum(entry["diverging"]["above"] for entry in apart)
    assert one["diverging"]["particles"] == sum(entry["diverging"]["particles"] for entry in apart)
    assert one["diverging"]["fraction"]["sigma_stat"] < apart[0]["diverging"]["fraction"]["sigma_stat"]
    cells = [f"{name}.npz" for name in CELLS if name != "soc61"]  # it stands among FILES
    assert [entry["file"] for entry in one["inputs"]] == ["cycled.npz", "soc61.npz", "cells.csv", *cells]
    assert ">2 files: " in (tmp_path / "cycled-trace.svg").read_text()  # the title
    np.savez_compressed(tmp_path / "slow.npz", Li=np.ones(2000, "u2"), Mn=np.ones(2000, "u2"), dwell_s=1e-3)
    code, _, err = run(capsys, files[0], tmp_path / "slow.npz", "--merge")
    assert code == 2
    assert "different times per sample" in err
