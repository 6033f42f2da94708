"""Signed commands from elsewhere: off unless the station enables them, and never on the embedded broker.

What arrives on ``cmd/<verb>`` is believed only when it is not retained, is signed (HMAC-SHA256 over canonical
JSON) with the key of a client that the station lists, is meant for this station and this verb, is allowed to
that client's role and by the station, has not expired, bears a nonce that was never seen, and expects what
is so: the run, its state, its step. What is accepted then goes the way of a local request, so the guard
checks it again. ``safe`` is accepted whatever the host is doing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from controller import payloads
from controller.command_keys import NAME, ROLE_VERBS, Key
from controller.command_refusals import Refusals
from controller.journal import AsyncJournal, JournalError
from controller.link_server import RemoteMessage
from controller.topics import VERBS

LONGEST_S = 300.0  # a command may not be valid for longer
SKEW_S = 30.0  # clocks may differ by this much
MAX_BYTES = 8192
LONGEST_WHY = 200
# What a command must say of the state in which it was given. Who stops need not know how far the run is.
EXPECTED: dict[str, tuple[str, ...]] = {
    "pause": ("run", "state"), "proceed": ("run", "state"), "answer": ("run", "state"),
    "stop": ("run",), "abort": ("run",), "safe": (),
}  # fmt: skip
EXPECTABLE = ("run", "state", "step")
GOES_ON = ("pause", "proceed", "answer")  # a later one of the same client makes these void
_FIELDS = {
    "id", "client", "station", "verb", "args", "expect", "why", "issued", "expires", "nonce", "sig",
}  # fmt: skip
_SIGNATURE = re.compile(r"[0-9A-Fa-f]{64}")
_LATEST_S = 1e12  # no time is; NaN is not below it

log = logging.getLogger("commands")


class Refusal(Exception):
    """A command is not carried out; says why. ``client`` and ``id`` are set once the signature was right."""

    def __init__(self, reason: str, *, client: str = "", id_: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.client = client
        self.id = id_


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was checked."""

    id: str
    client: str
    verb: str
    args: Mapping[str, Any]
    why: str = ""


def canonical(body: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed: all entries but ``sig``, keys sorted, no blanks, UTF-8."""
    rest = {key: value for key, value in body.items() if key != "sig"}
    return json.dumps(
        rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sign(
    key: bytes,
    *,
    client: str,
    station: str,
    verb: str,
    args: Mapping[str, Any] | None = None,
    expect: Mapping[str, Any] | None = None,
    why: str = "",
    ttl_s: float = 30.0,
    now: float | None = None,
) -> bytes:
    """Return a signed command, ready to be published on ``cmd/<verb>``.

    Args:
        key: the client's key, as in the station's file of keys.
        client: the name under which that file holds it.
        station: which station is meant.
        verb: what to do.
        args: with what; only ``answer`` has any.
        expect: what must be so: ``run`` and, for what does not stop, ``state``; ``step`` if it matters. They
            are published as ``state/run/id``, ``state/run/state`` and ``state/run/step``.
        why: the reason, for the journal.
        ttl_s: for how many seconds it is valid.
        now: wall seconds; default the clock.
    """
    issued = time.time() if now is None else now
    body: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "client": client,
        "station": station,
        "verb": verb,
        "args": dict(args or {}),
        "expect": dict(expect or {}),
        "why": why,
        "issued": issued,
        "expires": issued + ttl_s,
        "nonce": secrets.token_hex(16),
    }
    body["sig"] = hmac.new(key, canonical(body), hashlib.sha256).hexdigest()
    return json.dumps(body).encode()


class Gate:
    """Decides whether a remote message is a command. Knows nothing of what commands do."""

    def __init__(
        self,
        station: str,
        keys: Mapping[str, Key],
        allow: Collection[str],
        journal: AsyncJournal,
        *,
        embedded: bool,
        present: Callable[[], Awaitable[Mapping[str, Any]]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make the gate.

        Args:
            station: name of this station.
            keys: by client.
            allow: verbs of the station's ``[remote] allow``; ``safe`` is always among them.
            journal: remembers nonces over restarts.
            embedded: whether the broker is the embedded one, on which everything is refused.
            present: returns what is so now: ``run``, ``state``, ``step``.
            now: wall seconds.
        """
        self._station = station
        self._keys = dict(keys)
        self._allow = frozenset(allow) | {"safe"}
        self._journal = journal
        self._embedded = embedded
        self._present = present
        self._now = now
        self._latest: dict[str, float] = {}  # when each client issued the last one that was accepted

    async def check(self, message: RemoteMessage) -> Command:
        """Return the command in a message. Raises Refusal."""
        if self._embedded:
            raise Refusal("commands are never taken from the embedded broker")
        if message.retain:
            raise Refusal("the message is retained")
        body = self._signed(message.payload)
        command = Command(body["id"], body["client"], body["verb"], body["args"], body["why"])
        why = self._never(body)
        if not why and await self._seen(body):
            why = "the nonce was used before"
        # From here on the nonce is spent: what was refused once is never carried out later.
        why = why or self._not_now(message.verb, body) or await self._unexpected(body)
        if why:
            raise Refusal(why, client=command.client, id_=command.id)
        self._latest[command.client] = max(body["issued"], self._latest.get(command.client, 0.0))
        return command

    def _signed(self, payload: bytes) -> dict[str, Any]:
        """Return the body of a message whose shape and signature are right."""
        if len(payload) > MAX_BYTES:
            raise Refusal(f"{len(payload)} bytes are too many")
        try:
            body = json.loads(payload)
            shaped = isinstance(body, dict) and set(body) == _FIELDS and _shaped(body)
        except (ValueError, RecursionError):
            shaped = False
        if not shaped:
            raise Refusal("not a command: wrong shape")
        key = self._keys.get(body["client"])
        if key is None:
            raise Refusal("unknown client")
        try:
            due = hmac.new(key.secret, canonical(body), hashlib.sha256).hexdigest()
        except (ValueError, RecursionError):
            raise Refusal("not a command: wrong shape") from None
        if not hmac.compare_digest(due.encode(), body["sig"].encode()):
            raise Refusal("the signature is wrong")
        return dict(body)

    def _never(self, body: Mapping[str, Any]) -> str:
        """Return why a signed command could not be carried out at any time, or nothing."""
        now = self._now()
        if body["station"] != self._station:
            return f"it is meant for station {body['station']!r}"
        if body["expires"] <= now:
            return f"it expired {now - body['expires']:.0f} s ago by the station's clock"
        if body["expires"] - body["issued"] > LONGEST_S:
            return f"it would be valid for more than {LONGEST_S:.0f} s"
        return ""

    def _not_now(self, verb: str, body: Mapping[str, Any]) -> str:
        """Return what else is wrong with a signed command, or nothing."""
        client, issued = body["client"], body["issued"]
        role = self._keys[client].role
        if body["verb"] != verb:
            return "the topic names another verb"
        if verb not in self._allow or verb not in VERBS:
            return f"{verb} is not allowed here"
        if verb not in ROLE_VERBS[role]:
            return f"{verb} is not allowed to a {role}"
        if issued > self._now() + SKEW_S:
            return f"it was issued {issued - self._now():.0f} s in the future by the station's clock"
        if verb in GOES_ON and issued < self._latest.get(client, 0.0):
            return "a later command of this client came before it"
        if body["args"] and verb != "answer":
            return f"{verb} takes no arguments"
        return ""

    async def _unexpected(self, body: Mapping[str, Any]) -> str:
        """Return how the state differs from the one in which the command was given; ``safe`` fits any."""
        expect, verb = body["expect"], body["verb"]
        if verb == "safe":
            return ""
        missing = [name for name in EXPECTED[verb] if name not in expect]
        if missing:
            return f"it does not say which {' and '.join(missing)} it expects"
        present = await self._present()
        for name, value in expect.items():
            if present.get(name) != value:
                return f"it expects {name} {value!r}, which is {present.get(name)!r}"
        return ""

    async def _seen(self, body: Mapping[str, Any]) -> bool:
        """Tell whether the nonce was used; a journal that fails must not keep anyone from ``safe``."""
        try:
            return await self._journal.nonce_seen(body["nonce"], body["expires"])
        except JournalError:
            if body["verb"] == "safe":
                return False
            raise Refusal("the journal cannot be written", client=body["client"], id_=body["id"]) from None


class RemoteCommands:
    """Checks remote messages, has them carried out, journals both, and answers on ``ack/<client>``.

    Give an instance to ``LinkServer(on_command=...)``, with ``dropped`` and ``close``.
    """

    def __init__(
        self, gate: Gate, journal: AsyncJournal, execute: Callable[[Command], Awaitable[str]]
    ) -> None:
        """Make the handler.

        Args:
            gate: decides.
            journal: for the record and the answers.
            execute: carries a command out as if it came from this machine, and returns when it has taken
                effect, with a word about it; raises Refusal if it cannot be done now.
        """
        self._gate = gate
        self._journal = journal
        self._execute = execute
        self._refusals = Refusals(lambda body: self._note("remote_refused", body))

    def dropped(self, counts: Mapping[str, int]) -> None:
        """Take note of messages that link did not even hand over, by reason."""
        for reason, count in counts.items():
            self._refusals.count(reason, count)

    async def close(self) -> None:
        """Journal what was only counted so far."""
        await self._refusals.close()

    async def __call__(self, message: RemoteMessage) -> None:
        """Handle one message; never raises."""
        try:
            command = await self._gate.check(message)
        except Refusal as refusal:
            verb = message.verb[:32]
            body = {"verb": verb, "client": refusal.client, "reason": refusal.reason}
            if await self._refusals.take(body):  # what a flood brings is counted, and not answered
                log.warning("remote %r refused: %s", verb, refusal.reason)
                await self._answer(refusal.client, refusal.id, verb, "rejected", refusal.reason)
            return
        told = {
            "id": command.id, "verb": command.verb, "client": command.client, "args": dict(command.args),
            "why": command.why,
        }  # fmt: skip
        if command.verb == "safe":  # outputs first, words later
            work = asyncio.ensure_future(self._carry_out(command))
            await asyncio.sleep(0)
            await self._note("remote_command", told)
        else:
            await self._note("remote_command", told)
            work = asyncio.ensure_future(self._carry_out(command))
        await self._answer(command.client, command.id, command.verb, "accepted")
        await self._answer(command.client, command.id, command.verb, *await work)

    async def _carry_out(self, command: Command) -> tuple[str, str]:
        """Return result and reason for the answer."""
        try:
            return "done", await self._execute(command)
        except Refusal as refusal:
            return "rejected", refusal.reason
        except Exception as error:  # the sender must hear of it, and the next command must be heard
            log.exception("remote %s failed", command.verb)
            return "rejected", f"failed: {error}"

    async def _answer(self, client: str, id_: str, verb: str, result: str, reason: str = "") -> None:
        """Answer a client whose signature was right; nobody else learns anything."""
        if client:
            body = payloads.ack(id_, verb=verb, result=result, reason=reason)  # type: ignore[arg-type]
            await self._note("remote_answer", body, topic=f"ack/{client}")

    async def _note(self, kind: str, body: dict[str, Any], topic: str | None = None) -> None:
        try:
            await self._journal.record(kind, "commands", body, topic=topic)
        except JournalError as error:
            log.warning("%s", error)


def _shaped(body: Mapping[str, Any]) -> bool:
    """Tell whether the entries of a command have the right types."""
    names = ("id", "client", "station", "verb", "why", "nonce", "sig")
    texts = all(isinstance(body[name], str) for name in names)
    times = all(
        isinstance(body[name], int | float)
        and not isinstance(body[name], bool)
        and abs(body[name]) < _LATEST_S
        for name in ("issued", "expires")
    )
    named = texts and all(NAME.fullmatch(body[name]) for name in ("id", "client", "nonce"))
    named = named and bool(_SIGNATURE.fullmatch(body["sig"])) and len(body["nonce"]) >= 16
    said = named and len(body["why"]) <= LONGEST_WHY and (not body["why"] or body["why"].isprintable())
    return bool(said and times and isinstance(body["args"], dict) and _expectation(body["expect"]))


def _expectation(expect: object) -> bool:
    """Tell whether ``expect`` names things that can be compared."""
    if not isinstance(expect, dict) or not set(expect) <= set(EXPECTABLE):
        return False
    return all(value is None or type(value) in (str, int) for value in expect.values())
