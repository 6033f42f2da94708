"""``operando reduce impedance`` as a person calls it: verdicts, values, a series, wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from controller.offline import reduce
from controller.offline.export import EIS_COLUMNS
from controller.offline.figures_impedance import series
from controller.offline.impedance import TECHNIQUE, si
from controller.offline.plot_style import saved
from edge.impedance_circuits import parse
from edge.uncertainty import Estimate
from tests.data_sets import CLONED, reference

EIS = CLONED / "eis"
REFERENCE = reference("eis")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = reduce.main(["impedance", *(str(word) for word in words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_vendor_files_to_json(capsys):
    paths = [EIS / name for name in ("test_circuit_1.z", "test_circuit_2.z", "gamry_example.DTA")]
    code, out, err = run(capsys, *paths, "--circuit", "R0-p(R1,C1)", "--json")
    assert (code, err) == (0, "")
    first, second, bad = (entry["sweeps"][0] for entry in json.loads(out)["files"])
    for entry, name in ((first, "test_circuit_1"), (second, "test_circuit_2")):
        theirs = REFERENCE[name]["fit"]
        for key, value, error in zip(
            theirs["parameters"], theirs["parameters"].values(), theirs["parameter_std"], strict=True
        ):
            assert entry["parameters"][key]["value"] == pytest.approx(value, abs=0.1 * error)
        assert entry["kramers_kronig"]["passed"]
    assert first["r_s"]["value"] == pytest.approx(29.0786, abs=1e-4)
    assert second["r_s"] is None
    assert bad["parameters"] is None
    assert bad["r_s"] is None
    assert "4.7 % rms" in bad["why_not"]


def test_a_cell_with_files_and_figure(capsys, tmp_path: Path):
    circuit = "R0-p(L1,R4)-p(R1,CPE1)-p(R2,CPE2)-CPE3"
    code, out, err = run(
        capsys, EIS / "liion_cell_example.csv", "--circuit", circuit, "--inductive", "--out", tmp_path / "o"
    )
    assert (code, err) == (0, "")
    assert "15.688 ± 0.014 ± 0.006 mohm, at 1.4251 ± 0.0083 ± " in out
    (entry,) = json.loads((tmp_path / "o" / "result.json").read_text())["files"]
    (sweep,) = entry["sweeps"]
    assert sweep["fit_rms"] < 0.005
    assert not sweep["not_resolved"]
    assert not sweep["wrong_circuit"]
    assert {p.name for p in (tmp_path / "o").glob("*.png")} == {"liion_cell_example-sweep.png"}
    with h5py.File(tmp_path / "o" / "result.h5") as file:
        names: list[str] = []
        file.visit(names.append)
    assert any("sweep_001_fit_real" in name for name in names)


def test_a_circuit_that_is_too_simple_is_named(capsys):
    code, out, _ = run(capsys, EIS / "liion_cell_example.csv", "--circuit", "R0-p(R1,C1)-p(R2-Wo1,C2)")
    assert code == 0
    assert "11 times what the Kramers-Kronig chain leaves" in out
    assert "Wo1_tau" in out
    assert "its error is" in out


def test_the_sweeps_of_a_run_as_a_series_over_charge(capsys, tmp_path: Path):
    circuit, f = parse("R0-p(R1,C1)"), np.geomspace(1e4, 0.1, 40)
    rng = np.random.default_rng(91)
    rows = [",".join(EIS_COLUMNS)]
    truth = {0.9: 0.03, 0.1: 0.01, 0.5: 0.02}
    for k, r in enumerate(truth.values()):
        z = circuit.impedance(np.array([0.005, r, 0.5]), f)
        z = z * (1 + 1e-3 * (rng.normal(size=40) + 1j * rng.normal(size=40)))
        points = zip(f.tolist(), z.tolist(), strict=True)
        rows += [f"{1000 * k + i},{a!r},{b.real!r},{b.imag!r}" for i, (a, b) in enumerate(points)]
    path = tmp_path / "impedance.csv"
    path.write_text("\n".join(rows))
    words = [path, EIS / "gamry_example.DTA", "--circuit", "R0-p(R1,C1)", "--soc", "90 %, 10 %, 50 %, 100 %"]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert "rejected" in out
    code, out, _ = run(capsys, *words, "--json")
    (entry,) = json.loads(out)["files"]
    assert [sweep["soc"] for sweep in entry["sweeps"]] == [0.1, 0.5, 0.9, 1.0]
    for sweep in entry["sweeps"][:3]:
        r = sweep["parameters"]["R1"]
        assert r["value"] == pytest.approx(truth[sweep["soc"]], abs=4 * r["sigma_stat"])
    args = reduce.build_parser(["impedance"]).parse_args(["impedance", *map(str, words)])
    (job,) = TECHNIQUE.jobs(args)
    assert len(saved(series(job.run()), "png")) > 10_000  # type: ignore[arg-type]


def test_a_series_prints_r_s_with_errors_and_unit(capsys, tmp_path: Path):
    again = tmp_path / "again.csv"
    again.write_bytes((EIS / "test_circuit_1_fz.csv").read_bytes())
    words = EIS / "test_circuit_1.z", again, "--circuit", "R0-p(R1,C1)", "--soc", "0 %, 50 %"
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    series_of_both = out[out.index("\nseries\n") :].splitlines()
    assert series_of_both[2].split()[0] == "SoC"
    for line in series_of_both[3:5]:
        assert "29.0786 ± 0.0026 ± 0.0001 ohm" in line


def test_a_rejected_sweep_says_what_is_not_given_and_how_to_have_it(capsys):
    bad = EIS / "gamry_example.DTA"
    code, out, _ = run(capsys, bad)
    assert code == 0
    assert "REJECTED" in out
    assert "no R_s and no circuit from a rejected sweep (--despite fits it all the same)" in out
    assert "no circuit from" not in run(capsys, bad, "--circuit", "none")[1]
    assert "no circuit from" not in run(capsys, bad, "--circuit", "R0-p(R1,C1)", "--despite")[1]


def test_every_wrong_option_is_named_at_once(capsys, tmp_path: Path):
    code, _, err = run(
        capsys, EIS / "test_circuit_1.z", tmp_path / "none.z", "--circuit", "R0-", "--kk-limit", "3",
        "--soc", "x", "--start", "1,b",
    )  # fmt: skip
    assert code == 2
    for said in ("--circuit", "--kk-limit", "--soc", "--start", "none.z"):
        assert said in err
    code, _, err = run(capsys, EIS / "test_circuit_1.z", "--soc", "10 %, 20 %")
    assert code == 2
    assert "2 values for 1 sweeps" in err
    code, _, err = run(capsys, EIS / "test_circuit_1.z", "--circuit", "R0-p(R1,C1)", "--start", "1,2")
    assert code == 2
    assert "--start has 2 values" in err
    code, _, err = run(capsys, EIS / "test_circuit_1.z", "--circuit", "R0-p(R1,C1)", "--start", "R0=29 ohm")
    assert code == 2
    assert "in ohm, F, H, s: R0, R1, C1" in err


def test_prefixed_units():
    assert si(Estimate(0.015688, 1.3e-5, 0.0, "ohm"), "ohm") == "15.688 ± 0.013 mohm"
    assert si(Estimate(1.0432e-5, 2.4e-8, 0.0, "F"), "F") == "10.432 ± 0.024 uF"
    assert si(Estimate(0.85, 0.02, 0.0, ""), "") == "0.850 ± 0.020"
    assert si(Estimate(0.0027, 2.5e-5, 0.0, "ohm/s^0.5"), "ohm/s^0.5") == "0.0027 ± 2.5e-05 ohm/s^0.5"
