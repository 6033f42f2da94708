"""``operando reduce maps``: EDS, micro-XRF and ToF-SIMS maps of others to lines, regions and ratios."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.offline import maps_reduce
from controller.offline.maps_sums import LineAsked, MapOptions, sums_of
from controller.offline.technique import Job, Merge, Problems, Report, Technique
from controller.offline.values import KEV_PER_UNIT, parse_energy, parse_in
from drivers.files import foreign_maps
from drivers.files.errors import FileError
from edge.foreign_maps import WAYS
from edge.xray_lines import GROUPS

LIGHT_KEV = {"C": 0.277, "N": 0.3924, "O": 0.5249, "F": 0.6768}
"""K-alpha of light elements, X-ray Data Booklet (LBNL 2009), table 1-2."""
MASS_UNITS = ("Da", "u")


@dataclass(frozen=True)
class _Place:
    value: float
    unit: str


def _place(text: str) -> _Place:
    """Return a place on an axis: keV from an energy, Da from a mass. Raises ValueError."""
    words = text.split()
    if len(words) == 2 and words[1] in MASS_UNITS:
        return _Place(parse_in(text, dict.fromkeys(MASS_UNITS, 1.0), "a mass"), "Da")
    if len(words) != 2 or words[1] not in KEV_PER_UNIT:
        units = ", ".join((*KEV_PER_UNIT, *MASS_UNITS))
        raise ValueError(f"{text!r} is not a place on an axis: write a number and a unit ({units})")
    return _Place(parse_energy(text), "keV")


def parse_lines(text: str) -> tuple[LineAsked, ...]:
    """Return lines from "Fe, Si=1.74 keV, Li=7.016 Da", or names of images. Raises ValueError."""
    found: list[LineAsked] = []
    for word in (part.strip() for part in text.split(",")):
        name, _, where = (part.strip() for part in word.partition("="))
        if not name:
            raise ValueError(f"an empty line name in {text!r}")
        if name in {line.name for line in found}:
            raise ValueError(f"line {name!r} is named twice")
        if where:
            place = _place(where)
            found.append(LineAsked(name, place.value, place.unit))
            continue
        group = GROUPS.get(f"{name} Ka")
        energy = group.mean_kev if group is not None else LIGHT_KEV.get(name)
        found.append(LineAsked(name, energy, "keV" if energy is not None else None))
    return tuple(found)


def parse_percent(text: str) -> float:
    """Return a fraction from "5 %". Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*%\s*", text)
    if match is None:
        raise ValueError(f'{text!r} is not a relative error: write for example "5 %"')
    value = float(match[1]) / 100.0
    if not 0.0 < value < 10.0:
        raise ValueError(f"{text!r} is not between 0 and 1000 %")
    return value


def parse_counts(text: str) -> float:
    """Return counts from "400 counts". Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*(counts)?\s*", text)
    if match is None or float(match[1]) <= 0.0:
        raise ValueError(f'{text!r} is not a number of counts: write for example "400 counts"')
    return float(match[1])


def parse_ratios(text: str, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return pairs from "Fe/S, Al/Si". Raises ValueError for a line that is not asked for."""
    pairs = []
    for word in (part.strip() for part in text.split(",")):
        parts = [name.strip() for name in word.split("/")]
        if len(parts) != 2 or not set(parts) <= set(names) or parts[0] == parts[1]:
            raise ValueError(f"{word!r} is not a ratio of two of the lines {', '.join(names)}")
        pairs.append((parts[0], parts[1]))
    return tuple(pairs)


def parse_rectangle(text: str) -> tuple[int, int, int, int]:
    """Return x0, x1, y0, y1 in pixels from "10:60, 5:70" (x first). Raises ValueError."""
    match = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*", text)
    if match is None:
        raise ValueError(f'{text!r} is not a rectangle in pixels: write "x0:x1, y0:y1"')
    x0, x1, y0, y1 = (int(part) for part in match.groups())
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"the rectangle {text!r} is empty")
    return x0, x1, y0, y1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--lines", help='"Fe, Si=1.74 keV, Li=7.016 Da": elements (K-alpha), places, or names of images')
    add("--half-width", help='of a window (default "85 eV" or "0.05 Da")')
    add(
        "--background",
        choices=("sides", "none"),
        default="sides",
        help="from bands beside the window, or none",
    )
    add("--regions", choices=tuple(WAYS), default="quadtree", help="rectangles, or compact cells")
    add("--uncertainty", help='wanted relative error per region, for example "5 %%" (the default)')
    add("--minimum", help='wanted counts per region, for example "400 counts"')
    add(
        "--guide",
        metavar="LINE",
        help="which line decides on the regions (default: the weakest one asked for)",
    )
    add("--ratio", help='for example "Fe/S, Al/Si"')
    add("--rectangle", help='which pixels take part: "x0:x1, y0:y1"')
    add("--dataset", help="HDF5: path of the data (default: the NXdata group)")
    add("--axes", help='HDF5: order of its dimensions, of y, x, d (detector), c (channel): for example "cyx"')
    add("--gain", help='energy per channel, for example "10 eV", where the file has none')
    add("--offset", help="energy of channel 0, with --gain")


def _options(args: argparse.Namespace) -> MapOptions:
    """Check the options; raises Problems with all that is wrong."""
    problems: list[str] = []

    def parsed(name: str, parse, *more):  # type: ignore[no-untyped-def]
        text = getattr(args, name)
        if text is None:
            return None
        try:
            return parse(text, *more)
        except ValueError as error:
            problems.append(f"--{name.replace('_', '-')}: {error}")
            return None

    lines = parsed("lines", parse_lines) or ()
    names = [line.name for line in lines]
    half = parsed("half_width", _place)
    relative, minimum = parsed("uncertainty", parse_percent), parsed("minimum", parse_counts)
    gain, offset = parsed("gain", parse_energy), parsed("offset", parse_energy)
    ratios = parsed("ratio", parse_ratios, names) or () if lines or args.ratio is None else ()
    if args.ratio is not None and not lines:
        problems.append("--ratio needs --lines")
    if args.guide is not None and names and args.guide not in names:
        problems.append(f"--guide {args.guide!r} is not one of the lines {', '.join(names)}")
    if gain is not None and gain <= 0.0:
        problems.append(f"--gain {args.gain!r} must be positive")
    if offset is not None and gain is None:
        problems.append("--offset needs --gain")
    rectangle = parsed("rectangle", parse_rectangle)
    if half is not None and half.value <= 0.0:
        problems.append(f"--half-width {args.half_width!r} must be positive")
    if problems:
        raise Problems(problems)
    if relative is None and minimum is None:
        relative = 0.05
    return MapOptions(
        lines, None if half is None else (half.value, half.unit), args.background == "sides", args.regions,
        relative, minimum, args.guide, ratios, rectangle, gain, offset or 0.0,
    )  # fmt: skip


def _jobs(args: argparse.Namespace) -> list[Job]:
    options = _options(args)
    jobs, problems = [], []
    for path in args.files:
        try:
            recorded = foreign_maps.read(path, args.dataset, args.axes)
        except FileError as error:
            problems.append(str(error))
            continue

        def run(recorded: foreign_maps.ForeignMap = recorded) -> Report:
            return maps_reduce.reduce_map(recorded, options)

        jobs.append(Job(path, _inputs(path), run))
    if problems:
        raise Problems(problems)
    return jobs


def _part(args: argparse.Namespace, file: Path) -> Mapping[str, Any]:
    """Return the counts of one of several frames of a raster."""
    return sums_of(foreign_maps.read(file, args.dataset, args.axes), _options(args))


def _merge(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> Report:
    """Reduce the sum of the frames."""
    return maps_reduce.reduce_sums(parts, _options(args))


def _beside(args: argparse.Namespace) -> list[Path]:
    """Return the binary files of the imzML among FILES."""
    return [path for file in args.files for path in _inputs(file)[1:]]


def _inputs(path: Path) -> tuple[Path, ...]:
    """Return the file and, for imzML, the binary file beside it."""
    beside = path.with_suffix(".ibd")
    return (path, beside) if path.suffix.lower() == ".imzml" and beside.is_file() else (path,)


TECHNIQUE = Technique(
    "maps", "Maps from others (EDS, micro-XRF, ToF-SIMS): net counts, adaptive regions, ratios, with errors.",
    foreign_maps.FORMATS,
    'operando reduce maps eds.h5 --lines "O, Al, Si, K, Fe" --uncertainty "5 %" --ratio "Al/Si"',
    _add_arguments, _jobs, Merge(_part, _merge, _beside), each=True,
)  # fmt: skip
