import asyncio
import json
import logging
import subprocess
import time
from dataclasses import replace

import pytest

from controller.mqtt import (
    BrokerAddress,
    BrokerError,
    Message,
    Mqtt,
    MqttLost,
    TooLarge,
    connect,
    load_address,
)
from tests.controller.mosquitto import USERS, Mosquitto, find, free_port
from tests.controller.wire import PREFIX, ROOT, EmbeddedBroker, Foreign, running, until

STATE = f"{PREFIX}/state/cell/voltage"


@pytest.fixture(scope="module")
def amqtt(tmp_path_factory):
    with running(EmbeddedBroker(tmp_path_factory.mktemp("amqtt") / "b")) as broker:
        yield broker


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    with running(Mosquitto(tmp_path_factory.mktemp("mosquitto"), limit=200_000)) as broker:
        yield broker


@pytest.fixture(params=["amqtt 3.1.1", "mosquitto 3.1.1", "mosquitto 5"])
def place(request, amqtt, mosquitto):
    """Each broker with each version of the protocol that it speaks: (broker, version, viewer's password)."""
    name, version = request.param.split()
    if name == "amqtt":
        return amqtt, version, amqtt.users["viewer"]
    return mosquitto, version, USERS["viewer"]


def viewer_of(place, **more):
    broker, version, password = place
    return Foreign(broker.port, "viewer", password, v5=version == "5", subscribe=[f"{PREFIX}/#"], **more)


# -- one connection --------------------------------------------------------------------------


async def test_messages_arrive_in_order_as_they_were_sent(place):
    broker, version, _ = place
    viewer = viewer_of(place)
    assert await asyncio.to_thread(viewer.subscribed.wait, 5.0)
    messages = [Message(f"{PREFIX}/tele", b'{"n":%d}' % n) for n in range(200)]
    async with connect(load_address(broker.table), protocol=version) as session:
        assert session.protocol == version
        assert await session.publish_many(messages) == (200, None)
        # amqtt acknowledges before it delivers, and forgets what a client sent that has left: so we stay.
        await asyncio.to_thread(until, lambda: len(viewer.messages) >= 200)
    assert [json.loads(m.payload)["n"] for m in viewer.messages if m.topic.endswith("tele")] == list(
        range(200)
    )
    viewer.close()


async def test_properties_repeat_what_the_payload_says_and_only_with_version_5(place):
    broker, version, _ = place
    viewer = viewer_of(place)
    assert await asyncio.to_thread(viewer.subscribed.wait, 5.0)
    viewer.messages.clear()
    message = Message(f"{PREFIX}/tele", b"{}", 1, False, "application/json", 60, {"boot": "b", "seq": "7"})
    async with connect(load_address(broker.table), protocol=version) as session:
        await session.publish(message)
        await asyncio.to_thread(until, lambda: [m for m in viewer.messages if m.topic.endswith("tele")])
    (got,) = [m for m in viewer.messages if m.topic.endswith("tele")]
    assert got.payload == b"{}"
    if version == "5":
        assert (got.properties.ContentType, got.properties.MessageExpiryInterval <= 60) == (
            "application/json",
            True,
        )
        assert got.properties.UserProperty == [("boot", "b"), ("seq", "7")]
    viewer.close()


async def test_the_last_will_comes_when_the_line_is_cut_and_not_when_it_is_closed(place):
    broker, version, _ = place
    will = Message(f"{PREFIX}/status", b'{"state":"lost"}', 1, True)
    viewer = viewer_of(place)
    assert await asyncio.to_thread(viewer.subscribed.wait, 5.0)
    async with connect(load_address(broker.table), will=will, protocol=version) as session:
        await session.publish(Message(f"{PREFIX}/status", b'{"state":"ready"}', 1, True))
        await asyncio.to_thread(until, lambda: viewer.messages)
    viewer.messages.clear()

    async def cut():
        async with connect(load_address(broker.table), will=will, protocol=version) as session:
            session._client._client._sock.shutdown(2)
            async for _ in session.messages():
                pass

    with pytest.raises(MqttLost):
        await cut()
    (got,) = await asyncio.to_thread(
        until, lambda: [m for m in viewer.messages if m.topic.endswith("status")]
    )
    assert got.payload == will.payload
    viewer.close()


async def test_a_message_above_the_limit_is_refused_here_and_the_session_goes_on(place):
    broker, version, _ = place
    async with connect(load_address(broker.table), protocol=version) as session:
        with pytest.raises(TooLarge, match="4194305"):
            await session.publish(Message(f"{PREFIX}/data/map/Li", bytes((4 << 20) + 1)))
        await session.publish(Message(f"{PREFIX}/tele", b"{}"))


async def test_a_message_above_the_brokers_own_limit_is_an_error_not_a_silence(mosquitto):
    """mosquitto's max_packet_size hangs up; its message_size_limit would acknowledge and drop."""

    async def too_much(version):
        async with connect(
            replace(load_address(mosquitto.table), timeout_s=0.1), protocol=version
        ) as session:
            publishing = asyncio.ensure_future(session.publish(Message(f"{PREFIX}/data/x", bytes(300_000))))
            try:
                async for _ in session.messages():
                    pass
            finally:
                publishing.cancel()

    for version in ("3.1.1", "5"):
        with pytest.raises(MqttLost):
            await asyncio.wait_for(too_much(version), 5.0)


async def test_each_connection_has_an_id_of_its_own(place):
    broker, version, _ = place
    seen = set()
    for _ in range(3):
        async with connect(load_address(broker.table), protocol=version) as session:
            seen.add(session._client.identifier)
    assert len(seen) == 3


@pytest.mark.parametrize("user", ["host", "stranger"])
async def test_a_wrong_password_is_said_so(place, user):
    broker, version, _ = place
    with pytest.raises(MqttLost, match=r"(?i)not authori[sz]ed|bad user"):
        async with connect(BrokerAddress("127.0.0.1", broker.port, user, "wrong"), protocol=version):
            pass


async def test_nobody_there_is_said_so():
    with pytest.raises(MqttLost, match="refused"):
        async with connect(BrokerAddress("127.0.0.1", free_port())):
            pass


async def test_a_broker_that_freezes_is_noticed_in_time(tmp_path):
    with running(Mosquitto(tmp_path)) as broker:

        async def talk():
            async with connect(replace(load_address(broker.table), timeout_s=0.3)) as session:
                broker.freeze()
                _, error = await session.publish_many([Message(f"{PREFIX}/tele", b"{}")] * 3)
                raise error

        began = time.monotonic()
        with pytest.raises(MqttLost):
            await talk()
        assert time.monotonic() - began < 3.0


# -- one after the other --------------------------------------------------------------------------


async def test_it_connects_again_with_a_fresh_client_and_tells(tmp_path):
    broker = Mosquitto(tmp_path).start()
    changes, ids = [], []
    client = Mqtt(
        lambda: load_address(broker.table),
        shortest_s=0.02,
        longest_s=0.1,
        on_change=lambda connected, why: changes.append(connected),
    )

    async def serve(session):
        ids.append(session._client.identifier)
        if len(ids) == 3:
            return
        broker.kill()
        broker.start()
        async for _ in session.messages():
            pass

    try:
        await asyncio.wait_for(client.run(serve), 20.0)
    finally:
        broker.stop()
    assert len(set(ids)) == 3
    assert client.connections == 3
    assert changes.count(True) == 3
    assert changes.count(False) >= 2


async def test_a_broker_without_version_5_is_spoken_to_in_3_1_1(amqtt):
    """amqtt gives a version 5 client no usable answer: after the time-out the other version is tried."""
    address = replace(load_address(amqtt.table), protocol="auto", timeout_s=0.5)
    found = []

    async def serve(session):
        found.append(session.protocol)

    await asyncio.wait_for(Mqtt(lambda: address, shortest_s=0.01).run(serve), 20.0)
    assert found == ["3.1.1"]


async def test_version_5_is_chosen_where_the_broker_can(mosquitto):
    found = []

    async def serve(session):
        found.append(session.protocol)

    await asyncio.wait_for(Mqtt(lambda: load_address(mosquitto.table)).run(serve), 20.0)
    assert found == ["5"]


async def test_credentials_that_are_not_there_yet_are_waited_for(amqtt):
    calls = []

    def load():
        calls.append(1)
        if len(calls) < 3:
            raise BrokerError("not yet")
        return load_address(amqtt.table)

    async def serve(session):
        return

    client = Mqtt(load, shortest_s=0.01)
    await asyncio.wait_for(client.run(serve), 20.0)
    assert len(calls) == 3


async def test_an_error_of_ours_is_not_taken_for_a_lost_connection(amqtt):
    async def serve(session):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await Mqtt(lambda: load_address(amqtt.table)).run(serve)


async def test_leaving_is_silent(amqtt, caplog):
    """Abandoned clients print 'Future exception was never retrieved'; ours leave through the front door."""

    async def give_up():
        async with connect(load_address(amqtt.table)) as session:
            task = asyncio.ensure_future(session.publish(Message(f"{PREFIX}/tele", b"{}")))
            await asyncio.sleep(0)
            task.cancel()
            await task

    with caplog.at_level(logging.ERROR):
        with pytest.raises(asyncio.CancelledError):
            await give_up()
        await asyncio.sleep(0.01)
    assert caplog.records == []


def test_only_one_file_imports_a_client():
    importing = {
        path.name
        for path in (ROOT / "controller").rglob("*.py")
        if any(
            f"{word} {name}" in path.read_text()
            for word in ("import", "from")
            for name in ("aiomqtt", "paho")
        )
    }
    assert importing == {"mqtt.py"}


# -- addresses --------------------------------------------------------------------------


def test_an_external_address_is_read_from_the_stations_table(tmp_path):
    credentials = tmp_path / "mqtt"
    credentials.write_text("host\np:ass word \r\n")
    credentials.chmod(0o600)
    table = {"kind": "external", "url": "mqtt://broker.lab", "credentials": str(credentials), "tls": None}
    address = load_address(table)
    assert (address.host, address.port, address.username, address.password) == (
        "broker.lab", 1883, "host", "p:ass word ",
    )  # fmt: skip
    assert (address.tls, address.protocol, address.embedded) == (None, "auto", False)
    assert "p:ass" not in repr(address)
    secure = load_address({**table, "url": "mqtts://broker.lab:9000", "protocol": "3.1.1"})
    assert (secure.port, secure.protocol, secure.tls is not None) == (9000, "3.1.1", True)
    assert load_address({"kind": "external", "url": "mqtts://broker.lab"}).port == 8883


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [("host\n", 0o600, "credentials"), ("host\npw\n", 0o604, "chmod"), ("host", 0o600, "first line")],
)
def test_credentials_that_are_wrong_are_refused(tmp_path, text, mode, words):
    path = tmp_path / "credentials"
    path.write_text(text)
    path.chmod(mode)
    table = {"kind": "external", "url": "mqtt://x", "credentials": str(path)}
    if text == "host\n":  # an empty password is a password
        assert load_address(table).password == ""
        return
    with pytest.raises(BrokerError, match=words):
        load_address(table)


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "external", "url": "http://x"},
        {"kind": "external", "url": "mqtt://"},
        {"kind": "external", "url": "mqtt://x:port"},
        {"kind": "external"},
        {"kind": "external", "url": "mqtts://x", "tls": {"ca": "/nowhere.pem"}},
        {"kind": "external", "url": "mqtt://x", "credentials": "/nowhere"},
        {"kind": "embedded", "credentials": "/nowhere"},
    ],
)
def test_an_address_that_cannot_be_used_is_refused(table):
    with pytest.raises(BrokerError):
        load_address(table)


# -- encrypted --------------------------------------------------------------------------


def certificate(folder):
    """Make a certificate for 127.0.0.1 that is its own authority."""
    folder.mkdir(exist_ok=True)
    command = (
        f"{find('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=test -addext subjectAltName=IP:127.0.0.1 -keyout {folder}/key.pem -out {folder}/cert.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a socket behind
async def test_tls_is_used_and_a_wrong_authority_is_refused(tmp_path):
    cert, key = certificate(tmp_path / "right")
    stranger, _ = certificate(tmp_path / "wrong")
    broker = Mosquitto(tmp_path / "broker")
    broker.config.write_text(broker.config.read_text() + f"certfile {cert}\nkeyfile {key}\n")
    with running(broker):
        table = {**broker.table, "url": f"mqtts://127.0.0.1:{broker.port}"}
        async with connect(load_address({**table, "tls": {"ca": str(cert)}})) as session:
            await session.publish(Message(STATE, b"{}"))
        with pytest.raises(MqttLost, match="CERTIFICATE_VERIFY_FAILED"):
            async with connect(load_address({**table, "tls": {"ca": str(stranger)}})):
                pass
