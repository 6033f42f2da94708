"""``operando reduce cycling``: tables, flags, figures, and Battery Data Format out and in again."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from controller.offline import reduce
from controller.offline.cycling import TECHNIQUE, CyclingReport
from controller.offline.technique import Problems
from drivers.files import cycler_log
from tests.data_sets import need


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    TECHNIQUE.add_arguments(parser)
    return parser.parse_args(words)


def reduced(*words: str) -> CyclingReport:
    (job,) = TECHNIQUE.jobs(arguments(list(words)))
    report = job.run()
    assert isinstance(report, CyclingReport)
    return report


def maccor() -> str:
    return str(need("cycling/lg_m50_maccor_steps_1_to_6.txt", "first CC-CV charge"))


def neware() -> str:
    return str(need("cycling/si_neware_cycle_1.csv", "first cycle of silicon"))


def test_the_maccor_log_with_a_stated_accuracy():
    report = reduced(
        maccor(), "--current-accuracy", "0.02 %", "--current-offset", "0.5 mA", "--capacity", "4.85 Ah"
    )
    charge = report.data["cycles"][0]["in"]
    assert charge["at_constant_current"]["value"] == pytest.approx(3.36871, abs=1e-4)
    assert charge["at_constant_voltage"]["value"] == pytest.approx(1.15388, abs=1e-4)
    gain, offset = charge["capacity"]["parts"]["gain"], charge["capacity"]["parts"]["offset"]
    assert gain == pytest.approx(2e-4 * 4.5226, rel=1e-3)
    assert offset == pytest.approx(0.5e-3 * (8085.2 + 9821.3) / 3600, rel=1e-3)
    assert charge["capacity"]["sigma_sys"] >= np.hypot(gain, offset)
    assert charge["depth_at_switch_to_cv"]["value"] == pytest.approx(3.36871 / 4.85, abs=1e-4)
    assert any(flag.startswith("not connected: 2 of 2 sensors") for flag in report.flags)
    assert "unsigned, C and D" in report.text
    assert "13.0455 ± 0.0000 ± 0.0051" in report.text  # energy, like charge, with both errors
    assert "E / Wh" in report.text
    json.dumps(report.data, allow_nan=False)


def test_the_neware_log_says_what_it_means():
    report = reduced(neware(), "--cycle-starts", "discharge", "--mass", "2.08 mg")
    cycle = report.data["cycles"][0]
    assert cycle["coulombic_efficiency"]["value"] == pytest.approx(0.8354, abs=2e-4)
    assert cycle["in"]["specific_mah_g"] == pytest.approx(2250.15 + 135.49 + 59.68, rel=2e-4)
    assert "cycles, discharge first" in report.text
    per_gram = next(line for line in report.text.splitlines() if "mAh/g in" in line)
    assert re.search(r"2445\.\d+ ± 0\.0\d+ ± [\d.]+ mAh/g in, 204\d\.\d+ ± 0\.0\d+ ± [\d.]+ out", per_gram)
    assert "E / mWh" in report.text  # milliwatt hours with milliampere hours
    assert not re.search(r"± 0\.0+ ± 0\.0+ %", report.text), "an error that is known is not printed as 0"
    assert report.data["signs"]["check"].startswith("agrees")


def test_figures_and_arrays():
    report = reduced(maccor())
    pictures = dict(report.figures("png"))
    assert set(pictures) == {"curves", "incremental", "cycles"}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    arrays = {one.name: one for one in report.arrays()}
    assert arrays["capacity_in"].values == pytest.approx([4.5226], abs=2e-4)
    assert arrays["incremental_0004"].sigma is not None


@pytest.mark.parametrize("source", [maccor, neware])
def test_a_converted_file_is_read_back_by_us_and_by_batterydf(tmp_path, source):
    path = source()
    report = reduced(path, "--bdf", str(tmp_path))
    (converted,) = tmp_path.glob("*.bdf.csv")
    ours = cycler_log.read(converted)
    assert np.allclose(ours.time_s, report.log.time_s, atol=0.006)
    assert np.array_equal(ours.current_a, report.log.current_a)
    assert np.array_equal(ours.voltage_v, report.log.voltage_v)
    assert np.array_equal(ours.step, report.log.step)
    again = reduced(str(converted))
    z = [
        (a.capacity.value - b.trapezoid_ah) / max(a.capacity.estimate("").total, 1e-9)
        for a, b in zip(again.steps, report.steps, strict=True)
    ]
    assert np.abs(z).max() < 4
    from bdf import io as bdf_io  # slow to load
    from bdf.validate import validate_df

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "legacy labels" would be one
        table = bdf_io.load(converted)
        said = validate_df(table)
    assert said["ok"]
    assert said["extras"] == []
    assert table["Current / A"].to_numpy() == pytest.approx(report.log.current_a)
    assert table["Voltage / V"].to_numpy() == pytest.approx(report.log.voltage_v)


def test_all_problems_at_once(tmp_path):
    (tmp_path / "no.csv").write_text("nothing\n")
    with pytest.raises(Problems) as caught:
        TECHNIQUE.jobs(
            arguments([str(tmp_path / "no.csv"), "--window", "10", "--mass", "2", "--capacity", "3 V"])
        )
    text = "\n".join(caught.value.problems)
    for part in ("--window", "--mass", "--capacity", "no.csv"):
        assert part in text


def test_a_log_of_rests_cannot_be_reduced(tmp_path):
    (tmp_path / "rest.csv").write_text("Test Time / s,Voltage / V,Current / A\n0,3.5,0\n10,3.5,0\n")
    (job,) = TECHNIQUE.jobs(arguments([str(tmp_path / "rest.csv")]))
    with pytest.raises(ValueError, match="no step charges"):
        job.run()


@pytest.mark.parametrize(("file", "header", "cuts"), [(neware, 1, (700, 701, 1500)), (maccor, 4, (250, 900))])
def test_a_log_in_several_files_is_the_log(file, header: int, cuts: tuple[int, ...], tmp_path, capsys):
    """Cut in the middle of steps, given in any order: every number of every step and cycle."""
    lines = Path(file()).read_text(encoding="utf-8").splitlines(keepends=True)
    head, records = lines[:header], lines[header:]
    paths = []
    for k, (first, last) in enumerate(itertools.pairwise((0, *cuts, len(records)))):
        paths.append(tmp_path / f"{k}.csv")
        paths[-1].write_text("".join([*head, *records[first:last]]), encoding="utf-8")
    assert reduce.main(["cycling", file(), "--json"]) == 0
    (whole,) = json.loads(capsys.readouterr().out)["files"]
    assert reduce.main(["cycling", *map(str, paths[::-1]), "--merge", "--json"]) == 0
    (merged,) = json.loads(capsys.readouterr().out)["files"]
    assert merged["notes"] == [f"one log in {len(paths)} files: " + ", ".join(path.name for path in paths)]
    for name in ("file", "sha256", "inputs", "notes"):
        whole.pop(name, None)
        merged.pop(name, None)
    assert merged == whole
    paths[0].write_text("".join([*head, *records[: cuts[0] + 5]]), encoding="utf-8")
    assert reduce.main(["cycling", *map(str, paths), "--merge"]) == 2
    assert "only a log whose test time goes on can be put together" in capsys.readouterr().err
