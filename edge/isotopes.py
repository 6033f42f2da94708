"""Lithium isotopes: neutron cross-sections, contents of a cell, Faraday's law, diffusion against migration.

The natural share of 6Li is one constant, ``constants.LITHIUM6_NATURAL_FRACTION`` (7.59 %), everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.constants import (
    AVOGADRO_PER_MOL,
    ELEMENTARY_CHARGE_COULOMB,
    FARADAY_COULOMB_PER_MOL,
    LITHIUM6_NATURAL_FRACTION,
)
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]

CM2_PER_BARN: Final = 1e-24
THERMAL_WAVELENGTH_ANGSTROM: Final = 1.798  # neutron of 2200 m/s, Sears 1992
LITHIUM6_ABSORPTION_BARN: Final = 940.0  # at 2200 m/s; Sears, Neutron News 3 (1992) 26
LITHIUM6_ABSORPTION_SIGMA_BARN: Final = 4.0  # same
LITHIUM7_ABSORPTION_BARN: Final = 0.0454  # same
LITHIUM6_MASS_G_MOL: Final = 6.0151228874  # AME 2020
LITHIUM7_MASS_G_MOL: Final = 7.0160034366  # AME 2020
BOLTZMANN_J_K: Final = 1.380649e-23  # exact, SI 2019
NEUTRON_THERMAL_ANGSTROM_SQRT_K: Final = 30.81  # h / sqrt(2 m k), in Angstrom K^0.5 (CODATA 2018)


def lithium6_cross_section(wavelength_angstrom: ArrayLike) -> tuple[Floats, Floats]:
    """Return the absorption cross-section of 6Li and its one-sigma error, both in cm2.

    sigma = 940(4) b x lambda / 1.798 A: the 1/v law, good to 0.1 % from 0.3 to 20 A (no resonance below
    200 keV).

    Args:
        wavelength_angstrom: neutron wavelength, any shape.

    Returns:
        (sigma, error), same shape.

    Raises:
        ValueError: if a wavelength lies outside 0.3 to 20 A.

    Source: Sears, Neutron News 3 (1992) 26.
    """
    wavelength = np.asarray(wavelength_angstrom, np.float64)
    if not np.all((wavelength >= 0.3) & (wavelength <= 20.0)):
        raise ValueError(f"neutron wavelength {wavelength_angstrom!r} A is outside 0.3 to 20 A")
    scale = wavelength / THERMAL_WAVELENGTH_ANGSTROM * CM2_PER_BARN
    return np.asarray(LITHIUM6_ABSORPTION_BARN * scale), np.asarray(LITHIUM6_ABSORPTION_SIGMA_BARN * scale)


def lithium_molar_mass(fraction6: float) -> float:
    """Return g/mol of lithium with this share of 6Li (by atoms): the mean of the two nuclides."""
    _check_fraction(fraction6)
    return fraction6 * LITHIUM6_MASS_G_MOL + (1.0 - fraction6) * LITHIUM7_MASS_G_MOL


def faraday_mol(charge_coulomb: float) -> float:
    """Return the moles of Li+ that carry a charge: n = Q / F (one electron each, nothing else moves)."""
    return charge_coulomb / FARADAY_COULOMB_PER_MOL


def cylinder_volume_cm3(diameter_cm: float, projected_area_cm2: float) -> float:
    """Return the volume of an upright cylinder seen from the side: V = pi D A / 4, with A = D h.

    Source: Perrenot et al., supplementary equation 1.
    """
    if diameter_cm <= 0 or projected_area_cm2 < 0:
        raise ValueError(f"a cylinder of {diameter_cm} cm and {projected_area_cm2} cm2 does not exist")
    return math.pi * diameter_cm * projected_area_cm2 / 4.0


@dataclass(frozen=True)
class LithiumContent:
    """The lithium of one part of a cell: moles, and atoms per cm3 of each nuclide."""

    name: str
    mol: float
    volume_cm3: float
    fraction6: float = LITHIUM6_NATURAL_FRACTION

    def __post_init__(self) -> None:
        _check_fraction(self.fraction6)
        if self.volume_cm3 <= 0 or self.mol < 0:
            raise ValueError(
                f"{self.name}: {self.mol} mol in {self.volume_cm3} cm3 is not a content: the volume must be "
                "positive and the amount not negative"
            )

    @property
    def atoms(self) -> float:
        """Atoms of lithium."""
        return self.mol * AVOGADRO_PER_MOL

    @property
    def density_cm3(self) -> float:
        """Atoms of lithium per cm3."""
        return self.atoms / self.volume_cm3

    @property
    def density6_cm3(self) -> float:
        """Atoms of 6Li per cm3."""
        return self.density_cm3 * self.fraction6

    @property
    def density7_cm3(self) -> float:
        """Atoms of 7Li per cm3."""
        return self.density_cm3 * (1.0 - self.fraction6)

    def changed(self, mol: float) -> LithiumContent:
        """Return the content after lithium of the same isotopic share was added (negative: taken away)."""
        return LithiumContent(self.name, self.mol + mol, self.volume_cm3, self.fraction6)


def equilibrium_fraction6(parts: list[LithiumContent]) -> float:
    """Return the share of 6Li when the isotopes of all parts have mixed: sum(n x6) / sum(n).

    Raises:
        ValueError: if there is no lithium.
    """
    total = math.fsum(part.mol for part in parts)
    if total <= 0:
        raise ValueError("no lithium in any part")
    return math.fsum(part.mol * part.fraction6 for part in parts) / total


@dataclass(frozen=True)
class Diffusion:
    """What a stationary gradient under a field says, and what conductivity alone says. Never one alone.

    ``apparent`` takes the whole cell voltage as the field in the separator; ``nernst_einstein`` is the bound
    that the same conductivity and the same number of carriers allow.
    """

    flux: Estimate  # atoms / (cm2 s)
    apparent: Estimate  # cm2/s
    nernst_einstein: Estimate  # cm2/s
    ratio: Estimate  # apparent / nernst_einstein
    voltage_that_agrees: Estimate  # V across the separator for which both are equal


def migration_diffusion(
    *, conductivity_s_cm: tuple[float, float], fraction6: tuple[float, float], voltage_v: tuple[float, float],
    length_cm: tuple[float, float], gradient_cm4: tuple[float, float], lithium_cm3: tuple[float, float],
    temperature_k: float = 298.15,
) -> Diffusion:  # fmt: skip
    """Return the apparent diffusion coefficient of 6Li with its cross-check; arguments are (value, sigma).

    J = sigma x6 (dE / L) / e;  D = J / (dC/dx);  D_NE = sigma k T / (n e^2).

    Args:
        conductivity_s_cm: ionic conductivity of the separator.
        fraction6: share of 6Li among the lithium of the separator.
        voltage_v: voltage between the electrodes.
        length_cm: length of the separator.
        gradient_cm4: slope of the 6Li density along it, atoms/cm4 (its size; the sign is the direction).
        lithium_cm3: atoms of lithium (both nuclides) per cm3 of separator.
        temperature_k: temperature of the separator.

    Returns:
        All with relative errors added in quadrature, as statistical errors; the common conductivity
        cancels in the ratio. That the cell voltage is the field is an assumption, not an error: see
        ``ratio``.

    Raises:
        ValueError: if a value is not positive.

    Source: Perrenot et al., supplementary equations 3 to 5; Nernst-Einstein relation.
    """
    given = (conductivity_s_cm, fraction6, voltage_v, length_cm, gradient_cm4, lithium_cm3)
    if any(value <= 0 or sigma < 0 for value, sigma in given) or temperature_k <= 0:
        raise ValueError(
            "conductivity, share, voltage, length, gradient, density, temperature must be positive"
        )
    _check_fraction(fraction6[0])
    r = [sigma / value for value, sigma in given]
    charge = ELEMENTARY_CHARGE_COULOMB
    flux = conductivity_s_cm[0] * fraction6[0] * voltage_v[0] / length_cm[0] / charge
    apparent = flux / gradient_cm4[0]
    bound = conductivity_s_cm[0] * BOLTZMANN_J_K * temperature_k / (lithium_cm3[0] * charge**2)
    ratio = apparent / bound

    def estimate(value: float, unit: str, *parts: int) -> Estimate:
        return Estimate(value, abs(value) * math.hypot(*(r[k] for k in parts)), 0.0, unit)

    return Diffusion(
        flux=estimate(flux, "1/(cm2 s)", 0, 1, 2, 3),
        apparent=estimate(apparent, "cm2/s", 0, 1, 2, 3, 4),
        nernst_einstein=estimate(bound, "cm2/s", 0, 5),
        ratio=estimate(ratio, "1", 1, 2, 3, 4, 5),
        voltage_that_agrees=estimate(voltage_v[0] / ratio, "V", 1, 3, 4, 5),
    )


def polychromatic_depth(areal6_cm2: ArrayLike, wavelength_angstrom: ArrayLike, weights: ArrayLike) -> Floats:
    """Return -ln T of 6Li in a beam of many wavelengths: what beam hardening makes of a 1/v absorber.

    -ln T = -ln [ sum_k w_k exp(-N sigma(lambda_k)) / sum_k w_k ].

    Args:
        areal6_cm2: atoms of 6Li per cm2, any shape.
        wavelength_angstrom: wavelengths, shape (n,).
        weights: flux times detector efficiency at each, shape (n,), not negative.

    Returns:
        Optical depth, shape of ``areal6_cm2``.

    Raises:
        ValueError: if the weights are negative or all zero, or a wavelength is outside the 1/v range.

    Source: Beer-Lambert law, averaged over the spectrum.
    """
    weight = np.asarray(weights, np.float64)
    if np.any(weight < 0) or not np.any(weight > 0):
        raise ValueError("weights of a spectrum must not be negative, and not all zero")
    sigma = lithium6_cross_section(wavelength_angstrom)[0]
    areal = np.asarray(areal6_cm2, np.float64)
    seen = np.exp(-areal[..., None] * sigma) @ (weight / weight.sum())
    return np.asarray(-np.log(seen))


def areal_density_polychromatic(
    depth: ArrayLike, wavelength_angstrom: ArrayLike, weights: ArrayLike
) -> tuple[Floats, Floats]:
    """Invert ``polychromatic_depth``: return 6Li per cm2 and d(areal)/d(depth), shaped as ``depth``.

    Newton's iteration on a function that is smooth, rising and concave; a negative depth (noise) is continued
    with the same formula, so nothing is clipped.

    Raises:
        ValueError: as ``polychromatic_depth``; or if a depth is beyond what the spectrum can show.
    """
    weight = np.asarray(weights, np.float64)
    sigma = lithium6_cross_section(wavelength_angstrom)[0]
    target = np.asarray(depth, np.float64)
    if np.any(weight < 0) or not np.any(weight > 0):
        raise ValueError("weights of a spectrum must not be negative, and not all zero")
    share = weight / weight.sum()
    areal = target / float(sigma @ share)
    slope = np.full(target.shape, float(sigma @ share))
    for _ in range(60):
        passed = np.exp(-areal[..., None] * sigma) * share
        total = passed.sum(axis=-1)
        slope = (passed @ sigma) / total
        step = (target + np.log(total)) / slope
        areal = areal + step
        if not np.any(np.abs(step) > 1e-12 * (1e18 + np.abs(areal))):
            return np.asarray(areal), np.asarray(1.0 / slope)
    raise ValueError(f"optical depth {float(np.nanmax(target)):.3g} has no areal density in this spectrum")


def maxwell_spectrum(temperature_k: float, points: int = 200) -> tuple[Floats, Floats]:
    """Return wavelengths (A) and flux weights of a moderated beam: w ~ lambda^-5 exp(-(lambda_T / lambda)^2).

    lambda_T = h / sqrt(2 m k T); the detector is taken as 1/v (weight x lambda), as 6LiF or Gd screens are
    at low efficiency.

    Raises:
        ValueError: if the temperature is not between 5 and 2000 K.

    Source: Maxwellian flux per wavelength; CODATA 2018 constants.
    """
    if not 5.0 <= temperature_k <= 2000.0:
        raise ValueError(f"a moderator of {temperature_k} K is outside 5 to 2000 K")
    middle = NEUTRON_THERMAL_ANGSTROM_SQRT_K / math.sqrt(temperature_k)
    wavelength = np.geomspace(max(0.3, 0.25 * middle), min(20.0, 12.0 * middle), points)
    flux = wavelength**-5 * np.exp(-((middle / wavelength) ** 2))
    return wavelength, flux * wavelength * np.gradient(wavelength)


def _check_fraction(fraction6: float) -> None:
    if not 0.0 <= fraction6 <= 1.0:
        raise ValueError(f"the share of 6Li, {fraction6}, must lie between 0 and 1")
