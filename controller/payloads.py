"""What is said by MQTT: builders of the payloads, and the envelope that link puts around them.

Every payload is a JSON object, but data products, which are CBOR maps. To each, link adds ``boot`` (id of the
host's start), ``seq`` (the event's number in the station journal), ``prev`` (number of the message before it
on the same topic; null for the first) and ``hist`` (true when delivered late). A receiver drops what it has
seen under the same (boot, seq), has lost something when it never saw ``prev``, and sees a restart in
``boot``. ``payload_schemas.py`` describes them all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cbor2

Scalar = float | int | str | bool | None
Struct = Mapping[str, Any] | Sequence[Any]  # of a parameter whose type is struct
Quality = Literal["good", "uncertain", "bad", "stale"]
StationState = Literal["init", "ready", "lost", "disconnected"]
ENVELOPE = ("boot", "seq", "prev", "hist")
JSON_TYPE = "application/json"
CBOR_TYPE = "application/cbor"


class PayloadError(ValueError):
    """Something that cannot be sent as the payload of its topic."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where a message stands among the others."""

    boot: str
    seq: int
    prev: int | None
    hist: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the entries as they stand in the payload."""
        return {"boot": self.boot, "seq": self.seq, "prev": self.prev, "hist": self.hist}


def state(
    value: Scalar | Struct,
    *,
    t: float | None = None,
    e: float | None = None,
    q: Quality | None = None,
    unit: str | None = None,
    stands_s: float | None = None,
) -> dict[str, Any]:
    """Return the value of a parameter.

    Args:
        value: the value; None when there is no valid one.
        t: wall seconds at which it was obtained; default now.
        e: its one-sigma uncertainty.
        q: its quality; default ``good``, or ``bad`` without a value.
        unit: its unit, as in ``describe``.
        stands_s: wall seconds after ``t`` for which it stands without being renewed; None: until it changes.
    """
    quality = q or ("bad" if value is None else "good")
    body: dict[str, Any] = {"v": value, "t": time.time() if t is None else t, "e": e, "q": quality}
    more = {"unit": unit, "stands_s": stands_s}
    return {**body, **{key: value for key, value in more.items() if value is not None}}


def tele(series: Mapping[str, Sequence[tuple[float, float | None]]]) -> dict[str, Any]:
    """Return a batch of samples: by ``module/parameter``, pairs of wall seconds and value or None."""
    return {"series": {name: [list(sample) for sample in samples] for name, samples in series.items()}}


def parameter(
    description: str,
    *,
    unit: str | None = None,
    low: float | None = None,
    high: float | None = None,
    kind: Literal["number", "integer", "string", "boolean", "struct"] = "number",
) -> dict[str, Any]:
    """Return the description of one parameter, for ``describe``."""
    return {"description": description, "unit": unit, "low": low, "high": high, "type": kind}


def describe(
    station: str,
    modules: Mapping[str, Mapping[str, Any]],
    *,
    limits: Mapping[str, Any],
    streams: Sequence[str] = (),
    speed: float = 1.0,
    t: float | None = None,
) -> dict[str, Any]:
    """Return the description of a station.

    Args:
        station: its name.
        modules: by name, ``{"driver", "roles", "description", "parameters": {name: parameter(...)}}``.
        limits: the station's hard limits, with units in the names.
        streams: names below ``data/`` that may come.
        speed: lab seconds per second; above 1 only on a virtual bench.
        t: wall seconds; default now.
    """
    return {
        "schema": "operando/describe/1",
        "station": station,
        "t": time.time() if t is None else t,
        "speed": speed,
        "modules": {name: dict(module) for name, module in modules.items()},
        "limits": dict(limits),
        "streams": list(streams),
    }


def status(
    state: StationState, *, boot: str, link: str, version: str, t: float | None = None, backlog: int = 0
) -> dict[str, Any]:
    """Return the station's status. In a last will, ``t`` is the time of the connection, not of its loss.

    Args:
        state: ``init`` until the host is there, ``ready``, ``lost`` when it went without a word,
            ``disconnected`` when it ended in order.
        boot: id of the host's start, empty before the first.
        link: id of the link process and connection, to tell an old will from a new birth.
        version: version of operando.
        t: wall seconds; default now.
        backlog: messages that wait to be delivered.
    """
    return {
        "state": state,
        "boot": boot,
        "link": link,
        "t": time.time() if t is None else t,
        "version": version,
        "backlog": backlog,
    }


def alarm(
    id_: str,
    *,
    channel: str,
    value: Scalar,
    limit: Scalar,
    unit: str,
    action: str,
    text: str,
    t: float | None = None,
    lab_s: float | None = None,
    latch: bool = True,
) -> dict[str, Any]:
    """Return a trip of the guard: which channel, its value, the limit, what was done about it."""
    return {
        "id": id_,
        "channel": channel,
        "value": value,
        "limit": limit,
        "unit": unit,
        "action": action,
        "text": text,
        "t": time.time() if t is None else t,
        "lab_s": lab_s,
        "latch": latch,
    }


def question(
    id_: str,
    *,
    text: str,
    choices: Sequence[str],
    default: str | None = None,
    expires: float | None = None,
    t: float | None = None,
) -> dict[str, Any]:
    """Return a question to a person; ``default`` is taken at ``expires`` (wall seconds), if there is one."""
    return {
        "id": id_,
        "text": text,
        "choices": list(choices),
        "default": default,
        "expires": expires,
        "t": time.time() if t is None else t,
    }


def ack(
    id_: str,
    *,
    verb: str,
    result: Literal["accepted", "rejected", "done"],
    reason: str = "",
    t: float | None = None,
) -> dict[str, Any]:
    """Return the answer to a command: accepted, then done; or rejected and why."""
    return {"id": id_, "verb": verb, "result": result, "reason": reason, "t": time.time() if t is None else t}


def wrap(topic: str, body: bytes, envelope: Envelope) -> bytes:
    """Return the payload of a message as it goes over the wire.

    Args:
        topic: relative to the station's prefix; decides the encoding.
        body: a JSON object, or for ``data/...`` a CBOR map. Empty stays empty: it clears the topic.
        envelope: what to add.

    Raises:
        PayloadError: the body is not what its topic demands.
    """
    if not body:
        return b""
    if topic.startswith("data/"):
        return _wrap_cbor(body, envelope.as_dict())
    if topic.startswith("doc/"):
        body = b'{"doc":' + body + b"}"
    if not (body.startswith(b"{") and body.endswith(b"}")):
        raise PayloadError(f"{topic}: the payload is not a JSON object")
    told = json.dumps(envelope.as_dict(), separators=(",", ":")).encode()
    return told if body == b"{}" else body[:-1] + b"," + told[1:]


def content_type(topic: str) -> str:
    """Return the media type of a topic's payloads."""
    return CBOR_TYPE if topic.startswith("data/") else JSON_TYPE


def _wrap_cbor(body: bytes, entries: Mapping[str, Any]) -> bytes:
    """Add entries to an encoded CBOR map (RFC 8949, section 3.1) without decoding what it holds."""
    added = b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in entries.items())
    start = 3 if body.startswith(b"\xd9\xd9\xf7") else 0  # the tag that says "this is CBOR"
    if len(body) <= start:
        raise PayloadError("the data product is empty")
    head = body[start]
    if head == 0xBF:  # a map of indefinite length, ended by 0xFF
        return body[: start + 1] + added + body[start + 1 :]
    width = {24: 1, 25: 2, 26: 4}.get(head & 0x1F, 0)
    if head >> 5 != 5 or (width == 0 and head & 0x1F > 23) or len(body) < start + 1 + width:
        raise PayloadError("the data product is not a CBOR map")
    at = start + 1 + width
    count = int.from_bytes(body[start + 1 : at], "big") if width else head & 0x1F
    return body[:start] + _map_head(count + len(entries)) + added + body[at:]


def _map_head(count: int) -> bytes:
    """Return the head of a CBOR map with ``count`` entries."""
    if count < 24:
        return bytes([0xA0 | count])
    for code, width in ((0xB8, 1), (0xB9, 2), (0xBA, 4)):
        if count < 1 << 8 * width:
            return bytes([code]) + count.to_bytes(width, "big")
    raise PayloadError(f"a map of {count} entries")
