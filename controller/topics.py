"""The MQTT topic tree ``operando/v1/<station>/...``, and who may read and write which part of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

ROOT = "operando/v1"
ROLES = ("host", "viewer", "operator")
# What the host publishes, relative to the station's prefix. Commands are never among it.
PUBLISHED = (
    "status",
    "describe",
    "tele",
    "state/#",
    "doc/#",
    "data/#",
    "alarm/#",
    "question/#",
    "ack/#",
)
COMMANDS = "cmd/#"
VERBS = ("pause", "proceed", "stop", "abort", "safe", "answer")  # of commands

_LEVEL = re.compile(r"[^/+#\x00]+")


class TopicError(ValueError):
    """A name that cannot stand in a topic."""


def level(name: str) -> str:
    """Return ``name`` if it can be one level of a topic; TopicError otherwise."""
    if not _LEVEL.fullmatch(name) or name.startswith("$"):
        raise TopicError(f"{name!r} cannot be a level of an MQTT topic")
    return name


def prefix(station: str) -> str:
    """Return the prefix of a station's topics, without a slash at its end."""
    return f"{ROOT}/{level(station)}"


def matches(topic: str, pattern: str) -> bool:
    """Tell whether a topic matches a filter with ``+`` and ``#`` (MQTT 3.1.1, section 4.7)."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    have, want = topic.split("/"), pattern.split("/")
    for index, part in enumerate(want):
        if part == "#":
            return True  # also the parent itself
        if index >= len(have) or part not in ("+", have[index]):
            return False
    return len(have) == len(want)


@dataclass(frozen=True, slots=True)
class Access:
    """What one role may do, as topic filters."""

    read: tuple[str, ...]
    write: tuple[str, ...]

    def may_read(self, topic: str) -> bool:
        """Tell whether messages on a topic may be delivered to this role."""
        return any(matches(topic, pattern) for pattern in self.read)

    def may_write(self, topic: str) -> bool:
        """Tell whether this role may publish on a topic."""
        return any(matches(topic, pattern) for pattern in self.write)


def access(station: str, *, remote: bool = False) -> dict[str, Access]:
    """Return what each role may do. Without ``remote`` nobody may write or read a command.

    Args:
        station: name of the station; ``+`` for any.
        remote: whether this broker carries commands at all.
    """
    base = f"{ROOT}/+" if station == "+" else prefix(station)
    published = tuple(f"{base}/{part}" for part in PUBLISHED)
    commands = (f"{base}/{COMMANDS}",) if remote else ()
    return {
        "host": Access(read=(f"{base}/status", *commands), write=published),
        "viewer": Access(read=published, write=()),
        "operator": Access(read=published, write=commands),
    }


def mosquitto_acl(station: str, *, remote: bool = False) -> str:
    """Return the access list of a station in the syntax of mosquitto's ``acl_file``."""
    lines = []
    for role, rights in access(station, remote=remote).items():
        lines.append(f"user {role}")
        lines += [f"topic read {pattern}" for pattern in rights.read]
        lines += [f"topic write {pattern}" for pattern in rights.write]
        lines.append("")
    return "\n".join(lines)
