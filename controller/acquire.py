"""The acquire process: datagrams of a frame detector into a ring, and nothing else.

``python -m controller.acquire --port PORT ...``. A plain ``recv_into`` loop: no asyncio, no allocation per
frame beyond small integers, no reader that could hold it up. Control tells it through words of the ring's
header when to count; counters stand there, so they outlive this process: one that is started again goes on
where the last one was, and what it missed shows as missing frame numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from controller import scheduling
from drivers.frame_ring import NAMES, Mode, Ring, RingError, RingWriter, Word, ring_path
from drivers.hexitec_packets import WINDOW, Assembler, Counts, Layout

log = logging.getLogger("acquire")

RECEIVE_BUFFER_BYTES = 32 << 20  # as much as net.core.rmem_max allows of it: a busy machine needs it
SILENCE_S = 0.05
LOOK_PACKETS = 64  # between two looks at what control wants: 3.5 ms at full rate
GONE_S = 1.0  # how often the parent is looked for


class Acquire:
    """One socket, one ring.

    Args:
        endpoint: bound UDP socket with a receive timeout.
        ring: the ring, ours alone to write.
        layout: of the frames.
        alive: asked about once a second; False ends the loop.
    """

    def __init__(
        self, endpoint: socket.socket, ring: Ring, layout: Layout, alive: Callable[[], bool] = lambda: True
    ) -> None:
        self._socket, self._ring, self._layout, self._alive = endpoint, ring, layout, alive
        self._writer = RingWriter(ring)
        self._words = ring.words
        self._mode = Mode.IDLE
        self.stopped = False
        self.assembler = self._go_on()

    def _go_on(self) -> Assembler:
        """Continue the exposure that an earlier process was in, if there is one."""
        words, ring = self._words, self._ring
        counting = words[Word.MODE] != Mode.IDLE and words[Word.SEEN] == words[Word.EXPOSURE]
        if not counting:
            return Assembler(self._layout, self._deliver)
        counts = Counts(**{name: value for name, value in ring.counts().items() if name in NAMES})
        base = words[Word.BASE]
        first = max(words[Word.FIRST], words[Word.WRITTEN] - min(ring.slots, LOOK_PACKETS + 2 * WINDOW))
        written = {ring.table[2 * (at % ring.slots)] for at in range(first, words[Word.WRITTEN])}
        counts.frames = words[Word.WRITTEN] - words[Word.FIRST] + words[Word.HELD]
        newest = max(written, default=base - 1)
        absent = [number for number in range(base, newest + 1) if number not in written]
        counts.missing += len(absent)
        counts.lost_packets += len(absent) * len(self._layout.sizes)
        words[Word.RESTARTS] += 1
        return Assembler(self._layout, self._deliver, counts=counts, first=max(base, newest + 1))

    def _deliver(self, number: int, samples: memoryview) -> None:
        if self._mode == Mode.HOLD:
            self._words[Word.HELD] += 1
            self._words[Word.BASE] = number + 1  # no slot of the ring says that it had come
        else:
            self._writer.put(number, samples)

    def run(self) -> None:
        """Receive until ``alive`` says no."""
        receive, words = self._socket.recv_into, self._words
        looked_s = 0.0
        while True:
            self._look()
            if self.stopped:
                return
            if time.monotonic() - looked_s > GONE_S:
                if not self._alive():
                    return
                looked_s = time.monotonic()
            packet, take = self.assembler.packet, self.assembler.take
            counting = self._mode != Mode.IDLE
            try:
                for _ in range(LOOK_PACKETS):
                    size = receive(packet)
                    if counting:
                        take(size)
                    else:
                        words[15] += 1  # Word.IDLE
            except BlockingIOError:
                self._silent()
            except InterruptedError:
                continue

    def _silent(self) -> None:
        if self._mode == Mode.ENDING:
            self.assembler.flush()
            self._ring.put_counts(self.assembler.counts)
            self._words[Word.SILENT] += 1

    def _look(self) -> None:
        """Tell the counters, and see what control wants."""
        words = self._words
        if words[Word.EXPOSURE] != words[Word.SEEN]:
            self.assembler = Assembler(self._layout, self._deliver)
            for word in (Word.HELD, Word.SILENT, Word.RESTARTS, Word.BASE):
                words[word] = 0
            self._ring.put_counts(self.assembler.counts)
            words[Word.FIRST] = words[Word.WRITTEN]
            words[Word.SEEN] = words[Word.EXPOSURE]
        elif self._mode != Mode.IDLE:
            self._ring.put_counts(self.assembler.counts)
            words[Word.BASE] = self.assembler.base
        self._mode = Mode(words[Word.MODE])
        words[Word.BEAT_NS] = time.monotonic_ns()


def listen(host: str, port: int) -> tuple[socket.socket, int]:
    """Return a socket bound to where the frames come, and the bytes that the kernel holds for it."""
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    seconds, part = divmod(SILENCE_S, 1.0)
    endpoint.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(part * 1e6))
    )
    endpoint.bind((host, port))
    return endpoint, endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def main(arguments: list[str] | None = None) -> int:
    """Run the process; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m controller.acquire", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address of this machine that frames come to")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rows", type=int, default=80)
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--packet-bytes", type=int, default=8000)
    parser.add_argument("--header", choices=("short", "extended"), default="short")
    parser.add_argument("--slots", type=int, required=True, help="frames in the ring")
    parser.add_argument("--ring", type=Path, help="another place for the ring")
    args = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="acquire: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor
    parent = os.getppid()
    layout = Layout(args.rows, args.columns, args.packet_bytes, args.header)
    try:
        endpoint, given = listen(args.host, args.port)
        ring = Ring(args.ring or ring_path(args.port), args.slots, layout.frame_bytes, create=True)
    except (OSError, RingError) as error:
        log.error("port %d: %s", args.port, error)  # noqa: TRY400
        return 3
    scheduling.keep_off()  # of control's core, where it has one
    try:
        realtime = os.sched_param(scheduling.REALTIME_PRIORITY)
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, realtime)
    except OSError:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, scheduling.NICE)
    log.info("udp %s:%d, %d bytes of receive buffer, ring %s", args.host, args.port, given, ring.path)
    acquire = Acquire(endpoint, ring, layout, lambda: os.getppid() == parent)
    signal.signal(signal.SIGTERM, lambda *_: setattr(acquire, "stopped", True))
    with endpoint:
        acquire.run()
    if os.getppid() != parent or _closed():  # else another will go on with this ring
        ring.path.unlink(missing_ok=True)
    return 0


def _closed() -> bool:
    """Return whether standard input has come to its end: whoever started this wants it no more."""
    with contextlib.suppress(OSError, ValueError):
        ready, _, _ = select.select([0], [], [], 0)
        return bool(ready) and os.read(0, 1) == b""
    return False


if __name__ == "__main__":
    sys.exit(main())
