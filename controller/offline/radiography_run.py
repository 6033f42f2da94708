"""Reading and reducing radiographs, one state at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.offline.radiography_options import Options
from drivers.files import images
from drivers.files.errors import FileError
from edge.radiography import (
    Exposure,
    ImageSums,
    Noise,
    choose_noise,
    dark_variance,
    photon_transfer,
)
from edge.radiography_depth import (
    Beam,
    Profile,
    RegionDepth,
    Setting,
    beam,
    dose,
    profile,
    region_depth,
)
from edge.radiography_mask import PixelMask, Reason, bright_spots, combine, dark_defects, saturated
from edge.radiography_scatter import Body, ScatterField, find_bodies, grid_transmission, scatter_field
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class State:
    """One sample image, reduced."""

    path: Path
    label: str
    n_frames: int
    sample: Beam
    plain: Beam  # without the scattering correction (the same object as ``sample`` if there was none)
    dose: Estimate
    regions: tuple[RegionDepth, ...]
    regions_plain: tuple[RegionDepth, ...]
    profile: Profile | None


def summed(paths: Sequence[Path]) -> tuple[ImageSums, int]:
    """Return the sums of all frames of some files, and the lowest of their full scales in ADU.

    Raises:
        ValueError: if they differ in size, or hold nothing.
    """
    sums, full_adu = None, 65535
    for path in paths:
        recorded = images.read(path)
        full_adu = min(full_adu, recorded.full_adu)
        if sums is None:
            sums = ImageSums(recorded.ny, recorded.nx)
        for frame in recorded.frames():
            try:
                sums.add(frame)
            except ValueError as error:
                raise FileError(path, "", f"an exposure that fits ({error})") from error
    if sums is None:
        raise ValueError("no image was given")
    return sums, full_adu


class Radiographs:
    """A set of radiographs with their common dark, open beam, reference, mask and noise."""

    def __init__(self, options: Options, first: Exposure | None = None, full_adu: int = 65535) -> None:
        """Prepare; ``first`` is the exposure of the first state where it was summed before."""
        self.options = options
        self.full_adu = full_adu
        self._summed = first
        self.state = lru_cache(maxsize=1)(self._state)
        self._grid = lru_cache(maxsize=2)(self._read_grid)

    @cached_property
    def dark(self) -> Exposure:
        """The mean dark."""
        return self.exposure(self.options.dark)

    @cached_property
    def open_beam(self) -> Exposure:
        """The mean open beam."""
        return self.exposure(self.options.open_beam)

    @cached_property
    def reference(self) -> Exposure:
        """What the samples are compared with."""
        return self.exposure(self.options.reference) if self.options.reference else self.open_beam

    def exposure(self, paths: Sequence[Path]) -> Exposure:
        """Sum all frames of some files. Raises ValueError if they differ in size."""
        sums, full_adu = summed(paths)
        self.full_adu = min(self.full_adu, full_adu)
        return sums.result()

    @cached_property
    def _first(self) -> Exposure:
        return self._summed or self.exposure(self.options.states[0])

    @cached_property
    def _first_mask(self) -> PixelMask:
        return self.state_mask(self._first)

    @cached_property
    def _raw_noise(self) -> Noise:
        """The noise with gamma spots in it: sets the threshold that finds them."""
        return self._noise(lambda one: one.mean - self.dark.mean)

    @cached_property
    def noise(self) -> Noise:
        """The noise of the good pixels."""
        return self._noise(lambda one: self._first_mask.applied(one.mean - self.dark.mean))

    def _noise(self, net: Any) -> Noise:
        read = dark_variance(self.dark)
        found = []
        if (halves := self.open_beam.halves) is not None:
            first, second = (net(Exposure(half, 1)) for half in halves)
            found.append(photon_transfer(first, second, read, self.open_beam.half_frames))
        pairs = [(self.open_beam, self.reference)] if self.options.reference else []
        pairs.append((self.reference, self._first))
        for a, b in pairs:
            found.append(photon_transfer(net(a), net(b), read, (a.n_frames, b.n_frames)))
        return choose_noise(found)

    @cached_property
    def mask(self) -> PixelMask:
        """Dark defects and the spots of dark-corrected reference and open beam, or the mask that was given.

        Spots of each sample are added for that sample only (``state_mask``).
        """
        if self.options.mask is not None:
            bits, settings = images.read_mask(self.options.mask)
            if bits.shape != self.dark.mean.shape:
                raise FileError(self.options.mask, "", f"{self.dark.mean.shape} pixels", f"{bits.shape}")
            return PixelMask(bits, settings)
        noise, dark = self._raw_noise, self.dark.mean
        parts = [dark_defects(dark)]
        for one in (self.open_beam, self.reference) if self.options.reference else (self.open_beam,):
            parts += self._spots(one, noise)
        return combine(parts, {"spot_sigma": self.options.spot_sigma, "gain_adu": round(noise.gain(1), 6)})

    def _spots(self, one: Exposure, noise: Noise) -> list[NDArray[np.uint8]]:
        net = one.mean - self.dark.mean
        gain, read = noise.gain(1) / one.n_frames, noise.read_variance / one.n_frames
        return [bright_spots(net, gain, read, self.options.spot_sigma), saturated(one.mean, self.full_adu)]

    def state_mask(self, one: Exposure) -> PixelMask:
        """Return the common mask and the spots of one sample; a given mask is used as it is."""
        if self.options.mask is not None:
            return self.mask
        return combine([self.mask.bits, *self._spots(one, self._raw_noise)], self.mask.settings)

    @cached_property
    def setting(self) -> Setting:
        """Noise, air region and dark frames."""
        return Setting(self.noise, self.options.air, self.dark.n_frames)

    @cached_property
    def bodies(self) -> list[Body]:
        """The black bodies."""
        grid, dark = self.exposure(self.options.black_body_open), self.dark.mean
        return find_bodies(grid.mean - dark, self.open_beam.mean - dark)

    @cached_property
    def grid_open(self) -> Beam:
        """The open beam with the grid."""
        return self._grid(self.options.black_body_open)

    def _read_grid(self, paths: tuple[Path, ...]) -> Beam:
        one = self.exposure(paths)
        return beam(one, self.dark, self.state_mask(one))

    @cached_property
    def grid_share(self) -> float:
        """The share of the beam that the grid lets pass."""
        masked = beam(self.open_beam, self.dark, self.mask)
        ratio = dose(self.grid_open, self.setting).value / dose(masked, self.setting).value
        return grid_transmission(self.grid_open.gross, masked.gross, ratio)

    def field(self, grid: Beam, of: Beam) -> ScatterField:
        """Return the scattered field of an image from its grid image, at its dose.

        Half of what the grid stops is the error of the scale: where scattering comes from is not known.
        """
        ratio = dose(of, self.setting).value / dose(grid, self.setting).value
        scale = ratio / self.grid_share
        return scatter_field(grid.gross, self.bodies, scale, scale * (1 - self.grid_share) / 2)

    def grid_of(self, number: int) -> Path | None:
        """Return the grid image that belongs to a sample."""
        paths = self.options.black_body
        return None if not paths else paths[number if len(paths) > 1 else 0]

    def _state(self, number: int) -> State:
        """Reduce one sample. Raises ValueError."""
        options = self.options
        exposure = self._first if number == 0 else self.exposure(options.states[number])
        mask = self._first_mask if number == 0 else self.state_mask(exposure)
        plain, reference = beam(exposure, self.dark, mask), self.reference_beam(mask)
        sample, against = plain, reference
        if (grid := self.grid_of(number)) is not None:
            sample_grid = self._grid((grid,))
            sample = beam(exposure, self.dark, mask, self.field(sample_grid, plain))
            against = beam(self.reference, self.dark, mask, self.field(self.grid_open, reference))
        regions = tuple(region_depth(sample, against, self.setting, one) for one in options.regions)
        before = regions
        if sample is not plain:
            before = tuple(region_depth(plain, reference, self.setting, one) for one in options.regions)
        along = None
        if options.along is not None:
            along = profile(
                sample, against, self.setting, options.along, bin_px=options.bin_px, strips=options.strips
            )
        label = options.labels[number] if options.labels else options.states[number][0].stem
        return State(
            options.states[number][0], label, exposure.n_frames, sample, plain, dose(plain, self.setting),
            regions, before, along,
        )  # fmt: skip

    def reference_beam(self, mask: PixelMask) -> Beam:
        """Return the reference without scattering correction."""
        return beam(self.reference, self.dark, mask)

    def pair(self, number: int) -> tuple[State, Beam, Beam]:
        """Return a state with its reference, with and without scattering correction (for maps)."""
        state = self.state(number)
        mask = PixelMask(np.where(np.isfinite(state.plain.gross), np.uint8(0), np.uint8(Reason.SPOT)))
        plain = self.reference_beam(mask)
        if state.sample is state.plain:
            return state, plain, plain
        return state, beam(self.reference, self.dark, mask, self.field(self.grid_open, plain)), plain
