import asyncio
import json
import signal
import time
from types import SimpleNamespace

import cbor2
import pytest

from controller import payloads
from controller.mirror import MOST_STATES, Mirror
from controller.mqtt import Received, load_address
from tests.controller.mosquitto import USERS, Mosquitto
from tests.controller.test_link import Station, until
from tests.controller.wire import PREFIX, EmbeddedBroker

BOOT, OTHER = "a" * 32, "b" * 32


class World:
    """A mirror without a broker, in time that the test passes."""

    def __init__(self):
        self.now_s, self.skew_s, self.seq = 1000.0, 0.0, 0
        self.heard = []
        self.mirror = Mirror(
            lambda: pytest.fail("no broker here"), "bench", self.heard.append,
            monotonic=lambda: self.now_s, wall=lambda: self.now_s + self.skew_s,
        )  # fmt: skip
        self.mirror.connected, self.mirror.session = True, 1
        self.mirror._live_s = self.now_s
        self.status("ready")

    def say(self, topic, body, *, retain=False, boot=BOOT, hist=False, seq=None):
        self.seq += 1
        envelope = {"boot": boot, "seq": seq or self.seq, "prev": None, "hist": hist}
        encode = cbor2.dumps if topic.startswith("data/") else lambda one: json.dumps(one).encode()
        payload = encode({**body, **envelope}) if body else b""
        self.mirror.take(Received(f"{PREFIX}/{topic}", payload, 1, retain))

    def status(self, state, boot=BOOT):
        body = payloads.status(state, boot=boot, link="c" * 16, version="1", t=self.now_s)
        self.mirror.take(Received(f"{PREFIX}/status", json.dumps(body).encode(), 1, True))

    def voltage(self, value, *, t=None, stands_s=3.0, **more):
        body = payloads.state(value, t=self.now_s if t is None else t, unit="V", stands_s=stands_s)
        self.say("state/cell/voltage", body, **more)

    def quality(self):
        return self.mirror.quality("cell", "voltage")

    def why(self):
        return self.mirror.why_stale("cell", "voltage")


@pytest.fixture
def world():
    return World()


def test_a_value_is_good_while_it_is_renewed_and_stale_afterwards(world):
    world.voltage(3.7)
    assert (world.quality(), world.mirror.value("cell", "voltage")) == ("good", 3.7)
    world.now_s += 2.9
    assert world.quality() == "good"
    world.voltage(3.8)
    world.now_s += 2.9
    assert world.quality() == "good"
    world.now_s += 0.2
    assert world.quality() == "stale"
    assert "not renewed for 3 s" in world.why()
    assert world.mirror.value("cell", "voltage") is None
    assert world.mirror.states["cell", "voltage"].v == 3.8  # still to be seen, as what it is


def test_a_value_that_is_only_told_when_it_changes_does_not_age(world):
    world.voltage(3.7, stands_s=None)
    world.now_s += 3600.0
    assert world.quality() == "good"


def test_a_value_without_a_promise_is_stale_when_all_others_fall_silent(world):
    world.voltage(3.7, stands_s=None)
    world.say("state/heater/temperature", payloads.state(333.0, t=world.now_s, stands_s=3.0))
    world.now_s += 10.5
    assert "silent for 1" in world.why()
    world.say("tele", payloads.tele({}))
    assert world.why() == ""


@pytest.mark.parametrize("state", ["lost", "disconnected", "init"])
def test_what_an_absent_host_had_said_is_stale(world, state):
    world.voltage(3.7, stands_s=None)
    world.status(state)
    assert world.quality() == "stale"
    world.status("ready")
    assert world.quality() == "good"


def test_what_another_start_of_the_host_measured_is_stale(world):
    world.voltage(3.7, boot=OTHER)
    assert world.quality() == "stale"
    assert "earlier start" in world.why()
    world.voltage(3.6, t=world.now_s)
    world.voltage(3.9, boot=OTHER, hist=True, seq=99)  # late, from before: the present one stays
    assert world.mirror.states["cell", "voltage"].v == 3.6


def test_a_late_value_never_replaces_a_newer_one(world):
    world.voltage(3.7, seq=20)
    world.voltage(3.1, seq=12, hist=True)
    assert world.mirror.states["cell", "voltage"].v == 3.7
    assert len([one for one in world.heard if one.topic.startswith("state/")]) == 1


def test_a_kept_value_is_as_old_as_it_is_and_not_as_old_as_the_connection(world):
    world.voltage(3.7, t=world.now_s - 60.0, retain=True)
    assert world.quality() == "stale"


@pytest.mark.parametrize("skew_s", [-500.0, 500.0])
def test_clocks_that_differ_make_nothing_stale_and_nothing_fresh(world, skew_s):
    world.skew_s = skew_s  # ours ahead of the host's, or behind
    world.voltage(3.7)
    assert world.quality() == "good"
    world.say("state/heater/temperature",
              payloads.state(333.0, t=world.now_s - 60.0, stands_s=3.0), retain=True)  # fmt: skip
    assert world.mirror.quality("heater", "temperature") == "stale"


def test_a_bad_value_stays_bad_and_a_stale_one_stale(world):
    world.voltage(None, stands_s=None)
    assert world.quality() == "bad"
    world.say("state/cell/voltage", payloads.state(3.7, t=world.now_s, q="stale"))
    assert world.quality() == "stale"
    assert world.mirror.quality("cell", "nobody") == "bad"


def test_repeats_are_told_once(world):
    for _ in range(2):
        world.say("tele", payloads.tele({"cell/voltage": [(1.0, 3.7)]}), seq=50)
        world.say("data/map/Li", {"schema": "s", "values": b"12"}, seq=51)
        world.voltage(3.7, seq=52)
    assert [one.topic for one in world.heard if one.topic != "status"] == [
        "tele", "data/map/Li", "state/cell/voltage",
    ]  # fmt: skip
    assert world.mirror.repeats == 3


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", b"[]", b"{}", b'{"v": 1}', b'{"v":1,"t":"no","q":"good","boot":"","seq":1}', b"\xff\xfe"],
)
def test_nonsense_has_no_effect(world, payload):
    world.voltage(3.7)
    for topic in ("state/cell/voltage/more", "state/x", "tele", "data/map/Li", "nothing", "data/x"):
        world.mirror.take(Received(f"{PREFIX}/{topic}", payload, 1, False))
    world.mirror.take(Received("somebody/else", payload, 1, False))
    assert list(world.mirror.states) == [("cell", "voltage")]
    assert world.quality() == "good"


def test_what_is_kept_is_bounded(world):
    for n in range(MOST_STATES + 10):
        world.say(f"state/m/p{n}", payloads.state(1.0, t=world.now_s))
    assert len(world.mirror.states) == MOST_STATES
    big = bytes(20 << 20)
    for n in range(5):
        world.say(f"data/map/{n}", {"schema": "s", "values": big})
    assert list(world.mirror.data) == ["map/2", "map/3", "map/4"]
    assert world.mirror._data_bytes == sum(map(len, world.mirror.data.values())) < 64 << 20


@pytest.fixture(params=["amqtt", "mosquitto"])
def broker(request, tmp_path):
    one = (EmbeddedBroker if request.param == "amqtt" else Mosquitto)(tmp_path / "broker").start()
    table = dict(one.table)
    if request.param == "mosquitto":
        viewer = tmp_path / "viewer.credentials"
        viewer.write_text(f"viewer\n{USERS['viewer']}\n")
        viewer.chmod(0o600)
        table["viewer_credentials"] = str(viewer)
    yield SimpleNamespace(one=one, table=table)
    one.stop()


async def test_a_station_is_followed_over_broker_and_host_gone_and_back(tmp_path, broker):
    """The real link, a real broker, and a mirror with the account that may only read."""
    connections = []
    mirror = Mirror(
        lambda: load_address(broker.table, role="viewer"), "bench", on_connection=connections.append
    )
    following = asyncio.create_task(mirror.run())

    def quality():
        return mirror.quality("cell", "voltage")

    try:
        async with Station(tmp_path, broker.one) as station:
            await station.state(3.7)
            await station.journal.latch("heater-stale", payloads.alarm(
                "heater-stale", channel="heater", value=None, limit=3.0, unit="s", action="safe", text="late",
            ), run="r")  # fmt: skip
            await until(lambda: quality() == "good" and mirror.alarms, "value and alarm")
            assert mirror.alarms["heater-stale"]["text"] == "late"

            broker.one.kill()
            await until(lambda: not mirror.connected, "the loss is seen")
            assert quality() == "stale"
            await station.journal.clear_latch("heater-stale", "a person")  # nobody can be told
            broker.one.start()
            await until(lambda: quality() == "good", "good again", timeout_s=30.0)
            await station.drained()
            await until(lambda: not mirror.alarms, "an alarm that was cleared meanwhile is gone")

            station.link.end(signal.SIGKILL)
            await until(lambda: mirror.status.get("state") == "lost", "the last will")
            assert quality() == "stale"
            station.link.start()
            await until(lambda: quality() == "good", "the host is back")
        await until(lambda: mirror.status.get("state") == "disconnected", "an end in order")
        assert quality() == "stale"
        assert connections == [True, False, True]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_without_a_broker_it_says_why_and_keeps_trying(tmp_path):
    def nowhere():
        return load_address({"kind": "external", "url": "mqtt://127.0.0.1:1"})

    mirror = Mirror(nowhere, "bench")
    following = asyncio.create_task(mirror.run())
    began = time.monotonic()
    await until(lambda: mirror.last_error, "a reason")
    assert "127.0.0.1:1" in mirror.last_error
    assert time.monotonic() - began < 10.0
    assert mirror.away() == "no connection to the broker"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
