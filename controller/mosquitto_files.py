"""Writes what mosquitto needs to serve one station: configuration, access list, passwords, certificates.

``operando init mosquitto DIR`` calls it. Everything in the folder is for its owner only.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import hashlib
import ipaddress
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from controller.broker import write_private
from controller.certificates import (
    SERVER_DAYS,
    CertificateError,
    alternative,
    make_authority,
    make_server,
    names_in,
)
from controller.command_keys import NAME, ROLE_VERBS
from controller.topics import mosquitto_acl

ITERATIONS = 101  # mosquitto's own; the passwords are 256 random bits, which no dictionary holds
_STATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")

CONFIG = """# mosquitto 2 for station {station}, written by operando init mosquitto.
user {owner}
per_listener_settings false
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl

# Retained values and the sessions of subscribers outlive the broker: the whole file is written again within a
# second of each change, so nothing large is ever retained.
persistence true
persistence_location {folder}/data/
autosave_on_changes true
autosave_interval 1

# What may wait for a subscriber who is away, and for how long. What is dropped shows in "prev".
persistent_client_expiration 14d
max_queued_messages 100000
max_queued_bytes 268435456

# Above this the broker hangs up, which the station notices; message_size_limit would drop silently.
max_packet_size 8388608

listener {port} {listen}
max_connections 100
certfile {folder}/server.crt
keyfile {folder}/server.key
tls_version tlsv1.2
"""

TABLES = """# For station.toml, in place of its [broker] and [remote].
[broker]
kind = "external"
url = "mqtts://{host}:{port}"
credentials = "{folder}/host.credentials"
viewer_credentials = "{folder}/viewer.credentials"
tls = {{ ca = "{folder}/ca.crt" }}

[remote]
enabled = {enabled}
{remote}"""


class InitError(Exception):
    """Nothing was written; says why."""


def hashed(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """Return a password as mosquitto stores it: ``$7$iterations$salt$hash``, PBKDF2-HMAC-SHA512, base64.

    Source: mosquitto 2.0, ``mosquitto_passwd(1)``; checked against that program in the tests.
    """
    salt = secrets.token_bytes(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def write_all(
    folder: Path,
    station: str,
    *,
    names: Sequence[str] = (),
    listen: str = "127.0.0.1",
    port: int = 8883,
    keys: Sequence[tuple[str, str]] = (),
    days: int = SERVER_DAYS,
) -> list[str]:
    """Write everything into a new folder; return what there is to do now, line by line.

    Args:
        folder: must not exist, or be empty.
        station: name of the station whose topics are carried.
        names: under which clients reach the broker, besides localhost.
        listen: address to listen on.
        port: and port.
        keys: (client, role) of those who may send signed commands; with none, the broker carries no commands.
        days: for how long the server's certificate is valid.

    Raises:
        InitError, CertificateError: why nothing can be written.
    """
    folder = folder.absolute()
    _check(folder, station, names, listen, keys)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    (folder / "data").mkdir(mode=0o700)
    make_authority(folder, f"operando {station}")
    make_server(folder, [*names, *(n for n in ("localhost", "127.0.0.1") if n not in names)], days=days)
    roles = ("host", "viewer", "operator") if keys else ("host", "viewer")
    passwords = {role: secrets.token_urlsafe(32) for role in roles}
    lines = "".join(f"{user}:{hashed(password)}\n" for user, password in passwords.items())
    write_private(folder / "passwords", lines)
    write_private(folder / "acl", mosquitto_acl(station, remote=bool(keys)))
    for user, password in passwords.items():
        write_private(folder / f"{user}.credentials", f"{user}\n{password}\n")
    write_private(
        folder / "mosquitto.conf",
        CONFIG.format(folder=folder, owner=getpass.getuser(), station=station, port=port, listen=listen),
    )
    _write_keys(folder, keys)
    host = names[0] if names else "localhost"
    remote = f'keys = "{folder}/command.keys"\nallow = ["stop", "abort", "safe"]\n' if keys else ""
    tables = {"folder": folder, "host": f"[{host}]" if ":" in host else host, "port": port, "remote": remote}
    write_private(folder / "station-tables.toml", TABLES.format(enabled=str(bool(keys)).lower(), **tables))
    return _to_do(folder, days, remote=bool(keys))


def renew(folder: Path, *, days: int = SERVER_DAYS) -> list[str]:
    """Make a new server certificate for the same names, signed by the same authority."""
    folder = folder.absolute()
    if not (folder / "server.crt").is_file():
        raise InitError(f"{folder} holds no server.crt to renew")
    make_server(folder, names_in(folder / "server.crt"), days=days)
    return [f"{folder}/server.crt is valid for {days} days; start mosquitto anew (a SIGHUP is not enough)"]


def _check(
    folder: Path, station: str, names: Sequence[str], listen: str, keys: Sequence[tuple[str, str]]
) -> None:
    """Refuse what cannot be written, before anything is."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InitError(f"{folder} exists already: nothing is overwritten (--renew makes a new certificate)")
    if any(character.isspace() or character in '"\\' for character in str(folder)):
        raise InitError(f"{folder}: mosquitto reads no paths with blanks or quotes")
    if not _STATION.fullmatch(station):
        raise InitError(f"{station!r} cannot be the name of a station")
    try:
        ipaddress.ip_address(listen)
    except ValueError:
        raise InitError(f"{listen!r} is no address to listen on; 0.0.0.0 is all of them") from None
    for name in names:
        alternative(name)
    for name, role in keys:
        if not NAME.fullmatch(name) or role not in ROLE_VERBS:
            raise InitError(f"{name}:{role} must look like desk:operator or phone:viewer")
    if len({name for name, _ in keys}) != len(keys):
        raise InitError("each key needs a name of its own")


def _write_keys(folder: Path, keys: Sequence[tuple[str, str]]) -> None:
    """Write the station's file of keys, and for each client its own line of it."""
    lines = {name: f"{name} {role} {secrets.token_hex(32)}\n" for name, role in keys}
    if lines:
        write_private(folder / "command.keys", "".join(lines.values()))
    for name, line in lines.items():
        write_private(folder / f"{name}.key", line)


def _to_do(folder: Path, days: int, *, remote: bool) -> list[str]:
    lines = [
        f"start the broker:   mosquitto -c {folder}/mosquitto.conf",
        f"                    (started by root, it becomes {getpass.getuser()}, who owns the folder)",
        f"tell the station:   copy {folder}/station-tables.toml into station.toml",
        "give away:          viewer.credentials and ca.crt: for who watches",
    ]
    if remote:
        lines.append(
            "                    operator.credentials, ca.crt and one NAME.key: for who sends commands"
        )
    return [
        *lines,
        f"keep elsewhere:     {folder}/ca.key",
        f"                    (init mosquitto {folder} --renew needs it, in {days} days at the latest)",
    ]


def main(args: argparse.Namespace) -> int:
    """``operando init mosquitto``."""
    try:
        if args.renew:
            lines = renew(args.dir, days=args.days)
        else:
            keys = [(name, role) for name, _, role in (text.partition(":") for text in args.key)]
            lines = write_all(
                args.dir, args.station_name, names=args.name, listen=args.listen, port=args.port, keys=keys,
                days=args.days,
            )  # fmt: skip
    except (InitError, CertificateError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0
