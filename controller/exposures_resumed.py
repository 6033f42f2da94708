"""What an interrupted run has of its exposures: from the index of the raw data, the images and the hits.

An image is on the disk before a line of the index names it, and its row in the journal comes last. So
whatever was acknowledged is found here; an image that lies there without a line was taken whole, under the
shutter of its exposure, before the host was gone: it counts, but nobody knows what state the cell was in.

Of frames in a ring the parts of the hit list are what is left: reduce counts them again. Their exposure is
ended before any reduce hears of it, or it would go on in a ring that holds other frames by now.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.rawfile import read_index

Message = dict[str, Any]
Place = tuple[int, ...]  # of a step in its experiment, turns of a repeat included


@dataclass(frozen=True)
class HadImages:
    """Images that an interrupted step has on disk, from all its exposures."""

    frames: int = 0
    exposed_s: float = 0.0  # lab time under the shutter that is in them


@dataclass(frozen=True)
class Unfinished:
    """An exposure that was begun and never ended, and the messages that end it."""

    n: int
    role: str
    name: str
    frames: int
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Resumed:
    """Everything that is known of the exposures of an interrupted run."""

    had: dict[Place, HadImages] = field(default_factory=dict)
    counted: dict[Place, tuple[int, ...]] = field(default_factory=dict)  # numbers of those in a ring
    unfinished: tuple[Unfinished, ...] = ()
    indexed: tuple[tuple[str, Message], ...] = ()  # role and line of each image in the index


def resumed(raw: Path) -> Resumed:
    """Return what the index and the images themselves tell; nothing where there is no index."""
    begun: dict[int, Message] = {}
    images: dict[int, dict[str, Message]] = {}
    counted: dict[Place, tuple[int, ...]] = {}
    ended: set[int] = set()
    with contextlib.suppress(OSError):
        for message in read_index(raw):
            match message:
                case {"k": "exposure", "n": int(n), "source": {"kind": "images"}}:
                    begun[n] = message
                case {"k": "exposure", "n": int(n), "source": {"kind": "ring"}, "step": [_, *_] as path}:
                    if message.get("purpose") != "dark":  # half of a dark level is none
                        counted[tuple(path)] = (*counted.get(tuple(path), ()), n)
                case {"k": "image", "n": int(n), "file": str(file)}:
                    images.setdefault(n, {})[file] = message
                case {"k": "exposure_end", "n": int(n)}:
                    ended.add(n)
    had: dict[Place, HadImages] = {}
    unfinished = []
    for n, one in begun.items():
        lines = images.get(n, {})
        frames = len(lines)
        if n not in ended:
            unfinished.append(_unfinished(raw, one, lines))
            frames = unfinished[-1].frames
        step = tuple(one.get("step") or ())
        if step:
            before, each_s = had.get(step, HadImages()), float(one["source"].get("exposure_s", 0.0))
            had[step] = HadImages(before.frames + frames, before.exposed_s + frames * each_s)
    told = [
        (str(begun[n]["role"]), line) for n, lines in images.items() if n in begun for line in lines.values()
    ]
    return Resumed(had, counted, tuple(unfinished), tuple(told))


def cut_off_rings(raw: Path) -> dict[int, Message]:
    """Return the exposures of a ring that were begun and never ended, by number."""
    begun: dict[int, Message] = {}
    with contextlib.suppress(OSError):
        for message in read_index(raw):
            match message:
                case {"k": "exposure", "n": int(n), "role": str(), "source": {"kind": "ring"}}:
                    begun[n] = message
                case {"k": "exposure_end", "n": int(n)}:
                    begun.pop(n, None)
    return begun


def _unfinished(raw: Path, begun: Message, lines: dict[str, Message]) -> Unfinished:
    """Return how an exposure is ended afterwards: images without a line first, then its end."""
    n, role = int(begun["n"]), str(begun["role"])
    more = []
    for path in sorted((raw / f"{role}_{n:04d}").glob("[0-9]*.tif")):
        file = str(path.relative_to(raw))
        if file not in lines:
            more.append(_line(n, path, file))
    numbers = [int(line["number"]) for line in (*lines.values(), *more)]
    counters = {"frames": len(numbers)}
    if numbers:
        counters["missing"] = max(numbers) - min(numbers) + 1 - len(numbers)
    end = {"k": "exposure_end", "n": n, "position": 0, "counters": counters}
    return Unfinished(n, role, str(begun["name"]), len(numbers), (*more, end))


def _line(n: int, path: Path, file: str) -> Message:
    """Return the line of an image that has none; the state of the cell is not known, and not guessed.

    What came from the camera is gone with the host: size and checksum are those of the image as it is kept.
    """
    content = path.read_bytes()
    return {
        "k": "image", "n": n, "number": int(path.stem), "file": file, "nbytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(), "origin": file, "time_s": None,
        "seen_s": path.stat().st_mtime, "stamp": {},
    }  # fmt: skip
