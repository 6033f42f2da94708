"""What the ion-beam reduction needs to know, as one value; ``Settings.from_dict`` documents its shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edge.calibration_tables import CalibrationTable
from edge.lines import LineWindow

LayerKind = Literal["metal", "separator", "host"]
Method = Literal["window", "projection", "fit"]

PRIORS: Mapping[str, float] = {
    "normalisation": 0.02,  # element normalisation of a signal relative to a reference (paper, section 4.4)
    "cell_to_cell": 0.04,  # only if the reference is another cell
    "evaluation": 0.05,  # cross-sections and evaluation; absolute values only
    "surface_layer": 0.02,  # LiOH and Li2CO3 at the surface; absolute values only
    "beam_charge": 0.01,  # beam monitor, scan to scan; charge-normalised values only
    "dead_time": 0.10,  # relative error of the modelled dead time per pulse
    "background_slope_per_kev": 0.004,  # slope of the continuum under the lithium line
    "lithium_centroid_kev": 0.3,  # the line's place depends on geometry and depth
}
"""One-sigma priors; relative unless the name carries a unit. Settings may override each by name."""


@dataclass(frozen=True)
class Detector:
    """One list-mode detector: nominal energy scale and resolution."""

    name: str
    kind: Literal["sdd", "hpge"]
    channels: int
    offset_kev: float
    gain_kev: float
    resolution_kev: float
    fast_dead_s: float  # pulse-pair resolving time of the fast channel

    def energy_kev(self, channel: float, gain: float = 1.0) -> float:
        """Return the energy at the centre of a channel; ``gain`` multiplies the nominal scale."""
        return (self.offset_kev + self.gain_kev * channel) * gain


@dataclass(frozen=True)
class AnalysisLine:
    """One element to count: on which detector, in which window, by which method."""

    element: str
    detector: str
    window: LineWindow
    method: Method


@dataclass(frozen=True)
class Layer:
    """One layer of the sample, in order along the interface normal."""

    name: str
    kind: LayerKind
    normaliser: str | None = None
    host: str | None = None
    mass_fractions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Everything that does not change during a run."""

    detectors: Mapping[str, Detector]
    lines: tuple[AnalysisLine, ...]
    layers: tuple[Layer, ...]
    interface: tuple[str, str]
    reference: str
    table: CalibrationTable | None
    lithium_centroid_kev: float
    lithium_fwhm_kev: float
    beam_energy_kev: float
    beam_angle_deg: float
    capacity_coulomb: float | None
    capacity_error: float
    leakage_a: float
    relative_zero: str | None
    relative_full: str | None
    reference_is_same_cell: bool
    priors: Mapping[str, float]
    flags: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """Build from a plain dictionary; every problem is collected into one ValueError.

        Keys (SI unless the name says otherwise; those marked ? may be missing or None)::

            detectors: {name: {kind: "sdd"|"hpge", channels: int, offset_kev: float, gain_kev: float,
                               resolution_kev?: FWHM at 5.895 keV (sdd, default 0.145) or at 477.6 keV (hpge,
                                                default 2.0),
                               fast_dead_s?: default 4e-7}}
            lithium_line: {centroid_kev: 481.0, fwhm_kev: 6.0}
            lines: [{element: "Li", detector: name, line?: "Ka"|"Kb"|"La"...,
                     method?: "window"|"projection"|"fit",
                     window_kev?: [low, high], background_kev?: [[low, high], ...]}]
            layers: [{name, kind: "metal"|"separator"|"host", normaliser?, host?, mass_fractions?: {name: w}}]
                    in order along the interface normal (+y); mass fractions of a host with x = 1
            interface: [lower layer, upper layer]   the one that is levelled; neighbours in ``layers``
            reference: name of the scan that is the reference
            calibration?: name of a built-in table, or {name, host, mass_fractions, energy_kev, angle_deg,
                          x: [...], signal: [...], sigma_x, source}; needed when a layer is a host
            beam: {energy_kev: 2911.0 (after the foil), angle_deg: 0.0 (photon detector to beam)}
            capacity_coulomb?: for x from 1 to 0.5;  capacity_error?: relative, default 0.05
            leakage_a?: one-sigma leakage and side-reaction current, default 0
            relative?: {zero: scan name, full?: scan name}   SoC relative to named scans as well
            same_cell?: default true; false when the reference scan is of another cell
            priors?: {name of ``PRIORS``: value}

        Raises:
            ValueError: naming every unknown key, wrong value, and refused combination.
        """
        from edge.settings_reader import SettingsReader  # it imports this module

        return SettingsReader(data).settings()

    def line(self, element: str) -> AnalysisLine | None:
        """Return the analysis line of an element, or None."""
        return next((line for line in self.lines if line.element == element), None)

    def layer_index(self, name: str) -> int:
        """Return the position of a layer along the normal."""
        return [layer.name for layer in self.layers].index(name)

    def projected_on(self, detector: str) -> tuple[LineWindow, ...]:
        """Return the windows of the lines of one detector that are counted by projection."""
        return tuple(line.window for line in self.lines_on(detector) if line.method == "projection")

    def lines_on(self, detector: str) -> tuple[AnalysisLine, ...]:
        """Return the analysis lines counted on one detector, in file order."""
        return tuple(line for line in self.lines if line.detector == detector)
