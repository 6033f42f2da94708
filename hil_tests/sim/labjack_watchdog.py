"""The software watchdog of a LabJack T7.

Registers 61600 to 61652 (ljm_constants.json): they may be written only while the watchdog is disabled, except
the strict clear, and they survive a reboot. Any communication clears it, in strict mode only the right key in
61614. The time-out is lab time, but not shorter than the host can be: at ``speed`` above 1 it is at least
half a second of wall time (or the time-out itself, if that is shorter), as everywhere in host and bench.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hil_tests.sim.labjack_registers import DeviceError, Register, RegisterMap

TIMEOUT_INVALID, ENABLED = 2670, 2671
REGISTERS = {
    61602: "advanced", 61604: "timeout_s", 61606: "startup_s", 61610: "strict", 61612: "key",
    61620: "reset", 61630: "dio", 61632: "dio_state", 61634: "dio_direction", 61636: "dio_inhibit",
    61640: "dac0", 61650: "dac1",
}  # fmt: skip
VOLTAGES = {61642: "dac0_v", 61652: "dac1_v"}
SHORTEST_WALL_S = 0.5


@dataclass(frozen=True)
class Actions:
    """What the device does when the watchdog runs out."""

    dio_state: int | None
    dio_direction: int
    dio_inhibit: int
    dac_v: tuple[float | None, float | None]
    reset: bool


class Watchdog:
    """Settings and deadline.

    Args:
        now_s: lab time.
        speed: lab seconds per wall second.
    """

    def __init__(self, now_s: Callable[[], float], speed: float) -> None:
        self.enabled = False
        self.fired = 0
        self.deadline_s = math.inf
        self._now_s = now_s
        self._speed = speed
        self._settings: dict[str, float] = dict.fromkeys((*REGISTERS.values(), *VOLTAGES.values()), 0.0)

    def add_registers(self, registers: RegisterMap) -> None:
        """Add all registers of the watchdog."""
        registers.add(61600, Register("U32", lambda: self.enabled, self._enable))
        registers.add(61614, Register("U32", None, self._strict_clear))
        for address, name in REGISTERS.items():
            registers.add(address, self._setting("U32", name))
        for address, name in VOLTAGES.items():
            registers.add(address, self._setting("F32", name))

    def communication(self) -> None:
        """Something was received."""
        if self.enabled and not self._settings["strict"]:
            self._clear()

    def booted(self) -> None:
        """The device starts: the start-up delay counts for the first time."""
        if self.enabled:
            startup_s = self._settings["startup_s"]
            self.deadline_s = self._now_s() + (self._lab_s(startup_s) if startup_s else self._timeout_s)

    def fire(self) -> Actions:
        """The deadline has passed: count, start again, say what is to be done."""
        self.fired += 1
        self.deadline_s += self._timeout_s
        s = self._settings
        return Actions(
            dio_state=int(s["dio_state"]) if s["dio"] else None,
            dio_direction=int(s["dio_direction"]),
            dio_inhibit=int(s["dio_inhibit"]),
            dac_v=(s["dac0_v"] if s["dac0"] else None, s["dac1_v"] if s["dac1"] else None),
            reset=bool(s["reset"]),
        )

    def _enable(self, value: float) -> None:
        if value and self._settings["timeout_s"] < 1:
            raise DeviceError(TIMEOUT_INVALID)
        self.enabled = bool(value)
        self.deadline_s = math.inf
        if self.enabled:
            self._clear()

    def _strict_clear(self, value: float) -> None:
        if self.enabled and (not self._settings["strict"] or int(value) == int(self._settings["key"])):
            self._clear()

    def _clear(self) -> None:
        self.deadline_s = self._now_s() + self._timeout_s

    @property
    def _timeout_s(self) -> float:
        return self._lab_s(self._settings["timeout_s"])

    def _lab_s(self, seconds: float) -> float:
        """Return the lab time after which a deadline of ``seconds`` strikes."""
        if self._speed <= 1.0:
            return seconds
        return max(seconds, min(seconds, SHORTEST_WALL_S) * self._speed)

    def _setting(self, kind: str, name: str) -> Register:
        def write(value: float) -> None:
            if self.enabled:
                raise DeviceError(ENABLED)
            self._settings[name] = value

        return Register("F32" if kind == "F32" else "U32", lambda: self._settings[name], write)
