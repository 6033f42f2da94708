"""What of each radiograph is kept for tables and figures, and the slopes of regions of known thickness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controller.offline.radiography_lithium import Lithium, lithium_at, lithium_of, transport_of
from controller.offline.radiography_run import Radiographs, State
from edge.isotopes import Diffusion
from edge.radiography_depth import Hardening, Line, RegionDepth, fit_hardening, straight_line
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """What of a state is kept for tables and figures (no images)."""

    state_file: str
    label: str
    n_frames: int
    dose: Estimate
    regions: tuple[RegionDepth, ...]
    regions_plain: tuple[RegionDepth, ...]
    lithium: Lithium | None  # of the profile
    region_lithium: tuple[Estimate, ...]  # 6Li per area (per volume with a path); empty without wavelength
    centre_px: Floats
    depth: Floats
    sigma_stat: Floats
    sigma_common: Floats
    masked: int
    diffusion: Diffusion | None


def summary(run: Radiographs, number: int) -> Summary:
    """Reduce one state and keep its numbers. Raises ValueError."""
    state: State = run.state(number)
    empty = np.zeros(0)
    along = state.profile
    lithium = lithium_of(run.options, along) if along is not None else None
    return Summary(
        state.path.name, state.label, state.n_frames, state.dose, state.regions, state.regions_plain, lithium,
        lithium_at(run.options, state.regions),
        along.centre_px if along else empty, along.depth if along else empty,
        along.sigma_stat if along else empty, along.sigma_common if along else empty,
        int(np.count_nonzero(np.isnan(state.sample.signal))),
        transport_of(run.options, along, lithium) if along is not None and lithium is not None else None,
    )  # fmt: skip


def thickness_groups(regions: Sequence[RegionDepth]) -> dict[str, list[RegionDepth]]:
    """Return the regions of known thickness by the first word of their names."""
    groups: dict[str, list[RegionDepth]] = {}
    for one in regions:
        if one.region.thickness_mm is not None:
            groups.setdefault(one.region.name.split()[0], []).append(one)
    return groups


def slopes(regions: Sequence[RegionDepth], medians: bool = False) -> dict[str, Line]:
    """Return -ln T per mm of each group with two or more thicknesses: of region sums, or of pixel medians."""
    found = {}
    for name, group in thickness_groups(regions).items():
        x = np.array([one.region.thickness_mm for one in group], np.float64)
        depths = [one.median_depth if medians else one.depth for one in group]
        y = np.array([one.value for one in depths])
        if np.unique(x).size > 1:
            line = straight_line(x, y, np.array([one.sigma_sys for one in depths]))
            d = x - x.mean()
            counting = float(np.linalg.norm(d * [one.sigma_stat for one in depths]) / (d @ d))
            found[name] = replace(line, slope_sigma=float(np.fmax(line.slope_sigma, counting)))
    return found


def hardening(regions: Sequence[RegionDepth]) -> Hardening | None:
    """Return the curve through zero of all known thicknesses, or None with fewer than three."""
    known = [one for one in regions if one.region.thickness_mm is not None]
    x = np.array([one.region.thickness_mm for one in known], np.float64)
    if np.unique(x).size < 3:
        return None
    return fit_hardening(x, np.array([one.depth.value for one in known]))
