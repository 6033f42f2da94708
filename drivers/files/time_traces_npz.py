"""Time traces in numpy ``.npz``: one array per line, or ``counts`` alone; optional scalar ``dwell_s``.

Sizes are checked before anything is unpacked and nothing is unpickled, as for maps (``npz_map``). NaN marks a
missing sample.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from drivers.files import zip_safe
from drivers.files.errors import FileError
from drivers.files.npz_map import MAX_MEMBERS, _array
from drivers.files.time_traces import BLOCK_ROWS, MAX_SAMPLE, RecordedTrace, TraceBlock

MAX_LINES = 64


def read(path: Path) -> RecordedTrace:
    """Read a trace; all of it is in memory. Raises FileError."""
    with zip_safe.opened(path) as archive:
        return _read(path, archive)


def _read(path: Path, archive: zipfile.ZipFile) -> RecordedTrace:
    names = archive.namelist()
    if not names or len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise FileError(path, "", f"1 to {MAX_MEMBERS} different arrays", f"{len(names)}")
    dwell_s = None
    columns, lines = [], []
    for name in names:
        array = _array(path, archive, name)
        label = name.removesuffix(".npy")
        if label == "dwell_s":
            if array.size != 1 or not 0 < float(array.reshape(())) < 3600:
                raise FileError(path, name, "one dwell time in seconds", array.shape)
            dwell_s = float(array.reshape(()))
            continue
        if array.ndim != 1 or array.size == 0:
            raise FileError(path, name, "one column of samples", array.shape)
        columns.append(array.astype(np.float64))
        lines.append(label)
    if not columns or len(columns) > MAX_LINES or len({c.size for c in columns}) != 1:
        sizes = ", ".join(f"{n}: {c.size}" for n, c in zip(lines, columns, strict=True))
        raise FileError(path, "", "columns of one length", sizes or "none")
    table = np.stack(columns)
    if np.isinf(table).any() or float(np.nanmax(np.abs(table), initial=0.0)) > MAX_SAMPLE:
        raise FileError(path, "", f"samples below {MAX_SAMPLE:g}", "larger ones")

    def blocks() -> Iterator[TraceBlock]:
        for first in range(0, table.shape[1], BLOCK_ROWS):
            yield TraceBlock(first, table[:, first : first + BLOCK_ROWS])

    notes = ("samples are taken as following each other",)
    return RecordedTrace(path, tuple(lines), dwell_s, blocks, notes)
