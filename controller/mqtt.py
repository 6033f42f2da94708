"""The MQTT client: the only file that imports one.

A connection is a fresh client object with a random id: aiomqtt keeps what it failed to publish and sends it
again when the same object connects anew, and a fixed id can be taken over by another client. The outbox is
ours; a message that was not acknowledged is published again on the next connection.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

Protocol = Literal["3.1.1", "5", "auto"]
MAX_PAYLOAD = 4 << 20
_SLOWEST_BYTES_PER_S = 50_000.0  # a message gets its time-out plus its size over this


class MqttLost(Exception):
    """No connection: never made, refused, or gone. What was not acknowledged must be sent again."""


class Anew(Exception):
    """What serves a session asks for another one, at once: it needs another last will."""


class BrokerError(Exception):
    """The broker's address or credentials cannot be used as they are; says what to change."""


class TooLarge(ValueError):
    """A message above the size that brokers accept; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something to publish. ``properties`` only repeat what the payload says, and need MQTT 5."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str = ""
    expiry_s: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """Something that was delivered."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and how to log in."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    protocol: Protocol = "3.1.1"
    embedded: bool = False
    keepalive_s: int = 5
    timeout_s: float = 3.0
    max_payload: int = MAX_PAYLOAD


def load_address(broker: Mapping[str, Any], *, role: str = "host") -> BrokerAddress:
    """Return where a broker is, reading its credentials anew: an embedded broker may have a new port.

    Args:
        broker: what the embedded broker printed (``kind``, ``credentials``), or the station's ``[broker]``
            table (``kind``, ``url``, ``credentials``, ``tls``; ``protocol`` if it must not be ``auto``).
        role: whose account on the embedded broker; on any other, ``viewer`` logs in with
            ``viewer_credentials`` where the table has them.

    Raises:
        BrokerError: a file is missing or wrong, or the url is not one.
    """
    try:
        if broker.get("kind") == "embedded":
            return _embedded(broker, role)
        viewer = broker.get("viewer_credentials") if role == "viewer" else None
        return _external({**broker, "credentials": viewer} if viewer else broker)
    except (OSError, KeyError, ValueError, ssl.SSLError) as error:
        raise BrokerError(f"broker {broker.get('url') or broker.get('credentials')}: {error}") from error


def _embedded(broker: Mapping[str, Any], role: str) -> BrokerAddress:
    known = json.loads(Path(broker["credentials"]).read_text())
    return BrokerAddress(known["host"], known["port"], role, known["users"][role], embedded=True)


def _external(broker: Mapping[str, Any]) -> BrokerAddress:
    parts = urlsplit(str(broker["url"]))
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ValueError("the url must look like mqtt://host:1883 or mqtts://host:8883")
    secure = parts.scheme == "mqtts"
    username = password = None
    if broker.get("credentials"):
        username, password = _read_credentials(Path(broker["credentials"]))
    tls = None
    if secure:
        files = broker.get("tls") or {}
        tls = ssl.create_default_context(cafile=files.get("ca"))
        if files.get("certificate"):
            tls.load_cert_chain(files["certificate"], files.get("key"))
    port = parts.port or (8883 if secure else 1883)
    protocol: Protocol = broker.get("protocol", "auto")
    return BrokerAddress(parts.hostname, port, username, password, tls, protocol)


def _read_credentials(path: Path) -> tuple[str, str]:
    """Return user name and password, each on a line of its own."""
    if path.stat().st_mode & 0o007:
        raise ValueError(f"{path} can be read by everyone on this machine: chmod o-rwx {path}")
    lines = path.read_text().split("\n")
    if len(lines) < 2 or not lines[0]:
        raise ValueError(f"{path} must hold the user name on its first line and the password on its second")
    return lines[0].strip(), lines[1].rstrip("\r")


class Session:
    """One connection, for as long as it lasts."""

    def __init__(self, client: aiomqtt.Client, address: BrokerAddress, protocol: str) -> None:
        self._client = client
        self.address = address
        self.protocol = protocol

    async def publish(self, message: Message) -> None:
        """Publish one message; returns when it is acknowledged (QoS 1). Raises MqttLost, TooLarge."""
        sent, error = await self.publish_many([message])
        if error is not None:
            raise error
        assert sent == 1  # noqa: S101  # one message and no error

    async def publish_many(self, messages: Sequence[Message]) -> tuple[int, MqttLost | None]:
        """Publish messages in order, not waiting for each before the next.

        Returns:
            How many of the first ones are acknowledged without a gap, and the error that ended it, if any.

        Raises:
            TooLarge: one of them is above the limit; none was sent.
        """
        for message in messages:
            if len(message.payload) > self.address.max_payload:
                raise TooLarge(
                    f"{message.topic}: {len(message.payload)} bytes are above {self.address.max_payload}"
                )
        patience = self.address.timeout_s + sum(len(m.payload) for m in messages) / _SLOWEST_BYTES_PER_S
        results = await asyncio.gather(
            *(self._publish(m, patience) for m in messages), return_exceptions=True
        )
        for index, result in enumerate(results):
            if isinstance(result, aiomqtt.MqttError):
                return index, MqttLost(f"publishing to {self._where()} failed: {result}")
            if isinstance(result, BaseException):
                raise result
        return len(messages), None

    async def _publish(self, message: Message, patience: float) -> None:
        await self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            _properties(message) if self.protocol == "5" else None,
            timeout=patience,
        )

    async def subscribe(self, pattern: str, qos: int = 1, *, as_published: bool = False) -> None:
        """Subscribe to a filter. Raises MqttLost, also when the broker refuses it.

        Args:
            pattern: the filter.
            qos: the highest quality of service of what is delivered.
            as_published: with MQTT 5, messages that were published to be retained say so even when they
                come live; with 3.1.1 only those say so that the broker had kept.
        """
        try:
            if self.protocol == "5":
                options = SubscribeOptions(qos=qos, retainAsPublished=as_published)
                codes = await self._client.subscribe(pattern, options=options)
            else:
                codes = await self._client.subscribe(pattern, qos)
        except aiomqtt.MqttError as error:
            raise MqttLost(f"subscribing at {self._where()} failed: {error}") from error
        values = [code if isinstance(code, int) else code.value for code in codes]
        if any(value >= 0x80 for value in values):
            raise MqttLost(f"{self._where()} refused the subscription to {pattern}")

    async def messages(self) -> AsyncIterator[Received]:
        """Yield what is delivered until the connection ends, which raises MqttLost."""
        try:
            async for message in self._client.messages:
                payload = message.payload
                data = payload if isinstance(payload, bytes) else str(payload or "").encode()
                yield Received(str(message.topic), data, message.qos, message.retain)
        except aiomqtt.MqttError as error:
            raise MqttLost(f"the connection to {self._where()} is gone: {error}") from error

    def _where(self) -> str:
        return f"{self.address.host}:{self.address.port}"


@asynccontextmanager
async def connect(
    address: BrokerAddress, *, will: Message | None = None, protocol: str | None = None, queue: int = 1000
) -> AsyncIterator[Session]:
    """Connect with a client object and an id that were never used before.

    Args:
        address: which broker.
        will: what the broker says when we go without a word.
        protocol: ``3.1.1`` or ``5``; default the address's (``auto`` means ``5``).
        queue: received messages that may wait; beyond it they are lost, with a line in the log.

    Raises:
        MqttLost: refused, unreachable, or not answering within the time-out; also when leaving.
    """
    version = protocol or ("5" if address.protocol == "auto" else address.protocol)
    last_will = None
    if will is not None:
        last_will = aiomqtt.Will(will.topic, will.payload, will.qos, will.retain)
    client = aiomqtt.Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        identifier=f"operando-{secrets.token_hex(8)}",
        protocol=aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311,
        will=last_will,
        tls_context=address.tls,
        timeout=address.timeout_s,
        keepalive=address.keepalive_s,
        max_queued_incoming_messages=queue,
    )
    client.pending_calls_threshold = 1000
    where = f"{address.host}:{address.port}"
    try:
        async with client:
            yield Session(client, address, version)
    except aiomqtt.MqttError as error:
        raise MqttLost(f"{where}: {error}") from error


class Mqtt:
    """Keeps a session alive: connects, serves, waits a while and connects again."""

    def __init__(
        self,
        load: Callable[[], BrokerAddress],
        *,
        will: Callable[[], Message] | None = None,
        shortest_s: float = 0.2,
        longest_s: float = 15.0,
        on_change: Callable[[bool, str], None] | None = None,
    ) -> None:
        """Make a client.

        Args:
            load: returns the address, asked before each attempt.
            will: returns the last will, asked before each attempt.
            shortest_s: first wait after a failure; each further one is twice as long.
            longest_s: the longest wait.
            on_change: told of each connection and each loss with its reason.
        """
        self._load = load
        self._will = will
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._on_change = on_change or (lambda connected, why: None)
        self.connected = False
        self.connections = 0
        self.last_error = ""

    async def run(self, serve: Callable[[Session], Awaitable[None]]) -> None:
        """Serve one session after the other; returns when ``serve`` returns without an error.

        When ``serve`` raises Anew, the session is closed in order and the next one begins without a wait.
        """
        wait_s = self._shortest_s
        version = "5"
        while True:
            began = time.monotonic()
            reached = self.connections
            try:
                address = self._load()
                will = self._will() if self._will else None
                chosen = version if address.protocol == "auto" else address.protocol
                async with connect(address, will=will, protocol=chosen) as session:
                    self._changed(True, "")
                    await serve(session)
                    return
            except Anew:
                continue
            except (MqttLost, BrokerError) as error:
                self._changed(False, str(error))
            finally:
                self.connected = False
            if self.connections == reached:  # never got in: perhaps the broker speaks only the other version
                version = "3.1.1" if version == "5" else "5"
            elif time.monotonic() - began > 2.0:  # it worked for a while: this is a new failure
                wait_s = self._shortest_s
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311  # spreads reconnections
            wait_s = min(2 * wait_s, self._longest_s)

    def _changed(self, connected: bool, why: str) -> None:
        self.connected = connected
        self.connections += connected
        if why != self.last_error or connected:
            self._on_change(connected, why)
        self.last_error = why


def _properties(message: Message) -> Properties:
    """Return the MQTT 5 properties of a message."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.content_type:
        properties.ContentType = message.content_type
        properties.PayloadFormatIndicator = int(message.content_type.startswith("application/json"))
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    properties.UserProperty = list(message.properties.items())
    return properties
