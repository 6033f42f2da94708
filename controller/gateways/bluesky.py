"""Our instruments as devices of a Bluesky plan, while a ``manual`` step runs on the host.

    from controller.gateways.bluesky import Host
    host = Host.of("lab")                 # name of the station, on this machine
    RE(bp.count([host.voltage, host.heater]))
    RE(bps.mv(host.heater, 333.0))        # K

The devices satisfy ``bluesky.protocols`` and need no package of Bluesky. They are clients of control's local
socket: limits, leases and guard hold underneath, whatever a plan asks for. A value that is not known is an
error. ``stop`` holds the present set-point; the RunEngine stops whatever was moved at the end of every plan.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from controller.gateways.bluesky_status import Status
from controller.gateways.hand import Gone, Hand, Refused
from controller.paths import StateDir

POLL_S = 0.2
LOST_S = 3.0  # a host that was not heard for so long is gone: what waits for it fails
WITHIN_K = 0.5

Reading = dict[str, dict[str, Any]]


class LimitError(ValueError):
    """A value beyond a limit; the text names both."""


class Unknown(RuntimeError):
    """A value that is not known now."""


class Host:
    """One host and its devices: heater, voltage, current, charge, beam, cell, scan, stage."""

    def __init__(self, socket: Path, *, by: str = "Bluesky", lost_s: float = LOST_S) -> None:
        """Connect.

        Args:
            socket: the local socket of control.
            by: who commands, for the journal.
            lost_s: without an answer for so long the host counts as gone.

        Raises:
            Gone: no host is running.
        """
        self._socket = socket
        self.hand = Hand(socket, by)
        self._eyes = Hand(socket, by)  # looks on in a thread of its own
        self._lost_s = lost_s
        self._lock = threading.Lock()  # one command at a time, whatever thread asks
        self._waits: dict[Status, Callable[[dict[str, Any]], bool]] = {}
        self._watchers: list[Callable[[], None]] = []
        self._closed = threading.Event()
        self.now = self._eyes.status()
        self._heard_s = time.monotonic()
        self.heater = Heater(self)
        self.voltage = Sensor(self, "cell_voltage", "voltage_v", "V")
        self.current = Sensor(self, "cell_current", "current_a", "A")
        self.charge = Sensor(self, "cell_charge", "charge_coulomb", "C")
        self.beam = Sensor(self, "beam_current", "beam_a", "A")
        self.cell = Cell(self)
        self.scan = Scan(self)
        self.stage = Stage(self)
        self._thread = threading.Thread(target=self._watch, name="operando", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, station: str, *, state: Path | None = None, by: str = "Bluesky") -> Host:
        """Connect to the host of a station on this machine, by name or by its state folder. Raises Gone."""
        return cls(StateDir.of(station, state).socket("control"), by=by)

    def close(self) -> None:
        """Give the step back and stop looking."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            self.hand.release()

    def command(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Carry out a verb of the manual step. Raises LimitError, Refused, Gone."""
        with self._lock:
            try:
                return self.hand.command(verb, **arguments)
            except Refused as refusal:
                if "the step allows" in str(refusal):
                    raise LimitError(str(refusal)) from None
                raise

    def limits(self) -> dict[str, Any]:
        """Return what the manual step allows. Raises Refused without one, Gone."""
        allowed: dict[str, Any] = Hand(self._socket, self.hand.by).manual()["allowed"]
        return allowed

    def value(self, key: str) -> tuple[Any, float]:
        """Return a value of the present and when it was told. Raises Unknown, Gone."""
        if time.monotonic() - self._heard_s > self._lost_s:
            raise Gone(f"the host was not heard for {time.monotonic() - self._heard_s:.0f} s")
        if self.now.get(key) is None:
            raise Unknown(f"{key} is not known now")
        return self.now[key], float(self.now["t"])

    def sigma(self, key: str) -> float | None:
        """Return the one-sigma uncertainty of a value where the host tells one."""
        found: float | None = (self.now.get("sigma") or {}).get(key)
        return found

    def until(self, what: str, met: Callable[[dict[str, Any]], bool]) -> Status:
        """Return a status that ends when the host's own word meets a condition, or when the host is gone."""
        status = Status(what)
        self._waits[status] = met
        return status

    def look(self) -> Status:
        """Return a status that ends with the next word of the host."""
        before = self.now.get("t", 0.0)
        return self.until("a fresh reading", lambda now: now["t"] > before)

    def watch(self, then: Callable[[], None]) -> None:
        """Call ``then`` after every look at the host."""
        self._watchers.append(then)

    def unwatch(self, then: Callable[[], None]) -> None:
        """Call it no more."""
        with contextlib.suppress(ValueError):
            self._watchers.remove(then)

    # --- the thread that looks ----------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._closed.wait(POLL_S):
            try:
                now = self._eyes.status(timeout_s=min(1.0, self._lost_s))
                if self.hand.taken and self._lock.acquire(blocking=False):
                    try:
                        self.hand.alive()
                    finally:
                        self._lock.release()
                now["manual"] = self._manual()
            except Gone as gone:
                if time.monotonic() - self._heard_s > self._lost_s:
                    self._fail(Gone(f"the host is gone: {gone}"))
                continue
            self.now, self._heard_s = now, time.monotonic()
            self._settle(now)
            for then in list(self._watchers):
                then()
        self._fail(Gone("this connection was closed"))

    def _manual(self) -> dict[str, Any] | None:
        try:
            return self._eyes.manual(timeout_s=1.0)
        except Refused:
            return None

    def _settle(self, now: dict[str, Any]) -> None:
        for status, met in list(self._waits.items()):
            try:
                if met(now):
                    self._end(status, None)
            except (Refused, Unknown, LookupError) as error:
                self._end(status, error)

    def _fail(self, error: BaseException) -> None:
        for status in list(self._waits):
            self._end(status, error)

    def _end(self, status: Status, error: BaseException | None) -> None:
        self._waits.pop(status, None)
        status.end(error)


class Device:
    """What all have in common: a name, no parent, and a reading that follows the host."""

    parent: ClassVar[None] = None

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self._subscribers: list[Callable[[Reading], None]] = []

    @property
    def hints(self) -> dict[str, Any]:
        """What a live table shows."""
        return {"fields": [self.name]}

    def read(self) -> Reading:
        """Return what is known now. Raises Unknown, Gone."""
        raise Unknown(f"{self.name} has nothing to read")

    def describe(self) -> Reading:
        """Return units and limits."""
        return {}

    def trigger(self) -> Status:
        """Wait for a fresh reading."""
        return self.host.look()

    def subscribe(self, function: Callable[[Reading], None]) -> None:
        """Call ``function`` with every new reading; not while the value is unknown."""
        if not self._subscribers:
            self.host.watch(self._tell)
        self._subscribers.append(function)
        self._tell()

    def clear_sub(self, function: Callable[[Reading], None]) -> None:
        """Call it no more."""
        self._subscribers.remove(function)
        if not self._subscribers:
            self.host.unwatch(self._tell)

    def _tell(self) -> None:
        try:
            reading = self.read()
        except (Unknown, Gone):
            return
        for function in list(self._subscribers):
            function(reading)

    def _value(self, key: str, name: str, unit: str) -> tuple[Reading, Reading]:
        """Return reading and description of a value, with its uncertainty where the host tells one."""
        value, t = self.host.value(key)
        reading = {name: {"value": value, "timestamp": t}}
        described = {name: self._key(unit)}
        sigma = self.host.sigma(key)
        if sigma is not None:
            reading[f"{name}_sigma"] = {"value": sigma, "timestamp": t}
            described[f"{name}_sigma"] = self._key(unit)
        return reading, described

    def _key(self, unit: str) -> dict[str, Any]:
        return {"dtype": "number", "shape": [], "source": f"operando:{self.name}", "units": unit}


class Sensor(Device):
    """A value that is read: voltage, current, charge, beam."""

    def __init__(self, host: Host, name: str, key: str, unit: str) -> None:
        super().__init__(host, name)
        self._key_of, self._unit = key, unit

    def read(self) -> Reading:
        """Return value and uncertainty. Raises Unknown, Gone."""
        return self._value(self._key_of, self.name, self._unit)[0]

    def describe(self) -> Reading:
        """Return the unit."""
        sigma = {f"{self.name}_sigma": self._key(self._unit)}
        return {
            self.name: self._key(self._unit),
            **(sigma if self.host.sigma(self._key_of) is not None else {}),
        }


class Heater(Device):
    """The heated plate: ``set`` in K ends within ``within_k`` of the target."""

    def __init__(self, host: Host, *, within_k: float = WITHIN_K) -> None:
        super().__init__(host, "heater")
        self.within_k = within_k

    def read(self) -> Reading:
        """Return temperature, its uncertainty and the set-point (NaN with the heater off), K."""
        reading, _ = self._value("temperature_k", self.name, "K")
        target = self.host.now.get("target_k")
        t = reading[self.name]["timestamp"]
        reading[f"{self.name}_setpoint"] = {
            "value": float("nan") if target is None else target,
            "timestamp": t,
        }
        return reading

    def describe(self) -> Reading:
        """Return units, and the limits of the manual step."""
        key = self._key("K")
        try:
            allowed = self.host.limits().get("heater")
        except (Refused, Gone):
            allowed = None
        if allowed is not None:
            key["limits"] = {"control": {"low": allowed["low_k"], "high": allowed["high_k"]}}
        sigma = {f"{self.name}_sigma": self._key("K")}
        told = {self.name: key, **(sigma if self.host.sigma("temperature_k") is not None else {})}
        return {**told, f"{self.name}_setpoint": self._key("K")}

    def set(self, value: float) -> Status:
        """Heat to ``value`` K. Raises LimitError, Refused, Gone; fails if the target is changed meanwhile."""
        target = float(value)
        self.host.command("heat", to_k=target)
        return self.host.until(f"heating to {target:g} K", self._arrived(target))

    def _arrived(self, target: float) -> Callable[[dict[str, Any]], bool]:
        begun = threading.Event()

        def met(now: dict[str, Any]) -> bool:
            if now.get("target_k") == target:
                begun.set()
            elif begun.is_set():
                raise Refused(f"the target is no longer {target:g} K but {now.get('target_k')}")
            value = now.get("temperature_k")
            return begun.is_set() and value is not None and abs(value - target) <= self.within_k

        return met

    def locate(self) -> dict[str, Any]:
        """Return set-point and temperature, K."""
        target = self.host.now.get("target_k")
        readback = self.host.value("temperature_k")[0]
        return {"setpoint": float("nan") if target is None else target, "readback": readback}

    def check_value(self, value: float) -> None:
        """Raise LimitError when the manual step would refuse this."""
        allowed = self.host.limits().get("heater")
        if allowed is None:
            raise LimitError(f"heat {value:g} K is refused: this manual step has no heater table")
        low, high = allowed["low_k"], allowed["high_k"]
        if not low <= value <= high:
            raise LimitError(f"heat {value:g} K is refused: the step allows {low:g} K to {high:g} K")

    def stop(self, success: bool = True) -> None:
        """Hold at the present set-point: never off, and never at a measured value."""
        if self.host.hand.taken:
            self.host.command("hold")

    def off(self) -> None:
        """Switch the heater off. Raises Refused, Gone."""
        self.host.command("off")


class Cell(Device):
    """Charges and discharges as flights: prepare, kickoff, complete; ``stop`` opens the circuit."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, "cell")
        self._prepared: dict[str, Any] | None = None
        self._job = 0
        self._read = (host.voltage, host.current, host.charge)

    @property
    def hints(self) -> dict[str, Any]:
        """Voltage and charge."""
        return {"fields": [self.host.voltage.name, self.host.charge.name]}

    def read(self) -> Reading:
        """Return voltage, current and charge. Raises Unknown at open circuit, where nobody measures."""
        return {key: value for sensor in self._read for key, value in sensor.read().items()}

    def describe(self) -> Reading:
        """Return their units."""
        return {key: value for sensor in self._read for key, value in sensor.describe().items()}

    def prepare(self, value: dict[str, Any]) -> Status:
        """Say what ``kickoff`` is to do: ``{"do": "charge", "current_a": 1e-5, "voltage_v": 4.0, ...}``."""
        if value.get("do") not in ("charge", "discharge", "ocv"):
            raise LimitError(f"do = {value.get('do')!r} is none of charge, discharge, ocv")
        self._prepared = dict(value)
        return _ended("prepared")

    def kickoff(self) -> Status:
        """Begin. Raises LimitError, Refused, Gone."""
        if self._prepared is None:
            raise Refused("prepare the cell first: what is it to do?")
        arguments = dict(self._prepared)
        self._job = int(self.host.command(arguments.pop("do"), **arguments)["job"])
        return _ended("begun")

    def complete(self) -> Status:
        """Wait for the end of it."""
        return self.host.until("the cell program", _job_done("cell", self._job))

    def stop(self, success: bool = True) -> None:
        """Open the circuit."""
        if self.host.hand.taken:
            self.host.command("open")


class Scan(Device):
    """Passes of the beam: ``trigger`` scans ``passes`` of them, ``read`` tells how many were made."""

    def __init__(self, host: Host, *, passes: int = 1) -> None:
        super().__init__(host, "scan")
        self.passes = passes
        self.done = 0

    def trigger(self) -> Status:
        """Scan. Raises LimitError, Refused, Gone."""
        job = int(self.host.command("scan", passes=self.passes)["job"])
        status = self.host.until(f"{self.passes} passes", _job_done("scan", job))
        status.add_callback(self._count)
        return status

    def _count(self, status: Status) -> None:
        self.done += self.passes if status.success else 0

    def read(self) -> Reading:
        """Return how many passes were made through this device."""
        return {self.name: {"value": self.done, "timestamp": time.time()}}

    def describe(self) -> Reading:
        """Return the unit: passes."""
        return {self.name: {**self._key("passes"), "dtype": "integer"}}

    def stop(self, success: bool = True) -> None:
        """End the scan after its line."""
        if self.host.hand.taken:
            self.host.command("end_scan")


class Stage(Device):
    """The stage, in its own coordinates, um; it moves in the dark and cannot be stopped on its way."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, "stage")

    def _at(self) -> list[float]:
        manual = self.host.now.get("manual") or {}
        if not manual.get("stage_um"):
            raise Unknown("the position of the stage is not known now")
        return [float(value) for value in manual["stage_um"]]

    def read(self) -> Reading:
        """Return the position. Raises Unknown."""
        at, t = self._at(), float(self.host.now["t"])
        return {
            f"{self.name}_{axis}": {"value": value, "timestamp": t}
            for axis, value in zip("xyz", at, strict=False)
        }  # fmt: skip

    def describe(self) -> Reading:
        """Return the unit of each axis."""
        return {key: self._key("um") for key in self.read()}

    @property
    def hints(self) -> dict[str, Any]:
        """Both axes."""
        return {"fields": [f"{self.name}_x", f"{self.name}_y"]}

    def set(self, value: Sequence[float]) -> Status:
        """Move there. Raises LimitError at once; whatever comes later fails the status."""
        position = [float(one) for one in value]
        status = Status(f"moving to {position} um")

        def go() -> None:
            try:
                self.host.command("move", position_um=position)
                status.end()
            except (LimitError, Refused, Gone) as error:
                status.end(error)

        threading.Thread(target=go, name="operando-stage", daemon=True).start()
        return status

    def locate(self) -> dict[str, Any]:
        """Return where it is: the position is read after every move."""
        return {"setpoint": self._at(), "readback": self._at()}


def _ended(what: str) -> Status:
    status = Status(what)
    status.end()
    return status


def _job_done(work: str, job: int) -> Callable[[dict[str, Any]], bool]:
    """Return what ends with a job of the manual step; it fails when the step ends before it."""

    def met(now: dict[str, Any]) -> bool:
        manual = now.get("manual")
        if manual is None:
            raise Refused("the manual step has ended")
        told = manual.get(work) or {}
        if told.get("job") != job:
            raise Refused(f"something else was begun meanwhile: job {told.get('job')}")
        return not told["busy"]

    return met
