"""``operando tune``'s second half: what a person is told of a record."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controller.offline import identify
from tests.edge import test_thermal_errors as plants


def written(tmp_path, one):
    """Return the file of a record as the tuning writes it: powers are since the tick before."""
    given = np.append(0.0, one.power[:-1])
    columns = (one.time_s, one.temperature_k, given, np.full(given.size, 333.0))
    told = {
        "kind": "operando tune record", "station": "test", "device": "oven", "own_loop": False, "at_k": 333.0,
        "full_w": 40.0, "period_s": 0.5, "lab_speed": 1.0, "relay": None,
        "rows": np.stack(columns, axis=1).tolist(),
    }  # fmt: skip
    path = tmp_path / "record.json"
    path.write_text(json.dumps(told))
    return path


@pytest.fixture
def short(tmp_path):
    """A table of five minutes in the middle of a record, which begins hot."""
    one, truth = plants.record(np.random.default_rng(3), plants.ONE)
    middle_s = 0.5 * one.time_s[-1]
    part = (one.time_s >= middle_s) & (one.time_s < middle_s + 300.0)
    path = tmp_path / "part.csv"
    columns = np.stack((one.time_s, one.temperature_k, one.power), axis=1)[part]
    np.savetxt(path, columns, delimiter=",", header="time_s,temperature_k,power_w", comments="")
    return path, truth


def test_a_room_that_was_measured_makes_the_loss_better_known(short, tmp_path, capsys):
    path, truth = short
    found = []
    for more in ([], ["--room", f"{truth['ambient_k']:.2f} K", "--room-within", "0.05 K"]):
        identify.main([str(path), "--out", str(tmp_path / "tune"), *more])
        found.append(json.loads((tmp_path / "tune" / "tune.json").read_text())["parameters"])
    alone, known = (one["loss"] for one in found)
    assert known["sigma"] < 0.7 * alone["sigma"]
    assert abs(known["value"] - plants.LOSS) < 3.0 * known["sigma"]
    assert f"{known['value']:.4g} +- {known['sigma']:.2g} W/K" in capsys.readouterr().out


def test_a_room_without_an_error_is_refused(short, tmp_path, capsys):
    path, _ = short
    code = identify.main([str(path), "--out", str(tmp_path), "--room", "296 K", "--room-within", "0 K"])
    assert code == identify.EXIT_FILES
    assert "an error above zero" in capsys.readouterr().err


def test_residuals_that_are_more_than_noise_are_told(tmp_path, capsys):
    one, _ = plants.record(np.random.default_rng(12), plants.ONE, correlated=True)
    identify.main([str(written(tmp_path, one)), "--out", str(tmp_path)])
    assert "there is more than noise" in capsys.readouterr().out
    one, _ = plants.record(np.random.default_rng(12), plants.ONE)
    identify.main([str(written(tmp_path, one)), "--out", str(tmp_path)])
    assert "there is more than noise" not in capsys.readouterr().out


def test_a_room_in_the_record_counts_and_can_be_corrected(tmp_path, capsys):
    one, truth = plants.record(np.random.default_rng(3), plants.ONE)
    path = written(tmp_path, one)
    told = json.loads(path.read_text())

    def found(*more):
        identify.main([str(path), "--out", str(tmp_path / "tune"), *more])
        return json.loads((tmp_path / "tune" / "tune.json").read_text())

    told["room_k"] = [truth["ambient_k"], 0.01]
    path.write_text(json.dumps(told))
    assert found()["parameters"]["ambient_k"]["sigma"] <= 0.01  # the record alone: 0.1 K
    assert f"with the room at {truth['ambient_k']:.2f}" in capsys.readouterr().out
    wrong = found("--room", f"{truth['ambient_k'] + 8.0:.2f} K", "--room-within", "0.2 K")
    assert wrong["record"]["room_k"] == [pytest.approx(truth["ambient_k"] + 8.0, abs=0.01), 0.2]
    assert "another temperature" in capsys.readouterr().out
