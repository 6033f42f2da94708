"""Rules of a station file that concern more than one table.

They look at the file itself and tolerate whatever else is wrong with it, so that a wrong unit in one table
does not hide a missing line in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from os.path import realpath
from pathlib import Path as FilePath
from typing import Any

from controller.config.conditions import parse_condition
from controller.config.devices import BUILT_IN
from controller.config.files import Source
from controller.config.instruments.base import Composite, Instrument
from controller.config.monitored import complaint_of, monitored
from controller.config.problems import Path, Problem, did_you_mean, listed, problem, value_at
from controller.config.quantities import QuantityError, parse, show
from controller.config.unfilled import blank

ROLE_DETECTORS = {"pixe": "sdd", "pige": "hpge"}
ROLES = ("heater", "cell", "scanner", "pixe", "pige", "stage", "compton", "radiography")
PSEUDO_TERMINALS = ("/dev/pts/", "/dev/pty", "/dev/ttys")  # Linux; BSD and macOS
WORDS_PER_EVENT = 2.0  # an event and its frame word
BITS_PER_CHARACTER, BYTES_PER_WORD = 10, 4  # on a serial line
HEATER_PERIOD_S = 1.5  # twice this is the lease of a heater, which every reading renews
SERIAL_SHARE = 0.8  # of it; the rest is for status, requests and the pauses between them


def check(source: Source) -> list[Problem]:
    """Return every broken rule."""
    rules = _Rules(source)
    return [
        *rules.wiring(),
        *rules.roles(),
        *rules.compositions(),
        *rules.beam(),
        *rules.off_paths(),
        *rules.heater_period(),
        *rules.bench(),
        *rules.interlocks(),
        *rules.rest(),
    ]


def guard_names(raw: Mapping[str, Any]) -> dict[str, str]:
    """Map each device name to what the guard calls it: heater, cell, io, or "" where it knows nothing."""
    names: dict[str, str] = {}
    roles = _table(raw.get("roles"))
    for name, device in _table(raw.get("device")).items():
        driver = _table(device).get("driver")
        by_role = next((role for role in ("heater", "cell") if roles.get(role) == name), "")
        names[name] = by_role or ("io" if driver == "labjack_t7" or roles.get("scanner") == name else "")
    return names


def switch_names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the digital inputs that interlock rows may look at."""
    boxes = (_table(device) for device in _table(raw.get("device")).values())
    return tuple(str(name) for box in boxes for name in _table(box.get("switches")))


class _Rules:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.raw = source.data
        self.lines = _table(self.raw.get("line"))
        self.devices = {name: _table(table) for name, table in _table(self.raw.get("device")).items()}

    def broken(self, path: Path, complaint: str, limit: str = "") -> Problem:
        return problem(self.source, path, complaint, limit)

    def _same_part(self, name: str, device: Mapping[str, Any], line: str, key: str) -> Problem | None:
        """Several devices may be parts of one Modbus unit, each another one; None if that is so."""
        mine = device.get("unit_id", 1), device.get(key, 0)
        for other, table in self.devices.items():
            if other == name:
                break  # what comes behind it is told there
            if table.get("line") != line or table.get("unit_id", 1) != mine[0]:
                continue
            if table.get("driver") != device.get("driver"):
                return self.broken(
                    ("device", name, "unit_id"), f"is that of device.{other}, which is something else"
                )
            if table.get(key, 0) == mine[1]:
                return self.broken(
                    ("device", name, key), f"is the {key} of device.{other} as well: give it another one"
                )
        return None

    def wiring(self) -> Iterator[Problem]:
        """Lines exist, are not shared by accident, and no port is used twice."""
        users: dict[str, dict[object, str]] = {}
        for name, device in self.devices.items():
            line = device.get("line")
            if not isinstance(line, str):
                continue
            if line not in self.lines:
                yield self.broken(
                    ("device", name, "line"), f"is no [line.X] of this file{_known(line, self.lines)}"
                )
                continue
            model = _model(device)
            kind, kinds = _table(self.lines[line]).get("kind"), model.line_kinds if model else ()
            if kinds and kind in ("serial", "tcp", "udp", "folder", "zmq", "epics") and kind not in kinds:
                yield self.broken(
                    ("device", name, "line"),
                    f"is a {kind} line, and {device['driver']} needs {' or '.join(kinds)}",
                )
            modbus = (model is not None and model.modbus) or "unit_id" in device  # also from elsewhere
            unit = _word(device.get("unit_id", 1)) if modbus else "whole line"
            others = users.setdefault(line, {})
            if modbus and model is not None and model.one_of and unit in others:
                if clash := self._same_part(name, device, line, model.one_of):
                    yield clash
                continue
            if others and (unit in others or "whole line" in (unit, *others)):
                other = others.get(unit) or next(iter(others.values()))
                yield self.broken(
                    ("device", name, "line"),
                    f"is already used by device.{other}: only Modbus units with different unit_id share one",
                )
            others.setdefault(unit, name)
        ends: dict[object, str] = {}
        for name, table in self.lines.items():
            line = _table(table)
            if "port" not in line:
                continue
            if blank(line.get("host")) or blank(line["port"]):  # said where it stands
                continue
            end = (line.get("kind") == "udp", _word(line.get("host")), _word(line["port"]))
            if end in ends:
                yield self.broken(("line", name, "port"), f"is the port of line.{ends[end]} as well")
            ends.setdefault(end, name)

    def roles(self) -> Iterator[Problem]:
        """Roles name devices that can play them, each device one role."""
        seen: dict[str, str] = {}
        for role, name in _table(self.raw.get("roles")).items():
            if role not in ROLES or not isinstance(name, str):
                continue
            path: Path = ("roles", role)
            device = self.devices.get(name)
            if device is None:
                yield self.broken(path, f"is no [device.X] of this file{_known(name, self.devices)}")
                continue
            if name in seen:
                yield self.broken(path, f"plays the role {seen[name]} already")
            seen[name] = role
            driver, model = _word(device.get("driver")), _model(device)
            if model is not None and role not in model.plays:
                yield self.broken(path, f"has the driver {driver}, which cannot be the {role}")
            elif role == "scanner" and driver == "labjack_t7" and "scanner" not in device:
                yield self.broken(path, f"has no scanner wiring: device.{name}.scanner is missing")
            elif (
                role in ROLE_DETECTORS
                and device.get("detector", ROLE_DETECTORS[role]) != ROLE_DETECTORS[role]
            ):
                yield self.broken(
                    ("device", name, "detector"),
                    f'cannot do {role}: {role} needs detector = "{ROLE_DETECTORS[role]}"',
                )

    def compositions(self) -> Iterator[Problem]:
        """What a device is made of is there, is of the right kind, and plays no second part."""
        used: dict[str, str] = {}
        for name, device in self.devices.items():
            model = _model(device)
            if model is None or not issubclass(model, Composite):
                continue
            for part in model.parts:
                wanted, path = _word(device.get(part)), ("device", name, part)
                other = self.devices.get(wanted)
                if other is None:
                    yield self.broken(path, f"is no [device.X] of this file{_known(wanted, self.devices)}")
                    continue
                driver = _word(other.get("driver"))
                if _model(other) is not None and driver not in model.made_of.get(part, ()):
                    fits = listed(model.made_of.get(part, ()))
                    yield self.broken(path, f"has the driver {driver}: for this it takes {fits}")
                if wanted in used:
                    yield self.broken(path, f"is part of device.{used[wanted]} already")
                used.setdefault(wanted, name)
            yield from self._power_of(name, device)

    def _power_of(self, name: str, device: Mapping[str, Any]) -> Iterator[Problem]:
        """The power that a loop counts on is not above the cap of its supply."""
        supply = self.devices.get(_word(device.get("supply")), {})
        if "power_cap" not in supply or "power" not in device:
            return
        try:
            cap_w, power_w = parse(supply["power_cap"], "W"), parse(device["power"], "W")
        except QuantityError:  # said where it stands
            return
        if power_w > cap_w * (1.0 + 1e-9):
            text = f"is above the cap of device.{device['supply']}, which refuses more"
            yield self.broken(("device", name, "power"), text, show(cap_w, "W"))

    def beam(self) -> Iterator[Problem]:
        """A scanner has a beam and detectors to scan for; detectors have a scanner."""
        roles = _table(self.raw.get("roles"))
        wanted = [role for role in ("scanner", "pixe", "pige") if role in roles]
        if wanted and "beam" not in self.raw:
            yield self.broken(("beam",), f"is missing: roles.{wanted[0]} needs to know the beam")
        if "scanner" in wanted and len(wanted) == 1:
            yield self.broken(("roles", "scanner"), "has no detector to scan for: name pixe and pige, too")
        if wanted and "scanner" not in wanted:
            yield self.broken(("roles", wanted[0]), "counts nothing without a scanner: name roles.scanner")

    def off_paths(self) -> Iterator[Problem]:
        """Every energised output has an off path of its own, and someone can press a button."""
        boxes = [device for device in self.devices.values() if device.get("driver") == "labjack_t7"]
        heaters = [
            name for name, device in self.devices.items() if (model := _model(device)) and model.energises
        ] or [name for role, name in _table(self.raw.get("roles")).items() if role == "heater"]
        if heaters and not any("relay" in box and "watchdog" in box for box in boxes):
            yield self.broken(
                ("device", str(heaters[0])),
                "has no off path of its own: wire a relay in series with the heater to the labjack_t7 and "
                'give that device relay = { fio = 2 } and watchdog = { timeout = "3 s" }',
            )
        energised = set(_table(self.raw.get("roles"))) & {"heater", "cell", "scanner"}
        if energised and not any("permit" in box for box in boxes):
            yield self.broken(
                ("device",),
                "has no permit input: wire the emergency stop to the labjack_t7 and give that device "
                "permit = { fio = 5 }",
            )

    def heater_period(self) -> Iterator[Problem]:
        """A heater is read so often that one lost reading does not end its lease."""
        name = _word(_table(self.raw.get("roles")).get("heater"))
        try:
            period_s = parse(self.devices.get(name, {}).get("period", "0 s"), "s")
        except QuantityError:  # said where it stands
            return
        if period_s > HEATER_PERIOD_S:
            yield self.broken(
                ("device", name, "period"),
                "is too slow for a heater: whoever has switched it on must read it anew within 3 s, or it "
                "goes off, and a reading may be lost",
                show(HEATER_PERIOD_S, "s"),
            )

    def bench(self) -> Iterator[Problem]:
        """A lab clock that runs fast must never reach a real instrument."""
        if "bench" not in self.raw:
            return
        for name, table in self.lines.items():
            line = _table(table)
            host, port = line.get("host"), line.get("port")
            if isinstance(host, str) and not _is_loopback(host):
                yield self.broken(
                    ("line", name, "host"),
                    "is not this machine, but the station has a [bench] table: a fast clock is for a virtual "
                    "bench only",
                )
            elif (
                line.get("kind") == "serial"
                and isinstance(port, str)
                and not _resolved(port).startswith(PSEUDO_TERMINALS)
            ):
                yield self.broken(
                    ("line", name, "port"),
                    "is a real serial port, but the station has a [bench] table: a fast clock is for a "
                    "virtual bench only",
                )

    def interlocks(self) -> Iterator[Problem]:
        """Conditions can be understood and names are unique."""
        names, monitors = guard_names(self.raw), monitored(self.raw)
        for device, channels in monitors.items():
            if complaint := complaint_of(device, channels):
                yield self.broken(("device", device), complaint)
        seen: set[str] = set()
        rows = self.raw.get("interlock")
        for index, table in enumerate(rows if isinstance(rows, list) else []):
            row = _table(table)
            condition, name = row.get("condition"), row.get("name")
            if isinstance(condition, str):
                try:
                    parse_condition(condition, names, switch_names(self.raw), monitors)
                except QuantityError as error:
                    yield self.broken(("interlock", index, "condition"), str(error))
            if isinstance(name, str):
                if name in seen:
                    yield self.broken(("interlock", index, "name"), "is the name of another interlock row")
                seen.add(name)

    def rest(self) -> Iterator[Problem]:
        """Detectors are read in time and see their lines; remote commands; files that are named."""
        rates = _table(_table(self.raw.get("beam")).get("rates"))
        for role in ROLE_DETECTORS:
            name = _table(self.raw.get("roles")).get(role)
            device = self.devices.get(name) if isinstance(name, str) else None
            if device is not None and device.get("driver") == "amptek_dp5":
                yield from self._fifo(str(name), device, rates.get(role))
        yield from self._lithium_in_range()
        broker = _table(self.raw.get("broker"))
        remote = _table(self.raw.get("remote"))
        if remote.get("enabled") is True and broker.get("kind", "embedded") == "embedded":
            yield self.broken(
                ("remote", "enabled"),
                "is refused with the embedded broker, which only this machine reaches: set "
                'broker.kind = "external"',
            )
        for path in (("broker", "credentials"), ("broker", "tls", "ca"), ("broker", "tls", "certificate"),
                     ("broker", "tls", "key"), ("remote", "keys")):  # fmt: skip
            yield from self._file_exists(path)

    def _fifo(self, name: str, device: Mapping[str, Any], rate: object) -> Iterator[Problem]:
        words = device.get("fifo_words")
        try:
            period_s, rate_hz = parse(device.get("period"), "s"), parse(rate, "1/s")
        except QuantityError:
            return  # reported where it stands
        line = _table(self.lines.get(str(device.get("line"))))
        if line.get("kind") == "serial" and isinstance(baud := line.get("baud", 9600), int):
            carried_hz = baud / (BITS_PER_CHARACTER * BYTES_PER_WORD)
            if WORDS_PER_EVENT * rate_hz > SERIAL_SHARE * carried_hz:
                yield self.broken(
                    ("device", name, "line"),
                    f"is a serial line of {baud} baud, which carries {carried_hz:.0f} words of the list in a "
                    f"second; {show(rate_hz, '1/s')} make {WORDS_PER_EVENT * rate_hz:.0f}: use udp",
                )
        if isinstance(words, int) and rate_hz > 0.0:
            longest_s = 0.5 * words / (WORDS_PER_EVENT * rate_hz)
            if period_s > longest_s:
                yield self.broken(
                    ("device", name, "period"),
                    f"is too long: at {show(rate_hz, '1/s')} the list of {words} words must be read at least "
                    f"every {show(longest_s, 's', 3)} (half the time in which it fills)",
                    show(longest_s, "s", 3),
                )

    def _lithium_in_range(self) -> Iterator[Problem]:
        name = _table(self.raw.get("roles")).get("pige")
        device = self.devices.get(name) if isinstance(name, str) else None
        if device is None:
            return
        energy = _table(device.get("energy"))
        channels = device.get("channels")
        try:
            offset, gain = parse(energy.get("offset"), "keV"), parse(energy.get("gain"), "keV")
        except QuantityError:
            return
        if isinstance(channels, int) and not isinstance(channels, bool) and offset + gain * channels < 520.0:
            yield self.broken(
                ("device", str(name), "energy"),
                f"ends the spectrum at {show(offset + gain * channels, 'keV')}: the lithium line, its "
                "background band and the annihilation line need 520 keV",
                "520 keV",
            )

    def _file_exists(self, path: Path) -> Iterator[Problem]:
        named = value_at(self.raw, path)
        if isinstance(named, str) and self.source.path is not None:
            found = FilePath(self.source.path).parent / FilePath(named).expanduser()
            if not found.is_file():
                yield self.broken(path, f"is no file (looked for {found})")


def _model(device: Mapping[str, Any]) -> type[Instrument] | None:
    """Return the model of a built-in driver; those of third parties are not judged here."""
    driver = device.get("driver")
    return BUILT_IN.get(driver) if isinstance(driver, str) else None


def _word(value: object) -> str:
    """Return any value as text, so that whatever stands in the file can be compared."""
    return value if isinstance(value, str) else repr(value)


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _resolved(port: str) -> str:
    """Return what a port's name stands for now: names below /dev/serial/by-id are links."""
    try:
        return realpath(port)
    except ValueError:  # no name of a file at all
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, which may be any machine
        return False


def _known(name: str, tables: Mapping[str, Any]) -> str:
    hint = did_you_mean(name, tables)
    return hint if "did you mean" in hint else f"; there are {listed(tables)}"
