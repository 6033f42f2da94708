"""The embedded broker: amqtt on this machine's loopback, as a child process that ends with its parent.

``python -m controller.broker --dir DIR`` prints one JSON line ``{"kind", "host", "port", "credentials"}`` as
soon as it accepts connections, and runs until its standard input closes, or SIGTERM. It is for watching a run
on this machine and never carries commands (README.md, section MQTT, says why).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"
ROLES = ("host", "viewer")
MAX_RSS_MB = 250.0  # a subscriber that reads nothing makes the broker grow; beyond this it starts anew
EXIT_MEMORY = 3
SHUTDOWN_S = 2.0
MAX_CONNECTIONS = 32
VIEWER_VARIABLE = "OPERANDO_VIEWER_PASSWORD"  # of the environment, in the line to watch an external broker


def load_or_make(path: Path) -> dict[str, Any]:
    """Return the credentials in ``path``, making them (random, mode 0600) if there are none.

    They outlive the process, so that a broker that had to start anew is found again by those who know it.
    """
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
        if set(known["users"]) == set(ROLES) and isinstance(known["port"], int):
            return dict(known)
    users = {role: secrets.token_hex(32) for role in ROLES}
    return {"kind": "embedded", "host": HOST, "port": 0, "protocol": "3.1.1", "users": users}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, complete before it bears its name."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def hash_passwords(users: dict[str, str]) -> str:
    """Return amqtt's password file: one ``user:argon2`` a line.

    The passwords are 256 random bits, which no dictionary holds: the cheap parameters keep the memory of
    every login at 8 MB instead of 64.
    """
    from pwdlib.hashers.argon2 import Argon2Hasher

    hasher = Argon2Hasher(time_cost=2, memory_cost=8192, parallelism=1)
    return "".join(f"{user}:{hasher.hash(password)}\n" for user, password in users.items())


async def serve(
    folder: Path, station: str, *, port: int | None = None, max_rss_mb: float = MAX_RSS_MB
) -> int:
    """Run the broker until stdin closes; return the exit code."""
    from amqtt.broker import Broker

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    credentials = folder / "broker.json"
    known = load_or_make(credentials)
    passwords = folder / "passwords"
    write_private(passwords, hash_passwords(known["users"]))

    async def start(port: int) -> Broker:
        broker = Broker(_config(port, passwords, station))
        await broker.start()
        return broker

    wanted = known["port"] if port is None else port
    try:
        broker = await start(wanted)
    except Exception:  # amqtt wraps the taken port in its own error; any port will do
        if wanted == 0:
            raise
        broker = await start(0)
    known["port"] = _port_of(broker)
    write_private(credentials, json.dumps(known))
    told = {"kind": "embedded", "host": HOST, "port": known["port"], "credentials": str(credentials)}
    print(json.dumps(told), flush=True)
    code = await _until_told(stop, max_rss_mb)
    # amqtt sometimes holds on to a cancelled task for ever; it keeps nothing that would need an orderly end.
    last_resort = threading.Timer(SHUTDOWN_S + 1.0, os._exit, (code,))
    last_resort.daemon = True
    last_resort.start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(broker.shutdown(), SHUTDOWN_S)
    return code


def _config(port: int, passwords: Path, station: str) -> dict[str, Any]:
    """Return amqtt's configuration; its plug-ins replace the default ones, which let anybody in."""
    return {
        "listeners": {
            "default": {"type": "tcp", "bind": f"{HOST}:{port}", "max_connections": MAX_CONNECTIONS}
        },
        "plugins": {
            "controller.broker_access.StationAuth": {"password_file": str(passwords), "station": station},
            "controller.broker_access.StationTopics": {"station": station},
        },
    }


def _port_of(broker: Any) -> int:
    """Return the port that the kernel chose."""
    return int(broker._servers["default"].instance.sockets[0].getsockname()[1])


async def _until_told(stop: asyncio.Event, max_rss_mb: float) -> int:
    """Wait for the end of stdin, for a signal, or for too much memory in use."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    with contextlib.suppress(ValueError, OSError):  # a stdin that cannot be watched, such as a plain file
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def parent_gone() -> None:
            while await reader.read(4096):
                pass
            stop.set()

        parent = asyncio.ensure_future(parent_gone())
        parent.add_done_callback(lambda task: task.cancelled() or task.exception())
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        if _rss_mb() > max_rss_mb:
            print(f"broker: {_rss_mb():.0f} MB in use, starting anew", file=sys.stderr, flush=True)
            return EXIT_MEMORY
    return 0


def _rss_mb() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def watch_line(broker: dict[str, Any], station: str) -> str:
    """Return the ``mosquitto_sub`` line that shows a run of ``station``: states, alarms, questions.

    Args:
        broker: what this process printed, or the contents of its credentials file, or the ``[broker]`` table
            of a station. The account that may read an external broker is not the host's, which may only
            write there: the line takes the viewer's password from the environment.
        station: name of the station.
    """
    from controller.topics import prefix

    if broker.get("kind") != "external" and "users" not in broker:
        broker = json.loads(Path(broker["credentials"]).read_text())
    topics = " ".join(
        f"-t '{prefix(station)}/{part}'" for part in ("status", "state/#", "alarm/#", "question/#")
    )
    if broker.get("kind") == "external":
        return f"mosquitto_sub {_external(broker)} -v {topics}"
    login = f"-u viewer -P {broker['users']['viewer']}"
    return f"mosquitto_sub -h {broker['host']} -p {broker['port']} {login} -v {topics}"


def _external(broker: dict[str, Any]) -> str:
    """Return the options of mosquitto_sub for the broker of a station file."""
    parts = urlsplit(broker["url"])
    secure = parts.scheme == "mqtts"
    options = [f"-h {parts.hostname} -p {parts.port or (8883 if secure else 1883)}"]
    if secure:
        tls = broker.get("tls") or {}
        options.append(f"--cafile {shlex.quote(tls['ca'])}" if tls.get("ca") else "--tls-use-os-certs")
        if tls.get("certificate"):
            options.append(f"--cert {shlex.quote(tls['certificate'])} --key {shlex.quote(tls['key'] or '')}")
    if broker.get("credentials"):
        options.append(f'-u viewer -P "${VIEWER_VARIABLE}"')
    return " ".join(options)


def main() -> int:
    """Run the broker from the command line."""
    parser = argparse.ArgumentParser(prog="controller.broker", description="The embedded MQTT broker.")
    parser.add_argument("--dir", type=Path, required=True, help="folder for its credentials")
    parser.add_argument("--station", default="+", help="the only station whose topics are carried")
    parser.add_argument("--port", type=int, default=None, help="a fixed port (default: the last one, or any)")
    parser.add_argument("--max-rss-mb", type=float, default=MAX_RSS_MB, help="memory at which it starts anew")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("transitions").setLevel(logging.ERROR)
    return asyncio.run(serve(args.dir, args.station, port=args.port, max_rss_mb=args.max_rss_mb))


if __name__ == "__main__":
    sys.exit(main())
