"""The two commands that write a new file, and the questions that are asked where nothing was said."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from controller.config import ConfigErrors, files
from controller.config.devices import BUILT_IN, known_drivers
from controller.config.station_rules import ROLES
from controller.config.unfilled import FILL_IN
from controller.starter.experiment import experiment_text, roles_in
from controller.starter.station import ChoiceError, plan, station_text

EXIT_DONE, EXIT_FILES = 0, 2
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
WORDS = {
    "heater": "What heats the sample?", "cell": "What charges the cell?",
    "scanner": "What scans the beam?", "pixe": "Which detector counts X-rays?",
    "pige": "Which detector counts gammas (lithium)?", "stage": "What moves the sample?",
    "compton": "Which camera counts photons?", "radiography": "Which camera takes radiographs?",
}  # fmt: skip
Ask = Callable[[str], str]


def station(args: argparse.Namespace) -> int:
    """``operando init station``."""
    try:
        path = _new(args.file, "station.toml")
        chosen = _chosen(args.chosen) if args.chosen else _asked()
        made = plan(chosen)
        text = station_text(made, _name(args.station_name))
        _write(path, text)
    except ChoiceError as error:
        print(error, file=sys.stderr)
        return EXIT_FILES
    for added in made.added:
        print(f"added {added}")
    _told(path, text, f"operando check {path}")
    return EXIT_DONE


def experiment(args: argparse.Namespace) -> int:
    """``operando init experiment``."""
    try:
        path = _new(args.file, "experiment.toml")
        text = experiment_text(_roles(args.station), _name(args.name))
        _write(path, text)
    except (ConfigErrors, ChoiceError) as error:
        print(error, file=sys.stderr)
        return EXIT_FILES
    _told(path, text, f"operando check {args.station} {path}")
    return EXIT_DONE


def ask_for_instruments(ask: Ask, drivers: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Ask which instruments there are, one role after the other; an empty answer is none.

    Args:
        ask: shows a question, returns the answer.
        drivers: for each role those that can play it.
    """
    found: dict[str, str] = {}
    for role, fits in drivers.items():
        if not fits or (role in ("pixe", "pige") and "scanner" not in found):
            continue
        shown = "  ".join(f"{number} {driver}" for number, driver in enumerate(fits, 1))
        question = f"{WORDS.get(role, role)}\n  {shown}\n  number, or Enter for none: "
        while True:
            answer = ask(question).strip()
            if not answer:
                break
            if answer in fits or (answer.isdigit() and 1 <= int(answer) <= len(fits)):
                found[role] = answer if answer in fits else fits[int(answer) - 1]
                break
            question = f"  {answer} is none of these: 1 to {len(fits)}, or Enter for none: "
    return found


def drivers_by_role() -> dict[str, tuple[str, ...]]:
    """Return for each role the drivers that can play it; those of third parties may play any."""
    foreign = tuple(sorted(known_drivers() - set(BUILT_IN)))
    return {
        role: (*(driver for driver, model in BUILT_IN.items() if role in model.plays), *foreign)
        for role in ROLES
    }


def _asked() -> dict[str, str]:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ChoiceError(
            "which instruments? --with ROLE=DRIVER for each, such as --with heater=eurotherm_3200 "
            f"--with cell=palmsens_emstat4; roles are {', '.join(ROLES)}"
        )
    try:
        return ask_for_instruments(input, drivers_by_role())
    except EOFError:
        raise ChoiceError("nothing was written") from None


def _chosen(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        role, equals, driver = word.partition("=")
        if not equals or not role or not driver:
            raise ChoiceError(f"--with {word}: write ROLE=DRIVER, such as heater=eurotherm_3200")
        if role in found:
            raise ChoiceError(f"--with {word}: {role} is {found[role]} already")
        found[role] = driver
    return found


def _roles(path: Path) -> tuple[str, ...]:
    roles = roles_in(files.read(path).data)
    if not roles:
        raise ChoiceError(f"{path} names no role: its [roles] say what an experiment can use")
    return roles


def _name(text: str | None) -> str:
    if text and not NAME.fullmatch(text):
        raise ChoiceError(f"{text!r} cannot be a name: letters, digits, - and _, at most 40")
    return text or ""


def _new(path: Path, usual: str) -> Path:
    """Return the file to write; refuse what exists, and a folder that does not."""
    if path.is_dir() or path.suffix != ".toml":
        path = path / usual
    if path.exists() or path.is_symlink():
        raise ChoiceError(f"{path} exists already: nothing is overwritten; name another file")
    if path.parent.exists() and not path.parent.is_dir():
        raise ChoiceError(f"{path.parent} is no folder")
    return path


def _write(path: Path, text: str) -> None:
    """Write a new file as a whole, or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.link(part, path)  # unlike rename, it never replaces what came in between
    except FileExistsError:
        raise ChoiceError(f"{path} exists already: nothing is overwritten; name another file") from None
    except OSError as error:
        raise ChoiceError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _told(path: Path, text: str, then: str) -> None:
    lines = text.splitlines()
    left = sum(FILL_IN in line and not line.startswith("#") for line in lines)
    print(f"wrote {path}: {len(lines)} lines, {left} values for you to fill in (they say {FILL_IN!r})")
    print(f"then:  {then} --files-only   says what is left")
    print(f"       {then}")
