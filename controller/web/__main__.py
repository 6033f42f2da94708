"""``python -m controller.web``: the process of the live page; the supervisor starts it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from controller.config.web import Web
from controller.mirror import Mirror
from controller.mqtt import load_address
from controller.web import address
from controller.web.access import Access, AccessError
from controller.web.from_journal import JournalMirror
from controller.web.hub import Hub
from controller.web.refill import Refill
from controller.web.server import Server
from controller.web.view import View

PORT_KEPT_S = 3.0  # a port that another process of ours has just left

log = logging.getLogger("web")


class PortBusy(AccessError):
    """Another process listens there."""


class Page:
    """Mirror, view, hub, history and server together."""

    def __init__(
        self, table: Web, station: str, broker: str, state: Path, run_dir: Path | None, beside: Path,
        *, standing: bool = False,
    ) -> None:  # fmt: skip
        """Make a page. Raises AccessError.

        Args:
            table: ``[web]``.
            station: its name.
            broker: as JSON, or ``none``: the journal is followed instead.
            state: state folder of the station.
            run_dir: folder of the run; None: any run, one after the other.
            beside: folder of the station file.
            standing: whether it outlives runs.
        """
        self._table = table
        self._state = state
        self._standing = standing
        journal = state / "journal.sqlite"
        self.mirror = self._mirror(station, broker, journal)
        self.view = View(self.mirror)
        self.hub = Hub(self.view)
        self.refill = Refill(journal, self.view, self.hub, run_dir, follow=broker == "none")
        self.access = Access(table, beside)
        self.server = Server(self.access, self.hub, viewers=table.viewers)
        self.address = ""

    def _mirror(self, station: str, broker: str, journal: Path) -> Mirror:
        if broker == "none":
            return JournalMirror(
                journal, station, self._heard, on_connection=self._connection, on_rows=self._more_rows
            )
        told = json.loads(broker)
        return Mirror(
            lambda: load_address(told, role="viewer"), station, self._heard, on_connection=self._connection,
            on_missed=self._more_rows,
        )  # fmt: skip

    def _more_rows(self) -> None:
        """The journal has something new, or what a broker has swallowed."""
        self.refill.wanted()

    def _heard(self, heard: object) -> None:
        self.view.take(heard)  # type: ignore[arg-type]  # the mirror's own

    def _connection(self, connected: bool) -> None:
        if connected:
            self.refill.wanted()

    async def run(self, until: asyncio.Event) -> None:
        """Serve until told to end."""
        runner = web.AppRunner(
            self.server.application(), access_log=None, handle_signals=False, keepalive_timeout=30.0,
            handler_cancellation=True, shutdown_timeout=1.0,
        )  # fmt: skip
        await runner.setup()
        listening = self._listen()
        site = web.SockSite(runner, listening, ssl_context=self.access.tls)
        tasks: list[asyncio.Task[None]] = []
        try:
            await site.start()
            port = listening.getsockname()[1]
            self.address = f"{self.access.scheme}://{self._shown(port)}/"
            address.write(self._state, self.address, port, standing=self._standing)
            log.info("the page is on %s", self.address)
            works = (self.mirror.run(), self.hub.run(), self.refill.run())
            tasks += [asyncio.create_task(work) for work in works]
            ended = asyncio.create_task(until.wait())
            await asyncio.wait({ended, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # what nobody foresaw: the supervisor starts us anew
        finally:
            self.hub.turn()  # the last words
            await asyncio.sleep(0.05)
            await self.server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()
            address.forget(self._state)

    def _listen(self) -> socket.socket:
        """Return the listening socket; a free port is kept over restarts."""
        family = socket.AF_INET6 if ":" in self._table.host else socket.AF_INET
        host = "127.0.0.1" if self._table.host == "localhost" else self._table.host
        kept = address.read(self._state).get("port")
        ports = [self._table.port] if self._table.port else [kept if isinstance(kept, int) else 0, 0]
        for port in ports:
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((host, port))
            except OSError as error:
                listening.close()
                if port == ports[-1]:
                    text = f"[web] cannot listen on {host} port {port}: {error.strerror or error}"
                    busy = error.errno == errno.EADDRINUSE
                    raise (PortBusy if busy else AccessError)(text) from error
            else:
                listening.listen(64)
                return listening
        raise AccessError("unreachable")

    def _shown(self, port: int) -> str:
        """Return name and port as a person types them."""
        host = self._table.host
        name = self._table.names[0] if host in ("0.0.0.0", "::") else host  # noqa: S104  # any of its addresses
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


async def _orphaned(end: asyncio.Event) -> None:
    """End when whoever started us is gone: the pipe to our stdin closes, or our parent is another."""
    parent = os.getppid()
    mode = os.fstat(0).st_mode
    reader = asyncio.StreamReader()
    piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    if piped:
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while os.getppid() == parent:
        if not piped:
            await asyncio.sleep(1.0)
            continue
        with contextlib.suppress(TimeoutError):
            if not await asyncio.wait_for(reader.read(64), 1.0):
                break
    end.set()


def told_to_end() -> asyncio.Event:
    """Return what is set by SIGTERM and Ctrl-C."""
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    return end


async def _main(args: argparse.Namespace) -> int:
    end = told_to_end()
    try:
        page = Page(
            Web.model_validate_json(args.table),
            args.station,
            args.broker,
            args.state,
            args.run_dir,
            args.beside,
        )
        watch = asyncio.create_task(_orphaned(end))
        try:
            await page.run(end)
        finally:
            watch.cancel()
    except AccessError as error:
        log.error("%s", error)  # noqa: TRY400  # words for a person
        return 2
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the live page from the command line."""
    parser = argparse.ArgumentParser(prog="controller.web", description="The live page of a station.")
    parser.add_argument("--station", required=True, help="name of the station, part of every topic")
    parser.add_argument("--broker", required=True, help="the broker as JSON")
    parser.add_argument("--state", type=Path, required=True, help="state folder of the station")
    parser.add_argument("--run-dir", type=Path, help="folder of the run")
    parser.add_argument("--table", default="{}", help="[web] as JSON")
    parser.add_argument("--beside", type=Path, default=Path(), help="folder of the station file")
    args = parser.parse_args(argv)
    modest()
    return asyncio.run(_main(args))


def modest() -> None:
    """Log what matters, and let the host go first."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("mqtt").setLevel(logging.ERROR)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    with contextlib.suppress(OSError):
        os.nice(5)


if __name__ == "__main__":
    sys.exit(main())
