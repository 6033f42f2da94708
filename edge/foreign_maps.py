"""Maps from others (EDS, micro-XRF, ToF-SIMS): counts in windows of any axis, net, regions, rates and ratios.

A window is a piece of an axis (keV, m/z) with background bands beside it. Counts are integers and sums are
exact, so files reduced in pieces, together or in any order give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.binning import Goal, Regions, quadtree, region_sums, voronoi
from edge.maps import Labels
from edge.uncertainty import ratio

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
WAYS = {"quadtree": quadtree, "voronoi": voronoi}


@dataclass(frozen=True)
class Window:
    """A line and what is beside it, in units of the axis: from low to high, both included."""

    name: str
    centre: float
    low: float
    high: float
    bands: tuple[tuple[float, float], ...] = ()  # at most one on each side

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"window {self.name}: {self.low} to {self.high} is empty")
        for low, high in self.bands:
            if not low < high or not (high <= self.low or low >= self.high):
                raise ValueError(f"window {self.name}: the band {low} to {high} is empty or inside")


@dataclass(frozen=True)
class LineMap:
    """One line on the raster: gross integer counts, background, variance of net, each (ny, nx)."""

    name: str
    gross: NDArray[np.int64]
    background: Floats
    variance: Floats  # of net: gross + sum of c^2 band
    sides: tuple[float, ...]  # what each band alone says is under the line, summed over the map

    @property
    def net(self) -> Floats:
        """Gross less background."""
        return self.gross - self.background

    @property
    def sigma_sys(self) -> float:
        """One sigma of the summed net from the shape of the background.

        The two sides bound it: a rectangle between their answers, |left - right| / sqrt(12); with one side or
        none it is not known and taken as a tenth of the background.
        """
        if len(self.sides) == 2:
            return abs(self.sides[0] - self.sides[1]) / 12**0.5
        return 0.1 * abs(float(self.background.sum()))


def make_window(name: str, centre: float, half: float, lines: Sequence[float], background: bool) -> Window:
    """Return centre +- half with bands of one half-width that begin half a half-width beyond it.

    A band that another of the ``lines`` (centres) comes nearer than 1.2 half-widths to is left out.
    """
    low, high = centre - half, centre + half
    bands = []
    for first, last in ((low - 1.5 * half, low - 0.5 * half), (high + 0.5 * half, high + 1.5 * half)):
        near = [x for x in lines if first - 1.2 * half < x < last + 1.2 * half and x != centre]
        if background and not near:
            bands.append((first, last))
    return Window(name, centre, low, high, tuple(bands))


def channel_windows(windows: Sequence[Window], axis: Floats) -> NDArray[np.bool_]:
    """Return which channels count where: shape (windows x 3, channels): line, lower band, upper band.

    Whole channels, those whose centre lies inside, so counts stay integers.

    Raises:
        ValueError: names every window that holds no channel.
    """
    table = np.zeros((3 * len(windows), axis.size), bool)
    empty = []
    for k, window in enumerate(windows):
        table[3 * k] = (axis >= window.low) & (axis <= window.high)
        for low, high in window.bands:
            side = 1 if high <= window.low else 2
            table[3 * k + side] = (axis >= low) & (axis <= high) & ~table[3 * k]
        if not table[3 * k].any():
            empty.append(f"{window.name} ({window.low:.4g} to {window.high:.4g})")
    if empty:
        span = f"{axis[0]:.4g} to {axis[-1]:.4g}" if axis.size else "nothing"
        raise ValueError(f"no channel of the axis ({span}) in: {', '.join(empty)}")
    return table


def line_map(window: Window, counts: NDArray[np.int64], widths: Sequence[float]) -> LineMap:
    """Return net counts: gross - sum of c_k band_k, c_k = width of line / (bands x width of band k).

    Args:
        window: names the line.
        counts: line, lower band, upper band per pixel, integers, shape (3, ny, nx).
        widths: of the three, in channels or in units of the axis; 0 for a band that is not used.
    """
    used = [k for k in (1, 2) if widths[k] > 0.0]
    factors = {k: widths[0] / widths[k] for k in used}
    n = max(len(used), 1)
    background = np.zeros(counts.shape[1:])
    variance = counts[0].astype(np.float64)
    for k, factor in factors.items():
        background += factor / n * counts[k]
        variance += (factor / n) ** 2 * counts[k]
    sides = tuple(float(factor * counts[k].sum()) for k, factor in factors.items())
    return LineMap(window.name, counts[0], background, variance, sides)


@dataclass
class MassSums:
    """Integer sums of mass spectra: counts per pixel and window, and a coarse sum spectrum.

    ``add`` takes spectra in any order, ``merge`` another one of the same windows; both are exact. Intensities
    that are not integers are kept apart: they are no counts, and no Poisson error belongs to them.
    """

    n_pixels: int
    windows: tuple[Window, ...]
    edges: Floats  # of the sum spectrum, m/z, rising

    def __post_init__(self) -> None:
        self.maps: NDArray[np.int64] = np.zeros((3 * len(self.windows), self.n_pixels), np.int64)
        self.totals: NDArray[np.int64] = np.zeros(self.n_pixels, np.int64)
        self.spectrum: NDArray[np.int64] = np.zeros(self.edges.size - 1, np.int64)
        self.not_counts = 0  # values that are no whole numbers

    def add(self, pixel: int, mass: ArrayLike, intensity: ArrayLike) -> None:
        """Add the spectrum of one pixel. Raises ValueError for a pixel outside."""
        if not 0 <= pixel < self.n_pixels:
            raise ValueError(f"pixel {pixel} outside 0 to {self.n_pixels - 1}")
        m, y = np.asarray(mass, np.float64), np.asarray(intensity, np.float64)
        whole = np.floor(y)
        self.not_counts += int(np.count_nonzero((whole != y) | (y < 0.0)))
        counts = np.where((whole == y) & (y >= 0.0), whole, 0.0).astype(np.int64)
        self.totals[pixel] += int(counts.sum())
        place = np.searchsorted(self.edges, m, side="right") - 1
        good = (place >= 0) & (place < self.spectrum.size)
        np.add.at(self.spectrum, place[good], counts[good])
        for k, window in enumerate(self.windows):
            inside = (m >= window.low) & (m <= window.high)
            self.maps[3 * k, pixel] += int(counts[inside].sum())
            for low, high in window.bands:
                band = (m >= low) & (m <= high) & ~inside
                side = 1 if high <= window.low else 2
                self.maps[3 * k + side, pixel] += int(counts[band].sum())

    def merge(self, other: MassSums) -> None:
        """Add the sums of another one. Raises ValueError if its windows, edges or pixels differ."""
        same = self.windows == other.windows and np.array_equal(self.edges, other.edges)
        if not same or self.n_pixels != other.n_pixels:
            raise ValueError("only sums of the same windows, edges and pixels can be merged")
        self.maps += other.maps
        self.totals += other.totals
        self.spectrum += other.spectrum
        self.not_counts += other.not_counts


@dataclass(frozen=True)
class RegionTable:
    """Every line in every region: values and one-sigma errors of shape (lines, regions)."""

    regions: Regions
    names: tuple[str, ...]
    gross: Floats
    net: Floats
    sigma: Floats
    live_s: Floats | None  # (regions,)

    @property
    def labels(self) -> Labels:
        """Region of each pixel."""
        return self.regions.labels

    def rate(self) -> tuple[Floats, Floats] | None:
        """Return net counts per live second, and sigma; None without live times, NaN without time."""
        if self.live_s is None:
            return None
        live = np.where(self.live_s > 0.0, self.live_s, np.nan)
        return self.net / live, self.sigma / live

    def ratio(self, numerator: str, denominator: str) -> tuple[Floats, Floats]:
        """Return the quotient of two lines per region, and sigma; see ``edge.uncertainty.ratio``."""
        a, b = (self.names.index(name) for name in (numerator, denominator))
        return ratio(self.net[a], self.sigma[a], self.net[b], self.sigma[b])


def divide(
    lines: Sequence[LineMap], guide: LineMap, goal: Goal, inside: Mask, way: str = "quadtree",
    live_s: Floats | None = None,
) -> RegionTable:  # fmt: skip
    """Divide the map by the ``guide`` line and sum every line in every region.

    Args:
        lines: what to sum.
        guide: the line whose net counts must reach the goal.
        goal: minimum or relative error per region.
        inside: pixels that take part, shape (ny, nx).
        way: "quadtree" or "voronoi".
        live_s: live time per pixel, shape (ny, nx), or None.

    Raises:
        ValueError: as ``edge.binning``; for an unknown way.
    """
    if way not in WAYS:
        raise ValueError(f"regions {way!r}: known are {', '.join(WAYS)}")
    regions = WAYS[way](guide.net, guide.variance, inside, goal)
    gross = region_sums(regions.labels, np.stack([line.gross for line in lines]))
    net = region_sums(regions.labels, np.stack([line.net for line in lines]))
    variance = region_sums(regions.labels, np.stack([line.variance for line in lines]))
    live = None if live_s is None else region_sums(regions.labels, live_s[None])[0]
    names = tuple(line.name for line in lines)
    return RegionTable(regions, names, gross, net, np.sqrt(variance), live)
