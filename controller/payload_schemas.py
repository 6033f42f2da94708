"""JSON Schemas of every MQTT payload, as ``operando schema payloads`` prints them.

Data products are CBOR; their schema describes the decoded map, in which a typed array (RFC 8746) may be any
value. event-model documents keep event-model's own schemas, below ``doc``.
"""

from __future__ import annotations

import json
from typing import Any

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_HEX32 = "^[0-9a-f]{32}$"

_NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
_TIME: Schema = {"type": "number", "description": "wall time, seconds since 1970-01-01 UTC"}
_ENVELOPE: dict[str, Schema] = {
    "boot": {"type": "string", "pattern": _HEX32, "description": "id of the host's start"},
    "seq": {"type": "integer", "minimum": 1, "description": "number of the event in the station journal"},
    "prev": {
        "type": ["integer", "null"],
        "minimum": 1,
        "description": "seq of the message before it on this topic; null for the first",
    },
    "hist": {"type": "boolean", "description": "delivered late: not the present"},
}


def payload_schemas() -> dict[str, Schema]:
    """Return the schema of each message by name: the first level of its topic, or ``doc_start`` and so on."""
    schemas = {
        "status": _object(
            "The station's status; retained, and its last will",
            {
                "state": {"enum": ["init", "ready", "lost", "disconnected"]},
                "boot": {"type": "string", "description": "id of the host's start; empty before the first"},
                "link": {
                    "type": "string",
                    "pattern": "^[0-9a-f]{16}$",
                    "description": "id of the connection",
                },
                "t": {**_TIME, "description": _TIME["description"] + "; in a will, of the connection"},
                "version": {"type": "string"},
                "backlog": {"type": "integer", "minimum": 0, "description": "messages that wait"},
            },
        ),
        "describe": _enveloped("What the station consists of; retained", _describe(), optional=("speed",)),
        "state": _enveloped(
            "The value of a parameter; retained",
            {
                "v": {
                    "type": ["number", "string", "boolean", "object", "array", "null"],
                    "description": "null: no valid value; object or array where describe says struct",
                },
                "t": _TIME,
                "e": {**_NUMBER_OR_NULL, "description": "uncertainty, one sigma"},
                "q": {"enum": ["good", "uncertain", "bad", "stale"]},
                "unit": {"type": "string"},
                "stands_s": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "description": "seconds after t for which it stands without being renewed; "
                    "absent: until it changes",
                },
            },
            optional=("unit", "stands_s"),
        ),
        "tele": _enveloped("A batch of samples", {"series": _series()}),
        "data": _enveloped(
            "A map, profile or spectrum (CBOR); never retained",
            {
                "schema": {"type": "string"},
                "run": {"type": "string"},
                "unit": {"type": "string"},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            },
            optional=("unit", "shape"),
            closed=False,
        ),
        "alarm": _enveloped("A trip of the guard; retained until it is cleared", _alarm()),
        "question": _enveloped("A question to a person; retained until it is answered", *_question()),
        "ack": _enveloped("What became of a command", _ack()),
        "cmd": command_schema(),
    }
    for name in ("start", "descriptor", "event", "stop"):
        schemas[f"doc_{name}"] = _document(name)
    for name, schema in schemas.items():
        schema["$schema"], schema["$id"] = DIALECT, f"operando:mqtt/{name}/1"
    return schemas


def message_name(topic: str) -> str:
    """Return the name of the message on a topic that is relative to the station's prefix."""
    first, _, rest = topic.partition("/")
    return f"doc_{rest}" if first == "doc" else first


def command_schema() -> Schema:
    """Return the schema of a signed command."""
    return _object(
        "A signed command; never retained",
        {
            "id": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]{1,64}$",
                "description": "repeated in the answer",
            },
            "client": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]{1,64}$",
                "description": "whose key signs",
            },
            "station": {"type": "string"},
            "verb": {"type": "string", "description": "the same as in the topic"},
            "args": {"type": "object", "description": "empty but for answer"},
            "expect": _object(
                "What must be so; run but for safe, and state but for safe, stop and abort",
                {
                    "run": {"type": "string", "description": "state/run/id"},
                    "state": {"type": "string", "description": "state/run/state"},
                    "step": {"type": ["integer", "null"], "description": "state/run/step"},
                },
                ("run", "state", "step"),
            ),
            "why": {"type": "string", "maxLength": 200, "description": "the reason, for the journal"},
            "issued": _TIME,
            "expires": _TIME,
            "nonce": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]{16,64}$",
                "description": "never used before",
            },
            "sig": {
                "type": "string",
                "pattern": "^[0-9a-f]{64}$",
                "description": "HMAC-SHA256 over the canonical JSON of all other entries: keys sorted, "
                "no blanks, UTF-8",
            },
        },
    )


def _describe() -> dict[str, Schema]:
    parameter = _object(
        "One parameter",
        {
            "description": {"type": "string"},
            "unit": {"type": ["string", "null"]},
            "low": _NUMBER_OR_NULL,
            "high": _NUMBER_OR_NULL,
            "type": {"enum": ["number", "integer", "string", "boolean", "struct"]},
        },
    )
    module: Schema = {
        "type": "object",
        "properties": {
            "driver": {"type": "string"},
            "description": {"type": "string"},
            "roles": {"type": "array", "items": {"type": "string"}},
            "parameters": {"type": "object", "additionalProperties": parameter},
        },
        "required": ["parameters"],
    }
    return {
        "schema": {"const": "operando/describe/1"},
        "station": {"type": "string"},
        "t": _TIME,
        "speed": {"type": "number", "minimum": 1, "description": "lab seconds per second"},
        "modules": {"type": "object", "additionalProperties": module},
        "limits": {"type": "object"},
        "streams": {"type": "array", "items": {"type": "string"}},
    }


def _series() -> Schema:
    sample = {
        "type": "array",
        "prefixItems": [_TIME, {**_NUMBER_OR_NULL, "description": "null: invalid"}],
        "minItems": 2,
        "maxItems": 2,
    }
    return {
        "type": "object",
        "propertyNames": {"pattern": "^[^/]+/[^/]+$"},
        "additionalProperties": {"type": "array", "items": sample},
        "description": "by module/parameter, pairs of time and value",
    }


def _alarm() -> dict[str, Schema]:
    scalar: Schema = {"type": ["number", "string", "boolean", "null"]}
    return {
        "id": {"type": "string"},
        "channel": {"type": "string"},
        "value": scalar,
        "limit": scalar,
        "unit": {"type": "string"},
        "action": {"type": "string"},
        "text": {"type": "string"},
        "t": _TIME,
        "lab_s": _NUMBER_OR_NULL,
        "latch": {"type": "boolean"},
    }


def _question() -> tuple[dict[str, Schema], tuple[str, ...]]:
    properties: dict[str, Schema] = {
        "id": {"type": "string"},
        "text": {"type": "string"},
        "answer": {"type": "string", "description": "the command that answers it"},
        "choices": {"type": "array", "items": {"type": "string"}},
        "default": {"type": ["string", "null"]},
        "expires": _NUMBER_OR_NULL,
        "t": _TIME,
    }
    return properties, tuple(name for name in properties if name != "text")


def _ack() -> dict[str, Schema]:
    return {
        "id": {"type": "string"},
        "verb": {"type": "string"},
        "result": {"enum": ["accepted", "rejected", "done"]},
        "reason": {"type": "string"},
        "t": _TIME,
    }


def _document(name: str) -> Schema:
    """Return the schema of an event-model document in its envelope."""
    from event_model import DocumentNames, schemas  # pulls in numpy: only for those who ask for schemas

    inner = json.loads(json.dumps(schemas[DocumentNames[name]]))
    inner["$id"] = f"operando:event-model/{name}"  # so that its own references stay its own
    return _enveloped(f"event-model document: {name}", {"doc": inner})


def _enveloped(
    title: str, properties: dict[str, Schema], optional: tuple[str, ...] = (), *, closed: bool = True
) -> Schema:
    """Return the schema of a payload in its envelope."""
    return _object(title, {**properties, **_ENVELOPE}, optional, closed=closed)


def _object(
    title: str, properties: dict[str, Schema], optional: tuple[str, ...] = (), *, closed: bool = True
) -> Schema:
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": not closed,
    }
