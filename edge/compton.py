"""Spectra per pixel of a Compton imaging run to S, lithium, Compton profile, peak and electron density.

Statistical errors are Poisson. Systematic ones come from three nuisances that all pixels share: gain, offset
and scattering angle. Each is moved by one sigma both ways through the whole estimate; with d+ and d- the
changes, sigma_sys^2 = sum of ((d+ - d-)/2)^2 + 3 ((d+ + d-)/2)^2, the mean square of a quadratic response to
a normal nuisance. Windows are centred again each time, so what remains is the error of their width. A pixel
has the relative sigma_sys of its region: moving windows over the few counts of one pixel would measure their
Poisson noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge.compton_fit import GaussLorentz, fit
from edge.compton_frames import EnergyBins
from edge.compton_lithium import Line, Stoichiometry, stoichiometry
from edge.compton_physics import (
    Pinhole,
    klein_nishina_cm2,
    relative_electron_density,
    scattered_energy_kev,
    window_edges_kev,
)
from edge.compton_profile import CORE, WINGS, Profile, SValues, profile, s_interval, s_of_sums, s_values
from edge.constants import ELECTRON_REST_KEV
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FIT_HALF_WIDTH_KEV = 8.0  # up to here no line of tungsten or lead (K-beta of lead: 84.9, 87.3 keV) is strong
EXACT_BELOW_COUNTS = 100.0  # core or wings: an exact interval is given beside sigma
MIN_PROFILE_COUNTS = 10
MIN_PEAK_SIGMAS = 3.0
CLEAR_SIGMA = (
    3.0  # of the wings: below, S of a pixel has no Gaussian error (one photon in a cut bin: none at all)
)
MAX_SHIFT_KEV = 1.0
SECANTS = 6
PROFILE_STEPS_AU = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Priors:
    """One-sigma errors of the nuisances, common to all pixels."""

    gain: float = 0.001  # relative
    offset_kev: float = 0.03
    angle_deg: float = 0.2


@dataclass(frozen=True)
class Setup:
    """Beam, geometry, errors, and the line from S to 1 - x if one is wanted."""

    energy_kev: float = 115.0
    pinhole: Pinhole = field(default_factory=Pinhole)
    priors: Priors = field(default_factory=Priors)
    line: Line | None = None
    attenuation: float = 1.0  # factor on the counts


@dataclass(frozen=True)
class Analysis:
    """What the spectra of one depth region say. Maps (ny, nx), NaN outside the mask."""

    setup: Setup
    bins: EnergyBins
    angles_rad: Floats
    mask: NDArray[np.bool_]
    spectrum: Ints  # sum over the mask
    map: SValues
    map_sigma_sys: Floats
    sums: Floats  # (5,) core, wings, their variances and covariance over the mask
    s: Estimate
    s_interval_95: tuple[float, float] | None  # at few counts
    budget: dict[str, float]  # sigma of s by nuisance
    shift: Estimate  # of the energy scale at the peak, found by centring; sigma_sys: its prior
    lithium_map: Stoichiometry | None
    lithium: Stoichiometry | None
    peak: GaussLorentz | None  # None: no counts, no convergence, or an area below 3 sigma
    peak_first_bin: int
    profile: Profile | None
    density: Floats
    density_sigma: Floats


def analyse(spectra: Ints, bins: EnergyBins, mask: NDArray[np.bool_], setup: Setup) -> Analysis:
    """Reduce spectra (ny, nx, bins); pixels outside ``mask`` are left out of sums and are NaN in maps.

    Raises:
        ValueError: if the mask is empty.
    """
    if not mask.any():
        raise ValueError("no pixel is left by mask and calibration")
    ny, nx = mask.shape
    angles = setup.pinhole.angles_rad(ny, nx)
    near = _near_peak(bins, setup, angles[mask])
    part = EnergyBins(bins.width_kev, near.stop - near.start, bins.low_kev + near.start * bins.width_kev)
    table = np.ascontiguousarray(spectra[:, :, near][mask])
    centred, budget = _with_nuisances(table, part, setup, angles[mask])
    values, summed = centred.values, centred.sums
    sys = math.sqrt(sum(part**2 for part in budget.values()))
    estimate = Estimate(centred.s, centred.sigma, sys, "1")
    map_sys = np.abs(values.s) * sys / max(abs(estimate.value), 1e-300)
    few = min(summed[0], summed[1]) < EXACT_BELOW_COUNTS and summed[0] + summed[1] > 0
    low, high = s_interval(summed[0], summed[1], 0.95)
    spectrum = np.zeros(bins.count, np.int64)
    for row, used in zip(spectra, mask, strict=True):  # no second copy of all spectra
        spectrum += row[used].sum(axis=0)
    peak, first = _peak(spectrum, bins, setup, float(angles[mask].mean()))
    found = None
    shifted = EnergyBins(part.width_kev, part.count, part.low_kev - centred.shift_kev)
    if summed[0] + summed[1] >= MIN_PROFILE_COUNTS:
        found = _profile(table, shifted, setup, angles[mask])
    clear = values.sums[:, 1] > CLEAR_SIGMA * np.sqrt(values.sums[:, 3])
    pixel_s, pixel_sigma, map_sys = (
        np.where(clear, part, np.nan) for part in (values.s, values.sigma, map_sys)
    )
    total = values.sums[:, 0] + values.sums[:, 1]
    spread = np.sqrt(values.sums[:, 2] + values.sums[:, 3] + 2.0 * values.sums[:, 4])
    weight = klein_nishina_cm2(setup.energy_kev, angles[mask]) * setup.pinhole.throughput(ny, nx)[mask]
    density, density_sigma = relative_electron_density(total, spread, weight)
    lithium_map = lithium = None
    if setup.line is not None:
        s_map, stat_map, sys_map = (_on(mask, part) for part in (pixel_s, pixel_sigma, map_sys))
        lithium_map = stoichiometry(s_map, stat_map, sys_map, setup.line)
        lithium = stoichiometry(estimate.value, estimate.sigma_stat, sys, setup.line)
    on_map = SValues(
        np.stack([_on(mask, values.sums[:, k]) for k in range(5)], axis=-1), _on(mask, pixel_s),
        _on(mask, pixel_sigma),
    )  # fmt: skip
    return Analysis(
        setup, bins, angles, mask, spectrum, on_map, _on(mask, map_sys), summed, estimate,
        (float(low), float(high)) if few else None, budget,
        Estimate(centred.shift_kev, centred.shift_sigma_kev, scale_sigma_kev(setup), "keV"),
        lithium_map, lithium, peak, first, found,
        _on(mask, density), _on(mask, density_sigma),
    )  # fmt: skip


def _near_peak(bins: EnergyBins, setup: Setup, angles: Floats) -> slice:
    """Return the bins that windows and profile can need: |p_z| < 9 a.u. and the largest shift."""
    ends = window_edges_kev(setup.energy_kev, angles, (-9.0, 9.0))
    low, high = float(ends.min()) - 2 * MAX_SHIFT_KEV, float(ends.max()) + 2 * MAX_SHIFT_KEV
    first = math.floor((low - bins.low_kev) / bins.width_kev)
    last = math.ceil((high - bins.low_kev) / bins.width_kev)
    start = min(max(first, 0), bins.count - 2)
    return slice(start, max(min(last, bins.count), start + 2))


@dataclass(frozen=True)
class Centred:
    """S of a region with its windows moved to where the data say that p_z = 0 is."""

    values: SValues  # per pixel
    sums: Floats  # (5,)
    s: float
    sigma: float
    shift_kev: float  # applied to the windows
    shift_sigma_kev: float


def centred_s(
    table: Ints,
    bins: EnergyBins,
    setup: Setup,
    angles: Floats,
    *,
    gain: float = 0.0,
    offset_kev: float = 0.0,
) -> Centred:
    """Return S of some pixels (pixels, bins) after centring.

    J(p_z) is even, so as many counts lie between -5 and 0 as between 0 and 5. The shift d of all windows that
    makes it so is found by secants; with n counts its error is 1 / (sqrt(n) |dA/dd|), A = (right - left) / n.
    It is combined with the prior of the scale at the peak, N(0, (gain E)^2 + offset^2 + (dE/dtheta angle)^2):
    few counts leave the windows where calibration and geometry put them. S is stationary at the centre, so
    neither the error of the shift nor a detector efficiency that falls by 1 % per keV moves it noticeably.
    """
    limits = window_edges_kev(setup.energy_kev, angles, (-5.0, -1.0, 1.0, 5.0))
    halves = window_edges_kev(setup.energy_kev, angles, (-6.0, -5.0, 0.0, 5.0))

    def moved(edges: Floats, shift: float) -> Floats:
        return np.asarray((edges - offset_kev + shift) / (1.0 + gain))

    def balance(shift: float) -> tuple[float, float]:
        sums = np.nansum(s_values(table, moved(halves, shift), bins).sums, axis=0)
        both = np.nansum(s_values(table, moved(limits, shift), bins).sums, axis=0)
        left, total = float(sums[CORE]), float(both[CORE] + both[WINGS])
        return ((total - 2.0 * left) / total if total > 0 else math.nan), total

    shift, sigma = _centre(balance, setup)
    values = s_values(table, moved(limits, shift), bins)
    summed = np.nansum(values.sums, axis=0)
    whole = s_of_sums(summed[None])
    return Centred(values, summed, float(whole.s[0]), float(whole.sigma[0]), shift, sigma)


def scale_sigma_kev(setup: Setup) -> float:
    """Return the prior error of the energy scale at the peak, keV."""
    angle = math.radians(setup.pinhole.angle_deg)
    peak = float(scattered_energy_kev(setup.energy_kev, angle))
    by_angle = peak**2 / ELECTRON_REST_KEV * math.sin(angle) * math.radians(setup.priors.angle_deg)
    return math.hypot(setup.priors.gain * peak, setup.priors.offset_kev, by_angle)


def _centre(balance: Callable[[float], tuple[float, float]], setup: Setup) -> tuple[float, float]:
    """Return the shift with its error: the prior's where the data say nothing."""
    prior, reach = scale_sigma_kev(setup), MAX_SHIFT_KEV * setup.energy_kev / 115.0
    low, high = 0.0, 0.15 * reach
    at_low, n = balance(low)
    at_high, _ = balance(high)
    if not n > 0 or not math.isfinite(at_high) or prior == 0.0:
        return 0.0, prior
    slope = (at_high - at_low) / (high - low)
    for _ in range(SECANTS):
        if slope >= 0.0:  # windows that move up have fewer counts on the right
            return 0.0, prior
        step = min(max(high - at_high / slope, -reach), reach)
        if abs(step - high) < 1e-4 * reach:
            break
        at_step, _ = balance(step)
        if not math.isfinite(at_step):
            return 0.0, prior
        slope, high, at_high = (at_step - at_high) / (step - high), step, at_step
    if slope >= 0.0:
        return 0.0, prior
    error = 1.0 / (math.sqrt(n) * abs(slope))
    weight = prior**2 / (prior**2 + error**2)
    return high * weight, math.sqrt(weight) * error


def _with_nuisances(
    table: Ints, bins: EnergyBins, setup: Setup, angles: Floats
) -> tuple[Centred, dict[str, float]]:
    """Return the centred S and the budget of the region: each nuisance moved, windows centred again."""
    best = centred_s(table, bins, setup, angles)
    p, tilt = setup.priors, math.radians(setup.priors.angle_deg)
    ends = {
        "gain": [centred_s(table, bins, setup, angles, gain=sign * p.gain).s for sign in (1, -1)],
        "offset": [
            centred_s(table, bins, setup, angles, offset_kev=sign * p.offset_kev).s for sign in (1, -1)
        ],
        "angle": [centred_s(table, bins, setup, angles + sign * tilt).s for sign in (1, -1)],
    }
    return best, {
        name: math.sqrt(((up - down) / 2) ** 2 + 3 * ((up + down) / 2 - best.s) ** 2)
        for name, (up, down) in ends.items()
    }


def _peak(spectrum: Ints, bins: EnergyBins, setup: Setup, angle: float) -> tuple[GaussLorentz | None, int]:
    """Fit the peak of the summed spectrum around the energy at the mean angle."""
    start = float(scattered_energy_kev(setup.energy_kev, angle))
    edges = bins.edges_kev()
    first = int(np.searchsorted(edges, start - FIT_HALF_WIDTH_KEV))
    last = int(np.searchsorted(edges, start + FIT_HALF_WIDTH_KEV)) - 1
    if first <= 0 or last - first < 8 or last >= bins.count or spectrum[first:last].sum() < 50:
        return None, 0
    middles = (edges[first:last] + edges[first + 1 : last + 1]) / 2.0
    try:
        found = fit(spectrum[first:last], middles, start_kev=start)
    except ValueError:
        return None, 0
    area = found.value("area")
    if not found.converged or area < MIN_PEAK_SIGMAS * found.sigma("area"):
        return None, 0
    return found, first


def _profile(table: Ints, bins: EnergyBins, setup: Setup, angles: Floats) -> Profile | None:
    """Return the profile on the finest of a few grids that the energy bins allow."""
    for width in PROFILE_STEPS_AU:
        try:
            return profile(table, setup.energy_kev, angles, bins, width_au=width)
        except ValueError:
            continue
    return None


def at_depth(setup: Setup, attenuation: float) -> Setup:
    """Return the setup with another factor on the counts."""
    return replace(setup, attenuation=attenuation)


def _on(mask: NDArray[np.bool_], values: Floats) -> Floats:
    out = np.full(mask.shape, np.nan)
    out[mask] = values
    return out
