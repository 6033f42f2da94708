"""Our values as EPICS PVs, read only: a process of its own that only looks on.

``python -m controller.gateways.epics``, started by the supervisor where the station file has ``[epics]``.
Serves Channel Access by caproto, and PVAccess by p4p where that is installed. There is no way to write.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from controller.gateways import epics_model as model
from controller.mirror import Heard, Mirror
from controller.mqtt import load_address

TICK_S = 0.25
CA_TEXT = 39  # bytes of a string in Channel Access

log = logging.getLogger("epics")


class Server(Protocol):
    """One protocol that serves the PVs."""

    async def put(self, name: str, shown: model.Shown) -> None:
        """Show something."""
        ...

    async def close(self) -> None:
        """Stop serving."""
        ...


class ChannelAccess:
    """The PVs over Channel Access."""

    def __init__(self, pvs: Mapping[str, model.Served], shown: Mapping[str, model.Shown]) -> None:
        from caproto import AccessRights, ChannelDouble, ChannelEnum, ChannelString

        def read_only(kind: type[Any]) -> type[Any]:
            """Return a channel that nobody may write."""

            class Quiet(kind):  # type: ignore[misc]
                def check_access(self, hostname: str, username: str) -> Any:
                    return AccessRights.READ

            return Quiet

        number, switch, text = (read_only(kind) for kind in (ChannelDouble, ChannelEnum, ChannelString))
        self.channels: dict[str, Any] = {}
        for name, pv in pvs.items():
            value = _ca_value(shown[name].value)
            if pv.kind == "switch":
                self.channels[name] = switch(value=value, enum_strings=model.CHOICES)
            elif pv.kind == "text":
                self.channels[name] = text(value=value)
            else:
                low, high = pv.low or 0.0, pv.high or 0.0
                self.channels[name] = number(
                    value=value, units=pv.unit, precision=6, lower_disp_limit=low, upper_disp_limit=high,
                    lower_ctrl_limit=low, upper_ctrl_limit=high,
                )  # fmt: skip
        self._task: asyncio.Task[None] | None = None

    async def serve(self, host: str) -> None:
        """Open the port. Its number and that of the beacons are in the environment already."""
        from caproto.asyncio.server import Context

        logging.getLogger("caproto").setLevel(logging.CRITICAL)  # beacons that nobody hears, with tracebacks
        self._task = asyncio.create_task(Context(self.channels, interfaces=[host]).run())
        await asyncio.sleep(0)

    async def put(self, name: str, shown: model.Shown) -> None:
        """Show something."""
        await self.channels[name].write(
            _ca_value(shown.value), verify_value=False, severity=shown.severity, status=shown.status,
            timestamp=shown.t or time.time(),
        )  # fmt: skip

    async def close(self) -> None:
        """Stop serving."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _ca_value(value: float | int | str) -> float | int | str:
    return value.encode()[:CA_TEXT].decode(errors="ignore") if isinstance(value, str) else value


class PvAccess:
    """The PVs over PVAccess; a put is refused by the library, for there is nobody who takes it."""

    def __init__(
        self, pvs: Mapping[str, model.Served], shown: Mapping[str, model.Shown], host: str, port: int,
        search_port: int,
    ) -> None:  # fmt: skip
        from p4p.nt import NTEnum, NTScalar
        from p4p.server import Server as P4pServer
        from p4p.server import StaticProvider
        from p4p.server.asyncio import SharedPV

        self._pvs = pvs
        self._kinds = {
            "number": NTScalar("d", display=True), "text": NTScalar("s"), "switch": NTEnum(),
        }  # fmt: skip
        provider = StaticProvider("operando")
        self._shared: dict[str, Any] = {}
        for name, pv in pvs.items():
            kind = self._kinds[pv.kind]
            self._shared[name] = SharedPV(nt=kind, initial=self._value(pv, shown[name]))
            provider.add(name, self._shared[name])
        conf = {
            "EPICS_PVAS_INTF_ADDR_LIST": host, "EPICS_PVAS_SERVER_PORT": str(port),
            "EPICS_PVAS_BROADCAST_PORT": str(search_port), "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVAS_BEACON_ADDR_LIST": host,
        }  # fmt: skip
        self._server = P4pServer(providers=[provider], conf=conf, useenv=False)

    def _value(self, pv: model.Served, shown: model.Shown) -> Any:
        """Return a value as the protocol has it, with alarm, time and (for numbers) limits."""
        from p4p import Value

        seconds = shown.t or time.time()
        told: dict[str, Any] = {
            "alarm": {"severity": shown.severity, "status": shown.status and 1, "message": shown.text},
            "timeStamp": {"secondsPastEpoch": int(seconds), "nanoseconds": int(seconds % 1 * 1e9)},
            "value": shown.value,
        }
        if pv.kind == "switch":
            told["value"] = {"index": shown.value, "choices": list(model.CHOICES)}
        elif pv.kind == "number":
            told["display"] = {
                "limitLow": pv.low or 0.0, "limitHigh": pv.high or 0.0, "units": pv.unit,
                "description": pv.about,
            }  # fmt: skip
        return Value(self._kinds[pv.kind].type, told)

    async def put(self, name: str, shown: model.Shown) -> None:
        """Show something."""
        self._shared[name].post(self._value(self._pvs[name], shown))

    async def close(self) -> None:
        """Stop serving."""
        self._server.stop()


class Gateway:
    """From what a mirror knows to what is served; ends when the station describes itself anew."""

    def __init__(self, mirror: Mirror, host: str, pva_port: int, pva_search_port: int) -> None:
        self._mirror = mirror
        self._host = host
        self._pva = (pva_port, pva_search_port)
        self._pvs: dict[str, model.Served] = {}
        self._shown: dict[str, model.Shown] = {}
        self._servers: list[Server] = []
        self._wake = asyncio.Event()

    def heard(self, _: Heard) -> None:
        """Something was said: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Serve until the station describes itself anew: then the process begins again."""
        while not self._mirror.describe:
            await asyncio.sleep(TICK_S)
        self._pvs = model.build(self._mirror.describe)
        self._shown = {name: model.show(self._mirror, pv) for name, pv in self._pvs.items()}
        access = ChannelAccess(self._pvs, self._shown)
        await access.serve(self._host)
        self._servers = [access]
        if find_spec("p4p") is not None:
            self._servers.append(PvAccess(self._pvs, self._shown, self._host, *self._pva))
        log.info("%d PVs, %s", len(self._pvs), next(iter(self._pvs)))
        while model.build(self._mirror.describe) == self._pvs:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
                await asyncio.sleep(TICK_S / 5)  # what comes together is shown together
            except TimeoutError:
                pass
            self._wake.clear()
            await self.refresh()

    async def refresh(self) -> None:
        """Show what has changed."""
        for name, pv in self._pvs.items():
            now = model.show(self._mirror, pv)
            if not model.same(self._shown[name], now):
                self._shown[name] = now
                for server in self._servers:
                    await server.put(name, now)

    async def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            await server.close()


def environment(host: str, port: int) -> dict[str, str]:
    """Return what caproto reads from the environment: one interface, one port, no broadcasts."""
    return {
        "EPICS_CA_SERVER_PORT": str(port), "EPICS_CAS_SERVER_PORT": str(port),
        "EPICS_CAS_INTF_ADDR_LIST": host, "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CAS_BEACON_ADDR_LIST": host,
    }  # fmt: skip


async def _main(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    broker = json.loads(args.broker)
    gateways: list[Gateway] = []
    mirror = Mirror(
        lambda: load_address(broker, role="viewer"), args.station, lambda heard: gateways[0].heard(heard)
    )
    host, _, port = args.listen.rpartition(":")
    os.environ.update(environment(host, int(port)))
    gateway = Gateway(mirror, host, args.pva_port, args.pva_port + 1)
    gateways.append(gateway)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(work) for work in (mirror.run(), gateway.run(), stopping.wait())]
    try:
        done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m controller.gateways.epics``; the supervisor starts it."""
    parser = argparse.ArgumentParser(prog="controller.gateways.epics", description=__doc__)
    parser.add_argument("--station", required=True, help="its name")
    parser.add_argument("--broker", required=True, help="JSON, as controller.mqtt.load_address reads it")
    parser.add_argument("--listen", required=True, help="HOST:PORT of Channel Access")
    parser.add_argument("--pva-port", type=int, default=5075, help="of PVAccess; searches at the next one")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
