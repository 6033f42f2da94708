"""The link process: carries the outbox of the journal to the broker, and remote commands back.

``python -m controller.link --journal PATH --socket PATH --station NAME --broker JSON`` reads the journal and
never writes it, publishes each message until the broker has acknowledged it, and tells control. It may be
killed or frozen at any moment: what was not acknowledged goes out again, under the same boot and seq.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import stat
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from controller import payloads
from controller.journal_rows import JournalError
from controller.link_control import ControlSide
from controller.link_send import Sender
from controller.mqtt import Anew, Message, Mqtt, Received, Session, load_address
from controller.outbox import Lanes, OutboxReader
from controller.topics import VERBS, prefix

LOST_AFTER_S = 3.0  # control may be away this long before the status says so
MAX_COMMAND = 8192
COMMANDS_PER_S = 10.0  # of each verb; what is no verb shares the budget of one

log = logging.getLogger("link")


class Link:
    """Everything link does, over one broker connection after the other."""

    def __init__(
        self,
        journal: Path,
        control: ControlSide,
        station: str,
        broker: Mapping[str, Any] | None,
        *,
        late_s: float = 5.0,
        rate: float = 500.0,
    ) -> None:
        self._path = journal
        self._control = control
        self._prefix = prefix(station)
        self._broker = broker
        self._late_s = late_s
        self._rate = rate
        self._id = ""  # new with each connection
        self._lanes: Lanes | None = None
        self._sender: Sender | None = None  # with its reader open
        self._told: tuple[str, str] | None = None  # state and boot as last published
        self._echo = False
        self._session: Session | None = None
        self._commands = False
        self._budget: dict[str, tuple[float, float]] = {}
        self._dropped: dict[str, int] = {}  # commands that were not handed over, by reason
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()  # our goodbye has come back
        self._deadline = 0.0
        self._known_boot = ""
        self._willed = ""  # boot in the last will of this connection
        self.unsolicited = 0
        self.mqtt = Mqtt(self._address, will=self._last_will, on_change=self._changed)

    async def run(self) -> None:
        """Work until ``stop``."""
        tasks = [asyncio.ensure_future(self._control.run()), asyncio.ensure_future(self._beat())]
        work = asyncio.ensure_future(self.mqtt.run(self._serve) if self._broker else self._stopping.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({work, stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self._session is not None:
                await asyncio.wait({work}, timeout=2.0)
        finally:
            for task in (work, stopping, *tasks):
                task.cancel()
            await asyncio.gather(work, stopping, *tasks, return_exceptions=True)
            self._close_reader()
        for task in (work, *tasks):
            if not task.cancelled() and task.exception() is not None:
                raise task.exception() or RuntimeError  # what nobody foresaw: the supervisor starts us anew

    def stop(self) -> None:
        """Deliver what is there (for a second at most), say goodbye and end."""
        self._deadline = time.monotonic() + 1.0
        self._stopping.set()
        self._control.wake.set()

    # -- a connection ----------------------------------------------------------------------------------------

    def _address(self) -> Any:
        return load_address(self._broker or {})

    def _last_will(self) -> Message:
        """Return the last will of the next connection, which gets a new id."""
        self._id = secrets.token_hex(8)
        with suppress(JournalError):
            self._open()
        self._willed = self._boot()
        return self._status("lost")

    def _boot(self) -> str:
        """Return the id of the host's last start, as last read; empty before there is a journal."""
        if self._sender is not None:
            with suppress(JournalError):
                self._known_boot = self._sender.reader.last_boot()
        return self._known_boot

    def _changed(self, connected: bool, why: str) -> None:
        log.info("connected" if connected else "not connected: %s", *([] if connected else [why]))

    async def _serve(self, session: Session) -> None:
        """Serve one connection: birth, then everything that waits, for as long as it lasts."""
        self._session, self._echo, self._told, self._commands = session, False, None, False
        try:
            await _race(self._pump(session), self._listen(session))
        finally:
            self._session = None

    async def _pump(self, session: Session) -> None:
        """Publish birth and outbox; returns when told to stop and done."""
        await session.subscribe(f"{self._prefix}/status")
        born = False
        while True:
            busy = False
            try:
                sender = self._open()
                await self._tell_status(session)
                if sender is not None:
                    if not born:
                        await sender.birth(session)
                        born = True
                    busy = await sender.send_next(session)
                await self._welcome_commands(session)
            except JournalError as error:
                log.warning("%s", error)
                self._close_reader()
            if self._stopping.is_set() and (not busy or time.monotonic() > self._deadline):
                await self._say_goodbye(session)
                return
            if not busy:
                await self._control.wait(self._pause_s())

    # -- status ----------------------------------------------------------------------------------------------

    def _state(self) -> payloads.StationState:
        """Return the station's state as it is to be told."""
        if self._control.attached:
            return "ready"
        if self._control.ended:
            return "disconnected"
        if self._control.left_s is None:
            return "init"
        return "ready" if self._control.left_s < LOST_AFTER_S else "lost"

    def _status(self, state: payloads.StationState) -> Message:
        backlog = 0
        if self._sender is not None:
            with suppress(JournalError):
                backlog = self._sender.reader.backlog()[0]
        body = payloads.status(state, boot=self._boot(), link=self._id, version=_version(), backlog=backlog)
        encoded = json.dumps(body, separators=(",", ":")).encode()
        return Message(f"{self._prefix}/status", encoded, 1, True, payloads.JSON_TYPE)

    async def _tell_status(self, session: Session) -> None:
        """Publish the status if it is not what was last published.

        A last will is made for one boot: when the host has started since, a new connection gets a new one.
        """
        now = (state := self._state(), self._boot())
        if now[1] != self._willed:
            raise Anew
        if now != self._told:
            await session.publish(self._status(state))
            self._told = now

    async def _say_goodbye(self, session: Session) -> None:
        """Publish the last status and wait until it comes back.

        amqtt acknowledges before it delivers and forgets what a client sent that has left; when our own
        status has come back, everything before it was delivered.
        """
        await session.publish(self._status("disconnected"))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), 1.0)

    # -- what comes in ---------------------------------------------------------------------------------------

    async def _welcome_commands(self, session: Session) -> None:
        """Subscribe to commands once control wants them; never on the embedded broker."""
        if self._control.commands and not self._commands and not session.address.embedded:
            await session.subscribe(f"{self._prefix}/cmd/+", as_published=True)
            self._commands = True

    async def _listen(self, session: Session) -> None:
        """Take what is delivered. A broker may send what nobody asked for: only known topics count."""
        async for message in session.messages():
            if message.topic == f"{self._prefix}/status":
                self._heard_status(message)
            elif self._commands and message.topic.startswith(f"{self._prefix}/cmd/"):
                self._heard_command(message)
            else:
                self.unsolicited += 1

    def _heard_status(self, message: Received) -> None:
        """Our own status proves that we are heard; an old will that came late is overwritten."""
        try:
            said = json.loads(message.payload)
            state, link = said["state"], said["link"]
        except (ValueError, KeyError, TypeError):
            state, link = "lost", ""
        if link == self._id:
            self._echo = True
            if state == "disconnected" and self._stopping.is_set():
                self._gone.set()
        elif state == "lost":
            self._told = None
            self._control.wake.set()

    def _heard_command(self, message: Received) -> None:
        """Hand a command to control, which decides; a flood is cut off here."""
        verb = message.topic.rpartition("/")[2]
        if len(message.payload) > MAX_COMMAND:
            self._drop(f"more than {MAX_COMMAND} bytes")
        elif not self._within_budget(verb if verb in VERBS else ""):
            self._drop("too many at once")
        else:
            self._control.command(verb[:32], message.payload, retain=message.retain)

    def _drop(self, reason: str) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def _within_budget(self, verb: str) -> bool:
        """Allow each verb a few messages a second."""
        now = time.monotonic()
        tokens, filled = self._budget.get(verb, (COMMANDS_PER_S, now))
        tokens = min(COMMANDS_PER_S, tokens + (now - filled) * COMMANDS_PER_S)
        self._budget[verb] = (max(tokens - 1.0, 0.0), now)
        return tokens >= 1.0

    # -- journal and control ---------------------------------------------------------------------------------

    def _open(self) -> Sender | None:
        """Open the journal if it is not open; None while there is none."""
        if self._sender is None:
            try:
                reader = OutboxReader.open(self._path)
            except JournalError:
                return None
            if self._lanes is None:
                self._lanes = Lanes(reader, late_s=self._late_s, rate=self._rate)
            self._lanes.use(reader)
            self._sender = Sender(self._prefix, reader, self._control, self._lanes)
        return self._sender

    def _close_reader(self) -> None:
        if self._sender is not None:
            self._sender.reader.close()
            self._sender = None

    def _pause_s(self) -> float:
        """Return how long to sleep when nobody wakes us."""
        if self._sender is None:
            return 0.2
        history = self._lanes.wait_s() if self._lanes is not None else None
        return 1.0 if history is None else min(max(history, 0.001), 1.0)

    async def _beat(self) -> None:
        """Tell control once a second that we live, and again what it may not have heard."""
        before: list[tuple[int, int]] = []
        while True:
            backlog = 0
            with suppress(JournalError):
                if self._sender is not None and self._lanes is not None:
                    backlog = self._sender.reader.backlog()[0]
                    unheard = self._lanes.forget()
                    if unheard[:1] == before[:1]:  # told a second ago, or to a control that is gone
                        self._control.acknowledge_ranges(unheard)
                    before = unheard
            session = self._session
            self._control.beat(
                connected=session is not None,
                echo=self._echo and session is not None,
                backlog=backlog,
                protocol=session.protocol if session is not None else "",
                error=self.mqtt.last_error,
                dropped=self._dropped,
            )
            await asyncio.sleep(1.0)


async def _race(*work: Coroutine[Any, Any, None]) -> None:
    """Run until the first of them ends, end the others, and raise its error if it had one."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _version() -> str:
    try:
        return version("operando")
    except PackageNotFoundError:
        return "unknown"


async def _main(args: argparse.Namespace) -> None:
    """Run link until SIGTERM, SIGINT, or the end of the process that started it."""
    broker = None if args.broker == "none" else json.loads(args.broker)
    link = Link(
        args.journal, ControlSide(args.socket), args.station, broker, late_s=args.late_s, rate=args.rate
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, link.stop)
    watch = asyncio.ensure_future(_orphaned(link))
    try:
        await link.run()
    finally:
        watch.cancel()


async def _orphaned(link: Link) -> None:
    """Stop link when whoever started it is gone: the pipe to our stdin closes, or our parent is another."""
    parent = os.getppid()
    reader = asyncio.StreamReader()
    mode = os.fstat(0).st_mode
    piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    if piped:
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while os.getppid() == parent:
        if not piped:
            await asyncio.sleep(1.0)
            continue
        with suppress(TimeoutError):
            if not await asyncio.wait_for(reader.read(64), 1.0):
                break
    link.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run link from the command line."""
    parser = argparse.ArgumentParser(prog="controller.link", description="Carries the outbox to the broker.")
    parser.add_argument("--journal", type=Path, required=True, help="the station journal")
    parser.add_argument("--socket", type=Path, required=True, help="control's socket for link")
    parser.add_argument("--station", required=True, help="name of the station, part of every topic")
    parser.add_argument("--broker", required=True, help="the broker as JSON, or none")
    parser.add_argument("--late-s", type=float, default=5.0, help="age at which a message is history")
    parser.add_argument("--rate", type=float, default=500.0, help="most messages of history per second")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("mqtt").setLevel(logging.ERROR)
    asyncio.run(_main(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
