import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cbor2
import jsonschema
import pytest

from controller import payloads
from controller.command_keys import Key
from controller.commands import Gate, RemoteCommands, sign
from controller.documents import DocumentWriter, data_key
from controller.journal import AsyncJournal, Record
from controller.link_server import LinkServer
from controller.payload_schemas import message_name, payload_schemas
from tests.controller.mosquitto import USERS, Mosquitto
from tests.controller.wire import PREFIX, ROOT, EmbeddedBroker, Foreign, LinkProcess

PATIENCE_S = 20.0
KEY = bytes(range(32))
DEVNULL_LINK = ("--rate", "100000")


async def until(condition, what, timeout_s=PATIENCE_S):
    """Poll, leaving the event loop free, until something is so; fail when it never is."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what}: not within {timeout_s} s")


class Station:
    """A journal, control's socket, and link as a process of its own, at some broker."""

    def __init__(self, folder, broker, *, link_arguments=(), **server):
        self.folder = folder
        self.broker = broker
        self.server_options = server
        self.link = LinkProcess(
            folder / "journal.sqlite",
            folder / "link.sock",
            broker.table,
            *link_arguments,
            log=folder / "link.log",
        )

    async def __aenter__(self):
        await self.open()
        self.link.start()
        return self

    async def open(self):
        self.journal = await AsyncJournal.open(self.folder / "journal.sqlite", station="bench")
        await self.journal.boot("test")
        self.server = LinkServer(self.folder / "link.sock", self.journal, **self.server_options)
        await self.server.start()

    async def close(self):
        await self.server.stop()
        await self.journal.close()

    async def __aexit__(self, *error):
        if error[0] is not None:
            print((self.folder / "link.log").read_text()[-2000:])
        self.link.end()
        await self.close()

    async def state(self, value, name="cell/voltage"):
        return await self.journal.record(
            "state", "cell", payloads.state(value), topic=f"state/{name}", retain=True
        )

    async def backlog(self):
        return (await self.journal.read(lambda journal: journal.backlog()))[0]

    async def drained(self):
        async def empty():
            return await self.backlog() == 0

        await until(empty, "an empty outbox")


@pytest.fixture(params=["amqtt 3.1.1", "mosquitto 3.1.1", "mosquitto 5"])
def place(request, tmp_path):
    """Each broker with each version of the protocol that it speaks."""
    name, version = request.param.split()
    broker = (EmbeddedBroker if name == "amqtt" else Mosquitto)(tmp_path / "broker").start()
    table = broker.table if name == "amqtt" else {**broker.table, "protocol": version}
    password = broker.users["viewer"] if name == "amqtt" else USERS["viewer"]
    yield SimpleNamespace(broker=broker, table=table, version=version, password=password, name=name)
    broker.stop()


@pytest.fixture
def mosquitto(tmp_path):
    broker = Mosquitto(tmp_path / "broker").start()
    yield broker
    broker.stop()


@pytest.fixture
def viewer():
    """Make foreign clients that are closed at the end."""
    made = []

    def make(port, password=USERS["viewer"], user="viewer", **more):
        foreign = Foreign(port, user, password, **{"subscribe": [f"{PREFIX}/#"], **more})
        made.append(foreign)
        assert foreign.subscribed.wait(5.0)
        return foreign

    yield make
    for foreign in made:
        foreign.close()


def watch(place, viewer, **more):
    return viewer(place.broker.port, place.password, v5=place.version == "5", **more)


def numbers(foreign, part="state/"):
    """Return what a receiver keeps: (boot, seq) of the messages, without repeats, in order of arrival."""
    return list(dict.fromkeys((body["boot"], body["seq"]) for _, body, _ in foreign.bodies(part) if body))


# -- what goes over the wire --------------------------------------------------------------------------


async def test_everything_that_goes_over_a_real_wire_is_as_described(place, viewer, tmp_path):
    foreign = watch(place, viewer)
    product = {
        "schema": "operando/map/1", "run": "r1", "unit": "1", "shape": [2, 2],
        "values": cbor2.CBORTag(85, bytes(range(16))),
    }  # fmt: skip
    (tmp_path / "map.cbor").write_bytes(cbor2.dumps(product))
    async with Station(tmp_path, SimpleNamespace(table=place.table)) as station:
        journal = station.journal
        described = payloads.describe("bench", {"cell": {"parameters": {}}}, limits={"current_a": 4e-5})
        await journal.record("describe", "host", described, topic="describe", retain=True)
        await station.state(3.91)
        journal.post("tele", "cell", payloads.tele({"cell/voltage": [(1.0, 3.9), (1.1, None)]}), topic="tele")
        writer = DocumentWriter(journal, "r1")
        await writer.start(experiment="quickstart", station="bench", sample="LCO")
        await writer.descriptor("echem", {"voltage": data_key("cell", "V")})
        await writer.event("echem", {"voltage": 3.91}, wait=False)
        await writer.stop("success")
        await journal.record("product", "reduce", {}, topic="data/map/Li", path=str(tmp_path / "map.cbor"))
        alarm = payloads.alarm(
            "over", channel="t", value=1.0, limit=0.5, unit="K", action="safe", text="hot", lab_s=1.0
        )
        await journal.latch("over", alarm)
        asked = payloads.question("q1", text="Go on?", choices=["yes", "no"])
        await journal.record("question", "sequence", asked, topic="question/q1", retain=True)
        await station.drained()
        wanted = {
            "status", "describe", "state/cell/voltage", "tele", "doc/start", "doc/descriptor", "doc/event",
            "doc/stop", "data/map/Li", "alarm/over", "question/q1",
        }  # fmt: skip
        await until(lambda: wanted <= {topic for topic, _, _ in foreign.bodies()}, "every message")
    schemas = payload_schemas()
    for topic, body, message in foreign.bodies():
        if topic.startswith("data/"):
            assert body["values"] == product["values"]
            body = {**body, "values": []}
        jsonschema.validate(body, schemas[message_name(topic)])
        if place.version == "5":
            assert message.properties.ContentType == payloads.content_type(topic)
            if topic != "status":
                assert dict(message.properties.UserProperty)["seq"] == str(body["seq"])
    assert not [body for _, body, _ in foreign.bodies() if body.get("hist")]


async def test_a_newcomer_gets_what_is_retained_and_no_map(place, viewer, tmp_path):
    (tmp_path / "map.cbor").write_bytes(cbor2.dumps({"schema": "s", "run": "r"}))
    async with Station(tmp_path, SimpleNamespace(table=place.table)) as station:
        await station.state(3.91)
        await station.journal.record("p", "reduce", {}, topic="data/map/Li", path=str(tmp_path / "map.cbor"))
        await station.journal.record("tele", "cell", payloads.tele({}), topic="tele")
        await station.journal.latch("over", {"text": "hot"})
        await station.journal.latch("gone", {"text": "was hot"})
        await station.journal.clear_latch("gone", "me")
        await station.drained()
        foreign = watch(place, viewer)
        await until(lambda: len(foreign.bodies()) >= 3, "the retained messages")
        await station.state(3.92)
        await until(lambda: [b for _, b, _ in foreign.bodies("state/") if b["v"] == 3.92], "a new value")
    retained = {topic: message for topic, _, message in foreign.bodies() if message.retain}
    assert set(retained) == {"status", "state/cell/voltage", "alarm/over"}


async def test_a_map_is_on_the_broker_well_within_half_a_second(place, viewer, tmp_path):
    foreign = watch(place, viewer)
    body = {"schema": "s", "run": "r", "values": cbor2.CBORTag(85, bytes(4 * 512 * 512))}
    (tmp_path / "map.cbor").write_bytes(cbor2.dumps(body))
    async with Station(tmp_path, SimpleNamespace(table=place.table)) as station:
        await until(lambda: station.server.health.connected, "a connection")
        began = time.monotonic()
        await station.journal.record("p", "reduce", {}, topic="data/map/Li", path=str(tmp_path / "map.cbor"))
        await until(lambda: foreign.bodies("data/"), "the map")
        assert time.monotonic() - began < 0.5
    assert len(foreign.bodies("data/")[0][1]["values"].value) == 1 << 20


# -- exactly once --------------------------------------------------------------------------


async def produce(station, count, pace_s=0.002):
    """Record states one after the other; return their numbers."""
    seqs = []
    for n in range(count):
        seqs.append(await station.state(float(n)))
        await asyncio.sleep(pace_s)
    return seqs


async def quiet(foreign):
    """Wait until nothing has arrived for a while."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < 0.1:
        await asyncio.sleep(0.01)
        if len(foreign.messages) != count:
            count, since = len(foreign.messages), time.monotonic()


async def test_broker_and_link_killed_while_publishing_every_event_comes_once_and_in_order(
    mosquitto, viewer, tmp_path
):
    """By a receiver that drops repeats by (boot, seq). The broker is killed when it has delivered what it has
    acknowledged (its own promise is tested next); link is killed whatever it is doing."""
    foreign = viewer(mosquitto.port, name="recorder", persistent=True)
    async with Station(tmp_path, mosquitto) as station:
        await until(lambda: station.server.health.connected, "a connection")
        producing = asyncio.ensure_future(produce(station, 600))
        for victim in ("broker", "link", "broker", "link", "both"):
            await asyncio.sleep(0.15)
            station.link.send(signal.SIGSTOP)
            if victim in ("broker", "both"):
                await quiet(foreign)
                await asyncio.to_thread(mosquitto.kill)
                await asyncio.sleep(0.05)
                await asyncio.to_thread(mosquitto.start)
            if victim in ("link", "both"):
                station.link.end(signal.SIGKILL)
                station.link.start()
            else:
                station.link.send(signal.SIGCONT)
        seqs = await producing
        await station.drained()
        await until(lambda: len(numbers(foreign)) >= len(seqs), "every number")
        boot = station.journal.boot_id
    assert numbers(foreign) == [(boot, seq) for seq in seqs]
    values = {body["seq"]: body["v"] for _, body, _ in foreign.bodies("state/")}
    assert [values[seq] for seq in seqs] == [float(n) for n in range(600)]
    assert len(foreign.bodies("state/")) > len(seqs)  # there were repeats to drop


@pytest.mark.parametrize("name", ["amqtt", "mosquitto"])
async def test_what_a_killed_broker_swallows_is_noticed(name, viewer, tmp_path):
    """Brokers acknowledge before they deliver (amqtt) or store (mosquitto): prev shows what was lost."""
    broker = (EmbeddedBroker if name == "amqtt" else Mosquitto)(tmp_path / "broker").start()
    password = broker.users["viewer"] if name == "amqtt" else USERS["viewer"]
    foreign = viewer(broker.port, password, name="recorder", persistent=name == "mosquitto")
    try:
        async with Station(tmp_path, broker) as station:
            await until(lambda: station.server.health.connected, "a connection")
            producing = asyncio.ensure_future(produce(station, 300))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            seqs = await producing
            await station.drained()
            await until(lambda: foreign.subscribed.is_set(), "the receiver")
            last = await station.state(-1.0)
            await until(lambda: last in {seq for _, seq in numbers(foreign)}, "the last number")
    finally:
        broker.stop()
    got = [seq for _, seq in numbers(foreign)]
    assert got == sorted(got)
    missing = {*seqs, last} - set(got)
    noticed = {body["prev"] for _, body, _ in foreign.bodies("state/")} - {None} - set(got)
    assert bool(missing) == bool(noticed)
    assert noticed <= missing
    if name == "mosquitto":  # it keeps the session: at most what was on its way at that moment is gone
        assert len(missing) <= 40


async def test_a_restarted_host_shows_in_the_boot_and_old_values_as_stale(mosquitto, viewer, tmp_path):
    foreign = viewer(mosquitto.port)
    async with Station(tmp_path, mosquitto) as station:
        await station.state(3.9)
        await station.drained()
        first = station.journal.boot_id
        await station.close()
        await station.open()
        second = station.journal.boot_id
        await until(lambda: [b for _, b, _ in foreign.bodies("state/") if b["q"] == "stale"], "a stale value")
        await until(
            lambda: [b for _, b, _ in foreign.bodies("status") if b["boot"] == second], "the new boot"
        )
    boots = [body["boot"] for _, body, _ in foreign.bodies("state/")]
    assert (boots[0], boots[-1]) == (first, second)
    assert foreign.bodies("state/")[-1][1]["v"] == 3.9


# -- a broker or a link that stands still ----------------------------------------------


@pytest.mark.parametrize("who", ["broker", "link"])
async def test_neither_a_frozen_broker_nor_a_frozen_link_holds_the_journal_up(
    who, mosquitto, viewer, tmp_path
):
    foreign = viewer(mosquitto.port, name="recorder", persistent=True)
    async with Station(tmp_path, mosquitto) as station:
        await station.state(0.0)
        await station.drained()
        if who == "broker":
            mosquitto.freeze()
        else:
            station.link.send(signal.SIGSTOP)
        slowest = 0.0
        seqs = []
        for n in range(300):
            began = time.monotonic()
            seqs.append(await station.state(float(n)))
            slowest = max(slowest, time.monotonic() - began)
        if who == "broker":
            mosquitto.thaw()
        else:
            station.link.send(signal.SIGCONT)
        await station.drained()
        await until(lambda: {seq for _, seq in numbers(foreign)} >= set(seqs), "every number")
    assert slowest < 0.5  # a commit waits for the disk, and for nothing else
    got = [seq for _, seq in numbers(foreign)]
    assert got == sorted(got)


async def test_an_idle_link_holds_no_read_open(mosquitto, tmp_path):
    """A read that stayed open would keep the write-ahead log from being folded into the file."""
    async with Station(tmp_path, mosquitto) as station:
        await station.state(1.0)
        await station.drained()
        checkpoint = await station.journal.read(
            lambda journal: journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        )
        assert checkpoint[0] == 0  # 0: not blocked by a reader


async def test_a_link_that_says_nothing_is_killed(mosquitto, tmp_path):
    killed = []
    async with Station(tmp_path, mosquitto, freeze_s=2.5, on_frozen=killed.append) as station:
        await until(lambda: station.server.health.connected, "a connection")
        pid = station.link.process.pid
        await asyncio.sleep(1.5)
        assert killed == []  # one that lives is not
        station.link.send(signal.SIGSTOP)
        await until(lambda: station.link.process.poll() is not None, "its end")
        assert station.link.process.returncode == -signal.SIGKILL
        await until(lambda: killed == [pid], "word of it")
        station.link.start()
        await until(lambda: station.server.health.connected, "its successor")


# -- late and new --------------------------------------------------------------------------


async def test_late_messages_are_flagged_and_do_not_replace_what_is_newer(mosquitto, viewer, tmp_path):
    station = Station(tmp_path, mosquitto)
    await station.open()
    old = time.time() - 3600.0
    await station.journal.record_many(
        [
            Record(
                "s", "cell", payloads.state(float(n)), topic="state/cell/voltage", retain=True, wall_s=old + n
            )
            for n in range(50)
        ]
    )
    await station.state(99.0)
    foreign = viewer(mosquitto.port)
    station.link.start()
    try:
        await station.drained()
        await until(lambda: len(numbers(foreign)) == 51, "every number")
        newcomer = viewer(mosquitto.port, subscribe=[f"{PREFIX}/state/#"])
        await until(lambda: newcomer.bodies("state/"), "the retained value")
    finally:
        station.link.end()
        await station.close()
    assert {body["hist"] for _, body, _ in foreign.bodies("state/") if body["v"] < 99.0} == {True}
    assert {body["hist"] for _, body, _ in foreign.bodies("state/") if body["v"] == 99.0} == {False}
    assert [body["v"] for _, body, _ in newcomer.bodies("state/")] == [99.0]
    order = [seq for _, seq in numbers(foreign)]
    assert order[0] == max(order)  # the new one came first
    assert order[1:] == sorted(order[1:])


# -- what cannot be delivered --------------------------------------------------------------------------


async def test_what_cannot_be_delivered_is_given_up_and_said_so(place, viewer, tmp_path):
    foreign = watch(place, viewer)
    (tmp_path / "empty.cbor").touch()
    (tmp_path / "text.cbor").write_bytes(b"hello")
    (tmp_path / "huge.cbor").write_bytes(cbor2.dumps({"values": bytes(5 << 20)}))
    async with Station(tmp_path, SimpleNamespace(table=place.table)) as station:
        for name in ("missing", "empty", "text", "huge"):
            await station.journal.record(
                "p", "reduce", {}, topic="data/x", path=str(tmp_path / f"{name}.cbor")
            )
        await station.state(1.0)
        await station.drained()
        why = [e.body["why"] for e in await station.journal.read(lambda j: j.events(kind="undeliverable"))]
        told = "state/journal/dropped_undeliverable"
        await until(lambda: [b for _, b, _ in foreign.bodies(told) if b["v"] == 4], "the count")
        assert foreign.bodies("data/") == []
        assert len(foreign.bodies("state/cell/voltage")) == 1
    assert len(why) == 4
    for words, text in zip(
        ("No such file", "is empty", "not a CBOR map", "bytes are more than"), why, strict=True
    ):
        assert words in text


async def test_a_message_that_the_broker_hangs_up_over_does_not_hold_the_others_back(viewer, tmp_path):
    broker = Mosquitto(tmp_path / "broker", limit=200_000).start()
    foreign = viewer(broker.port)
    (tmp_path / "map.cbor").write_bytes(cbor2.dumps({"values": bytes(300_000)}))
    try:
        async with Station(tmp_path, broker) as station:
            await station.journal.record("p", "reduce", {}, topic="data/x", path=str(tmp_path / "map.cbor"))
            seq = await station.state(1.0)
            await station.drained()
            (event,) = await station.journal.read(lambda j: j.events(kind="undeliverable"))
            assert "the connection ended 3 times" in event.body["why"]
            await until(lambda: seq in {s for _, s in numbers(foreign)}, "the others")
    finally:
        broker.stop()


# -- status --------------------------------------------------------------------------


def states(foreign):
    return [body["state"] for _, body, _ in foreign.bodies("status") if body]


async def test_status_tells_birth_and_end(place, viewer, tmp_path):
    foreign = watch(place, viewer)
    station = Station(tmp_path, SimpleNamespace(table=place.table))
    station.link.start()  # before there is a journal, or anybody to talk to
    try:
        await until(lambda: states(foreign) == ["init"], "a first sign of life")
        await station.open()
        await until(lambda: states(foreign)[-1] == "ready", "the host")
        assert foreign.bodies("status")[-1][1]["boot"] == station.journal.boot_id
        await station.state(5.0)
        await station.close()  # in order
        await until(lambda: states(foreign)[-1] == "disconnected", "the end")
    finally:
        assert station.link.end() == 0
    assert foreign.bodies("state/")[-1][1]["v"] == 5.0
    assert "lost" not in states(foreign)


async def test_a_killed_link_leaves_its_last_will_and_a_new_one_takes_it_back(place, viewer, tmp_path):
    foreign = watch(place, viewer)
    async with Station(tmp_path, SimpleNamespace(table=place.table)) as station:
        await until(lambda: states(foreign)[-1:] == ["ready"], "the host")
        station.link.end(signal.SIGKILL)
        await until(lambda: states(foreign)[-1] == "lost", "the will")
        assert foreign.bodies("status")[-1][1]["boot"] == station.journal.boot_id
        station.link.start()
        await until(lambda: states(foreign)[-1] == "ready", "its successor")


async def test_a_host_that_vanishes_is_lost_though_its_link_lives(mosquitto, viewer, tmp_path):
    foreign = viewer(mosquitto.port)
    code = (
        "import asyncio, sys\n"
        "from controller.journal import AsyncJournal\n"
        "from controller.link_server import LinkServer\n"
        "async def main():\n"
        "    journal = await AsyncJournal.open(sys.argv[1] + '/journal.sqlite', station='bench')\n"
        "    await journal.boot('test')\n"
        "    await LinkServer(sys.argv[1] + '/link.sock', journal).start()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    link = LinkProcess(tmp_path / "journal.sqlite", tmp_path / "link.sock", mosquitto.table).start()
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) as host:
        try:
            await until(lambda: states(foreign)[-1:] == ["ready"], "the host")
            host.kill()
            await until(lambda: states(foreign)[-1] == "lost", "word of its loss")
        finally:
            host.kill()
            link.end()


async def test_an_old_will_that_comes_late_is_overwritten(mosquitto, viewer, tmp_path):
    foreign = viewer(mosquitto.port)
    other = viewer(mosquitto.port, USERS["host"], "host", subscribe=[f"{PREFIX}/status"])
    async with Station(tmp_path, mosquitto) as station:
        await until(lambda: states(foreign)[-1:] == ["ready"], "the host")
        body = payloads.status("lost", boot="", link="0" * 16, version="0")
        await asyncio.to_thread(other.publish, f"{PREFIX}/status", json.dumps(body), retain=True)
        await until(lambda: "lost" in states(foreign), "the old will")
        await until(lambda: states(foreign)[-1] == "ready", "the truth")
        await until(lambda: station.server.health.echo, "word that we are heard")


async def test_a_broker_that_lost_everything_is_told_again(viewer, tmp_path):
    """amqtt keeps nothing over a restart: the birth brings every retained value back."""
    broker = EmbeddedBroker(tmp_path / "broker").start()
    try:
        async with Station(tmp_path, broker) as station:
            await station.state(3.9)
            await station.state(20.0, "room/temperature")
            await station.journal.latch("over", {"text": "hot"})
            await station.drained()
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            foreign = await asyncio.to_thread(viewer, broker.port, broker.users["viewer"])
            wanted = {"status", "state/cell/voltage", "state/room/temperature", "alarm/over"}
            await until(lambda: wanted <= {topic for topic, _, _ in foreign.bodies()}, "all of them")
    finally:
        broker.stop()


async def test_sigterm_delivers_what_is_there(place, viewer, tmp_path):
    foreign = watch(place, viewer)
    async with Station(tmp_path, SimpleNamespace(table=place.table)) as station:
        await until(lambda: station.server.health.connected, "a connection")
        seqs = [await station.state(float(n)) for n in range(50)]
        assert await asyncio.to_thread(station.link.end) == 0
        await until(lambda: states(foreign)[-1] == "disconnected", "its goodbye")
        assert [seq for _, seq in numbers(foreign)] == seqs


async def test_link_does_not_outlive_the_process_that_started_it(mosquitto, viewer, tmp_path):
    foreign = viewer(mosquitto.port)
    link = LinkProcess(tmp_path / "journal.sqlite", tmp_path / "link.sock", mosquitto.table)
    code = (
        "import json, subprocess, sys\n"
        "nothing = subprocess.DEVNULL\n"
        "child = subprocess.Popen(json.loads(sys.argv[1]), stdin=nothing, stdout=nothing, stderr=nothing)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(link.command)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        pid = int(parent.stdout.readline())
        await until(lambda: states(foreign) == ["init"], "its start")
        parent.kill()
    await until(lambda: states(foreign)[-1] == "disconnected", "its goodbye")
    await until(lambda: process_state(pid) in ("", "Z"), "its end")


async def test_link_ends_when_the_pipe_to_its_stdin_closes(mosquitto, tmp_path):
    """Whenever that is: a parent that dies while link is starting leaves no other sign."""
    link = LinkProcess(tmp_path / "journal.sqlite", tmp_path / "link.sock", mosquitto.table)
    with subprocess.Popen(
        link.command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdin.close()
        await until(lambda: process.poll() is not None, "its end")
    assert process.returncode == 0


def process_state(pid):
    """Return the one-letter state of a process, empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


async def test_without_a_broker_link_just_stays(tmp_path):
    async with Station(tmp_path, SimpleNamespace(table="none")) as station:
        await until(lambda: station.server.attached, "link")
        assert not station.server.health.connected
        assert await station.server.drain(1.0)
        await station.state(1.0)
        assert not await station.server.drain(1.0)
        assert station.link.end() == 0


async def test_drain_waits_until_everything_is_delivered(mosquitto, tmp_path):
    async with Station(tmp_path, mosquitto) as station:
        await until(lambda: station.server.health.connected, "a connection")
        for n in range(100):
            await station.state(float(n))
        assert await station.server.drain(PATIENCE_S)
        assert await station.backlog() == 0


# -- remote commands --------------------------------------------------------------------------


async def test_signed_commands_reach_control_and_are_answered(viewer, tmp_path):
    broker = Mosquitto(tmp_path / "broker", remote=True).start()
    operator = viewer(
        broker.port, USERS["operator"], "operator", subscribe=[f"{PREFIX}/ack/alice", f"{PREFIX}/status"]
    )
    done = []
    station = Station(tmp_path, broker)
    handler = None

    async def on_command(message):
        await handler(message)

    async def present():
        return {"run": "r", "state": "running", "step": 1}

    async def execute(command):
        done.append((command.verb, command.why))
        return "as you wish"

    station.server_options["on_command"] = on_command
    try:
        async with station:
            keys = {"alice": Key(KEY)}
            gate = Gate("bench", keys, ["pause"], station.journal, embedded=False, present=present)
            handler = RemoteCommands(gate, station.journal, execute)
            await until(lambda: station.server.health.echo, "a connection")
            await asyncio.sleep(0.3)  # for the subscription, of which there is no sign

            async def send(verb, **more):
                expect = {"run": "r", "state": "running"}
                payload = sign(KEY, client="alice", station="bench", verb=verb, expect=expect, **more)
                await asyncio.to_thread(operator.publish, f"{PREFIX}/cmd/{verb}", payload)
                return payload

            def results():
                return [
                    (body["verb"], body["result"], body["reason"]) for _, body, _ in operator.bodies("ack/")
                ]

            paused = await send("pause", why="lunch")
            await until(lambda: len(results()) == 2, "two answers")
            await send("safe")
            await until(lambda: len(results()) == 4, "four answers")
            await send("abort")
            await asyncio.to_thread(operator.publish, f"{PREFIX}/cmd/pause", paused)
            await until(lambda: len(results()) == 6, "six answers")
            await asyncio.to_thread(operator.publish, f"{PREFIX}/cmd/pause", b"rubbish")
            stale = sign(KEY, client="alice", station="bench", verb="pause")
            await asyncio.to_thread(operator.publish, f"{PREFIX}/cmd/pause", stale, retain=True)

            async def refused():
                events = await station.journal.read(lambda j: j.events(kind="remote_refused"))
                reasons = [event.body["reason"] for event in events]
                return reasons.count("the message is retained")

            await until(refused, "the refusal of a retained command")  # said so even live, with MQTT 5
            station.link.end(signal.SIGKILL)
            station.link.start()  # now the broker sends what it has kept

            async def again():
                return await refused() == 2

            await until(again, "the refusal of what was kept")
            schema = payload_schemas()["ack"]
            for _, body, _ in operator.bodies("ack/"):
                jsonschema.validate(body, schema)
    finally:
        broker.stop()
    assert done == [("pause", "lunch"), ("safe", "")]
    assert results()[:6] == [
        ("pause", "accepted", ""),
        ("pause", "done", "as you wish"),
        ("safe", "accepted", ""),
        ("safe", "done", "as you wish"),
        ("abort", "rejected", "abort is not allowed here"),
        ("pause", "rejected", "the nonce was used before"),
    ]


async def test_without_commands_enabled_nobody_listens(viewer, tmp_path):
    broker = Mosquitto(tmp_path / "broker", remote=True).start()
    operator = viewer(broker.port, USERS["operator"], "operator", subscribe=[f"{PREFIX}/status"])
    try:
        async with Station(tmp_path, broker) as station:
            await until(lambda: station.server.health.echo, "a connection")
            payload = sign(KEY, client="alice", station="bench", verb="safe")
            await asyncio.to_thread(operator.publish, f"{PREFIX}/cmd/safe", payload)
            await station.state(1.0)
            await station.drained()
            log = (broker.folder / "log").read_text()
            assert "cmd" not in log
            assert await station.journal.read(lambda j: j.events(kind="remote_refused")) == []
    finally:
        broker.stop()


async def test_on_the_embedded_broker_link_never_asks_for_commands(tmp_path):
    """Even if control would take them; and what amqtt delivers unasked goes nowhere."""
    heard = []

    async def on_command(message):
        heard.append(message)

    broker = EmbeddedBroker(tmp_path / "broker").start()
    try:
        # With a subscription of somebody else in place, amqtt sends a newcomer retained messages unasked.
        other = Foreign(broker.port, "viewer", broker.users["viewer"], subscribe=["#"])
        assert other.subscribed.wait(5.0)
        async with Station(tmp_path, broker, on_command=on_command) as station:
            await station.state(1.0)
            await station.drained()
            station.link.end(signal.SIGKILL)
            station.link.start()
            await until(lambda: station.server.health.echo, "a connection")
            await station.state(2.0)
            await station.drained()
            assert station.link.process.poll() is None
        other.close()
    finally:
        broker.stop()
    assert heard == []
