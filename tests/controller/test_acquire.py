"""The acquire process over a real socket: every frame that was sent is whole or known to be lost."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from drivers.frame_ring import Mode, Ring, RingError, RingWriter, Word

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
SIDE = 8  # pixels: small frames, a hundred thousand of them cost nothing
BYTES = 2 * SIDE * SIDE
SLOTS = 128


def wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.002)


class Station:
    """The process, and the words of its ring as control uses them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.path = folder / "frames.ring"
        self.camera = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sent = 0
        self.process = self.start()
        wait(self.ready)
        self.ring = Ring(self.path, SLOTS, BYTES)

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "controller.acquire", "--port", str(self.port), "--rows", str(SIDE),
            "--columns", str(SIDE), "--packet-bytes", "96", "--slots", str(SLOTS), "--ring", str(self.path),
        ]  # fmt: skip
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ready(self) -> bool:
        try:
            ring = Ring(self.path, SLOTS, BYTES)
        except RingError:
            return False
        beats = ring.beat_age_s() < 1.0 and ring.words[Word.PID] == self.process.pid
        ring.close()
        return beats

    def begin(self) -> None:
        words = self.ring.words
        words[Word.MODE] = Mode.COUNT
        words[Word.EXPOSURE] += 1
        self.sent = 0
        wait(lambda: words[Word.SEEN] == words[Word.EXPOSURE])

    def send(self, n: int, *, only: int | None = None) -> None:
        """Send n frames; each holds its own number in all pixels."""
        for number in range(self.sent, self.sent + n):
            data = np.full(SIDE * SIDE, number % 65536, "<u2").tobytes()
            for index, part in enumerate((data[:96], data[96:])):
                if only in (None, index):
                    head = struct.pack("<II", number, index | (1 << 31) * (index == 0) | (1 << 30) * index)
                    self.camera.sendto(head + part, ("127.0.0.1", self.port))
        self.sent += n

    def taken(self) -> int:
        """Frames that the process has seen, of the numbers below its base."""
        return int(self.ring.words[Word.BASE])

    def counted(self) -> int:
        counts = self.ring.counts()
        return counts["frames"] + counts["missing"] + counts["incomplete"]

    def end(self) -> dict[str, int]:
        words = self.ring.words
        words[Word.MODE] = Mode.ENDING
        silent = words[Word.SILENT]
        wait(lambda: words[Word.SILENT] >= silent + 2)
        words[Word.MODE] = Mode.IDLE
        return self.ring.counts()

    def kill(self) -> None:
        assert self.process.stdin is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.process.stdin.close()

    def close(self) -> None:
        self.camera.close()
        self.ring.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(PATIENCE_S)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    one = Station(tmp_path)
    yield one
    one.close()


def test_what_is_sent_is_in_the_ring_and_counted(station: Station) -> None:
    station.send(5)  # before the exposure: nobody wants them
    wait(lambda: station.ring.words[Word.IDLE] == 10)
    station.begin()
    station.send(40)
    counts = station.end()
    ring = station.ring
    assert (counts["frames"], counts["missing"], counts["incomplete"]) == (40, 0, 0)
    assert ring.words[Word.WRITTEN] - ring.words[Word.FIRST] == 40
    for position in range(ring.words[Word.FIRST], ring.words[Word.WRITTEN]):
        slot = position % SLOTS
        number = ring.table[2 * slot]
        assert bytes(ring.frames[slot * BYTES : (slot + 1) * BYTES]) == struct.pack("<H", number) * SIDE**2


def test_held_frames_are_counted_and_not_written(station: Station) -> None:
    station.begin()
    station.send(10)
    wait(lambda: station.ring.words[Word.WRITTEN] == 10)
    station.ring.words[Word.MODE] = Mode.HOLD
    time.sleep(0.15)  # it looks at least every 50 ms while nothing comes
    station.send(7)
    wait(lambda: station.ring.words[Word.HELD] == 7)
    station.ring.words[Word.MODE] = Mode.COUNT
    time.sleep(0.15)
    station.send(3)
    counts = station.end()
    assert (counts["frames"], counts["held"], station.ring.words[Word.WRITTEN]) == (20, 7, 13)


def test_a_second_exposure_begins_from_zero(station: Station) -> None:
    station.begin()
    station.send(9)
    station.end()
    station.begin()
    station.send(4)
    counts = station.end()
    assert (counts["frames"], counts["missing"]) == (4, 0)
    assert station.ring.words[Word.FIRST] == 9


def test_a_killed_process_is_a_gap_and_its_counts_go_on(station: Station) -> None:
    station.begin()
    station.send(100)
    wait(lambda: station.ring.words[Word.WRITTEN] == 100)
    station.kill()
    station.send(30)  # nobody is there
    station.process = station.start()
    wait(station.ready)
    station.send(50)
    counts = station.end()
    assert counts["frames"] + counts["missing"] + counts["incomplete"] == station.sent == 180
    assert (counts["frames"], counts["missing"], counts["restarts"]) == (150, 30, 1)


def test_a_frozen_process_loses_what_the_kernel_cannot_hold_and_knows_it(station: Station) -> None:
    station.begin()
    station.send(20)
    wait(lambda: station.ring.words[Word.WRITTEN] == 20)
    os.kill(station.process.pid, signal.SIGSTOP)
    held = int(Path("/proc/sys/net/core/rmem_max").read_text())
    many = min(4 * held // 700, 60_000)  # more than fits: a small datagram takes some 700 bytes there
    station.send(many)
    os.kill(station.process.pid, signal.SIGCONT)
    wait(lambda: station.counted() > 20)
    station.end()  # what was held has been taken
    last = station.ring.counts()
    assert last["frames"] < station.sent
    station.ring.words[Word.MODE] = Mode.COUNT
    time.sleep(0.15)
    station.send(10)  # the numbers after the gap tell how long it was
    counts = station.end()
    assert counts["frames"] + counts["missing"] + counts["incomplete"] == station.sent


def test_a_writer_that_died_inside_a_frame_leaves_no_trace_of_it(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "r", 4, BYTES, create=True)
    writer = RingWriter(ring)
    writer.put(0, memoryview(bytes(BYTES)))
    ring.words[Word.CLAIMED] = 2  # as it stands while a slot is written
    RingWriter(ring)
    assert (ring.words[Word.WRITTEN], ring.words[Word.CLAIMED]) == (1, 1)


def test_a_file_that_is_no_such_ring_is_refused(tmp_path: Path) -> None:
    Ring(tmp_path / "r", 4, BYTES, create=True).close()
    with pytest.raises(RingError, match="not a ring of 5 frames"):
        Ring(tmp_path / "r", 5, BYTES)
    with pytest.raises(RingError, match="No such file"):
        Ring(tmp_path / "other", 4, BYTES)
