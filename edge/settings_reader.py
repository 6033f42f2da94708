"""Reads the plain dictionary of ``Settings.from_dict``; all problems at once, bad combinations refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from edge import lines as line_tables
from edge.calibration_tables import CalibrationTable
from edge.lines import LineWindow
from edge.settings import PRIORS, AnalysisLine, Detector, Layer, Method, Settings


class SettingsReader:
    """Collects problems while reading, so that a person sees all of them at once."""

    _KEYS = frozenset(
        {
            "detectors",
            "lithium_line",
            "lines",
            "layers",
            "interface",
            "reference",
            "calibration",
            "beam",
            "capacity_coulomb",
            "capacity_error",
            "leakage_a",
            "relative",
            "same_cell",
            "priors",
        }
    )

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.problems: list[str] = []
        self.flags: list[str] = []

    def settings(self) -> Settings:
        """Return the settings, or raise ValueError with every problem found."""
        self._unknown("", self.data, self._KEYS)
        lithium = self._table(self.data, "lithium_line", "centroid_kev fwhm_kev")
        centroid = self._number(lithium, "lithium_line.centroid_kev", positive=True)
        fwhm = self._number(lithium, "lithium_line.fwhm_kev", positive=True)
        beam = self._table(self.data, "beam", "energy_kev angle_deg")
        energy = self._number(beam, "beam.energy_kev", positive=True)
        angle = self._number(beam, "beam.angle_deg")
        detectors = self._detectors()
        lines = self._lines(detectors, centroid, fwhm)
        layers = self._layers()
        interface = self._interface(layers)
        self._normalisers(layers, lines)
        self._overlaps(layers, lines, detectors)
        table = self._calibration(layers, energy, angle)
        relative = self._table(self.data, "relative", "zero full", needed=False)
        capacity = self.data.get("capacity_coulomb")
        settings_priors = dict(PRIORS)
        given = self._table(self.data, "priors", " ".join(PRIORS), needed=False)
        settings_priors.update({name: self._number(given, f"priors.{name}") for name in given})
        reference = self.data.get("reference")
        if not isinstance(reference, str) or not reference:
            self.problems.append("reference: the name of a scan is needed")
        numbers = {
            "capacity_error": self._number({"capacity_error": 0.05, **self.data}, "capacity_error"),
            "leakage_a": self._number({"leakage_a": 0.0, **self.data}, "leakage_a"),
        }
        if capacity is not None:
            capacity = self._number(self.data, "capacity_coulomb", positive=True)
        if self.problems:
            raise ValueError("; ".join(self.problems))
        return Settings(
            detectors=detectors,
            lines=tuple(lines),
            layers=tuple(layers),
            interface=interface,
            reference=str(reference),
            table=table,
            lithium_centroid_kev=centroid,
            lithium_fwhm_kev=fwhm,
            beam_energy_kev=energy,
            beam_angle_deg=angle,
            capacity_coulomb=capacity,
            capacity_error=numbers["capacity_error"],
            leakage_a=numbers["leakage_a"],
            relative_zero=relative.get("zero"),
            relative_full=relative.get("full"),
            reference_is_same_cell=bool(self.data.get("same_cell", True)),
            priors=settings_priors,
            flags=tuple(self.flags),
        )

    def _unknown(self, where: str, table: Mapping[str, Any], allowed: Sequence[str] | frozenset[str]) -> None:
        for key in table:
            if key not in allowed:
                self.problems.append(f"{where}{key}: unknown key, known are {', '.join(sorted(allowed))}")

    def _table(
        self, data: Mapping[str, Any], key: str, allowed: str, *, needed: bool = True
    ) -> Mapping[str, Any]:
        value = data.get(key)
        if value is None and not needed:
            return {}
        if not isinstance(value, Mapping):
            self.problems.append(f"{key}: a table is needed, got {value!r}")
            return {}
        self._unknown(f"{key}.", value, allowed.split())
        return value

    def _number(self, data: Mapping[str, Any], path: str, *, positive: bool = False) -> float:
        value = data.get(path.rsplit(".", 1)[-1])
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.problems.append(f"{path}: a number is needed, got {value!r}")
            return 1.0
        if positive and value <= 0:
            self.problems.append(f"{path}: {value} is not positive")
            return 1.0
        return float(value)

    def _detectors(self) -> dict[str, Detector]:
        found = {}
        table = self.data.get("detectors")
        if not isinstance(table, Mapping) or not table:
            self.problems.append("detectors: at least one detector is needed")
            return {}
        for name, entry in table.items():
            where = f"detectors.{name}."
            if not isinstance(entry, Mapping) or entry.get("kind") not in ("sdd", "hpge"):
                self.problems.append(f"{where}kind: must be sdd or hpge")
                continue
            keys = ["kind", "channels", "offset_kev", "gain_kev", "resolution_kev", "fast_dead_s"]
            self._unknown(where, entry, keys)
            channels = int(self._number(entry, where + "channels", positive=True))
            if not 256 <= channels <= 16384:
                self.problems.append(f"{where}channels: {channels} is outside 256 to 16384")
            kind = entry["kind"]
            defaults = {"resolution_kev": 0.145 if kind == "sdd" else 2.0, "fast_dead_s": 4e-7}
            full = {**defaults, **{key: value for key, value in entry.items() if value is not None}}
            found[str(name)] = Detector(
                name=str(name),
                kind=kind,
                channels=channels,
                offset_kev=self._number(full, where + "offset_kev"),
                gain_kev=self._number(full, where + "gain_kev", positive=True),
                resolution_kev=self._number(full, where + "resolution_kev", positive=True),
                fast_dead_s=self._number(full, where + "fast_dead_s"),
            )
        return found

    def _lines(
        self, detectors: Mapping[str, Detector], centroid_kev: float, fwhm_kev: float
    ) -> list[AnalysisLine]:
        found: list[AnalysisLine] = []
        for index, entry in enumerate(self.data.get("lines") or ()):
            where = f"lines[{index}]."
            self._unknown(
                where, entry, ["element", "detector", "line", "method", "window_kev", "background_kev"]
            )
            detector = detectors.get(str(entry.get("detector")))
            if detector is None:
                known = ", ".join(detectors)
                self.problems.append(f"{where}detector: {entry.get('detector')!r} is none of {known}")
                continue
            element = str(entry.get("element"))
            if any(line.element == element for line in found):
                self.problems.append(f"{where}element: {element} is listed twice")
                continue
            if (element == "Li") != (detector.kind == "hpge"):
                need = "the HPGe" if element == "Li" else "the SDD"
                self.problems.append(f"{where}detector: {element} is measured with {need}")
                continue
            method = entry.get("method") or "window"
            if method not in ("window", "projection", "fit"):
                self.problems.append(f"{where}method: {method!r} is none of window, projection, fit")
            try:
                window = self._window(entry, element, detector, centroid_kev, fwhm_kev)
            except (ValueError, TypeError) as error:
                self.problems.append(f"{where}{error}")
                continue
            found.append(AnalysisLine(element, detector.name, window, cast(Method, method)))
        if not any(line.element == "Li" for line in found):
            self.problems.append("lines: lithium is missing")
        return found

    def _window(
        self, entry: Mapping[str, Any], element: str, detector: Detector, centroid_kev: float, fwhm_kev: float
    ) -> LineWindow:
        if element == "Li":
            window = line_tables.lithium_window(centroid_kev, fwhm_kev)
        else:
            window = line_tables.xray_window(element, entry.get("line"), detector.resolution_kev)
        low, high = entry.get("window_kev") or (window.low_kev, window.high_kev)
        bands = tuple((float(a), float(b)) for a, b in entry.get("background_kev") or window.bands_kev)
        window = LineWindow(
            element, window.line, window.centroid_kev, window.fwhm_kev, float(low), float(high), bands
        )
        top_kev = detector.energy_kev(detector.channels - 1)
        for a, b in ((window.low_kev, window.high_kev), *bands):
            if not 0.0 < a < b <= top_kev:
                raise ValueError(f"{element}: {a:.3f} to {b:.3f} keV is not inside 0 to {top_kev:.1f} keV")
            if b - a < 2 * detector.gain_kev:
                raise ValueError(f"{element}: {a:.3f} to {b:.3f} keV is narrower than two channels")
        if not window.low_kev < window.centroid_kev < window.high_kev:
            raise ValueError(f"{element}: window does not contain the line at {window.centroid_kev:.3f} keV")
        if any(a < window.high_kev and b > window.low_kev for a, b in bands):
            raise ValueError(f"{element}: a background band overlaps the window")
        if element == "Li" and not (window.one_sided and all(a > centroid_kev for a, _ in bands)):
            raise ValueError("Li: the background must lie on the high side of the line, below 505 keV")
        if element == "Li" and any(b > line_tables.LITHIUM_BAND_HIGH_KEV for _, b in bands):
            raise ValueError("Li: the background band must end below 505 keV (annihilation at 511 keV)")
        return window

    def _layers(self) -> list[Layer]:
        found = []
        for index, entry in enumerate(self.data.get("layers") or ()):
            where = f"layers[{index}]."
            self._unknown(where, entry, ["name", "kind", "normaliser", "host", "mass_fractions"])
            if entry.get("kind") not in ("metal", "separator", "host"):
                self.problems.append(f"{where}kind: {entry.get('kind')!r} is not metal, separator or host")
                continue
            fractions = {str(k): float(v) for k, v in (entry.get("mass_fractions") or {}).items()}
            if entry["kind"] == "host":
                if not entry.get("host"):
                    self.problems.append(f"{where}host: a host layer names its host compound")
                if abs(sum(fractions.values()) - 1.0) > 0.01:
                    self.problems.append(
                        f"{where}mass_fractions: sum is {sum(fractions.values()):.3f}, must be 1"
                    )
            found.append(
                Layer(
                    str(entry.get("name")),
                    entry["kind"],
                    entry.get("normaliser"),
                    entry.get("host"),
                    fractions,
                )
            )
        if len(found) < 2:
            self.problems.append("layers: at least two layers are needed")
        if len({layer.name for layer in found}) != len(found):
            self.problems.append("layers: two layers have the same name")
        return found

    def _interface(self, layers: Sequence[Layer]) -> tuple[str, str]:
        value = self.data.get("interface")
        names = [layer.name for layer in layers]
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
            self.problems.append(f"interface: two layer names are needed, got {value!r}")
            return ("", "")
        lower, upper = str(value[0]), str(value[1])
        pairs = list(itertools.pairwise(names))
        if (lower, upper) not in pairs:
            shown = "; ".join(f"{a}, {b}" for a, b in pairs)
            self.problems.append(
                f"interface: {lower}, {upper} are not neighbours in order; possible: {shown}"
            )
        return lower, upper

    def _normalisers(self, layers: Sequence[Layer], lines: Sequence[AnalysisLine]) -> None:
        counted = {line.element for line in lines}
        for layer in layers:
            if layer.normaliser is not None and (layer.normaliser not in counted or layer.normaliser == "Li"):
                self.problems.append(
                    f"layer {layer.name}: normaliser {layer.normaliser} is not among the analysis lines"
                )
            if layer.kind == "host" and layer.normaliser is None:
                self.problems.append(f"layer {layer.name}: a host layer needs a normaliser")
        for lower, upper in itertools.pairwise(layers):
            if lower.normaliser == upper.normaliser:
                self.problems.append(
                    f"layers {lower.name} and {upper.name} have the same normaliser: "
                    "their boundary cannot be seen"
                )

    def _overlaps(
        self, layers: Sequence[Layer], lines: Sequence[AnalysisLine], detectors: Mapping[str, Detector]
    ) -> None:
        present = {element for layer in layers for name in layer.mass_fractions for element in
                   line_tables.elements_of(name)}  # fmt: skip
        present |= {layer.normaliser for layer in layers if layer.normaliser}
        counted = {(line.element, line.window.line) for line in lines}
        if ("P", "Ka") in counted and ("Zr", "La") in counted:
            self.problems.append(f"lines: {line_tables.PHOSPHORUS_ZIRCONIUM}; use Zr Ka")
        phosphorus = [layer for layer in layers if layer.normaliser == "P"]
        for layer in phosphorus:
            if any("Zr" in line_tables.elements_of(name) for name in layer.mass_fractions):
                self.problems.append(f"layer {layer.name}: {line_tables.PHOSPHORUS_ZIRCONIUM}")
        for name, detector in detectors.items():
            if detector.kind == "sdd":
                windows = [line.window for line in lines if line.detector == name]
                self.flags.extend(line_tables.overlaps(windows, present, detector.resolution_kev))

    def _calibration(
        self, layers: Sequence[Layer], energy_kev: float, angle_deg: float
    ) -> CalibrationTable | None:
        hosts = [layer for layer in layers if layer.kind == "host"]
        given = self.data.get("calibration")
        if given is None:
            if hosts:
                self.problems.append("calibration: a host layer needs a calibration table")
            return None
        try:
            table = (
                CalibrationTable.named(given) if isinstance(given, str) else CalibrationTable.from_dict(given)
            )
        except (ValueError, TypeError, KeyError) as error:
            self.problems.append(f"calibration: {error}")
            return None
        for layer in hosts:
            try:
                table.check(layer.host or "", layer.mass_fractions, energy_kev, angle_deg)
            except ValueError as error:
                self.problems.append(f"layer {layer.name}: {error}")
        return table
