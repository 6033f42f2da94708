"""A mirror without a broker: what a station says is handed to it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

from controller import payloads
from controller.gateways.secop import SecopNode
from controller.mirror import Mirror
from controller.mqtt import Received
from controller.payloads import parameter

BOOT = "a" * 32
PREFIX = "operando/v1/bench"

DESCRIBED = payloads.describe(
    "bench",
    {
        "heater": {
            "description": "device oven",
            "parameters": {
                "temperature": parameter("cell holder, Pt100", unit="K", low=280.0, high=345.0),
                "output": parameter("heater power as a fraction", unit="1", low=0.0, high=1.0),
            },
        },
        "cell": {
            "description": "device cell",
            "parameters": {
                "voltage": parameter("cell voltage", unit="V", low=2.5, high=4.05),
                "charge": parameter("charge passed since the run began", unit="C"),
            },
        },
        "beam": {
            "description": "device io",
            "parameters": {
                "current": parameter("beam current", unit="A"),
                "blanked": parameter("whether the beam is blanked", kind="boolean"),
            },
        },
        "line-rs485": {
            "description": "line rs485",
            "parameters": {
                "errors": parameter("errors", kind="integer"), "p99_ms": parameter("p99", unit="ms"),
            },
        },
        "gauge": {
            "description": "device gauge", "parameters": {"pressure": parameter("pressure", unit="mbar")},
        },
        "run": {
            "description": "where the run stands",
            "parameters": {
                "state": parameter("state", kind="string"), "step": parameter("step", kind="integer"),
            },
        },
    },
    limits={},
)  # fmt: skip


class Told:
    """A mirror and what it is told."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []
        self.on_connection: list[Callable[[bool], None]] = []
        self.seq = 0
        self.now_s = 1000.0  # of the mirror's clock: it moves when a test says so
        self.mirror = Mirror(
            lambda: None, "bench", lambda heard: [one(heard) for one in self.listeners],  # type: ignore[arg-type,return-value]
            on_connection=lambda connected: [one(connected) for one in self.on_connection],
            monotonic=lambda: self.now_s,
        )  # fmt: skip
        self.mirror.session = 1
        self.mirror.connected = True
        self.mirror._live_s = self.now_s

    def begin(self) -> None:
        """A host that is there, and everything well."""
        self.status("ready")
        self.say("describe", DESCRIBED)
        self.state("heater", "temperature", 300.0, e=1.0, unit="K", stands_s=30.0)
        self.state("heater", "output", 0.1, unit="1", stands_s=30.0)
        self.state("heater", "target", 333.0, unit="K")
        self.state("cell", "phase", "cc")
        self.state("cell", "voltage", 3.7, e=0.002, unit="V", stands_s=30.0)
        self.state("cell", "charge", 0.5, e=0.01, unit="C", stands_s=30.0)
        self.state("beam", "current", 24e-12, unit="A", stands_s=30.0)
        self.state("beam", "blanked", True, stands_s=30.0)
        self.state("line-rs485", "errors", 2)
        self.state("line-rs485", "p99_ms", 12.5, unit="ms")
        self.state("gauge", "pressure", 2e-6, unit="mbar", stands_s=30.0)
        self.state("run", "state", "running")
        self.state("run", "step", 2)

    def say(self, topic: str, body: dict[str, Any], *, retain: bool = False) -> None:
        self.seq += 1
        told = {**body, "boot": BOOT, "seq": self.seq, "prev": None, "hist": False} if body else {}
        payload = json.dumps(told).encode() if told else b""
        self.mirror.take(Received(f"{PREFIX}/{topic}", payload, 1, retain))

    def passes(self, seconds: float) -> None:
        """Let time go by."""
        self.now_s += seconds

    def status(self, state: str) -> None:
        body = payloads.status(state, boot=BOOT, link="c" * 16, version="1")  # type: ignore[arg-type]
        self.mirror.take(Received(f"{PREFIX}/status", json.dumps(body).encode(), 1, True))

    def state(self, module: str, name: str, value: Any, **more: Any) -> None:
        self.say(f"state/{module}/{name}", payloads.state(value, **more))


class Served:
    """A node in a thread of its own, for clients that block."""

    def __init__(self, told: Told, hand_of: Any = None, **more: Any) -> None:
        self.told = told
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._hand_of, self._more = hand_of, more
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10.0)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self.node = SecopNode(self.told.mirror, self._hand_of, **self._more)
        self.told.listeners.append(self.node.state.heard)
        self.told.on_connection.append(self.node.state.connection)
        self.port = await self.node.serve("127.0.0.1", 0)
        self.told.begin()
        self._stop = asyncio.Event()
        looking = asyncio.create_task(self.node.run())
        self._ready.set()
        await self._stop.wait()
        looking.cancel()
        await self.node.close()
        await asyncio.sleep(0.05)
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def do(self, act: Callable[[], Any]) -> None:
        """Do something in the thread of the node, and wait until it is done."""
        done = threading.Event()

        def both() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(both)
        assert done.wait(5.0)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10.0)
