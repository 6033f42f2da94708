"""The potentiostat's twin driven by somebody else's client: the driver of ``labmcp-palmsens`` (Apache-2.0).

It knows nothing of us. It is not among our dependencies (its server part brings many of its own); install it
with ``pip install --no-deps labmcp-palmsens`` to run this. Its only needs are the four names defined here.
"""

import asyncio
import importlib.util
import sys
import threading
import types
from pathlib import Path

import pytest
import serial

from hil_tests.emstat_host import SHEET_CCCV, emstat_bench

FOUND = importlib.util.find_spec("labmcp_palmsens")
pytestmark = pytest.mark.skipif(FOUND is None, reason="labmcp-palmsens is not installed")


class ForeignError(Exception):
    pass


class Protocol(ForeignError):
    pass


class Timeout(ForeignError):
    pass


class Transport:
    """Lines over a serial port, as that driver asks for them."""

    def __init__(self, port):
        self.lock = threading.RLock()
        self._port = serial.Serial(port, 921600)

    def write(self, line):
        self._port.write(line.encode("ascii") + b"\n")

    def read(self, timeout):
        self._port.timeout = timeout
        raw = self._port.readline()
        if not raw.endswith(b"\n"):
            raise Timeout(repr(raw))
        return raw[:-1].decode("ascii")

    def flush_input(self):
        self._port.reset_input_buffer()

    def close(self):
        self._port.close()


@pytest.fixture
def foreign(monkeypatch):
    names = types.ModuleType("labmcp")
    names.InstrumentError, names.InstrumentProtocolError = ForeignError, Protocol
    names.InstrumentTimeout, names.Transport = Timeout, Transport
    monkeypatch.setitem(sys.modules, "labmcp", names)
    path = Path(FOUND.origin).parent / "driver.py"
    spec = importlib.util.spec_from_file_location("foreign_driver", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "foreign_driver", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def client(foreign):
    async with emstat_bench() as make:
        twin, host = await make(speed=2000.0)
        port = host.port.port
        host.port.close()
        device = foreign.MethodScriptDevice(Transport(port))
        yield twin, device
        device.close()


async def test_identify(client):
    _, device = client
    info = await asyncio.to_thread(device.identify)
    assert (info["model"], info["serial"], info["firmware"]) == ("EmStat4 HR", "ES4HR20B0008", "1.3.01")


async def test_runs_the_script_of_the_sheet(client):
    twin, device = client
    result = await asyncio.to_thread(device.execute, SHEET_CCCV.strip().split("\n"), 20.0)
    assert result.error is None
    assert not result.timed_out
    assert not result.malformed
    assert len(result.packets) == twin.counters()["points"] > 100
    last = {variable.type: variable.value for variable in result.packets[-1][1]}
    assert last["ba"] <= 2e-6
    assert last["ab"] == pytest.approx(4.0, abs=1e-6)


async def test_parse_error_is_understood(client, foreign):
    _, device = client
    with pytest.raises(Protocol, match=r"line 2, column 14 .*0x4004"):
        await asyncio.to_thread(device.execute, ["var x", "store_var x 3.5 ja"], 5.0)


async def test_runtime_error_is_followed_by_a_cell_off_of_theirs(client):
    twin, device = client
    script = [
        "var x",
        "set_pgstat_mode 2",
        "set_e 3900m",
        "cell_on",
        "div_var x 0",
        "on_finished:",
        "cell_off",
    ]
    result = await asyncio.to_thread(device.execute, script, 5.0)
    assert "0x0028 at script line 5" in result.error
    assert result.cell_off_sent
    assert not twin.counters()["cell_on"]


async def test_abort_of_theirs_ends_a_running_script(client):
    twin, device = client
    endless = ["var x", "loop x == x", "wait 1", "endloop"]
    result = await asyncio.to_thread(device.execute, endless, 0.1)
    assert result.timed_out
    assert result.aborted
    assert not twin.running
    report = await asyncio.to_thread(device.abort)
    assert report["stopped"]


@pytest.mark.parametrize(
    ("mode", "set_up", "loop"),
    [
        (3, "set_e 3900m", "meas_loop_eis f r j 10m 10k 1 9i 3900m"),
        (6, "set_range db 10u\nset_i 0", "meas_loop_geis f r j 2u 10k 1 9i 0"),
    ],
)
async def test_their_client_reads_a_sweep(client, mode, set_up, loop):
    """A Randles circuit as its parameters say: 2.5 kohm at the top, 2 kohm more below the arc of 40 Hz."""
    _, device = client
    script = ["var f", "var r", "var j", f"set_pgstat_mode {mode}", *set_up.split("\n"), "cell_on", loop]
    script += ["pck_start", "pck_add f", "pck_add r", "pck_add j", "pck_end", "endloop"]
    result = await asyncio.to_thread(device.execute, [*script, "on_finished:", "cell_off"], 20.0)
    assert result.error is None
    assert not result.malformed
    points = [{v.type: v.value for v in packet[1]} for packet in result.packets]
    assert [point["dc"] for point in points] == pytest.approx([10 ** (4 - k / 2) for k in range(9)], rel=1e-5)
    assert points[0]["cc"] == pytest.approx(2500.0, rel=0.001)
    assert points[-1]["cc"] == pytest.approx(4500.0 + 61.2 / (2 * 3.14159) ** 0.5, rel=0.01)
    assert max(point["cd"] for point in points) < 0.0
