"""The T7 driver: worked frames byte by byte, then sequences against a small T7 in simulated time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from fake_labjack import SETTINGS, FakeClock, FakeT7

from drivers.errors import BadLine, BadReply, NoReply, OutOfRange, Refused
from drivers.labjack_box import Box
from drivers.labjack_t7 import LabJackT7
from drivers.line import Line
from drivers.roles import BeamlineIo, BeamScanner, LineReport, Raster, Role

RASTER = Raster(nx=4, ny=3, width_um=100.0, height_um=300.0, dwell_s=0.03)
BLANK, RELAY, SHUTTER, READBACK, PERMIT = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5


class Scripted:
    """A port that knows one conversation."""

    where = "script"
    character_s = 0.0

    def __init__(self, *frames: tuple[str, str]) -> None:
        self.frames = [(bytes.fromhex(sent), bytes.fromhex(reply)) for sent, reply in frames]
        self.inbox = b""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, data: bytes) -> None:
        sent, self.inbox = self.frames.pop(0)
        assert data == sent

    async def read(self, timeout_s: float) -> bytes:
        data, self.inbox = self.inbox, b""
        return data

    def discard(self) -> bytes:
        return b""


class Bench:
    """Driver and box with one clock."""

    def __init__(self, speed: float = 1.0, **settings: object) -> None:
        self.clock = FakeClock(speed)
        self.t7 = FakeT7(self.clock)
        self.t7.levels &= ~READBACK  # the shutter is closed
        self.line = Line("io", self.t7)
        self.driver = LabJackT7(self.line, name="io", clock=self.clock, settings={**SETTINGS, **settings})
        self.reports: list[LineReport] = []

    async def scan(self, raster: Raster = RASTER, first_line: int = 0, stop_after: int | None = None):
        return await self.driver.run_lines(
            raster,
            first_line,
            on_line=self.reports.append,
            should_stop=lambda: stop_after is not None and len(self.reports) >= stop_after,
        )

    def high(self, bit: int) -> bool:
        return bool(self.t7.levels & bit)


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.driver.prepare()
    bench.t7.written.clear()
    return bench


# --- bytes -------------------------------------------------------------------------------------------------


async def test_worked_frames():
    port = Scripted(
        ("00 01 00 00 00 06 01 04 00 00 00 02", "00 01 00 00 00 07 01 04 04 40 6c cc cd"),
        ("00 02 00 00 00 0b 01 10 03 e8 00 02 04 40 20 00 00", "00 02 00 00 00 06 01 10 03 e8 00 02"),
        ("00 03 00 00 00 06 01 03 d7 3c 00 02", "00 03 00 00 00 07 01 03 04 00 11 22 33"),
    )
    box = Box(Line("io", port), 1, device="io")
    assert await box.read_input(0, 2) == [0x406C, 0xCCCD]
    await box.write_f32(1000, 2.5)
    assert await box.read_u32(55100) == [0x00112233]
    assert port.frames == []


async def test_beam_current_frame():
    settings = {key: SETTINGS[key] for key in ("beam_current", "permit", "watchdog")}
    port = Scripted(
        ("00 01 00 00 00 06 01 04 00 00 00 02", "00 01 00 00 00 07 01 04 04 40 6c cc cd"),
        ("00 02 00 00 00 06 01 03 0a f0 00 02", "00 02 00 00 00 07 01 03 04 00 00 00 20"),
    )
    driver = LabJackT7(Line("io", port), name="io", clock=FakeClock(), settings=settings)
    reading = await driver.read()
    assert reading.beam_current_a == pytest.approx(37e-12)  # 3.7 V at 10 pA/V
    assert (reading.permit, reading.blanked, reading.relay_closed, reading.shutter_open) == (
        True,
        True,
        False,
        None,
    )
    assert driver.roles == {Role.BEAM_MONITOR, Role.PERMIT}


async def test_refusals_carry_labjacks_own_number():
    port = Scripted(
        ("00 01 00 00 00 0b 01 10 13 7e 00 02 04 00 00 00 00", "00 01 00 00 00 03 01 90 04"),
        ("00 02 00 00 00 06 01 03 d6 d8 00 01", "00 02 00 00 00 05 01 03 02 0a 3c"),
    )
    with pytest.raises(Refused, match=r"io: exception 4: .*LabJack error 2620: no stream is running"):
        await Box(Line("io", port), 1, device="io").write_u32(4990, 0)


# --- who it is, and preparing ------------------------------------------------------------------------------


async def test_identity():
    bench = Bench()
    identity = await bench.driver.identify()
    assert (identity.model, identity.serial, identity.firmware) == ("T7", "470012345", "1.0410")
    assert isinstance(bench.driver, BeamScanner)
    assert isinstance(bench.driver, BeamlineIo)
    assert bench.driver.roles == {
        Role.BEAM_SCANNER, Role.BEAM_MONITOR, Role.RELAY, Role.SHUTTER, Role.PERMIT,
    }  # fmt: skip
    assert bench.t7.written == []


async def test_another_box_or_exchanged_words():
    bench = Bench()
    bench.t7.put_u32(55122, 0xAABB8899, 0x3C00C61C)
    with pytest.raises(BadReply, match="word order reads 00112233 and aabb 8899 3c00 c61c"):
        await bench.driver.identify()
    bench.t7.put_f32(60000, 4.0)
    with pytest.raises(BadReply, match="product 4 is not a T7"):
        await bench.driver.prepare()
    assert bench.t7.written == []


async def test_prepare():
    bench = Bench()
    t7 = bench.t7
    t7.put_f32(4002, 100.0)
    t7.enable(True)  # left over by somebody else
    t7.direction, t7.levels = 0x0D, 0xFF  # everything high, the blank still an input
    notes = await bench.driver.prepare()
    assert not t7.streaming
    assert t7.direction == 0x0F
    assert t7.levels == 0xF2  # blank high; clock, relay and shutter low
    key = t7.u32(61612)
    assert t7.written[:14] == [
        (4990, (0, 0)),
        (2001, (1,)), (2000, (0,)), (2002, (0,)), (2003, (0,)),
        (61600, (0, 0)),
        (61602, (0, 0, 0, 3, 0, 3)),  # advanced 0, 3 s, the same after power-up
        (61610, (0, 1, key >> 16, key & 0xFFFF)),  # strict
        (61620, (0, 0)),  # no reset
        # act on digital lines: state blank = 1, direction FIO0..3 out, all other 19 lines inhibited
        (61630, (0, 1, 0, 0x0002, 0, 0x000F, 0x007F, 0xFFF0)),
        (61640, (0, 0)), (61650, (0, 0)),
        (61600, (0, 1)),
        (61614, (key >> 16, key & 0xFFFF)),
    ]  # fmt: skip
    assert t7.fed
    assert (t7.f32(40000), t7.words[41000], t7.words[41500], t7.f32(42000)) == (10.0, 199, 8, 0.0)
    assert "strict watchdog armed with 3 s" in notes[0]
    assert "pull-up" in notes[1]
    assert len(notes) == 2


async def test_a_watchdog_that_does_not_read_back_is_not_trusted():
    bench = Bench()
    bench.t7.after_write = lambda register: register == 61630 and bench.t7.put_u32(61632, 0)
    with pytest.raises(BadReply, match="watchdog register 61630 reads"):
        await bench.driver.prepare()
    with pytest.raises(Refused, match="does not close its relay: it is not prepared"):
        await bench.driver.set_relay(closed=True)
    with pytest.raises(Refused, match="not prepared"):
        await bench.driver.feed_watchdog()
    with pytest.raises(Refused, match="does not play lines"):
        await bench.scan()


async def test_without_calibration_the_nominal_one_is_used_and_said():
    bench = Bench()
    bench.t7.flash = b"\xff" * 16
    assert "nominal constants" in (await bench.driver.prepare())[2]
    bench.t7.refused[61810] = 2350
    assert "LabJack error 2350" in (await bench.driver.prepare())[2]


# --- reading and switching ---------------------------------------------------------------------------------


async def test_named_inputs_are_read_and_high_is_good():
    t7 = FakeT7(FakeClock())
    settings = {"permit": {"fio": 1}, "switches": {"vacuum": {"fio": 6}, "window": {"fio": 7}}}
    driver = LabJackT7(Line("io", t7), name="io", clock=FakeClock(), settings=settings)
    t7.levels = (t7.levels | 1 << 6) & ~(1 << 7)
    assert (await driver.read()).switches == {"vacuum": True, "window": False}


async def test_reading(bench):
    reading = await bench.driver.read()
    assert reading.beam_current_a == pytest.approx(24e-12)
    assert (reading.permit, reading.relay_closed, reading.blanked) == (True, False, True)
    bench.t7.levels &= ~PERMIT
    bench.t7.volts = lambda _: -10.4
    reading = await bench.driver.read()
    assert not reading.permit
    assert reading.beam_current_a is None
    assert "the beam monitor is beyond its range: -10.40 V" in reading.problems
    bench.t7.volts = lambda _: float("nan")
    assert (await bench.driver.read()).beam_current_a is None


async def test_relay(bench):
    await bench.driver.set_relay(closed=True)
    assert bench.t7.written == [(2002, (1,))]
    assert (await bench.driver.read()).relay_closed
    await bench.driver.set_relay(closed=False)
    assert not (await bench.driver.read()).relay_closed
    bench.t7.held = {2}
    with pytest.raises(BadReply, match="relay line FIO2 did not follow"):
        await bench.driver.set_relay(closed=True)


async def test_what_the_watchdog_did_is_told(bench):
    await bench.driver.set_relay(closed=True)
    await bench.driver.set_shutter(open_=True)
    bench.t7.levels &= ~(RELAY | SHUTTER)
    reading = await bench.driver.read()
    assert not reading.relay_closed
    assert reading.shutter_open is None
    assert any("relay is open against the command" in problem for problem in reading.problems)
    assert any("shutter output" in problem for problem in reading.problems)


async def test_shutter_and_its_read_back(bench):
    bench.t7.levels &= ~READBACK
    assert (await bench.driver.read()).shutter_open is False
    await bench.driver.set_shutter(open_=True)
    reading = await bench.driver.read()  # still on its way
    assert (reading.shutter_open, reading.problems) == (None, ())
    bench.t7.levels |= READBACK
    assert (await bench.driver.read()).shutter_open is True
    bench.t7.levels &= ~READBACK
    bench.driver._shutter_moved_s -= 2.0  # two seconds later
    reading = await bench.driver.read()
    assert reading.shutter_open is None
    assert reading.problems == ("the shutter does not open",)


async def test_what_is_not_wired_is_refused():
    driver = LabJackT7(
        Line("io", FakeT7(FakeClock())), name="io", clock=FakeClock(), settings={"permit": {"fio": 1}}
    )
    notes = await driver.prepare()
    assert notes == ["io: no watchdog is set up; its outputs stay as they are when the host dies"]
    with pytest.raises(Refused, match="has no relay"):
        await driver.set_relay(closed=False)
    with pytest.raises(Refused, match="has no scanner"):
        await driver.run_lines(RASTER, 0, on_line=print, should_stop=bool)
    await driver.blank()
    await driver.off()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"watchdog": None}, "a scanner needs the watchdog"),
        ({"watchdog": None, "scanner": None}, "relay needs the watchdog"),
        ({"watchdog": {"timeout_s": 2.5}}, "whole seconds"),
        ({"beam_current": None}, "needs a beam monitor"),
        ({"relay": {"fio": 1}}, "has one job"),
        ({"permit": {"fio": 8}}, "FIO0..FIO7"),
        ({"scanner": {**SETTINGS["scanner"], "y_dac": 0}}, "one is 0, one is 1"),
        ({"scanner": {**SETTINGS["scanner"], "scale_x_um_per_v": 0.0}}, "0 um/V"),
        ({"dwell_limit_s": 0.0}, "dwell limit"),
    ],
)
def test_impossible_wiring(settings, why):
    with pytest.raises(OutOfRange, match=why):
        Bench(**settings)


async def test_a_box_that_restarted_behind_a_new_connection_is_noticed(bench):
    await bench.line.close()
    await bench.line.open()
    assert (await bench.driver.read()).problems == ()  # the cable was out, the box is as it was
    await bench.line.close()
    await bench.line.open()
    bench.t7.direction = 0
    assert "the box has restarted: prepare it again" in (await bench.driver.read()).problems
    with pytest.raises(Refused, match="it has restarted"):
        await bench.driver.set_relay(closed=True)
    await bench.driver.prepare()
    assert (await bench.driver.read()).problems == ()


async def test_off(bench):
    await bench.driver.set_relay(closed=True)
    await bench.driver.set_shutter(open_=True)
    bench.t7.levels &= ~BLANK
    bench.t7.written.clear()
    await bench.driver.off()
    assert bench.t7.levels & 0x0F == BLANK
    assert [register for register, _ in bench.t7.written] == [4990, 2001, 2000, 2002, 2003]
    await bench.driver.off()


@pytest.mark.parametrize(("switch", "bit"), [("set_relay", RELAY), ("set_shutter", SHUTTER)])
async def test_off_wins_over_a_request_that_waits_in_the_queue(bench, switch, bit):
    reading = asyncio.create_task(bench.driver.read())
    await asyncio.sleep(0)  # the line is busy with it
    how = {"closed": True} if switch == "set_relay" else {"open_": True}
    switching = asyncio.create_task(getattr(bench.driver, switch)(**how))
    await asyncio.sleep(0)
    await bench.driver.off()
    with pytest.raises(Refused, match="stays off: everything was switched off"):
        await switching
    assert not bench.high(bit)
    await asyncio.gather(reading, return_exceptions=True)


async def test_a_reading_never_mixes_old_levels_with_a_new_command(bench):
    for closed in (True, False) * 20:
        reading = asyncio.create_task(bench.driver.read())
        for _ in range(closed * 3):
            await asyncio.sleep(0)
        await bench.driver.set_relay(closed=closed)
        assert (await reading).problems == ()


async def test_off_goes_on_when_a_step_fails(bench):
    await bench.driver.set_relay(closed=True)
    bench.t7.refused[2001] = 2300
    bench.t7.refused[4990] = 2300
    with pytest.raises(Refused):
        await bench.driver.off()
    assert not bench.high(RELAY)
    bench.t7.refused.clear()
    bench.t7.held = {2}
    bench.t7.levels |= RELAY
    with pytest.raises(BadReply, match="FIO2 did not go to the safe level"):
        await bench.driver.off()


async def test_off_works_without_prepare_and_ends_when_nothing_answers():
    bench = Bench()
    await bench.driver.off()
    assert bench.t7.direction == 0x0F
    assert bench.t7.levels & 0x0F == BLANK
    bench.t7.silent = True
    bench.driver._io._timeout_s = 0.01
    with pytest.raises(NoReply):
        await bench.driver.off()


# --- lines -------------------------------------------------------------------------------------------------


def edges(history: list[tuple[float, float, int]], bit: int = 1) -> list[int]:
    before = 0
    rising = []
    for at, (_, _, levels) in enumerate(history):
        if levels & bit and not before & bit:
            rising.append(at)
        before = levels
    return rising


async def test_a_pass(bench):
    t7 = bench.t7
    t7.volts = lambda box: 1.0 + box.dac[0]  # the current tells the column
    await bench.driver.set_relay(closed=True)
    await bench.driver.set_shutter(open_=True)
    report = await bench.scan()
    assert (report.first_line, report.lines_done, report.pulses) == (0, 3, 15)
    assert (report.missed_refills, report.stopped) == (0, False)
    assert [line.line for line in bench.reports] == [0, 1, 2]
    assert report.lines == tuple(bench.reports)
    # what the outputs did
    rising = edges(t7.history)
    assert len(rising) == RASTER.pulses == 15
    for line in range(3):
        for column in range(4):
            x_v, y_v, levels = t7.history[rising[5 * line + column]]
            assert x_v == pytest.approx(2.125 + 0.25 * column)
            assert y_v == pytest.approx(2.0 + 0.5 * line)
            assert not levels & BLANK
        assert t7.history[rising[5 * line + 4]][2] & BLANK  # the parking pulse
    unblanked = [at for at, (_, _, levels) in enumerate(t7.history) if not levels & BLANK]
    assert len(unblanked) == 3 * 4 * 2
    assert all(levels & (RELAY | SHUTTER) == RELAY | SHUTTER for _, _, levels in t7.history)
    # what was told of it: I = 10 pA/V * (1 V + x), 30 ms, by the constants of this box (not the nominal ones)
    sample = [round(33523 + (1.0 + x) / 0.00031580578) for x in (2.125, 2.375, 2.625, 2.875)]
    charges = [1e-11 * (one - 33000) * 3.2e-4 * 0.03 for one in sample]
    for line in bench.reports:
        assert line.pixel_charge_coulomb == pytest.approx(charges, rel=1e-6)
        assert line.charge_coulomb == pytest.approx(sum(charges), rel=1e-6)
        assert line.end_s - line.start_s == pytest.approx(4 * 0.03)
        assert not line.late
    assert bench.reports[0].start_s == pytest.approx(t7.started + (rising[0] + 1) * 0.015, abs=0.002)
    # and the end
    assert not t7.streaming
    assert bench.high(BLANK)
    assert bench.high(RELAY)
    assert bench.high(SHUTTER)


async def test_the_order_of_the_set_up(bench):
    await bench.scan()
    written = bench.t7.written
    head = [register for register, _ in written[:17]]
    assert head == [
        4090, 4040, 4050, 4090, 4060, 4400, 4402, 4422, 4070,
        4002, 4014, 4016, 4024, 4100, 4990, 4060, 4400,
    ]  # fmt: skip
    assert written[1][1] == (0, 1000, 0, 1002, 0, 2500)
    assert written[2][1] == (0, 64, 0, 32, 0, 64)  # twice 11 values and one of 2 bytes, and 2 bytes more
    assert written[8] == (4070, (0, 1) * 3)
    # 66.667 scans/s, 5 entries, 25 samples a packet, settling and resolution automatic, largest buffer
    assert written[9] == (4002, (0x4285, 0x5555, 0, 5, 0, 25, 0, 0, 0, 0, 0, 32768))
    assert written[11] == (4016, (0, 16, 0, 0, 0, 0))
    assert written[13] == (4100, (0, 0, 0, 2500, 0, 4800, 0, 4801, 0, 4802))
    assert written[14] == (4990, (0, 1))
    starts = [
        at
        for at, (register, values) in enumerate(written)
        if (register, values) == (4070, (0, 2, 0, 2, 0, 3))
    ]
    assert len(starts) == 3
    between = [register for register, _ in written[starts[0] + 1 : starts[1]]]
    assert between == [4060, 4400, 4402, 4422]  # the next line, while one plays
    assert written[starts[0] + 4][1] == (
        0xFC02, 0xFC01, 0xFC00, 0xFC01, 0xFC00, 0xFC01, 0xFC00, 0xFC01, 0xFC00, 0xFC03, 0xFC02,
    )  # fmt: skip
    assert written[starts[2] + 1 :] == [(4990, (0, 0)), (2001, (1,)), (2000, (0,))]


async def test_a_line_starts_only_on_the_blanked_end_of_the_one_before(bench):
    starts = []

    def watch(register: int) -> None:
        if register == 4070:
            starts.append((bench.t7.levels & 3, len(edges(bench.t7.history))))

    bench.t7.after_write = watch
    await bench.scan()
    # levels: blank high, clock low; pulses so far: none, 5, 10 (the first entry is the parked sample)
    assert starts[1:] == [(2, 0), (2, 5), (2, 10)]


async def test_long_lines_go_in_whole_floats(bench):
    await bench.scan(Raster(nx=100, ny=1, width_um=100.0, height_um=1.0, dwell_s=0.001))
    sizes = [len(values) for register, values in bench.t7.written if register == 4400]
    assert sum(sizes) == 2 * (4 + 200 + 2 + 1)  # settling 2 ms is 4 scans of 0.5 ms; one parked sample before
    assert all(size % 2 == 0 and size <= 123 for size in sizes)
    assert len(edges(bench.t7.history)) == 101


async def test_only_the_rest_of_a_pass(bench):
    report = await bench.scan(first_line=2)
    assert (report.first_line, report.lines_done, report.pulses) == (2, 1, 5)
    assert [line.line for line in bench.reports] == [2]
    x_v, y_v, _ = bench.t7.history[edges(bench.t7.history)[0]]
    assert (x_v, y_v) == (pytest.approx(2.125), pytest.approx(3.0))


async def test_stopping_between_lines(bench):
    report = await bench.scan(stop_after=1)
    assert (report.lines_done, report.stopped, report.pulses) == (1, True, 5)
    assert len(edges(bench.t7.history)) == 5
    assert not bench.t7.streaming
    assert bench.high(BLANK)


def slow_while_line_0_plays(bench: Bench, lab_s: float) -> Callable[[int], None]:
    loaded = []

    def watch(register: int) -> None:
        if register == 4422:  # the parked sample, line 0, then line 1 while line 0 plays
            loaded.append(register)
            bench.clock.t += lab_s if len(loaded) == 3 else 0.0

    return watch


async def test_a_late_host_leaves_the_beam_blanked_and_is_counted(bench):
    bench.t7.after_write = slow_while_line_0_plays(bench, 2.0)
    report = await bench.scan()
    assert report.missed_refills == 1
    assert [line.late for line in bench.reports] == [False, True, False]
    assert sum(not levels & BLANK for _, _, levels in bench.t7.history) == 3 * 4 * 2
    assert len(edges(bench.t7.history)) == 15


@pytest.mark.parametrize(("speed", "late"), [(1.0, True), (60.0, False)])
async def test_how_late_is_late_depends_on_the_speed(speed, late):
    bench = Bench(speed)  # at 60 times speed 0.25 s of wall time are 15 s of lab time
    await bench.driver.prepare()

    bench.t7.after_write = slow_while_line_0_plays(bench, 5.0)
    report = await bench.scan()
    assert (report.missed_refills > 0) is late


async def test_scans_that_were_skipped_void_the_charge_of_their_line(bench):
    bench.t7.skip_at = {9: 3}
    report = await bench.scan()
    assert [line.charge_coulomb is None for line in bench.reports] == [True, False, False]
    assert bench.reports[0].pixel_charge_coulomb == ()
    assert report.pulses == 15
    assert len(edges(bench.t7.history)) == 15


async def test_reading_while_lines_play(bench):
    readings = []

    async def watch() -> None:
        while True:
            if bench.t7.streaming:
                readings.append(await bench.driver.read())
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await bench.scan()
    watcher.cancel()
    sample = round(33523 + 2.4 / 0.00031580578)
    from_stream = pytest.approx(1e-11 * (sample - 33000) * 3.2e-4, rel=1e-6)
    assert [reading.beam_current_a for reading in readings].count(from_stream) > 5
    assert any(not reading.blanked for reading in readings)
    assert all(reading.problems == () for reading in readings)


async def test_a_current_that_is_old_is_unknown(bench):
    scan = asyncio.create_task(bench.scan())
    while bench.driver._player is None or bench.driver._player.current[0] is None:
        await asyncio.sleep(0)
    current_a, when_s = bench.driver._player.current
    bench.driver._player.current = (current_a, when_s - 1.0)
    assert (await bench.driver.read()).beam_current_a is None
    await scan


async def test_the_watchdog_is_fed_while_lines_play(bench):
    bench.driver._fed_s -= 10.0
    bench.t7.fed.clear()
    await bench.scan()
    assert len(bench.t7.fed) == 1  # due once in this wall time
    bench.driver._key += 1
    await bench.driver.feed_watchdog()
    assert len(bench.t7.fed) == 1  # another key does not count


async def test_no_line_begins_on_a_hungry_watchdog(bench):
    """Lines that are over before the host looks again: nobody waits for them, and nobody fed meanwhile."""
    starts = []

    def watch(register: int) -> None:
        if register == 4070:
            starts.append(len(bench.t7.fed))
        if register == 4422:  # a whole line is written, and has been played before anything else is asked
            bench.clock.t += 2.0
            bench.driver._fed_s -= 2.0  # of three

    bench.t7.fed.clear()
    bench.t7.after_write = watch
    await bench.scan()
    assert starts[1:] == [1, 2, 3]  # the parked sample, then a meal before each line


async def test_a_line_that_the_watchdog_has_cut_off_says_so(bench):
    await bench.driver.set_relay(closed=True)
    await bench.driver.set_shutter(open_=True)

    def fires() -> None:
        if len(edges(bench.t7.history)) == 2 and not bench.t7.levels & BLANK:
            bench.t7.set_levels(BLANK | RELAY | SHUTTER, BLANK)  # the stream unblanks with its next scan

    bench.clock.on_sleep = fires
    with pytest.raises(BadLine) as told:
        await bench.scan()
    assert "line 0 was unblanked for 7 scans instead of 8; relay and shutter went off meanwhile" in str(
        told.value
    )
    assert not bench.t7.streaming
    assert bench.high(BLANK)


async def test_lines_that_begin_while_the_beam_is_blanked_can_be_blanked_too(bench):
    blanking = asyncio.create_task(bench.driver.blank())
    await asyncio.sleep(0)  # it waits for the first of its replies
    scan = asyncio.create_task(bench.scan())
    while len(edges(bench.t7.history)) < 2:
        await asyncio.sleep(0)
    assert blanking.done()
    assert (await bench.driver.read()).problems == ()
    await bench.driver.blank()
    assert not bench.t7.streaming
    assert bench.high(BLANK)
    with pytest.raises(Refused, match="told to blank"):
        await scan


async def test_relay_and_shutter_can_be_switched_while_lines_play(bench):
    scan = asyncio.create_task(bench.scan())
    while len(edges(bench.t7.history)) < 2:
        await asyncio.sleep(0)
    await bench.driver.set_relay(closed=True)
    await scan
    assert bench.high(RELAY)


@pytest.mark.parametrize("how", ["off", "blank"])
async def test_off_and_blank_end_the_lines_at_once(bench, how):
    await bench.driver.set_relay(closed=True)
    scan = asyncio.create_task(bench.scan())
    while len(edges(bench.t7.history)) < 2:
        await asyncio.sleep(0)
    await getattr(bench.driver, how)()
    assert not bench.t7.streaming
    assert bench.high(BLANK)
    assert bench.high(RELAY) is (how == "blank")
    with pytest.raises(Refused, match="was told to blank the beam"):
        await scan
    assert bench.high(BLANK)
    assert not bench.t7.streaming
    assert bench.reports == []
    await bench.scan()  # and it can be played again
    assert len(bench.reports) == 3


@pytest.mark.parametrize("how", ["off", "blank"])
@pytest.mark.parametrize("at_write", range(1, 33))
@pytest.mark.parametrize("turns", [0, 2, 5])
async def test_off_at_any_moment(at_write, how, turns):
    """Whatever was written, or waited in the queue behind a reading: nothing unblanks the beam after it."""
    bench = Bench()
    await bench.driver.prepare()
    bench.t7.written.clear()

    async def poll() -> None:
        while True:
            with contextlib.suppress(NoReply, Refused):
                await bench.driver.read()

    poller = asyncio.create_task(poll())
    scan = asyncio.create_task(bench.scan())
    while len(bench.t7.written) < at_write and not scan.done():
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    await getattr(bench.driver, how)()
    before = bench.t7.history
    after = len(before)
    with contextlib.suppress(Refused):
        await scan
    poller.cancel()
    assert bench.high(BLANK)
    assert not bench.t7.streaming
    since = bench.t7.history[after:] if bench.t7.history is before else bench.t7.history
    assert all(levels & BLANK for _, _, levels in since)
    assert scan.exception() is not None or len(bench.reports) == 3


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_leaves_the_beam_blanked(bench, times):
    scan = asyncio.create_task(bench.scan())
    while len(edges(bench.t7.history)) < 2:
        await asyncio.sleep(0)
    for _ in range(times):
        scan.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await scan
    assert not bench.t7.streaming
    assert bench.high(BLANK)
    assert bench.t7.written[-3:] == [(4990, (0, 0)), (2001, (1,)), (2000, (0,))]
    bench.reports.clear()
    await bench.scan()
    assert len(bench.reports) == 3


async def test_an_error_leaves_the_beam_blanked(bench):
    bench.t7.refused[4402] = 2613
    with pytest.raises(Refused, match="2613: stream-out buffer full"):
        await bench.scan()
    assert not bench.t7.streaming
    assert bench.high(BLANK)


async def test_a_line_that_does_not_play_is_given_up(bench):
    take = bench.t7.take
    bench.t7.take = lambda at: None if bench.t7.streaming else take(at)  # SET_LOOP has no effect
    with pytest.raises(BadReply, match="did not come to its end in time"):
        await bench.scan()
    assert bench.high(BLANK)


async def test_a_fresh_driver_blanks_through_the_stream_of_a_dead_host(bench):
    scan = asyncio.create_task(bench.scan())
    while len(edges(bench.t7.history)) < 2:
        await asyncio.sleep(0)
    other = LabJackT7(Line("io", bench.t7), name="io", clock=bench.clock, settings=SETTINGS)
    await other.blank()
    assert not bench.t7.streaming
    assert bench.high(BLANK)
    with pytest.raises(Refused, match="2620: no stream is running"):
        await scan


async def test_a_blank_that_does_not_follow_is_told(bench):
    bench.t7.held = {1}
    bench.t7.levels &= ~BLANK
    with pytest.raises(BadReply):
        await bench.scan()
    with pytest.raises(BadReply, match="blank line FIO1 did not follow"):
        await bench.driver.blank()


async def test_a_wrong_scan_rate_is_not_accepted(bench):
    def other_rate(register: int) -> None:
        if register == 4002:
            bench.t7.put_f32(4002, 60.0)

    bench.t7.after_write = other_rate
    with pytest.raises(Refused, match=r"would run at 60 instead of 66\.6667 scans/s"):
        await bench.scan()
    assert edges(bench.t7.history) == []


@pytest.mark.parametrize(
    "raster", [replace(RASTER, dwell_s=0.2), replace(RASTER, width_um=800.0), replace(RASTER, nx=0)]
)
async def test_an_impossible_raster_sends_nothing(bench, raster):
    with pytest.raises(OutOfRange):
        await bench.scan(raster)
    assert bench.t7.written == []


async def test_limits_of_a_call(bench):
    with pytest.raises(OutOfRange, match="no line 3"):
        await bench.scan(first_line=3)
    tight = Bench(dwell_limit_s=0.01)
    with pytest.raises(OutOfRange, match=r"at most 0\.01 s"):
        await tight.scan()
    scan = asyncio.create_task(bench.scan())
    while not bench.t7.streaming:
        await asyncio.sleep(0)
    with pytest.raises(Refused, match="already plays"):
        await bench.scan()
    await scan
    assert len(bench.reports) == 3


async def test_at_high_speed_the_wall_is_not_flooded():
    bench = Bench(60.0)
    await bench.driver.prepare()
    await bench.scan(Raster(nx=64, ny=1, width_um=100.0, height_um=1.0, dwell_s=0.03))
    assert min(bench.clock.slept) >= 0.03 - 1e-9  # half a millisecond of wall time
    assert sorted(bench.clock.slept)[len(bench.clock.slept) // 2] >= 0.3  # mostly 10 ms and more
