"""``operando schema``: JSON Schemas of what people write and what programs read."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

EXIT_DONE, EXIT_ARGUMENTS = 0, 2

Schema = dict[str, Any]


def schema(kind: str) -> Schema:
    """Return the schema of one kind: a file, the summary of a run, or what is said by MQTT.

    Raises:
        KeyError: there is no such kind.
    """
    return _MAKERS[kind]()


def main(args: argparse.Namespace) -> int:
    """``operando schema``: print one as JSON; return the exit code."""
    if args.kind not in _MAKERS:
        print(f"there is no schema {args.kind!r}: choose from {', '.join(_MAKERS)}", file=sys.stderr)
        return EXIT_ARGUMENTS
    print(json.dumps(schema(args.kind), indent=2, ensure_ascii=False))
    return EXIT_DONE


def _station() -> Schema:
    from controller.config import json_schema  # each needs much that the others do without

    return json_schema("station")


def _experiment() -> Schema:
    from controller.config import json_schema

    return json_schema("experiment")


def _summary() -> Schema:
    from controller.summary import SCHEMA

    return SCHEMA


def _payloads() -> Schema:
    from controller.payload_schemas import payload_schemas

    return payload_schemas()


def _asyncapi() -> Schema:
    from controller.asyncapi import asyncapi

    return asyncapi()


_MAKERS: dict[str, Callable[[], Schema]] = {
    "station": _station,
    "experiment": _experiment,
    "summary": _summary,
    "payloads": _payloads,
    "asyncapi": _asyncapi,
}
KINDS = tuple(_MAKERS)
