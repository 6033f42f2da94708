"""Files of a Compton run to counts per pixel: dark, calibration, frames in blocks on a few threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controller.offline.compton_options import NONE, SELF, Options
from controller.reduce.hit_files import recount
from drivers.files import hexitec_calibration, hexitec_frames, hexitec_hxt, hit_list
from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from edge.compton_frames import Compton, Counts, Dark, DarkLevel, EnergyBins, PixelScale, Tables

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FIRST_FRAMES = 64  # place the windows of the dark histogram
HIGHEST_KEV = 2000.0  # of a histogram file that can be in keV


@dataclass(frozen=True)
class Recorded:
    """What one file holds: spectra per pixel, and for frames what they were counted from."""

    path: Path
    kind: str
    spectra: NDArray[np.int64]
    bins: EnergyBins
    mask: Bools
    counts: Counts | None = None
    dark: DarkLevel | None = None
    noisy: int = 0
    notes: tuple[str, ...] = ()


def is_hit_list(path: Path) -> bool:
    """Return whether a file is a part of the hits that a run recorded. Raises FileError."""
    file_size(path, hexitec_frames.MAX_BYTES)
    try:
        with path.open("rb") as file:
            return file.read(8) == hit_list.MAGIC
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error


def is_histogram(path: Path) -> bool:
    """Return whether a file begins like a histogram. Raises FileError."""
    file_size(path, hexitec_frames.MAX_BYTES)
    try:
        with path.open("rb") as file:
            return file.read(8) == hexitec_hxt.MARK
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error


def check(path: Path, options: Options) -> list[str]:
    """Return what is wrong with a file and its options, from headers only."""
    try:
        if is_histogram(path):
            return []
        if is_hit_list(path):
            _first_part(path)
            return []
        recording = hexitec_frames.read(path, options.shape)
        problems = []
        if options.dark is None:
            problems.append(f"{path}: frames need --dark FILE (or none, or self)")
        elif isinstance(options.dark, Path):
            dark = hexitec_frames.read(options.dark, (recording.ny, recording.nx))
            if (dark.ny, dark.nx) != (recording.ny, recording.nx):
                problems.append(f"{options.dark}: {dark.ny} x {dark.nx} pixels, the frames have others")
        if options.calibration is None and options.gain is None:
            problems.append(f"{path}: frames need --gain (and --offset), or --calibration")
        else:
            calibration(options, recording.ny, recording.nx)
        if options.mask is not None:
            mask(options, recording.ny, recording.nx)
    except (FileError, ValueError) as error:
        return [str(error)]
    return problems


def calibration(options: Options, ny: int, nx: int) -> tuple[Floats, Floats]:
    """Return gain and offset for the frames, NaN where not calibrated. Raises ValueError."""
    if options.calibration is not None:
        gain, offset = hexitec_calibration.read_npz(options.calibration)
    elif isinstance(options.gain, Path) and isinstance(options.offset, Path):
        gain, offset = hexitec_calibration.read_text(options.gain, options.offset)
    else:
        one = options.gain
        gain = hexitec_calibration.read_matrix(one) if isinstance(one, Path) else np.full((ny, nx), one)
        gain = np.where(gain > 0, gain, np.nan)
        two = options.offset
        offset = hexitec_calibration.read_matrix(two) if isinstance(two, Path) else np.full(gain.shape, two)
    y, x = options.corner
    part = (slice(y, y + ny), slice(x, x + nx))
    if gain.shape != offset.shape or gain[part].shape != (ny, nx):
        raise ValueError(
            f"a calibration of {gain.shape[0]} x {gain.shape[1]} and offsets of {offset.shape[0]} x "
            f"{offset.shape[1]} pixels have no {ny} x {nx} at --corner {y},{x}"
        )
    return gain[part], offset[part]


def mask(options: Options, ny: int, nx: int) -> Bools:
    """Return the pixels to be used. Raises ValueError."""
    if options.mask is None:
        return np.ones((ny, nx), bool)
    table = hexitec_calibration.read_matrix(options.mask)
    if table.shape != (ny, nx):
        raise ValueError(
            f"{options.mask}: {table.shape[0]} x {table.shape[1]} numbers, frames are {ny} x {nx}"
        )
    return np.asarray(table != 0)


def load(path: Path, options: Options) -> Recorded:
    """Return the spectra of a file, counted if it holds frames. Raises ValueError."""
    if is_histogram(path):
        return _histogram(path, options)
    if is_hit_list(path):
        return _hits(path, options)
    recording = hexitec_frames.read(path, options.shape)
    tables, dark, usable = prepare(recording, options)
    reducer = count(recording, tables, options)
    return finish(path, recording.kind, reducer, dark, usable, options, recording.notes)


def finish(
    path: Path, kind: str, reducer: Compton, dark: DarkLevel | None, usable: Bools, options: Options,
    notes: tuple[str, ...],
) -> Recorded:  # fmt: skip
    """Return what a reducer has counted."""
    counts = reducer.result()
    used = usable & counts.usable
    return Recorded(path, kind, counts.spectra, counts.bins, used, counts, dark, reducer.tables.noisy, notes)


def prepare(
    recording: hexitec_frames.FrameRecording, options: Options
) -> tuple[Tables, DarkLevel | None, Bools]:
    """Return tables, dark level and mask for frames. Raises ValueError."""
    shape = recording.ny, recording.nx
    dark = None
    if options.dark == SELF:
        dark = level(recording)
    elif isinstance(options.dark, Path):
        dark = level(hexitec_frames.read(options.dark, shape))
    elif options.dark != NONE:
        raise ValueError("frames need --dark FILE (or none, or self)")
    gain, offset = calibration(options, *shape)
    usable = mask(options, *shape)
    zeros = np.zeros(shape)
    scale = PixelScale(
        zeros if dark is None else dark.mean_adu, zeros if dark is None else dark.noise_adu, gain, offset,
        np.ones(shape, bool),
    )  # fmt: skip
    return scale.tables(options.threshold_kev, options.bins), dark, usable


def level(recording: hexitec_frames.FrameRecording) -> DarkLevel:
    """Return dark level and noise of a recording, streaming."""
    _, first = next(recording.blocks(0, FIRST_FRAMES))
    dark = Dark(first)
    for _, frames in recording.blocks(0, None):
        dark.add(frames)
    return dark.result()


def count(recording: hexitec_frames.FrameRecording, tables: Tables, options: Options) -> Compton:
    """Count a recording on ``options.threads`` threads: each takes a part, the parts are added exactly."""
    workers = max(1, min(options.threads, recording.n_frames // (4 * recording.per_block) + 1))
    cuts = [recording.n_frames * k // workers for k in range(workers + 1)]

    def part(k: int) -> Compton:
        reducer = Compton(tables, add_pairs=options.add_pairs, ring=options.ring)
        for first, frames in recording.blocks(cuts[k], cuts[k + 1]):
            reducer.add(frames, first)
        return reducer

    if workers == 1:
        return part(0)
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(part, range(workers)))
    for other in parts[1:]:
        parts[0].merge(other)
    return parts[0]


def _first_part(path: Path) -> str:
    """Return the exposure that a part of a record stands for. Raises FileError unless it is the first."""
    exposure = hit_list.read(path).exposure
    first = hit_list.part_path(path.parent, exposure, 1)
    if path.name != first.name:
        raise FileError(path, "", f"the first part of the exposure, {first.name}: it stands for all of them")
    return exposure


def _hits(path: Path, options: Options) -> Recorded:
    """Count the whole exposure that a part belongs to, with the tables that lie beside it."""
    exposure = _first_part(path)
    reducer = recount(path.parent, exposure)
    notes = (f"all parts of {exposure}, with its own dark level, calibration and threshold",)
    usable = mask(options, reducer.ny, reducer.nx)
    return finish(path, "hits of a run", reducer, None, usable, options, notes)


def _histogram(path: Path, options: Options) -> Recorded:
    found = hexitec_hxt.read(path)
    bins = EnergyBins(found.width, found.counts.shape[2], found.low)
    if bins.edges_kev()[-1] > HIGHEST_KEV:
        raise ValueError(
            f"{path}: bins up to {bins.edges_kev()[-1]:g} cannot be in keV: calibrate them first"
        )
    ny, nx = found.counts.shape[:2]
    lit = found.counts.sum(axis=2) > 0
    return Recorded(
        path, f"histogram, version {found.version}", found.counts, bins, mask(options, ny, nx) & lit
    )
