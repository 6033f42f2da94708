"""A wire that plays a script in its own time, a pseudo-terminal pair, and a small clock."""

import asyncio
import os
import pty
import tty
from collections import deque

import pytest

from drivers.line import Line
from drivers.port import PortLost


class FakeClock:
    """Lab clock and source of monotonic time; only waiting moves it."""

    speed = 1.0

    def __init__(self):
        self.time_s = 1000.0

    def __call__(self):
        return self.time_s

    def now_s(self):
        return self.time_s

    async def sleep(self, lab_s):
        self.time_s += lab_s
        await asyncio.sleep(0)

    def wall_timeout_s(self, lab_deadline_s):
        return lab_deadline_s


class ScriptedPort:
    """Answers each expected request with (delay, bytes) pieces; time passes only while somebody reads.

    ``talks`` entries: (request, reply, reply...), a reply being bytes, (delay_s, bytes), or an exception to
    be raised by the read.
    """

    character_s = 0.0
    where = "/dev/fake"

    def __init__(self, clock):
        self.clock = clock
        self.talks = deque()
        self.sent = []  # (time, bytes)
        self.coming = []  # (time, bytes or exception)
        self.openings = 0
        self.closings = 0
        self.open_errors = deque()
        self.lost = None
        self.stuck = False  # reading then takes for ever: only an interruption helps

    def expect(self, request, *replies):
        self.talks.append((_bytes(request), replies))
        return self

    def arrive(self, data, delay_s=0.0):
        self.coming.append((self.clock.time_s + delay_s, _bytes(data)))
        self.coming.sort(key=lambda item: item[0])

    async def open(self):
        if self.open_errors:
            raise self.open_errors.popleft()
        self.openings += 1
        self.lost = None
        self.coming.clear()

    async def close(self):
        self.closings += 1

    async def write(self, data):
        if self.lost:
            raise PortLost(self.lost)
        self.sent.append((self.clock.time_s, bytes(data)))
        assert self.talks, f"nothing more was expected, but {data.hex(' ')} was sent"
        request, replies = self.talks.popleft()
        assert bytes(data) == request, f"sent {data.hex(' ')} instead of {request.hex(' ')}"
        for reply in replies:
            delay_s, content = reply if isinstance(reply, tuple) else (0.001, reply)
            self.arrive(content, delay_s)

    async def read(self, timeout_s):
        await asyncio.sleep(0)
        if self.lost:
            raise PortLost(self.lost)
        if self.coming and self.coming[0][0] <= self.clock.time_s + timeout_s:
            at_s, content = self.coming.pop(0)
            self.clock.time_s = max(self.clock.time_s, at_s)
            if isinstance(content, Exception):
                self.lost = str(content)
                raise content
            return content
        if self.stuck and timeout_s > 0:
            await asyncio.Event().wait()
        self.clock.time_s += timeout_s
        return b""

    def discard(self):
        here = [content for at_s, content in self.coming if at_s <= self.clock.time_s]
        self.coming = [item for item in self.coming if item[0] > self.clock.time_s]
        return b"".join(here)


class PtyPair:
    """Two raw pseudo-terminals, crossed over. The slaves stay open here, so closing one end is no hang-up."""

    def __init__(self):
        self._masters, self._slaves = zip(*(pty.openpty() for _ in range(2)), strict=True)
        for slave in self._slaves:
            tty.setraw(slave)
        for master in self._masters:
            os.set_blocking(master, False)
        self.ours, self.theirs = (os.ttyname(slave) for slave in self._slaves)
        loop = asyncio.get_running_loop()
        first, second = self._masters
        loop.add_reader(first, lambda: os.write(second, os.read(first, 4096)))
        loop.add_reader(second, lambda: os.write(first, os.read(second, 4096)))

    def close(self):
        loop = asyncio.get_running_loop()
        for master, slave in zip(self._masters, self._slaves, strict=True):
            loop.remove_reader(master)
            os.close(master)
            os.close(slave)


def _bytes(data):
    return bytes.fromhex(data) if isinstance(data, str) else data


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def port(clock):
    port = ScriptedPort(clock)
    yield port
    assert not port.talks, f"never sent: {[request.hex(' ') for request, _ in port.talks]}"


@pytest.fixture
async def line(clock, port):
    line = Line("fake", port, monotonic=clock)
    await line.open()
    return line


@pytest.fixture
async def pty_pair():
    pair = PtyPair()
    yield pair
    pair.close()
