"""Control's side of the socket to link: wakes link, learns what was delivered, receives remote commands.

link to control, JSON lines: ``{"hello": {"pid"}}``, ``{"beat": {...}}`` every second, ``{"ack": [[from, to],
...]}``, ``{"refused": [[seq, why], ...]}``, ``{"command": {...}}``. Control to link, single bytes: ``!`` new
messages, ``c`` commands are welcome, ``.`` control ends in order.

Nothing here waits for link: it may freeze or die at any moment. One that says nothing for ``freeze_s`` could
be holding a read of the journal open; it is killed, and the supervisor starts another.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.journal import AsyncJournal, JournalError
from controller.streams import hang_up, peer_pid

NEWS, COMMANDS_WELCOME, CONTROL_ENDS = b"!", b"c", b"."
MAX_LINE = 256 * 1024
MAX_WAITING = 100
_BUFFERED = 64  # bytes that a frozen link may have unread before we stop waking it


@dataclass(frozen=True, slots=True)
class RemoteMessage:
    """A message on ``cmd/<verb>`` as it came, not yet believed in any way."""

    verb: str
    payload: bytes
    retain: bool


@dataclass(slots=True)
class LinkHealth:
    """What link last said of itself."""

    connected: bool = False  # to the broker
    echo: bool = False  # the broker delivers to us what we publish: address, account and access list work
    backlog: int = 0
    protocol: str = ""
    error: str = ""
    heard_s: float = 0.0  # monotonic


class LinkServer:
    """Listens for link. Start it when the journal has booted; the order of the rest does not matter."""

    def __init__(
        self,
        path: Path | str,
        journal: AsyncJournal,
        *,
        on_command: Callable[[RemoteMessage], Awaitable[None]] | None = None,
        on_dropped: Callable[[Mapping[str, int]], None] | None = None,
        on_end: Callable[[], Awaitable[None]] | None = None,
        on_frozen: Callable[[int], None] | None = None,
        freeze_s: float = 10.0,
    ) -> None:
        """Make the server.

        Args:
            path: the Unix socket.
            journal: acknowledged messages are dropped from it; its ``on_commit`` is set to ``notify`` unless
                it has one.
            on_command: takes remote messages; None leaves them off, whatever link sends.
            on_dropped: told how many commands link did not hand over, by reason.
            on_end: awaited when the server stops and hands no more commands over.
            on_frozen: told of the process id of a link that was killed.
            freeze_s: silence after which link is killed.
        """
        self.path = Path(path)
        self.health = LinkHealth()
        self._journal = journal
        self._on_command = on_command
        self._on_dropped = on_dropped
        self._on_end = on_end
        self._dropped: dict[str, int] = {}  # as the present link last counted
        self._on_frozen = on_frozen
        self._freeze_s = freeze_s
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pid = 0
        self._silent_ticks = 0
        self._watch: asyncio.Task[None] | None = None
        self._peers: set[asyncio.Task[None]] = set()
        self._urgent: set[asyncio.Future[None]] = set()
        self._work: dict[str, asyncio.Queue[Callable[[], Awaitable[Any]]]] = {}
        self._workers: list[asyncio.Task[None]] = []
        if journal.on_commit is None:
            journal.on_commit = self.notify

    @property
    def attached(self) -> bool:
        """Whether a link is there."""
        return self._writer is not None

    async def start(self) -> None:
        """Listen, on a socket that only this user can reach."""
        self.path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_LINE)
        finally:
            os.umask(before)
        self._watch = asyncio.create_task(self._watch_silence())
        for name in ("journal", "command"):
            self._work[name] = asyncio.Queue(MAX_WAITING)
            self._workers.append(asyncio.create_task(self._do(self._work[name])))

    async def stop(self) -> None:
        """Say goodbye and close."""
        if self._watch is not None:
            self._watch.cancel()
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            with suppress(OSError, RuntimeError):
                self._writer.write(CONTROL_ENDS)
                self._writer.close()
        for peer in list(self._peers):
            with suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(peer), 0.5)
            peer.cancel()
        for worker in (*self._workers, *self._urgent):
            worker.cancel()
        self._workers.clear()
        if self._on_end is not None:
            await self._on_end()
        self.path.unlink(missing_ok=True)

    def notify(self) -> None:
        """Wake link: there are new messages. Never waits."""
        self._tell(NEWS)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is delivered; False if that did not happen in time or nobody delivers."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(JournalError):
                if (await self._journal.read(lambda journal: journal.backlog()))[0] == 0:
                    return True
            if not (self.attached and self.health.connected):
                return False
            await asyncio.sleep(0.05)
        return False

    def _tell(self, byte: bytes) -> None:
        writer = self._writer
        if writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() >= _BUFFERED:
            return
        writer.write(byte)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one link; a newer one takes its place."""
        task = asyncio.current_task()
        if task is not None:
            self._peers.add(task)
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        self._pid = peer_pid(writer)
        self._silent_ticks = 0
        self._dropped = {}
        if self._on_command is not None:
            self._tell(COMMANDS_WELCOME)
        self._tell(NEWS)
        try:
            while line := await reader.readline():
                self._silent_ticks = 0
                self._heard(line)
        except (ConnectionError, ValueError):  # gone, or a line beyond MAX_LINE
            pass
        finally:
            if self._writer is writer:
                self._writer = None
                self.health = LinkHealth(heard_s=self.health.heard_s)
            await hang_up(writer)
            if task is not None:
                self._peers.discard(task)

    def _heard(self, line: bytes) -> None:
        """Act on one line from link, without waiting; what is not understood is ignored."""
        try:
            said = json.loads(line)
            self.health.heard_s = time.monotonic()
            if "ack" in said:
                ranges = [(int(first), int(last)) for first, last in said["ack"]]
                self._later("journal", lambda: self._journal.acknowledge(ranges))
            elif "refused" in said:
                refused = [(int(seq), str(why)[:200]) for seq, why in said["refused"]]
                self._later("journal", lambda: self._journal.undeliverable(refused))
            elif "beat" in said:
                self._note(said["beat"])
            elif "command" in said and self._on_command is not None:
                told = said["command"]
                payload = str(told["payload"]).encode("latin-1")
                self._command(RemoteMessage(str(told["verb"]), payload, bool(told["retain"])))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return  # a wrong line harms nobody

    def _command(self, message: RemoteMessage) -> None:
        """Hand a command on: one after the other, but ``safe`` never waits for another."""
        handle = self._on_command
        if handle is None:
            return
        if message.verb == "safe" and len(self._urgent) < MAX_WAITING:
            task = asyncio.ensure_future(handle(message))
            self._urgent.add(task)
            task.add_done_callback(self._urgent.discard)
        else:
            self._later("command", lambda: handle(message))

    def _later(self, worker: str, work: Callable[[], Awaitable[Any]]) -> None:
        """Queue work; what does not fit is dropped: rows stay in the outbox, and commands expire."""
        with suppress(asyncio.QueueFull):
            self._work[worker].put_nowait(work)

    async def _do(self, queue: asyncio.Queue[Callable[[], Awaitable[Any]]]) -> None:
        while True:
            work = await queue.get()
            with suppress(JournalError):  # the rows are still there and are delivered again
                await work()

    def _note(self, beat: dict[str, Any]) -> None:
        """Take over what link says of itself."""
        self.health.connected = bool(beat.get("connected"))
        self.health.echo = bool(beat.get("echo"))
        self.health.backlog = int(beat.get("backlog", 0))
        self.health.protocol = str(beat.get("protocol", ""))
        self.health.error = str(beat.get("error", ""))
        self._note_dropped({str(reason)[:64]: int(n) for reason, n in beat.get("dropped", {}).items()})

    def _note_dropped(self, counted: dict[str, int]) -> None:
        """Tell what was dropped since the last beat."""
        new = {reason: n - self._dropped.get(reason, 0) for reason, n in list(counted.items())[:16]}
        self._dropped = counted
        if self._on_dropped is not None and any(n > 0 for n in new.values()):
            self._on_dropped({reason: n for reason, n in new.items() if n > 0})

    async def _watch_silence(self) -> None:
        """Kill a link that is attached but silent; its own ticks are counted, so that our freeze is none."""
        ticks = max(2, round(self._freeze_s / 0.5))
        while True:
            await asyncio.sleep(self._freeze_s / ticks)
            if self._writer is None:
                continue
            self._silent_ticks += 1
            if self._silent_ticks > ticks and self._pid not in (0, os.getpid()):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(self._pid, signal.SIGKILL)
                self._writer.close()
                if self._on_frozen is not None:
                    self._on_frozen(self._pid)
