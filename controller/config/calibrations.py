"""Which calibration tables exist, and for what: a table belongs to one composition, energy and angle.

The reduction has the tables with their full derivation; the host must not import it, so what is needed to
refuse a wrong one before anything is energised stands here again. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from controller.config import files
from controller.config.base import Table, rules
from controller.config.files import Source
from controller.config.problems import ConfigErrors
from controller.config.quantities import Quantity
from controller.config.translate import from_pydantic

FRACTION_TOLERANCE = 0.02  # absolute, per component
ENERGY_TOLERANCE_KEV = 30.0
ANGLE_TOLERANCE_DEG = 5.0
HOSTS = {"LiCoO2": (1.0, 0.5)}  # x of the full host (SoC 0) and x at SoC 1

_ALIASES = {"LCO": "LiCoO2", "LLZ": "LLZO", "LLZO:Ta": "LLZO", "carbon": "C", "carbon black": "C"}
_STEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class Calibration:
    """Relative lithium signal against x, with the conditions under which it holds."""

    name: str
    host: str
    mass_fractions: Mapping[str, float]
    energy_kev: float
    angle_deg: float
    x: tuple[float, ...]
    signal: tuple[float, ...]
    settings: str | dict[str, Any] = field(default="", compare=False)  # what the reduction is given

    def composition_faults(self, host: str, mass_fractions: Mapping[str, float]) -> list[str]:
        """Return how a layer differs from the table's matrix, in words."""
        faults = []
        if canonical(host) != canonical(self.host):
            faults.append(f"host {host} instead of {self.host}")
        mine = {canonical(name): value for name, value in self.mass_fractions.items()}
        given: dict[str, float] = {}
        for name, value in mass_fractions.items():
            given[canonical(name)] = given.get(canonical(name), 0.0) + value
        for name in dict.fromkeys((*mine, *given)):
            have, need = given.get(name, 0.0), mine.get(name, 0.0)
            if abs(have - need) > FRACTION_TOLERANCE:
                faults.append(f"{name} {have:.3g} instead of {need:.3g}")
        return faults

    @property
    def slope(self) -> float:
        """Change of the relative signal per unit of x: least squares through all points of the table."""
        mean_x = sum(self.x) / len(self.x)
        mean_signal = sum(self.signal) / len(self.signal)
        above = sum((x - mean_x) * (s - mean_signal) for x, s in zip(self.x, self.signal, strict=True))
        return above / sum((x - mean_x) ** 2 for x in self.x)


BUILT_IN = {
    table.name: table
    for table in (
        Calibration(
            # Moeller et al., Batteries 7 (2021) 41, table A2 (SimNRA 7.02), for LCO and LLZO 1:1 by mass
            name="lco-llzo-2.91MeV",
            host="LiCoO2",
            mass_fractions={"LiCoO2": 0.5, "LLZO": 0.5},
            energy_kev=2911.0,
            angle_deg=0.0,
            x=_STEPS,
            signal=(1.0, 0.9476, 0.8875, 0.8375, 0.7797, 0.7177),
            settings="lco-llzo-2.91MeV",
        ),
        Calibration(
            # The polymer cell of the same paper: derived from stopping powers, edge/ION_BEAM.md
            name="lco-meep-2.91MeV",
            host="LiCoO2",
            mass_fractions={"LiCoO2": 0.85, "C": 0.05, "MEEP-LiBOB": 0.05, "PVdF": 0.05},
            energy_kev=2911.0,
            angle_deg=0.0,
            x=_STEPS,
            signal=(1.0, 0.907, 0.812, 0.716, 0.619, 0.520),
            settings="lco-meep-2.91MeV",
        ),
    )
}


class CalibrationFile(Table):
    """A calibration table of one's own, as a TOML file beside the experiment."""

    name: str
    host: str
    mass_fractions: dict[str, float]
    energy_kev: Annotated[float, Quantity("keV", above=0.0)] = Field(alias="energy")
    angle_deg: Annotated[float, Quantity("deg", low=0.0, high=180.0)] = Field(alias="angle")
    x: Annotated[tuple[float, ...], Field(min_length=2, strict=False)]
    signal: Annotated[tuple[float, ...], Field(min_length=2, strict=False)]
    sigma_x: Annotated[float, Field(gt=0.0, lt=0.5)]
    source: str

    @model_validator(mode="after")
    def _falls(self) -> CalibrationFile:
        with rules() as rule:
            if len(self.x) != len(self.signal):
                rule.broken("signal", f"has {len(self.signal)} entries, x has {len(self.x)}")
            for key, values in (("x", self.x), ("signal", self.signal)):
                if any(after >= before for before, after in pairwise(values)):
                    rule.broken(key, "must fall from entry to entry")
                if values[0] != 1.0:
                    rule.broken(key, "must begin with 1.0: the table is relative to x = 1")
        return self


def load_calibration(source: Source) -> Calibration:
    """Validate a calibration file that has been read. Raises: ConfigErrors."""
    try:
        table = CalibrationFile.model_validate(source.data)
    except ValidationError as error:
        raise ConfigErrors(from_pydantic(error, source, CalibrationFile)) from None
    plain = table.model_dump()
    settings = {**plain, "x": list(table.x), "signal": list(table.signal)}
    conditions = {name: value for name, value in plain.items() if name not in ("sigma_x", "source")}
    return Calibration(**conditions, settings=settings)


def find_calibration(name: str, beside: Source) -> Calibration | None:
    """Return a built-in table, or the one in a file (name ending in .toml); None when there is neither.

    Raises: ConfigErrors when the file is wrong.
    """
    if name in BUILT_IN or not name.endswith(".toml"):
        return BUILT_IN.get(name)
    folder = beside.path.parent if beside.path is not None else None
    if folder is None or not (folder / name).is_file():
        return None
    return load_calibration(files.read(folder / name))


def canonical(material: str) -> str:
    """Return the one name of a material that goes by several."""
    return _ALIASES.get(material, material)
