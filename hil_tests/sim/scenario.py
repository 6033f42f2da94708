"""A scenario file as physics: the sample, the cell, the holder, the beam and the photons of both detectors.

Every number of the bench that a laboratory would call a property of the experiment stands in
``scenarios/<name>.toml``; unknown keys are refused, so that a misspelt one cannot pass unnoticed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hil_tests.sim.physics import components
from hil_tests.sim.physics.beam import Beam, BeamParameters
from hil_tests.sim.physics.cell import Cell, CellParameters
from hil_tests.sim.physics.dummy import CellOrDummy
from hil_tests.sim.physics.holder import Holder, HolderParameters
from hil_tests.sim.physics.photons import ELECTRONICS, Activation, Photons
from hil_tests.sim.physics.sample import Geometry, Island, Layer, Material, Sample
from hil_tests.sim.physics.yields import beryllium_yield, lithium_yield

FOLDER = Path(__file__).parent / "scenarios"
DETECTORS = ("pixe", "pige")
TABLES = {
    *("name", "title", "seed"),
    *("beam", "rates", "electronics", "geometry", "layer", "island", "material", "cell", "holder", "hexitec"),
}
BEAM_KEYS = {"current_a", "wander", "wander_s", "monitor_noise", "monitor_zero_a"}


@dataclass
class World:
    """Everything that is physics, connected."""

    name: str
    title: str
    seed: int
    file: Mapping[str, Any]
    holder: Holder
    cell: Cell
    sample: Sample
    beam: Beam
    photons: dict[str, Photons]

    @property
    def energy_mev(self) -> float:
        """Energy of the protons behind the foil."""
        return _energy_mev(self.file)

    def truth(self) -> dict[str, Any]:
        """Return atoms, coulombs and counts; nothing that has to be derived from them."""
        charge = self.cell.charge
        return {
            "sample": self.sample.truth(),
            "charge_coulomb": {
                "terminals": charge.terminals,
                "passed_charge": charge.passed_charge,
                "passed_discharge": charge.passed_discharge,
                "lithium": charge.lithium,
                "leak": charge.leak,
                "side": charge.side,
            },
            "beam": {
                "charge_coulomb": self.beam.charge_coulomb,
                "protons": self.beam.protons(),
                "on_sample_s": self.beam.on_sample_s,
            },
            "photons": {name: _counted(photons) for name, photons in self.photons.items()},
            "temperature_k": {"cell": self.holder.cell_k, "plate": self.holder.plate_k},
        }


def read(name_or_file: str) -> dict[str, Any]:
    """Read a scenario: the name of a built-in one, or a file.

    Raises:
        ValueError: there is none of that name, or the file has a table it must not have.
    """
    path = FOLDER / f"{name_or_file}.toml"
    if not path.exists():
        path = Path(name_or_file)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise ValueError(f"no scenario {name_or_file!r}; built in: {known}; or give a file")
    file = tomllib.loads(path.read_text(encoding="utf-8"))
    if unknown := set(file) - TABLES:
        raise ValueError(f"{path}: unknown: {', '.join(sorted(unknown))}")
    return file


def build(file: Mapping[str, Any], *, seed: int | None = None, factor: float = 1.0) -> World:
    """Build the physics of a scenario.

    Args:
        file: as ``read`` returns it.
        seed: of every random number; default the scenario's own.
        factor: multiplies the photon rates.
    """
    seed = int(file["seed"]) if seed is None else seed
    streams = [np.random.default_rng([seed, number]) for number in range(4)]
    holder = Holder(HolderParameters(**file.get("holder", {})))
    cell = CellOrDummy(CellParameters(**file.get("cell", {})), temperature_k=lambda: holder.cell_k)
    sample = _sample(file, cell.parameters, streams[0])
    beam = Beam(
        BeamParameters(**{key: value for key, value in file["beam"].items() if key in BEAM_KEYS}),
        streams[1],
        DETECTORS,
    )
    energy_mev = _energy_mev(file)
    rates = file["rates"]
    spectra = {
        "pixe": components.pixe(sample, rates, energy_mev),
        "pige": components.pige(sample, rates, energy_mev, file["beam"]["lithium_line"]),
    }
    prepared = {**sample.materials[sample.host.material].per_cm3, "Li": sample.mobile_per_cm3(1.0)}
    per_lithium = beryllium_yield(prepared, energy_mev) / lithium_yield(prepared, energy_mev)
    photons = {}
    for number, name in enumerate(DETECTORS):
        kind = file["electronics"][name]["detector"]
        photons[name] = Photons(
            name, beam, sample, spectra[name], ELECTRONICS[kind], streams[2 + number],
            factor=factor,
            activation=Activation(per_lithium, float(rates["be7_before"])) if name == "pige" else None,
        )  # fmt: skip
    return World(str(file["name"]), str(file["title"]), seed, file, holder, cell, sample, beam, photons)


def _sample(file: Mapping[str, Any], cell: CellParameters, rng: np.random.Generator) -> Sample:
    layers = [Layer(**entry) for entry in file["layer"]]
    host = next(layer for layer in layers if layer.kind == "host")
    if host.lithium_per_host != cell.start_x:
        raise ValueError(
            f"the host has {host.lithium_per_host} lithium per {host.host_element}, "
            f"the cell starts at {cell.start_x}"
        )
    return Sample(
        [Material(name, per_cm3) for name, per_cm3 in file["material"].items()],
        layers,
        [Island(**entry) for entry in file.get("island", [])],
        Geometry(**file["geometry"]),
        capacity_coulomb=cell.capacity_coulomb,
        rng=rng,
    )


def _energy_mev(file: Mapping[str, Any]) -> float:
    return float(file["beam"]["energy_mev"]) - float(file["beam"]["foil_loss_mev"])


def _counted(photons: Photons) -> dict[str, Any]:
    tally = photons.tally
    drawn = {name: int(count) for name, count in zip(photons.components.names, tally.components, strict=True)}
    return {"drawn": drawn, "fast": tally.fast, "slow": tally.slow}
