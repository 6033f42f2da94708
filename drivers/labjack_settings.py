"""What the settings of a LabJack T7 say about its wiring, checked once and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drivers.errors import OutOfRange

DWELL_LIMIT_S = 0.1  # no limit is not possible: this one holds when the settings name none
ALLOWED_GAP_S = 0.25  # between two lines, beyond settling; a later start counts as a missed refill


@dataclass(frozen=True)
class Scanner:
    """Two analogue outputs deflect, two digital lines step the pixel and blank the beam (high = blanked)."""

    x_dac: int
    y_dac: int
    centre_v: float
    scale_x_um_per_v: float
    scale_y_um_per_v: float
    pixel_clock: int
    blank: int
    settle_s: float
    dwell_limit_s: float
    allowed_gap_s: float


@dataclass(frozen=True)
class BeamCurrent:
    """Analogue input of the beam monitor."""

    ain: int
    scale_a_per_v: float


@dataclass(frozen=True)
class T7Settings:
    """The wiring; None where a part is not there. Digital lines are numbers of FIO0..FIO7."""

    scanner: Scanner | None = None
    beam_current: BeamCurrent | None = None
    relay: int | None = None  # high = closed
    shutter: int | None = None  # high = open
    shutter_readback: int | None = None
    permit: int | None = None  # high = permitted
    watchdog_s: int | None = None
    switches: Mapping[str, int] = field(default_factory=dict)  # named inputs, high = good

    @property
    def outputs(self) -> dict[int, int]:
        """Digital outputs and their safe level: blanked, relay open, shutter closed, clock low."""
        levels: dict[int, int] = {}
        if self.scanner is not None:
            levels[self.scanner.blank] = 1
            levels[self.scanner.pixel_clock] = 0
        for line in (self.relay, self.shutter):
            if line is not None:
                levels[line] = 0
        return levels

    @property
    def inputs(self) -> tuple[int, ...]:
        """Digital inputs."""
        lines = (self.shutter_readback, self.permit, *self.switches.values())
        return tuple(line for line in lines if line is not None)


def t7_settings(settings: Mapping[str, Any], name: str) -> T7Settings:
    """Read the settings of a device table.

    Raises:
        OutOfRange: a line with two jobs, a value that the instrument cannot take, a scanner without watchdog
            or without a beam monitor.
    """
    scanner = settings.get("scanner")
    monitor = settings.get("beam_current")
    shutter = settings.get("shutter") or {}
    watchdog = settings.get("watchdog")
    wiring = T7Settings(
        scanner=None if scanner is None else _scanner(scanner, settings),
        beam_current=None if monitor is None else BeamCurrent(monitor["ain"], monitor["scale_a_per_v"]),
        relay=_fio(settings.get("relay"), "fio"),
        shutter=_fio(shutter, "fio"),
        shutter_readback=_fio(shutter, "readback"),
        permit=_fio(settings.get("permit"), "fio"),
        watchdog_s=None if watchdog is None else _whole_seconds(watchdog["timeout_s"], name),
        switches={key: int(table["fio"]) for key, table in (settings.get("switches") or {}).items()},
    )
    _check(wiring, name)
    return wiring


def _scanner(table: Mapping[str, Any], settings: Mapping[str, Any]) -> Scanner:
    return Scanner(
        x_dac=table["x_dac"],
        y_dac=table["y_dac"],
        centre_v=table["centre_v"],
        scale_x_um_per_v=table["scale_x_um_per_v"],
        scale_y_um_per_v=table["scale_y_um_per_v"],
        pixel_clock=table["pixel_clock"],
        blank=table["blank"],
        settle_s=table["settle_s"],
        dwell_limit_s=float(settings.get("dwell_limit_s", DWELL_LIMIT_S)),
        allowed_gap_s=float(table.get("allowed_gap_s", ALLOWED_GAP_S)),
    )


def _fio(table: Mapping[str, Any] | None, key: str) -> int | None:
    return None if not table else table.get(key)


def _whole_seconds(timeout_s: float, name: str) -> int:
    if timeout_s != int(timeout_s) or not 1 <= timeout_s <= 3600:
        raise OutOfRange(f"watchdog timeout {timeout_s:g} s: it takes whole seconds", device=name)
    return int(timeout_s)


def _check(wiring: T7Settings, name: str) -> None:
    lines = [*wiring.inputs]
    lines += [line for line in (wiring.relay, wiring.shutter) if line is not None]
    if wiring.scanner is not None:
        scanner = wiring.scanner
        lines += [scanner.pixel_clock, scanner.blank]
        if wiring.watchdog_s is None:
            raise OutOfRange("a scanner needs the watchdog: nothing else ends the beam", device=name)
        if wiring.beam_current is None:
            raise OutOfRange("a scanner needs a beam monitor: charge and dose come from it", device=name)
        if {scanner.x_dac, scanner.y_dac} != {0, 1}:
            raise OutOfRange(
                f"x_dac {scanner.x_dac} and y_dac {scanner.y_dac}: one is 0, one is 1", device=name
            )
        if scanner.scale_x_um_per_v == 0 or scanner.scale_y_um_per_v == 0:
            raise OutOfRange("a deflection of 0 um/V", device=name)
        if not (0 < scanner.dwell_limit_s < 60 and 0 <= scanner.settle_s <= 1 and scanner.allowed_gap_s > 0):
            raise OutOfRange("impossible dwell limit, settling time or gap", device=name)
    if wiring.relay is not None and wiring.watchdog_s is None:
        raise OutOfRange("a heater relay needs the watchdog: nothing else opens it", device=name)
    if len(set(lines)) != len(lines) or not set(lines) <= set(range(8)):
        raise OutOfRange(f"digital lines {sorted(lines)}: each of FIO0..FIO7 has one job", device=name)
