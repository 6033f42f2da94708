"""EDS maps of Bruker (``.bcf``) and JEOL (``.pts``) through RosettaSciIO, in a process of its own.

RosettaSciIO is GPL-3.0: it is not part of any default install and nothing of it is copied here. Who wants it
installs the extra ``vendor-maps``. The permissive way is to export the map as HDF5, TIFF or npz.
Its compiled decoder was seen to end the whole process (segmentation fault) on damaged files, so a child
process (``vendor_maps_worker``) decodes, with limited memory and time, and hands over a neutral table of
counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import MAX_CHANNELS, MAX_COUNT, file_size
from drivers.files.errors import FileError
from drivers.files.recordings import Block, RecordedMap

MAX_BYTES = 1 << 31
MAX_PIXELS = 1 << 24
TIMEOUT_S = 600.0
ROWS_PER_BLOCK = 1 << 20
MARKS = {".bcf": b"AAMVHFSS", ".pts": b""}
KEV_PER_UNIT = {"kev": 1.0, "ev": 1e-3}
UM_PER_UNIT = {"um": 1.0, "µm": 1.0, "nm": 1e-3, "mm": 1e3}


def read(path: Path) -> RecordedMap:
    """Read the map of a .bcf or .pts file. Raises FileError."""
    suffix = path.suffix.lower()
    if suffix not in MARKS:
        raise FileError(path, "", "a .bcf or .pts file")
    file_size(path, MAX_BYTES)
    with path.open("rb") as file:
        head = file.read(8)
    if not head.startswith(MARKS[suffix]):
        raise FileError(path, "byte 0", f"the mark of a {suffix} file", token=head)
    for name in ("rsciio", "sparse"):
        if find_spec(name) is None:
            raise FileError(path, "", f"the package {name}: pip install operando[vendor-maps]")
    about, counts = _decoded(path, suffix)
    return _checked(path, about, counts)


def _decoded(path: Path, suffix: str) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Return what the child found: shape and axes, and rows of pixel, channel, counts."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        command = [sys.executable, "-m", "drivers.files.vendor_maps_worker", str(path.resolve()), folder]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise FileError(path, "", f"a {suffix} file that decodes within {TIMEOUT_S:g} s") from error
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            why = f"its decoder ended by signal {-done.returncode}" if done.returncode < 0 else lines[-1]
            raise FileError(path, "", f"a whole {suffix} file", why)
        about: dict[str, Any] = json.loads((place / "about.json").read_text())
        return about, np.load(place / "counts.npy", allow_pickle=False)


def _checked(path: Path, about: dict[str, Any], counts: NDArray[np.int64]) -> RecordedMap:
    ny, nx, n_channels = about["shape"]
    axes = about["axes"]
    if ny * nx > MAX_PIXELS or n_channels > MAX_CHANNELS:
        raise FileError(path, "", f"at most {MAX_PIXELS} pixels, {MAX_CHANNELS} channels", about["shape"])
    if counts.size and (int(counts[2].min()) < 0 or int(counts[2].max()) > MAX_COUNT):
        raise FileError(path, "", f"counts from 0 to {MAX_COUNT}")
    scale = KEV_PER_UNIT.get(str(axes[2]["units"]).lower())
    energy = None if scale is None else (axes[2]["offset"] * scale, axes[2]["scale"] * scale)
    if energy is not None and not (np.isfinite(energy).all() and energy[1] > 0.0):
        raise FileError(path, "", "an energy axis that rises", energy)
    pitch = [UM_PER_UNIT.get(str(axis["units"]).lower(), np.nan) * abs(axis["scale"]) for axis in axes[:2]]
    known = bool(np.isfinite(pitch).all()) and min(pitch) > 0.0
    return RecordedMap(
        path, nx, ny, 1, n_channels, lambda: _blocks(counts), energy,
        width_um=pitch[1] * nx if known else None, height_um=pitch[0] * ny if known else None,
        notes=("read with RosettaSciIO",),
    )  # fmt: skip


def _blocks(counts: NDArray[np.int64]) -> Iterator[Block]:
    for first in range(0, counts.shape[1], ROWS_PER_BLOCK):
        pixel, channel, number = counts[:, first : first + ROWS_PER_BLOCK]
        yield Block(pixel, np.zeros(pixel.size, np.int64), channel, number)
