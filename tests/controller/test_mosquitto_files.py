"""What ``operando init mosquitto`` writes, tried with the real mosquitto and with clients of others."""

import asyncio
import base64
import gc
import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
import tomllib
from dataclasses import replace

import paho.mqtt.client as paho
import pytest

from controller.certificates import CertificateError, names_in
from controller.cli import main
from controller.mosquitto_files import InitError, hashed, renew, write_all
from controller.mqtt import Message, MqttLost, connect, load_address
from controller.topics import COMMANDS, PUBLISHED, access
from tests.controller.mosquitto import KEYS, Written, find
from tests.controller.wire import PREFIX, until


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Written(tmp_path_factory.mktemp("written") / "broker").start()
    yield broker
    broker.stop()


def client(broker, user, *, password=None, will=None):
    """Connect with paho, by the files that are given away; return it and the reason code of the broker."""
    one = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="")
    one.tls_set_context(ssl.create_default_context(cafile=broker.folder / "ca.crt"))
    if user:
        one.username_pw_set(user, broker.password(user) if password is None else password)
    if will:
        one.will_set(*will)
    answers = []
    one.on_connect = lambda client, data, flags, reason, properties: answers.append(reason)
    one.got = []
    one.on_message = lambda client, data, message: one.got.append((message.topic, message.payload.decode()))
    one.on_subscribe = lambda *_: answers.append("subscribed")
    one.connect(broker.address, broker.port)
    until(lambda: one.loop(0.02) is None or answers, 5.0, "an answer of the broker")
    return one, answers


def started(broker, user):
    one, answers = client(broker, user)
    assert not answers[0].is_failure
    one.working, one.answers = True, answers

    def work():
        while one.working and one.loop(0.02) == paho.MQTT_ERR_SUCCESS:
            pass

    one.thread = threading.Thread(target=work, daemon=True)
    one.thread.start()
    return one


def gone(one):
    one.working = False
    one.thread.join(5.0)
    one.disconnect()


# -- the station's own client --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_the_station_connects_with_the_tables_as_they_were_written(broker, protocol):
    address = load_address(broker.table)
    assert (address.host, address.port, address.username) == ("localhost", broker.port, "host")
    async with connect(address, protocol=protocol) as session:
        await session.subscribe(f"{PREFIX}/status")
        await session.publish(Message(f"{PREFIX}/status", b"{}"))
        async with asyncio.timeout(5.0):
            async for message in session.messages():
                assert message.payload == b"{}"
                break


async def refused(table, words):
    """Try three times: nothing may be left open but what the next collection takes away."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(MqttLost, match=words):
            async with connect(load_address(table)):
                pass
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the last one may still be held by its error


async def test_a_wrong_password_is_refused(broker, tmp_path):
    wrong = tmp_path / "credentials"
    wrong.write_text("host\n" + broker.password("viewer") + "\n")
    wrong.chmod(0o600)
    await refused({**broker.table, "credentials": str(wrong)}, "(?i)not authori")


# paho leaves the socket of a failed handshake to the garbage collector, which says so.
LEFT = pytest.mark.filterwarnings("ignore::ResourceWarning")


@LEFT
async def test_an_authority_of_somebody_else_is_refused(broker, tmp_path):
    write_all(tmp_path / "other", "bench")
    for tls in ({"ca": str(tmp_path / "other" / "ca.crt")}, None):
        await refused({**broker.table, "tls": tls}, "certificate verify failed")


@LEFT
async def test_a_certificate_for_another_name_is_refused(tmp_path):
    elsewhere = Written(tmp_path / "broker", "127.0.0.2", names=["broker.lab"]).start()
    try:
        table = {**elsewhere.table, "url": f"mqtts://127.0.0.2:{elsewhere.port}"}
        await refused(table, "(?i)mismatch")
    finally:
        elsewhere.stop()


async def test_without_tls_nobody_is_heard(broker):
    table = {**broker.table, "url": f"mqtt://127.0.0.1:{broker.port}"}
    with pytest.raises(MqttLost):
        async with connect(replace(load_address(table), timeout_s=0.5)):
            pass


# -- clients of others --------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, "host", "viewer", "operator", "admin"])
def test_without_the_right_password_nobody_gets_in(broker, user):
    one, answers = client(broker, user, password="guess")
    assert answers[0].is_failure
    one.disconnect()


def test_old_versions_of_tls_are_refused(broker):
    context = ssl.create_default_context(cafile=broker.folder / "ca.crt")
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", broker.port)) as plain,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


TOPICS = [part.replace("#", "x/y") for part in (*PUBLISHED, COMMANDS)]
FOREIGN = ["operando/v1/other/status", "operando/v1/other/cmd/safe", "operando", "elsewhere"]


def test_each_account_reads_and_writes_what_its_role_may_and_nothing_else(broker):
    """Every account publishes on every topic, and listens to everything."""
    rights = access("bench", remote=True)
    clients = {user: started(broker, user) for user in rights}
    for one in clients.values():
        one.subscribe([("#", 1), ("$SYS/#", 1), ("operando/v1/+/cmd/#", 1)])
    topics = [f"{PREFIX}/{part}" for part in TOPICS] + FOREIGN
    for one in clients.values():  # a subscription that is not to work is granted all the same
        until(lambda one=one: "subscribed" in one.answers, 5.0, "the subscription")
        one.got.clear()
    for user, one in clients.items():
        for topic in topics:
            one.publish(topic, user, qos=1).wait_for_publish(5.0)  # acknowledged, even if it is not allowed
    clients["host"].publish(f"{PREFIX}/status", "end", qos=1)
    for user, one in clients.items():
        until(
            lambda one=one: (f"{PREFIX}/status", "end") in one.got,
            5.0,
            f"the last one for {user}: {one.got} {one.is_connected()}",
        )
        due = {
            (topic, other)
            for other in clients
            for topic in topics
            if rights[other].may_write(topic) and rights[user].may_read(topic)
        }
        assert due
        assert set(one.got) - {(f"{PREFIX}/status", "end")} == due, user
        gone(one)


def test_a_last_will_is_delivered_only_where_its_owner_may_write(broker):
    host = started(broker, "host")
    host.subscribe("operando/v1/bench/cmd/#", 1)
    watching = started(broker, "viewer")
    watching.subscribe("#", 1)
    until(lambda: "subscribed" in host.answers and "subscribed" in watching.answers, 5.0, "the subscriptions")
    for user, topic in (("viewer", "cmd/safe"), ("operator", "status"), ("operator", "cmd/safe")):
        one, _ = client(broker, user, will=(f"{PREFIX}/{topic}", user, 1, False))
        one.socket().close()  # without a word
    until(lambda: host.got, 5.0, "the will that is allowed")
    assert host.got == [(f"{PREFIX}/cmd/safe", "operator")]
    assert [topic for topic, payload in watching.got if payload == "operator"] == []
    gone(host)
    gone(watching)


def test_without_keys_the_broker_carries_no_commands(tmp_path):
    write_all(tmp_path / "broker", "bench")
    assert "cmd" not in (tmp_path / "broker" / "acl").read_text()
    assert not (tmp_path / "broker" / "operator.credentials").exists()
    assert tomllib.loads((tmp_path / "broker" / "station-tables.toml").read_text())["remote"] == {
        "enabled": False
    }


# -- the files --------------------------------------------------------------------------


def test_passwords_are_stored_as_mosquitto_does_it(tmp_path):
    path = tmp_path / "passwords"
    path.touch(mode=0o600)
    subprocess.run([find("mosquitto_passwd"), "-b", path, "u", "sesame"], check=True, capture_output=True)
    user, _, stored = path.read_text().strip().partition(":")
    _, scheme, iterations, salt, _ = stored.split("$")
    assert (user, scheme) == ("u", "7")
    assert hashed("sesame", salt=base64.b64decode(salt), iterations=int(iterations)) == stored
    assert hashed("sesame") != hashed("sesame")


def test_every_file_is_for_its_owner_only_and_no_password_is_in_the_configuration(broker):
    for path in [broker.folder, *broker.folder.rglob("*")]:
        if path.name != "log":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    public = "".join((broker.folder / n).read_text() for n in ("mosquitto.conf", "acl", "passwords"))
    for user in ("host", "viewer", "operator"):
        assert len(broker.password(user)) >= 43  # 256 bits
        assert broker.password(user) not in public + "\n".join(broker.to_do)


def test_the_keys_are_those_that_the_station_reads_and_each_client_has_its_own(broker):
    from controller.command_keys import load_keys

    keys = load_keys(broker.folder / "command.keys")
    assert {name: key.role for name, key in keys.items()} == dict(KEYS)
    for name, key in keys.items():
        assert load_keys(broker.folder / f"{name}.key") == {name: key}
        assert len(key.secret) == 32


async def test_a_renewed_certificate_has_the_same_names_and_authority(tmp_path):
    broker = Written(tmp_path / "broker", names=["broker.lab", "10.1.2.3", "fd00::7"], days=1)
    before = {n: (broker.folder / n).read_bytes() for n in ("ca.crt", "server.crt", "passwords")}
    renew(broker.folder)
    after = {n: (broker.folder / n).read_bytes() for n in before}
    assert [n for n in before if before[n] != after[n]] == ["server.crt"]
    assert set(names_in(broker.folder / "server.crt")) == {
        "broker.lab", "10.1.2.3", "FD00:0:0:0:0:0:0:7", "localhost", "127.0.0.1",
    }  # fmt: skip
    broker.start()
    try:
        table = {**broker.table, "url": f"mqtts://localhost:{broker.port}"}
        async with connect(load_address(table)):
            pass
    finally:
        broker.stop()
    (broker.folder / "ca.key").unlink()
    with pytest.raises(CertificateError, match=r"ca\.key is not here"):
        renew(broker.folder)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"station": "a/b"}, InitError, "name of a station"),
        ({"station": "bench\nuser x"}, InitError, "name of a station"),
        ({"listen": "eth0"}, InitError, "address to listen on"),
        ({"listen": "0.0.0.0\nallow_anonymous true"}, InitError, "address to listen on"),
        ({"names": ["broker.lab, DNS:evil"]}, CertificateError, "neither a host name"),
        ({"names": ["-x"]}, CertificateError, "neither a host name"),
        ({"keys": [("desk", "owner")]}, InitError, "desk:operator"),
        ({"keys": [("desk", "viewer"), ("desk", "operator")]}, InitError, "name of its own"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, more, error, words):
    with pytest.raises(error, match=words):
        write_all(tmp_path / "broker", **{"station": "bench", **more})
    assert not (tmp_path / "broker").exists()


def test_nothing_is_overwritten(broker):
    with pytest.raises(InitError, match="exists already"):
        write_all(broker.folder, "bench")


def test_without_openssl_the_line_to_install_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CertificateError, match="apt-get install openssl"):
        write_all(tmp_path / "broker", "bench")


def test_the_command_writes_and_says_what_to_do(tmp_path, capsys):
    folder = tmp_path / "broker"
    words = ["init", "mosquitto", str(folder), "--station-name", "lab", "--name", "broker.lab"]
    assert main([*words, "--listen", "0.0.0.0", "--key", "desk:operator"]) == 0
    assert f"mosquitto -c {folder}/mosquitto.conf" in capsys.readouterr().out
    assert "listener 8883 0.0.0.0\n" in (folder / "mosquitto.conf").read_text()
    assert (
        tomllib.loads((folder / "station-tables.toml").read_text())["broker"]["url"]
        == "mqtts://broker.lab:8883"
    )
    assert main(words) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main([*words, "--renew"]) == 0
    shutil.rmtree(folder)
    assert main([*words, "--renew"]) == 2
    assert json.dumps(capsys.readouterr().err)
