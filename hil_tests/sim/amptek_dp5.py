"""Twin of an Amptek PX5 with its detector, on UDP.

Packets, text configuration and list mode have a file each (``amptek_*``). The pulses come from outside:
photons drawn from the sample, or a recording. What no source says and is assumed: depth of the FIFO and words
of one reply, that another address than the owner's is told "busy" for 15 s, that pulses above the last
channel are not counted. Not modelled, and answered with "unknown PID": oscilloscope, buffered spectra,
discovery, diagnostics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hil_tests.sim.amptek_fw6 import (
    BAD_LENGTH,
    BAD_PID,
    BUSY,
    OK,
    SHARING_ASKED,
    SPECTRUM_PID2,
    Pid,
    Rejected,
    Status,
    acknowledge,
    datagrams,
    packet,
    request,
)
from hil_tests.sim.amptek_list import Fifo, ListTimer
from hil_tests.sim.amptek_text import LIST_CLOCKS, LONGEST_BYTES, SYNC_MODES, Configuration
from hil_tests.sim.clock import BenchClock
from hil_tests.sim.physics.photons import Pulses, PulseSource
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.udp import Address, UdpEndpoint

Floats = npt.NDArray[np.float64]

MCA_ENABLED, PRESET_TIME, PRESET_COUNT, GATE_OPEN, CONFIGURED = 0x20, 0x80, 0x10, 0x08, 0x02
REBOOTED, CLOCK_80_MHZ = 0x20, 0x02
PX5 = 1
HPGE_SUPPLY, HPGE_NOT_INHIBITED = 0x01, 0x20
OWNED_S = 15.0
LIST_DATA: Pid = (0x03, 0x09)
FRESH_WALL_S = 0.02  # list data may be so old: small portions cost the bench more than they tell the host
COUNTS_LIMIT = 1 << 24
DEFAULTS: dict[str, Any] = {
    "detector": "sdd", "channels": 1024, "full_scale_kev": 20.48, "serial": 4711, "fifo_words": 8192,
    "reply_words": 4096, "response_s": 0.002, "boot_s": 2.0, "rollover_tags": False,
}  # fmt: skip


class AmptekTwin:
    """The instrument and its wire.

    Args:
        source: of the pulses.
        clock: the lab clock of the bench.
        settings: see ``DEFAULTS``; ``detector`` is sdd (a PX5) or hpge (a PX5 with HPGe supply), ``channels``
            the power-up value of MCAC, ``full_scale_kev`` what the last channel means.
        upstream: brings whatever the pulses depend on up to a lab time.
    """

    def __init__(
        self,
        source: PulseSource,
        clock: BenchClock,
        settings: Mapping[str, Any] | None = None,
        *,
        upstream: Callable[[float], None] = lambda _now_s: None,
    ) -> None:
        unknown = set(settings or {}) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"unknown settings of the detector: {', '.join(sorted(unknown))}")
        self.settings: dict[str, Any] = {**DEFAULTS, **(settings or {})}
        self.faults = WireFaults()
        self.source = source
        self.configuration = Configuration()
        self.fifo = Fifo(int(self.settings["fifo_words"]))
        self._clock = clock
        self._upstream = upstream
        self._time_s = self._booted_s = clock.now_s()
        self.timer = ListTimer(self._time_s, rollover_tags=bool(self.settings["rollover_tags"]))
        self._owner: tuple[str, float] | None = None
        self._sharing_allowed = True
        self._sharing_asked = False
        self._counts = dict.fromkeys(("requests", "rejected", "busy", "reboots", "listed", "not_listed"), 0)
        self._enabled = False
        self._rebooted = True
        self._flags = 0
        self._fast = self._slow = 0
        self._miscounts = 0
        self._real_s = 0.0
        self._spectrum_counts = np.zeros(max(SPECTRUM_PID2), dtype=np.int64)
        self._power_up()
        speed = clock.speed
        self._udp = UdpEndpoint(
            self._datagram, faults=self.faults, speed=speed, delay_s=float(self.settings["response_s"])
        )
        self._requests: dict[Pid, Callable[[bytes], bytes]] = {
            (0x01, 0x01): self._status_request,
            (0x02, 0x01): lambda data: self._spectrum(data, status=False, clear=False),
            (0x02, 0x02): lambda data: self._spectrum(data, status=False, clear=True),
            (0x02, 0x03): lambda data: self._spectrum(data, status=True, clear=False),
            (0x02, 0x04): lambda data: self._spectrum(data, status=True, clear=True),
            LIST_DATA: self._list_data,
            (0x20, 0x02): self._configure,
            (0x20, 0x03): lambda data: packet((0x82, 0x07), self.configuration.read_back(data)),
            (0xF0, 0x01): self._ordered(self._clear),
            (0xF0, 0x02): self._ordered(lambda: self._enable(on=True)),
            (0xF0, 0x03): self._ordered(lambda: self._enable(on=False)),
            (0xF0, 0x05): self._ordered(lambda: None),  # auto input offset
            (0xF0, 0x06): self._ordered(lambda: None),  # auto fast threshold
            (0xF0, 0x10): self._ordered(lambda: None),  # clear general counter
            (0xF0, 0x16): self._ordered(self._clear_timer),
            (0xF0, 0x20): self._ordered(lambda: self._share(allowed=True)),
            (0xF0, 0x21): self._ordered(lambda: self._share(allowed=False)),
        }

    # --- life ------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Listen; return "host:port"."""
        return f"127.0.0.1:{await self._udp.start()}"

    async def stop(self) -> None:
        """Close the socket."""
        self._udp.stop()

    @property
    def port(self) -> int:
        """The UDP port."""
        return self._udp.port

    def advance(self, now_lab_s: float) -> None:
        """Take the pulses until ``now_lab_s``."""
        if now_lab_s <= self._time_s:
            return
        self._upstream(now_lab_s)
        pulses = self.source.until(now_lab_s)
        self._absorb(pulses, max(now_lab_s, pulses.until_s))

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire, per datagram; ``unplug``, ``replug``; ``reset`` with ``boot_s``; ``gain``
        with ``factor`` and ``drift_per_h``; ``pixel`` with ``pulses`` of the pixel clock that are missed
        (negative) or seen twice while counting; ``fifo`` with ``words``, its depth (left out: as built).
        """
        kind = fault.get("kind")
        if self.faults.knows(kind):
            self.faults.inject(fault)
        elif kind in ("unplug", "replug"):
            self._udp.silent = kind == "unplug"
        elif kind == "reset":
            self._counts["reboots"] += 1
            self._power_up()
            self._booted_s = self._clock.now_s() + float(fault.get("boot_s", self.settings["boot_s"]))
        elif kind == "pixel":
            self._miscounts += int(fault.get("pulses", -1))
        elif kind == "fifo":
            self.fifo.capacity = int(fault.get("words", self.settings["fifo_words"]))
        elif kind == "gain":
            for name in ("factor", "drift_per_h"):
                attribute = "gain" if name == "factor" else "gain_drift_per_h"
                if name in fault and not hasattr(self.source, attribute):
                    raise ValueError("the gain of a recording cannot change")
                if name in fault:
                    setattr(self.source, attribute, float(fault[name]))
        else:
            raise ValueError(f"no such fault of the detector: {kind!r}")

    def counters(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {
            **self._counts,
            "fast": self._fast,
            "slow": self._slow,
            "real_s": self._real_s,
            "frame": self.timer.frame,
            "words_waiting": len(self.fifo),
            "words_most": self.fifo.most,
            "words_lost": self.fifo.lost,
            "datagrams": self._udp.sent,
            "wire_faults": dict(self.faults.counts),
        }

    # --- counting --------------------------------------------------------------------------------------

    def _absorb(self, pulses: Pulses, until_s: float) -> None:
        """Count and list what came since the last call, if counting is enabled and no preset is reached."""
        begin_s, self._time_s = self._time_s, until_s
        if not self._enabled:
            self.timer.skip(pulses.pixel_clock_s.size, until_s)
            self._counts["not_listed"] += pulses.time_s.size
            return
        channels = int(self.configuration.values["MCAC"])
        channel = pulses.channel
        if channel is None:
            gain = (
                float(self.configuration.values["GAIN"]) * channels / float(self.settings["full_scale_kev"])
            )
            channel = np.floor(pulses.energy_kev * gain).astype(np.int64)
            seen = (channel >= 0) & (channel < channels)
            time_s, channel = pulses.time_s[seen], channel[seen]
        else:
            time_s = pulses.time_s
        stop_s = self._preset_s(begin_s, until_s, time_s)
        keep = time_s <= stop_s
        time_s, channel = time_s[keep], channel[keep]
        edge_s = self._seen(pulses.pixel_clock_s)
        listed = edge_s[edge_s <= stop_s]
        self.fifo.push(self.timer.words(time_s, channel, listed, min(stop_s, until_s)))
        self._counts["listed"] += time_s.size
        self._slow += time_s.size
        self._fast += int((pulses.fast_s <= stop_s).sum())
        self._real_s += min(stop_s, until_s) - begin_s
        bins = np.bincount(channel[channel < channels], minlength=channels)
        self._spectrum_counts[: bins.size] += bins
        if stop_s < until_s:
            self._enabled = False
            self.timer.skip(edge_s.size - listed.size, until_s)

    def _seen(self, edge_s: Floats) -> Floats:
        """Return the edges of the pixel clock that are noticed; a bad cable loses or doubles some."""
        some = min(abs(self._miscounts), edge_s.size)
        if self._miscounts < 0:
            self._miscounts += some
            return edge_s[some:]
        self._miscounts -= some
        return np.sort(np.concatenate((edge_s, edge_s[:some])))

    def _preset_s(self, begin_s: float, until_s: float, time_s: Floats) -> float:
        """Return when a preset ends counting, infinity if none does before ``until_s``."""
        stop_s = float("inf")
        for name in ("PRER", "PRET"):
            preset = self.configuration.number(name)
            if preset and begin_s + preset - self._real_s < until_s:
                stop_s = min(stop_s, begin_s + max(0.0, preset - self._real_s))
                self._flags |= PRESET_TIME
        counts = self.configuration.number("PREC")
        if counts and self._slow + time_s.size >= counts:
            at = max(0, int(counts) - self._slow - 1)
            stop_s = min(stop_s, float(time_s[at]) if time_s.size else begin_s)
            self._flags |= PRESET_COUNT
        return stop_s

    def _enable(self, *, on: bool) -> None:
        if on and not self._enabled:
            self._enabled = True
            self.fifo.push(self.timer.record(self._time_s))
        elif not on:
            self._enabled = False

    def _clear(self) -> None:
        self._spectrum_counts = np.zeros(max(SPECTRUM_PID2), dtype=np.int64)
        self._fast = self._slow = 0
        self._real_s = 0.0
        self._flags = 0

    def _clear_timer(self) -> None:
        self.fifo.push(self.timer.clear(self._time_s))

    def _power_up(self) -> None:
        self._enabled = False
        self._clear()
        self.configuration.reset()
        self.configuration.values["MCAC"] = str(self.settings["channels"])
        self.fifo.clear()
        self.timer = ListTimer(self._time_s, rollover_tags=bool(self.settings["rollover_tags"]))
        self._rebooted = True

    # --- requests --------------------------------------------------------------------------------------

    def _datagram(self, data: bytes, sender: Address) -> list[bytes]:
        now_s = self._clock.now_s()
        if now_s < self._booted_s:
            return []
        self._counts["requests"] += 1
        try:
            pid, body = request(data)
            self._check_owner(sender[0], now_s)
            if pid != LIST_DATA or now_s - self._time_s > FRESH_WALL_S * self._clock.speed:
                self.advance(now_s)
            handle = self._requests.get(pid)
            reply = _unknown() if handle is None else handle(body)
        except Rejected as rejected:
            self._counts["busy" if rejected.code == BUSY else "rejected"] += 1
            reply = acknowledge(rejected.code, rejected.data)
        return datagrams(reply)

    def _check_owner(self, host: str, now_s: float) -> None:
        """One client at a time; a new socket of the same computer is the same client."""
        if self._owner is not None and self._owner[0] != host and now_s - self._owner[1] < OWNED_S:
            self._sharing_asked = self._sharing_allowed
            raise Rejected(BUSY)
        self._owner = (host, now_s)

    def _ordered(self, action: Callable[[], None]) -> Callable[[bytes], bytes]:
        def handle(data: bytes) -> bytes:
            _expect_nothing(data)
            action()
            asked, self._sharing_asked = self._sharing_asked, False
            return acknowledge(SHARING_ASKED if asked else OK)

        return handle

    def _share(self, *, allowed: bool) -> None:
        self._sharing_allowed = allowed

    def _status_request(self, data: bytes) -> bytes:
        _expect_nothing(data)
        return packet((0x80, 0x01), self._status())

    def _status(self) -> bytes:
        hpge = self.settings["detector"] == "hpge"
        clock = 1 if self.timer.tick_s == 1e-6 else 0
        status = Status(
            fast=self._fast,
            slow=self._slow,
            accumulation_s=self._real_s,
            real_s=self._real_s,
            serial=int(self.settings["serial"]),
            high_voltage_v=self.configuration.number("HVSE") or 0.0,
            detector_k=100.0 if hpge else 220.0,
            board_c=38,
            flags=self._flags | GATE_OPEN | (MCA_ENABLED if self._enabled else 0)
            | (CONFIGURED if self.configuration.configured else 0),
            more_flags=CLOCK_80_MHZ | (REBOOTED if self._rebooted else 0),
            device=PX5,
            option=HPGE_SUPPLY | HPGE_NOT_INHIBITED if hpge else 0,
            list_mode=self.timer.sync | clock << 2 | 1 << 3,
        )  # fmt: skip
        self._rebooted = False
        return status.encode()

    def _spectrum(self, data: bytes, *, status: bool, clear: bool) -> bytes:
        _expect_nothing(data)
        channels = int(self.configuration.values["MCAC"])
        counts = self._spectrum_counts[:channels] % COUNTS_LIMIT
        body = counts.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        if status:
            body += self._status()
        if clear:
            self._clear()
        return packet((0x81, SPECTRUM_PID2[channels] + (1 if status else 0)), body)

    def _list_data(self, data: bytes) -> bytes:
        _expect_nothing(data)
        words, overflowed = self.fifo.pop(int(self.settings["reply_words"]))
        return packet((0x82, 0x0B if overflowed else 0x0A), words)

    def _configure(self, data: bytes) -> bytes:
        if not 1 <= len(data) <= LONGEST_BYTES:
            raise Rejected(BAD_LENGTH)
        before = dict(self.configuration.values)
        try:
            self.configuration.apply(data)
        finally:
            self._follow(before)
        return acknowledge(OK)

    def _follow(self, before: Mapping[str, str]) -> None:
        """Make changed values act."""
        values = self.configuration.values
        if values["MCAC"] != before["MCAC"]:
            self._clear()
        for name, flag in (("PRER", PRESET_TIME), ("PRET", PRESET_TIME), ("PREC", PRESET_COUNT)):
            if values[name] != before[name]:
                self._flags &= ~flag
        if values["MCAE"] != before["MCAE"]:
            self._enable(on=values["MCAE"] == "ON")
        self.timer.sync = SYNC_MODES[values["SYNC"]]
        self.timer.set_tick(LIST_CLOCKS[values["CLKL"]], self._time_s)


def _expect_nothing(data: bytes) -> None:
    if data:
        raise Rejected(BAD_LENGTH)


def _unknown() -> bytes:
    raise Rejected(BAD_PID)
