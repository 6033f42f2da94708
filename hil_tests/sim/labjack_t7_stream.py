"""Stream mode of a LabJack T7: scans at a fixed rate, stream-out buffers, stream data by command-response.

What the vendor documents, and what is assumed here:

* The first scan comes one scan period after STREAM_ENABLE; the interval is a multiple of 100 ns above 152.588
  Hz, of 1 us, 10 us, 100 us or 1 ms below (ljm_constants.json: STREAM_SCANRATE_HZ, STREAM_START_TIME_STAMP).
* A stream-out takes one value per scan for each time it stands in the scan list (``labjack_stream_out``).
* A read of STREAM_DATA_CR gives four words, samples in this reply, bytes left behind them, status, additional
  information, then the samples (LabJack T-Series datasheet 3.2.4; async_labjack reads it so). Any word count
  from four up is allowed; words without sample are zero (assumed).
* Stream data of analogue inputs are 16-bit binary; the host applies the calibration of the flash memory.
* Auto-recovery: when the buffer is full, scans are skipped until it has been emptied (status 2940); then a
  dummy scan of 0xFFFF and status 2941 with the number of skipped scans, 2943 if that is above 65 535.
* Spontaneous mode (port 702) is not modelled and refused with 2612.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hil_tests.sim.labjack_registers import Buffer, DeviceError, Register, RegisterMap, Words
from hil_tests.sim.labjack_stream_out import BUFFER_SIZE, OUT_DISABLED, StreamOut

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Outputs = Mapping[int, Integers]

NO_CHANNEL, SPONTANEOUS, ACTIVE, BAD_CONFIG, TOO_FAST = 2600, 2603, 2605, 2606, 2608
NO_TARGET_MODE, NOT_RUNNING, CANNOT_STREAM = 2612, 2620, 2625
RECOVERING, RECOVERED, RECOVERED_OVERFLOW, BURST_DONE = 2940, 2941, 2943, 2944
STREAM_OUTS = 4
OUT_ADDRESS = 4800
FASTEST_SAMPLES_HZ = 100_000.0
LARGEST_BUFFER_BYTES = 32_768
DEFAULT_BUFFER_BYTES = 4096
COMMAND_RESPONSE = 16
DUMMY = b"\xff\xff"
CHUNK = 8192  # scans worked through at a time
SETTINGS = (
    *("rate", "addresses", "packet", "settling", "resolution", "bytes", "clock", "target", "scans"),
    *("trigger", "no_recovery", "datatype", "divisor"),
)


@dataclass(frozen=True)
class Scans:
    """What the scans of one advance put out: times, and values by target address."""

    time_s: Floats
    outputs: dict[int, Integers]


class Stream:
    """The stream engine.

    Args:
        now_s: lab time.
        sample: reads one streamable input, ``count`` scans at once, as 16-bit values, given what the
            stream-outs write in these scans by target, and which targets come before it in the scan list;
            None if it cannot be streamed.
        interrupts: whether new stream-out data break into data that are being played.
    """

    def __init__(
        self,
        now_s: Callable[[], float],
        sample: Callable[[int, int, Outputs, Collection[int]], Integers | None],
        *,
        interrupts: bool = False,
    ) -> None:
        self.active = False
        self.outs = [StreamOut(interrupts=interrupts) for _ in range(STREAM_OUTS)]
        self.scans_done = 0
        self.scans_skipped = 0
        self._now_s = now_s
        self._sample = sample
        self._settings = dict.fromkeys(SETTINGS, 0.0)
        self._list = [0] * 128
        self._period_s = 1.0
        self._start_s = 0.0
        self._fifo = bytearray()
        self._recovering = False
        self._skipped = 0
        self._notice = 0, 0
        self._burst_over = False

    # --- registers -------------------------------------------------------------------------------------

    def add_registers(self, registers: RegisterMap) -> None:
        """Add all registers of stream mode."""
        names = {4004: "addresses", 4006: "packet", 4010: "resolution", 4012: "bytes", 4014: "clock"}
        names |= {4016: "target", 4018: "datatype", 4020: "scans", 4022: "divisor", 4024: "trigger"}
        names[4028] = "no_recovery"
        for address, name in names.items():
            registers.add(address, self._setting("U32", name))
        registers.add(4002, Register("F32", lambda: self._settings["rate"], self._set_rate))
        registers.add(4008, self._setting("F32", "settling"))
        registers.add(4026, Register("U32", lambda: int(self._start_s * 4e7) & 0xFFFF_FFFF))
        registers.add(4490, self._read_only("settling"))
        registers.add(4492, Register("U32", lambda: self._settings["resolution"]))
        registers.add(4494, self._read_only("rate"))
        registers.add(4500, Buffer("U16", self._read_data))
        registers.add(4990, Register("U32", lambda: self.active, self._enable))
        for entry in range(len(self._list)):
            registers.add(4100 + 2 * entry, self._list_entry(entry))
        for number, out in enumerate(self.outs):
            out.add_registers(registers, number, self.outs)

    def _setting(self, kind: str, name: str) -> Register:
        def write(value: float) -> None:
            if self.active and name != "bytes":
                raise DeviceError(ACTIVE)
            self._settings[name] = value

        return Register("F32" if kind == "F32" else "U32", lambda: self._settings[name], write)

    def _read_only(self, name: str) -> Register:
        return Register("F32", lambda: self._settings[name])

    def _list_entry(self, entry: int) -> Register:
        def write(value: float) -> None:
            if self.active:
                raise DeviceError(ACTIVE)
            self._list[entry] = int(value)

        return Register("U32", lambda: self._list[entry], write)

    def _set_rate(self, value: float) -> None:
        if self.active:
            raise DeviceError(ACTIVE)
        if not value > 0.0:
            raise DeviceError(TOO_FAST)
        self._period_s = scan_interval_s(value)
        self._settings["rate"] = 1.0 / self._period_s

    # --- life ------------------------------------------------------------------------------------------

    def _enable(self, value: float) -> None:
        if not value:
            if not self.active:
                raise DeviceError(NOT_RUNNING)
            self.stop()
            return
        if self.active:
            raise DeviceError(ACTIVE)
        self._check()
        self.active = True
        self.scans_done = 0
        self._start_s = self._now_s()
        self._fifo.clear()
        self._recovering = self._burst_over = False
        self._skipped = 0
        self._notice = 0, 0

    def stop(self) -> None:
        """End the stream; data that nobody has read are gone."""
        self.active = False
        self._burst_over = False
        self._fifo.clear()

    def power_up(self) -> None:
        """Reach the state after power-up."""
        self.stop()
        for out in self.outs:
            out.enable(0)
            out.target = 0
        self._settings = dict.fromkeys(self._settings, 0.0)
        self._list = [0] * len(self._list)

    def _check(self) -> None:
        addresses = self._scan_list()
        size = int(self._settings["bytes"])
        if not addresses:
            raise DeviceError(NO_CHANNEL)
        if int(self._settings["target"]) != COMMAND_RESPONSE:
            raise DeviceError(NO_TARGET_MODE)
        if self._settings["resolution"] > 8:
            raise DeviceError(BAD_CONFIG)
        if size and (size > LARGEST_BUFFER_BYTES or size & (size - 1)):
            raise DeviceError(BUFFER_SIZE)
        if self._settings["rate"] <= 0.0 or self._settings["rate"] * len(addresses) > FASTEST_SAMPLES_HZ:
            raise DeviceError(TOO_FAST)
        for address in addresses:
            if _is_out(address):
                if not self.outs[address - OUT_ADDRESS].enabled:
                    raise DeviceError(OUT_DISABLED)
            elif self._sample(address, 0, {}, ()) is None:
                raise DeviceError(CANNOT_STREAM)

    def _scan_list(self) -> list[int]:
        return self._list[: int(self._settings["addresses"])]

    # --- time ------------------------------------------------------------------------------------------

    def due(self, now_s: float) -> int:
        """Return how many scans have come due since the last ``run``, at most ``CHUNK``."""
        if not self.active:
            return 0
        count = math.floor((now_s - self._start_s) / self._period_s + 1e-9) - self.scans_done
        wanted = int(self._settings["scans"])
        if wanted:
            count = min(count, wanted - self.scans_done)
        return max(0, min(count, CHUNK))

    def run(self, count: int) -> Scans:
        """Do ``count`` scans: take stream-out values, sample the inputs."""
        number = np.arange(self.scans_done + 1, self.scans_done + count + 1)
        addresses = self._scan_list()
        outputs: dict[int, Integers] = {}
        for address in dict.fromkeys(a for a in addresses if _is_out(a)):
            out, times = self.outs[address - OUT_ADDRESS], addresses.count(address)
            values = out.take(count * times)
            if values is not None:
                outputs[out.target] = values[times - 1 :: times]
        columns, done = [], []
        for address in addresses:
            if _is_out(address):
                done.append(self.outs[address - OUT_ADDRESS].target)
                continue
            sampled = self._sample(address, count, outputs, done)
            columns.append(np.zeros(count, np.int64) if sampled is None else sampled)
        self.scans_done += count
        if columns:
            self._store(np.stack(columns, axis=1))
        if self._settings["scans"] and self.scans_done >= self._settings["scans"]:
            self.active = False
            self._burst_over = True
        return Scans(np.asarray(self._start_s + number * self._period_s), outputs)

    # --- data ------------------------------------------------------------------------------------------

    def _store(self, samples: Integers) -> None:
        size = int(self._settings["bytes"]) or DEFAULT_BUFFER_BYTES
        scan_bytes = 2 * samples.shape[1]
        room = 0 if self._recovering else (size - len(self._fifo)) // scan_bytes
        self._fifo += samples[:room].astype(">u2").tobytes()
        lost = max(0, samples.shape[0] - room)
        if not lost:
            return
        if self._settings["no_recovery"]:
            self.active = False
            return
        self._recovering = True
        self._skipped += lost
        self.scans_skipped += lost

    def _read_data(self, words: int) -> Words:
        if int(self._settings["target"]) != COMMAND_RESPONSE:
            raise DeviceError(SPONTANEOUS)
        if not self.active and not self._burst_over and not self._fifo:
            raise DeviceError(NOT_RUNNING)
        samples = min(max(0, words - 4), len(self._fifo) // 2)
        data = bytes(self._fifo[: 2 * samples])
        del self._fifo[: 2 * samples]
        left = min(len(self._fifo), 0xFFFF)
        reply = [samples, left, *self._status()]
        reply += [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        return (reply + [0] * words)[:words]

    def _status(self) -> tuple[int, int]:
        """Status of a read that has just taken its samples."""
        if self._recovering:
            if self._fifo:
                return RECOVERING, 0
            self._recovering = False
            inputs = sum(1 for address in self._scan_list() if not _is_out(address))
            self._fifo += DUMMY * inputs
            end = RECOVERED if self._skipped <= 0xFFFF else RECOVERED_OVERFLOW
            self._notice = end, min(self._skipped, 0xFFFF)
            self._skipped = 0
            return RECOVERING, 0
        notice, self._notice = self._notice, (0, 0)
        if notice[0] == 0 and self._burst_over and not self._fifo:
            return BURST_DONE, 0
        return notice


def _is_out(address: int) -> bool:
    return OUT_ADDRESS <= address < OUT_ADDRESS + STREAM_OUTS


def scan_interval_s(rate_hz: float) -> float:
    """Return the scan interval that the device makes of a rate."""
    for tick_s in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
        ticks = max(1, round(1.0 / (rate_hz * tick_s)))
        if ticks <= 65_536:
            return ticks * tick_s
    raise DeviceError(TOO_FAST)
