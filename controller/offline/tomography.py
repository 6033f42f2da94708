"""``operando reduce tomography``: projections to slices, volumes to porosity, tortuosity, roughness, maps."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.offline.technique import Job, Merge, Problems, Report, Technique
from controller.offline.values import parse_in
from drivers.files import hdf5_safe, tomo_hdf5, volumes
from drivers.files.errors import FileError
from drivers.files.recordings_images import RecordedProjections, RecordedVolume
from edge.tomography import METHODS, RINGS, ZINGER_SIGMA
from edge.tomography_scan import SliceRules
from edge.uncertainty import Estimate

UM_PER_UNIT = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "mm": 1e3}
AXES = {"z": 0, "y": 1, "x": 2}
NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
MAX_ROWS = 16  # slices that are made unless --rows asks for more


@dataclass(frozen=True)
class SliceOptions:
    """How projections become slices."""

    rows: tuple[int, int, int] | None = None  # first, last, step
    centre_px: float | None = None
    method: str = "fbp"
    rings: str = "all"
    zinger: float = ZINGER_SIGMA
    pixel_um: float | None = None

    @property
    def rules(self) -> SliceRules:
        """What the reduction itself needs."""
        return SliceRules(self.centre_px, self.method, self.rings, self.zinger)


@dataclass(frozen=True)
class VolumeOptions:
    """What is asked of a volume."""

    voxel_um: float | None = None
    threshold: float | None = None
    threshold_share: float = 0.05
    median: bool = True
    pore: str | None = None  # dark or bright; None: dark of a grey volume, True of a segmented one
    opening: float = 0.0  # radius in voxels of the electrode's mask, 0 = no mask
    axis: int = 0  # of depth
    regions: int = 3
    tortuosity: tuple[int, ...] = ()
    diffusion: Estimate | None = None
    roughness: str | None = None
    box: tuple[tuple[int, int], ...] | None = None
    onto: Path | None = None
    onto_pitch_um: float | None = None
    onto_start_um: tuple[float, float] = (0.0, 0.0)


def parse_length(text: str) -> float:
    """Return µm from "3.24 um". Raises ValueError that names the units."""
    return parse_in(text, UM_PER_UNIT, "a length")


def parse_positive_length(text: str) -> float:
    """Return µm, above zero."""
    value = parse_length(text)
    if value <= 0.0:
        raise ValueError(f"{text!r} must be positive")
    return value


def parse_rows(text: str) -> tuple[int, int, int]:
    """Return first, last, step from "10:200:5", "10:200" or "12"; last is not included. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d+)(?::(\d+))?(?::(\d+))?\s*", text)
    if match is None:
        raise ValueError(f'{text!r} are no rows: write "first:last:step"')
    first = int(match[1])
    last = int(match[2]) if match[2] else first + 1
    step = int(match[3]) if match[3] else 1
    if last <= first or step < 1:
        raise ValueError(f"rows {text!r} are empty")
    return first, last, step


def parse_box(text: str) -> tuple[tuple[int, int], ...]:
    """Return three (first, last) in z, y, x from "0:100, 20:80, 20:80". Raises ValueError."""
    parts = [parse_rows(part) for part in text.split(",")]
    if len(parts) != 3 or any(step != 1 for _, _, step in parts):
        raise ValueError(f'{text!r} is not a box: write "z0:z1, y0:y1, x0:x1"')
    return tuple((first, last) for first, last, _ in parts)


def parse_diffusion(text: str) -> Estimate:
    """Return a diffusion coefficient in cm2/s from "1.39e-7 +- 0.05e-7 cm2/s". Raises ValueError."""
    match = re.fullmatch(rf"\s*({NUMBER})\s*(?:(?:\+-|±)\s*({NUMBER}))?\s*(cm2/s|m2/s)\s*", text)
    if match is None:
        raise ValueError(f'{text!r} is no diffusion coefficient: write "1.39e-7 +- 0.05e-7 cm2/s"')
    factor = 1.0 if match[3] == "cm2/s" else 1e4
    value, sigma = float(match[1]) * factor, float(match[2] or 0.0) * factor
    if not (math.isfinite(value) and value > 0.0 and math.isfinite(sigma) and sigma >= 0.0):
        raise ValueError(f"{text!r} must be positive")
    return Estimate(value, sigma, 0.0, "cm2/s")


def parse_share(text: str) -> float:
    """Return a fraction from "5 %". Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*%\s*", text)
    if match is None or not 0.0 <= float(match[1]) < 50.0:
        raise ValueError(f'{text!r} is not a share below 50 %: write for example "5 %"')
    return float(match[1]) / 100.0


def parse_start(text: str) -> tuple[float, float]:
    """Return (y, x) in µm from "120 um, 80 um". Raises ValueError."""
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError(f'{text!r} is not a place: write "Y um, X um"')
    return parse_length(parts[0]), parse_length(parts[1])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    scan = parser.add_argument_group("projections to slices")
    scan.add_argument("--rows", help=f'detector rows: "first:last:step" (default: up to {MAX_ROWS}, spread)')
    scan.add_argument(
        "--centre", type=float, metavar="PX", help="axis of rotation in pixels (default: found)"
    )
    scan.add_argument("--method", choices=METHODS, default="fbp", help="filtered back-projection or Fourier")
    scan.add_argument("--rings", choices=RINGS, default="all", help="removal of ring artefacts")
    scan.add_argument(
        "--zinger", type=float, default=ZINGER_SIGMA, help="in units of the noise; 0 = leave them"
    )
    scan.add_argument("--pixel", help='size of a pixel at the sample, for example "3.24 um"')
    volume = parser.add_argument_group("volumes")
    volume.add_argument("--dataset", help="HDF5: path of the volume")
    volume.add_argument("--voxel", help='edge of a voxel, for example "3.24 um"')
    volume.add_argument(
        "--threshold", type=float, help="grey value that parts pores and solid (default: Otsu)"
    )
    volume.add_argument(
        "--threshold-error", default="5 %", help="of the distance of the classes (default 5 %%)"
    )
    volume.add_argument("--no-median", action="store_true", help="leave out the 3 x 3 x 3 median filter")
    volume.add_argument("--pore", choices=("dark", "bright"), help="which voxels are pores")
    volume.add_argument(
        "--opening", type=float, default=0.0, metavar="VOXELS",
        help="radius of the ball that finds the electrode (default 0: the whole volume)",
    )  # fmt: skip
    volume.add_argument("--depth", choices=tuple(AXES), default="z", help="axis along the depth")
    volume.add_argument("--regions", type=int, default=3, help="depth regions of equal thickness")
    volume.add_argument("--box", help='part of the volume: "z0:z1, y0:y1, x0:x1"')
    volume.add_argument("--tortuosity", metavar="AXES", help='for example "z" or "z, x"')
    volume.add_argument("--diffusion", help='of the free liquid, "1.39e-7 +- 0.05e-7 cm2/s": gives D eps/tau')
    volume.add_argument(
        "--roughness", choices=("top", "bottom"), help="R_a and R_q of the first or last solid"
    )
    volume.add_argument("--onto", type=Path, metavar="MAP", help="register onto this map (one array of .npz)")
    volume.add_argument("--onto-pitch", help='pixel of that map, for example "267 um"')
    volume.add_argument(
        "--onto-start", default="0 um, 0 um", help='first guess of where it begins: "Y um, X um"'
    )


def _options(args: argparse.Namespace) -> tuple[SliceOptions, VolumeOptions]:
    """Check the options; raises Problems with all that is wrong."""
    problems: list[str] = []

    def parsed(name: str, parse):  # type: ignore[no-untyped-def]
        text = getattr(args, name)
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            problems.append(f"--{name.replace('_', '-')}: {error}")
            return None

    def axes(text: str) -> tuple[int, ...]:
        names = [name.strip() for name in text.split(",")]
        if not set(names) <= set(AXES):
            raise ValueError(f"{text!r} are not axes of z, y, x")
        return tuple(AXES[name] for name in dict.fromkeys(names))

    slices = SliceOptions(
        parsed("rows", parse_rows), args.centre, args.method, args.rings, args.zinger,
        parsed("pixel", parse_positive_length),
    )  # fmt: skip
    volume = VolumeOptions(
        parsed("voxel", parse_positive_length), args.threshold, parsed("threshold_error", parse_share) or 0.0,
        not args.no_median, args.pore, args.opening, AXES[args.depth], args.regions,
        parsed("tortuosity", axes) or (), parsed("diffusion", parse_diffusion), args.roughness,
        parsed("box", parse_box), args.onto, parsed("onto_pitch", parse_positive_length),
        parsed("onto_start", parse_start) or (0.0, 0.0),
    )  # fmt: skip
    if args.zinger < 0.0 or args.opening < 0.0 or args.regions < 1:
        problems.append("--zinger and --opening must not be negative, --regions at least 1")
    if volume.diffusion is not None and not volume.tortuosity:
        problems.append("--diffusion needs --tortuosity")
    if (args.onto is None) != (args.onto_pitch is None):
        problems.append("--onto and --onto-pitch belong together")
    if problems:
        raise Problems(problems)
    return slices, volume


def is_projections(path: Path, dataset: str | None) -> bool:
    """Return whether a file holds projections (APS data exchange). Raises FileError."""
    if dataset is not None:
        return False
    try:
        with path.open("rb") as file:
            hdf5 = file.read(8) == hdf5_safe.MARK
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    return hdf5 and tomo_hdf5.is_tomogram(path)


def read(path: Path, dataset: str | None) -> RecordedProjections | RecordedVolume:
    """Read projections or a volume, by what the file holds. Raises FileError."""
    if is_projections(path, dataset):
        return tomo_hdf5.read(path)
    return volumes.read(path, dataset)


def _jobs(args: argparse.Namespace) -> list[Job]:
    slices, volume = _options(args)
    jobs, problems = [], []
    for path in args.files:
        try:
            recorded = read(path, args.dataset)
        except FileError as error:
            problems.append(str(error))
            continue

        def run(recorded: RecordedProjections | RecordedVolume = recorded) -> Report:
            if isinstance(recorded, RecordedProjections):
                from controller.offline.tomography_slices import reduce_projections

                return reduce_projections(recorded, slices)
            from controller.offline.tomography_volume import reduce_volume

            return reduce_volume(recorded, volume)

        inputs = (path,) if volume.onto is None else (path, volume.onto)
        jobs.append(Job(path, inputs, run))
    if volume.onto is not None and not volume.onto.is_file():
        problems.append(f"{volume.onto}: expected a map")
    if problems:
        raise Problems(problems)
    return jobs


def _part(args: argparse.Namespace, file: Path) -> Mapping[str, Any]:
    """Return what one file of a scan holds."""
    from controller.offline.tomography_slices import part

    slices, _ = _options(args)
    if not is_projections(file, args.dataset):
        raise ValueError(f"{file}: only projections (HDF5, APS data exchange) can be parts of one scan")
    return part(tomo_hdf5.read(file, part=True), slices)


def _merge(args: argparse.Namespace, parts: Sequence[Mapping[str, Any]]) -> Report:
    """Reduce a scan in several files."""
    from controller.offline.tomography_slices import reduce_parts

    return reduce_parts(parts, _options(args)[0])


def _row(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the quantities of a line of the summary: the whole volume, or the axis of a scan."""
    if data["kind"] == "projections":
        return {"centre": data["centre"]}
    whole = {one["axis"]: one for one in reversed(data["transport"])}  # the whole volume stands first
    return {"porosity": data["porosity"]["porosity"]} | {
        f"tortuosity {axis}": one["tortuosity"] for axis, one in sorted(whole.items()) if one["tortuosity"]
    }


TECHNIQUE = Technique(
    "tomography", "Tomography: projections to slices; volumes to porosity, tortuosity, roughness and maps.",
    f"projections (HDF5, APS data exchange), or a volume: {volumes.FORMATS}",
    'operando reduce tomography volume.npz --voxel "3.24 um" --regions 3 --tortuosity z',
    _add_arguments, _jobs, Merge(_part, _merge, alone=True), _row, each=True,
)  # fmt: skip
