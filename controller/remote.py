"""``operando remote``: sends one signed command by way of the station's broker, and tells what became of it.

For another machine than the station's: it needs an account of the broker that may write commands, and a key
that the station knows. What the command expects is what the station last published.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from controller.command_keys import KeyFileError, load_keys
from controller.commands import EXPECTED, sign
from controller.mqtt import BrokerError, Message, MqttLost, Received, Session, connect, load_address
from controller.topics import prefix

EXIT_FILES, EXIT_INSTRUMENT = 2, 3
LEARN_S = 5.0  # for what the station has published
ANSWER_S = 20.0
VALID_S = 30.0


class Unanswered(Exception):
    """The station did not say what was needed; says what."""


def main(args: argparse.Namespace) -> int:
    """Send one command; 0 when it was done, 3 when it was refused or nobody answered."""
    table: dict[str, Any] = {"kind": "external", "url": args.url, "credentials": str(args.credentials)}
    if args.ca is not None:
        table["tls"] = {"ca": str(args.ca)}
    try:
        client, key = _one_key(args.key)
        said = _answer_words(args.verb, args.words)
        result, reason = asyncio.run(_send(table, args.station_name, client, key, args.verb, args.why, said))
    except (KeyFileError, BrokerError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_FILES
    except (MqttLost, Unanswered) as error:
        print(f"{args.verb}: {error}", file=sys.stderr)
        return EXIT_INSTRUMENT
    print(f"{args.verb}: {result}{f' ({reason})' if reason else ''}")
    return 0 if result == "done" else EXIT_INSTRUMENT


def _answer_words(verb: str, words: list[str]) -> dict[str, str]:
    """Return the arguments of a command; only ``answer`` has any. Raises ValueError."""
    if verb != "answer":
        if words:
            raise ValueError(f"{verb} takes no further words: {' '.join(words)}")
        return {}
    if not words:
        raise ValueError("answer needs an answer, such as: answer q1 continue")
    return {"id": words[0] if len(words) > 1 else "", "choice": " ".join(words[1:] or words)}


def _one_key(path: Path) -> tuple[str, bytes]:
    keys = load_keys(path)
    if len(keys) != 1:
        raise KeyFileError(f"{path} must hold one key: whose command is it to be?")
    ((client, key),) = keys.items()
    return client, key.secret


async def _send(
    table: dict[str, Any], station: str, client: str, key: bytes, verb: str, why: str, said: dict[str, str]
) -> tuple[str, str]:
    """Return the station's last word on the command, and its reason."""
    base = prefix(station)
    async with connect(load_address(table), protocol="3.1.1") as session:
        messages = session.messages()
        await session.subscribe(f"{base}/ack/{client}")
        expect = await _learn(session, messages, base, verb)
        payload = sign(
            key, client=client, station=station, verb=verb, args=said, expect=expect, why=why, ttl_s=VALID_S
        )
        await session.publish(Message(f"{base}/cmd/{verb}", payload))
        return await _answer(messages, json.loads(payload)["id"])


async def _learn(session: Session, messages: AsyncIterator[Received], base: str, verb: str) -> dict[str, Any]:
    """Return what the station says of itself, as far as the verb needs it. Raises Unanswered."""
    topics = {f"{base}/state/run/{'id' if name == 'run' else name}": name for name in EXPECTED[verb]}
    expect: dict[str, Any] = {}
    for topic in topics:
        await session.subscribe(topic)
    try:
        async with asyncio.timeout(LEARN_S):
            while len(expect) < len(topics):
                message = await anext(messages)
                if message.topic in topics and message.payload:
                    body = json.loads(message.payload)
                    if body["q"] == "good":
                        expect[topics[message.topic]] = body["v"]
    except (TimeoutError, ValueError, KeyError, TypeError):
        missing = ", ".join(topic for topic, name in topics.items() if name not in expect)
        raise Unanswered(f"no run is known to go on: nothing good on {missing}") from None
    return expect


async def _answer(messages: AsyncIterator[Received], id_: str) -> tuple[str, str]:
    """Return how the command ended. Raises Unanswered."""
    accepted, deadline = False, time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                body = json.loads((await anext(messages)).payload)
            if body["id"] != id_:
                continue
            if body["result"] != "accepted":
                return str(body["result"]), str(body["reason"])
            accepted = True
        except TimeoutError:
            break
        except (ValueError, KeyError, TypeError):
            continue
    what = "accepted, but nobody says that it was done" if accepted else "no answer"
    raise Unanswered(f"{what} within {ANSWER_S:g} s")
