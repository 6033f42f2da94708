"""Finds mosquitto and runs it for a test: own port, own configuration, own accounts, loopback only."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from pathlib import Path

from controller.mosquitto_files import write_all
from controller.topics import mosquitto_acl

APT_LINE = "sudo apt-get install mosquitto mosquitto-clients"
USERS = {"host": "host-password", "viewer": "viewer-password", "operator": "operator-password"}
KEYS = [("desk", "operator"), ("phone", "viewer")]  # of the broker as operando init writes it


def find(name="mosquitto"):
    """Return the path of a mosquitto program; without it the test fails with the line to install it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise AssertionError(f"{name} is not installed; this test needs it: {APT_LINE}")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """One broker process; ``kill`` and ``start`` as often as a test likes."""

    address = "127.0.0.1"

    def __init__(self, folder, *, station="bench", remote=False, limit=8 << 20):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process = None
        passwords = self.folder / "passwords"
        passwords.write_text("")
        passwords.chmod(0o600)
        for user, password in USERS.items():
            subprocess.run(
                [find("mosquitto_passwd"), "-b", passwords, user, password], check=True, capture_output=True
            )
        (self.folder / "acl").write_text(mosquitto_acl(station, remote=remote))
        (self.folder / "acl").chmod(0o600)
        self.config = self.folder / "mosquitto.conf"
        self.config.write_text(
            f"""per_listener_settings false
user {getpass.getuser()}
allow_anonymous false
password_file {passwords}
acl_file {self.folder / "acl"}
persistence true
persistence_location {self.folder}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 100000
max_packet_size {limit}
listener {self.port} 127.0.0.1
"""
        )

    @property
    def table(self):
        """Return the station's ``[broker]`` table for this broker."""
        credentials = self.folder / "credentials"
        credentials.write_text(f"host\n{USERS['host']}\n")
        credentials.chmod(0o600)
        return {"kind": "external", "url": f"mqtt://127.0.0.1:{self.port}", "credentials": str(credentials)}

    def start(self):
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([find(), "-c", self.config], stdout=log, stderr=log)
        log.close()
        return self._listening()

    def _listening(self):
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            try:
                socket.create_connection((self.address, self.port), 0.2).close()
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.01)
            else:
                return self
        self.stop()
        raise AssertionError("mosquitto does not listen")

    def kill(self):
        self._end(signal.SIGKILL)

    def freeze(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        if self.process is not None:
            self._end(signal.SIGTERM)

    def _end(self, number):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            os.kill(self.process.pid, number)
        self.process.wait(5.0)


class Written(Mosquitto):
    """mosquitto with the files as they were written."""

    def __init__(self, folder, address="127.0.0.1", **more):
        self.folder, self.process, self.port = folder, None, free_port()
        self.address = address
        self.to_do = write_all(folder, "bench", port=self.port, listen=address, keys=KEYS, **more)
        self.config = folder / "mosquitto.conf"

    def start(self):
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([find(), "-c", self.config], stdout=log, stderr=log)
        log.close()
        return self._listening()

    @property
    def table(self):
        """Return the ``[broker]`` table that was written for the station."""
        return tomllib.loads((self.folder / "station-tables.toml").read_text())["broker"]

    def password(self, user):
        return (self.folder / f"{user}.credentials").read_text().split("\n")[1]
