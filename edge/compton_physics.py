"""Compton scattering: angle per pixel, momentum p_z, energies of a window, Klein-Nishina cross-section."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.constants import ELECTRON_REST_KEV

Floats = NDArray[np.float64]

INVERSE_FINE_STRUCTURE = 137.035999084  # CODATA 2018; mc in atomic units of momentum
CLASSICAL_RADIUS_CM = 2.8179403262e-13  # CODATA 2018
WINDOW_AU = (-5.0, -1.0, 1.0, 5.0)  # wings and core of S, Huang 2022 equations 8 and 9
DIRECTIONS = ("+x", "-x", "+y", "-y")


def scattered_energy_kev(energy_kev: float, angle_rad: ArrayLike) -> Floats:
    """Return the energy in keV after scattering at a free electron at rest, in the shape of ``angle_rad``.

    E2 = E1 / (1 + (E1 / mc^2)(1 - cos theta)).  Source: Compton, Phys. Rev. 21 (1923) 483.
    """
    angle = np.asarray(angle_rad, np.float64)
    return np.asarray(energy_kev / (1.0 + energy_kev / ELECTRON_REST_KEV * (1.0 - np.cos(angle))))


def momentum_au(energy_kev: float, scattered_kev: ArrayLike, angle_rad: ArrayLike) -> Floats:
    """Return the electron's momentum along the scattering vector, atomic units.

    p_z / mc = [E2 - E1 + (E1 E2 / mc^2)(1 - cos theta)] / sqrt(E1^2 + E2^2 - 2 E1 E2 cos theta), times
    137.036.

    Args:
        energy_kev: E1, of the beam.
        scattered_kev: E2, any shape.
        angle_rad: theta, broadcast against it.

    Source: Cooper, Rep. Prog. Phys. 48 (1985) 415; Huang 2022 equation 6, Huang 2024 equation 2.
    """
    e1, e2 = energy_kev, np.asarray(scattered_kev, np.float64)
    cosine = np.cos(np.asarray(angle_rad, np.float64))
    shift = e2 - e1 + e1 * e2 / ELECTRON_REST_KEV * (1.0 - cosine)
    return np.asarray(INVERSE_FINE_STRUCTURE * shift / np.sqrt(e1 * e1 + e2 * e2 - 2.0 * e1 * e2 * cosine))


def energy_of_momentum_kev(energy_kev: float, momentum: ArrayLike, angle_rad: ArrayLike) -> Floats:
    """Return E2 in keV for a momentum in atomic units: the inverse of ``momentum_au``, in closed form.

    With a = 1 + (E1/mc^2)(1 - cos theta), q = p_z/mc, b = a - q^2 cos theta:
    E2 = E1 [b + sign(q) sqrt(b^2 - (a^2 - q^2)(1 - q^2))] / (a^2 - q^2).  NaN where no energy belongs to it.
    """
    cosine = np.cos(np.asarray(angle_rad, np.float64))
    q = np.asarray(momentum, np.float64) / INVERSE_FINE_STRUCTURE
    a = 1.0 + energy_kev / ELECTRON_REST_KEV * (1.0 - cosine)
    b, under = a - q * q * cosine, a * a - q * q
    with np.errstate(invalid="ignore"):
        root = np.sqrt(b * b - under * (1.0 - q * q))
    return np.asarray(energy_kev * (b + np.sign(q) * root) / under)


def klein_nishina_cm2(energy_kev: float, angle_rad: ArrayLike) -> Floats:
    """Return the differential cross-section per electron and steradian, unpolarised photons.

    d sigma / d Omega = (r_e^2 / 2) (E2/E1)^2 (E2/E1 + E1/E2 - sin^2 theta), cm^2/sr.

    A synchrotron beam is polarised; at 90 degrees in the plane of polarisation the Thomson part vanishes. Use
    ``polarised_klein_nishina_cm2`` where the polarisation is known.  Source: Klein and Nishina, Z. Phys. 52
    (1929) 853.
    """
    ratio = scattered_energy_kev(energy_kev, angle_rad) / energy_kev
    sine = np.sin(np.asarray(angle_rad, np.float64))
    return np.asarray(0.5 * CLASSICAL_RADIUS_CM**2 * ratio**2 * (ratio + 1.0 / ratio - sine**2))


def polarised_klein_nishina_cm2(
    energy_kev: float, angle_rad: ArrayLike, azimuth_rad: ArrayLike, degree: float = 1.0
) -> Floats:
    """Return the same for a polarised beam.

    ``degree`` of polarisation in a plane at ``azimuth_rad`` to the scattering plane:

    (r_e^2 / 2) (E2/E1)^2 (E2/E1 + E1/E2 - sin^2 theta (1 + degree cos 2 phi)).  With degree 1 this is the
    textbook 1 - 2 sin^2 theta cos^2 phi form.  Source: Heitler, The Quantum Theory of Radiation (1954),
    section 22.
    """
    ratio = scattered_energy_kev(energy_kev, angle_rad) / energy_kev
    sine = np.sin(np.asarray(angle_rad, np.float64))
    plane = 1.0 + degree * np.cos(2.0 * np.asarray(azimuth_rad, np.float64))
    return np.asarray(0.5 * CLASSICAL_RADIUS_CM**2 * ratio**2 * (ratio + 1.0 / ratio - sine**2 * plane))


@dataclass(frozen=True)
class Pinhole:
    """Sheet of beam, pinhole above it, detector behind the pinhole; lengths in mm.

    The image is inverted: a pixel at (u, v) from the middle of the detector looks at (-u, -v) x
    sheet/detector distance on the sheet. ``beam`` is the direction of the beam in the image as recorded
    ("+x": towards higher columns, "+y": towards higher rows). ``angle_deg`` is between the beam and the axis
    pinhole-detector; the axis stands on the sheet.
    """

    angle_deg: float = 90.0
    sheet_mm: float = 160.0
    detector_mm: float = 150.0
    pitch_mm: float = 0.25
    beam: str = "+x"
    hole_mm: float = 0.2
    plate_mm: float = 2.0

    def __post_init__(self) -> None:
        """Refuse a geometry without meaning."""
        if not 1.0 <= self.angle_deg <= 179.0:
            raise ValueError(f"a scattering angle of {self.angle_deg:g} deg: 1 to 179 deg wanted")
        if min(self.sheet_mm, self.detector_mm, self.pitch_mm) <= 0.0:
            raise ValueError("distances and pitch of the pinhole geometry must be positive")
        if self.beam not in DIRECTIONS:
            raise ValueError(f"beam direction {self.beam!r} is not one of {', '.join(DIRECTIONS)}")

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel projected on the sheet: 0.267 mm for the published geometry."""
        return self.pitch_mm * self.sheet_mm / self.detector_mm

    def offsets_mm(self, ny: int, nx: int) -> tuple[Floats, Floats]:
        """Return (y, x) on the detector of the pixel middles, from the axis, as image directions."""
        y = (np.arange(ny) - (ny - 1) / 2.0) * self.pitch_mm
        x = (np.arange(nx) - (nx - 1) / 2.0) * self.pitch_mm
        yy, xx = np.meshgrid(y, x, indexing="ij")
        return yy, xx

    def angles_rad(self, ny: int, nx: int) -> Floats:
        """Return the scattering angle per pixel, shape (ny, nx).

        The photon flies from the sheet through the hole to the pixel, parallel to (u along the beam, v
        across, detector distance); cos theta = (u sin alpha + d cos alpha) / sqrt(u^2 + v^2 + d^2), alpha the
        angle on the axis. At 150 mm, 10 mm off the axis is 3.8 deg or 1.3 atomic units of p_z: more than the
        core window of S, so one angle for all pixels will not do.
        """
        y, x = self.offsets_mm(ny, nx)
        along = {"+x": x, "-x": -x, "+y": y, "-y": -y}[self.beam]
        alpha = math.radians(self.angle_deg)
        length = np.sqrt(x * x + y * y + self.detector_mm**2)
        return np.asarray(np.arccos((along * math.sin(alpha) + self.detector_mm * math.cos(alpha)) / length))

    def throughput(self, ny: int, nx: int) -> Floats:
        """Return the relative solid angle per pixel (1 on the axis): cos^3 psi times open part of the hole.

        cos^3: an area A at distance h / cos psi seen under psi. Open part of a cylindrical hole of diameter D
        in a plate t: (2/pi)(acos s - s sqrt(1 - s^2)), s = t tan psi / D. Edges are taken as opaque.
        """
        y, x = self.offsets_mm(ny, nx)
        tangent = np.hypot(x, y) / self.detector_mm
        cosine = 1.0 / np.sqrt(1.0 + tangent**2)
        s = np.minimum(self.plate_mm * tangent / self.hole_mm, 1.0)
        return np.asarray(cosine**3 * 2.0 / math.pi * (np.arccos(s) - s * np.sqrt(1.0 - s * s)))


def window_edges_kev(
    energy_kev: float, angles_rad: Floats, window_au: tuple[float, ...] = WINDOW_AU
) -> Floats:
    """Return the energies of the window limits per pixel, ascending, shape (..., len(window_au))."""
    return energy_of_momentum_kev(energy_kev, np.asarray(window_au), angles_rad[..., None])


def relative_electron_density(
    counts: ArrayLike, sigma: ArrayLike, weight: ArrayLike
) -> tuple[Floats, Floats]:
    """Return counts / weight and its error, scaled to a mean of 1 over the finite pixels.

    dN = phi t1 t2 rho_e dV (d sigma / d Omega) (Huang 2022 equation 5): with one flux, absorption and volume,
    the electron density is the count divided by cross-section and throughput, which ``weight`` holds. NaN
    where the weight is not positive. The error of the mean is left out (below 1/sqrt(pixels) of a pixel's).
    """
    n, s, w = (np.asarray(a, np.float64) for a in (counts, sigma, weight))
    safe = np.where(w > 0, w, np.nan)
    value = n / safe
    mean = float(np.nanmean(value)) if np.isfinite(value).any() else 0.0
    if mean <= 0.0:
        return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    return np.asarray(value / mean), np.asarray(s / safe / mean)
