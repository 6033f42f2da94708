"""Processes and a foreign client for the tests of everything that speaks MQTT."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cbor2
import paho.mqtt.client as paho

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "operando/v1/bench"


def until(condition, timeout_s=15.0, what="the condition"):
    """Poll until something is so, and return it; fail when it never is."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {timeout_s} s")


class EmbeddedBroker:
    """``python -m controller.broker`` as a child."""

    def __init__(self, folder, *arguments, station="bench"):
        self.folder = Path(folder)
        self.arguments = ["--dir", str(folder), "--station", station, *arguments]
        self.process = None
        self.told = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "controller.broker", *self.arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line, "the broker ended before it was ready"
        self.told = json.loads(line)
        return self

    @property
    def table(self):
        return self.told

    @property
    def port(self):
        return self.told["port"]

    @property
    def users(self):
        return json.loads((self.folder / "broker.json").read_text())["users"]

    def kill(self):
        self._end(signal.SIGKILL)

    def freeze(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        self._end(signal.SIGTERM)

    def _end(self, number):
        if self.process is None:
            return
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            os.kill(self.process.pid, number)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(5.0)


class LinkProcess:
    """``python -m controller.link`` as a child."""

    def __init__(self, journal, socket, broker, *arguments, station="bench", log=None):
        broker = broker if isinstance(broker, str) else json.dumps(broker)
        self.command = [
            sys.executable, "-m", "controller.link", "--journal", str(journal), "--socket", str(socket),
            "--station", station, "--broker", broker, *arguments,
        ]  # fmt: skip
        self.log = log
        self.process = None

    def start(self):
        output = self.log.open("ab") if self.log else subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=output, cwd=ROOT)
        if self.log:
            output.close()
        return self

    def send(self, number):
        os.kill(self.process.pid, number)

    def end(self, number=signal.SIGTERM, timeout_s=8.0):
        if self.process is None:
            return None
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            os.kill(self.process.pid, number)
        return self.process.wait(timeout_s)


class Foreign:
    """A client that shares no code with ours: paho, in its own thread, soon back when the line is cut."""

    def __init__(
        self, port, user, password, *, v5=False, subscribe=("#",), name="", persistent=False, will=None
    ):
        self.messages = []
        self.subscribed = threading.Event()
        self.refused = threading.Event()
        self.granted = []
        self._subscribe = subscribe
        protocol = paho.MQTTv5 if v5 else paho.MQTTv311
        more = {} if v5 else {"clean_session": not persistent}
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=name or f"foreign-{id(self):x}",
            protocol=protocol,
            **more,
        )
        self.client.username_pw_set(user, password)
        if will is not None:
            self.client.will_set(**will)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._connected
        self.client.on_subscribe = self._granted
        self.client.on_message = lambda client, data, message: self.messages.append(message)
        self._ending = False
        self._port = port
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self):
        while not self._ending:
            try:
                self.client.connect("127.0.0.1", self._port, keepalive=5)
            except OSError:
                time.sleep(0.01)
                continue
            while not self._ending and self.client.loop(0.02) == paho.MQTT_ERR_SUCCESS:
                pass
            self.subscribed.clear()

    def _connected(self, client, data, flags, reason, properties):
        if reason.is_failure:
            self.refused.set()
        elif self._subscribe:
            client.subscribe([(topic, 1) for topic in self._subscribe])
        else:
            self.subscribed.set()

    def _granted(self, client, data, mid, reasons, properties):
        self.granted = [reason.value for reason in reasons]
        self.subscribed.set()

    def publish(self, topic, payload, *, retain=False, qos=1):
        info = self.client.publish(topic, payload, qos, retain)
        until(info.is_published, 5.0, "the foreign client's publish")

    def drop(self):
        """Cut the line without a word, so that a last will is due."""
        self._ending = True
        self._thread.join(5.0)
        self.client.socket().close()

    def close(self):
        self._ending = True
        self._thread.join(5.0)
        self.client.disconnect()
        if self.client.socket() is not None:
            self.client.loop_write()

    def bodies(self, part=""):
        """Return what came on a topic and below it, decoded: (relative topic, body, message)."""
        found = []
        for message in list(self.messages):
            topic = message.topic.removeprefix(PREFIX + "/")
            if topic.startswith(part):
                found.append((topic, decode(topic, message.payload), message))
        return found


def decode(topic, payload):
    if not payload:
        return None
    return cbor2.loads(payload) if topic.startswith("data/") else json.loads(payload)


@contextmanager
def running(thing):
    """Start something and stop it whatever happens."""
    try:
        yield thing.start()
    finally:
        (thing.end if hasattr(thing, "end") else thing.stop)()
