"""What the two photon spectra are made of: components, their shapes, and their rates on each material.

A component is a line or a continuum. Its rate on a material follows the thick-target yield (``yields``); the
scenario fixes absolute rates on the host layer as prepared, at nominal beam current. Whatever is left of the
total becomes the continuum at low energies. Room background and the 7Be decay need no beam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hil_tests.sim.physics import spectra, yields
from hil_tests.sim.physics.sample import Sample
from hil_tests.sim.physics.stopping import mixture_per_cm3, slowing_down

Floats = npt.NDArray[np.float64]

KAPTON = mixture_per_cm3([(1.0, {"C": 22, "H": 10, "N": 2, "O": 5})], 1.42)
BERYLLIUM = {"Be": 1.236e23}
WINDOWS: list[tuple[yields.Densities, float]] = [
    (KAPTON, 7.5e-4),
    (BERYLLIUM, 8e-4),
]  # cm: holder window and detector window of the paper
LITHIUM_LEFT = np.linspace(0.0, 1.2, 13)  # where the host's rates are tabulated
LITHIUM = "Li 478"
BERYLLIUM7 = "7Be 478"


@dataclass(frozen=True)
class Components:
    """Names and tables of C components; rates in 1/s at nominal beam current.

    Args:
        names: of the components.
        tables: inverse cumulated distributions (C, nodes), keV.
        on_phase: rate on each phase of the sample (phases, C); row 0 (the host) is not used.
        on_host: rate on the host (len(LITHIUM_LEFT), C).
        beam: rate wherever the beam hits (C,).
        room: rate without beam (C,).
    """

    names: tuple[str, ...]
    tables: Floats
    on_phase: Floats
    on_host: Floats
    beam: Floats
    room: Floats

    def rates(self, share: Floats, lithium_left: Floats) -> Floats:
        """Return the rates at N places (N, C) at nominal current."""
        step = LITHIUM_LEFT[1] - LITHIUM_LEFT[0]
        position = np.clip(lithium_left / step, 0.0, LITHIUM_LEFT.size - 1.000001)
        node = position.astype(np.intp)
        part = (position - node)[:, None]
        host = self.on_host[node] * (1.0 - part) + self.on_host[node + 1] * part
        total: Floats = share[:, 1:] @ self.on_phase[1:] + share[:, :1] * host + self.beam
        return total

    def on_prepared_host_per_s(self, low_kev: float, high_kev: float, *, without: str) -> float:
        """Return what the host as prepared gives between two energies, one component left out."""
        quantiles = np.linspace(0.0, 1.0, self.tables.shape[1])
        prepared = [float(np.interp(1.0, LITHIUM_LEFT, rate)) for rate in self.on_host.T]
        total = 0.0
        for k, name in enumerate(self.names):
            low, high = np.interp([low_kev, high_kev], self.tables[k], quantiles)
            if name != without:
                total += (prepared[k] + float(self.beam[k] + self.room[k])) * float(high - low)
        return total


@dataclass
class _Recipe:
    """Components while they are collected."""

    names: list[str]
    tables: list[Floats]
    phases: list[Floats]
    hosts: list[Floats]
    beam: list[float]
    room: list[float]

    def add(
        self,
        name: str,
        table: Floats,
        *,
        phases: Floats | float = 0.0,
        host: Floats | float = 0.0,
        beam: float = 0.0,
        room: float = 0.0,
    ) -> None:
        self.names.append(name)
        self.tables.append(table)
        self.phases.append(np.asarray(phases, float))
        self.hosts.append(np.asarray(host, float))
        self.beam.append(beam)
        self.room.append(room)

    def on_prepared_host(self) -> float:
        """Return the rate of everything so far on the host as prepared."""
        prepared = [float(np.interp(1.0, LITHIUM_LEFT, np.broadcast_to(h, LITHIUM_LEFT.shape)))
                    for h in self.hosts]  ## fmt: skip
        return sum(prepared) + sum(self.beam)

    def cooked(self, phase_count: int) -> Components:
        grid = np.ones(LITHIUM_LEFT.size)
        return Components(
            names=tuple(self.names),
            tables=np.ascontiguousarray(self.tables),
            on_phase=np.stack([phase * np.ones(phase_count) for phase in self.phases], axis=1),
            on_host=np.stack([host * grid for host in self.hosts], axis=1),
            beam=np.asarray(self.beam),
            room=np.asarray(self.room),
        )


class _Yields:
    """Yields of the phases and of the host at each grid point, for any yield function."""

    def __init__(self, sample: Sample, energy_mev: float) -> None:
        self._energy_mev = energy_mev
        host = dict(sample.materials[sample.host.material].per_cm3)
        fixed = host.get("Li", 0.0)
        self.host = [{**host, "Li": fixed + sample.mobile_per_cm3(left)} for left in LITHIUM_LEFT]
        self.prepared = {**host, "Li": fixed + sample.mobile_per_cm3(1.0)}
        self.phases = []
        for name, kept in sample.phases:
            densities = dict(sample.materials[name].per_cm3)
            densities["Li"] = densities.get("Li", 0.0) + kept
            self.phases.append(densities)

    def of(self, function: Any, *arguments: Any) -> tuple[Floats, Floats, float]:
        """Return (of phases, of host grid, of host as prepared) for ``function(densities, ..., energy)``."""
        phases = np.array([function(d, *arguments, self._energy_mev) for d in self.phases])
        host = np.array([function(d, *arguments, self._energy_mev) for d in self.host])
        return phases, host, float(function(self.prepared, *arguments, self._energy_mev))


def pige(
    sample: Sample, rates: Mapping[str, Any], energy_mev: float, line: Mapping[str, float]
) -> Components:
    """Return the gamma spectrum: lithium, other lines, 511 keV, Compton continua, room, 7Be."""
    recipe = _Recipe([], [], [], [], [], [])
    thick = _Yields(sample, energy_mev)
    phases, host, prepared = thick.of(yields.lithium_yield)
    scale = float(rates["lithium"]) / prepared
    doppler = spectra.doppler_table(thick.prepared, energy_mev, line["centroid_kev"], line["fwhm_kev"])
    recipe.add(LITHIUM, doppler, phases=phases * scale, host=host * scale)
    recipe.add(BERYLLIUM7, _gamma(spectra.LITHIUM_KEV))  # its rate depends on the dose
    for entry in rates["gamma"]:
        table = _gamma(float(entry["kev"]))
        per_s = float(entry.get("per_s", 0.0))
        name, element, room = f"{entry['kev']} keV", entry.get("element"), float(entry.get("room", 0.0))
        if element is None:
            recipe.add(name, table, beam=per_s, room=room)
            continue
        phases, host, prepared = thick.of(_flat_yield, element)
        if prepared == 0.0:
            continue  # the host has none of it: nothing says how strong the line is elsewhere
        recipe.add(name, table, phases=phases * per_s / prepared, host=host * per_s / prepared, room=room)
    annihilation = spectra.line_table(spectra.ELECTRON_KEV, spectra.ANNIHILATION_FWHM_KEV)
    recipe.add("511 keV", annihilation, beam=float(rates["annihilation"]), room=0.3)
    factor = np.array([float(rates["continuum"].get(name, 1.0)) for name, _ in sample.phases])
    compton = {float(kev): float(weight) for kev, weight in rates["compton_lines"].items()}
    recipe.add(
        "Compton", spectra.compton_table(compton, low_kev=17.0, fwhm_kev=2.2),
        phases=factor * float(rates["compton"]), host=float(rates["compton"]), room=float(rates["room"]) / 2,
    )  ## fmt: skip
    rest = _rest(float(rates["pige"]), recipe.on_prepared_host(), "pige")
    low = spectra.falling_table(17.0, 1500.0, [(0.96, 55.0), (0.04, 350.0)])
    recipe.add("scattered", low, phases=factor * rest, host=rest, room=float(rates["room"]) / 2)
    return recipe.cooked(len(sample.phases))


def pixe(sample: Sample, rates: Mapping[str, Any], energy_mev: float) -> Components:
    """Return the X-ray spectrum: K and L lines, lines of the holder, bremsstrahlung."""
    recipe = _Recipe([], [], [], [], [], [])
    thick = _Yields(sample, energy_mev)
    _, _, reference = thick.of(yields.xray_yield, "Co Ka")
    scale = float(rates["lithium"]) * float(rates["cobalt_to_lithium"]) / reference
    scale /= yields.transmission("Co Ka", WINDOWS)
    for name, data in yields.XRAY_LINES.items():
        phases, host, _ = thick.of(yields.xray_yield, name)
        if not phases.any() and not host.any():
            continue
        seen = scale * yields.transmission(name, WINDOWS)
        recipe.add(name, _xray(data.energy_kev), phases=phases * seen, host=host * seen)
    for entry in rates["xray"]:
        recipe.add(f"{entry['kev']} keV", _xray(float(entry["kev"])), beam=float(entry["per_s"]))
    factor = np.array([float(rates["continuum"].get(name, 1.0)) for name, _ in sample.phases])
    rest = _rest(float(rates["pixe"]), recipe.on_prepared_host(), "pixe")
    table = spectra.falling_table(0.8, 20.0, [(0.82, 0.12), (0.15, 1.0), (0.03, 4.0)])
    recipe.add("bremsstrahlung", table, phases=factor * rest, host=rest, room=0.2)
    return recipe.cooked(len(sample.phases))


def _flat_yield(densities: Mapping[str, float], element: str, energy_mev: float) -> float:
    """Yield with a cross-section that does not depend on energy (above half the beam energy)."""
    energy, stopping, _ = slowing_down(densities, energy_mev, stop_mev=energy_mev / 2, points=100)
    return densities.get(element, 0.0) * float(-np.trapezoid(1.0 / stopping, energy))


def _gamma(energy_kev: float) -> Floats:
    return spectra.line_table(energy_kev, spectra.germanium_fwhm_kev(energy_kev))


def _xray(energy_kev: float) -> Floats:
    return spectra.line_table(energy_kev, spectra.silicon_fwhm_kev(energy_kev))


def _rest(total: float, lines: float, name: str) -> float:
    if lines > total:
        raise ValueError(
            f"the lines of the {name} spectrum make {lines:.0f} /s, more than {total:.0f} /s in all"
        )
    return total - lines
