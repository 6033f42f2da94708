import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.broker import EXIT_MEMORY, load_or_make, watch_line
from controller.topics import TopicError, access, level, matches, mosquitto_acl, prefix
from tests.controller.mosquitto import USERS, Mosquitto, find
from tests.controller.wire import PREFIX, ROOT, EmbeddedBroker, Foreign, running, until


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running(EmbeddedBroker(tmp_path_factory.mktemp("broker") / "b")) as broker:
        yield broker


@pytest.fixture
def client(broker):
    made = []

    def make(user, password=None, **more):
        foreign = Foreign(
            broker.port, user, broker.users.get(user, "") if password is None else password, **more
        )
        made.append(foreign)
        return foreign

    yield make
    for foreign in made:
        if not foreign._ending:
            foreign.close()


# -- topics and access ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "pattern", "match"),
    [  # examples of MQTT 3.1.1, sections 4.7.1 and 4.7.2
        ("sport/tennis/player1", "sport/tennis/player1/#", True),
        ("sport/tennis/player1/ranking", "sport/tennis/player1/#", True),
        ("sport/tennis/player1/score/wimbledon", "sport/tennis/player1/#", True),
        ("sport", "sport/#", True),
        ("sport/tennis/player1", "sport/tennis/+", True),
        ("sport/tennis/player1/ranking", "sport/tennis/+", False),
        ("sport", "sport/+", False),
        ("sport/", "sport/+", True),
        ("/finance", "+/+", True),
        ("/finance", "/+", True),
        ("/finance", "+", False),
        ("$SYS/monitor/Clients", "#", False),
        ("$SYS/monitor/Clients", "+/monitor/Clients", False),
        ("$SYS/monitor/Clients", "$SYS/#", True),
    ],
)
def test_filters_match_as_the_standard_says(topic, pattern, match):
    assert matches(topic, pattern) is match


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a\x00", "$SYS"])
def test_a_name_that_would_change_the_topic_is_refused(name):
    with pytest.raises(TopicError):
        prefix(name)
    with pytest.raises(TopicError):
        level(name)


def test_commands_exist_for_nobody_unless_the_station_enables_them():
    for rights in access("bench").values():
        assert not rights.may_read(f"{PREFIX}/cmd/safe")
        assert not rights.may_write(f"{PREFIX}/cmd/safe")
    remote = access("bench", remote=True)
    assert remote["operator"].may_write(f"{PREFIX}/cmd/safe")
    assert remote["host"].may_read(f"{PREFIX}/cmd/safe")
    assert not remote["viewer"].may_write(f"{PREFIX}/cmd/safe")
    assert not remote["viewer"].may_read(f"{PREFIX}/cmd/safe")
    assert not remote["operator"].may_write(f"{PREFIX}/state/heater/temperature")


def test_the_access_list_for_mosquitto_says_the_same():
    lines = mosquitto_acl("bench", remote=True).splitlines()
    assert (
        lines.index("user viewer") < lines.index("user operator") < lines.index(f"topic write {PREFIX}/cmd/#")
    )
    assert f"topic read {PREFIX}/cmd/#" in lines[: lines.index("user viewer")]
    assert "cmd" not in mosquitto_acl("bench")


# -- the process --------------------------------------------------------------------------------


def test_it_listens_on_the_loopback_only_with_private_random_passwords(broker):
    assert broker.told["host"] == "127.0.0.1"
    with open("/proc/net/tcp") as table:  # address and port in hexadecimal, 0A = listening
        listening = {row.split()[1] for row in table if row.split()[3] == "0A"}
    assert f"0100007F:{broker.port:04X}" in listening
    assert f"00000000:{broker.port:04X}" not in listening
    assert set(broker.users) == {"host", "viewer"}
    assert len(set(broker.users.values())) == 2
    assert all(len(password) == 64 for password in broker.users.values())
    for file in broker.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    hashed = (broker.folder / "passwords").read_text()
    assert hashed.count("$argon2id$") == 2
    assert not any(password in hashed for password in broker.users.values())


def test_it_ends_when_its_parent_does(tmp_path):
    broker = EmbeddedBroker(tmp_path / "b").start()
    broker.process.stdin.close()
    assert broker.process.wait(5.0) == 0
    broker.process.stdout.close()


def test_it_ends_on_sigterm(tmp_path):
    broker = EmbeddedBroker(tmp_path / "b").start()
    os.kill(broker.process.pid, signal.SIGTERM)
    assert broker.process.wait(5.0) == 0
    broker.stop()


def test_too_much_memory_ends_it_with_a_code_of_its_own(tmp_path):
    broker = EmbeddedBroker(tmp_path / "b", "--max-rss-mb", "5").start()
    assert broker.process.wait(5.0) == EXIT_MEMORY
    broker.stop()


def test_started_anew_it_keeps_port_and_passwords(tmp_path):
    broker = EmbeddedBroker(tmp_path / "b").start()
    before = (broker.port, broker.users)
    broker.kill()
    broker.start()
    assert (broker.port, broker.users) == before
    other = EmbeddedBroker(tmp_path / "c", "--port", str(broker.port)).start()  # the port is taken
    assert other.port != broker.port
    other.stop()
    broker.stop()


def test_damaged_credentials_are_made_anew(tmp_path):
    (tmp_path / "broker.json").write_text('{"users": {"host"')
    assert load_or_make(tmp_path / "broker.json")["port"] == 0


# -- who may what --------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["", "wrong"])
@pytest.mark.parametrize("user", ["host", "viewer", "stranger"])
def test_nobody_connects_without_the_password(client, user, password):
    assert client(user, password).refused.wait(5.0)


def test_the_host_publishes_the_viewer_reads_and_nobody_commands(client):
    viewer = client("viewer", subscribe=[f"{PREFIX}/#"])
    host = client("host", subscribe=[f"{PREFIX}/#"])
    assert viewer.subscribed.wait(5.0)
    assert host.subscribed.wait(5.0)
    viewer.publish(f"{PREFIX}/state/heater/temperature", b"forged", retain=True)
    viewer.publish(f"{PREFIX}/cmd/abort", b"{}")
    host.publish(f"{PREFIX}/cmd/abort", b"{}")
    host.publish("operando/v1/elsewhere/state/a/b", b"{}")
    host.publish(f"{PREFIX}/state/heater/temperature", b'{"v":1}')
    host.publish(f"{PREFIX}/status", b'{"state":"ready"}')
    until(lambda: len(viewer.messages) >= 2)
    assert [(m.topic, m.payload) for m in viewer.messages] == [
        (f"{PREFIX}/state/heater/temperature", b'{"v":1}'),
        (f"{PREFIX}/status", b'{"state":"ready"}'),
    ]
    until(lambda: host.messages)
    assert [m.topic for m in host.messages] == [f"{PREFIX}/status"]  # it hears itself, and nothing else


def test_a_last_will_is_no_way_round_the_access_list(broker, client):
    """amqtt alone publishes wills unchecked: here a client with a will it may not publish cannot connect."""
    forger = client("viewer", will={"topic": f"{PREFIX}/cmd/stop", "payload": b"now"})
    assert forger.refused.wait(5.0)
    liar = client(
        "viewer", will={"topic": f"{PREFIX}/status", "payload": b'{"state":"lost"}', "retain": True}
    )
    assert liar.refused.wait(5.0)
    viewer = client("viewer", subscribe=[f"{PREFIX}/#"])
    assert viewer.subscribed.wait(5.0)
    host = client(
        "host", subscribe=(), will={"topic": f"{PREFIX}/status", "payload": b"lost", "retain": True}
    )
    assert host.subscribed.wait(5.0)
    host.drop()
    until(lambda: [m for m in viewer.messages if m.payload == b"lost"])


# -- watching it --------------------------------------------------------------------------------


def test_the_line_that_it_prints_for_people_works(broker, client):
    host = client("host", subscribe=())
    assert host.subscribed.wait(5.0)
    host.publish(f"{PREFIX}/status", b"", retain=True)  # what another test may have left
    host.publish(f"{PREFIX}/state/cell/voltage", b'{"v":3.9}', retain=True)
    line = watch_line(broker.told, "bench").replace("mosquitto_sub", find("mosquitto_sub"), 1)
    done = subprocess.run(f"{line} -C 1 -W 5", shell=True, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout) == (0, f'{PREFIX}/state/cell/voltage {{"v":3.9}}\n')


def test_the_line_for_a_broker_of_the_station_works_and_holds_no_password(tmp_path):
    with running(Mosquitto(tmp_path / "broker")) as external:
        line = watch_line(external.table, "bench").replace("mosquitto_sub", find("mosquitto_sub"), 1)
        assert not any(password in line for password in USERS.values())
        host = Foreign(external.port, "host", USERS["host"], subscribe=())
        assert host.subscribed.wait(5.0)
        host.publish(f"{PREFIX}/state/cell/voltage", b'{"v":3.9}', retain=True)
        done = subprocess.run(
            f"{line} -C 1 -W 5", shell=True, capture_output=True, text=True, timeout=10,
            env={**os.environ, "OPERANDO_VIEWER_PASSWORD": USERS["viewer"]},
        )  # fmt: skip
        host.close()
    assert (done.returncode, done.stdout) == (0, f'{PREFIX}/state/cell/voltage {{"v":3.9}}\n')


def test_the_line_for_a_broker_with_certificates():
    tls = {"ca": "/etc/my ca.pem", "certificate": "/c.pem", "key": "/k.pem"}
    external = {"kind": "external", "url": "mqtts://hall.example", "credentials": None, "tls": tls}
    assert watch_line(external, "b").startswith(
        "mosquitto_sub -h hall.example -p 8883 --cafile '/etc/my ca.pem' --cert /c.pem --key /k.pem -v -t 'op"
    )
    assert "--tls-use-os-certs" in watch_line({**external, "tls": None}, "b")


def test_it_starts_soon_and_small(tmp_path):
    began = time.monotonic()
    with running(EmbeddedBroker(tmp_path / "b")) as broker:
        assert time.monotonic() - began < 5.0
        resident = int(Path(f"/proc/{broker.process.pid}/statm").read_text().split()[1]) * 4096
        assert resident < 100e6


def test_the_rest_of_the_program_does_not_load_the_broker():
    code = "import json, sys, controller.broker, controller.link; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"amqtt", "numpy", "numba", "scipy", "matplotlib", "edge", "pwdlib"}
