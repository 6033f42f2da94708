"""The radiographs of a recorded run: its images by state, and its ``[radiography]`` table as options.

Each exposure of the sample is a state, and is reduced by itself as it was while the run went on: with the
same options and images, to the same last bit. What a person gives on the command line stands for what the
experiment file said.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controller.offline.radiography_options import Options, parse_options
from controller.rawfile import INDEX_NAME, read_index
from edge.radiography_depth import Region

DARK, FLAT = "purpose:dark", "purpose:flat"  # the states of all their exposures; no name has a colon
GIVEN = {  # option: what it decides
    "air": ("air",), "region": ("regions",), "profile": ("along",), "pixel": ("pixel_um",),
    "wavelength": ("wavelength_angstrom", "maxwell_k"), "maxwell": ("wavelength_angstrom", "maxwell_k"),
    "diameter": ("diameter_cm", "path_cm", "strips"), "path": ("diameter_cm", "path_cm"),
    "matrix": ("matrix_per_cm",), "strips": ("strips",), "gradient": ("transport",), "mask": ("mask",),
    "save_mask": ("save_mask",), "reference": ("reference",), "black_body": ("black_body",),
    "black_body_open": ("black_body_open",), "open": ("open_beam",), "dark": ("dark",),
}  # fmt: skip


def state_of(purpose: str, name: str) -> str:
    """Return the name of an exposure's state: all darks are one, all open beams are one."""
    return {"dark": DARK, "flat": FLAT}.get(purpose, name)


def options_of(
    settings: Mapping[str, Any], name: str, *, samples: tuple[Path, ...], open_beam: tuple[Path, ...],
    dark: tuple[Path, ...], reference: tuple[Path, ...],
) -> Options:  # fmt: skip
    """Return the options of one state of a run from its [radiography] table."""

    def region(told: Mapping[str, Any], name: str) -> Region:
        return Region(str(told.get("name", name)), slice(*told["rows"]), slice(*told["columns"]))

    along = settings.get("along")
    return Options(
        samples=samples, open_beam=open_beam, dark=dark, reference=reference,
        air=region(settings["air"], "air"),
        regions=tuple(region(one, "region") for one in settings.get("regions", ())),
        along=None if along is None else region(along, "along"), bin_px=int(settings.get("bin_px", 1)),
        strips=int(settings.get("strips", 1)), pixel_um=settings.get("pixel_um"), labels=(name,),
        wavelength_angstrom=settings.get("wavelength_angstrom"), maxwell_k=settings.get("maxwell_k"),
        path_cm=settings.get("path_cm"), merged=True,
    )  # fmt: skip


@dataclass
class Recorded:
    """What the index of a run tells of its images."""

    settings: Mapping[str, Any] | None = None  # of [radiography]
    files: dict[str, list[Path]] = field(default_factory=dict)  # by state, in the order they came


def is_run(files: Sequence[Path]) -> bool:
    """Return whether what was given is the folder of a run, and not images."""
    return len(files) == 1 and files[0].is_dir()


def recorded(folder: Path) -> Recorded:
    """Read the index of a run's raw data.

    Raises:
        ValueError: it is no folder of a run, or no images were recorded.
    """
    raw = folder / "raw"
    if not (raw / INDEX_NAME).is_file():
        raise ValueError(f"{folder}: this folder is not a run (there is no raw/{INDEX_NAME} in it)")
    found, states = Recorded(), dict[int, str]()
    for message in read_index(raw):
        match message:
            case {"k": "run"}:
                found.settings = message.get("radiography") or found.settings
            case {"k": "exposure", "n": int(n), "purpose": str(purpose), "name": str(name)}:
                states[n] = state_of(purpose, name)
            case {"k": "image", "n": int(n), "file": str(file)} if n in states:
                found.files.setdefault(states[n], []).append(raw / file)
    if not found.files:
        raise ValueError(f"{folder}: no images were recorded in this run")
    return found


def states(args: argparse.Namespace) -> tuple[list[tuple[str, Options]], list[str]]:
    """Return the options of every state of the run in ``args.files``, or everything that is wrong."""
    folder: Path = args.files[0]
    try:
        run = recorded(folder)
    except ValueError as error:
        return [], [str(error)]
    dark = tuple(args.dark) or tuple(run.files.get(DARK, ()))
    flat = tuple(args.open) or tuple(run.files.get(FLAT, ()))
    wrong = [
        f"{folder}: no image of {what} was recorded in this run: give some by {option}"
        for what, option, had in (("dark", "--dark", dark), ("the open beam", "--open", flat))
        if not had
    ]
    if run.settings is None and args.air is None:
        wrong.append(f"{folder}: its experiment has no [radiography] table: give --air")
    names = [name for name in run.files if name not in (DARK, FLAT)]
    if not names:
        wrong.append(f"{folder}: no image of a sample was recorded in this run")
    if args.soc or len(args.black_body) > 1:
        wrong.append("--soc, and --black-body for each sample, go with images, not with the folder of a run")
    if wrong:
        return [], wrong
    made = []
    for name in names:
        one, more = _options(args, run, name, flat, dark)
        wrong += [text for text in more if text not in wrong]
        if one is not None:
            made.append((name, one))
    return made, wrong


def _options(
    args: argparse.Namespace, run: Recorded, name: str, open_beam: tuple[Path, ...], dark: tuple[Path, ...]
) -> tuple[Options | None, list[str]]:
    """Return the options of one state: those that were given, else those of the run."""
    told = run.settings or {}
    samples = tuple(run.files[name])
    known = told.get("reference")
    reference = tuple(run.files.get(known, ())) if known and known != name else ()
    words = argparse.Namespace(**vars(args) | _words(told, args))
    words.files, words.open, words.dark, words.merge = samples, open_beam, dark, True
    given, wrong = parse_options(words)
    if given is None or wrong:
        return None, wrong
    given = replace(given, labels=(name,), reference=given.reference or reference)
    if not told:
        return given, []
    own = options_of(told, name, samples=samples, open_beam=open_beam, dark=dark, reference=reference)
    typed = {what for option, parts in GIVEN.items() if getattr(args, option) for what in parts}
    typed |= {"bin_px"} if args.bin != 1 else set()
    return replace(own, spot_sigma=given.spot_sigma, **{what: getattr(given, what) for what in typed}), []


def _words(told: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return the table of the run as words, for what was not given: so conflicts with it are seen."""

    def rectangle(one: Mapping[str, Any]) -> str:
        return ", ".join(f"{first}:{last}" for first, last in (one["rows"], one["columns"]))

    words: dict[str, Any] = {}
    if told.get("air"):
        words["air"] = rectangle(told["air"])
    if told.get("along"):
        words["profile"] = rectangle(told["along"])
    if told.get("pixel_um"):
        words["pixel"] = f"{told['pixel_um']} um"
    if told.get("path_cm") and not args.diameter:
        words["path"] = f"{told['path_cm']} cm"
    if told.get("wavelength_angstrom") and not args.maxwell:
        words["wavelength"] = f"{told['wavelength_angstrom']} A"
    if told.get("maxwell_k") and not args.wavelength:
        words["maxwell"] = f"{told['maxwell_k']} K"
    return {option: text for option, text in words.items() if not getattr(args, option)}
