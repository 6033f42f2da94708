"""Zaber stages over their ASCII protocol (firmware 6 and 7): coarse positioning, absolute moves only.

The messages are in ``zaber_messages``. What shapes this driver: a reply only says "accepted", so a move is
over when a later status says idle, no flag says otherwise and the position is what was asked for; after a
stall or a displacement nobody knows where the axis stands, and the position stays unknown until it has been
homed (after a lost reply alone: until it was read again at rest); no watch on the host is known, so nothing
that goes on for ever (``move vel``) is ever sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from drivers import zaber_messages as messages
from drivers.clock import Clock
from drivers.errors import BadReply, DriverError, NoReply, OutOfRange, Refused
from drivers.line import Line
from drivers.roles import Identity, Role, StageReading

T = TypeVar("T")

TIMEOUT_S = 1.0  # wall seconds; the vendor library's own
URGENT_S = 0.25
ATTEMPTS = 2  # of questions; a command that moves is never sent twice
POLL_LAB_S, POLL_WALL_S = 0.1, 0.05  # while something moves: 20 Hz at most
STILL_S = 2.0  # lab seconds at one position while the axis says BUSY: it is stuck
MOVE_TIMEOUT_S = 60.0  # lab seconds for the whole travel, unless the settings say otherwise
WITHIN_STEPS = 2  # microsteps between what was asked for and where it came to rest
SPEED_FACTOR = 1.6384  # maxspeed = microsteps per second x 1.6384 (from memory: told, never relied on)


@dataclass(frozen=True)
class Axis:
    """One axis as it is wired: address, length of a microstep, and where it may go."""

    name: str
    device: int
    axis: int
    microstep_um: float
    low_um: float
    high_um: float
    resolution: int | None = None  # microsteps per full step for which ``microstep_um`` holds
    within_um: float | None = None

    @property
    def where(self) -> str:
        """Name and address, for messages."""
        return f"axis {self.name} ({self.device:02d} {self.axis})"

    def steps(self, position_um: float) -> int:
        """Return the nearest microstep."""
        return round(position_um / self.microstep_um)

    def tolerance(self) -> float:
        """Return how far from the target it may come to rest, in microsteps."""
        return WITHIN_STEPS if self.within_um is None else self.within_um / self.microstep_um


@dataclass
class _State:
    """What is known of an axis."""

    limits: tuple[int, int] | None = None  # of the instrument, microsteps
    displaced: str = ""  # why the position is not known, until it is homed
    unsure: bool = True  # a reply is missing: known again after a reading at rest


class ZaberAscii:
    """Up to three axes on one line: a controller of several, or a chain of several controllers.

    Args:
        line: serial line (115200 baud), or a TCP line of a serial server.
        name: for messages, as in the station file.
        clock: lab time, in which motion goes on.
        settings: ``axes``: name -> {device, axis, microstep_um, low_um, high_um, optional resolution,
            within_um}, in the order of the coordinates; optional ``move_timeout_s``.
    """

    roles = frozenset({Role.STAGE})

    def __init__(self, line: Line, *, name: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._line = line
        self._clock = clock
        self.axes = tuple(Axis(name=axis, **table) for axis, table in settings["axes"].items())
        if not 1 <= len(self.axes) <= 3:
            raise OutOfRange(f"has {len(self.axes)} axes, which are one to three", device=name)
        if len({(axis.device, axis.axis) for axis in self.axes}) < len(self.axes):
            raise OutOfRange("has two axes with one address", device=name)
        for axis in self.axes:
            if not axis.low_um < axis.high_um or not axis.microstep_um > 0.0:
                raise OutOfRange(f"{axis.where} has no travel or no microstep", device=name)
        self._move_timeout_s = float(settings.get("move_timeout_s", MOVE_TIMEOUT_S))
        self._states = {axis.name: _State() for axis in self.axes}
        self._id = -1
        self._checked = False  # replies must carry a checksum
        self._openings: int | None = None  # of the line, when it was prepared
        self._moving = asyncio.Lock()
        self._stops = 0

    # --- who it is ---------------------------------------------------------------------------------------

    async def identify(self) -> Identity:
        """Ask every device on the chain for number, serial and firmware.

        Raises:
            BadReply: what answers is no Zaber device.
        """
        serials, firmware, numbers = [], [], []
        for device in self._devices():
            numbers.append(str(messages.parse_integer(await self._get(device, 0, "deviceid"))))
            serials.append(str(messages.parse_integer(await self._get(device, 0, "system.serial"))))
            firmware.append(await self._get(device, 0, "version"))
        return Identity("Zaber", f"device {'+'.join(numbers)}", "+".join(serials), "+".join(firmware))

    async def prepare(self) -> list[str]:
        """Stop, switch checksums on, read limits and references; return what ``check`` must say.

        Raises:
            Refused: the travel of the station file does not lie within that of the instrument, or the
                resolution is not the one for which the microstep was given.
            NoReply, BadReply: as ever.
        """
        self._checked = False
        await self.off()
        for device in self._devices():
            await self._command(device, 0, "set comm.checksum 1")
        self._checked = True
        self._openings = self._line.openings
        notes = []
        for axis in self.axes:
            notes.append(await self._prepare_axis(axis))
        reading = await self.read()
        notes += [f"reports: {problem}" for problem in reading.problems]
        return [
            *notes,
            "homing drives into the home sensor, whatever the limits of the station file: see that the path "
            "is free",
            "no watch on the host is known: a move that was begun goes on to its end, and no further",
        ]

    async def _prepare_axis(self, axis: Axis) -> str:
        low, high = [
            messages.parse_integer(await self._get(axis.device, axis.axis, what))
            for what in ("limit.min", "limit.max")
        ]
        self._states[axis.name] = _State(limits=(low, high), displaced=self._states[axis.name].displaced)
        if axis.steps(axis.low_um) < low or axis.steps(axis.high_um) > high:
            ends = " to ".join(f"{1e-3 * end * axis.microstep_um:.3f}" for end in (low, high))
            raise Refused(
                f"{axis.where} goes from {ends} mm, and its limits in the station file, "
                f"{1e-3 * axis.low_um:g} to {1e-3 * axis.high_um:g} mm, are outside of that",
                device=self.name,
            )
        resolution = messages.parse_integer(await self._get(axis.device, axis.axis, "resolution"))
        if axis.resolution is not None and resolution != axis.resolution:
            raise Refused(
                f"{axis.where} has {resolution} microsteps per step; the length of a microstep in the "
                f"station file is for {axis.resolution}",
                device=self.name,
            )
        speed = messages.parse_integer(await self._get(axis.device, axis.axis, "maxspeed"))
        mm_per_s = 1e-3 * speed / SPEED_FACTOR * axis.microstep_um
        return (
            f"{axis.where}: travel {1e-3 * low * axis.microstep_um:.3f} to "
            f"{1e-3 * high * axis.microstep_um:.3f} mm, allowed {1e-3 * axis.low_um:g} to "
            f"{1e-3 * axis.high_um:g} mm, at about {mm_per_s:.2g} mm/s"
        )

    # --- the role ----------------------------------------------------------------------------------------

    async def read(self) -> StageReading:
        """Poll every axis once: its flags, all of them, and its position, which is None unless it is sure."""
        positions: list[float | None] = []
        problems: list[str] = []
        moving = False
        for axis in self.axes:
            busy, position_um, words = await self._look(axis)
            moving = moving or busy
            positions.append(position_um)
            problems += [f"{axis.where} {word}" for word in words]
        known = [position for position in positions if position is not None]
        return StageReading(
            monotonic_s=time.monotonic(),
            position_um=tuple(known) if len(known) == len(positions) else None,
            moving=moving,
            problems=tuple(problems),
        )

    async def home(self) -> None:
        """Home every axis, one after the other, each in bounded time.

        Raises:
            Refused: it stalled, met a limit, or refuses to be homed.
            BadReply: it does not come to rest, or has no reference position afterwards.
        """
        await self._be_prepared()
        async with self._moving:
            for axis in self.axes:
                state = self._states[axis.name]
                async with self._one_motion([axis]):
                    await self._clear_warnings(axis)
                    await self._command(axis.device, axis.axis, "home")
                    await self._arrived([axis])
                    state.displaced = ""
                    flags, _ = await self._flags(axis, await self._status(axis))
                    if bad := [flag for flag in flags if flag in messages.DISPLACED]:
                        raise BadReply(
                            f"{axis.where} was homed and {messages.words_of(bad[0])}", device=self.name
                        )

    async def move_to_um(self, position_um: tuple[float, ...]) -> None:
        """Move all axes at the same time and wait until they stand there.

        Raises:
            OutOfRange: beyond the station's limits, or the instrument's own; nothing was sent.
            Refused: not homed, displaced, stalled, or refused by the instrument.
            BadReply: stuck, not at rest in time, or at rest elsewhere. The position is unknown then.
        """
        await self._be_prepared()
        targets = self._targets(position_um)
        async with self._moving:
            for axis in self.axes:
                await self._must_be_known(axis)
            async with self._one_motion(self.axes):
                stops = self._stops
                for axis in self.axes:
                    await self._command(axis.device, axis.axis, f"move abs {targets[axis.name]}")
                await self._arrived(self.axes)
                if self._stops != stops:
                    raise Refused("was stopped on its way", device=self.name)
                for axis in self.axes:
                    await self._must_be_at(axis, targets[axis.name])

    async def move_by_um(self, distance_um: tuple[float, ...]) -> None:
        """Move by a distance from where it stands; errors as ``move_to_um``.

        It is an absolute move to the sum: ``move rel`` would be done from wherever the axis really is.
        """
        if len(distance_um) != len(self.axes):
            raise OutOfRange(f"has {len(self.axes)} axes, got {len(distance_um)} distances", device=self.name)
        reading = await self.read()
        if reading.position_um is None:
            raise Refused(f"does not know where it is: {'; '.join(reading.problems)}", device=self.name)
        target = [a + b for a, b in zip(reading.position_um, distance_um, strict=True)]
        await self.move_to_um(tuple(target))

    async def stop(self) -> None:
        """Stop every axis now; whoever waits for a move gets Refused."""
        await self.off()

    async def off(self) -> None:
        """Stop every device, before whatever else wants the line. Nothing is moved to be safe."""
        self._stops += 1
        self._line.interrupt()
        async with self._line.reserved():
            for device in self._devices():
                await self._ask(device, 0, "stop", urgent=True, attempts=ATTEMPTS)

    async def close(self) -> None:
        """Release the line."""
        await self._line.close()

    # --- inside ------------------------------------------------------------------------------------------

    def _devices(self) -> list[int]:
        return sorted({axis.device for axis in self.axes})

    def _targets(self, position_um: Sequence[float]) -> dict[str, int]:
        if len(position_um) != len(self.axes):
            raise OutOfRange(f"has {len(self.axes)} axes, got {len(position_um)} positions", device=self.name)
        targets = {}
        for axis, wanted_um in zip(self.axes, position_um, strict=True):
            if not axis.low_um <= wanted_um <= axis.high_um:
                raise OutOfRange(
                    f"{axis.where} to {1e-3 * wanted_um:g} mm is outside its limits, "
                    f"{1e-3 * axis.low_um:g} to {1e-3 * axis.high_um:g} mm",
                    device=self.name,
                )
            targets[axis.name] = axis.steps(wanted_um)
        return targets

    async def _be_prepared(self) -> None:
        """Prepare it again if its line was opened anew; the flag WR tells whether it was without power."""
        if self._openings is None:
            raise Refused("is not prepared", device=self.name)
        if self._openings != self._line.openings:
            await self.prepare()

    async def _must_be_known(self, axis: Axis) -> None:
        busy, position_um, words = await self._look(axis)
        if busy:
            raise Refused(f"{axis.where} moves already", device=self.name)
        if position_um is None:
            raise Refused(f"{axis.where} does not know where it is: {'; '.join(words)}", device=self.name)

    @contextlib.asynccontextmanager
    async def _one_motion(self, axes: Sequence[Axis]) -> AsyncIterator[None]:
        """Whatever goes wrong inside: it is stopped, and its position is unknown until it is read at rest."""
        for axis in axes:
            self._states[axis.name].unsure = True
        try:
            yield
        except BaseException:
            with contextlib.suppress(DriverError):
                await asyncio.shield(self.off())
            raise

    async def _arrived(self, axes: Sequence[Axis]) -> None:
        """Wait until every axis is idle; a fault, a standstill or the time limit is an error."""
        end_s = self._clock.now_s() + self._move_timeout_s
        last: dict[str, tuple[int, float]] = {}
        waiting = list(axes)
        while waiting:
            await self._clock.sleep(max(POLL_LAB_S, POLL_WALL_S * self._clock.speed))
            for axis in tuple(waiting):
                reply = await self._status(axis)
                await self._no_fault(axis, reply)
                if not reply.busy:
                    waiting.remove(axis)
                    continue
                at = messages.parse_integer(await self._get(axis.device, axis.axis, "pos"))
                now_s = self._clock.now_s()
                if axis.name not in last or last[axis.name][0] != at:
                    last[axis.name] = at, now_s
                elif now_s - last[axis.name][1] > STILL_S:
                    raise self._lost(axis, f"says that it moves and has stood still for {STILL_S:g} s")
            if waiting and self._clock.now_s() > end_s:
                raise self._lost(waiting[0], f"still moves after {self._move_timeout_s:g} s")

    def _lost(self, axis: Axis, text: str) -> BadReply:
        """Nobody knows where this axis is until it has been homed."""
        self._states[axis.name].displaced = text
        return BadReply(f"{axis.where} {text}; its position is unknown until it is homed", device=self.name)

    async def _no_fault(self, axis: Axis, reply: messages.Reply) -> None:
        flags, _ = await self._flags(axis, reply)
        bad = [f for f in flags if f in messages.FAULTS or f in ("WL", "WS", "WM", "NC", "NI")]
        if bad:
            text = "; ".join(messages.words_of(flag) for flag in bad)
            if any(flag in messages.DISPLACED for flag in bad):
                self._states[axis.name].displaced = text
            raise Refused(f"{axis.where} has ended its move: {text}", device=self.name)

    async def _must_be_at(self, axis: Axis, target: int) -> None:
        at = messages.parse_integer(await self._get(axis.device, axis.axis, "pos"))
        if abs(at - target) > axis.tolerance():
            raise self._lost(
                axis,
                f"came to rest at {1e-3 * at * axis.microstep_um:.4f} mm instead of "
                f"{1e-3 * target * axis.microstep_um:.4f} mm",
            )
        self._states[axis.name].unsure = False

    async def _look(self, axis: Axis) -> tuple[bool, float | None, list[str]]:
        """Return whether an axis moves, where it is for sure, and everything it complains about."""
        state = self._states[axis.name]
        reply = await self._status(axis)
        flags, words = await self._flags(axis, reply)
        at = messages.parse_integer(await self._get(axis.device, axis.axis, "pos"))
        for flag in flags:
            if flag in messages.DISPLACED:
                state.displaced = messages.words_of(flag)
        if not any(flag in ("WR", "WH") for flag in flags) and state.displaced[:2] in ("WR", "WH"):
            state.displaced = ""  # somebody has homed it
        if not reply.busy and not state.displaced:
            state.unsure = False
        if state.displaced and not words:
            words = [state.displaced]
        sure = not state.displaced and (reply.busy or not state.unsure)
        return reply.busy, at * axis.microstep_um if sure else None, words

    async def _flags(self, axis: Axis, reply: messages.Reply) -> tuple[tuple[str, ...], list[str]]:
        """Return every flag of an axis (a reply names only the most important), and their meaning."""
        if reply.flag == messages.NONE:
            return (), []
        listed = await self._ask(axis.device, axis.axis, "warnings", attempts=ATTEMPTS)
        flags = messages.parse_warnings(listed.data)
        if reply.flag not in flags:
            flags = (reply.flag, *flags)
        return flags, [messages.words_of(flag) for flag in flags]

    async def _clear_warnings(self, axis: Axis) -> None:
        await self._ask(axis.device, axis.axis, "warnings clear", attempts=ATTEMPTS)

    async def _status(self, axis: Axis) -> messages.Reply:
        return await self._ask(axis.device, axis.axis, "", attempts=ATTEMPTS)

    async def _get(self, device: int, axis: int, what: str) -> str:
        return (await self._ask(device, axis, f"get {what}", attempts=ATTEMPTS)).data

    async def _command(self, device: int, axis: int, words: str) -> None:
        """Send what changes something, once."""
        await self._ask(device, axis, words, attempts=1)

    async def _ask(
        self, device: int, axis: int, words: str, *, attempts: int, urgent: bool = False
    ) -> messages.Reply:
        """Exchange one message. A message with a damaged checksum is ignored by the device: no reply."""
        while True:
            attempts -= 1
            self._id = (self._id + 1) % messages.IDS
            try:
                return await self._line.ask(
                    messages.request(device, axis, self._id, words),
                    self._parser(device, axis, self._id),
                    timeout_s=URGENT_S if urgent else TIMEOUT_S,
                    device=self.name,
                    urgent=urgent,
                    matched=True,
                )
            except (NoReply, BadReply) as error:
                if not attempts or not error.transient:
                    raise self._named(error) from error
            except Refused as error:
                raise self._named(error) from error

    def _named(self, error: DriverError) -> DriverError:
        """Put this device's name in front, where the codec could not."""
        if error.device:
            return error
        return type(error)(error.message, device=self.name, request=error.request, reply=error.reply)

    def _parser(self, device: int, axis: int, message_id: int) -> Callable[[bytes], messages.Reply | None]:
        must_check = self._checked

        def parse(buffer: bytes) -> messages.Reply | None:
            reply, alerts = messages.parse_reply(buffer, device, axis, message_id, must_check=must_check)
            for alert in alerts:
                self._take_alert(alert)
            return reply

        return parse

    def _take_alert(self, alert: messages.Alert) -> None:
        """Remember what a device said unasked: a flag that displaces an axis counts as if it was read."""
        for axis in self.axes:
            if (axis.device, axis.axis) == (alert.device, alert.axis) and alert.flag in messages.DISPLACED:
                self._states[axis.name].displaced = messages.words_of(alert.flag)
