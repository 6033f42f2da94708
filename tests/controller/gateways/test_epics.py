"""Our PVs as clients of others see them: aioca and caproto over Channel Access, p4p over PVAccess."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.gateways import epics_model as model
from tests.controller.gateways.station import DESCRIBED, Told
from tests.drivers.test_epics_pv import free_ports

# The gateway on a mirror that is told what to say on standard input: the broker is another test's.
SERVER = """
import asyncio, json, sys
from tests.controller.gateways.station import Told
import controller.gateways.epics as epics

async def main(host, port, pva):
    epics.os.environ.update(epics.environment(host, port))
    told = Told()
    gateway = epics.Gateway(told.mirror, host, pva, pva + 1)
    told.listeners.append(gateway.heard)
    told.begin()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    serving = asyncio.create_task(gateway.run())
    while not gateway._servers and not serving.done():
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    while line := await reader.readline():
        verb, *arguments = json.loads(line)
        getattr(told, verb)(*arguments)
        print("done", flush=True)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await gateway.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""
CLIENT = """
import asyncio, json, sys
from aioca import caget, caput, FORMAT_CTRL, FORMAT_TIME

async def main(name, write):
    got = await caget(name, format=FORMAT_CTRL, timeout=20)
    stamped = await caget(name, format=FORMAT_TIME, timeout=20)
    told = {"value": float(got), "severity": stamped.severity, "t": stamped.timestamp,
            "units": getattr(got, "units", ""), "low": getattr(got, "lower_disp_limit", None),
            "high": getattr(got, "upper_disp_limit", None), "enums": list(getattr(got, "enums", []))}
    if write:
        try:
            await caput(name, 1.0, timeout=5, wait=True)
            told["wrote"] = True
        except Exception as error:
            told["refused"] = str(error)
    print(json.dumps(told))

asyncio.run(main(sys.argv[1], len(sys.argv) > 2))
"""
ROOT = Path(__file__).parents[3]
NAME = "operando:bench:heater:temperature"


class Gateway:
    def __init__(self) -> None:
        self.port, self.pva, self.pva_search = 0, 0, 0
        while self.pva_search != self.pva + 1:  # two neighbours for PVAccess
            self.port, self.pva = free_ports(2)
            self.pva_search = self.pva + 1
        env = {key: value for key, value in os.environ.items() if not key.startswith("EPICS_")}
        self.began = time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, "127.0.0.1", str(self.port), str(self.pva)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env,
        )  # fmt: skip
        self._until("ready")

    def _until(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise AssertionError("the gateway has ended")

    def say(self, *told: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        self._until("done")

    def caget(self, name: str, *more: str) -> dict[str, Any]:
        env = {
            **os.environ, "EPICS_CA_ADDR_LIST": "127.0.0.1", "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_SERVER_PORT": str(self.port), "EPICS_CA_REPEATER_PORT": str(self.port + 3),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, name, *more], capture_output=True, text=True, env=env, check=False,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def until(self, name: str, key: str, value: Any, *more: str) -> dict[str, Any]:
        end = time.monotonic() + 60.0
        while (told := self.caget(name, *more))[key] != value:
            assert time.monotonic() < end, told
        return told

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    pytest.importorskip("caproto")
    made = Gateway()
    yield made
    made.stop()


def test_aioca_sees_value_unit_limits_and_time_and_is_refused_a_write(gateway: Gateway) -> None:
    pytest.importorskip("aioca")
    told = gateway.caget(NAME, "write")
    assert (told["value"], told["units"], told["low"], told["high"]) == (300.0, "K", 280.0, 345.0)
    assert told["severity"] == 0
    assert gateway.began < told["t"] < time.time()
    assert "wrote" not in told
    assert "access" in told["refused"].lower()
    assert gateway.caget(NAME)["value"] == 300.0
    assert gateway.caget("operando:bench:beam:blanked")["enums"] == ["no", "yes", "unknown"]


def test_what_is_not_known_is_invalid_and_no_old_value(gateway: Gateway) -> None:
    pytest.importorskip("aioca")
    gateway.say("state", "gauge", "pressure", None)
    told = gateway.until("operando:bench:gauge:pressure", "severity", 3)
    assert math.isnan(told["value"])
    gateway.say("state", "gauge", "pressure", 3e-6)
    assert gateway.until("operando:bench:gauge:pressure", "severity", 0)["value"] == 3e-6
    gateway.say("status", "lost")
    assert gateway.until("operando:bench:beam:blanked", "value", 2.0)["severity"] == 3
    gateway.say("status", "ready")
    gateway.until(NAME, "severity", 0)


def test_p4p_sees_the_same_and_is_refused_a_write(gateway: Gateway) -> None:
    client = pytest.importorskip("p4p.client.thread")
    conf = {
        "EPICS_PVA_ADDR_LIST": "127.0.0.1", "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_BROADCAST_PORT": str(gateway.pva_search),
    }  # fmt: skip
    with client.Context("pva", conf=conf, useenv=False) as context:
        got = context.get(NAME, timeout=20)
        assert float(got) == 300.0
        assert got.severity == 0
        raw = got.raw.todict()
        assert (raw["display"]["units"], raw["display"]["limitHigh"]) == ("K", 345.0)
        assert gateway.began - 1 < raw["timeStamp"]["secondsPastEpoch"] < time.time()
        with pytest.raises(client.RemoteError):
            context.put(NAME, 1.0, timeout=10)
        assert float(context.get(NAME, timeout=20)) == 300.0
        assert context.get("operando:bench:run:state", timeout=20).raw.value == "running"


def test_alarm_and_quality_of_every_kind_without_a_network() -> None:
    told = Told()
    told.begin()
    pvs = model.build(DESCRIBED)
    assert set(pvs) >= {NAME, "operando:bench:line-rs485:errors", "operando:bench:guard:latched"}

    def shown(name: str) -> model.Shown:
        return model.show(told.mirror, pvs[f"operando:bench:{name}"])

    assert shown("guard:latched").value == 0.0
    told.say("alarm/permit", {"id": "permit", "text": "emergency stop"})
    assert (shown("guard:latched").value, shown("guard:latched").severity) == (1.0, model.MAJOR)
    told.state("heater", "temperature", 300.0, q="uncertain", unit="K", stands_s=2.0)
    assert shown("heater:temperature").severity == model.MINOR
    told.passes(5.0)
    late = shown("heater:temperature")
    assert (late.severity, late.status) == (model.INVALID, model.STATUS_COMM)
    assert math.isnan(float(late.value))
    assert "not renewed" in late.text
    told.mirror.connected = False
    assert shown("run:state").value == ""
    assert {shown(name.removeprefix("operando:bench:")).severity for name in pvs} == {model.INVALID}
    assert model.same(late, late)  # NaN is no change
    assert asyncio.iscoroutinefunction(told.mirror.run)
