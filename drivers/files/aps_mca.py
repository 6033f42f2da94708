"""Multi-detector ``.mca`` text files as the APS (GSECARS, XMAP saturn) software writes them.

A header of ``KEY: value per detector`` lines, then ``DATA:`` and one line of counts per channel, a column per
detector. Facts from the file format as xraylarch reads it; CAL_* are keV, evaluated at the channel number.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import (
    MAX_CHANNELS,
    MAX_DETECTORS,
    line_number,
    parse_count,
    parse_float,
    parse_int,
    read_lines,
)
from drivers.files.errors import FileError
from drivers.files.recordings import RecordedSpectrum

Header = dict[str, tuple[int, list[str]]]  # key -> (line index, values)


def read(path: Path) -> list[RecordedSpectrum]:
    """Read one spectrum per detector. Raises FileError."""
    lines = read_lines(path)
    header, first = _header(path, lines)
    n_detectors = _integer(path, header, "ELEMENTS", MAX_DETECTORS)
    n_channels = _integer(path, header, "CHANNELS", MAX_CHANNELS)
    counts = _counts(path, lines, first, n_channels, n_detectors)
    real = _numbers(path, header, "REAL_TIME", n_detectors)
    live = _numbers(path, header, "LIVE_TIME", n_detectors)
    if any(not 0 < a <= b for a, b in zip(live, real, strict=True)):
        raise FileError(path, line_number(header["LIVE_TIME"][0]), "0 < live time <= real time", live)
    energy = [_numbers(path, header, key, n_detectors) for key in ("CAL_OFFSET", "CAL_SLOPE")]
    energy += [_numbers(path, header, "CAL_QUAD", n_detectors)] if "CAL_QUAD" in header else []
    if any(slope <= 0 for slope in energy[1]):
        raise FileError(path, line_number(header["CAL_SLOPE"][0]), "positive slopes in keV", energy[1])
    started, notes = _started(header)
    return [
        RecordedSpectrum(
            path=path, counts=counts[:, d], detector=d, live_s=live[d], real_s=real[d], started=started,
            energy_kev=tuple(column[d] for column in energy), notes=notes,
        )
        for d in range(n_detectors)
    ]  # fmt: skip


def _header(path: Path, lines: list[str]) -> tuple[Header, int]:
    header: Header = {}
    for index, line in enumerate(lines):
        key, colon, rest = line.partition(":")
        key = key.strip()
        if not colon:
            raise FileError(path, line_number(index), "a line KEY: values", token=line)
        if key == "DATA":
            return header, index + 1
        if key == "ENVIRONMENT":  # written once per variable
            continue
        if key in header:
            raise FileError(path, line_number(index), "a key that has not been used before", token=key)
        header[key] = (index, rest.split())
    raise FileError(path, "", "a line DATA:", "none (a truncated file)")


def _values(path: Path, header: Header, key: str) -> tuple[str, list[str]]:
    if key not in header:
        raise FileError(path, "header", f"a line {key}:", "none")
    index, values = header[key]
    return line_number(index), values


def _integer(path: Path, header: Header, key: str, high: int) -> int:
    place, values = _values(path, header, key)
    if len(values) != 1:
        raise FileError(path, place, "one number", token=" ".join(values))
    return parse_int(path, place, values[0], 1, high)


def _numbers(path: Path, header: Header, key: str, n_detectors: int) -> list[float]:
    place, values = _values(path, header, key)
    if len(values) != n_detectors:
        raise FileError(path, place, f"{n_detectors} numbers, one per detector", token=" ".join(values))
    return [parse_float(path, place, value, key) for value in values]


def _counts(path: Path, lines: list[str], first: int, n_channels: int, n_detectors: int) -> NDArray[np.int64]:
    body = lines[first:]
    while body and not body[-1].strip():
        body.pop()
    if len(body) != n_channels:
        why = " (a truncated file)" if len(body) < n_channels else ""
        raise FileError(path, "DATA", f"{n_channels} lines", f"{len(body)}{why}")
    counts = np.zeros((n_channels, n_detectors), np.int64)
    for channel, line in enumerate(body):
        tokens, place = line.split(), line_number(first + channel)
        if len(tokens) != n_detectors:
            raise FileError(path, place, f"{n_detectors} counts, one per detector", token=line)
        counts[channel] = [parse_count(path, place, token) for token in tokens]
    return counts


def _started(header: Header) -> tuple[datetime | None, tuple[str, ...]]:
    text = " ".join(header.get("DATE", (0, []))[1])
    if not text:
        return None, ()
    try:
        return datetime.strptime(text, "%b %d, %Y %H:%M:%S.%f"), ()
    except ValueError:
        return None, (f"start time {text[:40]!r} was not understood and was not used",)
