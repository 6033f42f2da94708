"""Twin of a HEXITEC 80 x 80 camera: its commands on a TCP port, its frames as UDP packets of another process.

Commands: ``23 90 CC digits 0D``, answered ``2A 90 digits 0D`` (the bytes of the public sources, typed in once
more). Sending begins with register 01 = 1, and frame numbers with 0. The packets leave in real time, whatever
the speed of the lab: a camera cannot be made faster. Assumed, since no source says it: unknown commands are
not answered; the bias follows its DAC with 0.3 s; the sensor is at 28 degC in a room of 22 degC with 35 %.

Polarisation [m]: the charge fades by 2e-5 a second under bias, and is whole again after a second without.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORLD_S = 0.25  # wall, between two looks at the world that is simulated
BIAS_LAG_S = 0.3
FADES_PER_S = 2e-5
DEFAULTS: dict[str, Any] = {
    "rows": 80, "columns": 80, "frame_hz": 9118.87, "seed": 1, "firmware": (1, 2, 7), "nice": 0,
    "ambient_c": 22.0, "humidity": 0.35, "sensor_c": 28.0,
}  # fmt: skip
STREAM_FAULTS = ("lost", "doubled", "swapped", "late", "wrong_size", "renumber", "skip", "silence")


class HexitecTwin:
    """The camera.

    Args:
        settings: see ``DEFAULTS`` and those of ``hexitec_stream``.
        light: whether X-rays reach it.
        lithium_lost: 1 - x of what it sees.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        light: Callable[[], bool] = lambda: True,
        lithium_lost: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.settings = {**DEFAULTS, **(settings or {})}
        self._light, self._lithium_lost = light, lithium_lost
        self.frames_port = 0
        self.commands = 0
        self._server: asyncio.Server | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._talking = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._told: dict[str, Any] = {}
        self._stream: dict[str, Any] = {}
        self._registers = {0x83: self.settings["columns"] // 4, 0x84: self.settings["rows"], 0x89: 1, 0x01: 0}
        self._registers |= dict(zip((0x80, 0x81, 0x82), self.settings["firmware"], strict=True))
        self._bias_code = 0
        self._bias_v, self._bias_at_s = 0.0, time.monotonic()
        self._faded = 0.0
        self.deaf = False
        self.sensor_c: float | None = None
        self._telling: set[asyncio.Task[Any]] = set()

    # --- life --------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Listen, start the process that sends; return "host:port"."""
        with socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM
        ) as probe:  # free now: the host will listen on it
            probe.bind(("127.0.0.1", 0))
            self.frames_port = int(probe.getsockname()[1])
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hil_tests.sim.hexitec_stream", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        if self.settings["nice"]:  # the camera is no program of this computer: nobody takes its time away
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, self.settings["nice"])
        known = {key: value for key, value in self.settings.items() if key not in ("firmware", "nice")}
        await self._tell({**known, "port": self.frames_port, "lithium_lost": self._lithium_lost()})
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._following = asyncio.create_task(self._follow())
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close everything."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 2.0)
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    def advance(self, now_s: float) -> None:
        """Nothing: this camera lives in real time."""

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong: faults of the stream, ``deaf``, ``damp`` (``sensor_c``), ``mended``."""
        kind = str(fault["kind"])
        if kind in STREAM_FAULTS:
            self._later({"do": "fault", **fault})
        elif kind == "deaf":
            self.deaf = True
        elif kind == "damp":
            self.sensor_c = float(fault.get("sensor_c", 2.0))
        elif kind == "mended":
            self.deaf, self.sensor_c = False, None
        else:
            raise ValueError(f"no fault {kind!r} of a HEXITEC")

    def counters(self) -> dict[str, Any]:
        """Return what was sent, as of the last look (a quarter of a second old at most)."""
        return {
            **self._stream, "commands": self.commands, "bias_v": self.bias_v(),
            "sending": bool(self._registers[0x01]), "faded": self._faded,
        }  # fmt: skip

    # --- world -------------------------------------------------------------------------------------------

    def bias_v(self) -> float:
        """Return the bias at the sensor now."""
        wanted = -self._bias_code * 750.0 / 4095
        return wanted + (self._bias_v - wanted) * math.exp(-(time.monotonic() - self._bias_at_s) / BIAS_LAG_S)

    async def _follow(self) -> None:
        """Let the stream follow shutter, bias and lithium."""
        before_s = time.monotonic()
        while True:
            await asyncio.sleep(WORLD_S)
            now_s = time.monotonic()
            on = self.bias_v() < -100.0
            self._faded = self._faded + FADES_PER_S * (now_s - before_s) if on else 0.0
            before_s = now_s
            world = {
                "light": self._light(), "gain": (1.0 - self._faded) if on else 0.0,
                "lithium_lost": round(self._lithium_lost(), 3),
            }  # fmt: skip
            changed = {key: value for key, value in world.items() if self._told.get(key) != value}
            self._told |= world
            with contextlib.suppress(ConnectionError):
                await self._tell({"do": "set", **changed})

    def _later(self, request: Mapping[str, Any]) -> None:
        """Tell the stream in the order of the calls, without waiting."""
        task = asyncio.get_running_loop().create_task(self._tell(request))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, request: Mapping[str, Any]) -> None:
        async with self._talking:
            process = self._process
            if process is None or process.stdin is None or process.stdout is None:
                return
            process.stdin.write(json.dumps(request).encode() + b"\n")
            answer = json.loads(await process.stdout.readline() or b"{}")
            if not answer.get("ok", True):
                raise ValueError(answer["error"])
            self._stream = {key: value for key, value in answer.items() if key not in ("ok", "ready")}

    # --- commands ----------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b"\r")
                answer = self.respond(request)
                if answer is not None and not self.deaf:
                    writer.write(answer)
        writer.close()

    def respond(self, request: bytes) -> bytes | None:
        """Answer one command; None where the camera would not."""
        start = request.rfind(b"\x23\x90")
        if start < 0 or len(request) < start + 4:
            return None
        self.commands += 1
        code, digits = request[start + 2], request[start + 3 : -1].decode("ascii", "replace")
        try:
            text = self._carry_out(code, digits)
        except (ValueError, KeyError):
            return None
        return None if text is None else b"\x2a\x90" + text.encode() + b"\x0d"

    def _carry_out(self, code: int, digits: str) -> str | None:
        if code == 0x41 and len(digits) == 2:
            return f"{self._registers.get(int(digits, 16), 0):02X}"
        if code in (0x40, 0x42, 0x43) and len(digits) == 4:
            register, value = int(digits[:2], 16), int(digits[2:], 16)
            old = self._registers.get(register, 0)
            new = {0x40: value, 0x42: old | value, 0x43: old & ~value}[code]
            self._write(register, new)
            return f"{register:02X}{new:02X}"
        if code == 0x56:
            if digits:
                self._bias_v, self._bias_at_s = self.bias_v(), time.monotonic()
                self._bias_code = min(int(digits, 16), 4095)
            return f"{self._bias_code:04X}"
        if code == 0x52:
            return "".join(f"{value:04X}" for value in self._environment())
        if code == 0x50:
            monitor = (self.bias_v() + 1043.22) / 1621.65
            others = [1200, 1800, 3000, 2500, 3300, 1650, 1800, 3800]
            return "".join(
                f"{v:04X}" for v in (round(monitor / 2.048 * 4095), *others, 4095, 3000, self._ntc())
            )
        return None

    def _write(self, register: int, value: int) -> None:
        before = self._registers.get(register, 0)
        self._registers[register] = value
        if register == 0x01 and value != before:  # answered at once, whatever the other process is doing
            self._later({"do": "start"} if value else {"do": "stop"})

    def _environment(self) -> list[int]:
        s = self.settings
        return [
            round((s["ambient_c"] + 46.85) * 65535 / 175.72), round((100 * s["humidity"] + 6) * 65535 / 125),
            round(35.0 / 0.0625), round(33.0 / 0.0625), 4095, self._ntc(),
        ]  # fmt: skip

    def _ntc(self) -> int:
        celsius = self.settings["sensor_c"] if self.sensor_c is None else self.sensor_c
        ratio = math.exp((1 / (celsius + 273.15) - 1 / 298.15) * 3988)
        return round(3.0 * ratio / (1 + ratio) / 2.048 * 4095)
