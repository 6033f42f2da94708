"""Residual images of a recorded run: the diagnostic cube of each scan, filled from its raw events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.rawfile import read_index, read_words
from controller.reduce.decode import PassStream
from edge.event_kernels import UNDERFLOW
from edge.events import Packer
from edge.ion_beam import IonBeamReducer
from edge.ion_beam_residual import Residual, cube_table, empty_cube, residual

Residuals = dict[tuple[int, str], Residual]


def residuals(folder: Path, reducer: IonBeamReducer) -> Residuals:
    """Return the residual image of every scan and X-ray detector, by (scan, detector).

    One cube is held at a time, so memory is bounded by 64 MB whatever the run.

    Args:
        folder: of the run, with ``raw``.
        reducer: after the reduction of that run.
    """
    ends = _pass_ends(folder)
    found: Residuals = {}
    for number, scan in reducer.scans.items():
        if scan.start.grid is None or not scan.blocks:
            continue
        for name, detector in reducer.settings.detectors.items():
            if detector.kind != "sdd":
                continue
            image = _one(folder, reducer, number, name, ends)
            if image is not None:
                found[number, name] = image
    return found


def _pass_ends(folder: Path) -> dict[tuple[int, int], dict[str, Any]]:
    return {
        (message["scan"], message["n"]): message
        for message in read_index(folder / "raw")
        if message.get("k") == "pass_end"
    }


def _one(
    folder: Path, reducer: IonBeamReducer, number: int, name: str, ends: dict[tuple[int, int], dict[str, Any]]
) -> Residual | None:
    import numpy as np

    scan, detector = reducer.scans[number], reducer.settings.detectors[name]
    grid = scan.start.grid
    if grid is None:
        return None
    cube, factor = empty_cube(scan, detector)
    table = cube_table(detector, reducer.gains[name].value, factor)
    packer, tallies = Packer(grid.nx, grid.ny, detector.channels), np.zeros(UNDERFLOW, np.int64)
    for n in scan.passes:
        end = ends[number, n]
        entry, first = end["raw"][name], (end.get("frame0") or {}).get(name)
        for channel, frame in PassStream(first).replay(read_words(folder / "raw", entry)):
            for _, records in packer.pieces(channel, frame, tallies):
                cube.add(records, table)
    analysis = reducer.last_analysis
    dead_s = analysis.dead[name].tau_s if name in analysis.dead else 0.0
    return residual(reducer.settings, reducer.segmentations, scan, name, cube, factor, dead_s)
