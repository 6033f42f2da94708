"""Bad pixels and gamma spots: found once, kept as data, applied once.

A mask is an array of reasons with a version, the settings that made it and a name made of its own bytes. It
turns pixels into NaN in one place (``PixelMask.applied``); nothing behind it masks again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edge.radiography import MAD_PER_SIGMA

Floats = NDArray[np.float64]
Bits = NDArray[np.uint8]

VERSION: Final = 1
MEDIAN_PX: Final = 5


class Reason(IntFlag):
    """Why a pixel is left out; a pixel may have several."""

    DARK = 1  # hot or dead in the dark image
    SPOT = 2  # a bright spot (gamma hit) in an image
    SATURATED = 4
    GIVEN = 8  # by a mask file


@dataclass(frozen=True)
class PixelMask:
    """Reasons per pixel, (ny, nx); 0 is a good pixel."""

    bits: Bits
    settings: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def name(self) -> str:
        """Digest of version, settings and pixels: two equal masks have equal names."""
        digest = hashlib.sha256(
            json.dumps([self.version, self.settings, self.bits.shape], sort_keys=True).encode()
        )
        digest.update(np.ascontiguousarray(self.bits).tobytes())
        return digest.hexdigest()[:16]

    def counts(self) -> dict[str, int]:
        """Return how many pixels each reason takes, and all together."""
        found = {one.name.lower(): int(np.count_nonzero(self.bits & one)) for one in Reason if one.name}
        return found | {"any": int(np.count_nonzero(self.bits))}

    def applied(self, image: Floats) -> Floats:
        """Return a copy with NaN where the mask is set. Raises ValueError if the sizes differ."""
        if image.shape != self.bits.shape:
            raise ValueError(f"a mask of {self.bits.shape} pixels does not fit an image of {image.shape}")
        return np.where(self.bits == 0, image, np.nan)


def dark_defects(dark: Floats, threshold_sigma: float = 8.0) -> Bits:
    """Mark pixels whose dark value is off the local median by more than ``threshold_sigma`` robust sigmas."""
    rest = dark - ndimage.median_filter(dark, MEDIAN_PX)
    sigma = max(float(np.median(np.abs(rest))) / MAD_PER_SIGMA, 0.5)
    return np.where(np.abs(rest) > threshold_sigma * sigma, np.uint8(Reason.DARK), np.uint8(0))


def bright_spots(
    net: Floats, gain_adu: float, read_variance: float, threshold_sigma: float = 6.0, grow_px: int = 1
) -> Bits:
    """Mark gamma spots: pixels above the local median by more than ``threshold_sigma`` of its noise.

    noise^2 = max(g median + r^2, robust spread of the image's own residuals^2): a threshold on the median of
    5 x 5 pixels; every spot grows by ``grow_px``, where its light still shows. One-sided: a gamma only adds.

    Args:
        net: dark-corrected image, shape (ny, nx), finite.
        gain_adu: ADU of variance per ADU of signal of a single pixel.
        read_variance: ADU^2 per pixel.
        threshold_sigma: at 6 a clean image loses about 1 pixel in 10^7 more than by chance of its tails.
        grow_px: pixels around each.

    Returns:
        Bits, same shape.
    """
    middle = ndimage.median_filter(net, MEDIAN_PX)
    rest = net - middle
    model = np.sqrt(np.maximum(gain_adu * middle, 0.0) + read_variance)
    seen = float(np.median(np.abs(rest / model))) / MAD_PER_SIGMA
    spots = rest > threshold_sigma * model * max(seen, 1.0)
    if grow_px:
        spots = ndimage.binary_dilation(spots, np.ones((3, 3), bool), iterations=grow_px)
    return np.where(spots, np.uint8(Reason.SPOT), np.uint8(0))


def saturated(mean: Floats, full_adu: int = 65535) -> Bits:
    """Mark pixels within 1 % of the end of the converter."""
    return np.where(mean >= 0.99 * full_adu, np.uint8(Reason.SATURATED), np.uint8(0))


def combine(parts: Sequence[Bits], settings: dict[str, Any]) -> PixelMask:
    """Return one mask of several parts of equal shape.

    Raises:
        ValueError: if the shapes differ, or if more than half of the pixels would be lost.
    """
    bits = np.zeros(parts[0].shape, np.uint8)
    for part in parts:
        if part.shape != bits.shape:
            raise ValueError(f"masks of {part.shape} and {bits.shape} pixels cannot be combined")
        bits |= part
    lost = np.count_nonzero(bits) / bits.size
    if lost > 0.5:
        raise ValueError(
            f"{100 * lost:.0f} % of the pixels are masked: dark, open beam or threshold is wrong"
        )
    return PixelMask(bits, settings)


def spots_expected(threshold_sigma: float, n_pixels: int) -> float:
    """Return how many pixels of Gaussian noise alone pass the threshold."""
    return 0.5 * math.erfc(threshold_sigma / math.sqrt(2.0)) * n_pixels
