from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from controller.journal_rows import Record
from controller.journal_store import Journal
from controller.offline.export import write_bdf, write_impedance, write_profiles
from controller.offline.finish import Finish
from controller.offline.maps_out import write_maps
from controller.offline.nexus import write_nexus
from controller.offline.run_files import RunFiles
from controller.reduce.products import encode
from tests.controller.offline.make_run import (
    CC_END,
    CHARGE_A,
    LAB,
    QUANTITIES,
    RUN,
    SPEED,
    WALL,
    charge_coulomb,
    make_run,
    temperature_k,
)

# Battery Data Format, preferred labels: https://w3id.org/battery-data-alliance/ontology/battery-data-format
REQUIRED = ["Test Time / s", "Voltage / V", "Current / A"]
OPTIONAL = [
    "Unix Time / s", "Step Count / 1", "Ambient Temperature / degC", "Charging Capacity / Ah",
    "Discharging Capacity / Ah",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    run = RunFiles(folder)
    assert run.record is not None
    assert write_bdf(run, run.record["steps"], folder / "cell.bdf.csv") == 1  # the overload at 2005 s
    with (folder / "cell.bdf.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def nexus(folder: Path) -> Path:
    finish = Finish(folder)
    finish._read()
    path = folder / "run.nxs"
    assert write_nexus(RunFiles(folder), finish.summary(), path) == []
    return path


# --- Battery Data Format -------------------------------------------------------------------------------


def test_columns_are_the_published_ones(rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == REQUIRED + OPTIONAL


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def test_time_begins_at_zero_and_only_grows(rows: list[dict[str, str]]) -> None:
    time = column(rows, "Test Time / s")
    assert time[0] == 0.0
    assert np.all(np.diff(time) > 0.0)
    assert time[-1] == pytest.approx(4115.0 - 905.0)
    unix = column(rows, "Unix Time / s")
    assert unix[0] == pytest.approx(WALL + 905.0 / SPEED, abs=1e-3)
    assert np.diff(unix).sum() == pytest.approx(time[-1] / SPEED, abs=2e-3)  # a bench's wall clock


def test_an_invalid_reading_is_left_out(rows: list[dict[str, str]]) -> None:
    time = column(rows, "Test Time / s")
    assert 2005.0 - 905.0 not in time
    assert {1995.0 - 905.0, 2015.0 - 905.0} <= set(time)


def test_current_is_zero_at_open_circuit_and_as_measured_else(rows: list[dict[str, str]]) -> None:
    time, current = column(rows, "Test Time / s") + 905.0, column(rows, "Current / A")
    assert np.all(current[time < 1190.0] == 0.0)
    assert current[(time > 1190.0) & (time <= CC_END)] == pytest.approx(CHARGE_A)
    last = CHARGE_A * np.exp(-(4115.0 - CC_END) / 700.0)
    assert current[-1] == pytest.approx(last, rel=1e-8)


def test_capacity_is_what_passed(rows: list[dict[str, str]]) -> None:
    last_ah = float(rows[-1]["Charging Capacity / Ah"])
    assert last_ah == pytest.approx(charge_coulomb(4115.0) / 3600.0, rel=1e-8)
    assert set(column(rows, "Discharging Capacity / Ah")) == {0.0}


def test_temperature_is_the_nearest_and_empty_when_it_was_invalid(rows: list[dict[str, str]]) -> None:
    by_time = {round(float(row["Test Time / s"]) + 905.0): row["Ambient Temperature / degC"] for row in rows}
    assert float(by_time[3005]) == pytest.approx(333.0 - 273.15, abs=0.005)
    assert by_time[2505] == by_time[2515] == ""  # the sensor was broken


def test_steps_of_the_cell_are_counted(rows: list[dict[str, str]]) -> None:
    steps = column(rows, "Step Count / 1")
    time = column(rows, "Test Time / s") + 905.0
    assert steps[0] == 1
    assert set(steps[(time > 1155.0) & (time < 1185.0)]) == {2}
    assert set(steps[time > 1185.0]) == {3}


def bodies(tmp_path: Path, samples: list[dict[str, Any]]) -> RunFiles:
    """A run with these readings of the cell, one every second, and a temperature an hour before."""
    path = tmp_path / "r"
    path.mkdir()
    rows = [Record("sample", "heater", {"temperature_k": 300.0}, run="r", lab_s=0.0, wall_s=WALL)]
    for s, body in enumerate(samples):
        told = {"valid": True, "voltage_v": 3.9, **body}
        rows.append(Record("sample", "cell", told, run="r", lab_s=3600.0 + s, wall_s=WALL + s))
    with Journal.open(path / "journal.sqlite", station="bench") as journal:
        journal.boot("run")
        journal.start_run("r", experiment="x", directory="r")
        journal.record_many(rows)
    return RunFiles(path)


def test_charge_and_discharge_are_kept_apart(tmp_path: Path) -> None:
    charges = [0.0, 3.6, 7.2, 3.6]
    run = bodies(tmp_path, [{"phase": "cc", "current_a": 1.0, "charge_coulomb": q} for q in charges])
    write_bdf(run, [], tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["Charging Capacity / Ah"]) for row in rows] == pytest.approx([0.0, 0.001, 0.002, 0.002])
    assert [float(row["Discharging Capacity / Ah"]) for row in rows] == pytest.approx([0, 0, 0, 0.001])


def test_a_current_that_was_not_measured_stays_empty(tmp_path: Path) -> None:
    run = bodies(tmp_path, [{"phase": "cv", "current_a": None, "charge_coulomb": 0.0}])
    write_bdf(run, [], tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["Current / A"] == ""
    assert row["Ambient Temperature / degC"] == ""  # the only reading is an hour old


def test_impedance_is_no_time_series(tmp_path: Path) -> None:
    open_circuit = {"phase": "ocv", "current_a": None, "charge_coulomb": 0.0}
    point = {**open_circuit, "phase": "eis", "frequency_hz": 1000.0, "z_ohm": [25.0, -3.5]}
    run = bodies(tmp_path, [open_circuit, point])
    write_bdf(run, [], tmp_path / "c.csv")
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 2  # head and the open circuit
    assert write_impedance(run, tmp_path / "z.csv")
    with (tmp_path / "z.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    values = ("1000.0", "25.0", "-3.5")
    assert (row["Frequency / Hz"], row["Real Impedance / ohm"], row["Imaginary Impedance / ohm"]) == values


def test_without_readings_there_is_no_file(tmp_path: Path) -> None:
    run = RunFiles(tmp_path)
    assert write_bdf(run, [], tmp_path / "c.csv") == 0
    assert not write_impedance(run, tmp_path / "z.csv")
    assert not write_profiles(run, tmp_path / "p.csv")
    assert list(tmp_path.iterdir()) == []


# --- profiles ------------------------------------------------------------------------------------------


def test_profiles_are_the_products(folder: Path, tmp_path: Path) -> None:
    run = RunFiles(folder)
    assert write_profiles(run, tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["scan"], row["element"]) == ("2", "Co")]
    product = run.find("profile/Co", 2)
    assert product is not None
    fields = product.load()
    for name, key in (
        ("position / um", "position_um"), ("value", "values"), ("sigma (statistical)", "sigma"),
        ("sigma (systematic)", "sigma_sys"),
    ):  # fmt: skip
        assert [float(row[name]) for row in rows] == pytest.approx(list(fields[key]), rel=1e-8)
    assert {row["unit"] for row in rows} == {"1/nC"}
    assert {row["name"] for row in rows} == {"charging"}


# --- NeXus ---------------------------------------------------------------------------------------------


def groups(file: h5py.File) -> list[h5py.Group]:
    found: list[h5py.Group] = [file]
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Group) else None)
    return found


def test_default_leads_to_the_lithium_map_of_the_last_scan(folder: Path, nexus: Path) -> None:
    with h5py.File(nexus) as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        assert data.attrs["NX_class"] == "NXdata"
        assert data["title"].asstr()[()] == "map Li, scan after"
        product = RunFiles(folder).find("map/Li", 3)
        assert product is not None
        fields = product.load()
        signal = data[data.attrs["signal"]]
        assert np.array_equal(signal, fields["values"])
        assert np.array_equal(data["values_errors"], fields["sigma"])
        assert list(data.attrs["axes"]) == ["y", "x"]
        assert np.array_equal(data["y"], fields["y_um"])
        assert np.array_equal(data["x"], fields["x_um"])


def test_every_group_has_a_class_and_every_name_is_allowed(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        for group in groups(file):
            assert str(group.attrs["NX_class"]).startswith("NX"), group.name
            for name in group:
                assert name.replace("_", "a").isalnum(), name
                assert not name[0].isdigit()


def test_every_nxdata_can_be_plotted(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        seen = 0
        for group in groups(file):
            if group.attrs["NX_class"] != "NXdata":
                continue
            seen += 1
            signal = group[group.attrs["signal"]]
            axes = list(group.attrs["axes"])
            assert len(axes) == signal.ndim
            for other in group.attrs.get("auxiliary_signals", []):
                assert group[other].shape == signal.shape, group.name
            for index, axis in enumerate(axes):
                assert group[axis].shape == (signal.shape[index],), group.name
                assert group.attrs[f"{axis}_indices"] == index
            if "values_errors" in group:
                assert group["values_errors"].shape == signal.shape
        assert seen == 27


def test_every_number_has_units(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        checked = []

        def check(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                checked.append(name)
                assert "units" in item.attrs, name

        file.visititems(check)
        assert len(checked) > 100
        assert file["entry/map_Li_scan_3/values"].attrs["units"] == "counts"
        assert file["entry/map_Li_scan_3/x"].attrs["units"] == "um"
        assert file["entry/profile_Co_scan_2/values"].attrs["units"] == "1/nC"
        assert file["entry/spectrum_pige_scan_1/energy"].attrs["units"] == "keV"
        assert file["entry/sample/environment/temperature/value"].attrs["units"] == "K"
        assert file["entry/sample/environment/charge/value"].attrs["units"] == "C"


def test_values_equal_the_products(folder: Path, nexus: Path) -> None:
    with h5py.File(nexus) as file:
        for product in RunFiles(folder).products:
            fields = product.load()
            group = file["entry"][f"{product.stream.replace('/', '_')}_scan_{product.scan}"]
            assert np.array_equal(group["values"], fields["values"], equal_nan=True)
            assert group["values"].dtype == fields["values"].dtype
            names = {"sigma": "values_errors", "sigma_sys": "values_systematic_errors", "gross": "gross"}
            for key, name in names.items():
                if key in fields:
                    assert np.array_equal(group[name], fields[key])


def test_results_have_both_errors(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        place = file["entry/process/cathode"]
        for name, (value, stat, sys) in QUANTITIES.items():
            assert place[name][()] == value
            assert place[f"{name}_errors"][()] == stat
            assert place[f"{name}_systematic_errors"][()] == sys


def test_invalid_readings_are_not_numbers(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        log = file["entry/sample/environment/temperature"]
        at = log["time"][...] - LAB
        broken = (at >= 2500.0) & (at < 2520.0)
        assert np.all(np.isnan(log["value"][...][broken]))
        assert np.all(np.isfinite(log["value"][...][~broken]))


def test_who_measured_is_told(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        maker = file["entry/instrument/cell/fabrication"]
        assert maker["model"].asstr()[()] == "EmStat4 HR"
        assert file["entry/instrument/heater/fabrication/serial_number"].asstr()[()] == "not told"
        assert json.loads(file["entry/outcome/data"].asstr()[()])["schema"] == "operando/summary/1"
        assert file["entry/start_time"].asstr()[()] == "2026-01-01T12:00:00+00:00"


def test_readings_obey_nxsensor_scan(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        entry = file["readings"]
        assert entry["definition"].asstr()[()] == "NXsensor_scan"
        assert entry["definition"].attrs["version"]
        assert "definition" not in file["entry"]  # which obeys base classes only, and says no more than that
        for name in ("process/program", "user/name", "sample/name"):
            assert entry[name].asstr()[()], name
        assert {"version", "program_url"} <= set(entry["process/program"].attrs)
        place = entry["instrument/environment"]
        sensors = {name for name, group in place.items() if isinstance(group, h5py.Group)}
        assert sensors == {"target_temperature", "temperature", "voltage", "current", "charge"}
        told = [set(place[key].asstr()[...]) for key in ("independent_controllers", "measurement_sensors")]
        assert told == [{"target_temperature"}, sensors - {"target_temperature"}]
        points = entry["data/time"].shape
        for name in sensors:
            assert place[name]["value"].shape == points
            assert np.array_equal(place[name]["value"], entry["data"][name], equal_nan=True)


def test_a_scan_point_has_the_nearest_reading_and_nothing_from_far_away(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        entry, log = file["readings"], file["readings/instrument/environment/temperature/value_log"]
        cell_s = entry["data/time"][...] + 905.0  # the cell was first read there
        exact = np.array([temperature_k(5.0 * round(s / 5.0)) for s in cell_s])
        values = entry["data/temperature"][...]
        broken = (cell_s >= 2500.0) & (cell_s < 2517.5)
        assert np.all(np.isnan(values[broken]))
        assert np.nanmax(np.abs(values - exact)[~broken]) < 0.6  # half a period of the heater's readings
        assert log["value"].shape[0] == file["entry/sample/environment/temperature/value"].shape[0]


def test_without_scans_the_readings_are_what_is_shown(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=3.0, reduced=False)
    finish = Finish(path)
    finish._read()
    assert write_nexus(RunFiles(path), finish.summary(), path / "run.nxs") == []
    with h5py.File(path / "run.nxs") as file:
        assert file.attrs["default"] == "readings"
        data = file["readings"][file["readings"].attrs["default"]]
        assert data.attrs["signal"] == "temperature"


def test_a_damaged_product_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=1000.0)
    (path / "products" / "scan001_map_Co_0004.cbor").write_bytes(b"\xff")
    finish = Finish(path)
    finish._read()
    problems = write_nexus(RunFiles(path), finish.summary(), path / "run.nxs")
    assert len(problems) == 1
    assert problems[0].startswith("product scan001_map_Co_0004.cbor cannot be read")
    with h5py.File(path / "run.nxs") as file:
        assert file["entry"].attrs["default"] == "map_Li_scan_1"
        assert "map_Co_scan_1" not in file["entry"]


def test_each_exposure_of_a_camera_is_in_the_file_and_among_the_maps(tmp_path: Path) -> None:
    """An exposure has no scan: the newest of several must not stand for all of them."""
    path = make_run(tmp_path, until_s=1000.0, extract=False)
    with Journal.open(path / "state" / "journal.sqlite", station="bench") as journal:
        journal.boot("test")
        for n, (name, level) in {3: ("empty cell", 0.9), 4: ("full cell", 0.6)}.items():
            about = {"exposure": n, "name": name, "purpose": "sample", "partial": False}
            fields = {
                "run": RUN, **about, "element": "radiography", "unit": "1", "shape": [2, 3],
                "values": np.full(6, level, np.float32), "sigma": np.full(6, 0.01, np.float32),
                "x_um": np.arange(3, dtype=np.float32), "y_um": np.arange(2, dtype=np.float32),
            }  # fmt: skip
            product = path / "products" / f"radiography{n:03d}_map_radiography_000001.cbor"
            product.write_bytes(encode(fields))
            body = {"stream": "map/radiography", "path": str(product), "meta": about}
            journal.record("product", "reduce", body, run=RUN)
    run, finish = RunFiles(path), Finish(path)
    finish._read()
    assert write_nexus(run, finish.summary(), path / "run.nxs") == []
    with h5py.File(path / "run.nxs") as file:
        for n, level in ((3, 0.9), (4, 0.6)):
            assert file[f"entry/map_radiography_exposure_{n}/values"][...] == pytest.approx(level)
        assert file["entry/map_radiography_exposure_3/title"].asstr()[()].endswith("exposure empty cell")
    assert write_maps(run, path / "maps") == []
    for n in (3, 4):
        assert (path / "maps" / f"exposure{n:03d}_radiography.csv").is_file()
