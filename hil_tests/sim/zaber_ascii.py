"""Twin of Zaber stages on one serial line or serial server, speaking the ASCII protocol of firmware 7.

Written from the protocol sheet and the vendor's public manual; the vendor's own library drives it in the
tests. What the manual does not say is a comment here: the text of an alert's address, for instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.serial_pty import SerialPty
from hil_tests.sim.wire.text import LineReceiver
from hil_tests.sim.zaber_motion import AxisMotion

SPEED_SCALE = 1.6384
ACCELERATION_SCALE = 1.6384e-4
RESPONSE_S = 0.002
PRIORITY = ("FF", "FN", "FZ", "FH", "FV", "FO", "FD", "FC", "FM", "FQ", "FI", "FA", "FR", "FS", "FB", "FP",
            "FE", "FT", "WL", "WV", "WT", "WS", "WM", "WP", "WR", "WH", "NC", "NI")  # fmt: skip
_COMMAND = re.compile(r"/(?:(\d+)(?: +(\d+)(?: +(\d+|-))?)?)? *(.*)")
DEFAULTS: dict[str, Any] = {
    "axes": [[1, 1], [1, 2]],  # device and axis of each coordinate
    "microstep_um": 0.047625,
    "travel_um": 50_000.0,
    "max_speed_um_s": 20_000.0,
    "acceleration_um_s2": 100_000.0,
    "at_um": (25_000.0, 25_000.0, 25_000.0),  # where the carriages stand, homed, when the bench begins
    "homed": True,
    "serial": 60_001,
    "baud": 115_200,
    "name": "stage",
}


@dataclass
class _Axis:
    motion: AxisMotion
    flags: set[str] = field(default_factory=set)
    was_busy: bool = False


class ZaberTwin:
    """All stages of one line.

    Args:
        clock: the lab clock of the bench.
        settings: any of ``DEFAULTS``.
        tcp: be a serial server (TCP on 127.0.0.1) instead of a pseudo-terminal.
        on_moved: called with the true positions (um) whenever time has passed.
        seen: what else the counters tell, of what the stage carries.
    """

    def __init__(
        self, clock: BenchClock, settings: Mapping[str, Any] | None = None, *, tcp: bool = False,
        on_moved: Callable[[tuple[float, ...]], None] = lambda _position_um: None,
        seen: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:  # fmt: skip
        unknown = set(settings or {}) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"unknown settings of the stage: {', '.join(sorted(unknown))}")
        self.settings = {**DEFAULTS, **(settings or {})}
        self.faults = WireFaults()
        self._clock = clock
        self._time_s = clock.now_s()
        self._on_moved = on_moved
        self._seen = seen
        step_um = float(self.settings["microstep_um"])
        self.axes: dict[tuple[int, int], _Axis] = {}
        for (device, number), at_um in zip(self.settings["axes"], self.settings["at_um"], strict=False):
            at = float(round(at_um / step_um))
            motion = AxisMotion(
                low=0.0, high=float(round(self.settings["travel_um"] / step_um)),
                max_speed=self.settings["max_speed_um_s"] / step_um,
                acceleration=self.settings["acceleration_um_s2"] / step_um,
                true=at, counted=at if self.settings["homed"] else 0.0,
            )  # fmt: skip
            self.axes[device, number] = _Axis(motion, set() if self.settings["homed"] else {"WR"})
        self.devices = sorted({device for device, _ in self.axes})
        self._common: dict[int, dict[str, int]] = {
            device: {"comm.alert": 0, "comm.checksum": 0} for device in self.devices
        }
        self._counts = {"requests": 0, "ignored": 0, "rejected": 0, "moves": 0, "homings": 0, "alerts": 0}
        self._receiver = LineReceiver(longest=200)
        self._silent_until_s = -1.0
        self._tcp = tcp
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pty = SerialPty(
            self._receive, name=str(self.settings["name"]), baud=int(self.settings["baud"]), speed=clock.speed
        )

    # --- life ------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Open the port; return its name, or host:port."""
        if not self._tcp:
            return self._pty.open()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.close()
            if self._writer is not None:
                self._writer.close()
            self._server = None
        self._pty.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                self._receive(data)

    def advance(self, now_lab_s: float) -> None:
        """Let every axis move until ``now_lab_s``."""
        if now_lab_s <= self._time_s:
            return
        dt_s, self._time_s = now_lab_s - self._time_s, now_lab_s
        for address, axis in self.axes.items():
            happened = axis.motion.process(dt_s)
            if happened == "homed":
                axis.flags -= {"WR", "WH", "FS", "WM", "NI"}
            elif happened == "stalled":
                axis.flags.add("FS")
            if axis.was_busy and not axis.motion.busy:
                self._alert(address, axis)
            axis.was_busy = axis.motion.busy
        self._on_moved(self.position_um)

    @property
    def position_um(self) -> tuple[float, ...]:
        """Where the carriages really are, from their home sensors, um."""
        return tuple(axis.motion.true * self.settings["microstep_um"] for axis in self.axes.values())

    @property
    def moving(self) -> bool:
        """Whether any carriage moves."""
        return any(axis.motion.busy for axis in self.axes.values())

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; with ``axis`` (index of the coordinate, default 0):
        ``stall`` (FS) now or when the carriage passes ``at_um``; ``jammed``: BUSY for ever without moving,
        until ``given`` false; ``stuck``: it counts and does not move, and nothing tells; ``displaced`` by
        ``um``, told by WM unless ``told`` is false; ``knob``: turned by hand by ``um`` (NI); ``flag`` with
        any ``flag``; ``reset``: power lost for ``boot_s``, reference gone (WR); ``home``: a person has homed
        all axes and brought them back to where they stood when the bench began.
        """
        kind = fault.get("kind")
        axis = list(self.axes.values())[int(fault.get("axis", 0))]
        step_um = float(self.settings["microstep_um"])
        if self.faults.knows(kind):
            self.faults.inject(fault)
        elif kind == "unplug":
            self._pty.unplug()
            self._receiver.clear()
        elif kind == "replug":
            self._pty.replug()
        elif kind == "stall":
            axis.motion.stall_at = float(fault["at_um"]) / step_um if "at_um" in fault else axis.motion.true
        elif kind == "jammed":
            axis.motion.jammed = bool(fault.get("given", True))
        elif kind == "stuck":
            axis.motion.stuck = bool(fault.get("given", True))
        elif kind == "displaced":
            axis.motion.true += float(fault["um"]) / step_um
            if fault.get("told", True):
                axis.flags.add("WM")
        elif kind == "knob":
            axis.motion.true += float(fault["um"]) / step_um
            axis.motion.counted += float(round(float(fault["um"]) / step_um))
            axis.flags.add("NI")
        elif kind == "flag":
            axis.flags.add(str(fault["flag"]))
        elif kind == "reset":
            self._reset(float(fault.get("boot_s", 1.0)))
        elif kind == "home":
            for one, at_um in zip(self.axes.values(), self.settings["at_um"], strict=False):
                one.motion.halt()
                one.motion.true = one.motion.counted = float(round(at_um / step_um))
                one.motion.stall_at, one.flags = None, set()
            self._on_moved(self.position_um)
        else:
            raise ValueError(f"no such fault of the stage: {kind!r}")

    def counters(self) -> dict[str, Any]:
        """Return what happened so far, and where everything really is."""
        return {
            **self._counts,
            "position_um": list(self.position_um),
            "moving": self.moving,
            "wire_faults": dict(self.faults.counts),
            **self._seen(),
        }

    def _reset(self, boot_s: float) -> None:
        self._silent_until_s = self._clock.now_s() + boot_s
        for axis in self.axes.values():
            axis.motion.halt()
            axis.motion.counted = 0.0
            axis.flags = {"WR"}

    # --- the wire --------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        # CR ends a line as LF does; a line of nothing is nothing
        for line, too_long in self._receiver.feed(data.replace(b"\r", b"\n")):
            if line and not too_long:
                self._line(line)

    def _send(self, content: str, kind: str, device: int) -> None:
        if self._common[device]["comm.checksum"]:
            content += f":{-sum(content.encode()) & 0xFF:02X}"
        for extra_s, piece in self.faults.outgoing(f"{kind}{content}\r\n".encode()):
            if self._tcp:
                loop = asyncio.get_running_loop()
                loop.call_later((RESPONSE_S + extra_s) / self._clock.speed, self._write, piece)
            else:
                self._pty.send(piece, RESPONSE_S + extra_s)

    def _write(self, piece: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(piece)

    def _line(self, line: str) -> None:
        now_s = self._clock.now_s()
        if now_s < self._silent_until_s:
            return
        self.advance(now_s)
        text, colon, given = line.partition(":")
        wrong = colon and given != f"{-sum(text[1:].encode()) & 0xFF:02X}"
        matched = _COMMAND.fullmatch(text)
        if wrong or matched is None:
            self._counts["ignored"] += 1
            return
        device, axis = int(matched[1] or 0), int(matched[2] or 0)
        asked = self.devices if device == 0 else [device] if device in self.devices else []
        if not asked:
            self._counts["ignored"] += 1
        for one in asked:
            self._counts["requests"] += 1
            self._answer(one, axis, matched[3], matched[4].split())

    def _answer(self, device: int, axis: int, message_id: str | None, words: list[str]) -> None:
        numbers = [number for (owner, number) in self.axes if owner == device]
        if axis and axis not in numbers:
            ok, data = False, "BADAXIS"
        else:
            chosen = [self.axes[device, n] for n in ([axis] if axis else sorted(numbers))]
            try:
                ok, data = True, self._do(device, axis, chosen, words)
            except _Rejected as rejected:
                ok, data = False, str(rejected)
        self._counts["rejected"] += not ok
        told = [self.axes[device, axis]] if axis in numbers else [self.axes[device, n] for n in numbers]
        state = "BUSY" if any(one.motion.busy for one in told) else "IDLE"
        mark = "" if message_id in (None, "-") else f" {int(message_id or 0):02d}"
        content = f"{device:02d} {axis}{mark} {'OK' if ok else 'RJ'} {state} {_highest(told)} {data}"
        self._send(content, "@", device)

    def _alert(self, address: tuple[int, int], axis: _Axis) -> None:
        if self._common[address[0]]["comm.alert"]:
            self._counts["alerts"] += 1
            self._send(f"{address[0]:02d} {address[1]} IDLE {_highest([axis])}", "!", address[0])

    # --- commands --------------------------------------------------------------------------------------

    def _do(self, device: int, number: int, axes: list[_Axis], words: list[str]) -> str:
        match words:
            case []:
                return "0"
            case ["get", what]:
                return self._get(device, number, axes, what)
            case ["set", what, value]:
                return self._set(device, what, value)
            case ["home"]:
                for axis in axes:
                    axis.motion.home()
                    axis.was_busy = True
                    self._counts["homings"] += 1
                return "0"
            case ["stop"] | ["estop"]:
                for axis in axes:
                    if axis.motion.busy:
                        axis.flags.add("NI")
                    axis.motion.stop()
                return "0"
            case ["move", *where]:
                return self._move(axes, where)
            case ["warnings"]:
                flags = _sorted(set().union(*(axis.flags for axis in axes)))
                return " ".join([f"{len(flags):02d}", *flags])
            case ["warnings", "clear"]:
                flags = _sorted(set().union(*(axis.flags for axis in axes)))
                for axis in axes:
                    axis.flags -= {flag for flag in axis.flags if flag not in ("WR", "WH", "FF", "FZ")}
                return " ".join([f"{len(flags):02d}", *flags])
            case ["system", "reset"]:
                self._reset(1.0)
                return "0"
            case _:
                raise _Rejected("BADCOMMAND")

    def _move(self, axes: list[_Axis], where: list[str]) -> str:
        targets = []
        for axis in axes:
            motion = axis.motion
            match where:
                case ["abs", value]:
                    target = _number(value)
                case ["rel", value]:
                    target = round(motion.counted) + _number(value)
                case ["min"]:
                    target = int(motion.low)
                case ["max"]:
                    target = int(motion.high)
                case _:
                    raise _Rejected("BADCOMMAND")
            if not motion.low <= target <= motion.high:
                raise _Rejected("BADDATA")
            targets.append(target)
        for axis, target in zip(axes, targets, strict=True):
            if axis.motion.busy:
                axis.flags.add("NI")
            else:
                axis.flags -= {"NI", "FS"}  # a fault stays until the next movement
            axis.motion.go(target)
            axis.was_busy = True
            self._counts["moves"] += 1
        return "0"

    def _get(self, device: int, number: int, axes: list[_Axis], what: str) -> str:
        per_axis: dict[str, Callable[[AxisMotion], int]] = {
            "pos": lambda m: round(m.counted),
            "limit.min": lambda m: int(m.low),
            "limit.max": lambda m: int(m.high),
            "maxspeed": lambda m: round(m.max_speed * SPEED_SCALE),
            "accel": lambda m: round(m.acceleration * ACCELERATION_SCALE),
            "resolution": lambda _m: 64,
            "peripheralid": lambda _m: 0,
        }
        if what in per_axis:
            return " ".join(str(per_axis[what](axis.motion)) for axis in axes)
        count = len([1 for owner, _ in self.axes if owner == device])
        whole: dict[str, int | str] = {
            "deviceid": 30_222 if count > 1 else 50_081,
            "system.serial": int(self.settings["serial"]) + device - 1,
            "version": "7.38",
            "version.build": 16_000,
            "device.hw.modified": 0,
            "comm.command.packets.max": 1,
            "comm.word.size.max": 50,
            "get.settings.max": 1,
            "system.axiscount": count,
            "comm.address": device,
            "comm.rs232.baud": int(self.settings["baud"]),
            **self._common[device],
        }
        if what not in whole:
            raise _Rejected("BADCOMMAND")
        if number:
            raise _Rejected("DEVICEONLY")
        return str(whole[what])

    def _set(self, device: int, what: str, value: str) -> str:
        if what not in self._common[device]:
            raise _Rejected("BADCOMMAND")
        if value not in ("0", "1"):
            raise _Rejected("BADDATA")
        self._common[device][what] = int(value)
        return "0"


class _Rejected(Exception):
    """The answer is RJ with this reason."""


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _Rejected("BADDATA") from None


def _sorted(flags: set[str]) -> list[str]:
    return sorted(flags, key=lambda flag: PRIORITY.index(flag) if flag in PRIORITY else len(PRIORITY))


def _highest(axes: list[_Axis]) -> str:
    flags = _sorted(set().union(*(axis.flags for axis in axes)))
    return flags[0] if flags else "--"
