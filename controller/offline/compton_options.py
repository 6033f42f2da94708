"""The options of ``operando reduce compton``: parsed, checked, all problems at once."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from controller.config.quantities import QuantityError, parse
from controller.offline.technique import Problems
from drivers.files import hexitec_calibration
from drivers.files.bounded import read_bytes
from drivers.files.errors import FileError
from edge.compton import Priors, Setup
from edge.compton_frames import EnergyBins
from edge.compton_lithium import ATTENUATION, Mixing, calibrate, huang_2024, table_2
from edge.compton_physics import DIRECTIONS, Pinhole

MODES = ("discriminate", "add")
NMC811, HUANG_2024 = "nmc811", "huang2024"
NONE, SELF = "none", "self"
MAX_TOML_BYTES = 1 << 16
MAX_BINS = 1 << 14
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What a person chose."""

    shape: tuple[int, int]
    dark: str | Path
    gain: float | Path | None  # keV per ADU, a text matrix, or None with an archive
    offset: float | Path
    calibration: Path | None
    corner: tuple[int, int]
    mask: Path | None
    threshold_kev: float
    bins: EnergyBins
    add_pairs: bool
    ring: int
    setup: Setup
    attenuation: tuple[float, ...]
    mixing: Mixing | None
    threads: int
    tables: tuple[Path, ...] = ()  # from which line and mixing were read

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Return the files beside FILES that go in."""
        candidates = (self.dark, self.gain, self.offset, self.calibration, self.mask, *self.tables)
        return tuple(one for one in candidates if isinstance(one, Path))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this technique."""
    detector = parser.add_argument_group("detector")
    detector.add_argument("--shape", default="80x80", help="rows x columns of raw frames (default 80x80)")
    detector.add_argument(
        "--dark", default=None, metavar="FILE",
        help='dark frames; "none": frames are dark-corrected; "self": the level of these frames themselves',
    )  # fmt: skip
    detector.add_argument("--gain", help='per ADU, "0.027 keV", or a text matrix (m.txt)')
    detector.add_argument("--offset", default="0 keV", help='"0 keV", or a text matrix (c.txt)')
    detector.add_argument("--calibration", type=Path, metavar="NPZ", help="gain and offset in one archive")
    detector.add_argument(
        "--corner", default="0,0", help="row,column of these frames in a larger calibration"
    )
    detector.add_argument(
        "--mask", type=Path, metavar="FILE", help="text matrix: pixels that are not 0 are used"
    )
    photons = parser.add_argument_group("photons")
    photons.add_argument("--threshold", default="3 keV", help="of a hit (default 3 keV)")
    photons.add_argument(
        "--mode", choices=MODES, default="discriminate", help="shared photons: discard or add <= 2 px"
    )
    photons.add_argument(
        "--ring", type=int, choices=(1, 2), default=1, help="neighbours within 1 or 2 pixels"
    )
    photons.add_argument("--bin", default="0.2 keV", help="width of an energy bin (default 0.2 keV)")
    photons.add_argument("--range", default="180 keV", help="end of the spectra (default 180 keV)")
    geometry = parser.add_argument_group("beam and geometry")
    geometry.add_argument("--energy", default="115 keV", help="of the beam (default 115 keV)")
    geometry.add_argument("--angle", default="90 deg", help="between beam and detector axis (default 90 deg)")
    geometry.add_argument("--sheet", default="160 mm", help="sheet of beam to pinhole (default 160 mm)")
    geometry.add_argument("--camera", default="150 mm", help="pinhole to detector (default 150 mm)")
    geometry.add_argument("--pitch", default="0.25 mm", help="of the pixels (default 0.25 mm)")
    geometry.add_argument("--hole", default="0.2 mm", help="diameter of the pinhole (default 0.2 mm)")
    geometry.add_argument("--plate", default="2 mm", help="thickness of its plate (default 2 mm)")
    geometry.add_argument(
        "--beam", choices=DIRECTIONS, default="+x", help="direction in the image (--beam=-x)"
    )
    errors = parser.add_argument_group("errors, one sigma, common to all pixels")
    errors.add_argument("--gain-error", default="0.1 %", help="relative (default 0.1 %%)")
    errors.add_argument("--offset-error", default="30 eV", help="default 30 eV")
    errors.add_argument("--angle-error", default="0.2 deg", help="default 0.2 deg")
    lithium = parser.add_argument_group("lithium and depth")
    lithium.add_argument(
        "--lithium", metavar="LINE",
        help=f'1-x from S: "{NMC811}" (Huang 2022, Table 2) or a text file with columns S, 1-x',
    )  # fmt: skip
    lithium.add_argument(
        "--attenuation", metavar="F,F,...",
        help=f'factors on the counts of FILES, or "huang2022": {", ".join(map(str, ATTENUATION))}',
    )  # fmt: skip
    lithium.add_argument(
        "--unmix", metavar="MIXING",
        help=f'FILES are depth regions in order: "{HUANG_2024}" or a TOML file with their fractions',
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=min(2, os.cpu_count() or 1), help="for counting (default at most 2)"
    )


def read_options(args: argparse.Namespace) -> Options:
    """Return the checked options. Raises Problems with everything that is wrong."""
    problems: list[str] = []

    def take(make: Callable[[], T], fallback: T) -> T:
        try:
            return make()
        except (ValueError, FileError) as error:
            problems.append(str(error))
            return fallback

    def quantity(name: str, unit: str) -> float:
        text = getattr(args, name.replace("-", "_"))
        return take(lambda: _quantity(name, text, unit), 1.0)

    def millimetres(name: str) -> float:
        return quantity(name, "um") / 1000.0

    width, top = quantity("bin", "keV"), quantity("range", "keV")
    if not (width > 0.0 and top > width and top / width <= MAX_BINS):
        problems.append(f"--range {args.range} in bins of {args.bin}: 2 to {MAX_BINS} bins wanted")
        width, top = 0.2, 180.0
    geometry = {
        "sheet_mm": millimetres("sheet"), "detector_mm": millimetres("camera"),
        "hole_mm": millimetres("hole"),
        "pitch_mm": millimetres("pitch"), "plate_mm": millimetres("plate"),
        "angle_deg": quantity("angle", "deg"),
    }  # fmt: skip
    pinhole = take(lambda: Pinhole(beam=args.beam, **geometry), Pinhole())
    priors = Priors(
        quantity("gain-error", "1"), quantity("offset-error", "keV"), quantity("angle-error", "deg")
    )
    line = take(lambda: _line(args.lithium), None)
    energy, threshold = quantity("energy", "keV"), quantity("threshold", "keV")
    for name, value in (("energy", energy), ("threshold", threshold)):
        if value <= 0.0:
            problems.append(f"--{name} must be positive")
    if not 1 <= args.threads <= 64:
        problems.append(f"--threads {args.threads}: 1 to 64")
    options = Options(
        take(lambda: _pair(args.shape, "x", "--shape"), (80, 80)),
        args.dark if args.dark in (None, NONE, SELF) else Path(args.dark),
        take(lambda: _number_or_file("gain", args.gain), None),
        take(lambda: _number_or_file("offset", args.offset), None) or 0.0,
        args.calibration, take(lambda: _pair(args.corner, ",", "--corner"), (0, 0)), args.mask, threshold,
        EnergyBins(width, round(top / width)), args.mode == "add", args.ring,
        Setup(energy, pinhole, priors, line), take(lambda: _factors(args), ()),
        take(lambda: _mixing(args), None), args.threads, _tables(args),
    )  # fmt: skip
    if problems:
        raise Problems(problems)
    return options


def _quantity(name: str, text: str, unit: str) -> float:
    try:
        return parse(text, unit)
    except QuantityError as error:
        raise ValueError(f'--{name} "{text}" {error}') from None


def _pair(text: str, separator: str, name: str) -> tuple[int, int]:
    words = text.lower().split(separator)
    if len(words) != 2 or not all(word.strip().isdigit() and len(word) < 6 for word in words):
        raise ValueError(f"{name} {text!r}: two whole numbers wanted, such as 80{separator}80")
    return int(words[0]), int(words[1])


def _number_or_file(name: str, text: str | None) -> float | Path | None:
    if text is None:
        return None
    if Path(text).is_file():
        return Path(text)
    try:
        value = parse(text, "keV")
    except QuantityError as error:
        raise ValueError(f'--{name} "{text}" is no file, and as a number it {error}') from None
    if name == "gain" and value <= 0.0:
        raise ValueError(f"--gain {text!r} must be positive")
    return value


def _line(text: str | None) -> Any:
    if text is None:
        return None
    if text == NMC811:
        return table_2()
    table = hexitec_calibration.read_matrix(Path(text))
    if table.shape[1] != 2:
        raise ValueError(f"{text}: two columns, S and 1-x, wanted")
    return calibrate(table[:, 0], table[:, 1], source=Path(text).name)


def _tables(args: argparse.Namespace) -> tuple[Path, ...]:
    """Return the files that --lithium and --unmix name."""
    named = ((args.lithium, NMC811), (args.unmix, HUANG_2024))
    return tuple(Path(text) for text, known in named if text not in (None, known))


def _merged(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "merge", False))


def _factors(args: argparse.Namespace) -> tuple[float, ...]:
    n = 1 if _merged(args) else len(args.files)
    if args.attenuation is None:
        return (1.0,) * n
    words = [str(f) for f in ATTENUATION] if args.attenuation == "huang2022" else args.attenuation.split(",")
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        raise ValueError(f"--attenuation {args.attenuation!r}: numbers separated by commas wanted") from None
    if len(values) != n or not all(0.0 < value < 100.0 for value in values):
        each = "one for the sum" if _merged(args) else "one for each of FILES"
        raise ValueError(f"--attenuation: {n} positive factors wanted, {each}")
    return values


def _mixing(args: argparse.Namespace) -> Mixing | None:
    if args.unmix is None:
        return None
    if _merged(args):
        raise ValueError("--unmix wants one file per depth region: --merge makes one of all")
    mixing = huang_2024() if args.unmix == HUANG_2024 else read_mixing(Path(args.unmix))
    if len(args.files) != len(mixing.regions):
        raise ValueError(
            f"--unmix {args.unmix}: {len(mixing.regions)} FILES wanted: {', '.join(mixing.regions)}"
        )
    return mixing


def read_mixing(path: Path) -> Mixing:
    """Return depth regions from a TOML file: regions, components, fractions, sigma, volumes, volume_sigma.

    Raises:
        ValueError: for a file that does not say this.
    """
    try:
        table = tomllib.loads(read_bytes(path, MAX_TOML_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileError(path, "", "a TOML file", str(error)) from error
    try:
        regions, components = tuple(map(str, table["regions"])), tuple(map(str, table["components"]))
        fractions = _numbers(table["fractions"])
        sigma = _numbers(table.get("sigma", np.zeros(fractions.shape).tolist()))
        volumes = _numbers(table.get("volumes", [1.0] * len(components)))
        spread = _numbers(table.get("volume_sigma", [0.0] * len(components)))
        return Mixing(regions, components, fractions, sigma, volumes, spread)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(path, "", "regions, components and a table of fractions", str(error)) from error


def _numbers(value: Sequence[Any]) -> Any:
    array = np.array(value, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("numbers must be finite")
    return array
