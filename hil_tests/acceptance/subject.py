"""The station under test: its instruments by role, each brought up once, all switched off at the end."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import hashlib
import math
import platform
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from controller.clock import bench_clock
from controller.config import load_station
from controller.config.acceptance import Dummy
from controller.config.quantities import show
from controller.config.station import Station
from controller.devices import Bench, build, introduce
from drivers.clock import Clock, RealClock
from drivers.errors import DriverError
from drivers.registry import OURS, driver_origin
from drivers.roles import Identity
from drivers.wire_trace import WireTrace
from hil_tests.acceptance.report import Report, Row, Verdict

OFF_S = 5.0
BELOW_V = 0.3  # room below 0 V for the offset of a dummy
ABSENT = "this station has no "  # not missing from a report: it never was there
ROLES = "heater", "cell", "scanner", "pixe", "pige", "stage", "compton", "radiography"


@dataclass
class Asked:
    """What the person at the command line said."""

    station: Path
    energise: bool
    dummy: Dummy | None
    operator: str
    virtual: bool
    interactive: bool = False
    trace: WireTrace | None = None
    ask: Callable[[str], str] = input
    pause: Callable[[], Any] = contextlib.nullcontext  # around a question: pytest's capture off

    def confirm(self, question: str) -> None:
        """Have a person confirm what no instrument tells; skip without one, fail on a no."""
        if not self.interactive:
            pytest.skip(f"nobody was asked: {question}")
        with self.pause():
            answer = self.ask(f"\n{question} [yes / no / skip] ").strip().lower()
        if answer in ("y", "yes"):
            return
        if answer in ("n", "no"):
            pytest.fail(f"{self.operator} says no: {question}", pytrace=False)
        pytest.skip(f"{self.operator} did not say: {question}")


@dataclass
class Measure:
    """Takes the values of one test; a value outside its limits fails the test at its end."""

    report: Report
    test: str
    rows: list[Row] = field(default_factory=list)

    def __call__(
        self,
        what: str,
        value: float | str | bool | None,
        unit: str = "",
        *,
        low: float | None = None,
        high: float | None = None,
        device: str = "",
        good: bool | None = None,
        reason: str = "",
    ) -> None:
        """Note a value.

        Args:
            what: was measured.
            value: None when there is none, which fails.
            unit: of value and limits.
            low: limit, included.
            high: limit, included.
            device: by its name in the station file.
            good: the verdict, where there are no limits; without either it is only told.
            reason: remark, or why it fails.
        """
        shown: float | str | None = value
        if isinstance(value, bool):
            shown = "yes" if value else "no"
        elif isinstance(value, float) and not math.isfinite(value):
            shown = "not a number"
        if low is not None or high is not None:
            good = isinstance(value, (int, float)) and (low is None or value >= low)
            good = good and (high is None or float(value or 0.0) <= high)
        verdict: Verdict = "told" if good is None and value is not None else "pass" if good else "fail"
        row = Row(self.test, what, verdict, device, shown, unit, low, high, reason)
        self.rows.append(row)
        self.report.rows.append(row)

    @property
    def failures(self) -> list[str]:
        """Return what is outside its limits."""
        return [
            f"{row.device} {row.what}: {row.value} {row.unit} (limits {row.low} to {row.high}) {row.reason}"
            for row in self.rows
            if row.verdict == "fail"
        ]


class Subject:
    """The instruments of a station, open.

    ``role(name)`` brings one up; everything is off before and after. Nothing is energised but through
    ``energising``, which skips unless it was allowed.
    """

    def __init__(self, asked: Asked, station: Station, clock: Clock, bench: Bench, report: Report) -> None:
        self.asked = asked
        self.station = station
        self.clock = clock
        self.bench = bench
        self.report = report
        self.identities: dict[str, Identity] = {}
        self.notes: dict[str, list[str]] = {}

    @classmethod
    async def open(cls, asked: Asked, report: Report) -> Subject:
        """Read the station file and build what stands in it; nothing is sent yet."""
        station = load_station(asked.station)
        clock: Clock = RealClock()
        if station.bench is not None:
            clock = await bench_clock(station.bench.model_dump())
        trace = asked.trace.of if asked.trace is not None else None
        return cls(asked, station, clock, build(_for_dummy(asked, station), clock, trace=trace), report)

    async def close(self) -> None:
        """Everything off, lines closed, their health into the report."""
        try:
            await asyncio.gather(*(self._off(name) for name in self.identities))
        finally:
            self._take_health()
            await self.bench.close()

    async def _off(self, name: str) -> None:
        """Switch one device off; what does not confirm is a failure of its own."""
        try:
            async with asyncio.timeout(OFF_S):
                await self.bench.devices[name].off()
        except (DriverError, TimeoutError) as error:
            row = Row("Everything off at the end", "confirmed", "fail", name, reason=str(error) or "too late")
            self.report.rows.append(row)

    def _take_health(self) -> None:
        for name, line in self.bench.lines.items():
            before = self.report.lines.get(name)
            now = line.stats.as_dict()
            if now["requests"] or before is None:
                self.report.lines[name] = now if before is None else _joined(before, now)

    def name_of(self, role: str) -> str:
        """Return the device that plays a role; skip where the station has none."""
        name = self.station.io_name if role == "io" else getattr(self.station.roles, role)
        if name is None:
            pytest.skip(f"{ABSENT}{role}")
        return str(name)

    async def role(self, role: str) -> Any:
        """Return the device of a role, identified and in its safe state."""
        return await self.device(self.name_of(role))

    async def device(self, name: str) -> Any:
        """Return a device by name, identified and in its safe state."""
        device = self.bench.devices[name]
        if name not in self.identities:
            for line in self.station.lines_of(name):
                await self.bench.lines[line].open()
            identity, self.notes[name] = await introduce(device)
            self.identities[name] = identity
            self._tell(name, identity)
        return device

    def period_s(self, name: str) -> float:
        """Return how often a device is to be read, s of wall time on real instruments."""
        return float(self.station.devices[name].period_s)

    def energising(self, what: str) -> None:
        """Skip unless the operator has allowed what comes now."""
        if not self.asked.energise:
            pytest.skip(f"energises ({what}): not without --allow-energise")
        self.report.energised = True

    def at_most(self, limit: float) -> float | None:
        """Return a limit in wall time; none on a virtual bench, which shares its computer with others."""
        return None if self.asked.virtual else limit

    def dummy(self) -> Dummy:
        """Return the dummy load; skip without one."""
        if self.asked.dummy is None:
            pytest.skip(
                "no dummy load: [acceptance] dummy = { resistance, power, tolerance } in the station file, "
                "or --dummy"
            )
        return self.asked.dummy

    async def wait(
        self, met: Callable[[], Awaitable[Any]], lab_s: float, poll_lab_s: float = 0.1
    ) -> tuple[Any, float]:
        """Poll until ``met`` returns something true; return it (or the last answer) and the lab seconds."""
        began_s = self.clock.now_s()
        while True:
            answer = await met()
            took_s = self.clock.now_s() - began_s
            if answer or took_s > lab_s:
                return answer, took_s
            await self.clock.sleep(poll_lab_s)

    def _tell(self, name: str, identity: Identity) -> None:
        roles = [role for role in ROLES if getattr(self.station.roles, role, None) == name]
        row = {
            "role": ", ".join(roles) or "monitor", "device": name, "manufacturer": identity.manufacturer,
            "model": identity.model, "serial": identity.serial, "firmware": identity.firmware,
            "driver": _origin(self.station.devices[name].driver),
            "where": ", ".join(self.bench.lines[line].where for line in self.station.lines_of(name)),
        }  # fmt: skip
        if row not in self.report.instruments:
            self.report.instruments.append(row)


def _origin(driver: str) -> str:
    """Return a driver's name, with the package that it is from where that is not this one."""
    told = driver_origin(driver)
    if told["distribution"] == OURS:
        return driver
    return f"{driver} ({told['distribution'] or told['code']} {told['version'] or ''})".replace(" )", ")")


def _for_dummy(asked: Asked, station: Station) -> Station:
    """Return the station with its lower voltage limit below 0 V where a resistor stands in for the cell.

    A resistor is at 0 V before it is driven, and some drivers refuse every program that may go below the
    station's window. Nothing is driven before the voltage has shown that it is no battery.
    """
    if not asked.energise or asked.dummy is None:
        return station
    band = station.limits.voltage.model_copy(update={"low_v": min(-BELOW_V, station.limits.voltage.low_v)})
    return station.model_copy(update={"limits": station.limits.model_copy(update={"voltage": band})})


def begin(report: Report, asked: Asked) -> None:
    """Fill in who, when, where and with what."""
    station = load_station(asked.station)
    report.station = station.name
    report.station_sha256 = hashlib.sha256(asked.station.read_bytes()).hexdigest()
    report.began = report.ended = now()
    report.operator = asked.operator
    report.host = f"{platform.node()}, {platform.platform()}"
    names = ("operando", "pymodbus", "pyserial")
    report.versions = {"Python": platform.python_version(), **{name: version(name) for name in names}}
    report.virtual = asked.virtual
    report.trace = str(asked.trace.path) if asked.trace is not None else ""
    if asked.dummy is not None:
        d = asked.dummy
        report.dummy = f"{show(d.resistance_ohm, 'ohm')} ± {100 * d.tolerance:.2g} %, {d.power_w:g} W"
        report.dummy += "; with it the lower voltage limit of the station does not hold" * asked.energise


def now() -> str:
    """Return the time of day with its zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def user() -> str:
    """Return who is logged in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return counters of two connections of one line added; of latencies the worse ones."""
    joined = {}
    for key, value in second.items():
        before = first[key]
        if key.endswith("_ms"):
            known = [one for one in (before, value) if one is not None]
            joined[key] = max(known) if known else None
        else:
            joined[key] = before + value
    return joined


@contextlib.contextmanager
def recording(path: Path | None, station_file: Path) -> Iterator[WireTrace | None]:
    """Trace the wires for as long as the block lasts, if there is a path."""
    from controller.tracing import traced

    with traced(path, load_station(station_file), station_file) as trace:
        yield trace
