"""The AsyncAPI 3.0 description of what a station says by MQTT, as ``operando schema asyncapi`` prints it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from controller.payload_schemas import payload_schemas
from controller.payloads import CBOR_TYPE, JSON_TYPE
from controller.topics import ROOT

# channel name: (topic below the station, messages, retained, what it is)
_CHANNELS: dict[str, tuple[str, tuple[str, ...], bool, str]] = {
    "status": ("status", ("status",), True, "Birth, end and last will of the station."),
    "describe": ("describe", ("describe",), True, "Modules, parameters, units and limits."),
    "state": ("state/{module}/{parameter}", ("state",), True, "The latest value of a parameter."),
    "tele": ("tele", ("tele",), False, "Samples in batches."),
    "doc": (
        "doc/{document}",
        ("doc_start", "doc_descriptor", "doc_event", "doc_stop"),
        False,
        "The record of a run as event-model documents.",
    ),
    "data": ("data/{stream}", ("data",), False, "Maps, profiles and spectra."),
    "alarm": ("alarm/{alarm}", ("alarm",), True, "Trips; cleared by an empty retained message."),
    "question": ("question/{question}", ("question",), True, "Questions to a person; cleared when answered."),
    "ack": ("ack/{client}", ("ack",), False, "Answers to commands."),
    "cmd": ("cmd/{verb}", ("cmd",), False, "Signed commands; only where the station enables them."),
}
_PARAMETERS = {
    "station": "name of the station",
    "module": "instrument or part of the host",
    "parameter": "what is measured or set",
    "document": "start, descriptor, event or stop",
    "stream": "map/<element>, profile/<element>, spectrum/<detector>, soc; may hold slashes",
    "alarm": "id of the trip",
    "question": "id of the question",
    "client": "who sent the command",
    "verb": "what to do",
}
_DIALECT = "application/schema+json;version=draft-2020-12"


def asyncapi() -> dict[str, Any]:
    """Return the description as plain data, ready for JSON."""
    schemas = payload_schemas()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:operando:mqtt:1",
        "info": {
            "title": "operando",
            "version": _version(),
            "description": "What a station says by MQTT, 3.1.1 or 5. Everything that matters stands in the "
            "payload; MQTT 5 properties only repeat it. A payload that is delivered late has hist = true; a "
            "receiver drops what it knows under the same boot and seq.",
            "license": {"name": "BSD-3-Clause"},
        },
        "servers": {
            "station": {
                "host": "127.0.0.1:{port}",
                "protocol": "mqtt",
                "variables": {"port": {"description": "of the embedded broker, or the station's own broker"}},
                "security": [{"$ref": "#/components/securitySchemes/account"}],
                "bindings": {"mqtt": _will()},
            }
        },
        "defaultContentType": JSON_TYPE,
        "channels": {name: _channel(name) for name in _CHANNELS},
        "operations": {name: _operation(name) for name in _CHANNELS},
        "components": {
            "messages": {name: _message(name, schema) for name, schema in schemas.items()},
            "securitySchemes": {"account": {"type": "userPassword"}},
        },
    }


def _channel(name: str) -> dict[str, Any]:
    topic, messages, _, description = _CHANNELS[name]
    address = f"{ROOT}/{{station}}/{topic}"
    parameters = {
        part: {"description": text} for part, text in _PARAMETERS.items() if f"{{{part}}}" in address
    }
    return {
        "address": address,
        "description": description,
        "parameters": parameters,
        "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in messages},
    }


def _operation(name: str) -> dict[str, Any]:
    """Return what the station does on a channel: it receives commands and sends everything else."""
    _, messages, retained, description = _CHANNELS[name]
    operation: dict[str, Any] = {
        "action": "receive" if name == "cmd" else "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": description,
        "messages": [{"$ref": f"#/channels/{name}/messages/{one}"} for one in messages],
        "bindings": {"mqtt": {"qos": 1, "retain": retained, "bindingVersion": "0.2.0"}},
    }
    if name == "cmd":
        operation["reply"] = {"channel": {"$ref": "#/channels/ack"}}
    return operation


def _message(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "title": schema["title"],
        "contentType": CBOR_TYPE if name == "data" else JSON_TYPE,
        "payload": {"schemaFormat": _DIALECT, "schema": schema},
    }


def _will() -> dict[str, Any]:
    return {
        "clientId": "operando-<random>",
        "cleanSession": True,
        "lastWill": {
            "topic": f"{ROOT}/<station>/status",
            "qos": 1,
            "message": '{"state":"lost", ...}',
            "retain": True,
        },
        "keepAlive": 5,
        "bindingVersion": "0.2.0",
    }


def _version() -> str:
    try:
        return version("operando")
    except PackageNotFoundError:
        return "0"
