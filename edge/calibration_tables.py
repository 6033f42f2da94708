"""Relative lithium signal against x: tables that name the matrix, beam energy and angle they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.stopping import CARBON, LCO, MEEP, PVDF, relative_lithium_yield

Floats = NDArray[np.float64]

X_FULL: Final = 1.0  # x of the reference state (as prepared)
X_EMPTY: Final = 0.5  # x at SoC = 1: half of the lithium is reversibly available
FRACTION_TOLERANCE: Final = 0.02  # absolute, per component; moves the signal at x = 0.5 by less than 0.3 %
ENERGY_TOLERANCE_KEV: Final = 30.0  # about the 22 keV energy width behind the foil
ANGLE_TOLERANCE_DEG: Final = 5.0  # the table holds for the angle of the photon detector

_ALIASES: Final = {"LCO": "LiCoO2", "LLZ": "LLZO", "LLZO:Ta": "LLZO", "carbon": "C", "carbon black": "C"}
_STEPS: Final = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])


@dataclass(frozen=True)
class CalibrationTable:
    """Signal relative to x = 1 for one composition, energy and angle; linear between the points."""

    name: str
    host: str
    mass_fractions: Mapping[str, float]
    energy_kev: float
    angle_deg: float
    x: Floats  # falling
    signal: Floats  # falling, 1 at x = 1
    sigma_x: float  # one sigma of the table itself, in x
    source: str

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or self.x.shape != self.signal.shape or self.x.size < 2:
            raise ValueError(f"table {self.name}: x and signal need the same length of at least 2")
        if not (np.all(np.diff(self.x) < 0) and np.all(np.diff(self.signal) < 0)):
            raise ValueError(f"table {self.name}: x and signal must both fall from point to point")
        if abs(float(self.signal[0]) - 1.0) > 1e-9 or abs(float(self.x[0]) - X_FULL) > 1e-9:
            raise ValueError(f"table {self.name}: must begin at x = 1 with signal 1")

    @classmethod
    def named(cls, name: str) -> CalibrationTable:
        """Return a built-in table; ValueError lists the names there are."""
        table = TABLES.get(name)
        if table is None:
            raise ValueError(f"no calibration table {name!r}; built in: {', '.join(TABLES)}")
        return table

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CalibrationTable:
        """Build from a plain dictionary with the field names of this class; ValueError says what is wrong."""
        keys = [
            "name",
            "host",
            "mass_fractions",
            "energy_kev",
            "angle_deg",
            "x",
            "signal",
            "sigma_x",
            "source",
        ]
        missing = [key for key in keys if key not in data]
        unknown = [key for key in data if key not in keys]
        if missing or unknown:
            raise ValueError(f"table: missing {missing}, unknown {unknown}")
        order = np.argsort(-np.asarray(data["x"], dtype=np.float64))
        return cls(
            name=str(data["name"]),
            host=str(data["host"]),
            mass_fractions={str(k): float(v) for k, v in data["mass_fractions"].items()},
            energy_kev=float(data["energy_kev"]),
            angle_deg=float(data["angle_deg"]),
            x=np.asarray(data["x"], dtype=np.float64)[order],
            signal=np.asarray(data["signal"], dtype=np.float64)[order],
            sigma_x=float(data["sigma_x"]),
            source=str(data["source"]),
        )

    def check(
        self, host: str, mass_fractions: Mapping[str, float], energy_kev: float, angle_deg: float
    ) -> None:
        """Raise ValueError naming every difference between this table's conditions and the given ones."""
        wrong = []
        if _canonical(host) != _canonical(self.host):
            wrong.append(f"host {host} instead of {self.host}")
        mine = {_canonical(key): value for key, value in self.mass_fractions.items()}
        given: dict[str, float] = {}
        for key, value in mass_fractions.items():
            given[_canonical(key)] = given.get(_canonical(key), 0.0) + value
        for name in dict.fromkeys([*mine, *given]):
            if abs(mine.get(name, 0.0) - given.get(name, 0.0)) > FRACTION_TOLERANCE:
                have, need = given.get(name, 0.0), mine.get(name, 0.0)
                wrong.append(f"mass fraction of {name} is {have:.3g} instead of {need:.3g}")
        if abs(energy_kev - self.energy_kev) > ENERGY_TOLERANCE_KEV:
            wrong.append(f"beam energy {energy_kev:.0f} keV instead of {self.energy_kev:.0f} keV")
        if abs(angle_deg - self.angle_deg) > ANGLE_TOLERANCE_DEG:
            wrong.append(f"angle {angle_deg:.0f} deg instead of {self.angle_deg:.0f} deg")
        if wrong:
            raise ValueError(f"calibration table {self.name} does not apply: {'; '.join(wrong)}")

    def x_of(self, signal: ArrayLike) -> Floats:
        """Return x for a relative signal; outside the table the end segments are continued, never clipped."""
        values = np.asarray(signal, dtype=np.float64)
        slope, low_signal, low_x = self._segment(values)
        result: Floats = low_x + (values - low_signal) / slope
        return result

    def slope(self, signal: ArrayLike) -> Floats:
        """Return d(signal)/dx of the segment that a relative signal falls into."""
        return self._segment(np.asarray(signal, dtype=np.float64))[0]

    def signal_of(self, x: ArrayLike) -> Floats:
        """Return the relative signal for x, the inverse of ``x_of``."""
        values = np.asarray(x, dtype=np.float64)
        index = np.clip(np.searchsorted(-self.x, -values, side="right") - 1, 0, self.x.size - 2)
        slope = (self.signal[index + 1] - self.signal[index]) / (self.x[index + 1] - self.x[index])
        result: Floats = self.signal[index] + slope * (values - self.x[index])
        return result

    def _segment(self, signal: Floats) -> tuple[Floats, Floats, Floats]:
        index = np.clip(np.searchsorted(-self.signal, -signal, side="right") - 1, 0, self.x.size - 2)
        slope = (self.signal[index + 1] - self.signal[index]) / (self.x[index + 1] - self.x[index])
        return slope, self.signal[index], self.x[index]


def _canonical(name: str) -> str:
    return _ALIASES.get(name, name)


def _lco_in_meep() -> CalibrationTable:
    """Derive the table of a cathode of 85 % LCO in MEEP by Bragg stopping (ION_BEAM.md)."""
    parts = {"host": (LCO, 0.85), "carbon": (CARBON, 0.05), "polymer": (MEEP, 0.05), "binder": (PVDF, 0.05)}
    return CalibrationTable(
        name="lco-meep-2.91MeV",
        host="LiCoO2",
        mass_fractions={"LiCoO2": 0.85, "C": 0.05, "MEEP-LiBOB": 0.05, "PVdF": 0.05},
        energy_kev=2911.0,
        angle_deg=0.0,
        x=_STEPS,
        signal=relative_lithium_yield(parts, _STEPS, 2911.0),
        sigma_x=0.005,  # salt in the polymer +0.002, mean excitation energies and shell terms 0.004
        source="derived: Li per gram over Bragg stopping, edge.stopping.relative_lithium_yield",
    )


LCO_LLZO = CalibrationTable(
    name="lco-llzo-2.91MeV",
    host="LiCoO2",
    mass_fractions={"LiCoO2": 0.5, "LLZO": 0.5},
    energy_kev=2911.0,
    angle_deg=0.0,
    x=_STEPS,
    signal=np.array([1.0, 0.9476, 0.8875, 0.8375, 0.7797, 0.7177]),
    sigma_x=0.009,  # scatter of the printed points about a straight line, +-0.005 in signal
    source="Moeller et al., Batteries 7 (2021) 41, table A2, SimNRA 7.02",
)

A2_LITHIUM_MOL_CM3 = np.array([0.0459, 0.0433, 0.0406, 0.0379, 0.0353, 0.0326])
"""Table A2, third column as printed under "at. Li/cm3": the unit is mol/cm3. Not used in any result."""

A2_RELATIVE_CONCENTRATION = np.array([1.0, 0.9420, 0.8839, 0.8259, 0.7678, 0.7098])
"""Table A2, fourth column: lithium per volume without the change of stopping. Not used in any result."""

TABLES: Final[Mapping[str, CalibrationTable]] = {table.name: table for table in (LCO_LLZO, _lco_in_meep())}
