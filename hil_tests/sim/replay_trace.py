"""A recorded wire as a twin: the instruments of a user's trace answer again as they did.

Reads ``operando-wire-trace 1`` (written from its description, shares no code with the host). For each line it
opens the same kind of port and waits for a request of the recording; the answer is what came then, after the
time that it took then, silence, hang-ups and late bytes included. A request is looked for from the last one
onwards, then backwards. On Modbus TCP transaction numbers are those of the host of today, and a write with
the same head but other 32-bit words is taken for the recorded one (a key that is drawn anew at every start):
from then on the new word stands for the old one in requests and answers. What was never asked before is not
answered, and counted.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hil_tests.sim.wire.serial_pty import SerialPty

FORMAT = "# operando-wire-trace 1"
HEAD_BYTES = 6  # of a Modbus TCP request behind its header: unit, function, address, count
TCP_HEADER_BYTES = 6
UNKNOWN_AFTER_S = 0.2  # bytes on a serial line that begin no request of the recording
CAME, STRAY = "<", "~"


@dataclass
class Exchange:
    """What was sent, and what happened until the next was."""

    request: bytes
    answers: list[tuple[float, bytes]] = field(default_factory=list)  # seconds after it
    lost_s: float | None = None  # the port went, seconds after it
    back_s: float | None = None  # and was there again


@dataclass
class Recording:
    """A trace file."""

    about: dict[str, Any]
    lines: dict[str, list[Exchange]]
    dropped: int = 0  # records that the recorder could not write


def read(path: Path) -> Recording:
    """Return a trace file. Raises ValueError, naming the line, if it is none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        if file.readline().strip() != FORMAT:
            raise ValueError(f"{path}: does not begin with {FORMAT!r}")
        recording = Recording(_about(path, file.readline()), {})
        begun: dict[str, float] = {}
        for number, line in enumerate(file, start=3):
            try:
                time_s, name, sign, text = line.rstrip("\n").split(" ", 3)
                _take(recording, begun, float(time_s), name, sign, text)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return recording


def _about(path: Path, line: str) -> dict[str, Any]:
    """Return the header. Raises ValueError if it is none."""
    try:
        about = json.loads(line.removeprefix("#"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line 2: {error}") from error
    if not isinstance(about, dict) or not isinstance(about.get("lines", {}), dict):
        raise ValueError(f"{path}, line 2: no object with the tables of the lines")  # noqa: TRY004
    for name, table in about.get("lines", {}).items():
        kind = table.get("kind") if isinstance(table, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"{path}, line 2: line {name!r} is none of {', '.join(KINDS)}")
    found: dict[str, Any] = about
    return found


def _take(
    recording: Recording, begun: dict[str, float], time_s: float, name: str, sign: str, text: str
) -> None:
    if not math.isfinite(time_s):
        raise ValueError(f"no time: {time_s}")
    if name == "-":
        recording.dropped += int(text.split()[-1]) if text.startswith("dropped") else 0
        return
    exchanges = recording.lines.setdefault(name, [])
    if sign == ">":
        begun[name] = time_s
        exchanges.append(Exchange(bytes.fromhex(text)))
        return
    if not exchanges:
        return  # before the first request: nobody asked
    last, after_s = exchanges[-1], time_s - begun[name]
    if sign in (CAME, STRAY):
        last.answers.append((after_s, bytes.fromhex(text)))
    elif sign != "!":
        raise ValueError(f"unknown sign {sign!r}")
    elif text.startswith("lost") and last.lost_s is None:
        last.lost_s = after_s
    elif text.startswith("opened") and last.lost_s is not None:
        last.back_s = after_s


class Wire(Protocol):
    """Where a player sends."""

    def send(self, data: bytes) -> None:
        """Send to the host."""
        ...

    def lose(self) -> None:
        """Hang up."""
        ...

    def restore(self) -> None:
        """Be there again."""
        ...


class Player:
    """Plays one line of a recording.

    Args:
        exchanges: of that line.
        wire: where answers go.
        tcp: requests have transaction numbers.
        whole: what comes from the host is a whole request (datagrams); else the beginning of one may be.
    """

    def __init__(
        self, exchanges: list[Exchange], wire: Wire, *, tcp: bool = False, whole: bool = False
    ) -> None:
        self.answered = self.unknown = self.skipped = 0
        self._exchanges = exchanges
        self._wire = wire
        self._tcp = tcp
        self._whole = whole
        self._next = 0
        self._buffer = b""
        self._words: dict[bytes, bytes] = {}  # of the recording, and what stands for them today
        self._timers: set[asyncio.TimerHandle] = set()
        self._impatience: asyncio.TimerHandle | None = None

    @property
    def unplayed(self) -> int:
        """Exchanges of the recording that were not reached."""
        return len(self._exchanges) - self._next

    def receive(self, data: bytes) -> None:
        """Take what the host sends."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        self._buffer += data
        while self._buffer and (request := self._request()):
            self._buffer = self._buffer[len(request) :]
            self._answer(request)
        if self._buffer:
            self._impatience = asyncio.get_running_loop().call_later(UNKNOWN_AFTER_S, self._forget)

    def stop(self) -> None:
        """Send nothing any more."""
        for timer in (*self._timers, *([self._impatience] if self._impatience else [])):
            timer.cancel()
        self._timers.clear()

    def _request(self) -> bytes:
        """Return the first whole request of the buffer, empty while there is none."""
        if self._whole:
            return self._buffer
        if self._tcp:
            size = TCP_HEADER_BYTES + int.from_bytes(self._buffer[4:6], "big")
            return self._buffer[:size] if len(self._buffer) >= max(size, TCP_HEADER_BYTES) else b""
        ahead = (e.request for e in (*self._exchanges[self._next :], *self._exchanges[: self._next]))
        return next((request for request in ahead if self._buffer.startswith(request)), b"")

    def _forget(self) -> None:
        self.unknown += 1
        self._buffer = b""

    def _answer(self, request: bytes) -> None:
        number = self._find(request)
        if number is None:
            self.unknown += 1
            return
        exchange = self._exchanges[number]
        self.skipped += max(number - self._next, 0)
        self._next = max(self._next, number + 1)
        self.answered += 1
        for after_s, data in exchange.answers:
            self._later(after_s, self._wire.send, self._of_today(data, exchange, request))
        if exchange.lost_s is not None:
            self._later(exchange.lost_s, self._wire.lose)
            self._later(max(exchange.back_s or 0.0, exchange.lost_s + 0.05), self._wire.restore)

    def _of_today(self, answer: bytes, exchange: Exchange, request: bytes) -> bytes:
        """Return an answer with the number of the request, and with today's words."""
        if not self._tcp:
            return answer
        answer = self._today(answer)
        return request[:2] + answer[2:] if answer[:2] == exchange.request[:2] else answer

    def _take_words(self, known: bytes, request: bytes) -> None:
        """Note which 32-bit words of a write are other ones today."""
        for at in range(TCP_HEADER_BYTES + HEAD_BYTES + 1, len(known), 4):
            old, new = known[at : at + 4], request[at : at + 4]
            if old != new and len(old) == 4:
                self._words[old] = new

    def _find(self, request: bytes) -> int | None:
        """Return the number of the exchange to play: the next that fits, else the last one before."""
        ahead = range(self._next, len(self._exchanges))
        order: tuple[int, ...] = (*ahead, *range(self._next - 1, -1, -1))
        cut = TCP_HEADER_BYTES if self._tcp else 0
        for number in order:
            if self._today(self._exchanges[number].request)[cut:] == request[cut:]:
                return number
        head = TCP_HEADER_BYTES + HEAD_BYTES
        for number in order if self._tcp and len(request) > head else ():
            known = self._exchanges[number].request
            if len(known) == len(request) and known[cut:head] == request[cut:head]:
                self._take_words(known, request)
                return number
        return None

    def _today(self, known: bytes) -> bytes:
        for old, new in self._words.items():
            known = known.replace(old, new)
        return known

    def _later(self, after_s: float, do: Any, *arguments: bytes) -> None:
        def act() -> None:
            self._timers.discard(timer)
            do(*arguments)

        timer = asyncio.get_running_loop().call_later(after_s, act)
        self._timers.add(timer)


class SerialReplay:
    """A recorded serial line on a pseudo-terminal, which keeps its name over a hang-up."""

    def __init__(self, name: str, exchanges: list[Exchange]) -> None:
        self.player = Player(exchanges, self)
        self._pty = SerialPty(self.player.receive, name=name, baud=4_000_000)

    async def start(self) -> dict[str, str | int]:
        """Open the port; return what the station file must say of it."""
        return {"port": self._pty.open()}

    async def stop(self) -> None:
        """Close it."""
        self.player.stop()
        self._pty.close()

    def send(self, data: bytes) -> None:
        """Send to the host."""
        self._pty.send(data)

    def lose(self) -> None:
        """Pull the cable."""
        self._pty.unplug()

    def restore(self) -> None:
        """Plug it in again."""
        self._pty.replug()


class TcpReplay(asyncio.Protocol):
    """A recorded TCP line; one client at a time, the newest counts."""

    def __init__(self, name: str, exchanges: list[Exchange]) -> None:
        self.player = Player(exchanges, self, tcp=True)
        self._transport: asyncio.Transport | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> dict[str, str | int]:
        """Listen; return what the station file must say of it."""
        self._server = await asyncio.get_running_loop().create_server(lambda: self, "127.0.0.1", 0)
        return {"host": "127.0.0.1", "port": int(self._server.sockets[0].getsockname()[1])}

    async def stop(self) -> None:
        """Stop listening."""
        self.player.stop()
        self.lose()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a client."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a TCP server makes no other
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand on what the client sends."""
        self.player.receive(data)

    def send(self, data: bytes) -> None:
        """Send to the client."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def lose(self) -> None:
        """Drop the client."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def restore(self) -> None:
        """Nothing to do: it goes on listening."""


class UdpReplay(asyncio.DatagramProtocol):
    """A recorded UDP line; each datagram keeps its boundaries."""

    def __init__(self, name: str, exchanges: list[Exchange]) -> None:
        self.player = Player(exchanges, self, whole=True)
        self._transport: asyncio.DatagramTransport | None = None
        self._client: tuple[str, int] | None = None

    async def start(self) -> dict[str, str | int]:
        """Bind; return what the station file must say of it."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return {"host": "127.0.0.1", "port": int(self._transport.get_extra_info("sockname")[1])}

    async def stop(self) -> None:
        """Close the socket."""
        self.player.stop()
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Hand on what a client sends; answers go to the last one."""
        self._client = addr
        self.player.receive(data)

    def send(self, data: bytes) -> None:
        """Send to the client."""
        if self._transport is not None and self._client is not None:
            self._transport.sendto(data, self._client)

    def lose(self) -> None:
        """Nothing to do: a datagram port has no connection."""

    def restore(self) -> None:
        """Nothing to do."""


KINDS: Mapping[str, type[SerialReplay | TcpReplay | UdpReplay]] = {
    "serial": SerialReplay, "tcp": TcpReplay, "udp": UdpReplay,
}  # fmt: skip


class Replay:
    """All lines of a recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        tables: dict[str, dict[str, Any]] = recording.about.get("lines", {})
        self.lines = {
            name: KINDS[table["kind"]](name, recording.lines.get(name, [])) for name, table in tables.items()
        }
        self.places: dict[str, dict[str, Any]] = {}

    async def start(self) -> None:
        """Open every port."""
        for name, line in self.lines.items():
            self.places[name] = {**self.recording.about["lines"][name], **await line.start()}

    async def stop(self) -> None:
        """Close every port."""
        for line in self.lines.values():
            await line.stop()

    def counters(self) -> dict[str, dict[str, int]]:
        """Return for each line what was answered, unknown, skipped and not reached."""
        return {
            name: {key: getattr(line.player, key) for key in ("answered", "unknown", "skipped", "unplayed")}
            for name, line in self.lines.items()
        }

    def station_file(self) -> str:
        """Return the station file of the recording with these ports; an embedded broker, no remote access."""
        text = str(self.recording.about.get("station_toml", ""))
        if not text:
            raise ValueError("this trace has no station file in it")
        kept, ours = [], False
        for line in text.splitlines():
            if line.strip().startswith("["):
                ours = bool(re.match(r"\s*\[\s*line\b", line))
            if not ours:
                kept.append(line)
        for name, table in self.places.items():
            kept.append(f"[line.{name}]")
            kept += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        return "\n".join([*kept, "[broker]", 'kind = "embedded"', "[remote]", "enabled = false", ""])
