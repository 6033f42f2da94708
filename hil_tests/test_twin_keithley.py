"""The Keithley twins: bytes of the sheet, and our drivers against them with the bench's cell behind.

What the cell is in the end is asked of the physics, never of the driver.
"""

import asyncio
import itertools

import pytest

from drivers.errors import NoReply, Refused
from drivers.roles import CcCv, CellEventKind, CellSample, ConstantCurrent, ConstantVoltage, Eis, Ocv
from hil_tests.keithley_host import a_rig, bounds
from hil_tests.sim.clock import ManualClock
from hil_tests.sim.keithley_2400 import Keithley2400Twin
from hil_tests.sim.keithley_2450 import Keithley2450Twin
from hil_tests.sim.physics.cell import Cell, CellParameters
from hil_tests.sim.scpi import split

both = pytest.mark.parametrize("model", ["2400", "2450"])
CHARGE = CcCv(13e-6, 4.0, 10e-6, bounds(), interval_s=20.0)

SHEET_SET_UP = """*RST
:OUTP:SMOD HIMP
:SYST:RSEN ON
:SOUR:FUNC CURR
:SOUR:CURR:MODE FIX
:SOUR:CURR:RANG 1E-2
:SOUR:CURR:LEV 1E-3
:SENS:FUNC:CONC ON
:SENS:FUNC "VOLT","CURR"
:SENS:VOLT:RANG 20
:SENS:VOLT:PROT 4.2
:SENS:VOLT:NPLC 1
:FORM:ELEM VOLT,CURR,STAT
:ARM:COUN 1
:TRIG:COUN 1
:OUTP ON"""


def twin_of(kind, **settings):
    cell = Cell(CellParameters(start_x=0.8), temperature_k=lambda: 333.15)
    quiet = {"voltage_noise_v": 0.0, "current_noise": 0.0}
    return kind(cell, ManualClock(), {**quiet, **settings})


def said(twin, *lines):
    """Return all that the twin answers to some lines."""
    return [text for line in lines for _, text in twin.answers(line)]


def test_the_set_up_of_the_sheet():
    """1 mA is more than this cell takes: the source regulates 4.2 V, which is the CV phase."""
    twin = twin_of(Keithley2400Twin)
    assert said(twin, *SHEET_SET_UP.splitlines(), ":SYST:ERR?") == ['0,"No error"']
    (reading,) = said(twin, ":READ?")
    volt, ampere, status = (float(part) for part in reading.split(","))
    assert volt == pytest.approx(4.2, abs=1e-6)
    assert 0.0 < ampere < 1e-3
    assert int(status) == 38924 - 256 - 512 + 768 | 1 << 22  # the sheet's word, and remote sense
    assert said(twin, ":SENS:VOLT:PROT:TRIP?") == ["1"]


def test_status_word_of_the_sheet():
    twin = twin_of(Keithley2400Twin)
    twin.answers(":FORM:ELEM STAT;:SENS:CURR:PROT 0.1E-3;:OUTP ON")
    (status,) = said(twin, ":READ?")
    assert status == f"{2**2 + 2**3 + 2**11 + 2**12 + 2**14:+.6E}"  # V source into a cell: in compliance


@pytest.mark.parametrize(
    "spelling",
    [
        ":SENSe:VOLTage:DC:RANGe:UPPer 20;:SENSE:VOLT:PROTection:LEVEL 4.2",
        "sens:volt:rang 20;prot 4.2",
        "VOLT:RANG 20;PROT:LEV 4.2",
        ":sense1:voltage:range 2E1;PROT 4.2",
    ],
)
def test_every_way_of_writing_it(spelling):
    twin = twin_of(Keithley2400Twin)
    assert said(twin, spelling, ":SYST:ERR?", ":SENS:VOLT:PROT?") == ['0,"No error"', "4.200000E+00"]


def test_a_chain_keeps_what_stands_between_quotes_whole():
    assert split(":SENS:FUNC 'VOLT;X',\"CURR\";:OUTP?", ";") == [":SENS:FUNC 'VOLT;X',\"CURR\"", ":OUTP?"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (":OUTP:SMOOD HIMP", "-113"),
        (":READ?", "803"),
        (":SOUR:VOLT:LEV 300", "-222"),
        (":SOUR:VOLT:LEV", "-109"),
        (":SOUR:VOLT:LEV two", "-104"),
        (":OUTP:SMOD AJAR", "-224"),
        (":SENS:CURR:PROT 1E-9", "822"),
    ],
)
def test_what_is_refused_gets_no_answer_but_an_error(command, code):
    twin = twin_of(Keithley2400Twin)
    assert said(twin, command) == []
    assert said(twin, ":SYST:ERR?")[0].split(",")[0] == code
    assert said(twin, ":SYST:ERR?") == ['0,"No error"']


def test_the_queue_of_errors_is_bounded():
    twin = twin_of(Keithley2400Twin)
    said(twin, *[":NONSENSE"] * 15)
    codes = [said(twin, ":SYST:ERR?")[0].split(",")[0] for _ in range(11)]
    assert codes == ["-113"] * 9 + ["-350", "0"]


@pytest.mark.parametrize(
    ("state", "discharges"), [("NORM", True), ("ZERO", True), ("GUAR", False), ("HIMP", False)]
)
def test_what_off_means_to_a_cell(state, discharges):
    """The finding that this driver is built around: the usual output-off state empties a battery."""
    twin = twin_of(Keithley2400Twin)
    said(twin, f":OUTP:SMOD {state}", ":OUTP OFF")
    twin.advance(60.0)
    assert (twin.cell.charge.passed_discharge > 1e-6) is discharges
    assert twin.counters()["cell_on"] is False


def test_the_measure_range_clamps_below_the_compliance():
    """Looks like a dead cell: bit 16, not bit 3."""
    twin = twin_of(Keithley2400Twin)
    said(
        twin,
        ":FORM:ELEM VOLT,STAT;:SOUR:FUNC CURR;:SOUR:CURR 1E-3;:SENS:VOLT:PROT 4.2;:SENS:VOLT:RANG 2;:OUTP ON",
    )
    volt, status = (float(part) for part in said(twin, ":READ?")[0].split(","))
    assert volt == pytest.approx(2.1)
    assert int(status) >> 16 & 1
    assert not int(status) >> 3 & 1


def test_an_open_output_enable_line_turns_off_and_keeps_off():
    twin = twin_of(Keithley2400Twin)
    said(twin, ":OUTP:INT:STAT ON", ":OUTP ON")
    twin.inject({"kind": "interlock", "given": False})
    assert said(twin, ":OUTP?;:OUTP:INT:TRIP?") == ["0;0"]
    said(twin, ":OUTP ON")
    assert said(twin, ":OUTP?", ":SYST:ERR?") == ["0", '802,"OUTPUT blocked by interlock"']


def test_a_trigger_model_counts_and_switches_off_alone():
    """The manual's example: a loop of five, three times, is fifteen readings."""
    twin = twin_of(Keithley2450Twin)
    lines = [
        ':TRIG:LOAD "EMPTY"', ":TRIG:BLOC:BUFF:CLE 1", ":TRIG:BLOC:MEAS 2", ":TRIG:BLOC:BRAN:COUN 3, 5, 2",
        ":TRIG:BLOC:DEL:CONS 4, 1", ":TRIG:BLOC:BRAN:COUN 5, 3, 2", ":TRIG:BLOC:SOUR:STAT 6, OFF",
    ]  # fmt: skip
    said(twin, *lines, ":OUTP ON", ":INIT")
    assert said(twin, ":TRIG:STAT?")[0].startswith("RUNNING")
    twin.advance(10.0)
    assert said(twin, ":TRIG:STAT?", ":TRAC:ACT?", ":OUTP?", ":SYST:ERR?") == [
        "IDLE;IDLE;6", "15", "0", '0,"No error;0,0,0"',
    ]  # fmt: skip


@both
async def test_at_rest(model):
    async with a_rig(model) as rig:
        before = rig.truth()["terminal_coulomb"]
        assert await rig.driver.read_ocv() == pytest.approx(rig.cell.voltage_v, abs=1e-4)
        samples, phases, end = await rig.run(Ocv(40.0, 10.0))
        assert (phases, end.kind, end.detail) == (["ocv"], CellEventKind.FINISHED, "time")
        assert 4 <= len(samples) <= 5
        assert all(sample.current_a is None and sample.valid for sample in samples)
        truth = rig.truth()
        assert truth["terminal_coulomb"] == pytest.approx(before, abs=1e-9)
        assert not truth["connected"]


@both
async def test_cccv_passes_the_charge_that_it_says(model):
    async with a_rig(model) as rig:
        before = rig.truth()["terminal_coulomb"]
        samples, phases, end = await rig.run(CHARGE)
        assert (phases, end.detail) == (["cc", "cv"], "current reached")
        assert max(sample.voltage_v for sample in samples) <= 4.0 + 1e-6
        assert max(sample.current_a for sample in samples) <= 13e-6 * 1.001
        times = [sample.elapsed_s for sample in samples]
        assert times == sorted(set(times))
        counted = (
            sum(
                0.5 * (a.current_a + b.current_a) * (b.elapsed_s - a.elapsed_s)
                for a, b in itertools.pairwise(samples)
            )
            + samples[0].current_a * samples[0].elapsed_s
        )
        truth = rig.truth()
        assert counted == pytest.approx(truth["terminal_coulomb"] - before, rel=0.01)
        assert not truth["connected"]
        assert rig.line.stats.bad_replies == 0


@both
async def test_a_discharge_stops_where_it_should(model):
    async with a_rig(model, start_x=0.7) as rig:
        samples, _, end = await rig.run(ConstantCurrent(-13e-6, 3.85, bounds(), interval_s=20.0))
        assert end.detail == "voltage reached"
        assert min(sample.voltage_v for sample in samples) >= 3.85 - 1e-6
        assert rig.truth()["terminal_coulomb"] < 0.0


@both
async def test_a_held_voltage(model):
    async with a_rig(model) as rig:
        samples, phases, end = await rig.run(ConstantVoltage(3.95, 8e-6, bounds(), interval_s=10.0))
        assert (phases, end.detail) == (["cv"], "current reached")
        assert samples[-1].voltage_v == pytest.approx(3.95, abs=1e-6)


@both
async def test_a_sweep_is_refused_with_the_relay_open(model):
    async with a_rig(model) as rig:
        with pytest.raises(Refused, match="no impedance sweeps"):
            await rig.driver.start(Eis(0.01, 1e3, 1.0, 5, bounds()))
        assert not rig.truth()["connected"]


async def charging(rig, **changes):
    """Start a charge and wait for its first sample."""
    await rig.driver.start(CcCv(13e-6, 4.0, 1e-9, bounds(**changes), interval_s=5.0))
    while not isinstance(await rig.driver.next(5.0), CellSample):
        pass
    assert rig.truth()["cell_on"]


async def last_event(rig):
    """Read on until the program has ended."""
    while True:
        what = await rig.driver.next(5.0)
        if not isinstance(what, CellSample) and what.kind not in (CellEventKind.STARTED, CellEventKind.PHASE):
            return what


FAULTS = [
    ({"kind": "nan", "count": 1000}, CellEventKind.FINISHED, "invalid readings"),
    ({"kind": "overload", "count": 1000}, CellEventKind.FINISHED, "invalid readings|limit current"),
    ({"kind": "short", "ohm": 100.0}, CellEventKind.FINISHED, "limit voltage low"),
    (
        {"kind": "set_error", "volt": 1.0},
        CellEventKind.FINISHED,
        "limit voltage high",
    ),
    ({"kind": "two_wire"}, CellEventKind.FINISHED, "invalid readings"),
    ({"kind": "front_panel"}, CellEventKind.RUNTIME_ERROR, "the output is off"),
    ({"kind": "reset", "boot_s": 0.0}, CellEventKind.RUNTIME_ERROR, "off|forgotten"),
]


@both
@pytest.mark.parametrize(("fault", "kind", "detail"), FAULTS, ids=[one[0]["kind"] for one in FAULTS])
async def test_what_goes_wrong_in_a_charge_opens_the_relay(model, fault, kind, detail):
    async with a_rig(model, start_x=0.7) as rig:
        await charging(rig)
        rig.twin.inject(fault)
        for _ in range(20):  # a reset drops the connection of the 2450: an answer is missing first
            try:
                end = await last_event(rig)
                break
            except NoReply:
                await asyncio.sleep(0.1)
        assert end.kind is kind
        assert any(part in end.detail for part in detail.split("|")), end.detail
        truth = rig.truth()
        assert not truth["connected"]
        assert truth["off_state"] == "HIMP"


@both
async def test_stop_at_once(model):
    async with a_rig(model) as rig:
        await charging(rig)
        await rig.driver.stop()
        assert not rig.truth()["connected"]
        assert (await last_event(rig)).kind is CellEventKind.ABORTED


async def test_a_dead_host_and_a_2450():
    """Its lease of 10 s, three readings at least, ends the program, whatever the host does."""
    async with a_rig("2450") as rig:
        await charging(rig)
        await rig.clock.sleep(9.0)
        assert rig.truth()["cell_on"]
        await rig.clock.sleep(11.0)  # three readings of 5 s, and the one that was under way
        assert not rig.truth()["connected"]
        assert rig.truth()["trigger_model"] == "IDLE"
        assert (await last_event(rig)).detail == "limit time without the host"


async def test_a_host_that_looks_keeps_a_2450_going():
    async with a_rig("2450") as rig:
        await charging(rig)
        for _ in range(20):
            assert isinstance(await rig.driver.next(5.0), CellSample)
        assert rig.truth()["cell_on"]


async def test_a_dead_host_and_a_2400():
    """Nothing ends it, as prepare says; but neither voltage nor current passes what was set."""
    async with a_rig("2400") as rig:
        await charging(rig)
        seen = []
        for _ in range(60):
            await rig.clock.sleep(60.0)
            seen.append(rig.truth()["voltage_v"])
            assert rig.cell.current_a <= 13e-6 * 1.001
        assert rig.truth()["cell_on"]
        assert max(seen) <= 4.0 + 1e-6
        assert seen[-1] == pytest.approx(4.0)


async def test_a_dead_host_and_a_2400_whose_interlock_hangs_on_a_watchdog():
    async with a_rig("2400", driver={"interlock": True}) as rig:
        await charging(rig)
        rig.twin.inject({"kind": "interlock", "given": False})  # what the watchdog of the I/O box does
        assert not rig.truth()["connected"]
        ended = await last_event(rig)
        assert ended.kind is CellEventKind.RUNTIME_ERROR
        assert "output-enable line (pin 8 of the digital I/O) is not asserted" in ended.detail


@pytest.mark.parametrize("names", ["INT", "IENAB"])
async def test_an_open_output_enable_line_is_told_by_prepare_whatever_its_names(names):
    """``operando check`` calls ``prepare``: what it raises is what a person reads."""
    async with a_rig("2400", driver={"interlock": True}, enable_line=names) as rig:
        rig.twin.inject({"kind": "interlock", "given": False})
        with pytest.raises(Refused, match="not asserted: while it is not held low"):
            await rig.driver.prepare()
        rig.twin.inject({"kind": "interlock", "given": True})
        assert any("required, and asserted now" in note for note in await rig.driver.prepare())
        assert rig.truth()["errors_waiting"] == 0
