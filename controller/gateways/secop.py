"""The SECoP node of a station: a process of its own that only looks on, unless the station lets it command.

``python -m controller.gateways.secop``, started by the supervisor where the station file has ``[secop]``.
With ``write`` a client may set targets while a ``manual`` step runs, through the local socket of control.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from controller.gateways import secop_model as model
from controller.gateways.hand import Gone, Hand, Refused
from controller.gateways.secop_state import NodeState, update
from controller.gateways.secop_wire import (
    IDENTIFICATION,
    LONGEST_LINE,
    Request,
    SecopError,
    message,
    parse,
)
from controller.mirror import Mirror
from controller.mqtt import load_address

TICK_S = 0.25  # what grows stale is told this soon
MOST_CLIENTS = 32
BACKLOG_BYTES = 1 << 20  # of a client that does not read; more, and it is hung up on
ALIVE_S = 2.0

log = logging.getLogger("secop")


class Client:
    """One connection: what it wants to hear of, and what it commands with."""

    def __init__(self, writer: asyncio.StreamWriter, hand: Hand | None) -> None:
        self.writer = writer
        self.hand = hand
        self.everything = False
        self.modules: set[str] = set()
        self.keeping: asyncio.Task[None] | None = None

    def wants(self, module: str) -> bool:
        """Whether it is to hear of updates of a module."""
        return self.everything or module in self.modules

    def send(self, data: bytes) -> None:
        """Queue a message; a client that does not read is hung up on."""
        if self.writer.is_closing():
            return
        if self.writer.transport.get_write_buffer_size() > BACKLOG_BYTES:
            self.writer.transport.abort()
            return
        self.writer.write(data)


class SecopNode:
    """Serves one station to any number of clients, within bounds."""

    def __init__(
        self,
        mirror: Mirror,
        hand_of: Callable[[str], Hand] | None = None,
        *,
        most_clients: int = MOST_CLIENTS,
    ) -> None:
        """Make a node; ``serve`` opens its port.

        Args:
            mirror: what is known; ``state`` must be its listener (``heard``, ``connection``).
            hand_of: makes the hand with which a peer commands; None: read only.
            most_clients: connections at a time; a further one is closed at once.
        """
        self._hand_of = hand_of
        self._most = most_clients
        self._clients: set[Client] = set()
        self._server: asyncio.Server | None = None
        self.state = NodeState(
            mirror, self._push, self._hang_up, write=hand_of is not None, hands=self._hands
        )
        self.refused_clients = 0
        actions: dict[str, Callable[[Client, Request], Awaitable[None]]] = {
            "*IDN?": self._idn, "describe": self._describe, "activate": self._activate,
            "deactivate": self._deactivate, "ping": self._ping, "read": self._read,
            "change": self._change, "do": self._do,
        }  # fmt: skip
        self._actions = actions

    def _push(self, module: str, data: bytes) -> None:
        for client in list(self._clients):
            if client.wants(module):
                client.send(data)

    def _hang_up(self) -> None:
        """What the node is has changed: everybody must describe it anew."""
        for client in list(self._clients):
            client.writer.close()

    def _hands(self) -> list[str]:
        return [c.hand.by for c in self._clients if c.hand is not None and c.hand.taken]

    # --- connections -------------------------------------------------------------------------------------

    async def serve(self, host: str, port: int) -> int:
        """Open the port; return it. Raises OSError."""
        self._server = await asyncio.start_server(self._client, host, port, limit=LONGEST_LINE)
        return int(self._server.sockets[0].getsockname()[1])

    async def run(self) -> None:
        """Look for what has grown stale, for ever; ends only by cancellation."""
        while True:
            await asyncio.sleep(TICK_S)
            self.state.refresh()

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            client.writer.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= self._most or self.state.node is None:
            self.refused_clients += 1
            writer.close()
            return
        host, port = writer.get_extra_info("peername")[:2]
        link = writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client = Client(writer, self._hand_of(f"SECoP {host}:{port}") if self._hand_of is not None else None)
        self._clients.add(client)
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break
                await self._answer(client, line[:-1])
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        except ValueError:  # a line without end
            client.send(message("error_", data=["ProtocolError", f"a line above {LONGEST_LINE} bytes", {}]))
        finally:
            self._clients.discard(client)
            await self._let_go(client)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _answer(self, client: Client, line: bytes) -> None:
        if not line.strip():
            return
        action, specifier = "", ""
        try:
            request = parse(line)
            action, specifier = request.action, request.specifier
            await self._actions.get(action, self._unknown)(client, request)
        except SecopError as error:
            if len(error.args) > 1:
                action, specifier = error.args[1]
            client.send(message(f"error_{action}", specifier, [error.kind, error.text, {}]))

    # --- actions -----------------------------------------------------------------------------------------

    async def _unknown(self, client: Client, request: Request) -> None:
        raise SecopError("ProtocolError", f"there is no action {request.action[:40]}")

    async def _idn(self, client: Client, _: Request) -> None:
        client.send(message(IDENTIFICATION, has_data=False))

    async def _describe(self, client: Client, _: Request) -> None:
        client.send(message("describing", "", self._known.description))

    async def _ping(self, client: Client, request: Request) -> None:
        client.send(message("pong", request.specifier, [None, {"t": time.time()}]))

    async def _activate(self, client: Client, request: Request) -> None:
        module = request.module
        if request.specifier:
            self._module(module)
        self.state.refresh()
        for (owner, name), told in self.state.reports.items():
            if not module or owner == module:
                client.send(update(owner, name, told))
        if module:
            client.modules.add(module)
        else:
            client.everything = True
        client.send(message("active", request.specifier, has_data=False))

    async def _deactivate(self, client: Client, request: Request) -> None:
        if request.specifier:
            client.modules.discard(request.module)
        else:
            client.everything = False
            client.modules.clear()
        client.send(message("inactive", request.specifier, has_data=False))

    async def _read(self, client: Client, request: Request) -> None:
        self._parameter(request)
        self.state.refresh({request.module})
        kind, data = self.state.reports[request.module, request.accessible]
        client.send(message("reply" if kind == "value" else "error_read", request.specifier, data))

    async def _change(self, client: Client, request: Request) -> None:
        parameter = self._parameter(request)
        if parameter.info["readonly"]:
            raise SecopError("ReadOnly", f"{request.specifier} cannot be set")
        target = request.data
        if isinstance(target, bool) or not isinstance(target, int | float):
            raise SecopError("WrongType", "a number is needed, K")
        self._in_range(float(target), parameter.info["datainfo"])
        await self._command(client, "heat", to_k=float(target))
        data = self.state.asked(parameter, float(target))  # busy, before the answer
        client.send(message("changed", request.specifier, data))

    def _in_range(self, value: float, info: dict[str, Any]) -> None:
        low, high = info.get("min"), info.get("max")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise SecopError("RangeError", f"{value:g} is outside {low:g} to {high:g} {info.get('unit', '')}")

    async def _do(self, client: Client, request: Request) -> None:
        self._module(request.module)
        told = self._known.commands.get((request.module, request.accessible))
        if told is None:
            raise SecopError("NoSuchCommand", f"there is no command {request.specifier}")
        verb = {"stop": "hold", "_stop": "stop"}.get(request.accessible, request.accessible.lstrip("_"))
        await self._command(client, verb, **_arguments(verb, request.data))
        self.state.refresh()
        client.send(message("done", request.specifier, [None, {"t": time.time()}]))

    async def _command(self, client: Client, verb: str, **arguments: Any) -> None:
        """Say it to control; a refusal becomes an error report with control's own text."""
        hand = client.hand
        if hand is None:
            raise SecopError("ReadOnly", "this node only shows: the station has [secop] write = false")
        try:
            await asyncio.to_thread(hand.command, verb, **arguments)
        except Refused as refusal:
            limit = "the step allows" in str(refusal)
            raise SecopError("RangeError" if limit else "Impossible", str(refusal)) from None
        except Gone as gone:
            raise SecopError("CommunicationFailed", str(gone)) from None
        if client.keeping is None or client.keeping.done():
            client.keeping = asyncio.create_task(self._keep(hand))

    async def _keep(self, hand: Hand) -> None:
        """Say that the client is still there, as long as its connection is."""
        while hand.taken:
            await asyncio.sleep(ALIVE_S)
            with contextlib.suppress(Gone):
                await asyncio.to_thread(hand.alive)

    async def _let_go(self, client: Client) -> None:
        """A client that hung up gives the step back at once: it does what it declares for that."""
        if client.keeping is not None:
            client.keeping.cancel()
            await asyncio.gather(client.keeping, return_exceptions=True)
        if client.hand is not None:
            await asyncio.to_thread(client.hand.release)

    # --- lookups -----------------------------------------------------------------------------------------

    @property
    def _known(self) -> model.Node:
        if self.state.node is None:  # nobody is let in before it is there
            raise SecopError("CommunicationFailed", "the station was not heard of yet")
        return self.state.node

    def _module(self, name: str) -> None:
        if name not in self._known.description["modules"]:
            raise SecopError("NoSuchModule", f"there is no module {name}")

    def _parameter(self, request: Request) -> model.Parameter:
        self._module(request.module)
        found = self._known.parameters.get((request.module, request.accessible))
        if found is None:
            raise SecopError("NoSuchParameter", f"there is no parameter {request.specifier}")
        return found


def _arguments(verb: str, data: Any) -> dict[str, Any]:
    """Return what a command's argument means to control. Raises SecopError."""
    if verb in ("charge", "discharge"):
        if not isinstance(data, dict):
            raise SecopError("WrongType", "a struct is needed, with current_a at least")
        return {
            str(key): value
            for key, value in data.items()
            if str(key).endswith(("_a", "_v", "_s", "_coulomb"))
        }
    names = {"ocv": "duration_s", "scan": "passes", "move": "position_um"}
    if verb in names:
        return {names[verb]: data}
    if data is not None:
        raise SecopError("WrongType", "this command has no argument")
    return {}


async def _main(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    broker = json.loads(args.broker)
    control: Path = args.control
    nodes: list[SecopNode] = []
    mirror = Mirror(
        lambda: load_address(broker, role="viewer"), args.station,
        lambda heard: nodes[0].state.heard(heard),
        on_connection=lambda connected: nodes[0].state.connection(connected),
    )  # fmt: skip
    node = SecopNode(mirror, (lambda by: Hand(control, by)) if args.write else None)
    nodes.append(node)
    host, _, port = args.listen.rpartition(":")
    await node.serve(host.strip("[]"), int(port))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(work) for work in (mirror.run(), node.run(), stopping.wait())]
    try:
        done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await node.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m controller.gateways.secop``; the supervisor starts it."""
    parser = argparse.ArgumentParser(prog="controller.gateways.secop", description=__doc__)
    parser.add_argument("--station", required=True, help="its name")
    parser.add_argument("--broker", required=True, help="JSON, as controller.mqtt.load_address reads it")
    parser.add_argument("--listen", required=True, help="HOST:PORT")
    parser.add_argument("--control", type=Path, required=True, help="the local socket of control")
    parser.add_argument("--write", action="store_true", help="targets may be set while a manual step runs")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
