"""The cut face of the cell as the beam sees it: layers, islands, tilt, drift, and lithium counted in atoms.

The y axis of the scan is the interface normal but for ``tilt_deg``; micrometres from the centre of the scan;
metal at low y, separator in the middle, host at high y. A place of the face is described by *phases*: how
much of the spot lies on each material (spot size, roughness, islands; domains side by side, never mixed in
depth), and by how much of the host's lithium is left there.

Lithium moves in atoms and none is lost: what leaves the host is found as metal in the separator, thickest at
the anode and fading with ``plating_depth_um``, because the metal pushes through the polymer. (A host that is
filled beyond the as-prepared state takes its lithium from the metal behind the field.) Islands and inclusions
have no contact to the cell and keep their lithium.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hil_tests.sim.physics.stopping import ELEMENTARY_CHARGE_COULOMB

Floats = npt.NDArray[np.float64]

UM_PER_CM = 1e4
MILLIMETRE_UM = 1000.0
DELTA_X = 0.5  # host lithium per host atom that the cell's capacity stands for
SHARPNESS = 1.702 / 2.0  # tanh(0.851 z) follows the error function of a Gaussian edge within 1 %


@dataclass(frozen=True)
class Material:
    """Atoms per cm3 of each element; lithium here is what does not move."""

    name: str
    per_cm3: Mapping[str, float]


@dataclass(frozen=True)
class Layer:
    """One layer between ``low_um`` and ``high_um`` along the interface normal.

    Args:
        name: as in the experiment file.
        kind: metal, separator or host.
        material: of which it consists (a host: without its mobile lithium).
        low_um: lower border.
        high_um: upper border.
        host_element: the element that counts the places for mobile lithium, for a host.
        lithium_per_host: mobile lithium atoms per ``host_element`` atom when the cell is as prepared.
        gradient: charging takes 1 + gradient times the mean at the lower border, 1 - gradient at the upper.
    """

    name: str
    kind: str
    material: str
    low_um: float
    high_um: float
    host_element: str = ""
    lithium_per_host: float = 0.0
    gradient: float = 0.0


@dataclass(frozen=True)
class Island:
    """A patch of another material: centre and half axes in the coordinates of the undrifted sample."""

    material: str
    x_um: float
    y_um: float
    radius_x_um: float
    radius_y_um: float
    lithium_per_host: float = 0.0  # of a host material: what it keeps


@dataclass(frozen=True)
class Geometry:
    """How the layers lie in the scan."""

    tilt_deg: float = 0.0
    edge_um: float = 1.0  # one sigma of an interface: beam spot and roughness
    waviness_um: float = 0.0
    field_width_um: float = 100.0
    field_height_um: float = 300.0
    drift_um: float = 0.0  # the soft cell creeps so far ...
    drift_s: float = 900.0  # ... in about this time ...
    drift_above_k: float = 313.0  # ... while it is warmer than this
    plating_depth_um: float = 20.0


@dataclass(frozen=True)
class Place:
    """What lies under the beam at N places: share of each phase (N, phases) and host lithium left (N,)."""

    share: Floats
    lithium_left: Floats = field(default_factory=lambda: np.zeros(0))


class Sample:
    """The layers and what has become of them. Phases are ``phases``: the host comes first."""

    def __init__(
        self,
        materials: Sequence[Material],
        layers: Sequence[Layer],
        islands: Sequence[Island],
        geometry: Geometry,
        *,
        capacity_coulomb: float,
        rng: np.random.Generator,
    ) -> None:
        self.materials = {material.name: material for material in materials}
        self.layers = sorted(layers, key=lambda layer: layer.low_um)
        self.islands = list(islands)
        self.geometry = geometry
        self.host = next(layer for layer in self.layers if layer.kind == "host")
        self.metal = next(layer for layer in self.layers if layer.kind == "metal")
        self.separator = next(layer for layer in self.layers if layer.kind == "separator")
        self.drift_um = 0.0
        self.atoms_out = 0.0
        self.phases = self._phases()
        host_per_cm3 = self.materials[self.host.material].per_cm3[self.host.host_element]
        self.sites_per_um2 = host_per_cm3 / UM_PER_CM**3 * (self.host.high_um - self.host.low_um)
        sites = capacity_coulomb / ELEMENTARY_CHARGE_COULOMB / DELTA_X
        self.area_um2 = sites / self.sites_per_um2
        self._waves = _waves(len(self.layers), geometry, rng)
        self._borders = np.array([layer.low_um for layer in self.layers] + [self.layers[-1].high_um])

    # --- time -----------------------------------------------------------------------------------------------

    def process(self, dt_s: float, *, atoms_out: float, temperature_k: float) -> None:
        """Let time pass: lithium follows the atoms that have left the host, a warm cell creeps."""
        if dt_s < 0.0:
            raise ValueError(f"dt_s must not be negative, got {dt_s}")
        self.atoms_out = atoms_out
        if temperature_k > self.geometry.drift_above_k:
            left = self.geometry.drift_um - self.drift_um
            self.drift_um += left * -math.expm1(-dt_s / self.geometry.drift_s)

    # --- what the beam sees ---------------------------------------------------------------------------------

    def at(self, x_um: Floats, y_um: Floats) -> Place:
        """Return the phases at places of the scan."""
        x, normal = self._to_sample(np.asarray(x_um, float), np.asarray(y_um, float))
        inside = self._layer_shares(x, normal)
        share = np.zeros((x.size, len(self.phases)))
        for column, layer in enumerate(self.layers):
            share[:, self._phase_of_layer(layer)] += inside[:, column]
        plated = self._plated(normal) * inside[:, self.layers.index(self.separator)]
        share[:, self._phase_of_layer(self.separator)] -= plated
        share[:, self._phase_of_layer(self.metal)] += plated
        for number, island in enumerate(self.islands):
            cover = _ellipse(x, normal, island, self.geometry.edge_um)
            share *= 1.0 - cover[:, None]
            share[:, len(self.phases) - len(self.islands) + number] += cover
        return Place(share, self._lithium_left(normal))

    def lithium_per_cm3(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return all lithium at places of the scan, atoms per cm3 (N,)."""
        return self._densities(self.at(x_um, y_um))["Li"]

    def mobile_per_cm3(self, left: float) -> float:
        """Return the mobile lithium of the host, atoms per cm3, when ``left`` of it is left."""
        host = self.materials[self.host.material].per_cm3[self.host.host_element]
        return host * self.host.lithium_per_host * left

    # --- truth ----------------------------------------------------------------------------------------------

    def truth(self) -> dict[str, Any]:
        """Return atoms per layer, in the scanned field and over the whole thickness; no x and no SoC."""
        return {
            "cell_area_um2": self.area_um2,
            "field_um": [self.geometry.field_width_um, self.geometry.field_height_um],
            "drift_um": self.drift_um,
            "tilt_deg": self.geometry.tilt_deg,
            "interfaces_um": {f"{low.name}/{high.name}": high.low_um for low, high in pairwise(self.layers)},
            "lithium_atoms_moved": self.atoms_out,
            "layers": {layer.name: self._layer_truth(layer) for layer in self.layers},
        }

    def _layer_truth(self, layer: Layer) -> dict[str, Any]:
        now = self.atoms_out
        try:
            after = self._atoms(layer)
            self.atoms_out = 0.0
            before = self._atoms(layer)
        finally:
            self.atoms_out = now
        area_um2 = self.geometry.field_width_um * MILLIMETRE_UM
        whole = layer.high_um - layer.low_um
        seen = min(layer.high_um, self._seen(1)) - max(layer.low_um, self._seen(-1))
        return {
            "kind": layer.kind,
            "unit": "atoms per um2 of interface",
            "thickness_um": whole,
            "thickness_in_field_um": max(seen, 0.0),
            "as_prepared": {element: n / area_um2 for element, n in before["whole"].items()},
            "now": {element: n / area_um2 for element, n in after["whole"].items()},
            "in_field_as_prepared": {element: n / area_um2 for element, n in before["field"].items()},
            "in_field_now": {element: n / area_um2 for element, n in after["field"].items()},
        }

    def _atoms(self, layer: Layer) -> dict[str, dict[str, float]]:
        """Count atoms of a layer by adding up small cells; the field is a millimetre deep."""
        g = self.geometry
        x = (np.arange(40) + 0.5) / 40 * g.field_width_um - g.field_width_um / 2
        step = (layer.high_um - layer.low_um) / 800
        normal = layer.low_um + (np.arange(800) + 0.5) * step
        grid_x, grid_n = (grid.ravel() for grid in np.meshgrid(x, normal, indexing="ij"))
        place = self._of_layer(layer, grid_x, grid_n)
        scan_y = (grid_n + self.drift_um) * self._cos + grid_x * self._sin
        in_field = np.abs(scan_y) <= g.field_height_um / 2
        volume_cm3 = g.field_width_um / 40 * step * MILLIMETRE_UM / UM_PER_CM**3
        result: dict[str, dict[str, float]] = {"whole": {}, "field": {}}
        for element, density in self._densities(place).items():
            result["whole"][element] = float(density.sum()) * volume_cm3
            result["field"][element] = float(density[in_field].sum()) * volume_cm3
        return result

    def _of_layer(self, layer: Layer, x: Floats, normal: Floats) -> Place:
        """As ``at``, with sharp borders: every place belongs to ``layer``."""
        share = np.zeros((x.size, len(self.phases)))
        share[:, self._phase_of_layer(layer)] = 1.0
        if layer is self.separator:
            plated = self._plated(normal)
            share[:, self._phase_of_layer(layer)] -= plated
            share[:, self._phase_of_layer(self.metal)] += plated
        for number, island in enumerate(self.islands):
            cover = _ellipse(x, normal, island, self.geometry.edge_um)
            share *= 1.0 - cover[:, None]
            share[:, len(self.phases) - len(self.islands) + number] += cover
        return Place(share, self._lithium_left(normal))

    def _densities(self, place: Place) -> dict[str, Floats]:
        densities: dict[str, Floats] = {}
        for column, (name, kept) in enumerate(self.phases):
            for element, per_cm3 in self.materials[name].per_cm3.items():
                densities[element] = densities.get(element, 0.0) + place.share[:, column] * per_cm3
            mobile = self.mobile_per_cm3(1.0) * place.lithium_left if column == 0 else kept
            densities["Li"] = densities.get("Li", 0.0) + place.share[:, column] * mobile
        return densities

    # --- inside ---------------------------------------------------------------------------------------------

    @property
    def _sin(self) -> float:
        return math.sin(math.radians(self.geometry.tilt_deg))

    @property
    def _cos(self) -> float:
        return math.cos(math.radians(self.geometry.tilt_deg))

    def _phases(self) -> list[tuple[str, float]]:
        """Material and lithium kept (atoms per cm3): the host, the other layers' materials, the islands."""
        phases = [(self.host.material, 0.0)]
        for layer in self.layers:
            if layer is not self.host and (layer.material, 0.0) not in phases[1:]:
                phases.append((layer.material, 0.0))
        for island in self.islands:
            sites = self.materials[island.material].per_cm3.get(self.host.host_element, 0.0)
            phases.append((island.material, sites * island.lithium_per_host))
        return phases

    def _phase_of_layer(self, layer: Layer) -> int:
        return 0 if layer is self.host else self.phases.index((layer.material, 0.0), 1)

    def _to_sample(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return x * self._cos + y * self._sin, y * self._cos - x * self._sin - self.drift_um

    def _seen(self, side: int) -> float:
        return side * self.geometry.field_height_um / 2 - self.drift_um

    def _layer_shares(self, x: Floats, normal: Floats) -> Floats:
        """Share of each layer, (N, layers): nothing lies below the first or above the last."""
        shift = np.zeros((x.size, len(self.layers) + 1))
        shift[:, 1:-1] = self._waves_at(x)
        z = (normal[:, None] - self._borders[None, :] - shift) / self.geometry.edge_um
        above = 0.5 * (1.0 + np.tanh(SHARPNESS * z))
        shares: Floats = above[:, :-1] - above[:, 1:]
        return shares

    def _waves_at(self, x: Floats) -> Floats:
        amplitude, number, phase = self._waves
        waves: Floats = (amplitude * np.sin(x[:, None, None] * number + phase)).sum(axis=2)
        return waves

    def _lithium_left(self, normal: Floats) -> Floats:
        """Fraction of the host's mobile lithium that is left, which may exceed one; 1 when nothing moved."""
        host = self.host
        mean = self.atoms_out / (self.sites_per_um2 * self.area_um2 * host.lithium_per_host)
        depth = np.clip((normal - host.low_um) / (host.high_um - host.low_um), 0.0, 1.0)
        left: Floats = 1.0 - mean * (1.0 + host.gradient * (1.0 - 2.0 * depth))
        return left

    def _plated(self, normal: Floats) -> Floats:
        """Share of the spot on plated metal in the separator; what it holds more than the polymer moved."""
        if self.atoms_out <= 0.0:
            return np.zeros_like(normal)
        depth_um = self.geometry.plating_depth_um
        thickness = self.separator.high_um - self.separator.low_um
        gained_per_cm3 = self.materials[self.metal.material].per_cm3["Li"]
        gained_per_cm3 -= self.materials[self.separator.material].per_cm3.get("Li", 0.0)
        column_um = self.atoms_out / self.area_um2 / gained_per_cm3 * UM_PER_CM**3
        norm = depth_um * -math.expm1(-thickness / depth_um)
        distance = np.clip(normal - self.separator.low_um, 0.0, thickness)
        plated: Floats = column_um / norm * np.exp(-distance / depth_um)
        return plated


def _waves(layers: int, geometry: Geometry, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Three sine waves for each inner border: amplitude, wave number and phase, each (borders, 3)."""
    shape = (layers - 1, 3)
    amplitude = geometry.waviness_um / math.sqrt(3.0) * rng.uniform(0.5, 1.5, shape)
    number = 2.0 * math.pi / rng.uniform(30.0, 150.0, shape)
    return amplitude, number, rng.uniform(0.0, 2.0 * math.pi, shape)


def _ellipse(x: Floats, normal: Floats, island: Island, edge_um: float) -> Floats:
    """Cover of an island: 1 inside, 0 outside, an edge of ``edge_um`` between."""
    r = np.hypot((x - island.x_um) / island.radius_x_um, (normal - island.y_um) / island.radius_y_um)
    size_um = math.sqrt(island.radius_x_um * island.radius_y_um)
    cover: Floats = 0.5 * (1.0 - np.tanh(SHARPNESS * (r - 1.0) * size_um / edge_um))
    return cover
