"""A station file for the instruments at hand: who plays what, what is needed besides, and the text."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from controller.config.devices import BUILT_IN, ForeignDevice, known_drivers
from controller.config.instruments.base import Composite, Instrument
from controller.config.keys import keys_of
from controller.config.monitored import RESERVED
from controller.config.station import FolderLine, NetworkLine, SerialLine, Station
from controller.config.station_rules import ROLE_DETECTORS, ROLES
from controller.config.unfilled import FILL_IN
from controller.starter.writing import SHOWN, Filling, comment, off, sentence, table, title
from drivers.registry import UnknownDriver, driver_class

IO, IO_DRIVER = "io", "labjack_t7"
LINES: Mapping[str, type[BaseModel]] = {
    "serial": SerialLine, "tcp": NetworkLine, "udp": NetworkLine, "zmq": NetworkLine, "epics": NetworkLine,
    "folder": FolderLine,
}  # fmt: skip
HEAD = f"""\
# A station: what stands on the bench, how it is wired, and the limits that no experiment can widen.
#
# Written by `operando init station`. Where it says "{FILL_IN}" only a person can know: the file is refused
# until all of them are filled in, and `operando check FILE --files-only` names each with its line.
# A line that begins with # and a key is switched off: it shows the usual value. Quantities carry their unit:
# "333 K" and "60 degC", "40 uA", "1.5 h". Then: operando check FILE reads every instrument,
# and energises nothing.
"""


class ChoiceError(ValueError):
    """Instruments that make no station; the text says what to do."""


@dataclass
class Plan:
    """The devices of a station, by the name that they have in the file."""

    drivers: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)  # role -> device
    added: list[str] = field(default_factory=list)  # in words, what was needed besides

    def roles_of(self, device: str) -> list[str]:
        """Return the roles that a device plays."""
        return [role for role, name in self.roles.items() if name == device]


def plan(chosen: Mapping[str, str]) -> Plan:
    """Choose names, add what is needed besides, refuse what cannot be.

    Args:
        chosen: role, or any name for a device that plays none, to driver.

    Raises: ChoiceError.
    """
    if not chosen:
        raise ChoiceError("no instrument was named: --with heater=eurotherm_3200 and so on")
    made = Plan()
    for name, driver in chosen.items():
        _fits(name, driver)
        device = IO if name == "scanner" and driver == IO_DRIVER else name
        made.drivers[device] = driver
        if name in ROLES:
            made.roles[name] = device
        model = BUILT_IN.get(driver)
        if model is not None and issubclass(model, Composite):
            for part, drivers in model.made_of.items():
                made.drivers.setdefault(part, drivers[0])
                made.added.append(f"{part}: {drivers[0]}, a part of {driver}")
    _complete(made)
    return made


def _fits(name: str, driver: str) -> None:
    known = known_drivers()
    if driver not in known:
        near = difflib.get_close_matches(driver, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
        raise ChoiceError(f"{driver} is no driver: {hint}")
    model = BUILT_IN.get(driver)
    if name in ROLES:
        if model is not None and name not in model.plays:
            fits = [one for one, table in BUILT_IN.items() if name in table.plays]
            raise ChoiceError(f"{driver} cannot be the {name}: {', '.join(fits)} can")
        return
    if not name.replace("_", "").replace("-", "").isalnum() or name in RESERVED - {IO}:
        raise ChoiceError(f"{name} cannot be the name of a device: roles are {', '.join(ROLES)}")
    if model is not None and model.plays and driver != IO_DRIVER:
        raise ChoiceError(
            f"{name} is no role, and {driver} plays one: write {sorted(model.plays)[0]}={driver}"
        )


def _complete(made: Plan) -> None:
    """Add the box with emergency stop and off path where something is energised; look at the detectors."""
    detectors = [role for role in ROLE_DETECTORS if role in made.roles]
    energised = [role for role in ("heater", "cell", "scanner") if role in made.roles]
    missing = [role for role in ROLE_DETECTORS if role not in detectors]
    if "scanner" in made.roles and missing:
        add = " ".join(f"--with {role}=amptek_dp5" for role in missing)
        raise ChoiceError(
            f"a scan needs both detectors, gammas for lithium, X-rays for the others: add {add}"
        )
    if detectors and "scanner" not in made.roles:
        raise ChoiceError(f"{detectors[0]} counts nothing without a scanner: add --with scanner={IO_DRIVER}")
    if energised and IO_DRIVER not in made.drivers.values():
        made.drivers[IO] = IO_DRIVER
        why = "its relay in series is the heater's own off path" if "heater" in energised else ""
        text = f"{IO}: {IO_DRIVER}, for the emergency stop" + (f"; {why}" if why else "")
        made.added.append(text)


def station_text(made: Plan, name: str = "") -> str:
    """Return the text of a station file."""
    lines = [HEAD.rstrip()]
    lines += ["", *table("station", _model_at("station"), Filling({"name": f'"{name}"'} if name else {}))]
    for device, driver in made.drivers.items():
        lines += [*title(_heading(made, device, driver)), *_device(made, device, driver)]
    lines += [*title("who does what: the names that experiments use"), "[roles]"]
    lines += [f'{role} = "{device}"' for role, device in made.roles.items()]
    if "scanner" in made.roles:
        lines += [
            *title("the beam, as the accelerator delivers it"),
            *table("beam", _model_at("beam"), Filling(begin=("foil_loss",))),
        ]
    lines += title('hard limits: no experiment can widen them, and there is no "unlimited"')
    lines += table("limits", _model_at("limits"))
    lines += title("everything else: switched off, with usual values")
    written = {"station", "bench", "line", "device", "roles", "beam", "limits"}
    for key in keys_of(Station):
        if key.name not in written and key.tables:
            several = key.several == "list"
            shown = table(key.name, key.tables[0], SHOWN, several=several)
            lines += ["", *comment(sentence(key.text)), *off(shown, key.name)]
    return "\n".join(lines) + "\n"


def _model_at(name: str) -> type[BaseModel]:
    return next(key.tables[0] for key in keys_of(Station) if key.name == name)


def _heading(made: Plan, device: str, driver: str) -> str:
    roles = made.roles_of(device)
    model = BUILT_IN.get(driver)
    what = (model.__doc__ or "").strip().splitlines()[0].rstrip(".") if model is not None else driver
    return f"{', '.join(roles) or device}: {what}"


def _device(made: Plan, device: str, driver: str) -> list[str]:
    model = BUILT_IN.get(driver)
    if model is None:
        return _foreign(device, driver)
    known = {"driver": f'"{driver}"', "period": f'"{model.usual_period}"'}
    lines: list[str] = []
    if issubclass(model, Composite):
        known |= {part: f'"{part}"' for part in model.parts}
    else:
        known["line"] = f'"{device}"'
        lines += [*_line(device, model.line_kinds, model.usual_line), ""]
    for role in made.roles_of(device):
        if role in ROLE_DETECTORS and "detector" in model.model_fields:
            known["detector"] = f'"{ROLE_DETECTORS[role]}"'
    return lines + table(f"device.{device}", model, Filling(known, _begin(made, device, model)))


def _begin(made: Plan, device: str, model: type[Instrument]) -> tuple[str, ...]:
    """Return the optional keys that this device needs for what the station does."""
    roles = made.roles if device == IO or model is BUILT_IN[IO_DRIVER] else made.roles_of(device)
    asked = [key for role in ("", *roles) for key in model.begins_with.get(role, ())]
    return tuple(dict.fromkeys(asked))


def _line(name: str, kinds: tuple[str, ...], usual: Mapping[str, int]) -> list[str]:
    """Return the line of a device as its first kind, the other kinds behind comment marks."""
    lines: list[str] = []
    for number, kind in enumerate(kinds):
        model = LINES[kind]
        fields = {key.name for key in keys_of(model)}
        known = {"kind": f'"{kind}"'}
        if model is NetworkLine and "port" in usual:
            known["port"] = str(usual["port"])
        if model is SerialLine and "baud" in usual:
            known["baud"] = str(usual["baud"])
        filling = Filling({k: v for k, v in known.items() if k in fields}, shows=number > 0)
        written = table(f"line.{name}", model, filling)
        if number:
            lines += ["", f"# or, instead of the lines above, a {kind} line:"]
            written = off(written, f"line.{name}")
        lines += written
    return lines


def _foreign(device: str, driver: str) -> list[str]:
    """Return the tables of a third party's driver: its class may say what its keys mean."""
    found: Any = None
    with contextlib.suppress(UnknownDriver):  # installed, and broken: check says what is wrong with it
        found = driver_class(driver)
    kinds = tuple(kind for kind in getattr(found, "line_kinds", ()) if kind in LINES) or (
        "serial",
        "tcp",
        "udp",
    )
    model = getattr(found, "settings_model", None)
    known = {"driver": f'"{driver}"', "line": f'"{device}"'}
    lines = [*_line(device, kinds, getattr(found, "usual_line", {})), ""]
    lines += table(f"device.{device}", ForeignDevice, Filling(known))
    if isinstance(model, type) and issubclass(model, BaseModel):
        lines += table("", model)[1:]
    else:
        lines += list(comment(f"keys of its own stand here: see the documentation of {driver}"))
    return lines
