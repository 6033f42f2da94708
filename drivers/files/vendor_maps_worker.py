"""The child process that decodes a vendor's map: python -m drivers.files.vendor_maps_worker FILE FOLDER.

It writes about.json (shape, axes) and counts.npy (pixel, channel, counts; shape (3, n)) into FOLDER, or
ends with one line on standard error. Its memory is limited, so that a damaged file cannot take the machine's.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

MAX_MEMORY_BYTES = 8 << 30  # address space; a 512 x 512 x 4096 map needs under 1 GB
CELLS_PER_SLAB = 1 << 25


def main(path: Path, folder: Path) -> None:
    """Decode one file, slab by slab."""
    _limit_memory()
    name = "rsciio.bruker" if path.suffix.lower() == ".bcf" else "rsciio.jeol"
    options: dict[str, Any] = {"select_type": "spectrum_image"} if path.suffix.lower() == ".bcf" else {}
    entries = import_module(name).file_reader(str(path), lazy=True, **options)
    found = next((entry for entry in entries if len(entry["data"].shape) == 3), None)
    if found is None or 0 in found["data"].shape or found["data"].dtype.kind not in "ui":
        raise ValueError("no map of spectra in this file")
    data = found["data"]
    ny, nx, n_channels = (int(n) for n in data.shape)
    parts = []
    step = max(1, CELLS_PER_SLAB // (nx * n_channels))
    for first in range(0, ny, step):
        slab = np.asarray(data[first : first + step])
        y, x, channel = np.nonzero(slab)
        parts.append(np.stack([(y + first) * nx + x, channel, slab[y, x, channel].astype(np.int64)]))
    np.save(folder / "counts.npy", np.concatenate(parts, axis=1).astype(np.int64))
    axes = [
        {"units": str(a.get("units", "")), "scale": float(a["scale"]), "offset": float(a["offset"])}
        for a in found["axes"]
    ]
    (folder / "about.json").write_text(json.dumps({"shape": [ny, nx, n_channels], "axes": axes}))


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


if __name__ == "__main__":
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # the parent wants one line, whatever it was
        sys.exit(f"{type(error).__name__}: {error}".replace("\n", " "))
