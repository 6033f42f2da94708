"""PVs of a foreign IOC as monitors: what is known, and what is not."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.clock import RealClock
from drivers.epics_pv import EpicsPv
from drivers.epics_worker import look, plain
from drivers.errors import NoReply
from drivers.ports import open_line

IOC = Path(__file__).parent / "foreign_ioc.py"


def free_ports(count: int) -> list[int]:
    """Return ports that are free for TCP and UDP."""
    found, open_ = [], []
    while len(found) < count:
        tcp = socket.socket()
        tcp.bind(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        open_ += [tcp, udp]
        try:
            udp.bind(("127.0.0.1", tcp.getsockname()[1]))
        except OSError:
            continue
        found.append(tcp.getsockname()[1])
    for one in open_:
        one.close()
    return found


class Ioc:
    """The foreign IOC, on this machine only and on ports of its own."""

    def __init__(self) -> None:
        self.ca, self.pva, self.pva_search = free_ports(3)
        self.start()

    def start(self) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("EPICS_")}
        env |= {
            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_CA_SERVER_PORT": str(self.ca),
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO", "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_SERVER_PORT": str(self.pva),
            "EPICS_PVAS_BROADCAST_PORT": str(self.pva_search), "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1", "EPICS_CA_REPEATER_PORT": str(free_ports(1)[0]),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, str(IOC)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=env,
        )  # fmt: skip
        self._until("ready")

    def _until(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise AssertionError("the IOC has ended")

    def put(self, name: str, value: float, severity: int = 0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {value} {severity}\n")
        self.process.stdin.flush()
        self._until("done")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def ioc() -> Iterator[Ioc]:
    pytest.importorskip("softioc")
    made = Ioc()
    yield made
    made.stop()


def device(ioc: Ioc, protocol: str = "ca", **more: Any) -> EpicsPv:
    port = ioc.ca if protocol == "ca" else ioc.pva_search
    channels = {
        "current": {"pv": "SR:CURRENT", "unit": "mA"}, "shutter": {"pv": "SR:SHUTTER", "switch": True},
    }  # fmt: skip
    return EpicsPv(
        open_line("ring", {"kind": "epics", "host": "127.0.0.1", "port": port}), name="ring",
        clock=RealClock(), settings={"protocol": protocol, "period_s": 0.1, "channels": channels, **more},
    )  # fmt: skip


async def until(
    made: EpicsPv, met: Callable[[dict[str, Any]], bool], *, seconds: float = 30.0
) -> dict[str, Any]:
    """Poll as control does until the values meet a condition."""
    values: Any = None
    for _ in range(int(seconds / 0.05)):
        try:
            values = dict(await made.read_values())
        except NoReply as error:
            values = {"error": str(error)}
        if met(values):
            return dict(values)
        await asyncio.sleep(0.05)
    raise AssertionError(values)


UNKNOWN = {"current": None, "shutter": None}


@pytest.mark.parametrize("protocol", ["ca", "pva"])
async def test_values_of_a_foreign_ioc_and_everything_that_makes_them_unknown(
    protocol: str, ioc: Ioc
) -> None:
    if protocol == "pva":
        pytest.importorskip("p4p")
    made = device(ioc, protocol)
    try:
        notes = await made.prepare()
        assert any("no heartbeat" in note for note in notes)
        await until(made, lambda now: now == {"current": 300.0, "shutter": True})
        ioc.put("current", 12.5)
        ioc.put("shutter", 0)
        await until(made, lambda now: now == {"current": 12.5, "shutter": False})
        ioc.put("current", 12.5, severity=3)  # INVALID
        assert (await until(made, lambda now: now.get("current") is None))["shutter"] is False
        ioc.put("current", 13.0, severity=2)  # MAJOR is an alarm about a value that is known
        await until(made, lambda now: now.get("current") == 13.0)
        ioc.process.send_signal(signal.SIGSTOP)  # it hangs; its connections stay
        await until(made, lambda now: now == UNKNOWN)
        ioc.process.send_signal(signal.SIGCONT)
        await until(made, lambda now: now.get("current") == 13.0)
        ioc.stop()
        await until(made, lambda now: now == UNKNOWN)
        ioc.start()
        await until(made, lambda now: now == {"current": 300.0, "shutter": True}, seconds=60.0)
    finally:
        await made.close()


async def test_a_heartbeat_that_stops_makes_all_unknown(ioc: Ioc) -> None:
    made = device(ioc, heartbeat={"pv": "SR:BEAT", "within_s": 1.5})
    try:
        await made.prepare()
        for count in range(1, 6):
            ioc.put("beat", count)
            now = await until(made, lambda now: now.get("current") == 300.0)
            await asyncio.sleep(0.1)
        assert now["shutter"] is True
        await until(made, lambda now: now == UNKNOWN)  # nothing is wrong but that nobody counts any more
        ioc.put("beat", 99)
        await until(made, lambda now: now.get("current") == 300.0)
    finally:
        await made.close()


async def test_a_process_that_dies_is_an_error_and_is_started_again(
    ioc: Ioc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.epics_pv.AGAIN_S", 0.2)
    made = device(ioc)
    try:
        await made.prepare()
        await until(made, lambda now: now.get("current") == 300.0)
        assert made._process is not None
        made._process.kill()
        await made._process.wait()
        with pytest.raises(NoReply, match="has ended"):
            await made.read_values()
        await until(made, lambda now: now.get("current") == 300.0)
    finally:
        await made.close()


@pytest.mark.parametrize(
    ("value", "told"),
    [(3, 3.0), ("Open", "Open"), (b"Open\0", "Open"), (float("nan"), None), (float("inf"), None),
     (object(), None), (None, None)],
)  # fmt: skip
def test_what_a_pv_may_give(value: Any, told: Any) -> None:
    assert plain(value) == told


async def test_a_library_that_raises_anything_is_a_value_that_is_not_known() -> None:
    async def read(name: str) -> Any:
        raise RuntimeError("boom")

    assert "boom" in (await look(read, "X"))["why"]
