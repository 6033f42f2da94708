"""What readers of images hand over: projections, volumes, stacks of maps, mass spectra on a raster.

Large data stay in the file: ``rows``, ``slab`` and ``spectra`` read a piece of bounded size on each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]


@dataclass(frozen=True)
class RecordedProjections:
    """Projections of a tomogram with flats and darks, still in the file.

    ``rows(first, last)`` returns (projections, flats, darks) of detector rows first to last - 1 as float32,
    shapes (n_angles, rows, n_columns), (n_flats, rows, n_columns), (n_darks, rows, n_columns).
    ``images(kind, first, last, rows)`` returns images first to last - 1 of "projections", "flats" or "darks"
    at some rows, rising, in the type of the file (64-bit numbers as float32).
    """

    path: Path
    n_angles: int
    n_rows: int
    n_columns: int
    n_flats: int
    n_darks: int
    angles_deg: NDArray[np.float64]  # (n_angles,), rising or falling
    rows: Callable[[int, int], tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]
    images: Callable[[str, int, int, Sequence[int]], Pixels]
    dtype: np.dtype[Any]  # of a pixel of a projection
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecordedVolume:
    """A volume of voxels; ``slab(first, last)`` reads planes first to last - 1 along the slowest axis."""

    path: Path
    shape: tuple[int, int, int]  # z, y, x
    dtype: np.dtype[Any]
    slab: Callable[[int, int], Pixels]
    voxel_um: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def segmented(self) -> bool:
        """Whether the voxels are already yes or no."""
        return self.dtype.kind == "b"


@dataclass(frozen=True)
class RecordedImages:
    """Maps of one raster by name, one plane in memory per call of ``plane``."""

    path: Path
    names: tuple[str, ...]
    ny: int
    nx: int
    dtype: np.dtype[Any]
    plane: Callable[[int], Pixels]
    pitch_um: tuple[float, float] | None = None  # along y, along x
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MassSpectrum:
    """What one pixel of an imaging mass spectrometer saw."""

    pixel: int  # y * nx + x
    mass: NDArray[np.float64]  # m/z, rising or not
    intensity: NDArray[np.float64]


@dataclass(frozen=True)
class RecordedMassMap:
    """Mass spectra on a raster. ``spectra()`` reads the file once more, spectrum by spectrum."""

    path: Path
    nx: int
    ny: int
    n_spectra: int
    n_values: int  # of all spectra together
    spectra: Callable[[], Iterator[MassSpectrum]]
    pitch_um: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
