"""From exposures to transmission, optical depth, 6Li per area and per volume, and profiles along a cell.

T = [(I - dark - S) / D] / [(I0 - dark - S0) / D0] with the scattered field S (0 if it was not measured)
and the dose D, the same difference in a region of open beam. Regions and profiles use sums of pixels,
never means of logarithms of pixels: the logarithm of a noisy number is biased by half its relative variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from edge.radiography import Exposure, Noise
from edge.radiography_mask import PixelMask
from edge.radiography_scatter import ScatterField
from edge.uncertainty import ONE_SIGMA, ONE_SIGMA_SHARES, Estimate

Floats = NDArray[np.float64]

MIN_PIXELS = 4


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels; ``thickness_mm`` is what is known to stand there, if anything."""

    name: str
    rows: slice
    columns: slice
    thickness_mm: float | None = None

    @property
    def short_side_px(self) -> int:
        """The smaller of height and width."""
        return int(min(self.rows.stop - self.rows.start, self.columns.stop - self.columns.start))


@dataclass(frozen=True)
class Beam:
    """One exposure after dark, mask and scattering."""

    signal: Floats  # (ny, nx) ADU per frame, NaN where masked
    gross: Floats  # the same before the scattering was subtracted: its counts make the noise
    n_frames: int
    field: ScatterField | None = None


@dataclass(frozen=True)
class Setting:
    """What all regions of one radiograph share."""

    noise: Noise
    air: Region
    dark_frames: int


@dataclass(frozen=True)
class RegionDepth:
    """One region."""

    region: Region
    depth: Estimate  # -ln T
    transmission: Estimate
    median_depth: Estimate  # -ln of the median T of the pixels, as others quote it (no bias corrected)
    n_pixels: int
    scattered_share: Estimate  # of what was recorded in the sample image


def beam(exposure: Exposure, dark: Exposure, mask: PixelMask, field: ScatterField | None = None) -> Beam:
    """Subtract dark and scattering and apply the mask: the one place where it is applied."""
    if exposure.mean.shape != dark.mean.shape:
        raise ValueError(f"image {exposure.mean.shape} and dark {dark.mean.shape} differ in size")
    gross = mask.applied(exposure.mean - dark.mean)
    return Beam(gross if field is None else gross - field.values, gross, exposure.n_frames, field)


def dose(one: Beam, setting: Setting) -> Estimate:
    """Return the mean signal in the air region, ADU per frame; sigma_stat counting, sigma_sys scattering."""
    part = _sums(one, setting.air)
    stat = math.sqrt(_variance(part, one, setting, setting.air)) / part.n
    sys = one.field.sigma if one.field is not None else 0.0
    return Estimate(part.signal / part.n, stat, sys, "ADU")


def region_depth(sample: Beam, reference: Beam, setting: Setting, region: Region) -> RegionDepth:
    """Return optical depth and transmission of a region against the reference.

    depth = -ln [ sum(sample) / D_sample x D_reference / sum(reference) ], with the first-order bias of the
    four logarithms (half their relative variance) taken off. sigma_stat: counting of the four sums and the
    dark, which all four share. sigma_sys: both scattered fields, and what the dose ratio differs by
    between the quarters of the air region beyond counting.

    Raises:
        ValueError: if a region is outside the image or has too few good pixels, or a sum is not positive.
    """
    parts = _four(sample, reference, setting.air, region)
    relative, depth = {}, 0.0
    for (who, where), part in parts.items():
        one, place = (sample, reference)[who], (region, setting.air)[where]
        if part.signal <= 0:
            raise ValueError(
                f"region {place.name!r} has no signal left ({part.signal / part.n:.3g} ADU per pixel)"
            )
        sign = -1.0 if who == where else 1.0
        relative[who, where] = _variance(part, one, setting, place) / part.signal**2
        depth += sign * (math.log(part.signal / part.n) + 0.5 * relative[who, where])
    dark = setting.noise.read_variance / setting.dark_frames
    shared = sum(
        parts[0, k].n * dark * (1.0 / parts[0, k].signal - 1.0 / parts[1, k].signal) ** 2 for k in (0, 1)
    )
    stat = math.sqrt(sum(relative.values()) + shared)
    sys_parts = [_uneven_dose(sample, reference, setting)]
    for who, one in enumerate((sample, reference)):
        if one.field is not None:
            sys_parts += [one.field.sigma * parts[who, k].n / parts[who, k].signal for k in (0, 1)]
    sys = math.hypot(*sys_parts)
    t = math.exp(-depth)
    cut = (region.rows, region.columns)
    scale = parts[1, 1].signal / parts[0, 1].signal
    blurred = setting.noise.gain(region.short_side_px) / setting.noise.gain(1)
    doses = relative[0, 1] + relative[1, 1]
    median = _median_depth(sample.signal[cut] / reference.signal[cut] * scale, blurred, doses, sys)
    there = parts[0, 0]
    share_sys = sample.field.sigma * there.n / there.gross if sample.field is not None else 0.0
    scattered = 1.0 - there.signal / there.gross
    of_gross = math.sqrt(_variance(there, sample, setting, region)) / there.gross
    share = Estimate(scattered, scattered * of_gross, share_sys, "1")
    return RegionDepth(
        region,
        Estimate(depth, stat, sys, "1"),
        Estimate(t, t * stat, t * sys, "1"),
        median,
        there.n,
        share,
    )


def _median_depth(t: Floats, blurred: float, variance_of_doses: float, sys: float) -> Estimate:
    """Return -ln of the median of pixels; NaN where it is not positive.

    sigma_stat: sqrt(pi / 2) spread / sqrt(n) of a normal variable, widened where neighbouring pixels share
    their light (the noise of a patch is ``blurred`` times that of single pixels), and the doses.
    """
    t = t[np.isfinite(t)]
    middle = float(np.median(t))
    if middle <= 0:
        return Estimate(math.nan, math.nan, math.nan, "1")
    low, high = np.quantile(t, ONE_SIGMA_SHARES)
    variance = math.pi / 2.0 * (float(high - low) / 2.0 / middle) ** 2 * max(blurred, 1.0) / t.size
    return Estimate(-math.log(middle), math.sqrt(variance + variance_of_doses), sys, "1")


@dataclass(frozen=True)
class _Part:
    signal: float
    gross: float
    n: int


def _sums(one: Beam, region: Region) -> _Part:
    signal = one.signal[region.rows, region.columns]
    good = np.isfinite(signal)
    n = int(np.count_nonzero(good))
    ny, nx = one.signal.shape
    inside = (
        0 <= region.rows.start < region.rows.stop <= ny
        and 0 <= region.columns.start < region.columns.stop <= nx
    )
    if not inside:
        raise ValueError(f"region {region.name!r} is not inside the image of {ny} x {nx} pixels")
    if n < MIN_PIXELS:
        raise ValueError(f"region {region.name!r} has {n} good pixels, {MIN_PIXELS} are needed")
    gross = one.gross[region.rows, region.columns]
    return _Part(float(signal[good].sum()), float(gross[good].sum()), n)


def _four(sample: Beam, reference: Beam, air: Region, region: Region) -> dict[tuple[int, int], _Part]:
    """Return the sums by (0 sample, 1 reference), (0 region, 1 air)."""
    return {
        (who, where): _sums(one, place)
        for who, one in enumerate((sample, reference))
        for where, place in enumerate((region, air))
    }


def _variance(part: _Part, one: Beam, setting: Setting, region: Region) -> float:
    gain = setting.noise.gain(region.short_side_px)
    return (gain * max(part.gross, 0.0) + part.n * setting.noise.read_variance) / one.n_frames


def _uneven_dose(sample: Beam, reference: Beam, setting: Setting) -> float:
    """Return the relative sigma of the dose ratio that quarters of the air show beyond counting."""
    air = setting.air
    if air.short_side_px < 8:
        return 0.0
    middle_row, middle_column = (
        (air.rows.start + air.rows.stop) // 2,
        (air.columns.start + air.columns.stop) // 2,
    )
    ratios, variance = [], 0.0
    for rows in (slice(air.rows.start, middle_row), slice(middle_row, air.rows.stop)):
        for columns in (slice(air.columns.start, middle_column), slice(middle_column, air.columns.stop)):
            quarter = Region(air.name, rows, columns)
            a, b = _sums(sample, quarter), _sums(reference, quarter)
            if a.signal <= 0 or b.signal <= 0:
                return 0.0
            ratios.append(math.log(a.signal / b.signal))
            for part, one in ((a, sample), (b, reference)):
                variance += _variance(part, one, setting, quarter) / part.signal**2 / 4.0
    return math.sqrt(max(0.0, float(np.var(ratios, ddof=1)) - variance) / 4.0)


def transmission_map(sample: Beam, reference: Beam, setting: Setting) -> tuple[Floats, Floats]:
    """Return transmission per pixel and its statistical one-sigma error without that of the doses.

    sigma_T^2 = T^2 (v / A^2 + v0 / B^2 + r^2 / n_dark (1/A - 1/B)^2), v = (g(1) gross + r^2) / n.

    Returns:
        (T, sigma), (ny, nx); NaN where masked or where the reference has no signal.
    """
    a, b, noise = sample.signal, reference.signal, setting.noise
    factor = dose(reference, setting).value / dose(sample, setting).value
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.where(b > 0, b, np.nan)
        t = factor * a / below
        va = (noise.gain(1) * np.maximum(sample.gross, 0.0) + noise.read_variance) / sample.n_frames
        vb = (noise.gain(1) * np.maximum(reference.gross, 0.0) + noise.read_variance) / reference.n_frames
        dark = noise.read_variance / setting.dark_frames
        variance = va / below**2 + a**2 * vb / below**4 + dark * (1.0 / below - a / below**2) ** 2
        return t, factor * np.sqrt(variance)


@dataclass(frozen=True)
class Profile:
    """Optical depth along the cell, averaged across it."""

    first_row: NDArray[np.int64]  # (n,) of each bin
    centre_px: Floats  # (n,)
    depth: Floats  # (n,) mean of -ln T across the region, NaN where nothing is left
    sigma_stat: Floats  # (n,) counting, independent from bin to bin
    sigma_common: Floats  # (n,) doses and scattering: moves all bins together


def profile(
    sample: Beam, reference: Beam, setting: Setting, region: Region, *, bin_px: int = 1, strips: int = 1
) -> Profile:
    """Return the profile along the rows of a region.

    A bin of rows is cut into ``strips`` across; -ln T of every strip comes from sums of pixels, bias taken
    off as in ``region_depth``, and the strips are averaged by their widths. Where the thickness changes
    across (a cylinder), one strip would average transmissions instead of depths.

    Raises:
        ValueError: if the region is outside, or bins or strips are wider than it.
    """
    height, width = region.rows.stop - region.rows.start, region.columns.stop - region.columns.start
    if not 1 <= bin_px <= height or not 1 <= strips <= width:
        raise ValueError(
            f"bins of {bin_px} rows and {strips} strips do not fit into {height} x {width} pixels"
        )
    parts = _four(sample, reference, setting.air, region)  # also checks the place
    n_bins = height // bin_px
    tops = np.arange(n_bins) * bin_px
    lefts = np.linspace(0, width, strips + 1).astype(np.int64)
    cut = (slice(region.rows.start, region.rows.start + n_bins * bin_px), region.columns)
    good = np.isfinite(sample.signal[cut]) & np.isfinite(reference.signal[cut])

    def cells(image: Floats) -> Floats:
        filled = np.where(good, image[cut], 0.0)
        return np.asarray(np.add.reduceat(np.add.reduceat(filled, tops, axis=0), lefts[:-1], axis=1))

    n = np.add.reduceat(np.add.reduceat(good.astype(np.float64), tops, axis=0), lefts[:-1], axis=1)
    gain = setting.noise.gain(min(bin_px, width // strips))
    value, variance, slopes = np.zeros(n.shape), np.zeros(n.shape), []
    for sign, one in ((-1.0, sample), (1.0, reference)):
        total, gross = cells(one.signal), cells(one.gross)
        with np.errstate(invalid="ignore", divide="ignore"):
            total = np.where((total > 0) & (n > 0), total, np.nan)
            relative = (
                (gain * np.maximum(gross, 0) + n * setting.noise.read_variance) / one.n_frames / total**2
            )
            value += sign * (np.log(total / n) + 0.5 * relative)
        variance += relative
        slopes.append(n / total)
    variance += setting.noise.read_variance / setting.dark_frames * n * (slopes[0] / n - slopes[1] / n) ** 2
    weight = np.diff(lefts) / width
    depth, common = value @ weight, np.zeros(n_bins)
    for who, one in enumerate((sample, reference)):
        air = parts[who, 1]
        depth = depth + (1.0, -1.0)[who] * math.log(air.signal / air.n)
        common += _variance(air, one, setting, setting.air) / air.signal**2
        if one.field is not None:
            common += (one.field.sigma * (slopes[who] @ weight)) ** 2 + (
                one.field.sigma * air.n / air.signal
            ) ** 2
    common += _uneven_dose(sample, reference, setting) ** 2
    centre = region.rows.start + tops + (bin_px - 1) / 2.0
    return Profile(region.rows.start + tops, centre, depth, np.sqrt(variance @ weight**2), np.sqrt(common))


def mean_chord_cm(diameter_cm: float) -> float:
    """Return the mean path through an upright cylinder seen from the side: V / A = pi D / 4."""
    if diameter_cm <= 0:
        raise ValueError(f"a cylinder of {diameter_cm} cm does not exist")
    return math.pi * diameter_cm / 4.0


def chord_cm(offset_cm: ArrayLike, diameter_cm: float) -> Floats:
    """Return the path in cm through an upright cylinder at x from its axis.

    2 sqrt(D^2/4 - x^2), in the shape of ``offset_cm``; NaN outside.
    """
    inside = diameter_cm**2 / 4.0 - np.asarray(offset_cm, np.float64) ** 2
    return np.asarray(2.0 * np.sqrt(np.where(inside >= 0, inside, np.nan)))


def transmission_interval(
    sample: int, reference: int, exposure_ratio: float = 1.0, level: float = ONE_SIGMA
) -> tuple[float, float]:
    """Return the exact interval of a transmission from two counts of neutrons, for few counts.

    Given their sum, the sample's counts are binomial with p = rT / (1 + rT), r = exposure of sample /
    reference; the Clopper-Pearson interval of p is turned into one of T.

    Returns:
        (lower, upper); upper is infinite if the reference has no count, and (0, inf) without any count.

    Raises:
        ValueError: if a count is negative, or ratio or level make no sense.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404; ratio of Poisson means: Przyborowski and
    Wilenski 1940.
    """
    if sample < 0 or reference < 0 or exposure_ratio <= 0 or not 0 < level < 1:
        raise ValueError("counts must not be negative, exposure ratio positive, level between 0 and 1")
    tail = (1.0 - level) / 2.0
    low = float(betaincinv(sample, reference + 1, tail)) if sample > 0 else 0.0
    high = float(betaincinv(sample + 1, reference, 1.0 - tail)) if reference > 0 else 1.0
    upper = math.inf if high >= 1.0 else high / (1.0 - high) / exposure_ratio
    return low / (1.0 - low) / exposure_ratio, upper


@dataclass(frozen=True)
class Line:
    """A straight line or a parabola through zero over known thicknesses."""

    slope: float
    slope_sigma: float
    offset: float
    offset_sigma: float
    scatter: float  # rms of the residuals, n - 2
    slope_sys: float = 0.0  # what the systematic errors of the points, moving together, do to the slope


def straight_line(x: Floats, y: Floats, sigma_sys: Floats | None = None) -> Line:
    """Fit y = offset + slope x, unweighted; errors from the scatter about the line (NaN with two points).

    Raises:
        ValueError: with fewer than two different x.
    """
    if x.size < 2 or np.ptp(x) == 0:
        raise ValueError("a slope needs at least two different positions")
    d = x - x.mean()
    spread = float(d @ d)
    slope = float(d @ y) / spread
    rest = y - y.mean() - slope * d
    scatter = math.sqrt(float(rest @ rest) / (x.size - 2)) if x.size > 2 else math.nan
    at_zero = math.sqrt(1.0 / x.size + float(x.mean()) ** 2 / spread)
    offset = float(y.mean()) - slope * float(x.mean())
    moved = 0.0 if sigma_sys is None else abs(float(d @ sigma_sys)) / spread
    return Line(slope, scatter / math.sqrt(spread), offset, scatter * at_zero, scatter, moved)


@dataclass(frozen=True)
class Hardening:
    """depth = mu d + q d^2: q < 0 is beam hardening (or scattering that was not subtracted)."""

    mu_per_mm: float
    q_per_mm2: float
    sigmas: tuple[float, float]
    scatter: float

    def thickness_mm(self, depth: ArrayLike) -> Floats:
        """Invert the curve: linearised thickness, NaN beyond its top."""
        y = np.asarray(depth, np.float64)
        if abs(self.q_per_mm2) < 1e-12:
            return np.asarray(y / self.mu_per_mm)
        root = self.mu_per_mm**2 + 4.0 * self.q_per_mm2 * y
        with np.errstate(invalid="ignore"):
            return np.asarray((np.sqrt(root) - self.mu_per_mm) / (2.0 * self.q_per_mm2))


def fit_hardening(thickness_mm: Floats, depth: Floats) -> Hardening:
    """Fit depth = mu d + q d^2 through the origin, unweighted, errors from the scatter.

    Raises:
        ValueError: with fewer than three different thicknesses.
    """
    if np.unique(thickness_mm).size < 3:
        raise ValueError("a hardening curve needs at least three different thicknesses")
    design = np.stack([thickness_mm, thickness_mm**2], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    mu, q = inverse @ design.T @ depth
    rest = depth - design @ np.array([mu, q])
    scatter = math.sqrt(float(rest @ rest) / (depth.size - 2))
    sigmas = scatter * np.sqrt(np.diag(inverse))
    return Hardening(float(mu), float(q), (float(sigmas[0]), float(sigmas[1])), scatter)
