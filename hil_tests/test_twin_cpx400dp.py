"""The supply's twin: lines of the sheet, foreign clients, trips, and the holder that it heats."""

import asyncio
import math
import socket
import types

import pytest

from hil_tests.sim.aimtti_cpx400dp import CpxTwin
from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.physics.holder import Holder, HolderParameters


def twin(holder=None, relay_closed=lambda: True, **settings):
    return CpxTwin(holder, ManualClock(), relay_closed, settings)


def says(device, line, who="a"):
    return device.answer(line, who).decode()


def test_worked_line_of_the_sheet():
    ask = bytes.fromhex("56 31 20 31 32 2e 30 30 30 3b 56 31 3f 0a").decode().rstrip("\n")
    assert twin().answer(ask, "a") == bytes.fromhex("56 31 20 31 32 2e 30 30 30 0d 0a")


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("I1 1.5;I1?", "I1 1.500\r\n"),
        ("OVP1 15;OVP1?", "VP1 15.0\r\n"),
        ("OCP1 2;OCP1?", "CP1 2.00\r\n"),
        ("op1 1; op1?", "1\r\n"),
        ("V1 12;OP1 1;V1O?;I1O?", "12.000V\r\n0.480A\r\n"),
        ("V3 1;EER?", "103\r\n"),
        ("V1 61;EER?;EER?", "100\r\n0\r\n"),
        ("WHAT?;*ESR?;*ESR?", "160\r\n0\r\n"),  # power-on and command error, cleared by reading
        ("V1;V1 x;*ESR?", "160\r\n"),
        ("LSR1 3;*ESR?", "160\r\n"),
        ("OPALL 1;OP2?;OPALL 0;OP2?", "1\r\n0\r\n"),
        ("V1 5", ""),
        (";;", ""),
    ],
)
def test_lines(line, reply):
    assert says(twin(), line) == reply


def test_current_limit_and_power_envelope():
    device = twin(heater_ohm=5.0)
    says(device, "V1 20;I1 2;OP1 1")
    assert says(device, "V1O?;I1O?") == "10.000V\r\n2.000A\r\n"
    assert int(says(device, "LSR1?")) & 2
    says(device, "I1 20;V1 60")
    volt, ampere, _ = device.outputs[0].terminals()
    assert volt * ampere == pytest.approx(420.0)


@pytest.mark.parametrize(("setting", "bit"), [("OVP1 5", 4), ("OCP1 2", 8)])
def test_trips_hold_the_output_off_until_they_are_cleared(setting, bit):
    device = twin(heater_ohm=2.0)
    says(device, f"I1 20;V1 6;OP1 1;{setting}")
    assert says(device, "OP1?") == "0\r\n"
    assert int(says(device, "LSR1?")) & bit
    assert int(says(device, "LSR1?")) & bit == 0
    assert says(device, "V1 3;OP1 1;OP1?") == "0\r\n"
    assert says(device, "TRIPRST;OP1 1;OP1?") == "1\r\n"
    device.inject({"kind": "trip", "state": "hard"})
    assert says(device, "TRIPRST;OP1 1;OP1?") == "0\r\n"


def test_the_lock():
    device = twin()
    assert says(device, "IFLOCK?", "a") == "0\r\n"
    assert says(device, "IFLOCK", "a") == "1\r\n"
    assert says(device, "IFLOCK;V1 3;EER?;V1?", "b") == "-1\r\n200\r\nV1 0.000\r\n"
    assert says(device, "IFUNLOCK", "b") == "-1\r\n"
    assert says(device, "IFUNLOCK", "a") == "0\r\n"


def test_it_heats_the_holder_through_the_relay():
    closed = [False]
    holder = Holder(HolderParameters(), start_k=296.0)
    device = twin(holder, lambda: closed[0])
    says(device, "V1 20;OP1 1")
    device.advance(10.0)
    assert holder.heater_joule == 0.0
    closed[0] = True
    device.advance(20.0)
    assert holder.heater_joule == pytest.approx(160.0, rel=0.02)  # 20 V into 25 ohm for 10 s
    device.inject({"kind": "sag", "fraction": 0.9})
    device.advance(30.0)
    assert holder.heater_joule == pytest.approx(160.0 * 1.81, rel=0.02)
    assert device.counters()["output_w"] == pytest.approx(16.0 * 0.81, rel=1e-6)


def test_a_reset_forgets_everything_and_heats_nothing():
    device = twin()
    says(device, "V1 20;OP1 1;IFLOCK")
    device.inject({"kind": "reset", "boot_s": 2.0})
    assert says(device, "OP1?") == ""
    assert not device.counters()["output_on"]
    assert device.outputs[0].set_v == 0.0


def test_unknown_settings_and_faults_are_refused():
    with pytest.raises(ValueError, match="unknown settings"):
        twin(colour="red")
    with pytest.raises(ValueError, match="no such fault"):
        twin().inject({"kind": "earthquake"})


# Over its wires


@pytest.fixture
async def online():
    device = CpxTwin(None, LabClock(speed=20.0))
    host, _, port = (await device.start()).partition(":")
    yield device, host, int(port)
    await device.stop()


async def test_a_plain_socket_byte_by_byte_and_the_lock_of_a_closed_connection(online):
    device, host, port = online

    def talk():
        with socket.create_connection((host, port), timeout=2.0) as one:
            for byte in b"IFLOCK;V1 12.000;V1?\n":
                one.send(bytes([byte]))
            got = b""
            while got.count(b"\n") < 2:
                got += one.recv(100)
            return got

    assert await asyncio.to_thread(talk) == b"1\r\nV1 12.000\r\n"
    while device.front.lock is not None:  # given back when the connection ends
        await asyncio.sleep(0.001)


async def test_a_foreign_driver_over_tcp(online):
    """labmcp-bench-psu (Apache-2.0), written from the CPX400DP book: its own transport and its own checks."""
    foreign = pytest.importorskip("labmcp_bench_psu.driver", reason="labmcp-bench-psu is not installed")
    from labmcp import open_transport

    device, host, port = online

    def talk():
        wire = open_transport(f"tcp://{host}:{port}")
        psu = foreign.open_power_supply(wire)
        psu.set_voltage(1, 12.0)
        psu.set_current(1, 1.5)
        psu.set_ovp(1, 15.0, None)
        psu.set_output(1, True)
        found = types.SimpleNamespace(
            set=psu.setpoints(1), measured=psu.measure(1), on=psu.output_state(1), trips=psu.protection(1),
            errors=psu.errors(),
        )  # fmt: skip
        psu.all_off()
        wire.close()
        return found

    found = await asyncio.to_thread(talk)
    assert found.set == (12.0, 1.5)
    assert found.measured == (12.0, 0.48)
    assert found.on
    assert (found.trips.ovp_v, found.trips.ovp_tripped) == (15.0, False)
    assert found.errors == []
    assert not device.counters()["output_on"]
    assert math.isinf(device.outputs[1].load_ohm)
