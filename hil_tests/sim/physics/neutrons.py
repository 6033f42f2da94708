"""Neutron radiographs of the bench's cell, seen edge on: transmission by its lithium-6, counts by chance.

The layers lie across the rows of the image as they lie in the scan of the beam, between two strips of open
beam. What absorbs is lithium-6 alone: exp(-sigma n path), sigma = 940 b at 1.798 Angstrom after 1/v (Sears,
Neutron News 3 (1992) 26), n the density of the sample's lithium, 7.6 % of it lithium-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil_tests.sim.physics.sample import Sample

Floats = NDArray[np.float64]
BARN_CM2 = 1e-24
LITHIUM6_BARN, AT_ANGSTROM = 940.0, 1.798
LITHIUM6_SHARE = 0.0759  # of natural lithium
DEFAULTS: dict[str, float] = {
    "rows": 160, "columns": 256, "margin": 64, "path_cm": 0.5, "wavelength_angstrom": 1.798,
    "neutrons_per_s": 100.0, "adu_per_neutron": 20.0, "dark_adu": 100.0, "read_adu": 3.0, "exposure_s": 2.0,
}  # fmt: skip


class Radiograph:
    """Draws images. ``settings``: see DEFAULTS; neutrons per pixel of the open beam."""

    def __init__(self, sample: Sample, rng: np.random.Generator, settings: Mapping[str, float]) -> None:
        self.settings = {**DEFAULTS, **settings}
        self._sample, self._rng = sample, rng
        rows, columns = int(self.settings["rows"]), int(self.settings["columns"])
        self._inside = slice(int(self.settings["margin"]), columns - int(self.settings["margin"]))
        geometry, width = sample.geometry, self._inside.stop - self._inside.start
        x_um = geometry.field_width_um * ((np.arange(width) + 0.5) / width - 0.5)
        y_um = geometry.field_height_um * ((np.arange(rows) + 0.5) / rows - 0.5)
        grid = np.meshgrid(x_um, y_um)
        self._x_um, self._y_um = grid[0].ravel(), grid[1].ravel()
        y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
        self._beam: Floats = 1.0 - 0.1 * x**2 - 0.05 * y**2  # brighter in the middle

    def lithium6_per_cm2(self) -> Floats:
        """Return atoms of lithium-6 per area along the beam, (rows, columns inside)."""
        lithium = self._sample.lithium_per_cm3(self._x_um, self._y_um)
        areal = LITHIUM6_SHARE * self.settings["path_cm"] * lithium
        return np.asarray(areal.reshape(self._beam.shape[0], -1))

    def transmission(self) -> Floats:
        """Return what passes, (rows, columns)."""
        barn = LITHIUM6_BARN * self.settings["wavelength_angstrom"] / AT_ANGSTROM
        passed = np.ones(self._beam.shape)
        passed[:, self._inside] = np.exp(-barn * BARN_CM2 * self.lithium6_per_cm2())
        return passed

    def image(self, open_s: float, *, sample_in: bool) -> NDArray[np.uint16]:
        """Return one image, ADU; the shutter was open for ``open_s`` of it."""
        s = self.settings
        mean = s["neutrons_per_s"] * open_s * self._beam
        if sample_in and open_s > 0.0:
            mean = mean * self.transmission()
        counts = self._rng.poisson(mean)
        noise = self._rng.normal(s["dark_adu"], s["read_adu"], counts.shape)
        return np.clip(np.rint(s["adu_per_neutron"] * counts + noise), 0, 65535).astype(np.uint16)

    def truth(self) -> dict[str, Any]:
        """Return lithium-6 per area of each layer, by the rows that lie well inside it."""
        areal = self.lithium6_per_cm2().mean(axis=1)
        rows, geometry = areal.size, self._sample.geometry
        per_row = geometry.field_height_um / rows
        tilt_um = abs(math.tan(math.radians(geometry.tilt_deg))) * geometry.field_width_um / 2.0
        spare_um = tilt_um + geometry.waviness_um + 3.0 * geometry.edge_um + geometry.drift_um
        told: dict[str, Any] = {}
        for layer in self._sample.layers:
            low_um = max(layer.low_um + spare_um, -geometry.field_height_um / 2.0)
            high_um = min(layer.high_um - spare_um, geometry.field_height_um / 2.0)
            first = math.ceil((low_um + geometry.field_height_um / 2.0) / per_row)
            last = math.floor((high_um + geometry.field_height_um / 2.0) / per_row)
            if last > first:
                told[layer.name] = {
                    "rows": [first, last], "lithium6_per_cm2": float(areal[first:last].mean())
                }  # fmt: skip
        return told
