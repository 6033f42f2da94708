"""An experiment file for the roles of a station: small but whole, with the other steps to choose from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from pydantic import BaseModel

from controller.config.calibrations import BUILT_IN, HOSTS
from controller.config.chemistry import CHEMISTRIES
from controller.config.experiment import Experiment
from controller.config.keys import keys_of, tag_of
from controller.config.sample import XRAY_LINES
from controller.config.station_rules import ROLES
from controller.config.steps import SHARES, Step
from controller.config.unfilled import FILL_IN
from controller.starter.writing import SHOWN, Filling, comment, off, sentence, table, title

HEAD = f"""\
# An experiment: the sample, what to count in it, and the steps in order.
#
# Written by `operando init experiment`. Where it says "{FILL_IN}" only a person can know: the file is refused
# until all of them are filled in. A line that begins with # and a key is switched off.
# Quantities carry their unit: "333 K" and "60 degC", "18 uA" and "C/20", "90 s" and "1.5 h".
# Then: operando check STATION FILE says how long it will take, the dose, and the smallest change that can be
# seen.
"""
RASTER = {"centre": '["0 um", "0 um"]'}
NEEDS = {"heater": ("heater",), "cell": ("cell",), "beam": ("scanner", "compton", "radiography")}


@dataclass(frozen=True)
class Planned:
    """One step of the experiment, or several at the same time."""

    why: str
    do: str
    filling: Filling = field(default_factory=Filling)
    inside: tuple[Planned, ...] = ()


def roles_in(raw: Mapping[str, object]) -> tuple[str, ...]:
    """Return the roles that a station file names, whatever else is still missing in it."""
    roles = raw.get("roles")
    return tuple(role for role in ROLES if isinstance(roles, Mapping) and isinstance(roles.get(role), str))


def experiment_text(roles: tuple[str, ...], name: str = "") -> str:
    """Return the text of an experiment file for a station with these roles."""
    scans = "scanner" in roles
    lines = [HEAD.rstrip(), "", *table("experiment", _model_at("experiment"), _named(name))]
    lines += [
        *title("what is in the holder"),
        *comment("Chemistries that are known: " + ", ".join(CHEMISTRIES)),
    ]
    lines += table("sample", _model_at("sample"), Filling(leave=("layer",)))
    if scans:
        lines += _layers()
        lines += [*title("what to count in it"), *_analysis()]
    if "radiography" in roles:
        lines += [*title("what of the images is reduced"), *table("radiography", _model_at("radiography"))]
    lines += title("what to do, in order")
    for step in steps(roles):
        lines += ["", *_written(step, "step")]
    lines += title("other steps that this station can do, switched off")
    for model in _models():
        _, (do,) = tag_of(model)
        needs = NEEDS.get(SHARES.get(do, ""), ())
        if do in ("repeat", "parallel") or (needs and not set(needs) & set(roles)):
            continue
        if (do in ("scan", "calibrate", "background") and not scans) or (
            do == "move" and "stage" not in roles
        ):
            continue
        if do == "expose" and not set(roles) & {"compton", "radiography"}:
            continue
        shown = table("step", model, SHOWN, several=True)
        lines += ["", *comment(f"{do}: {_said(model)}"), *off(shown, "step")]
    return "\n".join(lines) + "\n"


def steps(roles: tuple[str, ...]) -> Iterator[Planned]:
    """Yield the steps of a whole small experiment with what is there."""
    scans, cell, heater = "scanner" in roles, "cell" in roles, "heater" in roles
    cameras = [role for role in ("compton", "radiography") if role in roles]
    for camera in cameras:
        yield _exposure(camera, "dark", "the camera without light: what is subtracted from every image")
    if "radiography" in cameras:
        yield _exposure("radiography", "flat", "the open beam: what every image is divided by")
    if scans:
        yield _scan("as prepared", "the reference: nothing is charged before it has been taken")
    for camera in cameras:
        yield _exposure(camera, "sample", "the sample as it was made")
    if cell:
        yield Planned("the voltage of the cell as it was made", "ocv")
    if heater:
        yield Planned("warm, before current flows", "heat", Filling(begin=("stable",)))
    if cell:
        charge = Planned("constant current up to the voltage, which is then held", "charge", CHARGE)
        scan = _scan("charging", "without until it ends when the charge has ended", ends=False)
        inside = (charge, scan)
        yield (
            Planned("scan while charging: that is what operando means", "parallel", inside=inside)
            if scans
            else charge
        )
        yield Planned("the voltage as the cell relaxes", "rest")
    if scans:
        yield _scan("after", "look again")
    for camera in cameras:
        yield _exposure(camera, "sample", "and after", name=f"{camera} after")
    if heater:
        yield Planned("back to the temperature of the room; without ramp the heater is off", "cool")
    if scans:
        yield Planned("room background, and what the beam has activated", "background")
    if not (scans or cell or heater or cameras):
        yield Planned("nothing of this station can be driven", "message", Filling({"text": '"done"'}))


CHARGE = Filling(begin=("current", "voltage", "until.charge", "until.current_below"))


def _scan(name: str, why: str, *, ends: bool = True) -> Planned:
    given = {"name": f'"{name}"'}
    begin = ("raster", "until", "until.passes", "timeout") if ends else ("raster",)
    return Planned(
        why, "scan", Filling(given, begin, () if ends else ("until", "timeout", "mosaic", "purpose"))
    )


def _exposure(camera: str, purpose: str, why: str, name: str = "") -> Planned:
    given = {
        "name": f'"{name or f"{camera} {purpose}"}"',
        "detector": f'"{camera}"',
        "purpose": f'"{purpose}"',
    }
    return Planned(why, "expose", Filling(given, ("until.frames",)))


def _written(step: Planned, header: str) -> list[str]:
    model = next(one for one in _models() if tag_of(one)[1] == (step.do,))
    leave = (*step.filling.leave, "step")
    filling = Filling(step.filling.given, step.filling.begin, leave)
    lines = [*comment(sentence(step.why)), *table(header, model, filling, several=True)]
    for inner in step.inside:
        lines += ["", *_written(inner, f"{header}.step")]
    return lines


def _layers() -> list[str]:
    model = _model_at("sample")
    layer = next(key.tables[0] for key in keys_of(model) if key.name == "layer")
    hosts = ", ".join(HOSTS)
    lines = [
        "",
        *comment(f"Layers, in order along +y, the normal of the interfaces. Hosts that are known: {hosts}."),
    ]
    for name, kind, begin in (
        ("anode", "metal", ()),
        ("separator", "separator", ()),
        ("cathode", "host", ("host", "mass_fractions", "normaliser")),
    ):
        known = Filling({"name": f'"{name}"', "kind": f'"{kind}"'}, begin)
        lines += ["", *table("sample.layer", layer, known, several=True)]
    return lines


def _analysis() -> list[str]:
    model = _model_at("analysis")
    line = next(key.tables[0] for key in keys_of(model) if key.name == "line")
    given = {"reference": '"as prepared"', "interface": '["separator", "cathode"]'}
    known = f"Calibrations that are built in: {', '.join(BUILT_IN)}; or a file of your own (.toml)."
    lines = [*comment(known), *table("analysis", model, Filling(given, ("calibration",), ("line",)))]
    lines += ["", *comment("Elements with known X-ray lines: " + ", ".join(XRAY_LINES))]
    for detector, element in (("pige", '"Li"'), ("pixe", f'"{FILL_IN}"')):
        filling = Filling({"element": element, "detector": f'"{detector}"'})
        lines += ["", *table("analysis.line", line, filling, several=True)]
    return lines


def _named(name: str) -> Filling:
    return Filling({"name": f'"{name}"'} if name else {})


def _said(model: type[BaseModel]) -> str:
    return next((key.text for key in keys_of(model) if key.name == "do"), "")


def _model_at(name: str) -> type[BaseModel]:
    return next(key.tables[0] for key in keys_of(Experiment) if key.name == name)


def _models() -> tuple[type[BaseModel], ...]:
    return get_args(get_args(Step)[0])
