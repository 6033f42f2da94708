"""What a station is in terms of SECoP: modules, parameters, reports, status. Pure, from what a mirror knows.

Every parameter that ``describe`` names becomes a parameter of a module. A heater, the run and each line are
one module; of everything else each parameter is a module of its own, so that it has a value and a status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.gateways.secop_wire import identifier

if TYPE_CHECKING:
    from controller.mirror import Mirror

DISABLED, IDLE, WARN, BUSY, ERROR = 0, 100, 200, 300, 400
CODES = {"DISABLED": DISABLED, "IDLE": IDLE, "WARN": WARN, "BUSY": BUSY, "ERROR": ERROR}
ARRIVED_K = 0.5  # nearer to its target than this the plate has arrived
MAIN = {"heater": "temperature", "run": "state"}  # our parameter that is the value of the module
LINE_MAIN = "errors"
HEATER, GUARD, MANUAL = "heater", "guard", "manual"
GIVEN = ("value", "status", "target")  # names that are not ours to give to a parameter
LONGEST_TEXT = 1000

Report = tuple[str, Any]  # ("value", [v, qualifiers]) or ("error", [class, text, qualifiers])


@dataclass(frozen=True, slots=True)
class Parameter:
    """One accessible and the state of ours that it shows."""

    module: str
    name: str
    key: tuple[str, str] | None  # (module, parameter) of the mirror; None: made here
    info: Mapping[str, Any]  # as the description has it


@dataclass
class Node:
    """A description and where each of its parameters comes from."""

    description: dict[str, Any]
    parameters: dict[tuple[str, str], Parameter]
    commands: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    by_key: dict[tuple[str, str], Parameter] = field(default_factory=dict)
    guard: str = ""  # the module that tells what is latched


def datainfo(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data type of a parameter as ``describe`` has it."""
    kind = told.get("type", "number")
    if kind == "boolean":
        return {"type": "bool"}
    if kind == "string":
        return {"type": "string", "maxchars": LONGEST_TEXT, "isUTF8": True}
    low, high = told.get("low"), told.get("high")
    if kind == "integer":
        limits = {"min": -(2**31) if low is None else int(low), "max": 2**31 if high is None else int(high)}
        return {"type": "int", **limits}
    info: dict[str, Any] = {"type": "double"}
    for key, value in (("min", low), ("max", high)):
        if value is not None:
            info[key] = float(value)
    if told.get("unit"):
        info["unit"] = told["unit"]
    return info


def build(describe: Mapping[str, Any], *, write: bool) -> Node:
    """Return the node for a station's ``describe``; with ``write`` there are targets and commands."""
    taken: set[str] = set()
    node = Node({}, {})
    modules: dict[str, Any] = {}
    for name, told in describe.get("modules", {}).items():
        parameters = {
            one: info for one, info in told.get("parameters", {}).items()
            if info.get("type", "number") in ("number", "integer", "string", "boolean")
        }  # fmt: skip
        main = LINE_MAIN if name.startswith("line-") else MAIN.get(name)
        text = str(told.get("description") or name)
        if main is not None and main in parameters:
            _whole(node, modules, identifier(name, taken), name, main, parameters, text)
            continue
        for one, info in parameters.items():
            about = str(info.get("description") or f"{one} of {name}")
            _whole(node, modules, identifier(f"{name}_{one}", taken), name, one, {one: info}, about)
    heater = next((p.module for p in node.parameters.values() if p.key == (HEATER, "temperature")), None)
    if heater is not None:
        _make_heater(node, modules, heater, describe, write=write)
    node.guard = identifier(GUARD, taken)
    _made(node, modules, node.guard, "what the guard has latched; empty when nothing is")
    if write:
        _make_manual(node, modules, identifier(MANUAL, taken))
    station = str(describe.get("station", "station"))
    node.description = {
        "equipment_id": f"operando.{station}",
        "description": f"operando station {station}\n\nan autonomous operando host; "
        + ("targets can be set while a manual step runs" if write else "read only"),
        "firmware": "operando",
        "timeout": 10,
        "modules": modules,
    }
    node.by_key = {p.key: p for p in node.parameters.values() if p.key is not None}
    return node


def _whole(
    node: Node, modules: dict[str, Any], module: str, source: str, main: str,
    parameters: Mapping[str, Mapping[str, Any]], text: str,
) -> None:  # fmt: skip
    """Add a module: its value, its status, and its other parameters under custom names."""
    accessibles: dict[str, Any] = {}
    taken = set(GIVEN)
    for name, info in parameters.items():
        ours = name == main
        shown = "value" if ours else identifier(f"_{name}", taken)
        told = {
            "description": str(info.get("description") or name), "readonly": True, "datainfo": datainfo(info),
        }  # fmt: skip
        accessibles[shown] = told
        node.parameters[module, shown] = Parameter(module, shown, (source, name), told)
    _status(node, accessibles, module)
    modules[module] = {
        "description": text, "interface_classes": ["Readable"], "implementation": "controller.gateways.secop",
        "accessibles": {**{key: accessibles[key] for key in ("value", "status")}, **accessibles},
    }  # fmt: skip


def _status(node: Node, accessibles: dict[str, Any], module: str) -> None:
    members = {"type": "enum", "members": CODES}
    text = {"type": "string", "maxchars": LONGEST_TEXT, "isUTF8": True}
    told = {
        "description": "how the module is", "readonly": True,
        "datainfo": {"type": "tuple", "members": [members, text]},
    }  # fmt: skip
    accessibles["status"] = told
    node.parameters[module, "status"] = Parameter(module, "status", None, told)


def _made(node: Node, modules: dict[str, Any], module: str, text: str) -> dict[str, Any]:
    """Add a module whose value is a text that is made here."""
    told = {
        "description": text, "readonly": True,
        "datainfo": {"type": "string", "maxchars": LONGEST_TEXT, "isUTF8": True},
    }  # fmt: skip
    accessibles = {"value": told}
    node.parameters[module, "value"] = Parameter(module, "value", None, told)
    _status(node, accessibles, module)
    modules[module] = {
        "description": text, "interface_classes": ["Readable"], "implementation": "controller.gateways.secop",
        "accessibles": accessibles,
    }  # fmt: skip
    return accessibles


def _make_heater(
    node: Node, modules: dict[str, Any], module: str, describe: Mapping[str, Any], *, write: bool
) -> None:
    """Give the heater a target, and with ``write`` the rest of what is Drivable."""
    accessibles = modules[module]["accessibles"]
    value = accessibles["value"]["datainfo"]
    told = {
        "description": "the temperature that was asked for", "readonly": not write, "datainfo": dict(value),
    }  # fmt: skip
    accessibles.pop("_target", None)
    node.parameters.pop((module, "_target"), None)
    accessibles["target"] = told
    node.parameters[module, "target"] = Parameter(module, "target", (HEATER, "target"), told)
    modules[module]["meaning"] = ["temperature", 30]
    if write:
        modules[module]["interface_classes"] = ["Drivable"]
        _command(node, accessibles, module, "stop", "hold at the present set-point", None)
        _command(node, accessibles, module, "_off", "switch the heater off", None)


def _make_manual(node: Node, modules: dict[str, Any], module: str) -> None:
    """Add the commands of a manual step: cell, beam, stage."""
    accessibles = _made(node, modules, module, "who commands in the manual step; empty while nobody does")
    number = {"type": "double"}
    drive = {
        "type": "struct",
        "members": {
            "current_a": {**number, "unit": "A", "min": 0.0}, "voltage_v": {**number, "unit": "V"},
            "charge_coulomb": {**number, "unit": "C", "min": 0.0},
            "duration_s": {**number, "unit": "s", "min": 0.0},
            "current_below_a": {**number, "unit": "A", "min": 0.0},
        },
        "optional": ["voltage_v", "charge_coulomb", "duration_s", "current_below_a"],
    }  # fmt: skip
    place = {"type": "array", "members": {**number, "unit": "um"}, "minlen": 2, "maxlen": 3}
    for name, text, argument in (
        ("_charge", "charge the cell, until the first of what is given", drive),
        ("_discharge", "discharge the cell, until the first of what is given", drive),
        ("_ocv", "measure the open-circuit voltage for some seconds", {**number, "unit": "s", "min": 0.1}),
        ("_open", "open the circuit", None),
        ("_scan", "scan so many passes", {"type": "int", "min": 1, "max": 10000}),
        ("_end_scan", "end the scan after its line", None),
        ("_move", "move the stage, in its own coordinates", place),
        ("_stop", "hold: circuit open, scan ended, set-point kept", None),
        ("_done", "end the manual step", None),
    ):
        _command(node, accessibles, module, name, text, argument)


def _command(
    node: Node, accessibles: dict[str, Any], module: str, name: str, text: str, argument: Any
) -> None:
    info: dict[str, Any] = {"type": "command"}
    if argument is not None:
        info["argument"] = argument
    accessibles[name] = {"description": text, "datainfo": info}
    node.commands[module, name] = accessibles[name]


# --- reports ---------------------------------------------------------------------------------------------


def report(mirror: Mirror, parameter: Parameter) -> Report:
    """Return what a parameter is now: its value with qualifiers, or an error. Never an old value."""
    if parameter.key is None:
        raise ValueError(f"{parameter.module}:{parameter.name} is made here")
    module, name = parameter.key
    reading = mirror.states.get((module, name))
    if reading is None:
        text = mirror.away() or f"{name} of {module} was not heard of yet"
        return "error", ["CommunicationFailed", text, {}]
    qualifiers: dict[str, Any] = {"t": reading.t}
    if why := mirror.why_stale(module, name):
        return "error", ["CommunicationFailed", why, qualifiers]
    if reading.q == "bad" or reading.v is None:
        return "error", [*_no_value(mirror, module, name), qualifiers]
    if reading.e is not None:
        qualifiers["e"] = reading.e
    return "value", [_typed(reading.v, parameter.info["datainfo"]), qualifiers]


def _no_value(mirror: Mirror, module: str, name: str) -> list[str]:
    """Return class and text of an error for what the host is there to tell, but does not know."""
    if (module, name) == (HEATER, "target"):
        return ["Disabled", "the heater is off: there is no target"]
    if module == "cell" and mirror.value("cell", "phase") == "open circuit":
        return ["Disabled", "the circuit is open, and nobody measures"]
    return ["HardwareError", f"there is no valid value of {name} of {module}"]


def _typed(value: Any, info: Mapping[str, Any]) -> Any:
    if info["type"] == "double":
        return float(value)
    return str(value)[:LONGEST_TEXT] if info["type"] == "string" else value


def status(mirror: Mirror, parameter: Parameter, told: Report) -> tuple[int, str]:
    """Return code and text of a module's status, from its value's report: they always agree."""
    kind, data = told
    if kind == "error":
        return (DISABLED if data[0] == "Disabled" else ERROR), str(data[1])
    if parameter.key is not None and mirror.quality(*parameter.key) == "uncertain":
        return WARN, "the value is uncertain"
    if parameter.key == (HEATER, "temperature"):
        target = mirror.value(HEATER, "target")
        if isinstance(target, int | float) and abs(data[0] - float(target)) > ARRIVED_K:
            return BUSY, f"on its way to {float(target):.1f} K"
    return IDLE, ""


def guard_report(mirror: Mirror) -> tuple[Report, tuple[int, str]]:
    """Return value and status of the guard's module."""
    if away := mirror.away():
        return ("error", ["CommunicationFailed", away, {}]), (ERROR, away)
    texts = [f"INTERLOCK {id_}: {body.get('text', '')}" for id_, body in mirror.alarms.items()]
    text = "; ".join(texts)[:LONGEST_TEXT]
    when = max((float(body.get("t", 0.0)) for body in mirror.alarms.values()), default=None)
    qualifiers = {} if when is None else {"t": when}
    return ("value", [text, qualifiers]), ((ERROR, text) if text else (IDLE, ""))


def comparable(told: Report) -> Any:
    """Return what must differ for a report to be sent again: not the seconds counted in an error's text."""
    kind, data = told
    return (kind, data[0], re.sub(r"\d+", "#", str(data[1]))) if kind == "error" else (kind, data)
