"""One line to one or several instruments: one exchange at a time, and no reply taken for another's.

The rules, each with a test: one exchange at a time; what lies unread is thrown away before a request leaves;
after a request without its reply the line must have been silent for a while before the next one; nothing
waits without a limit; an urgent request goes before all others, and ``interrupt`` makes room for it at once.
A line never sends anything twice: repeating is the driver's decision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from drivers.errors import BadReply, DriverError, NoReply
from drivers.line_stats import LineStats
from drivers.owed import LONGEST_REPLY, Owed, owed_after
from drivers.port import Connected, Port, PortLost, Reopenable
from drivers.turn import Turn

T = TypeVar("T")
# "sent" | "received" | "drained" with the bytes, "opened" | "lost" with port or reason; monotonic seconds
Trace = Callable[[str, bytes, float], None]

QUIET_S = 0.05
REOPEN_EVERY_S = 1.0
NOISY_S = 1.0  # a line that does not fall silent for so long is refused; urgent requests speak over it sooner
LONGEST_TEXT_LINE = 1 << 16


class Interrupted(NoReply):
    """The exchange was given up for an urgent one; if it was a write, it may have taken effect."""

    transient = False


class Line:
    """A half-duplex line over one port.

    Args:
        name: for messages, as in the station file.
        port: where the bytes go.
        quiet_s: silence asked for after a bad reply. After a timeout or an interruption it is longer by the
            timeout of that request, unless its reply comes meanwhile, or the next request is urgent.
        trace: called with every piece of traffic.
        monotonic: source of time, for tests.
        reopen_every_s: a lost port is opened again at most so often.
    """

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        quiet_s: float = QUIET_S,
        trace: Trace | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        reopen_every_s: float = REOPEN_EVERY_S,
    ) -> None:
        self.name = name
        self.stats = LineStats()
        self.openings = 0  # a driver that finds this changed must prepare its instrument again
        self._port = port
        self._quiet_s = quiet_s
        self._trace = trace
        self._now = monotonic
        self._reopen_every_s = reopen_every_s
        self._turn = Turn()
        self._scope: asyncio.Timeout | None = None
        self._interrupted = False
        self._sent = False
        self._urgent = False
        self._closed = False
        self._reservations = 0
        self._free = asyncio.Event()  # for those that are not urgent
        self._free.set()
        self._owed: Owed | None = None
        self._asker = ""  # who asked last
        self._text = b""  # the beginning of the next text line
        self._unanswered_s: float | None = None  # when the last command of a push protocol left
        self._last_byte_s = self._now()
        self._lost: str | None = "never opened"
        self._tried_s: float | None = None

    @property
    def where(self) -> str:
        """The port's own name: a device path, ``host:port``."""
        return self._port.where

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the open port, in plain words."""
        return tuple(getattr(self._port, "notes", ()))

    @property
    def character_s(self) -> float:
        """Time of one character on this line, s; 0 on a network."""
        return self._port.character_s

    async def open(self) -> None:
        """Open the port. Raises NoReply if that fails."""
        self._closed = False
        await self._open_port(device="")

    async def close(self) -> None:
        """Interrupt what is going on and close the port."""
        self._end_exchange()
        self._closed = True
        self._lost = f"{self.where}: closed"
        await self._port.close()

    def interrupt(self) -> None:
        """End the exchange in flight now; whoever asked gets Interrupted.

        Those who queue are not touched, nor is an urgent exchange: two devices on one line that are made safe
        at the same time must not interrupt each other.
        """
        if not self._urgent:
            self._end_exchange()

    @asynccontextmanager
    async def reserved(self) -> AsyncIterator[None]:
        """Keep the line for urgent requests: nobody else gets between several that belong together.

        Without this a silent neighbour on the same pair costs its time-out after each of them.
        """
        self._reservations += 1
        self._free.clear()
        try:
            yield
        finally:
            self._reservations -= 1
            if not self._reservations:
                self._free.set()

    def _end_exchange(self) -> None:
        if self._scope is not None and not self._interrupted:
            self._interrupted = True
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def ask(
        self,
        request: bytes,
        parse: Callable[[bytes], T | None],
        *,
        timeout_s: float,
        device: str = "",
        urgent: bool = False,
        matched: bool = False,
        silence_s: float = 0.0,
    ) -> T:
        """Send ``request`` and return what ``parse`` makes of the reply.

        Args:
            request: the bytes to send.
            parse: gets all that has come since the request; None means "not enough yet". Its DriverErrors
                go to the caller.
            timeout_s: from the moment of sending to the complete reply, wall seconds.
            device: name for messages.
            urgent: go before everybody who queues (``interrupt`` first, to end the exchange in flight).
            matched: replies name their request and ``parse`` skips those of others, so that a late reply
                does no harm and no silence is needed after a timeout in which nothing came.
            silence_s: least time between the last byte on the line and this request.

        Raises:
            NoReply: no complete reply in time, or the link is lost.
            BadReply: more than ``LONGEST_REPLY`` bytes without a reply among them.
            Interrupted: a NoReply because of ``interrupt``.
        """

        def parse_joined(chunks: Sequence[bytes]) -> T | None:
            return parse(b"".join(chunks))

        return await self.ask_datagrams(
            request,
            parse_joined,
            timeout_s=timeout_s,
            device=device,
            urgent=urgent,
            matched=matched,
            silence_s=silence_s,
        )

    async def ask_datagrams(
        self,
        request: bytes,
        parse: Callable[[Sequence[bytes]], T | None],
        *,
        timeout_s: float,
        device: str = "",
        urgent: bool = False,
        matched: bool = False,
        silence_s: float = 0.0,
    ) -> T:
        """As ``ask``, but ``parse`` gets the datagrams one by one (pieces without meaning on a stream)."""
        async with self._place(device, request, timeout_s, urgent=urgent, silence_s=silence_s) as timeout_s:
            await self._make_ready(device, request, timeout_s, urgent=urgent, silence_s=silence_s)
            started_s = self._now()
            chunks: list[bytes] = []
            self._asker = device
            try:
                await self._write(request)
                answer = await self._collect(parse, chunks, started_s + timeout_s)
            except BaseException as error:
                self._give_up(error, parse, chunks, timeout_s, matched=matched)
                raise
            self._heard(device, None if answer is None else self._now() - started_s)
            if answer is None:
                self.stats.timeouts += 1
                self._give_up(None, parse, chunks, timeout_s, matched=matched)
                self._leave_connection()
                came = b"".join(chunks)
                what = "no complete reply" if came else "no reply"
                raise NoReply(
                    f"{what} on line {self.name} within {timeout_s:g} s",
                    device=device,
                    request=request,
                    reply=came,
                )
            self._replied(started_s)
            return answer

    async def send(self, data: bytes, *, device: str = "") -> None:
        """Send without waiting for an answer, also while somebody else listens (push protocols)."""
        if self._lost is not None:
            async with self._turn.taken(urgent=True):
                if self._lost is not None:
                    await self._open_port(device, data, urgent=False)
        try:
            await self._write(data)
        except PortLost as error:
            raise self._link_lost(error, device, data) from error
        self._unanswered_s = self._now()

    async def read_line(self, timeout_s: float, *, device: str = "", urgent: bool = False) -> bytes:
        """Return the next line with its LF. The beginning of a line is kept over a timeout.

        Raises:
            NoReply: no LF within ``timeout_s``, interrupted, or the link is lost.
            BadReply: 64 KiB without LF.
        """
        async with self._exchange(device, b"", urgent=urgent):
            deadline_s = self._now() + timeout_s
            await asyncio.sleep(0)  # many short lines in one piece must not keep the loop from all others
            while b"\n" not in self._text:
                if self._lost is not None:
                    raise NoReply(f"link lost: {self._lost}", device=device, reply=self._text)
                if len(self._text) > LONGEST_TEXT_LINE:
                    too_long, self._text = self._text, b""
                    self.stats.bad_replies += 1
                    raise BadReply(
                        f"more than {LONGEST_TEXT_LINE} bytes without LF", device=device, reply=too_long
                    )
                remaining_s = deadline_s - self._now()
                chunk = await self._read(max(remaining_s, 0.0))
                if not chunk and remaining_s <= 0:
                    if self._unanswered_s is not None:  # without a command nobody owes a line
                        self.stats.timeouts += 1
                        self._unanswered_s = None
                    raise NoReply(
                        f"no line on line {self.name} within {timeout_s:.3g} s",
                        device=device,
                        reply=self._text,
                    )
                self._text += chunk
            line, _, self._text = self._text.partition(b"\n")
            self._replied(self._unanswered_s)
            self._unanswered_s = None
            return line + b"\n"

    def drain(self) -> int:
        """Throw away all that has come and was not read; return how many bytes that was."""
        text, self._text = self._text, b""
        return len(self._drained(text + self._port.discard()))

    @asynccontextmanager
    async def _place(
        self, device: str, request: bytes, timeout_s: float, *, urgent: bool, silence_s: float
    ) -> AsyncIterator[float]:
        """Wait for the turn, and yield the time-out that may be used; a shared line has rules for both."""
        async with self._exchange(device, request, urgent=urgent):
            yield timeout_s

    def _heard(self, device: str, took_s: float | None) -> None:
        """Note how long an instrument took, or that it did not answer; a shared line remembers."""

    def _silence_s(self, device: str, silence_s: float, *, urgent: bool) -> float:
        """Return how long the line must have been silent before this instrument may be asked."""
        if self._owed is None:
            return silence_s
        return max(silence_s, self._owed.urgent_silence_s if urgent else self._owed.silence_s)

    def _patience_s(self, device: str, *, urgent: bool) -> tuple[float, bool]:
        """Return for how long more a line may be noisy, and whether the request speaks over it then."""
        return (self._quiet_s, True) if urgent else (NOISY_S, False)

    @asynccontextmanager
    async def _exchange(
        self, device: str, request: bytes, *, urgent: bool, first: bool = False
    ) -> AsyncIterator[None]:
        """Wait for the turn; make what happens inside interruptible; name a lost link."""
        async with self._taken(urgent=urgent, first=first):
            self._interrupted = self._sent = False
            self._urgent = urgent
            try:
                async with asyncio.timeout(None) as self._scope:
                    yield
            except TimeoutError as error:
                if not self._interrupted:
                    raise
                self.stats.interrupted += 1
                when = (" after sending" if self._sent else " before sending") if request else ""
                raise Interrupted(
                    f"line {self.name} interrupted{when}", device=device, request=request
                ) from error
            except PortLost as error:
                raise self._link_lost(error, device, request) from error
            finally:
                self._scope = None

    @asynccontextmanager
    async def _taken(self, *, urgent: bool, first: bool = False) -> AsyncIterator[None]:
        """Wait for the turn; one that comes while the line is reserved is handed on."""
        while True:
            if not urgent:
                await self._free.wait()
            async with self._turn.taken(urgent=urgent, first=first):
                if urgent or not self._reservations:
                    yield
                    return

    async def _make_ready(
        self, device: str, request: bytes, timeout_s: float, *, urgent: bool, silence_s: float
    ) -> None:
        """Open a lost port once; leave behind, or wait out, what earlier requests may still bring."""
        if self._lost is None:
            try:
                self._take_stale(await self._port.read(0.0))
            except PortLost as error:  # it went while nobody asked
                self._note_loss(error)
        if self._lost is not None:
            await self._open_port(device, request, timeout_s=timeout_s, urgent=urgent)
        elif self._owed is not None and isinstance(self._port, Reopenable):
            self._drained(self._port.discard())
            self._owed = None
            await self._port.reopen()
        await self._fall_silent(device, request, urgent=urgent, silence_s=silence_s)

    async def _fall_silent(self, device: str, request: bytes, *, urgent: bool, silence_s: float) -> None:
        """Drain until the line has been silent for long enough, or until the owed reply is here."""
        await asyncio.sleep(0)  # twice: what the kernel has reaches the port before we look
        await asyncio.sleep(0)
        started_s = self._now()
        self._take_stale(self._port.discard())
        text, self._text = self._text, b""
        self._drained(text)
        while True:
            needed_s = self._silence_s(device, silence_s, urgent=urgent)
            remaining_s = self._last_byte_s + needed_s - self._now()
            if remaining_s <= 0:
                break
            patience_s, speaks_over = self._patience_s(device, urgent=urgent)
            if self._now() - started_s > needed_s + patience_s:
                if speaks_over:
                    break
                raise NoReply(f"line {self.name} does not fall silent", device=device, request=request)
            self._take_stale(await self._port.read(remaining_s))
        self._owed = None

    def _take_stale(self, data: bytes) -> None:
        if not data:
            return
        self._last_byte_s = self._now()
        self._drained(data)
        if self._owed is not None and self._owed.completed_by(data):
            self._owed = None

    async def _collect(
        self, parse: Callable[[Sequence[bytes]], T | None], chunks: list[bytes], deadline_s: float
    ) -> T | None:
        """Read until ``parse`` has an answer; None at the deadline."""
        while True:
            remaining_s = deadline_s - self._now()
            chunk = await self._read(max(remaining_s, 0.0))
            if chunk:
                chunks.append(chunk)
                try:
                    answer = parse(chunks)
                except BadReply:
                    self.stats.bad_replies += 1
                    raise
                except DriverError:  # a complete answer that says no
                    self._replied(None)
                    raise
                if answer is not None:
                    return answer
                if (size := sum(map(len, chunks))) > LONGEST_REPLY:
                    self.stats.bad_replies += 1
                    raise BadReply(f"{size} bytes came on line {self.name} and no reply among them")
            elif remaining_s <= 0:
                return None

    def _give_up(
        self,
        error: BaseException | None,
        parse: Callable[[Sequence[bytes]], object],
        chunks: list[bytes],
        timeout_s: float,
        *,
        matched: bool,
    ) -> None:
        """Remember what the exchange that ended without a good reply may still bring."""
        self._owed = owed_after(
            error, parse, chunks, timeout_s=timeout_s, quiet_s=self._quiet_s, matched=matched
        )
        self._last_byte_s = max(self._last_byte_s, self._now())

    def _leave_connection(self) -> None:
        """Let the next request make a new connection: a dead one may look whole for hours."""
        recent = self._tried_s is not None and self._now() - self._tried_s < self._reopen_every_s
        if isinstance(self._port, Connected) and self._port.may_be_half_open and not recent:
            self._lost = f"{self.where}: connected, but nothing comes"

    async def _open_port(
        self, device: str, request: bytes = b"", *, timeout_s: float | None = None, urgent: bool = True
    ) -> None:
        """Open the port; more than one attempt in ``reopen_every_s`` only if urgent."""
        if self._closed:
            raise NoReply(f"line {self.name} is closed", device=device, request=request)
        since_s = None if self._tried_s is None else self._now() - self._tried_s
        if not urgent and since_s is not None and since_s < self._reopen_every_s:
            wait_s = self._reopen_every_s - since_s
            raise NoReply(
                f"link lost: {self._lost}; next attempt in {wait_s:.1f} s", device=device, request=request
            )
        self._tried_s = self._now()
        try:
            async with asyncio.timeout(timeout_s):
                await self._port.close()
                await self._port.open()
        except (PortLost, TimeoutError) as error:
            why = str(error) or f"{self._port.where}: not open in time"
            self._lost = why
            self.stats.failed_openings += 1
            self._traced("lost", why.encode())
            raise NoReply(f"cannot open line {self.name}: {why}", device=device, request=request) from error
        self._lost = None
        self._owed = None
        self._text = b""
        self.openings += 1
        self.stats.openings = self.openings
        self._traced("opened", self._port.where.encode())

    def _link_lost(self, error: PortLost, device: str, request: bytes) -> NoReply:
        self._note_loss(error)
        return NoReply(f"link lost: {error}", device=device, request=request)

    def _note_loss(self, error: PortLost) -> None:
        self._lost = str(error)
        self.stats.losses += 1
        self._traced("lost", self._lost.encode())

    async def _write(self, data: bytes) -> None:
        await self._port.write(data)
        self._sent = True
        self.stats.requests += 1
        self.stats.sent_bytes += len(data)
        self._last_byte_s = self._now() + len(data) * self._port.character_s
        self._traced("sent", data)

    async def _read(self, timeout_s: float) -> bytes:
        data = await self._port.read(timeout_s)
        if data:
            self._last_byte_s = self._now()
            self.stats.received_bytes += len(data)
            self._traced("received", data)
        return data

    def _replied(self, started_s: float | None) -> None:
        now_s = self._now()
        self.stats.replies += 1
        self.stats.last_reply_monotonic_s = now_s
        if started_s is not None:
            self.stats.measured(now_s - started_s)

    def _drained(self, data: bytes) -> bytes:
        if data:
            self.stats.drained_bytes += len(data)
            self._traced("drained", data)
        return data

    def _traced(self, direction: str, data: bytes) -> None:
        if self._trace is not None:
            self._trace(direction, data, self._now())
