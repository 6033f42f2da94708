"""Lines counted event by event: each adds a row of a gain matrix to its pixel, its square to the variance.

A linear fit of known shapes, a = G y with G = (T W T^T)^-1 T W, is a sum over events: an event in channel c
adds G[k, c] to the amplitude of shape k and G[k, c]^2 to its Poisson variance. So an image and its variance
image exist at any moment of a scan, and no spectrum per pixel is needed. W is the inverse of a nominal model
(as many counts of the line as of background in its window), never of the data: the estimate is unbiased for
any W. Entries are fixed-point integers (2^-20 of a count), so that sums are exact in any order.

Source: C. G. Ryan, Int. J. Imaging Syst. Technol. 11 (2000) 219 (dynamic analysis).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from edge.constants import GAUSS_FWHM_PER_SIGMA
from edge.lines import LineWindow

Floats = NDArray[np.float64]

ONE = 1 << 20  # fixed-point unit: a gain of 1
LARGEST_GAIN = (1 << 28) / ONE  # so that four entries can be added in 32 bits
PER_LINE = 5  # columns: a, b, a a, b b, a b;  a the line, b the continuum

PIXEL_SHIFT = np.uint64(16)
CHANNEL_MASK = np.uint64(0xFFFF)


@njit("void(u8[::1], i4[:,::1], i8[:,::1])", cache=True, nogil=True, boundscheck=False)
def project(records, columns, sums):  # type: ignore[no-untyped-def]  # numba compiles the signature above
    """Add the row of each event's channel to the sums of its pixel, in place.

    Four neighbouring events of one pixel, the usual case in a raster, are added up in 32 bits first; this is
    exact as long as an entry is below 2^28 (``LARGEST_GAIN``).

    Args:
        records: packed events (``edge.events.pack``), uint64, shape (n,).
        columns: fixed-point gains and their products, int32, shape (channels + 1, columns).
        sums: int64, shape (pixels + 1, columns).
    """
    n = records.size
    size = columns.shape[1]
    i = 0
    while i < n:
        p = records[i] >> PIXEL_SHIFT
        c = records[i] & CHANNEL_MASK
        if (
            i + 4 <= n
            and records[i + 3] >> PIXEL_SHIFT == p
            and records[i + 2] >> PIXEL_SHIFT == p
            and records[i + 1] >> PIXEL_SHIFT == p
        ):
            d = records[i + 1] & CHANNEL_MASK
            e = records[i + 2] & CHANNEL_MASK
            f = records[i + 3] & CHANNEL_MASK
            for k in range(size):
                two = np.int32(columns[c, k] + columns[d, k])
                more = np.int32(columns[e, k] + columns[f, k])
                sums[p, k] += np.int64(np.int32(two + more))
            i += 4
        else:
            for k in range(size):
                sums[p, k] += np.int64(columns[c, k])
            i += 1


@dataclass(frozen=True)
class ProjectionTable:
    """The gain matrix of some lines, each fitted with its continuum over its own window and bands."""

    windows: tuple[LineWindow, ...]
    channel_kev: float  # nominal width of a channel

    @classmethod
    def of(cls, windows: Sequence[LineWindow], channel_kev: float) -> ProjectionTable:
        """Return the table of these lines.

        Raises:
            ValueError: if a line has fewer than eight channels or a continuum that they do not determine.
        """
        table = cls(tuple(windows), channel_kev)
        for window in windows:
            table._nominal(window)
        return table

    def index(self, element: str) -> int | None:
        """Return the place of an element's line, None if it is not projected."""
        return next((i for i, w in enumerate(self.windows) if w.element == element), None)

    def columns(self, energy_kev: Floats) -> NDArray[np.int32]:
        """Return the fixed-point columns for channels of these energies.

        Args:
            energy_kev: centre of each channel on the corrected scale, shape (channels,).

        Returns:
            int32, shape (channels + 1, 5 lines); the last row, of the overflow, is zero.
        """
        found = np.zeros((energy_kev.size + 1, PER_LINE * len(self.windows)), np.int32)
        for i, window in enumerate(self.windows):
            inside, a, b = self._gains(window, energy_kev)
            rows = np.flatnonzero(inside)
            for k, values in enumerate((a, b, a * a, b * b, a * b)):
                found[rows, PER_LINE * i + k] = np.rint(values * ONE).astype(np.int32)
        return found

    def _gains(self, window: LineWindow, energy_kev: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
        """Return which channels take part, the gain of the line and that of the continuum."""
        low, high = _range(window)
        inside = (energy_kev >= low) & (energy_kev < high)
        energy = energy_kev[inside]
        if energy.size < 8:
            raise ValueError(f"{window.element}: {energy.size} channels are too few to project")
        shapes = _shapes(window, energy, self.channel_kev)
        flat = 1.0 / max(window.width_kev / self.channel_kev, 1.0)  # as many counts as the line in its window
        weighted = shapes / (shapes[0] + flat)
        gain = np.linalg.solve(weighted @ shapes.T, weighted)
        if np.max(np.abs(gain[:2])) >= math.sqrt(LARGEST_GAIN):
            raise ValueError(f"{window.element}: line and continuum do not separate")
        return inside, gain[0], gain[1]

    def _nominal(self, window: LineWindow) -> tuple[Floats, Floats, Floats]:
        """Return energies, gain of the line and of the continuum on a nominal scale."""
        low, high = _range(window)
        energy = np.arange(low, high, self.channel_kev)
        inside, a, b = self._gains(window, energy)
        return energy[inside], a, b

    def leak(self, window: LineWindow, slope: float) -> float:
        """Return how much of the line is continuum, per unit of fitted continuum, when that has a slope.

        A true continuum b [1 + s (E - E_band)] is fitted as b (1 + s kappa_b) and adds s b kappa_a to the
        line, kappa = G (E - E_band) for both; so the leak is s kappa_a / (1 + s kappa_b).
        """
        energy, a, b = self._nominal(window)
        tilt = energy - 0.5 * (window.bands_kev[0][0] + window.bands_kev[-1][1])
        return slope * float(a @ tilt) / (1.0 + slope * float(b @ tilt))

    def placement_error(self, window: LineWindow, sigma_kev: float) -> float:
        """Return the relative error of a net count from an error of the energy scale at the line.

        The amplitude of a line displaced by d is sum a(E) line(E - d); the larger change at +-sigma is taken.
        """
        energy, a, _ = self._nominal(window)
        places = (energy - sign * sigma_kev for sign in (-1.0, 1.0))
        return max(abs(float(a @ _shapes(window, place, self.channel_kev)[0]) - 1.0) for place in places)

    def least_variance(self, element: str) -> float:
        """Return the variance of one event at the place of the line: a pixel without counts has this one."""
        window = self.windows[self.index(element) or 0]
        _, a, _ = self._nominal(window)
        return float(np.max(np.abs(a)) * _share(window)) ** 2

    def net(
        self, element: str, sums: ArrayLike, squares: ArrayLike, slope: float = 0.0
    ) -> tuple[Floats, Floats]:
        """Return the counts of a line and their variance from projected sums.

        net = share (a - leak b) with the ``leak`` of the slope (one-sided windows only), variance =
        share^2 (aa + leak^2 bb - 2 leak ab); share is the part of the line inside its window, so that the
        counts mean the same as those of a window. Linear in the sums: any weights on pixels will do.

        Args:
            element: whose line.
            sums: of the columns, in units of 1 / ONE, shape (..., columns), weighted by w.
            squares: the same weighted by w^2; for a plain sum the same array.
            slope: relative slope of the continuum, 1/keV.

        Raises:
            ValueError: if the element is not projected.
        """
        place = self.index(element)
        if place is None:
            raise ValueError(f"{element} is not counted by projection")
        window = self.windows[place]
        first = PER_LINE * place
        s = np.asarray(sums, np.float64)[..., first : first + PER_LINE] / ONE
        v = np.asarray(squares, np.float64)[..., first : first + PER_LINE] / ONE
        leak = self.leak(window, slope) if window.one_sided else 0.0
        share = _share(window)
        net = share * (s[..., 0] - leak * s[..., 1])
        variance = share**2 * (v[..., 2] + leak**2 * v[..., 3] - 2.0 * leak * v[..., 4])
        return net, variance


def _shapes(window: LineWindow, energy_kev: Floats, channel_kev: float) -> Floats:
    """Return the line (unit area) and its continuum per channel, shape (2 or 3, n)."""
    sigma = window.fwhm_kev / GAUSS_FWHM_PER_SIGMA
    z = (energy_kev - window.centroid_kev) / sigma
    line = np.exp(-0.5 * z * z) * channel_kev / (sigma * math.sqrt(2.0 * math.pi))
    continuum = [np.ones_like(energy_kev)]
    if not window.one_sided:
        continuum.append((energy_kev - window.centroid_kev) / window.fwhm_kev)
    return np.stack([line, *continuum])


def _range(window: LineWindow) -> tuple[float, float]:
    """Return the energies between which a line is fitted: its window and its bands."""
    low, high = (min(window.low_kev, *(a for a, _ in window.bands_kev)),
                 max(window.high_kev, *(b for _, b in window.bands_kev)))  # fmt: skip
    return low, high


def _share(window: LineWindow) -> float:
    """Return the part of a Gaussian line inside its window."""
    sigma = window.fwhm_kev / GAUSS_FWHM_PER_SIGMA * math.sqrt(2.0)
    ends = (window.high_kev - window.centroid_kev, window.low_kev - window.centroid_kev)
    return 0.5 * (math.erf(ends[0] / sigma) - math.erf(ends[1] / sigma))
