"""The frames of the HEXITEC twin as a process of its own: ``python -m hil_tests.sim.hexitec_stream``.

It gets its settings as one line of JSON, then commands, one a line, on its standard input, and answers each
with a line. It ends when the input closes. 9118.87 frames/s are 18 238 datagrams/s.

What is drawn and what is not: every photon is drawn by itself, with its own pixel, energy and charge
sharing, and is placed into a frame of its own; the electronic noise under it comes from a pool of frames
drawn at the start, of which each block takes a stretch from a random place. So a pixel's noise repeats after
some thousand frames, while no photon ever does: spectra and S have the statistics of the photons sent.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from hil_tests.sim.physics.compton import Geometry, Photons

DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1", "port": 61649, "rows": 80, "columns": 80, "packet_bytes": 8000, "header": "short",
    "frame_hz": 9118.87, "photons_per_frame": 64.0, "gain_kev": 0.027, "dark_adu": 1004.0,
    "dark_spread_adu": 25.0, "noise_adu": 7.0, "pool_frames": 1024, "seed": 1, "lithium_lost": 0.0,
}  # fmt: skip
BLOCK = 128  # frames drawn together: 14 ms
TURN_S = 0.001
CATCH_UP = 2.0  # times the rate, after this process was held up: a detector would not have stopped
BLOCKS_COLUMNS = 4  # read-out blocks whose columns are interleaved on the wire
FAULTS = ("lost", "doubled", "swapped", "late", "wrong_size", "renumber", "skip", "silence")


class Stream:
    """Frames of the detector, drawn and sent.

    Args:
        settings: see ``DEFAULTS``.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        s = {**DEFAULTS, **settings}
        self.settings = s
        self._rng = np.random.default_rng([s["seed"], 4])
        self.photons = Photons(
            Geometry(rows=s["rows"], columns=s["columns"]), self._rng,
            resolution_kev=s["noise_adu"] * s["gain_kev"],
        )  # fmt: skip
        self.photons.set_lithium_lost(float(s["lithium_lost"]))
        pixels = s["rows"] * s["columns"]
        quarter = s["columns"] // BLOCKS_COLUMNS
        image = np.arange(pixels)
        row, column = np.divmod(image, s["columns"])
        self._wire = row * s["columns"] + BLOCKS_COLUMNS * (column % quarter) + column // quarter
        dark = self._rng.normal(s["dark_adu"], s["dark_spread_adu"], pixels)
        pool = self._rng.normal(dark, s["noise_adu"], (s["pool_frames"], pixels))
        self._pool = np.zeros_like(pool, np.uint16)
        self._pool[:, self._wire] = np.rint(pool).astype(np.uint16)
        self._block = np.zeros((BLOCK, pixels), np.uint16)
        self._bytes = self._block.data.cast("B")
        self._left = 0  # frames of the block that were not sent yet
        whole, rest = divmod(2 * pixels, s["packet_bytes"])
        self._sizes = [s["packet_bytes"]] * whole + ([rest] if rest else [])
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((s["host"], s["port"]))
        self.light, self.gain = True, 1.0  # the shutter; what is left of the charge
        self.running = False
        self.frame = 0  # number of the next one
        self._began_s, self._began_frame = 0.0, 0
        self._held: list[tuple[int, list[Any]]] = []  # (frame at which it goes, packet)
        self._faults: dict[str, int] = {}
        self._silent_until_s = 0.0
        self.counts = dict.fromkeys(
            ("frames", "packets", "photons", "refused", *(f"fault_{kind}" for kind in FAULTS)), 0
        )
        self.late_s = 0.0

    # --- commands ----------------------------------------------------------------------------------------

    def command(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one command and return the answer."""
        verb = request.get("do")
        if verb == "start":
            self.frame, self.running, self.late_s = int(request.get("first", 0)), True, 0.0
            self._began_s, self._began_frame, self._left = time.monotonic(), self.frame, 0
            self.counts = dict.fromkeys(self.counts, 0)
        elif verb == "stop":
            self.running = False
            self._send_held(None)
        elif verb == "set":
            self.light = bool(request.get("light", self.light))
            self.gain = float(request.get("gain", self.gain))
            if "lithium_lost" in request:
                self.photons.set_lithium_lost(float(request["lithium_lost"]))
        elif verb == "fault":
            self._fault(request)
        return {
            "running": self.running, "next_frame": self.frame, **self.counts, "late_s": self.late_s,
            "fraction": self.photons.fraction, "cpu_s": time.process_time(),
        }  # fmt: skip

    def _fault(self, request: Mapping[str, Any]) -> None:
        kind, count = str(request["kind"]), int(request.get("count", 1))
        if kind not in FAULTS:
            raise ValueError(f"no such fault of a stream: {kind}; known: {', '.join(FAULTS)}")
        if kind == "silence":
            self._silent_until_s = time.monotonic() + float(request.get("wall_s", 1.0))
            self.counts["fault_silence"] += 1
        elif kind == "renumber":
            self._began_frame += int(request.get("first", 0)) - self.frame
            self.frame = int(request.get("first", 0))
            self.counts["fault_renumber"] += 1
        elif kind == "skip":
            self._began_frame += count
            self.frame += count
            self.counts["fault_skip"] += count
        else:
            self._faults[kind] = self._faults.get(kind, 0) + count

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    # --- sending -----------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Send what is due."""
        now_s = time.monotonic()
        due = self._began_frame + int((now_s - self._began_s) * self.settings["frame_hz"])
        behind_s = (due - self.frame) / self.settings["frame_hz"]
        self.late_s = max(self.late_s, behind_s)
        at_once = max(1, int(CATCH_UP * TURN_S * self.settings["frame_hz"]))
        silent = now_s < self._silent_until_s
        for _ in range(min(due - self.frame, at_once)):
            self._send_frame(silent=silent)

    def behind(self) -> bool:
        """Return whether frames are due already."""
        due = (time.monotonic() - self._began_s) * self.settings["frame_hz"]
        return self._began_frame + int(due) > self.frame

    def _send_frame(self, *, silent: bool) -> None:
        if self._left == 0:
            self._draw()
        at = (BLOCK - self._left) * 2 * self._block.shape[1]
        self._left -= 1
        last, number = len(self._sizes) - 1, self.frame
        self.frame += 1
        self.counts["frames"] += 1
        for index, size in enumerate(self._sizes):
            flags = (index == 0) << 31 | (index == last) << 30
            packet = [self._header(number, index, flags), self._bytes[at : at + size]]
            at += size
            if silent:
                continue
            if self._faults or self._held:
                self._send_faulty(packet)
            else:
                self._send(packet)

    def _header(self, number: int, index: int, flags: int) -> bytes:
        if self.settings["header"] == "short":
            return struct.pack("<II", number & 0xFFFFFFFF, index | flags)
        return struct.pack("<QII48x", number, index, flags)

    def _send(self, packet: list[Any]) -> None:
        try:
            self._socket.sendmsg(packet)
            self.counts["packets"] += 1
        except ConnectionRefusedError:  # nobody listens: a detector would not know
            self.counts["refused"] += 1

    def _send_faulty(self, packet: list[Any]) -> None:
        kind = next(iter(self._faults), "")
        if kind:
            self._faults[kind] -= 1
            if self._faults[kind] == 0:
                del self._faults[kind]
            self.counts[f"fault_{kind}"] += 1
        kept = [packet[0], bytes(packet[1])]
        if kind == "swapped":
            self._held.append((self.frame, kept))  # behind the packet that follows
            return
        if kind == "late":
            self._held.append((self.frame + 40, kept))
            return
        if kind == "wrong_size":
            self._send([packet[0], kept[1][:-2]])
        elif kind != "lost":
            self._send(packet)
            if kind == "doubled":
                self._send(packet)
        self._send_held(self.frame)

    def _send_held(self, frame: int | None) -> None:
        due = [entry for entry in self._held if frame is None or entry[0] <= frame]
        self._held = [entry for entry in self._held if entry not in due]
        for _, packet in due:
            self._send(packet)

    def _draw(self) -> None:
        """Draw a block of frames: noise from the pool, every photon anew."""
        s, block = self.settings, self._block
        first = int(self._rng.integers(0, s["pool_frames"] - BLOCK + 1))
        block[:] = self._pool[first : first + BLOCK]
        self._left = BLOCK
        if not self.light or self.gain <= 0.0:
            return
        n = int(self._rng.poisson(s["photons_per_frame"] * BLOCK))
        pixel, energy, beside, part = self.photons.draw(n)
        frame = self._rng.integers(0, BLOCK, n)
        split = self.photons.last_split
        flat, pixels, adu = block.reshape(-1), block.shape[1], self.gain / s["gain_kev"]
        np.add.at(flat, frame * pixels + self._wire[pixel], np.rint(energy * adu).astype(np.uint16))
        there = frame[split] * pixels + self._wire[beside]
        np.add.at(flat, there, np.rint(part * adu).astype(np.uint16))
        self.counts["photons"] += n


def main() -> int:
    """Run the process."""
    stream = Stream(json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": True}), flush=True)
    poll = select.poll()
    poll.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    commands = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115  # nothing may stay in a buffer
    while True:
        waits = stream.running and stream.behind()
        if poll.poll(0 if waits else 1 if stream.running else 200):
            line = commands.readline()
            if not line:
                stream.close()
                return 0
            try:
                answer = {"ok": True, **stream.command(json.loads(line))}
            except (ValueError, KeyError, TypeError) as error:
                answer = {"ok": False, "error": str(error)}
            print(json.dumps(answer), flush=True)
        if stream.running:
            stream.turn()


if __name__ == "__main__":
    sys.exit(main())
