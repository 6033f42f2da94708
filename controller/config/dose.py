"""The dose that an experiment gives to the sample: protons per area, at the place that gets most.

fluence of one raster = I t / (e A): beam current, beam time, area of the raster. Where the beam spot is
smaller than a pixel the protons do not spread over the pixel but stay in the spot, so the area of the spot
counts instead of the area of the pixel. Rasters that overlap add up; every overlap is looked at, so the
maximum is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from controller.config.experiment import Placed
from controller.config.instruments.zaber import Zaber
from controller.config.manual import Manual
from controller.config.scans import Raster, Scan, ScanBase
from controller.config.steps import Move
from controller.config.timing import longest_s

ELEMENTARY_COULOMB = 1.602176634e-19  # exact, SI 2019
CM2_PER_UM2 = 1e-8
EVERYWHERE_UM = 1e7  # a stage that is moved by hand may bring any place of the sample under the beam


@dataclass(frozen=True)
class Patch:
    """One raster on the sample and the fluence it gives everywhere inside."""

    left_um: float
    right_um: float
    bottom_um: float
    top_um: float
    per_cm2: float

    def covers(self, x_um: float, y_um: float) -> bool:
        """Return whether a point gets this fluence (edges not included)."""
        return self.left_um < x_um < self.right_um and self.bottom_um < y_um < self.top_um


def fluence_per_cm2(raster: Raster, beam_s: float, current_a: float, spot_um: float | None) -> float:
    """Return protons per cm2 where the beam really is, for ``beam_s`` seconds of unblanked beam.

    n = I t / (e nx ny a), with a the smaller of pixel area and spot area (a circle of diameter ``spot_um``).
    """
    nx, ny = raster.pixels
    pixel_um2 = raster.size_um[0] * raster.size_um[1] / (nx * ny)
    area_um2 = pixel_um2 if spot_um is None else min(pixel_um2, math.pi * spot_um**2 / 4.0)
    return current_a * beam_s / (ELEMENTARY_COULOMB * nx * ny * area_um2 * CM2_PER_UM2)


def longest_beam_s(placed: Placed) -> float:
    """Return the longest time that the beam can be on the sample in a scan, s.

    Whole passes, if their number is what ends the scan; else its duration or timeout, or, for a scan that
    follows others in ``parallel``, the longest of theirs.
    """
    step = placed.step
    if not isinstance(step, ScanBase):
        return 0.0
    beam_s = step.raster.scan().pass_s
    bounds = []
    if step.until is not None:
        bounds += [step.until.duration_s] if step.until.duration_s is not None else []
        bounds += [step.until.passes * beam_s] if step.until.passes is not None else []
    if step.timeout_s is not None:
        bounds.append(step.timeout_s)
    if step.until is None:
        bounds += [max((longest_s(other) for other in placed.companions), default=0.0)]
    return min(bounds) * placed.repeats if bounds else 0.0


class DosePlan:
    """Adds up the scans of an experiment."""

    def __init__(self, current_a: float, spot_um: float | None, stage: object = None) -> None:
        self.current_a = current_a
        self.spot_um = spot_um
        self.stage = stage if isinstance(stage, Zaber) else None

    def running_maximum(self, steps: Iterable[Placed]) -> Iterator[tuple[Placed, float]]:
        """Yield each scan with the highest dose anywhere on the sample after it."""
        patches: list[Patch] = []
        origin = shift = (0.0, 0.0)  # where the stage stands before its first move is taken for its centre
        for placed in steps:
            if isinstance(placed.step, Move):
                origin = placed.step.to_um
                if placed.step.stage_um is not None and self.stage is not None:
                    shift = self.stage.shift_um(placed.step.stage_um)
            if isinstance(placed.step, Manual) and placed.step.scan is not None:
                by_hand = Placed(placed.path, placed.step.scan_step(placed.step.scan.passes), placed.parents)
                place = (origin[0] + shift[0], origin[1] + shift[1])
                patch = self._patch(by_hand, placed.step.scan.raster, place)
                anywhere = Patch(-EVERYWHERE_UM, EVERYWHERE_UM, -EVERYWHERE_UM, EVERYWHERE_UM, patch.per_cm2)
                patches.append(patch if placed.step.stage is None else anywhere)
                yield placed, highest(patches)
            if isinstance(placed.step, ScanBase):
                place = (origin[0] + shift[0], origin[1] + shift[1])
                patches += self._patches(placed, placed.step, place)
                yield placed, highest(patches)

    def _patches(self, placed: Placed, step: ScanBase, place: tuple[float, float]) -> list[Patch]:
        """Return what a scan gives: one patch, or one for each tile of a mosaic."""
        mosaic = step.mosaic if isinstance(step, Scan) else None
        if mosaic is None or self.stage is None:
            return [self._patch(placed, step.raster, place)]
        middle_um = self.stage.shift_um(mosaic.centre_um)
        return [
            self._patch(
                placed, step.raster, (middle_um[0] + tile.shift_um[0], middle_um[1] + tile.shift_um[1])
            )
            for tile in mosaic.walk(step.raster)
        ]

    def _patch(self, placed: Placed, raster: Raster, origin: tuple[float, float]) -> Patch:
        x, y = (raster.centre_um[i] + origin[i] for i in (0, 1))
        width, height = raster.size_um
        beam_s = longest_beam_s(placed)
        dose = fluence_per_cm2(raster, beam_s, self.current_a, self.spot_um)
        until = placed.step.until if isinstance(placed.step, ScanBase) else None
        if until is not None and until.dose_per_cm2 is not None and dose > 0.0:
            mean = fluence_per_cm2(raster, beam_s, self.current_a, None)  # what the scan itself stops at
            dose *= min(1.0, until.dose_per_cm2 * placed.repeats / mean)
        return Patch(x - width / 2, x + width / 2, y - height / 2, y + height / 2, dose)


def highest(patches: Iterable[Patch]) -> float:
    """Return the largest sum of overlapping patches, looking once between each pair of neighbouring edges."""
    all_of_them = list(patches)
    xs = sorted({edge for patch in all_of_them for edge in (patch.left_um, patch.right_um)})
    ys = sorted({edge for patch in all_of_them for edge in (patch.bottom_um, patch.top_um)})
    best = 0.0
    for left, right in pairwise(xs):
        for bottom, top in pairwise(ys):
            point = ((left + right) / 2.0, (bottom + top) / 2.0)
            best = max(best, sum(patch.per_cm2 for patch in all_of_them if patch.covers(*point)))
    return best
