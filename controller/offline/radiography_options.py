"""The options of ``operando reduce radiography``: parsed, checked, all problems at once."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge.radiography_depth import Region

ANGSTROM = {"A": 1.0, "Å": 1.0, "nm": 10.0, "pm": 0.01}
CENTIMETRE = {"cm": 1.0, "mm": 0.1, "um": 1e-4, "µm": 1e-4, "m": 100.0}
KELVIN = {"K": 1.0}
PER_CENTIMETRE = {"/cm": 1.0, "1/cm": 1.0, "/mm": 10.0, "1/mm": 10.0, "/m": 0.01}
SIEMENS_PER_CM = {"S/cm": 1.0, "mS/cm": 1e-3, "S/m": 1e-2}
VOLT = {"V": 1.0, "mV": 1e-3}
PER_CM3 = {"/cm3": 1.0, "1/cm3": 1.0, "/nm3": 1e21}
PERCENT = {"%": 0.01}
T = TypeVar("T")


@dataclass(frozen=True)
class Transport:
    """What turns a gradient of 6Li into a diffusion coefficient."""

    rows: slice
    conductivity_s_cm: float
    voltage_v: float
    length_cm: float
    lithium_cm3: float
    temperature_k: float


@dataclass(frozen=True)
class Options:
    """What a person chose."""

    samples: tuple[Path, ...]
    open_beam: tuple[Path, ...]
    dark: tuple[Path, ...]
    air: Region
    reference: tuple[Path, ...] = ()
    black_body: tuple[Path, ...] = ()
    black_body_open: tuple[Path, ...] = ()
    regions: tuple[Region, ...] = ()
    along: Region | None = None
    bin_px: int = 1
    strips: int = 1
    pixel_um: float | None = None
    labels: tuple[str, ...] = ()
    wavelength_angstrom: float | None = None
    maxwell_k: float | None = None
    path_cm: float | None = None
    diameter_cm: float | None = None
    matrix_per_cm: float = 0.0
    transport: Transport | None = None
    mask: Path | None = None
    save_mask: Path | None = None
    spot_sigma: float = 6.0
    merged: bool = False  # all samples are exposures of one state

    @property
    def states(self) -> tuple[tuple[Path, ...], ...]:
        """The files of each state."""
        return (self.samples,) if self.merged else tuple((path,) for path in self.samples)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that go in, each once."""
        mask = (self.mask,) if self.mask is not None else ()
        groups = (
            self.samples,
            self.open_beam,
            self.dark,
            self.reference,
            self.black_body,
            self.black_body_open,
        )
        return tuple(dict.fromkeys([path for group in groups for path in group] + list(mask)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this technique."""
    add = parser.add_argument
    add("--open", nargs="+", type=Path, metavar="FILE", default=[], help="open beam, without sample")
    add("--dark", nargs="+", type=Path, metavar="FILE", default=[], help="dark, without beam")
    add("--air", metavar="ROWS,COLS", help='open beam in every image, "30:80, 700:790" (dose)')
    add(
        "--reference",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=[],
        help="what the samples are compared with (empty container, pristine cell); default: the open beam",
    )
    add(
        "--black-body",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=[],
        help="with sample and black-body grid: one for all samples, or one per sample",
    )
    add("--black-body-open", nargs="+", type=Path, metavar="FILE", default=[], help="grid without sample")
    add(
        "--region",
        action="append",
        default=[],
        metavar="NAME=ROWS,COLS[,THICKNESS]",
        help='"thin 0.5 = 558:627, 980:1230, 0.5 mm"; may be repeated; equal first words make one slope',
    )
    add("--profile", metavar="ROWS,COLS", help="profile along the rows of this rectangle")
    add("--bin", type=int, default=1, metavar="N", help="rows per point of the profile (default 1)")
    add(
        "--strips",
        type=int,
        metavar="N",
        help="strips across the profile (default 16 for a cylinder, else 1)",
    )
    add("--pixel", metavar="SIZE", help='pixel at the sample, "43.99 um"')
    add("--soc", metavar="LIST", help='state of charge of each sample, "0 %%, 50 %%", for labels')
    add("--wavelength", metavar="A", help='of a monochromatic beam, "2.8 A": gives 6Li per area')
    add(
        "--maxwell",
        metavar="K",
        help='moderator temperature of a white beam, "60 K": 6Li with beam hardening',
    )
    add("--diameter", metavar="D", help='of an upright cylinder, "3 mm": gives 6Li per volume')
    add("--path", metavar="L", help='path through the sample, "5 mm": gives 6Li per volume')
    add("--matrix", metavar="MU", help='attenuation of everything but 6Li, "0.12 /cm", taken off')
    add(
        "--gradient",
        metavar="ROWS",
        help="rows of the profile for dC/dx; gives an apparent D; needs the next 4",
    )
    add("--conductivity", metavar="S/CM", help='of the separator, "2 mS/cm"')
    add("--voltage", metavar="V", help='between the electrodes, "3.26 V"')
    add("--length", metavar="L", help='of the separator, "0.83 mm"')
    add("--lithium", metavar="N", help='all lithium in the separator, "2.66e22 /cm3"')
    add("--temperature", metavar="T", default="298.15 K", help="of the cell (default 298.15 K)")
    add("--mask", type=Path, metavar="FILE", help="use this mask instead of finding one")
    add("--save-mask", type=Path, metavar="FILE", help="write the mask that was used")
    add("--spot-sigma", type=float, default=6.0, metavar="N", help="threshold of spots (default 6)")


def parse_options(args: argparse.Namespace) -> tuple[Options | None, list[str]]:
    """Return the options, or None and everything that is wrong with them."""
    wrong: list[str] = []

    def read(name: str, parse: Callable[[str], T]) -> T | None:
        text = getattr(args, name.replace("-", "_"))
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            wrong.append(f"--{name}: {error}")
            return None

    air = read("air", lambda text: rectangle("air", text))
    along = read("profile", lambda text: rectangle("profile", text))
    regions = []
    for text in args.region:
        try:
            regions.append(parse_region(text))
        except ValueError as error:
            wrong.append(f"--region: {error}")
    pixel = read("pixel", lambda text: measured(text, CENTIMETRE, "a length"))
    wavelength = read("wavelength", lambda text: measured(text, ANGSTROM, "a wavelength"))
    maxwell = read("maxwell", lambda text: measured(text, KELVIN, "a temperature"))
    diameter = read("diameter", lambda text: measured(text, CENTIMETRE, "a length"))
    path = read("path", lambda text: measured(text, CENTIMETRE, "a length"))
    matrix = read("matrix", lambda text: measured(text, PER_CENTIMETRE, "an attenuation"))
    transport = _transport(args, read, wrong)
    labels = tuple(part.strip() for part in args.soc.split(",")) if args.soc else ()
    wrong += _conflicts(args, labels, along is None, transport)
    if wrong or air is None:
        return None, wrong
    return Options(
        samples=tuple(args.files), open_beam=tuple(args.open), dark=tuple(args.dark), air=air,
        reference=tuple(args.reference), black_body=tuple(args.black_body),
        black_body_open=tuple(args.black_body_open), regions=tuple(regions), along=along, bin_px=args.bin,
        strips=args.strips or (16 if diameter else 1), pixel_um=1e4 * pixel if pixel else None, labels=labels,
        wavelength_angstrom=wavelength, maxwell_k=maxwell,
        path_cm=path if path else (math.pi * diameter / 4 if diameter else None), diameter_cm=diameter,
        matrix_per_cm=matrix or 0.0, transport=transport, mask=args.mask, save_mask=args.save_mask,
        spot_sigma=args.spot_sigma, merged=_merged(args),
    ), []  # fmt: skip


def _transport(args: argparse.Namespace, read: Any, wrong: list[str]) -> Transport | None:
    if args.gradient is None:
        return None
    rows = read("gradient", lambda text: bounds(text, "rows"))
    values = [
        read("conductivity", lambda text: measured(text, SIEMENS_PER_CM, "a conductivity")),
        read("voltage", lambda text: measured(text, VOLT, "a voltage")),
        read("length", lambda text: measured(text, CENTIMETRE, "a length")),
        read("lithium", lambda text: measured(text, PER_CM3, "a density")),
        read("temperature", lambda text: measured(text, KELVIN, "a temperature")),
    ]
    if rows is None or any(value is None for value in values):
        wrong.append("--gradient needs --conductivity, --voltage, --length and --lithium")
        return None
    return Transport(rows, *values)


def _conflicts(
    args: argparse.Namespace, labels: Sequence[str], no_profile: bool, transport: Transport | None
) -> list[str]:
    wrong = []
    if bool(args.black_body) != bool(args.black_body_open):
        wrong.append("--black-body and --black-body-open belong together")
    states = 1 if _merged(args) else len(args.files)
    if args.black_body and len(args.black_body) not in (1, states):
        wrong.append(f"--black-body: 1 or {states} files are needed, got {len(args.black_body)}")
    if labels and len(labels) != states:
        wrong.append(f"--soc: {states} values are needed, one per state, got {len(labels)}")
    if args.wavelength and args.maxwell:
        wrong.append("--wavelength and --maxwell exclude each other")
    if args.diameter and args.path:
        wrong.append("--diameter and --path exclude each other")
    if args.matrix and not (args.diameter or args.path):
        wrong.append("--matrix needs --diameter or --path")
    if args.bin < 1 or (args.strips is not None and args.strips < 1) or args.spot_sigma < 3:
        wrong.append("--bin and --strips must be at least 1, --spot-sigma at least 3")
    if transport and (no_profile or not args.pixel or not (args.wavelength or args.maxwell)):
        wrong.append("--gradient needs --profile, --pixel, and --wavelength or --maxwell")
    if transport and not (args.diameter or args.path):
        wrong.append("--gradient needs --diameter or --path")
    return wrong


def _merged(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "merge", False))


def rectangle(name: str, text: str) -> Region:
    """Return a region from "30:80, 700:790" (rows, columns; the end is not included)."""
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError(f'{text!r} is not "ROWS, COLS" such as "30:80, 700:790"')
    return Region(name, bounds(parts[0], "rows"), bounds(parts[1], "columns"))


def bounds(text: str, what: str) -> slice:
    """Return a range from "30:80"."""
    matched = re.fullmatch(r"\s*([0-9]{1,6})\s*:\s*([0-9]{1,6})\s*", text)
    if matched is None or int(matched[1]) >= int(matched[2]):
        raise ValueError(f'{text.strip()!r} is not a range of {what} such as "30:80"')
    return slice(int(matched[1]), int(matched[2]))


def parse_region(text: str) -> Region:
    """Return a named region from "thin 0.5 = 558:627, 980:1230, 0.5 mm"."""
    name, equals, rest = text.partition("=")
    parts = rest.split(",")
    if not equals or not name.strip() or len(parts) not in (2, 3):
        raise ValueError(f'{text!r} is not "NAME = ROWS, COLS[, THICKNESS]"')
    place = rectangle(name.strip(), ",".join(parts[:2]))
    thickness = 10.0 * measured(parts[2].strip(), CENTIMETRE, "a length") if len(parts) == 3 else None
    return Region(place.name, place.rows, place.columns, thickness)


def measured(text: str, units: Mapping[str, float], what: str) -> float:
    """Return a positive number in the first unit of ``units`` from "0.5 mm"."""
    matched = re.fullmatch(r"\s*([-+0-9.eE]{1,40})\s*(\S{1,8})\s*", text)
    if matched is None or matched[2] not in units:
        raise ValueError(f"{text!r} is not {what}: write a number and a unit ({', '.join(units)})")
    try:
        value = float(matched[1]) * units[matched[2]]
    except ValueError:
        raise ValueError(f"{matched[1]!r} in {text!r} is not a number") from None
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{text!r} must be positive")
    return value
