"""The LabJack twin against foreign clients, the vendor's register list and the sheet's frames."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from pyModbusTCP.client import ModbusClient

from hil_tests.sim.clock import LabClock, ManualClock
from hil_tests.sim.labjack_t7 import LabJackT7Twin
from hil_tests.sim.physics.beam import Beam, BeamParameters, Stretches, joined

CLOCK, BLANK, RELAY, SHUTTER = 1 << 0, 1 << 1, 1 << 2, 1 << 3


class Bench:
    """A twin without a wire: requests as bytes, time by hand."""

    def __init__(self, *, speed: float = 1.0, **settings: Any) -> None:
        quiet = BeamParameters(wander=0.0, monitor_noise=0.0, monitor_zero_a=0.0)
        self.beam = Beam(quiet, np.random.default_rng(1), ["reader"])
        self.clock = ManualClock()
        self.clock.speed = speed
        self.twin = LabJackT7Twin(self.beam, self.clock, settings)

    def ask(self, request: str) -> str:
        return self.twin._respond(bytes.fromhex(request)).hex(" ")

    def read(self, address: int, words: int = 2) -> list[int]:
        reply = self.twin._respond(struct.pack(">BHH", 3, address, words))
        if reply[0] & 0x80:
            raise AssertionError(f"exception {reply[1]}, error {self.error()}")
        return list(struct.unpack(f">{words}H", reply[2:]))

    def u32(self, address: int) -> int:
        high, low = self.read(address)
        return high << 16 | low

    def f32(self, address: int) -> float:
        return struct.unpack(">f", struct.pack(">HH", *self.read(address)))[0]

    def write(self, address: int, value: float, kind: str = "I") -> None:
        data = struct.pack(f">{kind}", value if kind == "f" else int(value))
        self.send(address, data)

    def send(self, address: int, data: bytes) -> None:
        head = struct.pack(">BHHB", 16, address, len(data) // 2, len(data))
        reply = self.twin._respond(head + data)
        if reply[0] & 0x80:
            raise AssertionError(f"exception {reply[1]}, error {self.error()}")

    def refused(self, address: int, value: float, kind: str = "I") -> int:
        with pytest.raises(AssertionError):
            self.write(address, value, kind)
        return self.error()

    def error(self) -> int:
        reply = self.twin._respond(struct.pack(">BHH", 3, 55000, 1))
        return int.from_bytes(reply[2:], "big")

    def at(self, lab_s: float) -> None:
        self.clock._now_s = lab_s
        self.twin.advance(lab_s)

    def stretches(self) -> Stretches:
        return joined(self.beam.take("reader"))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def served() -> AsyncIterator[LabJackT7Twin]:
    beam = Beam(BeamParameters(wander=0.0), np.random.default_rng(1), ["reader"])
    twin = LabJackT7Twin(beam, LabClock(speed=1.0))
    await twin.start()
    yield twin
    await twin.stop()


# --- foreign client: pyModbusTCP ------------------------------------------------------------------------


def client_of(twin: LabJackT7Twin) -> ModbusClient:
    return ModbusClient(host="127.0.0.1", port=twin.port, timeout=1.0, auto_open=True)


async def test_foreign_client_reads_the_word_order_registers(served: LabJackT7Twin) -> None:
    client = client_of(served)
    assert await asyncio.to_thread(client.read_holding_registers, 55100, 2) == [0x0011, 0x2233]
    assert await asyncio.to_thread(client.read_input_registers, 55122, 2) == [0x8899, 0xAABB]
    assert await asyncio.to_thread(client.read_holding_registers, 55124, 2) == [0xC61C, 0x3C00]
    assert await asyncio.to_thread(client.read_holding_registers, 55101, 1) == [0x2233]
    client.close()


async def test_foreign_client_sets_a_dac_and_reads_the_beam_current(served: LabJackT7Twin) -> None:
    client = client_of(served)
    assert await asyncio.to_thread(client.write_multiple_registers, 1000, [0x4020, 0x0000])
    words = await asyncio.to_thread(client.read_holding_registers, 1000, 2)
    dac_v = struct.unpack(">f", struct.pack(">HH", *words))[0]
    assert dac_v == pytest.approx(2.5, abs=16 / 13200)  # 12 bit
    words = await asyncio.to_thread(client.read_holding_registers, 0, 2)
    ain_v = struct.unpack(">f", struct.pack(">HH", *words))[0]
    assert ain_v == pytest.approx(2.4, rel=0.03)  # 24 pA at 10 pA/V
    client.close()


async def test_foreign_client_is_refused_half_a_register(served: LabJackT7Twin) -> None:
    client = client_of(served)
    assert await asyncio.to_thread(client.read_holding_registers, 1000, 1) is None
    assert client.last_except == 4
    assert await asyncio.to_thread(client.read_holding_registers, 55000, 1) == [2315]
    assert await asyncio.to_thread(client.read_holding_registers, 1001, 1) is None
    assert await asyncio.to_thread(client.read_holding_registers, 55000, 1) == [2313]
    assert await asyncio.to_thread(client.read_holding_registers, 999, 1) is None
    assert client.last_except == 2
    assert not await asyncio.to_thread(client.write_single_register, 1000, 0)
    client.close()


async def test_reset_drops_the_client_and_forgets_outputs(served: LabJackT7Twin) -> None:
    client = client_of(served)
    await asyncio.to_thread(client.write_multiple_registers, 1000, [0x4020, 0x0000])
    await asyncio.to_thread(client.write_single_register, 2002, 1)
    assert served.relay_closed()
    served.inject({"kind": "reset", "boot_s": 0.02})
    assert not served.relay_closed()
    assert await asyncio.to_thread(client.read_holding_registers, 1000, 2) is None
    client.close()
    await asyncio.sleep(0.03)
    served.advance(served._clock.now_s())
    assert await asyncio.to_thread(client.read_holding_registers, 1000, 2) == [0, 0]
    client.close()


# --- frames of the sheet --------------------------------------------------------------------------------


def test_worked_frames_of_the_sheet(bench: Bench) -> None:
    bench.beam.parameters = BeamParameters(
        current_a=37e-12, wander=0.0, monitor_noise=0.0, monitor_zero_a=0.0
    )
    assert bench.ask("04 00 00 00 02") == "04 04 40 6c cc cd"  # AIN0 = 3.7 V
    assert bench.ask("10 03 e8 00 02 04 40 20 00 00") == "10 03 e8 00 02"  # DAC0 = 2.5 V
    assert bench.ask("03 d7 3c 00 02") == "03 04 00 11 22 33"  # TEST


def test_feedback_function_writes_then_reads(bench: Bench) -> None:
    # type 1 write, 55120, 2 words; type 0 read, 55120, 2 words
    assert bench.ask("4c 01 d7 50 02 de ad be ef 00 d7 50 02") == "4c de ad be ef"
    assert bench.ask("4c 00 03 e8 01") == "cc 04"
    assert bench.ask("41 00 00") == "c1 01"


def test_test_registers_can_be_written(bench: Bench) -> None:
    bench.write(55124, 1.5, "f")
    assert bench.f32(55124) == 1.5
    bench.write(55122, 0x8000_0001)
    assert bench.u32(55122) == 0x8000_0001


# --- digital lines --------------------------------------------------------------------------------------


def test_reading_one_line_makes_it_an_input(bench: Bench) -> None:
    bench.send(2002, struct.pack(">H", 1))
    assert bench.twin.relay_closed()
    assert bench.u32(2850) == RELAY
    assert bench.read(2002, 1) == [0]  # now an input, and the board pulls the relay open
    assert not bench.twin.relay_closed()


def test_ports_respect_inhibits_and_do_not_set_directions(bench: Bench) -> None:
    bench.write(2850, BLANK | RELAY)
    bench.send(2500, struct.pack(">H", 0x00FF))
    assert bench.twin.relay_closed()
    assert bench.twin.blanked()
    bench.send(2500, struct.pack(">H", RELAY << 8 | 0x00))  # the relay is inhibited
    assert bench.twin.relay_closed()
    assert not bench.twin.blanked()
    bench.write(2900, RELAY)
    bench.write(2800, 0)
    assert bench.twin.relay_closed()  # DIO_INHIBIT filters DIO_STATE
    bench.write(2900, 0)
    bench.write(2800, 0)
    assert not bench.twin.relay_closed()


def test_undriven_lines_are_on_their_safe_side(bench: Bench) -> None:
    assert bench.twin.blanked()
    assert not bench.twin.relay_closed()
    assert not bench.twin.shutter_open
    assert bench.u32(2800) & 0x3F == BLANK | 1 << 5  # blanked, permit given; the rest low
    bench.twin.inject({"kind": "permit", "given": False})
    assert bench.u32(2800) & 1 << 5 == 0


def test_shutter_follows_its_line_and_can_stick(bench: Bench) -> None:
    bench.send(2003, struct.pack(">H", 1))
    assert bench.u32(2800) >> 4 & 1 == 0  # it moves for 50 ms
    bench.at(0.06)
    assert bench.u32(2800) >> 4 & 1 == 1
    bench.twin.inject({"kind": "shutter", "stuck": "open"})
    bench.send(2003, struct.pack(">H", 0))
    bench.at(0.2)
    assert bench.twin.shutter_open
    bench.twin.inject({"kind": "shutter"})
    assert not bench.twin.shutter_open
    bench.twin.inject({"kind": "relay", "stuck": "closed"})
    assert bench.twin.relay_closed()


# --- stream ---------------------------------------------------------------------------------------------


def load_line(bench: Bench, dio: list[int], x_v: list[float], mode: tuple[int, int] = (2, 3)) -> None:
    """One line of a raster as the driver of this project would load it: loop on the last value."""
    bench.write(4060, 1)
    bench.write(4062, 1)
    for start in range(0, len(dio), 100):
        bench.send(4421, struct.pack(f">{len(dio[start : start + 100])}H", *dio[start : start + 100]))
    for start in range(0, len(x_v), 50):
        bench.send(4400, struct.pack(f">{len(x_v[start : start + 50])}f", *x_v[start : start + 50]))
    bench.write(4070, mode[0])
    bench.write(4072, mode[1])


def set_up_stream(bench: Bench, *, rate_hz: float = 100.0, data_bytes: int = 0) -> None:
    inhibit = (~(CLOCK | BLANK) & 0xFF) << 8
    bench.write(2850, CLOCK | BLANK | RELAY | SHUTTER)
    bench.send(2500, struct.pack(">H", inhibit | BLANK))
    for number, target in ((0, 1000), (1, 2500)):
        bench.write(4040 + 2 * number, target)
        bench.write(4050 + 2 * number, 512)
        bench.write(4090 + 2 * number, 1)
    bench.write(4002, rate_hz, "f")
    bench.write(4004, 3)
    bench.write(4012, data_bytes)
    bench.write(4016, 16)
    for entry, address in enumerate((0, 4800, 4801)):
        bench.write(4100 + 2 * entry, address)


def line_of(nx: int) -> tuple[list[int], list[float]]:
    inhibit = (~(CLOCK | BLANK) & 0xFF) << 8
    dio = [inhibit | BLANK] * 2
    for _ in range(nx):
        dio += [inhibit | CLOCK, inhibit]
    dio += [inhibit | BLANK | CLOCK, inhibit | BLANK]
    x_v = [2.0, 2.0] + [2.0 + 0.1 * (i // 2) for i in range(2 * nx)] + [2.0, 2.0]
    return dio, x_v


def test_a_line_plays_once_and_parks_blanked(bench: Bench) -> None:
    set_up_stream(bench)
    bench.send(2003, struct.pack(">H", 1))
    bench.at(1.0)
    bench.stretches()
    dio, x_v = line_of(4)
    load_line(bench, dio, x_v)
    bench.write(4990, 1)
    bench.at(1.105)  # ten scans: two of lead-in, eight of pixels
    s = bench.stretches()
    assert s.pulses_s == pytest.approx(
        [1.03, 1.05, 1.07, 1.09]
    )  # the first scan comes one period after enable
    on = s.on_sample
    assert s.begin_s[on] == pytest.approx([1.03, 1.05, 1.07, 1.09])
    assert s.end_s[on] == pytest.approx([1.05, 1.07, 1.09, 1.105])
    assert s.x_um[on] == pytest.approx([-50.0, -40.0, -30.0, -20.0], abs=0.13)  # 12 bit, 100 um/V
    bench.at(2.0)
    s = bench.stretches()
    assert s.pulses_s == pytest.approx([1.11])  # the parking pulse, blanked
    assert s.end_s[s.on_sample] == pytest.approx([1.11])
    assert bench.twin.blanked()
    assert bench.twin.deflector.pulses == 5


def test_a_stream_may_stop_in_mid_line_and_leaves_the_beam_on(bench: Bench) -> None:
    set_up_stream(bench)
    bench.send(2003, struct.pack(">H", 1))
    bench.at(1.0)
    load_line(bench, *line_of(4))
    bench.twin.inject({"kind": "stream_stop", "beam_on": True})
    bench.write(4990, 1)
    bench.at(1.025)  # lead-in: blanked
    assert bench.u32(4990) == 1
    bench.at(1.045)  # the first pixel
    assert bench.u32(4990) == 0
    bench.at(2.0)
    assert not bench.twin.blanked()
    assert bench.twin.counters()["longest_stay_s"] > 0.9


def test_the_next_line_waits_for_the_end_of_this_one(bench: Bench) -> None:
    set_up_stream(bench)
    dio, x_v = line_of(3)
    load_line(bench, dio, x_v)
    bench.write(4990, 1)
    bench.at(0.055)
    load_line(bench, dio, x_v)  # synch in mid-line
    bench.at(0.205)
    assert bench.twin.deflector.pulses == 8
    edges = bench.stretches().pulses_s
    assert edges == pytest.approx([0.03, 0.05, 0.07, 0.09, 0.13, 0.15, 0.17, 0.19])


def test_the_other_reading_of_set_loop_breaks_in(bench: Bench) -> None:
    hasty = Bench(interrupts=True)
    set_up_stream(hasty)
    dio, x_v = line_of(3)
    load_line(hasty, dio, x_v)
    hasty.write(4990, 1)
    hasty.at(0.055)
    load_line(hasty, dio, x_v)
    hasty.at(0.205)
    assert hasty.stretches().pulses_s == pytest.approx([0.03, 0.05, 0.08, 0.10, 0.12, 0.14])


def test_synch_keeps_two_channels_together(bench: Bench) -> None:
    set_up_stream(bench)
    bench.write(4990, 1)
    dio, x_v = line_of(3)
    bench.write(4060, 1)
    bench.write(4062, 1)
    bench.send(4400, struct.pack(f">{len(x_v)}f", *x_v))
    bench.write(4070, 2)  # DAC waits
    bench.at(0.505)
    assert bench.twin.analogue.dac_v[0] == 0.0
    bench.send(4421, struct.pack(f">{len(dio)}H", *dio))
    bench.write(4072, 3)
    bench.at(0.515)
    assert bench.twin.analogue.dac_v[0] == pytest.approx(2.0, abs=2e-3)


def test_buffer_status_and_errors_of_stream_out(bench: Bench) -> None:
    assert bench.refused(4400, 1.0, "f") == 2627  # not enabled
    assert bench.refused(4040, 2000) == 2614  # not a target
    assert bench.refused(4050, 500) == 2615  # not a power of two
    bench.write(4040, 1000)
    assert bench.refused(4090, 1) == 2617  # no buffer
    bench.write(4050, 32)
    bench.write(4090, 1)
    assert bench.u32(4080) == 15  # 32 bytes less one sample, in values
    bench.send(4400, struct.pack(">10f", *range(10)))
    assert bench.u32(4080) == 5
    with pytest.raises(AssertionError, match="2613"):
        bench.send(4400, struct.pack(">10f", *range(10)))
    assert bench.u32(4080) == 0
    with pytest.raises(AssertionError, match="2623"):
        bench.send(4420, struct.pack(">H", 1))
    bench.write(4040 + 2, 2500)
    bench.write(4050 + 2, 64)
    bench.write(4090 + 2, 1)
    assert bench.refused(4402, 1.0, "f") == 2623
    assert bench.refused(4062, 40) == 2622


def test_stream_data_by_command_response_need_the_flash_calibration(bench: Bench) -> None:
    set_up_stream(bench)
    bench.write(61810, 0x3C4000)
    words = bench.read(61812, 8)
    above, below, centre, _ = struct.unpack(">4f", struct.pack(">8H", *words))
    assert (above, below) == pytest.approx((0.0003158, -0.0003158), rel=0.01)
    bench.write(4990, 1)
    bench.at(0.205)
    words = bench.read(4500, 4 + 12)
    assert words[:4] == [12, 16, 0, 0]  # 12 of 20 samples, 16 bytes left, status, information
    volts = [(word - centre) * (above if word >= centre else -below) for word in words[4:]]
    assert volts == pytest.approx([2.4] * 12, abs=2e-4)
    assert bench.read(4500, 4 + 12)[:4] == [8, 0, 0, 0]


def test_a_port_in_the_scan_list_shows_what_the_scan_before_left(bench: Bench) -> None:
    set_up_stream(bench)
    bench.write(4004, 4)
    for entry, address in enumerate((2500, 4800, 4801, 2500)):  # before the outputs, and behind them
        bench.write(4100 + 2 * entry, address)
    dio, x_v = line_of(2)
    load_line(bench, dio, x_v)
    bench.write(4990, 1)
    bench.at(0.105)
    words = bench.read(4500, 4 + 20)[4:]
    masked = [word & (CLOCK | BLANK) for word in words]
    after = [value & (CLOCK | BLANK) for value in [*dio, *([dio[-1]] * 10)][:10]]
    assert masked[1::2] == after
    assert masked[0::2] == [BLANK, *after[:-1]]


def test_analogue_inputs_belong_to_the_stream(bench: Bench) -> None:
    set_up_stream(bench)
    bench.write(4990, 1)
    assert bench.ask("04 00 00 00 02") == "84 04"
    assert bench.error() == 2605
    assert bench.ask("03 ea 94 00 02") == "83 04"  # TEMPERATURE_DEVICE_K too
    assert bench.refused(4990, 1) == 2605
    assert bench.refused(4002, 50.0, "f") == 2605
    bench.write(4990, 0)
    assert bench.ask("04 00 00 00 02") == "04 04 40 19 99 9a"  # 2.4 V
    assert bench.refused(4990, 0) == 2620


def test_auto_recovery_skips_and_says_how_many(bench: Bench) -> None:
    set_up_stream(bench, data_bytes=32)  # 16 samples
    bench.write(4990, 1)
    bench.at(0.305)  # 30 scans: 14 too many
    words = bench.read(4500, 4 + 10)
    assert words[:4] == [10, 12, 2940, 0]
    assert bench.read(4500, 4 + 10)[:4] == [6, 0, 2940, 0]
    bench.at(0.355)
    words = bench.read(4500, 4 + 10)
    assert words[:4] == [6, 0, 2941, 14]
    assert words[4] == 0xFFFF  # the dummy scan
    assert words[5] != 0xFFFF


@pytest.mark.parametrize(
    ("address", "value", "kind", "error"),
    [
        (4004, 0, "I", 2600),
        (4016, 1, "I", 2612),
        (4002, 50_000.0, "f", 2608),
        (4010, 9, "I", 2606),
        (4012, 1000, "I", 2615),
        (4100, 61520, "I", 2625),
        (4102, 4803, "I", 2627),
    ],
)
def test_a_wrong_stream_is_refused(bench: Bench, address: int, value: float, kind: str, error: int) -> None:
    set_up_stream(bench)
    bench.write(address, value, kind)
    assert bench.refused(4990, 1) == error


def test_scan_interval_is_a_multiple_of_100_ns(bench: Bench) -> None:
    bench.write(4002, 333.0, "f")
    assert bench.f32(4494) == pytest.approx(1 / 0.0030030, rel=1e-6)
    bench.write(4002, 66.0, "f")
    assert bench.f32(4494) == pytest.approx(1 / 0.015152, rel=1e-6)  # below 152.588 Hz: 1 us


def test_stream_burst_ends_by_itself(bench: Bench) -> None:
    set_up_stream(bench)
    bench.write(4020, 5)
    bench.write(4990, 1)
    bench.at(1.0)
    assert bench.u32(4990) == 0
    assert bench.read(4500, 4 + 10)[:3] == [5, 0, 2944]


def test_command_response_pulse_counts(bench: Bench) -> None:
    for level in (0, 1, 1, 0, 1):
        bench.send(2000, struct.pack(">H", level))
        bench.at(bench.clock.now_s() + 0.01)
    assert bench.twin.deflector.pulses == 2
    assert bench.stretches().pulses_s == pytest.approx([0.01, 0.04])


# --- watchdog -------------------------------------------------------------------------------------------


def arm(bench: Bench, timeout_s: int = 3) -> None:
    bench.write(2850, BLANK | RELAY | SHUTTER)
    bench.write(2800, RELAY | SHUTTER)
    for address, value in {
        61604: timeout_s, 61610: 1, 61612: 0x1234, 61630: 1, 61632: BLANK,
        61634: BLANK | RELAY | SHUTTER, 61636: ~0x0E & 0x7FFFFF,
    }.items():  # fmt: skip
        bench.write(address, value)
    bench.write(61600, 1)


def test_strict_watchdog_drives_the_lines_safe(bench: Bench) -> None:
    arm(bench)
    for second in (1.0, 2.0, 3.5):
        bench.at(second)
        bench.write(61614, 0x1234)
    bench.at(6.4)
    assert bench.u32(61600) == 1  # any other request does not feed it
    assert bench.twin.relay_closed()
    bench.at(6.6)
    assert not bench.twin.relay_closed()
    assert bench.twin.blanked()
    assert bench.u32(2800) & (BLANK | RELAY | SHUTTER) == BLANK
    assert bench.twin.counters()["watchdog_fired"] == 1


def test_a_wrong_key_does_not_feed_it(bench: Bench) -> None:
    arm(bench)
    bench.at(2.0)
    bench.write(61614, 0x4321)
    bench.at(3.1)
    assert not bench.twin.relay_closed()


def test_without_strict_mode_anybody_feeds_it(bench: Bench) -> None:
    arm(bench)
    bench.write(61600, 0)
    bench.write(61610, 0)
    bench.write(61600, 1)
    bench.at(2.9)
    bench.u32(60028)
    bench.at(5.8)
    assert bench.twin.relay_closed()
    bench.at(6.0)
    assert not bench.twin.relay_closed()


def test_watchdog_settings_are_locked_while_it_runs_and_survive_a_reset(bench: Bench) -> None:
    arm(bench)
    assert bench.refused(61604, 10) == 2671
    bench.twin.inject({"kind": "reset"})
    bench.at(5.0)
    assert bench.u32(61604) == 3
    assert bench.u32(61600) == 1


def test_timeout_is_lab_time_but_at_least_half_a_wall_second() -> None:
    fast = Bench(speed=60.0)
    arm(fast)
    fast.at(29.0)  # 3 s of lab time are 50 ms of wall time; half a wall second is 30 lab seconds
    assert fast.twin.relay_closed()
    fast.at(30.1)
    assert not fast.twin.relay_closed()


def test_a_bench_that_was_held_up_gives_the_watchdog_its_time_back() -> None:
    bench = Bench(stall_wall_s=0.1)
    bench.at(0.05)
    arm(bench)
    for second in np.arange(0.1, 2.9, 0.05):
        bench.at(float(second))
    bench.at(3.3)  # nothing ran for 0.45 s; a request may be waiting to be read
    assert bench.twin.relay_closed()
    for second in np.arange(3.35, 3.6, 0.05):
        bench.at(float(second))
    assert not bench.twin.relay_closed()
    assert bench.twin.counters()["stalls"] == 1


def test_reboot_by_register(bench: Bench) -> None:
    bench.send(2002, struct.pack(">H", 1))
    bench.write(61998, 0x4C4A_0004)  # in 0.2 s
    bench.at(0.19)
    assert bench.twin.relay_closed()
    bench.at(0.21)
    assert not bench.twin.relay_closed()
    assert bench.twin.counters()["reboots"] == 1


def test_beam_loss_shows_at_the_monitor(bench: Bench) -> None:
    bench.twin.inject({"kind": "beam_loss"})
    assert bench.f32(0) == 0.0
    bench.twin.inject({"kind": "beam_loss", "lost": False})
    assert bench.f32(0) == pytest.approx(2.4)


def test_unknown_faults_and_settings_are_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        bench.twin.inject({"kind": "poltergeist"})
    with pytest.raises(ValueError, match="unknown settings"):
        Bench(colour="blue")
