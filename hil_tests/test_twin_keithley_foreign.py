"""The Keithley twins driven by foreign clients: ``labmcp-keithley-smu`` (Apache-2.0), PyMeasure (MIT).

Neither is among our dependencies for running. The first is small; its base package brings much, so it is
installed with ``pip install --no-deps labmcp-keithley-smu`` and the few names that it needs are defined here.
PyMeasure brings pandas and Qt: ``pip install pymeasure`` into an environment of its own to run that part.
"""

import asyncio
import importlib.util
import socket
import sys
import threading
import types
from pathlib import Path

import pytest

from hil_tests.keithley_host import QUIET, WARM_K
from hil_tests.sim.clock import LabClock
from hil_tests.sim.keithley_2400 import Keithley2400Twin
from hil_tests.sim.keithley_2450 import Keithley2450Twin
from hil_tests.sim.physics.cell import Cell, CellParameters

SMALL = importlib.util.find_spec("labmcp_keithley_smu")
PYMEASURE = importlib.util.find_spec("pymeasure")
needs_small = pytest.mark.skipif(SMALL is None, reason="labmcp-keithley-smu is not installed")
needs_pymeasure = pytest.mark.skipif(PYMEASURE is None, reason="pymeasure is not installed")
MODELS = {"2400": Keithley2400Twin, "2450": Keithley2450Twin}
both = pytest.mark.parametrize("model", list(MODELS))


class ForeignError(Exception):
    pass


class Wire:
    """Lines over a serial port or a socket, in the shape that client asks for."""

    def __init__(self, where):
        self.lock = threading.RLock()
        host, _, port = where.rpartition(":")
        self._socket = None
        if host:
            self._socket = socket.create_connection((host, int(port)), timeout=5.0)
            self._stream = self._socket.makefile("rwb", buffering=0)
        else:
            import serial

            self._stream = serial.Serial(where, 57600, timeout=5.0)

    def write(self, line):
        self._stream.write(line.encode("ascii") + b"\n")

    def read(self):
        raw = self._stream.readline()
        assert raw.endswith(b"\n"), raw
        return raw.strip().decode("ascii")

    def close(self):
        self._stream.close()
        if self._socket is not None:
            self._socket.close()


class ScpiDriver:
    """What that client's base package offers it."""

    def __init__(self, transport):
        self.t = transport

    def write(self, command):
        with self.t.lock:
            self.t.write(command)

    def query(self, command, timeout=None):
        with self.t.lock:
            self.t.write(command)
            return self.t.read()

    def query_float(self, command):
        return float(self.query(command))

    def query_bool(self, command):
        return bool(float(self.query(command)))

    def errors(self):
        found = []
        while not (entry := self.query(":SYST:ERR?")).lstrip("+").startswith("0,"):
            found.append(entry)
        return found


@pytest.fixture
def foreign(monkeypatch):
    names, scpi = types.ModuleType("labmcp"), types.ModuleType("labmcp.scpi")
    names.InstrumentConnectionError = names.InstrumentProtocolError = ForeignError
    names.Transport, scpi.SCPIDriver = Wire, ScpiDriver
    monkeypatch.setitem(sys.modules, "labmcp", names)
    monkeypatch.setitem(sys.modules, "labmcp.scpi", scpi)
    spec = importlib.util.spec_from_file_location("foreign_smu", Path(SMALL.origin).parent / "driver.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "foreign_smu", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def twin(model):
    cell = Cell(CellParameters(start_x=0.8), temperature_k=lambda: WARM_K)
    made = MODELS[model](cell, LabClock(speed=20.0), {**QUIET, "power_on": "HIMP"})
    made.where = await made.start()
    yield made
    await made.stop()


@needs_small
@both
async def test_a_small_client_charges_and_stops(twin, model, foreign):
    def use():
        wire = Wire(twin.where)
        wire.write("*IDN?")
        smu = {"2400": foreign.Keithley2400, "2450": foreign.Keithley2450}[model](wire, wire.read())
        assert smu.identify()["model"] == model
        smu.set_remote_sense(enabled=True)
        smu.configure("voltage", 4.0, 13e-6, nplc=1.0)
        smu.set_output(True)
        status, reading = smu.measure()
        smu.request_abort()
        assert smu.error_list() == []
        smu.close()
        return status, reading

    status, reading = await asyncio.to_thread(use)
    assert (status.output_on, status.source, status.level, status.remote_sense) == (
        True,
        "voltage",
        4.0,
        True,
    )
    assert status.compliance == pytest.approx(13e-6)
    assert reading.in_compliance
    assert reading.current_a == pytest.approx(13e-6, rel=1e-3)
    assert reading.voltage_v < 4.0
    assert not twin.counters()["cell_on"]
    assert twin.counters()["readings"] == 1


@needs_small
@both
async def test_a_sweep_of_theirs(twin, model, foreign):
    def use():
        wire = Wire(twin.where)
        wire.write("*IDN?")
        smu = {"2400": foreign.Keithley2400, "2450": foreign.Keithley2450}[model](wire, wire.read())
        smu.configure("current", 0.0, 4.5, source_range=1e-4)
        found = smu.sweep("current", [0.0, 5e-6, 1e-5])
        smu.close()
        return found

    found = await asyncio.to_thread(use)
    volts = [reading.voltage_v for reading in found.readings]
    assert found.stop_reason is None
    assert volts == sorted(volts)
    assert [reading.current_a for reading in found.readings] == pytest.approx([0.0, 5e-6, 1e-5], abs=1e-8)
    assert not twin.counters()["cell_on"]


@needs_pymeasure
@pytest.mark.filterwarnings("ignore::FutureWarning")
@both
async def test_pymeasure_charges_and_stops(twin, model):
    from pymeasure.adapters import ProtocolAdapter
    from pymeasure.instruments.keithley import Keithley2400, Keithley2450

    class Adapter(ProtocolAdapter):
        def __init__(self):
            super().__init__()
            self.wire = Wire(twin.where)

        def _write(self, command, **_kwargs):
            self.wire.write(command)

        def _read(self, **_kwargs):
            return self.wire.read()

    def use():
        smu = {"2400": Keithley2400, "2450": Keithley2450}[model](Adapter())
        assert f"MODEL {model}" in smu.id
        smu.apply_voltage(voltage_range=20, compliance_current=13e-6)
        smu.source_voltage = 4.0
        smu.enable_source()
        smu.measure_current(nplc=1, current=1e-4, auto_range=False)
        found = smu.compliance_current, smu.source_voltage, smu.ask(":READ?")
        smu.disable_source()
        assert smu.ask(":SYST:ERR?").startswith("0,")
        smu.adapter.wire.close()
        return found

    compliance_a, volt, _ = await asyncio.to_thread(use)
    assert (compliance_a, volt) == (pytest.approx(13e-6), 4.0)
    assert twin.counters()["readings"] == 1
    assert not twin.counters()["cell_on"]
