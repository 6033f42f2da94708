"""Projections to slices: flats, darks, zingers, rings, double field of view, centre, reconstruction.

The work is done by Algotom (Vo et al., J. Synchrotron Rad. 28 (2021) 1283; Apache-2.0); what is ours is the
scale of the result, the error of the centre, and the bookkeeping. Everything goes row by row of the detector:
memory is a few sinograms. Algotom comes with the extra ``tomography`` and is imported when it is needed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

FULL_TURN_DEG = 350.0  # from here a scan is a double field of view, or twice a single one
HALF_TURN_DEG = 170.0
ZINGER_SIGMA = 12.0
ZINGER_REACH = 5  # pixels and projections that a zinger is compared with
FLOOR = 1e-6  # of the transmission, before the logarithm
METHODS = ("fbp", "dfi")
RINGS = ("all", "sorting", "none")
PAIR_FILTER = 2.0  # pixels, one sigma of the smoothing in the comparison of opposite projections


@dataclass(frozen=True)
class Sinogram:
    """One detector row of all projections.

    Attributes:
        transmission: (angles, columns), (I - dark) / (flat - dark).
        zingers: pixels replaced.
        dark_pixels: pixels without light, set to ``FLOOR``.
    """

    transmission: Image
    zingers: int
    dark_pixels: int

    @property
    def absorbance(self) -> Image:
        """-ln T, the integral of the attenuation coefficient along each ray."""
        return np.asarray(-np.log(self.transmission), np.float32)


@dataclass(frozen=True)
class Centre:
    """The axis of rotation, in pixels: the middle of pixel k is at k."""

    estimate: Estimate
    methods: dict[str, float]


def algotom(name: str) -> Any:
    """Return a module of Algotom. Raises ValueError that names the extra."""
    try:
        return importlib.import_module(f"algotom.{name}")
    except ImportError as error:
        raise ValueError("tomography needs Algotom: pip install operando[tomography]") from error


def sinogram(projections: Image, flats: Image, darks: Image, zinger: float = ZINGER_SIGMA) -> Sinogram:
    """Return the transmission of one detector row: ``transmitted`` with the means of the reference images.

    Args:
        projections: (angles, columns), counts.
        flats: (n, columns), open beam.
        darks: (n, columns), no beam.
        zinger: threshold in units of the noise (scaled as sqrt(T)); 0 leaves all.

    Raises:
        ValueError: if shapes differ, or a column's flat is not above its dark.
    """
    flat, dark = (part.mean(axis=0, dtype=np.float64) for part in (flats, darks))
    return transmitted(projections, flat, dark, zinger)


def transmitted(
    projections: NDArray[Any], flat: Floats, dark: Floats, zinger: float = ZINGER_SIGMA
) -> Sinogram:
    """Return the transmission of one detector row.

    T = (I - dark) / (flat - dark). A zinger stands out by
    more than ``zinger`` times the noise from the median of five neighbours in angle and from that of five
    in space: an edge of the sample does only one of both. It becomes the median in angle. (Comparing with
    neighbours in space alone replaced 2 % of the pixels of a tooth, its edges.)

    Args:
        projections: (angles, columns), counts.
        flat: mean open beam, (columns,).
        dark: mean without beam, (columns,).
        zinger: threshold in units of the noise (scaled as sqrt(T)); 0 leaves all.

    Raises:
        ValueError: if shapes differ, or a column's flat is not above its dark.
    """
    if projections.ndim != 2 or flat.shape != projections.shape[1:] or dark.shape != flat.shape:
        raise ValueError(f"rows of {projections.shape}, {flat.shape} and {dark.shape} do not fit")
    span = flat - dark
    if not (span > 0.0).all():
        raise ValueError(f"{int((span <= 0.0).sum())} columns have no light in the flats")
    transmission = (projections - dark) / span
    replaced = 0
    if zinger > 0.0:
        usual = median_filter(transmission, (ZINGER_REACH, 1), mode="nearest")
        beside = median_filter(transmission, (1, ZINGER_REACH), mode="nearest")
        scale = np.sqrt(np.maximum(usual, FLOOR))
        noise = 1.4826 * float(np.median(np.abs(transmission - usual) / scale))
        hit = transmission - np.maximum(usual, beside) > zinger * noise * scale
        replaced = int(hit.sum())
        transmission = np.where(hit, usual, transmission)
    black = transmission < FLOOR
    transmission = np.where(black, FLOOR, transmission)
    return Sinogram(transmission.astype(np.float32), replaced, int(black.sum()))


def without_rings(absorbance: Image, method: str = "all") -> Image:
    """Remove stripes of a sinogram, which would be rings of a slice.

    "sorting": algorithm 3, for partial and narrow stripes; "all": algorithms 6, 5, 4 and 3 of Vo, Atwood and
    Drakopoulos, Opt. Express 26 (2018) 28396, for dead and large stripes too.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in RINGS:
        raise ValueError(f"rings {method!r}: known are {', '.join(RINGS)}")
    if method == "none":
        return absorbance
    removal = algotom("prep.removal")
    tool = removal.remove_all_stripe if method == "all" else removal.remove_stripe_based_sorting
    return np.asarray(tool(absorbance), np.float32)


def is_double_field(angles_deg: Floats) -> bool:
    """Return whether the scan is a full turn, which a sample wider than the field needs."""
    return bool(abs(angles_deg[-1] - angles_deg[0]) >= FULL_TURN_DEG)


def centre_of_half_turn(absorbances: Sequence[Image], angles_deg: Floats) -> Centre:
    """Return the axis of a half turn by two methods that share no assumption.

    pair: the last projection, mirrored, fits the first one best; several rows; needs the last angle to be
    at 180 degrees. sinogram: the double wedge of the Fourier transform (Vo et al., Opt. Express 22 (2014)
    19078), which uses all angles, in steps of 0.25 pixel. The value is their mean; half their difference is
    systematic, the error of the pair and a quarter step / sqrt(12) are statistical.

    Args:
        absorbances: sinograms (angles, columns) of some rows.
        angles_deg: (angles,).

    Raises:
        ValueError: if the angles do not cover a half turn.
    """
    if abs(angles_deg[-1] - angles_deg[0]) < HALF_TURN_DEG:
        raise ValueError(f"angles from {angles_deg[0]:g} to {angles_deg[-1]:g} degrees are no half turn")
    pairs = [opposite_pair(rows[0], rows[-1]) for rows in absorbances]
    weight = np.array([1.0 / s**2 for _, s in pairs])
    pair = float(np.average([c for c, _ in pairs], weights=weight))
    find = algotom("prep.calculation").find_center_vo
    wedge = float(np.mean([find(np.asarray(rows, np.float32), ncore=1) for rows in absorbances]))
    stat = 0.5 * math.hypot(float(weight.sum()) ** -0.5, 0.25 / math.sqrt(12.0 * len(absorbances)))
    estimate = Estimate(0.5 * (pair + wedge), stat, 0.5 * abs(pair - wedge), "px")
    return Centre(estimate, {"pair": pair, "sinogram": wedge})


def opposite_pair(first: NDArray[Any], last: NDArray[Any]) -> tuple[float, float]:
    """Return the axis c for which first(x) = last(2c - x), and its one-sigma error, in pixels.

    Least squares over a shift of the mirrored row, both smoothed by a Gaussian of 2 pixels, shifts by Fourier
    transform (no interpolation). sigma^2 = sum (g*J)^2 r^2 / (sum J^2)^2 / 4 with J the derivative of the
    smoothed row, g the smoothing and r the residuals without smoothing: it holds for noise that varies
    along the row (White, Econometrica 48 (1980) 817). A 180-degree pair: the angles must be opposite; what
    they are not is systematic.

    Raises:
        ValueError: if the rows differ in length or show nothing.
    """
    a, b = np.asarray(first, np.float64), np.asarray(last, np.float64)[::-1]
    if a.shape != b.shape or a.ndim != 1 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        raise ValueError(f"rows of {a.shape} and {b.shape} cannot be compared")
    n, size = a.size, 2 * a.size
    turn = 2.0 * np.pi * np.fft.rfftfreq(size)
    smooth = np.exp(-0.5 * (turn * PAIR_FILTER) ** 2)
    fa, fb = np.fft.rfft(a, size), np.fft.rfft(b, size)
    start = int(np.argmax(np.fft.irfft(fa * np.conj(fb) * smooth, size)))
    shift = float(start - size if start > n else start)
    slope = np.zeros(size)
    for _ in range(60):
        moved = fb * np.exp(-1j * turn * shift)
        slope = np.fft.irfft(-1j * turn * moved * smooth, size)
        rest = np.fft.irfft((fa - moved) * smooth, size)
        step = float(slope @ rest / (slope @ slope))
        shift += step
        if abs(step) < 1e-7:
            break
    noise = np.fft.irfft(fa - fb * np.exp(-1j * turn * shift), size)
    reach = np.fft.irfft(np.fft.rfft(slope) * smooth, size)
    variance = float(((reach * noise) ** 2).sum() / (slope @ slope) ** 2)
    return 0.5 * (shift + n - 1), 0.5 * math.sqrt(variance)


def centre_of_full_turn(transmissions: Sequence[Image], overlap_guess: int | None = None) -> Centre:
    """Return the axis of a full turn from the overlap of opposite halves.

    Vo et al., Opt. Express 29 (2021) 17849.     The mean over rows; their scatter / sqrt(rows) is
    statistical, half a step of the search (1/2 pixel, a rectangle) systematic.

    Args:
        transmissions: sinograms of some rows.
        overlap_guess: width of the searching window in pixels; default a tenth of the field.
    """
    find = algotom("prep.calculation").find_center_360
    width = transmissions[0].shape[1]
    window = overlap_guess or max(20, width // 10)
    found = np.array([float(find(rows, window, ncore=1)[0]) for rows in transmissions])
    scatter = float(found.std(ddof=1) / math.sqrt(found.size)) if found.size > 1 else 0.0
    estimate = Estimate(float(found.mean()), scatter, 0.5 / math.sqrt(12.0), "px")
    return Centre(estimate, {"overlap": float(found.mean())})


def joined(transmission: Image, angles_deg: Floats, centre: float) -> tuple[Image, Floats, float]:
    """Join the halves of a full turn to a half turn twice as wide.

    Args:
        transmission: shape (angles, columns) of one row, without unit.
        angles_deg: of the full turn, shape (angles,).
        centre: column of the axis, pixels.

    Returns: the wide half turn, its angles and its axis in pixels.
    Source: Vo et al., J. Synchrotron Rad. 28 (2021) 1283, through Algotom's ``convert_sinogram_360_to_180``.
    """
    half = transmission.shape[0] // 2 + 1
    wide, axis = algotom("prep.conversion").convert_sinogram_360_to_180(transmission, centre)
    return np.asarray(wide, np.float32), angles_deg[:half], float(axis)


def reconstruct(absorbance: Image, angles_deg: Floats, centre: float, method: str = "fbp") -> Image:
    """Return a slice of the linear attenuation coefficient, per pixel.

    Divide by the size of a pixel for 1/length.

    Algotom's filtered back-projection ("fbp", ramp filter, no window) or direct Fourier inversion ("dfi").
    Algotom scales by pi / (n - 1), which is right for angles that include both 0 and 180 degrees; the step
    is taken from the angles here: mu = result x (n - 1) step / pi.

    Args:
        absorbance: (angles, columns).
        angles_deg: (angles,), evenly spaced.
        centre: of rotation, pixels.
        method: "fbp" or "dfi".

    Returns:
        (columns, columns), 0 outside the circle that every projection sees.

    Raises:
        ValueError: for an unknown method, a centre outside the rows or angles that are not even.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: known are {', '.join(METHODS)}")
    n, width = absorbance.shape
    steps = np.diff(angles_deg)
    if angles_deg.size != n or np.ptp(steps) > 0.02 * abs(float(steps.mean())):
        raise ValueError("angles must be one per projection and evenly spaced")
    if not 0.0 < centre < width - 1:
        raise ValueError(f"centre {centre:.2f} is outside the {width} columns")
    tool = algotom("rec.reconstruction")
    angles = np.deg2rad(angles_deg)
    options: dict[str, Any] = {
        "angles": angles,
        "apply_log": False,
        "ncore": 1,
        "filter_name": None,
        "ratio": 1.0,
    }
    if method == "fbp":
        options["gpu"] = False
    threads = numba.get_num_threads()
    numba.set_num_threads(1)  # its back-projection adds angles to one image from all threads and loses some
    try:
        found = getattr(tool, f"{method}_reconstruction")(absorbance, centre, **options)
    finally:
        numba.set_num_threads(threads)
    factor = (n - 1) * math.radians(abs(float(steps.mean()))) / math.pi if method == "fbp" else 1.0
    return np.asarray(found * factor, np.float32)


def sharpness(image: Image) -> float:
    """Return minus the sum of negative attenuation: nearer to 0 is nearer to the right axis (Donath 2006)."""
    return float(np.minimum(image, 0.0).sum())
