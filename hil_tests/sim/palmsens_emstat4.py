"""Twin of a PalmSens EmStat4 on a serial line, with a cell behind it.

It obeys the commands of the instrument and runs the scripts it is sent. A script that runs does not care
whether the cable is in; after a runtime error on_finished is not executed and the cell stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from hil_tests.sim.clock import BenchClock
from hil_tests.sim.emstat_front import MODELS, Front
from hil_tests.sim.emstat_run import RunFailed, Runner
from hil_tests.sim.emstat_script import Script, ScriptError, parse
from hil_tests.sim.physics.cell import Cell
from hil_tests.sim.wire.faults import WireFaults
from hil_tests.sim.wire.serial_pty import SerialPty
from hil_tests.sim.wire.text import LineReceiver

LONGEST_LINE = 255
UNKNOWN, WRONG_STATE, TOO_LONG, NOT_LOADED = 0x0003, 0x0006, 0x0008, 0x000C
XON = b"\x11"
SETTINGS = (
    "name", "baud", "model", "firmware", "serial", "script", "unlicensed", "voltage_noise_v", "current_noise",
    "seed",
)  # fmt: skip


class EmStatTwin:
    """The instrument, its wire and the cell it drives.

    Args:
        cell: the physics; this twin is the only one that lets its time pass.
        clock: the lab clock of the bench.
        settings: ``model`` (es4_hr, es4_lr, pico), ``baud``, ``name``, ``firmware``, ``serial``,
            ``script`` (version of the language), ``unlicensed`` (script commands that it refuses),
            ``voltage_noise_v``, ``current_noise`` (fraction of the range), ``seed``.
    """

    def __init__(self, cell: Cell, clock: BenchClock, settings: Mapping[str, Any] | None = None) -> None:
        given = dict(settings or {})
        unknown = set(given) - set(SETTINGS)
        if unknown:
            raise ValueError(f"unknown settings of the potentiostat: {', '.join(sorted(unknown))}")
        self.model = MODELS[str(given.get("model", "es4_hr"))]
        self._firmware = str(given.get("firmware", "1301#Jan 10 2023 10:51:41"))
        self._serial = str(given.get("serial", "ES4HR20B0008"))
        self._script_version = str(given.get("script", "01.08.00"))
        self._unlicensed = tuple(given.get("unlicensed", ()))
        self._unsupported = () if self.model.galvanostat else ("meas_loop_cp", "meas_loop_geis", "set_i")
        noise = float(given.get("voltage_noise_v", 20e-6)), float(given.get("current_noise", 5e-5))
        self.cell = cell
        self.front = Front(cell, self.model, noise, int(given.get("seed", 0)))
        self.faults = WireFaults()
        self._clock = clock
        self._time_s = clock.now_s()
        self._receiver = LineReceiver(longest=LONGEST_LINE, ignore=b"\r\x11\x13")
        self._port = SerialPty(
            self._received,
            name=str(given.get("name", "cell")),
            baud=int(given.get("baud", 921600)),
            speed=clock.speed,
        )
        self._incoming: list[str] | None = None  # lines of the script that is being sent
        self._run_when_complete = False
        self._loaded: Script | None = None
        self._runner: Runner | None = None
        self._task: asyncio.Task[None] | None = None
        self._booted_s = self._time_s
        self._counts = dict.fromkeys(
            (
                "commands", "scripts", "points", "range_changes", "aborts", "runtime_errors", "parse_errors",
                "resets", "lines",
            ),
            0,
        )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether a script is running."""
        return self._runner is not None

    async def start(self) -> str:
        """Open the port; return its name."""
        return self._port.open()

    async def stop(self) -> None:
        """End a running script and close the port."""
        await self._end_task()
        self._port.close()

    def advance(self, now_lab_s: float) -> None:
        """Let the cell live until ``now_lab_s``, but not past the next point of a running script."""
        if self._runner is not None:
            now_lab_s = min(now_lab_s, self._runner.waiting_until_s)
        self._advance(now_lab_s)

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong.

        Kinds: those of the wire; ``unplug``, ``replug``; ``overload`` of ``count`` currents, ``nan`` of
        ``count`` voltages; ``runtime_error`` with ``code`` at the next point; ``reset`` with ``boot_s``;
        ``stuck_range`` of the current of a sweep at ``ampere`` (null: free again);
        ``set_error``: the potential that is applied is wrong by ``volt``; ``short`` of the cell with ``ohm``
        (null: gone), ``contact`` with ``ohm`` in series (0: mended).
        """
        kind = fault.get("kind")
        if self.faults.knows(kind):
            self.faults.inject(fault)
        elif kind == "unplug":
            self._port.unplug()
            self._receiver.clear()
        elif kind == "replug":
            self._port.replug()
        elif kind == "overload":
            self.front.overloads = int(fault.get("count", 1))
        elif kind == "nan":
            self.front.no_numbers = int(fault.get("count", 1))
        elif kind == "set_error":
            self.front.misapply(float(fault.get("volt", 0.0)))
        elif kind == "stuck_range":
            self.front.stick(None if fault.get("ampere") is None else float(fault["ampere"]))
        elif kind == "contact":
            self.cell.contact_ohm = float(fault.get("ohm", 0.0))
        elif kind == "runtime_error":
            if self._runner is not None:
                self._runner.forced_error = int(str(fault.get("code", "0032")), 16)
        elif kind == "reset":
            self._reset(float(fault.get("boot_s", 2.0)))
        elif kind == "short":
            ohm = fault.get("ohm", 100.0)
            self.cell.short_ohm = float("inf") if ohm is None else float(ohm)
        else:
            raise ValueError(f"no such fault of the potentiostat: {kind!r}")

    def counters(self) -> dict[str, Any]:
        """Return what happened so far; the coulombs are the cell's own, not the converters'."""
        charge = self.cell.charge
        points = self._counts["points"] + (self._runner.points if self._runner else 0)
        return {
            **self._counts,
            "points": points,
            "cell_on": self.front.cell_on,
            "voltage_v": self.cell.voltage_v,
            "terminal_coulomb": charge.terminals,
            "charge_coulomb": charge.passed_charge,
            "discharge_coulomb": charge.passed_discharge,
            "lost_bytes": self._port.lost_bytes,
            "wire_faults": dict(self.faults.counts),
            "port": self._port.path if self._port.plugged else "",
        }

    def _advance(self, time_s: float) -> None:
        if time_s > self._time_s:
            self.cell.process(time_s - self._time_s)
            self._time_s = time_s

    def _received(self, data: bytes) -> None:
        if self._clock.now_s() < self._booted_s:
            return
        for line, too_long in self._receiver.feed(data):
            self._line(line, too_long=too_long)

    def _line(self, line: str, *, too_long: bool) -> None:
        if self._incoming is not None:
            self._script_line(line)
        elif too_long:
            self._emit(f"{line[0]}!{TOO_LONG:04X}")
        elif line:
            self._counts["commands"] += 1
            self._command(line)

    def _command(self, line: str) -> None:
        letter = line[0]
        if self._runner is not None:
            self._command_while_running(letter, self._runner)
        elif letter in "el" and len(line) == 1:
            self._incoming, self._run_when_complete = [], letter == "e"
        elif line == "t":
            self._emit(f"t{self.model.code}{self._firmware}")
            self._emit("R*")
        elif line == "i":
            self._emit(f"i{self._serial}")
        elif line == "v":
            self._emit(f"v{self._script_version}")
        elif letter == "G" and len(line) == 3:
            self._emit("G00000000")  # the documents we have give no contents
        elif line == "r" and self._loaded is not None:
            self._emit("r")
            self._begin(self._loaded)
        elif line in ("r", "Z", "Y", "h", "H"):
            self._emit(f"{letter}!{NOT_LOADED if line == 'r' else WRONG_STATE:04X}")
        else:
            self._emit(f"{letter}!{UNKNOWN:04X}")

    def _command_while_running(self, letter: str, runner: Runner) -> None:
        if letter not in "ZYhH":
            self._emit(f"{letter}!{WRONG_STATE:04X}")
            return
        self._emit(letter)
        if letter == "Z":
            self._counts["aborts"] += 1
            runner.halted = False
            runner.abort()
        elif letter == "Y":
            runner.leave_loop()
        else:
            runner.halted = letter == "h"  # the cell stays energised meanwhile

    def _script_line(self, line: str) -> None:
        assert self._incoming is not None  # noqa: S101  # only called then
        if line:
            self._incoming.append(line)
            return
        lines, self._incoming = self._incoming, None
        letter = "e" if self._run_when_complete else "l"
        try:
            self._loaded = parse(lines, unsupported=self._unsupported, unlicensed=self._unlicensed)
        except ScriptError as error:
            self._counts["parse_errors"] += 1
            self._emit(f"{letter}!{error.code:04X}: Line {error.line}, Col {error.column}")
            return
        self._emit(letter)
        if self._run_when_complete:
            self._begin(self._loaded)

    def _begin(self, script: Script) -> None:
        self._counts["scripts"] += 1
        self._advance(self._clock.now_s())
        self._runner = Runner(script, self.front, self._clock, self._emit, self._advance)
        self._task = asyncio.get_running_loop().create_task(self._run(self._runner))

    async def _run(self, runner: Runner) -> None:
        last = ""
        try:
            await runner.run()
        except RunFailed as error:
            self._counts["runtime_errors"] += 1
            last = f"!{error.code:04X}: Line {error.line}"
        finally:
            self._counts["points"] += runner.points
            self._counts["range_changes"] += runner.range_changes
            self._runner = None
        self._emit(last)

    def _emit(self, line: str) -> None:
        self._counts["lines"] += 1
        for delay_s, piece in self.faults.outgoing((line + "\n").encode("ascii")):
            self._port.send(piece, delay_s)

    def _reset(self, boot_s: float) -> None:
        """Power lost and back: the script is gone, the cell off, nothing is heard for a while."""
        self._counts["resets"] += 1
        if self._task is not None:
            self._task.cancel()
        self._runner = self._loaded = self._incoming = None
        self._advance(self._clock.now_s())
        self.front.mode = 0
        self.front.switch(on=False)
        self._receiver.clear()
        self._booted_s = self._clock.now_s() + boot_s
        self._port.send(XON, boot_s)

    async def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
