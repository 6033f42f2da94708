"""A driver package of somebody else's, built and installed as a user would, in a whole run.

Its source is in ``tests/third_party/acme_gauge``; it was written from ``drivers/README.md``, and nothing of
this tree knows of it. Its instrument stands here: a vacuum gauge on a TCP port.
"""

import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest

from controller.config import ConfigErrors, load_station
from hil_tests.harness import REPOSITORY, Run, experiment, operando, scan_step

PACKAGE = REPOSITORY / "tests" / "third_party" / "acme_gauge"
ORIGIN = {
    "name": "acme_gauge", "code": "acme_operando:Gauge", "distribution": "acme-operando", "version": "1.0",
}  # fmt: skip
STEPS = f"""{scan_step("as prepared", (8, 12), 10.0, "until = { passes = 1 }")}
[[step]]
do = "ocv"
duration = "10 min"
interval = "2 s"
"""


class Gauge(socketserver.ThreadingTCPServer):
    """The instrument: answers a line with a line."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        self.pressure = "2.5e-6"
        super().__init__(("127.0.0.1", 0), GaugeLine)


class GaugeLine(socketserver.StreamRequestHandler):
    """One connection to it."""

    def handle(self):
        for line in self.rfile:
            answers = {b"P?\n": self.server.pressure, b"F?\n": "ON", b"ID?\n": "Acme,G-1,0815"}
            self.wfile.write(answers[line].encode() + b"\n")


@pytest.fixture
def gauge():
    with Gauge() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel of the package and install it beside nothing else, without a network."""
    folder = tmp_path_factory.mktemp("acme")
    source = folder / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index"]
    how = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(folder / "site")]
    done = subprocess.run([*pip, *how, str(source)], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture
def station(world, gauge, tmp_path):
    """The station of the bench with one more instrument and a row about it."""
    path = tmp_path / "station.toml"
    path.write_text(
        world.station.read_text()
        + f"""
[line.gauge]
kind = "tcp"
host = "127.0.0.1"
port = {gauge.server_address[1]}

[device.gauge]
driver = "acme_gauge"
line = "gauge"
period = "1 s"
zero_mbar = 5e-7

[[interlock]]
name = "pressure"
condition = "gauge.pressure > 1e-2 Pa or gauge.filament == false"
grace = "0 s"
action = "safe"
"""
    )
    return path


def with_package(monkeypatch, installed):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(installed)]))
    monkeypatch.setenv("OPERANDO_TEST_PATH", str(installed))


def told(station):
    """Return every complaint about a station file."""
    with pytest.raises(ConfigErrors) as refused:
        load_station(station)
    return "\n".join(str(problem) for problem in refused.value.problems)


def test_without_the_package_its_driver_is_not_known(station):
    assert 'device.gauge.driver = "acme_gauge" is no known driver' in told(station)


def test_check_names_who_answered_what_it_reads_and_what_it_cannot_guard(station, installed, monkeypatch):
    with_package(monkeypatch, installed)
    done = operando("check", str(station), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [row for row in json.loads(done.stdout)["devices"] if row["name"] == "gauge"]
    assert row["identity"]["serial"] == "0815"
    assert row["driver_from"] == ORIGIN
    assert row["reading"] == "pressure 2e-06 mbar, filament yes"
    assert row["notes"] == ["its filament stays on when the host is gone"]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("gauge.temperature > 3 K", "of this device it knows gauge.pressure, gauge.filament"),
        ("gauge.pressure > 3 K", "a value in mbar is needed"),
        ("gauge.pressure > 3", "has no unit"),
    ],
)
def test_a_row_about_it_is_understood_before_anything_is_connected(
    station, installed, monkeypatch, wrong, complaint
):
    monkeypatch.syspath_prepend(installed)
    assert load_station(station).monitors["gauge"] == {"pressure": "mbar", "filament": None}
    station.write_text(station.read_text().replace("gauge.pressure > 1e-2 Pa", wrong))
    assert complaint in told(station)


def test_a_run_polls_records_and_publishes_it_and_its_row_ends_the_run(
    station, installed, gauge, tmp_path, monkeypatch
):
    with_package(monkeypatch, installed)
    run = Run.start(tmp_path, experiment(tmp_path / "rest.toml", STEPS), "--station", str(station))
    try:
        run.until(lambda _status: len(documents(run)) >= 3, "three readings of the gauge")
        gauge.pressure = "----"  # not known, for less than its grace: nothing happens
        run.until(lambda _status: run.events("monitor")[-1]["body"]["values"]["pressure"] is None, "no value")
        gauge.pressure = "2.5e-6"
        run.until(lambda _status: run.events("monitor")[-1]["body"]["values"]["pressure"], "a value again")
        gauge.pressure = "3e-4"  # mbar: 0.03 Pa
        assert run.ended(seconds=120) == 4
    finally:
        run.kill_all()
    (trip,) = run.record["trips"]
    assert trip["id"] == "interlock-pressure"
    first = run.events("monitor")[0]
    assert first["module"] == "gauge"
    assert first["body"]["values"] == {"pressure": pytest.approx(2e-6), "filament": True}
    assert first["body"]["units"] == {"pressure": "mbar", "filament": None}
    (described,) = [e["body"] for e in run.events("describe")]
    assert described["modules"]["gauge"]["parameters"]["pressure"]["unit"] == "mbar"
    states = [e["body"] for e in run.events("state") if e["module"] == "gauge"]
    assert {"mbar"} == {body["unit"] for body in states if "unit" in body}
    in_documents(run)
    in_nexus(run)
    in_the_record(run)


def in_the_record(run):
    """Whose driver it was, and which version: journal, summary and report."""
    (told,) = [e["body"] for e in run.events("instruments")]
    summary = json.loads((run.run_dir / "summary.json").read_text())
    for instruments in (told, summary["instruments"]):
        assert instruments["gauge"]["driver"] == ORIGIN
        assert instruments["cell"]["driver"]["distribution"] == "operando"
    report = (run.run_dir / "report.html").read_text()
    assert "driver acme_gauge from elsewhere: acme-operando 1.0" in report.replace("\u00a0", " ")
    assert report.count("from elsewhere") == 1


def documents(run):
    """Return the readings of further devices, as the documents of the run have them."""
    return [e["body"]["data"] for e in run.events("doc/event") if "gauge_pressure" in e["body"]["data"]]


def in_documents(run):
    descriptors = [e["body"] for e in run.events("doc/descriptor")]
    (described,) = [body for body in descriptors if body["name"] == "monitors"]
    assert described["data_keys"]["gauge_pressure"]["units"] == "mbar"
    assert documents(run)[0] == {"gauge_pressure": pytest.approx(2e-6), "gauge_filament": True}


def in_nexus(run):
    (path,) = Path(run.run_dir).glob("*.nxs")
    with h5py.File(path) as file:
        log = file["entry/instrument/gauge/pressure"]
        assert log["value"].attrs["units"] == "mbar"
        values = log["value"][()]
    assert np.isnan(values).any()
    assert np.nanmax(values) == pytest.approx(3e-4 - 5e-7)


def test_the_package_is_what_the_documentation_shows():
    """What the outsider needed is in the README: roles, channels, the entry point, the station file."""
    readme = (REPOSITORY / "drivers" / "README.md").read_text()
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert list(project["entry-points"]) == ["operando.drivers"]
    for word in ("channels", "read_values", "Role.MONITOR", '[project.entry-points."operando.drivers"]'):
        assert word in readme
