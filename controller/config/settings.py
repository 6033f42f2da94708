"""What the reduction is told about a run: a plain dictionary, so that neither side imports the other.

The shape is the one that ``edge.settings.Settings.from_dict`` documents; a test hands it over for real.
"""

from __future__ import annotations

from typing import Any

from controller.config.experiment import Experiment
from controller.config.instruments.amptek import Amptek
from controller.config.sample import Analysis, AnalysisLine, Layer
from controller.config.station import Station


def reduce_settings(station: Station, experiment: Experiment) -> dict[str, Any] | None:
    """Return the settings of the ion-beam reduction, None where nothing is scanned.

    Detectors go by their role: ``pixe``, ``pige``.
    """
    beam = station.beam
    if beam is None or experiment.analysis is None:
        return None
    return {
        "detectors": _detectors(station),
        "lithium_line": beam.lithium_line.model_dump(),
        "beam": {"energy_kev": beam.sample_kev, "angle_deg": beam.pige_angle_deg},
        **analysis_settings(experiment.analysis, experiment),
    }


def analysis_settings(analysis: Analysis, experiment: Experiment) -> dict[str, Any]:
    """Return the settings that the experiment file decides: what may differ in a new reduction."""
    sample = experiment.sample
    settings: dict[str, Any] = {
        "lines": [_line(line) for line in analysis.lines],
        "layers": [_layer(layer) for layer in sample.layers],
        "interface": list(analysis.interface),
        "reference": analysis.reference,
        "capacity_coulomb": sample.capacity_coulomb,
        "capacity_error": sample.capacity_error,
        "leakage_a": sample.leakage_a,
        "same_cell": analysis.same_cell,
        "priors": analysis.priors.model_dump(exclude_none=True),
    }
    if experiment.calibration is not None:
        settings["calibration"] = experiment.calibration.settings
    if analysis.relative is not None:
        settings["relative"] = analysis.relative.model_dump(exclude_none=True)
    return settings


def _detectors(station: Station) -> dict[str, dict[str, Any]]:
    found = {}
    for role in ("pixe", "pige"):
        device = station.device(role)
        if not isinstance(device, Amptek):
            continue
        found[role] = {
            "kind": device.detector,
            "channels": device.channels,
            "offset_kev": device.energy.offset_kev,
            "gain_kev": device.energy.gain_kev,
        }
        for name in ("resolution_kev", "fast_dead_s"):
            value = getattr(device, name)
            if value is not None:
                found[role][name] = value
    return found


def _line(line: AnalysisLine) -> dict[str, Any]:
    told: dict[str, Any] = {"element": line.element, "detector": line.detector, "method": line.method}
    if line.line is not None:
        told["line"] = line.line
    if line.window_kev is not None:
        told["window_kev"] = list(line.window_kev)
    if line.background_kev is not None:
        told["background_kev"] = [list(band) for band in line.background_kev]
    return told


def _layer(layer: Layer) -> dict[str, Any]:
    told: dict[str, Any] = {"name": layer.name, "kind": layer.kind}
    if layer.normaliser is not None:
        told["normaliser"] = layer.normaliser
    if layer.host is not None:
        told["host"] = layer.host
    if layer.mass_fractions:
        told["mass_fractions"] = dict(layer.mass_fractions)
    return told
