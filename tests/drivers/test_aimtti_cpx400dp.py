"""The heater supply: lines of its sheet, the cap in driver and instrument, every refusal, then its twin."""

import asyncio
import math

import pytest

from drivers.aimtti_cpx400dp import AimTtiCpx400dp
from drivers.errors import BadReply, NoReply, OutOfRange, Refused
from drivers.line import Interrupted, Line
from drivers.port_serial import SerialPort
from drivers.port_tcp import TcpPort
from drivers.roles import HeaterPower, Role
from hil_tests.sim.aimtti_cpx400dp import CpxTwin
from hil_tests.sim.clock import LabClock

SETTINGS = {"output": 1, "heater_ohm": 25.0, "power_cap_w": 40.0}
HIGHEST_V, LIMIT_A = 31.62, 1.291  # sqrt(40 W x 25 ohm) rounded down; 1.02 x 1.2648 A rounded up


class Script:
    def __init__(self, port):
        self.port = port

    def talk(self, request, *replies):
        self.port.expect(request.encode() + b"\n", *(reply.encode() + b"\r\n" for reply in replies))
        return self

    def set_v(self, volt, got=None):
        return self.talk(f"V1 {volt:.2f};V1?", f"V1 {volt if got is None else got:.3f}")

    def off(self):
        return self.talk("OP1 0;OP1?", "0").set_v(0.0)

    def on(self):
        return self.talk("OP1 1;OP1?", "1")

    def measures(self, volt, ampere, state=1, events=0):
        self.talk("V1O?", f"{volt:.3f}V").talk("I1O?", f"{ampere:.3f}A")
        return self.talk("OP1?", str(state)).talk("LSR1?", str(events))

    def prepared(self, events=0, lock="0"):
        self.talk("*IDN?", "THURLBY THANDAR, CPX400DP, 279730, 1.22-1.00").talk("IFLOCK?", lock)
        if lock == "-1":
            return self
        self.off().talk("LSR1?", str(events))
        self.talk(f"I1 {LIMIT_A:.3f};I1?", f"I1 {LIMIT_A:.3f}")
        return self.talk("OVP1 33.8;OVP1?", "VP1 33.8").talk("OCP1 2.00;OCP1?", "CP1 2.00")


@pytest.fixture
def script(port):
    return Script(port)


def supply(line, clock, **settings):
    return AimTtiCpx400dp(line, name="supply", clock=clock, settings={**SETTINGS, **settings})


@pytest.fixture
async def ready(script, line, clock):
    device = supply(line, clock)
    script.prepared()
    await device.prepare()
    return device


# The sheet


async def test_worked_line_of_the_sheet(port, line, clock):
    """``V1 12.000;V1?`` LF and its reply, byte by byte; 5.76 W into 25 ohm are 12 V."""
    port.expect(b"V1 12.00;V1?\n", bytes.fromhex("56 31 20 31 32 2e 30 30 30 0d 0a"))
    port.expect(b"OP1 1;OP1?\n", b"1\r\n")
    device = supply(line, clock)
    device._openings = line.openings
    await device.set_power_w(5.76)


async def test_replies_of_the_sheet(script, ready):
    script.measures(12.001, 0.480)
    reading = await ready.read()
    assert (reading.voltage_v, reading.current_a) == (12.001, 0.480)
    assert reading.power_w == pytest.approx(5.76048)


async def test_replies_in_pieces(port, line, clock):
    port.expect(b"V1O?\n", b"12.", (0.02, b"001V"), (0.03, b"\r"), (0.04, b"\n"))
    port.expect(b"I1O?\n", b"0.480A\r\n")
    port.expect(b"OP1?\n", b"1\r\n")
    port.expect(b"LSR1?\n", b"1\r\n")
    assert (await supply(line, clock).read()).voltage_v == 12.001


# Power


@pytest.mark.parametrize(("power_w", "volt"), [(40.0, 31.62), (10.0, 15.81), (0.01, 0.5), (5.76, 12.0)])
async def test_power_is_set_through_the_voltage_and_never_rounded_up(script, ready, power_w, volt):
    script.set_v(volt).on()
    await ready.set_power_w(power_w)
    assert volt**2 / 25.0 <= power_w * (1 + 1e-9)


async def test_the_output_is_switched_on_once_and_no_power_leaves_it_on_at_no_voltage(script, ready):
    script.set_v(10.0).on().set_v(12.0).set_v(0.0)
    for power_w in (4.0, 5.76, 0.0):
        await ready.set_power_w(power_w)


async def test_no_power_does_not_switch_an_output_on(script, ready):
    script.set_v(0.0)
    await ready.set_power_w(0.0)


@pytest.mark.parametrize("power_w", [40.1, -0.1, math.nan, math.inf])
async def test_nothing_is_sent_above_the_cap(ready, port, power_w):
    sent = len(port.sent)
    with pytest.raises(OutOfRange, match="cap of 40 W"):
        await ready.set_power_w(power_w)
    assert len(port.sent) == sent


@pytest.mark.parametrize("ohm", [1.0, 5.0, 25.0, 60.0, 90.0, 1e4])
def test_whatever_is_connected_no_more_than_the_cap_comes_out(line, clock, ohm):
    cap_w = min(40.0, 60.0**2 / ohm)
    device = supply(line, clock, heater_ohm=ohm, power_cap_w=cap_w)
    assert device._highest_v * device._limit_a <= 1.02 * cap_w + device._highest_v * 0.001


async def test_a_setting_that_does_not_read_back(script, ready):
    script.set_v(12.0, got=0.0).talk("EER?", "0")
    with pytest.raises(BadReply, match=r"was told V1 12\.00 and has 0"):
        await ready.set_power_w(5.76)
    script.set_v(12.0, got=0.0).talk("EER?", "200")
    with pytest.raises(Refused, match=r"another interface holds the lock \(EER 200\)"):
        await ready.set_power_w(5.76)


async def test_an_output_that_does_not_switch_on(script, ready):
    script.set_v(12.0).talk("OP1 1;OP1?", "0").talk("EER?", "0")
    with pytest.raises(BadReply, match="does not switch its output on"):
        await ready.set_power_w(5.76)


async def test_a_lost_reply_is_asked_once_more_but_not_what_reading_clears(script, ready):
    script.talk("V1 12.00;V1?").set_v(12.0).on()
    await ready.set_power_w(5.76)
    script.talk("V1O?", "12.000V").talk("I1O?", "0.480A").talk("OP1?", "1").talk("LSR1?")
    with pytest.raises(NoReply):
        await ready.read()


@pytest.mark.parametrize("reply", ["12.001A", "V1 12.001", "", "12,001V", "nonsense"])
async def test_replies_that_are_none(port, line, clock, reply):
    for _ in range(2):
        port.expect(b"V1O?\n", reply.encode() + b"\r\n")
    with pytest.raises(BadReply, match="is no answer to that"):
        await supply(line, clock).read()


# What a reading says


async def driven(script, device):
    script.set_v(10.0).on()
    await device.set_power_w(4.0)
    return script


@pytest.mark.parametrize(
    ("volt", "ampere", "state", "events", "words"),
    [
        (10.0, 0.4, 1, 1, ""),
        (10.0, 0.0, 1, 1, "sees no heater at all instead of 25 ohm"),
        (10.0, 0.2, 1, 1, "sees 50 ohm instead of 25 ohm"),
        (9.0, 0.36, 1, 1, "gives 9 V instead of 10 V"),
        (5.0, 1.291, 1, 2, "limits the current"),
        (0.0, 0.0, 0, 4, "over-voltage trip"),
        (0.0, 0.0, 0, 8, "over-current trip"),
        (0.0, 0.0, 0, 64, "only the front panel"),
        (0.0, 0.0, 0, 0, "is off, and was asked for"),
        (10.0, 0.4, 1, 16, "power limit"),
    ],
)
async def test_contradictions(script, ready, volt, ampere, state, events, words):
    (await driven(script, ready)).measures(volt, ampere, state, events)
    reading = await ready.read()
    assert reading.output_on is bool(state)
    if words:
        assert any(words in problem for problem in reading.problems), reading.problems
    else:
        assert reading.problems == ()


async def test_an_output_that_somebody_switched_on(script, ready):
    script.measures(0.0, 0.0, state=1)
    assert (await ready.read()).problems == ("its output is on, and was not asked for",)


async def test_after_a_trip_no_power_until_it_is_prepared_again(script, ready):
    (await driven(script, ready)).measures(0.0, 0.0, 0, 8)
    await ready.read()
    with pytest.raises(Refused, match=r"has tripped \(over-current trip\)"):
        await ready.set_power_w(4.0)
    script.prepared()
    await ready.prepare()
    await driven(script, ready)


# Off


async def test_off_is_verified_and_harmless_when_repeated(script, ready):
    await driven(script, ready)
    script.off().off()
    await ready.off()
    await ready.off()


async def test_off_that_is_refused(script, ready):
    script.talk("OP1 0;OP1?", "1").talk("EER?", "200")
    with pytest.raises(Refused, match="does not switch its output off: another interface holds the lock"):
        await ready.off()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_off_interrupts_and_revokes(script, ready, port):
    port.stuck = True
    script.talk("V1 10.00;V1?")
    in_flight = asyncio.create_task(ready.set_power_w(4.0))
    queued = asyncio.create_task(ready.set_power_w(5.0))
    await settle()
    port.stuck = False
    script.off()
    going = asyncio.create_task(ready.off())
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="is being switched off"):
        await ready.set_power_w(1.0)
    await going
    results = await asyncio.gather(in_flight, queued, return_exceptions=True)
    assert [type(result) for result in results] == [Interrupted, Interrupted]


async def test_off_goes_on_when_its_caller_gives_up(script, ready, port):
    script.off()
    caller = asyncio.create_task(ready.off())
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await ready.off()
    assert not port.talks


async def test_off_that_is_not_confirmed_in_time(script, ready, port):
    ready._going_off._limit_s = 0.02
    port.stuck = True
    script.talk("OP1 0;OP1?")
    with pytest.raises(NoReply, match=r"supply: off is not confirmed after 0\.02 s"):
        await ready.off()


# Who it is, and preparing


async def test_preparing_programs_limits_and_trips_and_says_what_nothing_guards(script, line, clock):
    script.prepared()
    notes = await supply(line, clock).prepare()
    text = "\n".join(notes)
    assert all(note.startswith("supply: ") for note in notes)
    assert "if the host dies the heater keeps its last power" in text
    assert "never more than 40.8 W" in text
    assert "31.62 V, current limit 1.291 A, trips at 33.8 V and 2.00 A" in text
    assert "is not locked" in text


async def test_an_earlier_trip_is_told(script, line, clock):
    script.prepared(events=8)
    notes = await supply(line, clock).prepare()
    assert notes[-1] == "supply: reports: over-current trip, before this preparation"


async def test_a_trip_that_needs_the_front_panel(script, line, clock):
    script.talk("*IDN?", "THURLBY THANDAR, CPX400DP, 279730, 1.22-1.00").talk("IFLOCK?", "0")
    script.off().talk("LSR1?", "64")
    with pytest.raises(Refused, match="only the front panel"):
        await supply(line, clock).prepare()


async def test_a_lock_of_somebody_else(script, line, clock):
    script.prepared(lock="-1")
    with pytest.raises(Refused, match="another interface holds the lock"):
        await supply(line, clock).prepare()


async def test_one_that_does_not_know_the_lock(script, line, clock, port):
    script.talk("*IDN?", "THURLBY THANDAR,CPX400DP,279730,1.00-1.00").talk("IFLOCK?").talk("*ESR?", "32")
    rest = Script(port).off().talk("LSR1?", "0")
    rest.talk(f"I1 {LIMIT_A:.3f};I1?", f"I1 {LIMIT_A:.3f}")
    rest.talk("OVP1 33.8;OVP1?", "VP1 33.8").talk("OCP1 2.00;OCP1?", "CP1 2.00")
    assert any("does not tell whether" in note for note in await supply(line, clock).prepare())


@pytest.mark.parametrize("trip", ["VP1 66.0", "VP1 OFF"])
async def test_a_trip_that_is_not_taken(script, line, clock, trip):
    script.talk("*IDN?", "THURLBY THANDAR, CPX400DP, 279730, 1.22-1.00").talk("IFLOCK?", "0")
    script.off().talk("LSR1?", "0").talk(f"I1 {LIMIT_A:.3f};I1?", f"I1 {LIMIT_A:.3f}")
    script.talk("OVP1 33.8;OVP1?", trip)
    script.talk("EER?", "100") if trip == "VP1 66.0" else script.talk("OVP1 33.8;OVP1?", trip)
    with pytest.raises((Refused, BadReply)):
        await supply(line, clock).prepare()


@pytest.mark.parametrize(
    "idn", ["THURLBY THANDAR, PL303QMD-P, 1, 1.0", "KEITHLEY INSTRUMENTS INC.,MODEL 2400,1,C30"]
)
async def test_another_instrument(script, line, clock, idn):
    script.talk("*IDN?", idn)
    with pytest.raises(BadReply, match="is no CPX400DP"):
        await supply(line, clock).identify()


async def test_identity(script, line, clock):
    script.talk("*IDN?", "THURLBY THANDAR, CPX400DP, 279730, 1.22-1.00")
    identity = await supply(line, clock).identify()
    assert (identity.manufacturer, identity.serial, identity.firmware) == ("Aim-TTi", "279730", "1.22-1.00")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"output": 3}, "outputs 1 and 2"),
        ({"heater_ohm": 0.0}, "heater of 0 ohm"),
        ({"power_cap_w": 421.0}, "one output gives 420 W"),
        ({"heater_ohm": 200.0}, "89.4 V"),
        ({"heater_ohm": 0.5, "power_cap_w": 400.0}, "28.28 A"),
    ],
)
def test_impossible_settings(line, clock, wrong, words):
    with pytest.raises(OutOfRange, match=words):
        supply(line, clock, **wrong)


async def test_after_a_lost_link_the_current_limit_is_looked_at_first(script, ready, line):
    line.openings += 1
    script.talk("I1?", "I1 1.000").set_v(10.0).on()
    await ready.set_power_w(4.0)
    line.openings += 1
    script.talk("I1?", "I1 20.000")
    with pytest.raises(Refused, match="must be prepared again"):
        await ready.set_power_w(4.0)


def test_it_plays_heater_power(line, clock):
    device = supply(line, clock)
    assert isinstance(device, HeaterPower)
    assert device.roles == {Role.HEATER_POWER}


# Against the twin, on both of its wires


@pytest.fixture(params=["tcp", "serial"])
async def wired(request):
    clock = LabClock(speed=20.0)
    tcp = request.param == "tcp"
    twin = CpxTwin(None, clock, settings={"tcp": tcp})
    where = await twin.start()
    port = TcpPort(*where.split(":")) if tcp else SerialPort(where, 9600)
    line = Line("supply", port)
    await line.open()
    yield twin, line, supply(line, clock)
    await line.close()
    await twin.stop()


async def test_the_twin_through_its_faults(wired):
    twin, _, device = wired
    await device.prepare()
    assert (twin.outputs[0].set_a, twin.outputs[0].ovp_v, twin.outputs[0].ocp_a) == (LIMIT_A, 33.8, 2.0)
    await device.set_power_w(16.0)
    reading = await device.read()
    assert reading.power_w == pytest.approx(16.0, abs=0.05)
    assert reading.problems == ()
    twin.inject({"kind": "heater", "ohm": None})
    assert any("no heater at all" in problem for problem in (await device.read()).problems)
    twin.inject({"kind": "heater", "ohm": 5.0})  # nearly shorted: the current limit holds the power down
    reading = await device.read()
    assert reading.power_w < 40.8
    assert any("limits the current" in problem for problem in reading.problems)
    twin.inject({"kind": "heater", "ohm": 25.0})
    twin.inject({"kind": "sag", "fraction": 0.9})
    await device.read()
    assert any("instead of 20 V" in problem for problem in (await device.read()).problems)
    twin.inject({"kind": "sag", "fraction": 1.0})
    twin.inject({"kind": "trip", "state": "over_voltage"})
    await device.read()
    with pytest.raises(Refused, match="over-voltage trip"):
        await device.set_power_w(16.0)
    await device.off()
    assert not twin.counters()["output_on"]


async def test_the_twin_locked_deaf_and_switched_off_and_on(wired):
    twin, _, device = wired
    await device.prepare()
    await device.set_power_w(4.0)
    twin.inject({"kind": "locked"})
    with pytest.raises(Refused, match="EER 200"):
        await device.set_power_w(5.0)
    with pytest.raises(Refused, match="EER 200"):
        await device.off()
    twin.inject({"kind": "locked", "given": False})
    twin.inject({"kind": "deaf"})
    with pytest.raises(BadReply, match="was told"):
        await device.set_power_w(5.0)
    twin.inject({"kind": "deaf", "given": False})
    twin.inject({"kind": "noise", "hex": "ff"})
    await device.set_power_w(5.0)
    await device.off()
    assert twin.outputs[0].set_v == 0.0


async def test_against_a_foreign_simulator(unused_tcp_port, clock):
    """The simulator of labmcp-bench-psu behind a socket: 10 ohm at output 1, no lock commands."""
    foreign = pytest.importorskip("labmcp_bench_psu.simulator", reason="labmcp-bench-psu is not installed")
    instrument = foreign.make_simulator("tti", "CPX400DP")

    async def serve(reader, writer):
        while request := await reader.readline():
            reply = instrument.handle(request.decode().strip())
            if reply:
                writer.write(f"{reply}\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", unused_tcp_port)
    line = Line("supply", TcpPort("127.0.0.1", unused_tcp_port))
    await line.open()
    device = supply(line, clock, heater_ohm=10.0, timeout_s=0.1)
    notes = await device.prepare()
    assert any("does not tell whether" in note for note in notes)
    output = instrument.outputs[1]
    assert (output.ovp_v, output.set_i) == (21.5, 2.04)
    await device.set_power_w(10.0)
    reading = await device.read()
    assert reading.power_w == pytest.approx(10.0, abs=0.02)
    assert reading.problems == ()
    output.load_ohm = 20.0
    assert any("20 ohm instead of 10" in problem for problem in (await device.read()).problems)
    output.ovp_v = 5.0
    reading = await device.read()
    assert not reading.output_on
    with pytest.raises(Refused, match="over-voltage trip"):
        await device.set_power_w(10.0)
    await device.off()
    assert output.set_v == 0.0
    await line.close()
    server.close()
    await server.wait_closed()
