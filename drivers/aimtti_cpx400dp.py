"""Aim-TTi CPX400DP: one output of a bench supply as the power of a heater. Text over RS-232, USB or TCP 9221.

    V1 12.00   I1 1.500   OP1 1          set; nothing comes back, also when it was refused
    V1?   -> V1 12.000     V1O?  -> 12.001V     OP1?  -> 1
    I1?   -> I1 1.500      I1O?  -> 1.499A      LSR1? -> events since the last read, cleared by reading
    OVP1? -> VP1 15.0      OCP1? -> CP1 2.00    EER?  -> why something was refused, cleared by reading

Since a refused command is silent, every setting is written and read back in one line, with one query, so
that one reply belongs to it. What shapes the rest: *the instrument has no watch on its host*. If the host
dies the heater keeps its last power; only the relay in series ends that. So the cap on the power is in the
instrument as well: voltage set-points end at sqrt(cap x resistance), the current limit is what the heater
draws there, and both trips are programmed. Whatever is connected, no more than 1.02 x cap comes out.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from drivers.clock import Clock
from drivers.errors import BadReply, DriverError, NoReply, OutOfRange, Refused
from drivers.going_off import GoingOff
from drivers.line import Interrupted, Line
from drivers.roles import Identity, PowerReading, Role

T = TypeVar("T")

HIGHEST_V, HIGHEST_A, HIGHEST_W = 60.0, 20.0, 420.0  # of one output; 420 W is an envelope, not a corner
TIMEOUT_S = 0.5  # the slowest exchange has 40 characters, 42 ms at 9600 baud
VOLT_STEP_V = 0.01
CURRENT_SPARE = 1.02  # of the current that the heater draws at the cap
OVP_SPARE, OVP_MORE_V = 1.05, 0.5
OCP_SPARE, LOWEST_OCP_A = 1.1, 2.0
FOLLOWS_V, FOLLOWS = 0.1, 0.03  # measured against set: an offset, and a fraction
RESISTANCE_WITHIN = 0.2  # of a heater, cold to hot; more is a wrong or a damaged heater
MEASURABLE_A = 0.05

CONSTANT_CURRENT, OVP_TRIP, OCP_TRIP, POWER_LIMIT, HARD_TRIP = 1, 2, 3, 4, 6  # bits of LSR
EVENTS = {
    OVP_TRIP: "over-voltage trip",
    OCP_TRIP: "over-current trip",
    POWER_LIMIT: "power limit: the output is not regulated",
    HARD_TRIP: "trip that only the front panel or the mains switch clears",
}
TRIPS = 1 << OVP_TRIP | 1 << OCP_TRIP | 1 << HARD_TRIP
ERRORS = {
    100: "number out of range",
    101: "stored set-up damaged",
    102: "no stored set-up",
    103: "no such output",
    104: "not allowed while the output is on",
    200: "another interface holds the lock",
}
CLEARED_BY_READING = ("LSR1?", "LSR2?", "EER?", "ESR?", "IFLOCK?", "IFLOCK")
NUMBER = r"-?\d+(?:\.\d+)?"


class AimTtiCpx400dp:
    """One output with a heater of known resistance.

    Args:
        line: serial or TCP line.
        name: for messages, as in the station file.
        clock: not used: nothing here waits.
        settings: ``output`` (1 or 2), ``heater_ohm``, ``power_cap_w``; optional ``take_lock`` (false),
            ``timeout_s``.
    """

    roles = frozenset({Role.HEATER_POWER})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._output = int(settings.get("output", 1))
        self._ohm = float(settings["heater_ohm"])
        self.power_cap_w = float(settings["power_cap_w"])
        self._take_lock = bool(settings.get("take_lock", False))
        self._timeout_s = float(settings.get("timeout_s", TIMEOUT_S))
        if self._output not in (1, 2):
            raise OutOfRange(f"has the outputs 1 and 2, none {self._output}", device=name)
        self._check_heater()
        self._highest_v = _down(math.sqrt(self.power_cap_w * self._ohm))
        self._limit_a = math.ceil(CURRENT_SPARE * self._highest_v / self._ohm * 1000.0) / 1000.0
        self._going_off = GoingOff(line, name)
        self._asked_v: float | None = None  # what the output is expected to follow; None: off
        self._openings = 0  # of the line, when it was prepared
        self._tripped = ""

    def _check_heater(self) -> None:
        if not (math.isfinite(self._ohm) and 0.5 <= self._ohm <= 10000.0):
            raise OutOfRange(f"a heater of {self._ohm:g} ohm", device=self.name)
        if not 0.0 < self.power_cap_w <= HIGHEST_W:
            raise OutOfRange(
                f"a cap of {self.power_cap_w:g} W: one output gives {HIGHEST_W:g} W", device=self.name
            )
        volt = math.sqrt(self.power_cap_w * self._ohm)
        if volt > HIGHEST_V or volt / self._ohm > HIGHEST_A / CURRENT_SPARE:
            raise OutOfRange(
                f"{self.power_cap_w:g} W into {self._ohm:g} ohm are {volt:.1f} V and "
                f"{volt / self._ohm:.2f} A: one output ends at {HIGHEST_V:g} V and {HIGHEST_A:g} A",
                device=self.name,
            )

    async def identify(self) -> Identity:
        """Ask who it is. Raises BadReply if it is something else."""
        reply = await self._ask("*IDN?", lambda text: text if text.count(",") == 3 else None)
        maker, model, serial, firmware = (part.strip() for part in reply.split(","))
        if "THURLBY" not in maker.upper() or model.replace(" ", "").upper() != "CPX400DP":
            raise BadReply(f"is no CPX400DP: it says {reply!r}", device=self.name)
        return Identity("Aim-TTi", "CPX400DP", serial=serial, firmware=firmware)

    async def prepare(self) -> list[str]:
        """Go off, program current limit and trips, read them back; return what ``check`` must say.

        Raises:
            BadReply: something else answers, or a setting does not read back.
            Refused: another interface holds the lock, or a trip needs the front panel.
        """
        await self.identify()
        lock = await self._lock()
        await self.off()
        events = await self._events()
        if events & 1 << HARD_TRIP:
            raise Refused(f"reports a {EVENTS[HARD_TRIP]}", device=self.name)
        self._tripped = ""
        n = self._output
        ovp_v = math.ceil((OVP_SPARE * self._highest_v + OVP_MORE_V) * 10.0) / 10.0
        ocp_a = math.ceil(max(OCP_SPARE * self._limit_a, LOWEST_OCP_A) * 100.0) / 100.0
        await self._set(f"I{n} {self._limit_a:.3f}", f"I{n}", self._limit_a, within=0.006)
        await self._set(f"OVP{n} {ovp_v:.1f}", f"OVP{n}", ovp_v, within=0.06, answers=f"VP{n}")
        await self._set(f"OCP{n} {ocp_a:.2f}", f"OCP{n}", ocp_a, within=0.06, answers=f"CP{n}")
        self._openings = self._line.openings
        most_w = self._highest_v * self._limit_a
        notes = [
            "no watch on the host: if the host dies the heater keeps its last power; only the relay in "
            "series ends the heating",
            f"never more than {most_w:.1f} W: set-points to {self._highest_v:.2f} V, current limit "
            f"{self._limit_a:.3f} A, trips at {ovp_v:.1f} V and {ocp_a:.2f} A, read back; the front panel "
            "can change all of them",
            f"takes the heater for {self._ohm:g} ohm: the power is set through the voltage and measured",
            lock,
        ]
        notes += [f"reports: {EVENTS[bit]}, before this preparation" for bit in EVENTS if events & 1 << bit]
        return [f"{self.name}: {note}" for note in notes]

    async def set_power_w(self, power_w: float) -> None:
        """Give this power from now on: voltage set and read back, output switched on if it is off.

        Raises:
            OutOfRange: negative, not a number, or above the cap; nothing was sent.
            Refused: the output has tripped, or the instrument says no.
            Interrupted: ``off`` came first.
        """
        if not (math.isfinite(power_w) and 0.0 <= power_w <= self.power_cap_w * (1.0 + 1e-9)):
            raise OutOfRange(f"{power_w} W with a cap of {self.power_cap_w:g} W", device=self.name)
        n, volt = self._output, _down(math.sqrt(power_w * self._ohm))
        async with self._going_off.command():
            if self._tripped:
                raise Refused(
                    f"has tripped ({self._tripped}): find out why, then prepare it", device=self.name
                )
            if self._openings != self._line.openings:
                await self._limits_still_there()
            await self._set(f"V{n} {volt:.2f}", f"V{n}", volt, within=0.006)
            if self._asked_v is None and volt > 0.0:
                state = await self._ask(f"OP{n} 1;OP{n}?", _state)
                if not state:
                    raise await self._refusal("does not switch its output on")
            if self._asked_v is not None or volt > 0.0:
                self._asked_v = volt

    async def read(self) -> PowerReading:
        """Measure volts and amperes, then ask for the state and for what happened meanwhile."""
        n = self._output
        volt = await self._ask(f"V{n}O?", lambda text: _measured(text, "V"))
        ampere = await self._ask(f"I{n}O?", lambda text: _measured(text, "A"))
        on = await self._ask(f"OP{n}?", _state)
        events = await self._events()
        if events & TRIPS:
            self._tripped = ", ".join(EVENTS[bit] for bit in EVENTS if events & TRIPS & 1 << bit)
        problems = [EVENTS[bit] for bit in EVENTS if events & 1 << bit]
        problems += self._contradictions(volt, ampere, on=on, events=events)
        return PowerReading(time.monotonic(), volt, ampere, on, tuple(problems))

    async def off(self) -> None:
        """Output off and its voltage to zero, verified, before whatever else wants the line.

        Raises:
            NoReply, BadReply, Refused: not confirmed. The output may still be on.
        """
        await self._going_off.off(self._go_off)

    async def close(self) -> None:
        """Release the line."""
        await self._line.close()

    # --- inside --------------------------------------------------------------------------------------------

    async def _go_off(self) -> None:
        n = self._output
        if await self._ask(f"OP{n} 0;OP{n}?", _state, urgent=True):
            raise await self._refusal("does not switch its output off", urgent=True)
        self._asked_v = None
        await self._set(f"V{n} 0.00", f"V{n}", 0.0, within=0.006, urgent=True)

    async def _lock(self) -> str:
        """Say how the lock stands; take it if told to. The commands are from memory of the family's book."""
        lock = -1
        try:
            lock = await self._ask("IFLOCK" if self._take_lock else "IFLOCK?", _lock_state)
        except Interrupted:
            raise
        except NoReply:
            await self._ask("*ESR?", _count)  # the unknown command has left its bit there
            return "does not tell whether another interface has locked it"
        if lock < 0:
            raise Refused(
                "another interface holds the lock, or this one may not take it: it could be changed there "
                "and not switched off here",
                device=self.name,
            )
        if lock == 1:
            return "is locked for this interface; closing the line gives it back"
        return "is not locked: other interfaces can change it as well"

    async def _limits_still_there(self) -> None:
        """After a lost link the instrument may have been switched off and on, or be another one."""
        n = self._output
        limit_a = await self._ask(f"I{n}?", lambda text: _setting(text, f"I{n}"))
        if limit_a > self._limit_a + 0.006:
            raise Refused(
                f"has a current limit of {limit_a:g} A after the link was lost: it must be prepared again",
                device=self.name,
            )
        self._openings = self._line.openings

    def _contradictions(self, volt: float, ampere: float, *, on: bool, events: int) -> list[str]:
        """Return what cannot be true at the same time, in plain words."""
        if self._asked_v is None:
            return ["its output is on, and was not asked for"] if on else []
        if not on:
            return ["its output is off, and was asked for"]
        found = []
        asked_v = self._asked_v
        follows = abs(volt - asked_v) <= FOLLOWS_V + FOLLOWS * asked_v
        if not follows and not events & 1 << CONSTANT_CURRENT:
            found.append(f"gives {volt:g} V instead of {asked_v:g} V: somebody or something changed it")
        if events & 1 << CONSTANT_CURRENT:
            found.append("limits the current: the heater draws more than it should")
        expected_a = volt / self._ohm
        if (
            follows
            and expected_a > MEASURABLE_A
            and abs(ampere - expected_a) > RESISTANCE_WITHIN * expected_a
        ):
            what = f"{volt / ampere:.3g} ohm" if ampere > MEASURABLE_A else "no heater at all"
            found.append(f"sees {what} instead of {self._ohm:g} ohm")
        return found

    async def _events(self) -> int:
        return await self._ask(f"LSR{self._output}?", _count)

    async def _set(
        self,
        command: str,
        query: str,
        value: float,
        *,
        within: float,
        answers: str = "",
        urgent: bool = False,
    ) -> None:
        """Write a setting and read it back in the same line."""
        got = await self._ask(
            f"{command};{query}?", lambda text: _setting(text, answers or query), urgent=urgent
        )
        if not abs(got - value) <= within:
            raise await self._refusal(f"was told {command} and has {got:g}", urgent=urgent)

    async def _refusal(self, what: str, *, urgent: bool = False) -> DriverError:
        """Ask why, and return the error to raise."""
        code = await self._ask("EER?", _count, urgent=urgent)
        if code == 0:
            return BadReply(what, device=self.name)
        return Refused(f"{what}: {ERRORS.get(code, 'error')} (EER {code})", device=self.name)

    async def _ask(self, command: str, understand: Callable[[str], T | None], *, urgent: bool = False) -> T:
        """Send one line with one query; repeat it once, since everything here sets a value or reads."""
        request = command.encode("ascii") + b"\n"

        def parse(buffer: bytes) -> T | None:
            if not buffer.endswith(b"\n"):
                return None
            text = buffer.decode("ascii", errors="replace").strip()
            answer = understand(text) if "\n" not in text else None
            if answer is None:
                raise BadReply("is no answer to that", device=self.name, request=request, reply=buffer)
            return answer

        once_more = True
        while True:
            try:
                return await self._line.ask(
                    request, parse, timeout_s=self._timeout_s, device=self.name, urgent=urgent
                )
            except Interrupted:
                raise
            except (NoReply, BadReply):
                # A second read of LSR, EER or ESR would hide what the first one said.
                if not once_more or command.endswith(CLEARED_BY_READING):
                    raise
                once_more = False


def _down(volt: float) -> float:
    """Round to what can be set, never up."""
    return math.floor(volt / VOLT_STEP_V + 1e-9) * VOLT_STEP_V


def _setting(text: str, name: str) -> float | None:
    found = re.fullmatch(rf"{name} +({NUMBER})", text)
    return float(found[1]) if found else None


def _measured(text: str, unit: str) -> float | None:
    found = re.fullmatch(rf"({NUMBER}){unit}", text)
    return float(found[1]) if found else None


def _state(text: str) -> bool | None:
    return {"0": False, "1": True}.get(text)


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,3}", text) else None


def _lock_state(text: str) -> int | None:
    return int(text) if text in ("-1", "0", "1") else None
