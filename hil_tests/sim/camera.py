"""Twins of a camera for radiography: its software writes TIFF files into a folder, or publishes messages.

The camera runs by itself, exposure after exposure; nobody triggers it. Its shutter is that of the I/O box.
Its sample changer has the cell out of the beam until the shutter opens for the second time, so that the first
exposure with neutrons is one of the open beam; ``inject({"kind": "sample", "in": True})`` moves it at will.

A file is written in two parts, the second one a moment later, under its final name, as many programs do.
Faults, each for the next image: ``half`` (the second part never comes), ``lost``, ``doubled`` (once more,
under the next number), ``wrong`` (no TIFF), ``late`` (``for_s`` lab seconds); ``silence`` with ``for_s``.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from hil_tests.sim.physics.neutrons import Radiograph

EPICS_EPOCH_S = 631_152_000.0
KINDS = ("half", "lost", "doubled", "wrong", "late", "silence", "sample")
MOST_BEHIND = 3  # images that a bench which was held up still draws


class Shutter(Protocol):
    """What stands before the camera. It counts by itself: closed for less than a tick, it was closed."""

    shutter_openings: int
    shutter_open_s: float  # lab time, in all


class Camera:
    """A free-running camera; how an image leaves it is up to ``deliver``.

    Args:
        radiograph: draws images.
        shutter: of the I/O box.
    """

    def __init__(self, radiograph: Radiograph, shutter: Shutter) -> None:
        self.radiograph = radiograph
        self._shutter = shutter
        self._exposure_s = radiograph.settings["exposure_s"]
        self._now_s = 0.0
        self._ends_s: float | None = None
        self._open_before_s = 0.0
        self._sample_in: bool | None = None
        self._number = 0
        self._fault: dict[str, Any] = {}
        self._silent_until_s = -1.0
        self._counts = dict.fromkeys(("images", "lit", *KINDS), 0)

    def advance(self, now_s: float) -> None:
        """Let lab time pass."""
        self._now_s = now_s
        if self._ends_s is None:
            self._ends_s = now_s + self._exposure_s
        if now_s >= self._ends_s:
            sample_in = self._shutter.shutter_openings > 1 if self._sample_in is None else self._sample_in
            open_s = min(self._shutter.shutter_open_s - self._open_before_s, self._exposure_s)
            image = self.radiograph.image(open_s, sample_in=sample_in)
            self._counts["lit"] += open_s > 0.0
            behind = now_s - self._ends_s > MOST_BEHIND * self._exposure_s
            self._ends_s = (now_s if behind else self._ends_s) + self._exposure_s
            self._open_before_s = self._shutter.shutter_open_s if behind else self._open_before_s + open_s
            self._number += 1
            if now_s >= self._silent_until_s:
                self._counts["images"] += 1
                fault, self._fault = self._fault, {}
                self.deliver(self._number, image, fault)
        self.later()

    def deliver(self, number: int, image: NDArray[np.uint16], fault: Mapping[str, Any]) -> None:
        """Hand an image to whoever listens."""
        raise NotImplementedError

    def later(self) -> None:
        """Finish what was left half done."""

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong; see the top of this file."""
        kind = str(fault.get("kind"))
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind!r} of a camera; there are {', '.join(KINDS)}")
        self._counts[kind] += 1
        if kind == "sample":
            self._sample_in = bool(fault.get("in", True))
        elif kind == "silence":
            self._silent_until_s = self._now_s + float(fault["for_s"])
        else:
            self._fault = dict(fault)

    def counters(self) -> dict[str, Any]:
        """Return what was counted, and what the cell truly holds."""
        return {**self._counts, "layers": self.radiograph.truth()}


class FolderCamera(Camera):
    """Writes TIFF files."""

    def __init__(self, radiograph: Radiograph, shutter: Shutter) -> None:
        super().__init__(radiograph, shutter)
        self.folder = Path()
        self._rest: list[tuple[float, Path, bytes]] = []  # when, where, what is still to be written

    async def start(self) -> str:
        """Make the folder; return its path."""
        self.folder = Path(tempfile.mkdtemp(prefix="operando-camera-"))
        return str(self.folder)

    async def stop(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def deliver(self, number: int, image: NDArray[np.uint16], fault: Mapping[str, Any]) -> None:
        """Begin to write a file."""
        held = io.BytesIO()
        tifffile.imwrite(held, image)
        data, kind = held.getvalue(), fault.get("kind")
        if kind == "lost":
            return
        if kind == "wrong":
            data = b"\x89PNG\r\n\x1a\n" + data[8:400]
        half = len(data) // 2
        path = self._path(number)
        after_s = self._now_s + float(fault.get("for_s", 0.0)) if kind == "late" else self._now_s
        if kind == "late":
            self._rest.append((after_s, path, data))
            return
        path.write_bytes(data[:half])
        if kind != "half":
            self._rest.append((after_s, path, data[half:]))
        if kind == "doubled":
            self._number += 1
            self._path(self._number).write_bytes(data)

    def later(self) -> None:
        """Write the second halves, and what is late."""
        due = [one for one in self._rest if self._now_s > one[0]]
        self._rest = [one for one in self._rest if self._now_s <= one[0]]
        for _, path, data in due:
            with path.open("ab") as file:
                file.write(data)

    def _path(self, number: int) -> Path:
        return self.folder / f"neutrons_{number:05d}.tif"


class StreamCamera(Camera):
    """Publishes what areaDetector's NDPluginZMQ does, by the ZeroMQ library."""

    def __init__(self, radiograph: Radiograph, shutter: Shutter) -> None:
        super().__init__(radiograph, shutter)
        self._socket: Any = None

    async def start(self) -> str:
        """Bind to a free port; return "host:port"."""
        import zmq

        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        """Close the port."""
        if self._socket is not None:
            self._socket.close()

    def deliver(self, number: int, image: NDArray[np.uint16], fault: Mapping[str, Any]) -> None:
        """Publish an image."""
        kind = fault.get("kind")
        if kind == "lost":
            return
        pixels = image.astype("<u2").tobytes()
        header = {
            "htype": "array-1.0", "type": "uint16", "shape": list(image.shape), "frame": number,
            "timeStamp": self._now_s + 1.0, "encoding": "", "ndattr": {},
        }  # fmt: skip
        if kind == "half":
            pixels = pixels[: len(pixels) // 2]
        if kind == "wrong":
            header["htype"] = "bsr_m-1.1"
        for _ in range(2 if kind == "doubled" else 1):
            self._socket.send_multipart([json.dumps(header).encode(), pixels])
