"""A small T7 for tests: registers, stream-out and stream-in in simulated time, from LabJack's lists."""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
from collections.abc import Callable

CENTRE, SLOPE = 33523.0, 0.00031580578  # nominal, +-10 V
SETTINGS = {
    "period_s": 0.1,
    "scanner": {
        "x_dac": 0,
        "y_dac": 1,
        "centre_v": 2.5,
        "scale_x_um_per_v": 100.0,
        "scale_y_um_per_v": 200.0,
        "pixel_clock": 0,
        "blank": 1,
        "settle_s": 0.002,
    },
    "beam_current": {"ain": 0, "scale_a_per_v": 1e-11},
    "relay": {"fio": 2},
    "shutter": {"fio": 3, "readback": 4},
    "permit": {"fio": 5},
    "watchdog": {"timeout_s": 3.0},
}


class FakeClock:
    """Lab time that moves only when told."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.t = 100.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None

    def now_s(self) -> float:
        return self.t

    async def sleep(self, lab_s: float) -> None:
        self.slept.append(lab_s)
        self.t += lab_s
        await asyncio.sleep(0)
        self.on_sleep()

    def wall_timeout_s(self, lab_deadline_s: float) -> float:
        if self.speed == 1.0:
            return lab_deadline_s
        return max(lab_deadline_s / self.speed, min(lab_deadline_s, 0.5))


class Refusal(Exception):
    """The device answers with an exception and remembers this number."""


class FakeT7:
    """A port with the box behind it."""

    where = "fake t7"
    character_s = 0.0

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.exchange_s = 0.001
        self.words: dict[int, int] = {}
        self.written: list[tuple[int, tuple[int, ...]]] = []
        self.inbox: list[bytes] = []
        self.came = asyncio.Event()
        self.silent = False
        self.held: set[int] = set()  # outputs that do not follow
        self.refused: dict[int, int] = {}  # register written -> LabJack error
        self.direction = 0
        self.levels = 0xFF  # inputs are pulled up
        self.volts: Callable[[FakeT7], float] = lambda _: 2.4
        self.flash = struct.pack(">4f", 3.2e-4, -3.1e-4, 33000.0, -10.5)
        self.fed: list[float] = []
        self.dac = [0.0, 0.0]
        self.streaming = False
        self.history: list[tuple[float, float, int]] = []  # x, y, levels behind each scan
        self.put_f32(60000, 7.0, 1.3, 1.0410)
        self.put_u32(60028, 470012345)
        self.put_u32(55100, 0x00112233, 0)
        self.put_u32(55122, 0x8899AABB, 0xC61C3C00)
        self.samples: list[int] = []
        self.pending: list[list[float]] = [[], [], []]
        self.playing: list[list[float]] = [[], [], []]
        self.position = [0, 0, 0]
        self.waiting = [False] * 3
        self.skip_at: dict[int, int] = {}  # scan -> scans lost there
        self.skipped = 0
        self.scan = 0
        self.after_write: Callable[[int], None] = lambda register: None

    # --- the port

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def discard(self) -> bytes:
        data = b"".join(self.inbox)
        self.inbox.clear()
        return data

    async def read(self, timeout_s: float) -> bytes:
        if not self.inbox and timeout_s > 0:
            self.came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.came.wait(), min(timeout_s, 0.001))
        return self.inbox.pop(0) if self.inbox else b""

    async def write(self, data: bytes) -> None:
        if self.silent:
            return
        self.clock.t += self.exchange_s
        transaction, _, _, unit, function = struct.unpack_from(">HHHBB", data)
        self.advance()
        try:
            body = bytes([function]) + self.answer(function, data[8:])
        except Refusal as error:
            self.words[55000] = int(str(error))
            body = bytes([function | 0x80, 4])
        await asyncio.sleep(0)
        self.inbox.append(struct.pack(">HHHB", transaction, 0, len(body) + 1, unit) + body)
        self.came.set()

    def answer(self, function: int, data: bytes) -> bytes:
        register, count = struct.unpack_from(">HH", data)
        if function in (3, 4):
            words = self.read_words(register, count)
            return struct.pack(f">B{count}H", 2 * count, *words)
        values = (count,) if function == 6 else struct.unpack_from(f">{count}H", data, 5)
        self.written.append((register, tuple(values)))
        if register in self.refused:
            raise Refusal(self.refused[register])
        self.write_words(register, values)
        self.after_write(register)
        return data[:4]

    # --- registers

    def put_u32(self, register: int, *values: int) -> None:
        for at, value in enumerate(values):
            self.words[register + 2 * at] = value >> 16
            self.words[register + 2 * at + 1] = value & 0xFFFF

    def put_f32(self, register: int, *values: float) -> None:
        self.put_u32(register, *struct.unpack(f">{len(values)}I", struct.pack(f">{len(values)}f", *values)))

    def u32(self, register: int) -> int:
        return self.words.get(register, 0) << 16 | self.words.get(register + 1, 0)

    def f32(self, register: int) -> float:
        return struct.unpack(">f", struct.pack(">I", self.u32(register)))[0]

    def read_words(self, register: int, count: int) -> list[int]:
        if register < 28:
            if self.streaming:
                raise Refusal(2605)
            return list(struct.unpack(">2H", struct.pack(">f", self.volts(self))))
        if 2000 <= register < 2008:
            self.direction &= ~(1 << register - 2000)
            return [self.levels >> register - 2000 & 1]
        if register == 4500:
            return self.stream_words(count)
        if register == 61812:
            if self.u32(61810) != 0x3C4000:
                raise Refusal(2350)
            return list(struct.unpack_from(f">{count}H", self.flash))
        self.put_u32(2800, self.levels)
        self.put_u32(2850, self.direction)
        self.put_u32(4990, int(self.streaming))
        return [self.words.get(register + at, 0) for at in range(count)]

    def write_words(self, register: int, values: tuple[int, ...]) -> None:
        if 2000 <= register < 2008:
            line = register - 2000
            self.direction |= 1 << line
            self.set_levels(1 << line, values[0] << line)
        elif 4400 <= register < 4406:
            raw = struct.pack(f">{len(values)}H", *values)
            self.append((register - 4400) // 2, struct.unpack(f">{len(values) // 2}f", raw))
        elif 4420 <= register < 4423:
            self.append(register - 4420, values)
        elif 61602 <= register < 61660 and register != 61614 and self.u32(61600):
            raise Refusal(2671)
        else:
            for at, value in enumerate(values):
                self.words[register + at] = value
            for at in range(0, len(values), 2):
                self.special(register + at)

    def special(self, register: int) -> None:
        if register == 4990:
            self.enable(bool(self.u32(4990)))
        elif 4070 <= register < 4076:
            self.set_loop((register - 4070) // 2, self.u32(register))
        elif 4090 <= register < 4096 and not self.u32(register):
            at = (register - 4090) // 2
            self.pending[at], self.playing[at] = [], []
        elif register == 61614 and self.u32(61614) == self.u32(61612):
            self.fed.append(self.clock.t)

    def set_levels(self, mask: int, levels: int) -> None:
        mask &= self.direction & ~sum(1 << line for line in self.held)
        self.levels = self.levels & ~mask | levels & mask

    # --- the stream

    def enable(self, on: bool) -> None:
        if on == self.streaming:
            raise Refusal(2605 if on else 2620)
        if on:
            self.started, self.scan, self.samples, self.history = self.clock.t, 0, [], []
        self.streaming = on

    def append(self, at: int, values: tuple[float, ...]) -> None:
        if not self.u32(4090 + 2 * at):
            raise Refusal(2627)
        used = len(self.pending[at]) + len(self.playing[at]) - self.position[at] + len(values)
        if 2 * used > self.u32(4050 + 2 * at) - 2 + 2:  # the repeating value is still there
            raise Refusal(2613)
        self.pending[at] += values

    def set_loop(self, at: int, how: int) -> None:
        self.waiting[at] = True
        if how == 1:
            self.take(at)
        if how == 3:
            for other in range(3):
                if self.waiting[other]:
                    self.take(other)

    def take(self, at: int) -> None:
        assert self.u32(4060 + 2 * at) == 1
        self.playing[at], self.pending[at] = self.pending[at], []
        self.position[at], self.waiting[at] = 0, False

    def advance(self) -> None:
        if not self.streaming:
            return
        scans = math.floor((self.clock.t - self.started) * self.f32(4002) + 1e-6)
        while self.scan < scans:
            self.one_scan()

    def one_scan(self) -> None:
        self.scan += 1
        for at in range(self.u32(4004)):
            entry = self.u32(4100 + 2 * at)
            if entry < 28:
                self.samples.append(min(65535, max(0, round(CENTRE + self.volts(self) / SLOPE))))
            elif entry == 2500:
                self.samples.append(self.levels & 0xFF)
            else:
                self.step(entry - 4800)
        self.history.append((self.dac[0], self.dac[1], self.levels & 0xFF))
        if self.scan in self.skip_at:
            self.skipped += self.skip_at[self.scan]
            lost = self.skip_at[self.scan]
            del self.samples[-2 * lost :]
            self.samples += [0xFFFF, 0xFFFF]

    def step(self, at: int) -> None:
        values = self.playing[at]
        value = values[min(self.position[at], len(values) - 1)]
        self.position[at] = min(self.position[at] + 1, len(values))
        target = self.u32(4040 + 2 * at)
        if target == 2500:
            self.set_levels(~(int(value) >> 8) & 0xFF, int(value) & 0xFF)
        else:
            self.dac[(target - 1000) // 2] = value

    def stream_words(self, count: int) -> list[int]:
        if not self.streaming:
            raise Refusal(2620)
        taken = self.samples[: count - 4]
        del self.samples[: len(taken)]
        status, self_skipped = (2941, self.skipped) if self.skipped else (0, 0)
        self.skipped = 0
        header = [len(taken), 2 * len(self.samples) & 0xFFFF, status, max(0, self_skipped - 1)]
        return header + taken + [0x1234] * (count - 4 - len(taken))  # what follows means nothing
