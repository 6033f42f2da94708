"""Maps, profiles and spectra of a reduced run as arrays for ``result.h5``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from controller.offline.ion_beam_residual import Residuals
from controller.offline.technique import Array, Axis
from controller.reduce import pictures
from controller.reduce.spectra import spectra
from edge.ion_beam import IonBeamReducer
from edge.placement import Placement
from edge.scan_data import ScanData


def arrays(reducer: IonBeamReducer, residuals: Residuals) -> Iterator[Array]:
    """Yield what was made of every scan.

    Args:
        reducer: after its result.
        residuals: images by (scan, detector).
    """
    analysis = reducer.last_analysis
    for number, scan in reducer.scans.items():
        if not scan.blocks:
            continue
        head = f"scan{number:03d}"
        for name, entry in spectra(analysis, scan).items():
            axis = Axis("energy", np.asarray(entry["energy_kev"], np.float64), "keV")
            title = f"{scan.start.name}: {name}, beam on"
            yield Array(f"{head}_spectrum_{name}", entry["values"], "counts", None, (axis,), title)
            title = f"{scan.start.name}: {name}, beam off"
            yield Array(f"{head}_spectrum_off_{name}", entry["beam_off"], "counts", None, (axis,), title)
        if scan.start.grid is None:
            continue
        yield from _maps(head, scan, maps(reducer, scan))
        placement = analysis.placement(scan)
        if isinstance(placement, Placement):
            yield from _profiles(head, scan, pictures.profiles(analysis, scan, placement))
        for (of, name), found in residuals.items():
            if of == number:
                entry = {"unit": "counts", "values": found.counts, "sigma": found.sigma}
                fitted = {
                    f"fit_{line}": {"unit": "counts", "values": counts, "sigma": sigma}
                    for line, (counts, sigma) in found.fitted.items()
                }
                yield from _maps(head, scan, {f"back_{name}": entry, **fitted})


def maps(reducer: IonBeamReducer, scan: ScanData) -> dict[str, Mapping[str, Any]]:
    """Return every map of a scan by its name: elements, charge, dose, live time, pile-up, local SoC."""
    analysis = reducer.last_analysis
    found: dict[str, Mapping[str, Any]] = dict(pictures.element_maps(analysis, scan))
    found |= pictures.exposure_maps(analysis, scan)
    placement = analysis.placement(scan)
    if isinstance(placement, Placement):
        local = pictures.local_soc(analysis, scan, placement)
        if local is not None:
            found["soc"] = local
    return found


def _maps(head: str, scan: ScanData, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Array]:
    place = pictures.axes(scan)
    ny, nx = place["shape"]
    axes = tuple(Axis(k, np.asarray(place[f"{k}_um"], np.float64), "um") for k in ("y", "x"))
    for name, entry in found.items():
        sigma = entry.get("sigma")
        yield Array(
            f"{head}_map_{name}",
            np.asarray(entry["values"]).reshape(ny, nx),
            entry["unit"],
            None if sigma is None else np.asarray(sigma).reshape(ny, nx),
            axes,
            f"{scan.start.name}: {name}",
        )


def _profiles(head: str, scan: ScanData, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Array]:
    for name, entry in found.items():
        axis = Axis("position", np.asarray(entry["position_um"], np.float64), "um")
        yield Array(
            f"{head}_profile_{name}", entry["values"], entry["unit"], entry["sigma"], (axis,),
            f"{scan.start.name}: {name} along the interface normal",
        )  # fmt: skip
