"""A whole run under attack from the network, and what it gives away: sockets, process list, files.

The broker is the real mosquitto with the files that ``operando init mosquitto`` writes; the attackers are
paho clients, which share no code with ours, and hold the accounts that such a broker gives away.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from controller.command_keys import load_keys
from controller.command_refusals import BURST
from controller.commands import sign
from hil_tests.exposure import given_away, in_processes, only_on_loopback, private, sockets_of
from hil_tests.harness import (
    Run,
    World,
    a_bench,
    edited_station,
    ending,
    eventually,
    experiment,
    operando,
    processes_of,
    scan_step,
)
from tests.controller.mosquitto import Written

CMD = "operando/v1/bench/cmd"
# Patient where the bench allows it: what is tried here must not depend on what else the machine does.
PATIENT = {
    'period = "0.25 s"': 'period = "1.5 s"',
    'period = "0.1 s"': 'period = "2 s"',
    '"3 s" }': '"10 s" }',
}
LATE_S = 240.0  # wall seconds for the end of a run with its report, on a machine that is busy
AGAIN_S = 5.0  # wall seconds until a message that nobody answered is sent again
PASSES = 400  # more than anybody waits for: it ends by a command


class Client:
    """Somebody on the network with an account."""

    def __init__(self, broker: Written, user: str, *, name: str = "", subscribe: str = "#", will: Any = None):
        self.got: list[tuple[str, bytes]] = []
        self.ready = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
        self.client.tls_set_context(ssl.create_default_context(cafile=broker.folder / "ca.crt"))
        self.client.username_pw_set(user, broker.password(user))
        if will:
            self.client.will_set(*will)
        self.client.on_connect = lambda client, *_: client.subscribe(subscribe, qos=1)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = lambda _c, _d, message: self.got.append((message.topic, message.payload))
        self.client.connect(broker.address, broker.port)
        self.client.loop_start()
        assert self.ready.wait(20.0)

    def send(self, verb: str, payload: bytes, *, retain: bool = False) -> None:
        self.client.publish(f"{CMD}/{verb}", payload, qos=1, retain=retain).wait_for_publish(10.0)

    def acks(self) -> list[tuple[str, str, str]]:
        found = [json.loads(payload) for topic, payload in list(self.got) if "/ack/" in topic]
        return [(body["verb"], body["result"], body["reason"]) for body in found]

    def cut(self) -> None:
        """Go without a word."""
        self.client.loop_stop()
        self.client.socket().close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Attack:
    """A run, its broker, and both sides of the network."""

    def __init__(self, run: Run, broker: Written) -> None:
        self.run = run
        self.broker = broker
        self.keys = {name: key.secret for name, key in load_keys(broker.folder / "command.keys").items()}
        self.operator = Client(broker, "operator")
        self.viewer = Client(broker, "viewer")
        self.results: list[tuple[str, str]] = []

    def command(self, verb: str, client: str = "desk", **more: Any) -> bytes:
        """Return what a client with a key would send now."""
        expect = {} if verb == "safe" else {"run": self.run.run_dir.name, "state": "running"}
        usual = {"client": client, "station": "bench", "verb": verb, "expect": expect, "ttl_s": 250.0}
        key = more.pop("key", self.keys[client])
        return sign(key, **{**usual, **more})

    def refusals(self) -> list[str]:
        return [row["body"]["reason"] for row in self.run.events("remote_refused", run_only=False)]

    def refused(self, name: str, reason: str, verb: str, payload: bytes, *, retain: bool = False) -> None:
        """Send something; it is refused for that reason, in the journal, and the run goes on."""
        before = len(self.refusals())
        self.came(name, reason, before, lambda: self.operator.send(verb, payload, retain=retain))

    def came(self, name: str, reason: str, before: int, send: Callable[[], None] = lambda: None) -> None:
        found = self.sending(send, lambda: self.refusals()[before:], f"{name} is refused")
        assert re.search(reason, found[0]), (name, found)
        self.unharmed(name)
        self.results.append((name, found[0]))

    def sending(self, send: Callable[[], None], met: Callable[[], Any], what: str) -> Any:
        """Send until something is so: link may be on its way back from another connection."""
        sent_s = [-AGAIN_S]

        def probe() -> Any:
            if time.monotonic() - sent_s[0] > AGAIN_S:
                send()
                sent_s[0] = time.monotonic()
            return met()

        return eventually(probe, what, tell=self.run.tell)

    def unharmed(self, name: str) -> None:
        status = self.run.status()
        assert status is not None, name
        assert (status["state"], status["paused"], status["latched"]) == ("running", False, []), name

    def obeyed(self, verb: str, payload: bytes) -> None:
        """Send something that is in order; it is done."""
        before = len(self.operator.acks())

        def answers() -> list[tuple[str, str]]:
            return [ack[:2] for ack in self.operator.acks()[before:]]

        done = [(verb, "accepted"), (verb, "done")]
        self.sending(
            lambda: self.operator.send(verb, payload), lambda: set(answers()) >= set(done), f"{verb} is done"
        )
        assert [answer for answer in answers() if answer[1] != "rejected"] == done  # once, whoever repeats it

    def close(self) -> None:
        self.operator.close()
        self.viewer.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A bench at the speed of the real one."""
    with a_bench(tmp_path_factory.mktemp("bench"), speed=1.0) as bench:
        yield bench


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    broker = Written(tmp_path_factory.mktemp("broker") / "files").start()
    yield broker
    broker.stop()


def patient(text: str) -> str:
    for old, new in PATIENT.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def station_of(world: World, broker: Written, path: Path) -> Path:
    """Write the station file with the tables that were written for it, and every verb allowed."""
    tables = (broker.folder / "station-tables.toml").read_text()
    verbs = '"pause", "proceed", "stop", "abort", "safe"'
    tables = tables.replace('allow = ["stop", "abort", "safe"]', f"allow = [{verbs}]")
    return edited_station(
        world, path,
        lambda text: patient(text).replace('[broker]\nkind = "embedded"\n', "").replace(
            "[remote]\nenabled = false\n", tables
        ),
    )  # fmt: skip


def long_scan(path: Path) -> Path:
    until = f"until = {{ passes = {PASSES} }}"
    return experiment(path, scan_step("as prepared", (8, 12), 10.0, until, timeout="90 min"))


def scanning(run: Run) -> None:
    run.until(lambda status: status["scan"] and status["scan"]["n"] >= 1, "a scan")


# -- what a run listens to --------------------------------------------------------------------------


def test_the_look_at_sockets_sees_what_listens(tmp_path: Path) -> None:
    """The look itself: it must see a socket that is open to everybody."""
    with (
        socket.create_server(("0.0.0.0", 0)),
        socket.create_server(("::1", 0), family=socket.AF_INET6),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        found = {(protocol, address) for protocol, address, _ in sockets_of([os.getpid()])}
    assert {("tcp", "0.0.0.0"), ("tcp6", "::1"), ("udp", "127.0.0.1")} <= found


def test_the_look_for_secrets_sees_them(tmp_path: Path) -> None:
    """In a file, in a command line, and in an environment."""
    secrets = {"password": "correct-horse"}
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x.log").write_bytes(b"\xffconnected as host:correct-horse\n")
    assert given_away(secrets, [tmp_path]) == [f"password in {tmp_path}/logs/x.log"]
    assert not given_away(secrets, [tmp_path], but=("x.log",))
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    for command, environment, part in (
        ([*waiting, "correct-horse"], {}, "cmdline"),
        (waiting, {"PASSWORD": "correct-horse"}, "environ"),
    ):
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
            found = eventually(
                lambda pid=process.pid: in_processes(secrets, [pid]), "it is seen when the process has begun"
            )
            assert found == [f"password in {part} of {process.pid}"]


# -- the story --------------------------------------------------------------------------


def test_a_run_under_attack(world: World, tmp_path: Path, broker: Written, record_property) -> None:
    station = station_of(world, broker, tmp_path / "station.toml")
    path = long_scan(tmp_path / "scan.toml")
    with ending(Run.start(tmp_path / "run", path, "--station", str(station))) as run:
        scanning(run)
        attack = Attack(run, broker)
        secrets = {user: broker.password(user) for user in ("host", "viewer", "operator")}
        secrets |= {f"key of {name}": key.hex() for name, key in attack.keys.items()}
        record_property("sockets", only_on_loopback(run, world))
        assert not in_processes(secrets, [*processes_of(run.folder), run.process.pid])
        kept = attack.command("pause", why="to be replayed")
        try:
            messages(attack)
            accounts(attack)
            the_order_and_the_moment(attack, kept)
            flood(attack)
            record_property("refused", json.dumps(attack.results))
        finally:
            attack.close()
        remotely(broker, run)
        assert run.ended(seconds=LATE_S) == 6
        assert "stopped early by a person" in run.record["outcome"]
        journal_tells(run)
        the_next_run_knows_what_was_used(run, kept, attack, station)
        private(run)
        assert not given_away(secrets, [run.folder])


def the_next_run_knows_what_was_used(run: Run, kept: bytes, attack: Attack, station: Path) -> None:
    """Another process, another boot: the journal remembers."""
    path = long_scan(run.folder / "next.toml")
    arguments = ("--station", str(station))
    with ending(Run.start(run.folder / "next", path, *arguments, state=run.state)) as following:
        scanning(following)
        again = Attack(following, attack.broker)
        try:
            again.refused("replayed after a restart", "used before", "pause", kept)
            again.obeyed("safe", again.command("safe", client="phone", why="enough"))
        finally:
            again.close()
        record = following.run_dir / "record.json"
        eventually(record.is_file, "the run has ended", seconds=LATE_S, tell=following.tell)
        assert following.record["exit_code"] == 5
        assert "safe, asked for by phone (remote)" in following.record["outcome"]


def remotely(broker: Written, run: Run) -> None:
    """The way for people: ``operando remote`` on another machine, with what was given away."""
    words = ["remote", "pause", "--url", f"mqtts://localhost:{broker.port}"]
    words += [
        "--ca",
        str(broker.folder / "ca.crt"),
        "--credentials",
        str(broker.folder / "operator.credentials"),
    ]
    words += ["--key", str(broker.folder / "phone.key"), "--why", "enough"]
    refused = operando(*words)
    assert refused.returncode == 3, refused.stderr
    assert refused.stdout == "pause: rejected (pause is not allowed to a viewer)\n"
    words[1] = "stop"
    done = operando(*words)
    assert (done.returncode, done.stdout) == (0, "stop: done (stop: accepted)\n"), done.stderr
    row = run.events("remote_command", run_only=False)[-1]["body"]
    assert (row["client"], row["verb"], row["why"]) == ("phone", "stop", "enough")


def messages(attack: Attack) -> None:
    """What somebody with the right to write commands may write, but no key; or a key, and bad intent."""
    run, now = attack.run.run_dir.name, time.time()
    stranger = bytes(32)
    for name, reason, verb, payload in (
        ("forged", "signature is wrong", "safe", attack.command("safe", key=stranger)),
        ("changed on its way", "signature is wrong", "stop", changed(attack.command("stop"), why="x")),
        ("of an unknown client", "unknown client", "safe", changed(attack.command("safe"), client="eve")),
        ("malformed", "wrong shape", "safe", b'{"verb": "safe"'),
        ("deeply nested", "wrong shape", "safe", b"[" * 8000),
        ("no text", "wrong shape", "abort", bytes(range(256))),
        ("unknown verb", "unknown client|wrong shape", "clear", b"{}"),
        ("expired", "expired", "safe", attack.command("safe", now=now - 600.0)),
        ("from the future", "in the future", "stop", attack.command("stop", now=now + 600.0)),
        ("valid for ever", "more than 300 s", "safe", attack.command("safe", ttl_s=1e6)),
        ("of another station", "meant for station 'lab'", "safe", attack.command("safe", station="lab")),
        ("of another run", "expects run", "abort", attack.command("abort", expect={"run": "yesterday"})),
        ("in another state", "expects state 'paused'", "proceed",
         attack.command("proceed", expect={"run": run, "state": "paused"})),
        ("for another verb", "another verb", "abort", attack.command("stop")),
        ("to clear a trip", "not allowed", "clear", attack.command("clear", args={"id": "permit"})),
        ("with arguments", "no arguments", "stop", attack.command("stop", args={"do": "clear", "id": "x"})),
        ("beyond its role", "not allowed to a viewer", "pause", attack.command("pause", client="phone")),
    ):  # fmt: skip
        attack.refused(name, reason, verb, payload)
    attack.refused("retained", "retained", "safe", attack.command("safe"), retain=True)
    attack.refused("nothing, retained", "retained", "safe", b"", retain=True)  # and the broker forgets it


def changed(payload: bytes, **entries: Any) -> bytes:
    return json.dumps({**json.loads(payload), **entries}).encode()


def accounts(attack: Attack) -> None:
    """What the accounts cannot do, whatever is in the message."""
    before = len(attack.refusals())
    attack.viewer.send("safe", attack.command("safe"))  # acknowledged by the broker, delivered to nobody
    mute = Client(attack.broker, "viewer", will=(f"{CMD}/safe", attack.command("safe"), 1, False))
    mute.cut()
    will = Client(attack.broker, "operator", will=(f"{CMD}/safe", attack.command("safe", key=bytes(32)), 1))
    will.cut()
    attack.came("by a last will", "signature is wrong", before)
    assert len(attack.refusals()) == before + 1, "only the operator's will was delivered"

    name = host_connections(attack)[-1]
    thief = Client(attack.broker, "operator", name=name, subscribe="operando/v1/bench/status")
    eventually(lambda: host_connections(attack)[-1] != name, "link is back under another id")
    attack.unharmed("a stolen client id")
    attack.results.append(("a stolen client id", "link came back under another id"))
    thief.close()


def host_connections(attack: Attack) -> list[str]:
    """Return the client ids of link, from the broker's own log."""
    log = (attack.broker.folder / "log").read_text()
    return re.findall(r"New client connected from \S+ as (\S+) \(p\d, c\d, k\d+, u'host'\)", log)


def the_order_and_the_moment(attack: Attack, kept: bytes) -> None:
    """Everything here is signed by who may: what counts is when it comes."""
    run = attack.run.run_dir.name
    paused = {"run": run, "state": "paused"}
    attack.obeyed("pause", kept)
    attack.run.until(lambda status: status["paused"], "paused")
    overtaken, proceed = attack.command("pause"), None
    time.sleep(0.01)
    proceed = attack.command("proceed", expect=paused)
    attack.obeyed("proceed", proceed)
    attack.run.until(lambda status: not status["paused"], "running again")
    attack.refused("replayed", "used before", "pause", kept)
    attack.refused("in the wrong order", "a later command", "pause", overtaken)
    attack.unharmed("order")


def flood(attack: Attack) -> None:
    """Thousands of messages, oversized ones among them: few rows, and a command gets through afterwards."""
    before = len(attack.refusals())
    forged, large = attack.command("pause", key=bytes(32)), bytes(20_000)
    for n in range(4000):
        verb = ("pause", "stop", "abort", "answer", f"x{n}")[n % 5]
        attack.operator.client.publish(f"{CMD}/{verb}", large if n % 50 == 0 else forged, qos=0)
    attack.operator.send("stop", forged)

    def counted() -> int:
        bodies = [row["body"] for row in attack.run.events("remote_refused", run_only=False)]
        return sum(sum(body["counts"].values()) for body in bodies if "counts" in body)

    # All that link took from the wire: the client library throws away what comes while a thousand wait.
    eventually(lambda: counted() > 500, "the flood is counted", tell=attack.run.tell)
    rows = len(attack.refusals()) - before
    assert rows <= BURST + 10, rows
    assert (
        max(len(json.dumps(row["body"])) for row in attack.run.events("remote_refused", run_only=False))
        < 2000
    )
    attack.unharmed("flood")
    attack.results.append(("flood of 4001", f"{rows} rows, {counted()} counted"))
    attack.obeyed("pause", attack.command("pause"))
    attack.obeyed(
        "proceed", attack.command("proceed", expect={"run": attack.run.run_dir.name, "state": "paused"})
    )


def journal_tells(run: Run) -> None:
    """Who did what, and why, is in the journal; the run itself lost nothing."""
    rows = [row["body"] for row in run.events("remote_command", run_only=False)]
    verbs = [("desk", verb) for verb in ("pause", "proceed", "pause", "proceed")] + [("phone", "stop")]
    assert [(body["client"], body["verb"]) for body in rows] == verbs
    assert [body["why"] for body in rows if body["why"]] == ["to be replayed", "enough"]
    said = [(row["body"]["do"], row["body"]["by"]) for row in run.events("command")]
    assert said == [(verb, f"{client} (remote)") for client, verb in verbs]
    assert not run.events("trip")
