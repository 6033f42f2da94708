"""ASCII ``.Spe`` spectra: sections ``$NAME:`` as MAESTRO and GammaVision write them, and their relatives.

Source: ORTEC Software File Structure Manual 753800, chapter "ASCII SPE". Counts stand one per line
(MAESTRO) or several, as "12." (PyMca's steel.spe). The calibration polynomial is taken at ``channel + 0.5``,
the middle of a bin whose lower edge is its number: the convention of the reference values in the tests.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import MAX_CHANNELS, line_number, parse_count, parse_float, parse_int, read_lines
from drivers.files.errors import FileError
from drivers.files.recordings import RecordedSpectrum

MAX_COEFFICIENTS = 6
Sections = dict[str, tuple[int, list[str]]]  # name -> (index of its first line, lines)


def read(path: Path) -> RecordedSpectrum:
    """Read one spectrum. Raises FileError."""
    sections = _sections(path, read_lines(path))
    if "DATA" not in sections:
        raise FileError(path, "", "a $DATA: section", "sections " + ", ".join(sections))
    counts = _counts(path, *sections["DATA"])
    live_s, real_s = _times(path, sections)
    started, notes = _started(sections)
    title = " ".join(line.strip() for line in sections.get("SPEC_ID", (0, []))[1]).strip()
    return RecordedSpectrum(
        path=path, counts=counts, live_s=live_s, real_s=real_s, started=started,
        energy_kev=_energy(path, sections), centre=0.5, title=title, notes=notes,
    )  # fmt: skip


def _sections(path: Path, lines: list[str]) -> Sections:
    sections: Sections = {}
    name = ""
    for index, line in enumerate(lines):
        if line.startswith("$"):
            name = line[1:].split(":", 1)[0].strip()
            if not name or name in sections:
                raise FileError(
                    path, line_number(index), "a section name that has not been used before", line
                )
            sections[name] = (index + 1, [])
        elif name:
            sections[name][1].append(line)
        elif line.strip():
            raise FileError(path, line_number(index), "a section such as $SPEC_ID:", token=line)
    if not sections:
        raise FileError(path, "", "sections such as $SPEC_ID: and $DATA:", "only blank lines")
    return sections


def _counts(path: Path, first_line: int, lines: list[str]) -> NDArray[np.int64]:
    limits = lines[0].split() if lines else []
    if len(limits) != 2:
        raise FileError(path, line_number(first_line), "first and last channel", token=" ".join(limits))
    first = parse_int(path, line_number(first_line), limits[0], 0, MAX_CHANNELS - 1)
    last = parse_int(path, line_number(first_line), limits[1], first, MAX_CHANNELS - 1)
    counts = np.zeros(last + 1, np.int64)
    channel = first
    for offset, line in enumerate(lines[1:], 1):
        for token in line.split():
            place = line_number(first_line + offset)
            if channel > last:
                raise FileError(path, place, f"the end of the data after channel {last}", token=token)
            counts[channel] = parse_count(path, place, token)
            channel += 1
    if channel != last + 1:
        raise FileError(path, "$DATA", f"{last + 1 - first} counts", f"{channel - first} (a truncated file)")
    return counts


def _times(path: Path, sections: Sections) -> tuple[float | None, float | None]:
    if "MEAS_TIM" not in sections:
        return None, None
    index, lines = sections["MEAS_TIM"]
    tokens = lines[0].split() if lines else []
    if len(tokens) != 2:
        raise FileError(path, line_number(index), "live and real time in s", token=" ".join(tokens))
    live_s, real_s = (parse_float(path, line_number(index), token, "a time in s") for token in tokens)
    if not 0 <= live_s <= real_s + 1.0:  # both are written as rounded seconds
        raise FileError(path, line_number(index), "0 <= live time <= real time in s", token=lines[0])
    return live_s, real_s


def _started(sections: Sections) -> tuple[datetime | None, tuple[str, ...]]:
    lines = sections.get("DATE_MEA", (0, []))[1]
    if not lines or not lines[0].strip():
        return None, ()
    try:
        return datetime.strptime(lines[0].strip(), "%m/%d/%Y %H:%M:%S"), ()
    except ValueError:
        return None, (f"start time {lines[0].strip()[:40]!r} is not MM/DD/YYYY hh:mm:ss and was not used",)


def _energy(path: Path, sections: Sections) -> tuple[float, ...] | None:
    if "MCA_CAL" in sections:
        index, lines = sections["MCA_CAL"]
        order = parse_int(path, line_number(index), lines[0] if lines else "", 1, MAX_COEFFICIENTS)
        tokens = lines[1].split() if len(lines) > 1 else []
        place, values, units = line_number(index + 1), tokens[:order], tokens[order:]
        if len(values) != order or units not in ([], ["keV"]):
            raise FileError(path, place, f"{order} coefficients and the unit keV", token=" ".join(tokens))
    elif "ENER_FIT" in sections:
        index, lines = sections["ENER_FIT"]
        values, place = (lines[0].split() if lines else [])[:MAX_COEFFICIENTS], line_number(index)
    else:
        return None
    coefficients = tuple(parse_float(path, place, token, "an energy coefficient") for token in values)
    if len(coefficients) < 2 or coefficients[1] <= 0:
        return None  # "0 0": the programs' way of saying that no calibration was made
    return coefficients
