"""``--trace-wire FILE``: every byte on every wire of a station, for a report that can be played back."""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from drivers.wire_trace import WireTrace, playable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from controller.config.station import Station


def begin(path: Path, station: Station, station_file: Path) -> WireTrace:
    """Begin a trace of a station. Raises OSError if the file cannot be written."""
    about = {
        "station": station.name,
        "version": version("operando"),
        "speed": station.bench.speed if station.bench is not None else 1.0,
        "lines": {name: line.model_dump() for name, line in station.lines.items()},
        "station_toml": playable(station_file.read_text(encoding="utf-8")),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return WireTrace(path, about)


@contextlib.contextmanager
def traced(path: Path | None, station: Station, station_file: Path) -> Iterator[WireTrace | None]:
    """Trace for as long as the block lasts, if there is a path. Raises OSError as ``begin`` does."""
    trace = None if path is None else begin(path, station, station_file)
    try:
        yield trace
    finally:
        if trace is not None:
            trace.close()
