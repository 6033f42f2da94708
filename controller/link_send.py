"""From rows of the outbox to messages on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from controller import payloads
from controller.link_control import ControlSide
from controller.mqtt import Message, Session
from controller.outbox import Lanes, OutboxReader, Row
from controller.payloads import Envelope, PayloadError

BATCH = 20  # messages on their way at once: as many as the client library keeps in flight
BIG_BYTES = 64 << 10  # a message above this goes alone: brokers refuse what is too big by hanging up,
BIG_TRIES = 3  # and after so many of these it is given up
TELE_EXPIRY_S = 86400
SHORT_S, LONG_S = (
    0.07,
    0.15,
)  # a batch of history that takes longer is halved, since live messages wait for it
SMALLEST = 5  # but not below this: over a line with a long way there would be no end


class Sender:
    """Publishes what the lanes give out, and tells control what became of it."""

    def __init__(
        self,
        prefix: str,
        reader: OutboxReader,
        control: ControlSide,
        lanes: Lanes,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reader = reader
        self._prefix = prefix
        self._control = control
        self._lanes = lanes
        self._monotonic = monotonic
        self._history = BATCH  # messages of history that may go at once
        self._suspect = (0, 0)  # number of the big message sent last, and how often

    async def birth(self, session: Session) -> None:
        """Publish every retained value: the broker may have lost them, or be another one."""
        self._lanes.restart()
        page, after = self._lanes.to_be_born("", BATCH)
        while after:
            messages = []
            for value in page:
                envelope = Envelope(value.boot, value.seq, value.prev, hist=False)
                messages.append(self._message(value.topic, value.body, envelope, retain=True))
            _, failure = await session.publish_many(messages)
            if failure is not None:
                raise failure
            page, after = self._lanes.to_be_born(after, BATCH)

    async def send_next(self, session: Session) -> bool:
        """Publish the next few messages; False if there is nothing to do now. Raises MqttLost."""
        rows, history = self._lanes.next(BATCH, self._history)
        if not rows:
            return False
        messages: list[Message] = []
        positions: list[int] = []  # of the messages, among the rows
        refused: dict[int, str] = {}
        taken = suspect = 0
        for row in rows:
            try:
                message = self._compose(row, late=history or self._lanes.is_late(row))
                self._check(row, message, session)
            except (PayloadError, OSError) as error:
                refused[row.seq] = str(error)
                message = None
            if message is not None:
                if len(message.payload) > BIG_BYTES:
                    if messages:
                        break  # it goes alone, next time
                    suspect = row.seq
                messages.append(message)
                positions.append(taken)
            taken += 1
            if suspect:
                break
        if suspect:
            self._suspect = (suspect, 1 + self._tries(suspect))
        began = self._monotonic()
        sent, failure = await session.publish_many(messages)
        if history:
            self._pace(len(messages), self._monotonic() - began)
        settled = [row.seq for row in rows[: taken if failure is None else positions[sent]]]
        self._lanes.advance(settled, history=history)
        self._control.acknowledge([seq for seq in settled if seq not in refused])
        self._control.refuse([(seq, refused[seq]) for seq in settled if seq in refused])
        if failure is not None:
            raise failure
        return True

    def _pace(self, count: int, took_s: float) -> None:
        """Let the next batch of history be as long as live messages can wait for."""
        if took_s > LONG_S:
            self._history = max(SMALLEST, self._history // 2)
        elif took_s < SHORT_S and count == self._history:
            self._history = min(BATCH, 2 * self._history)

    def _check(self, row: Row, message: Message | None, session: Session) -> None:
        """Refuse what cannot be delivered, lest it keeps all others from being delivered."""
        size = len(message.payload) if message is not None else 0
        if size > session.address.max_payload:
            raise PayloadError(f"{size} bytes are more than {session.address.max_payload}")
        if self._tries(row.seq) >= BIG_TRIES:
            raise PayloadError(f"the connection ended {BIG_TRIES} times over its {size} bytes")

    def _tries(self, seq: int) -> int:
        """Return how often a big message was sent in vain."""
        return self._suspect[1] if self._suspect[0] == seq else 0

    def _compose(self, row: Row, *, late: bool) -> Message | None:
        """Return the message of a row; None if a newer one has made it pointless."""
        if row.path is not None:
            body = Path(row.path).read_bytes()
            if not body:
                raise PayloadError(f"{row.path} is empty")
        else:
            body = row.body or b""
            if not body and not row.retain:
                return None  # cleared, and set again since
        envelope = Envelope(row.boot, row.seq, row.prev, late)
        return self._message(row.topic, body, envelope, retain=row.retain, qos=row.qos)

    def _message(self, topic: str, body: bytes, envelope: Envelope, *, retain: bool, qos: int = 1) -> Message:
        return Message(
            f"{self._prefix}/{topic}",
            payloads.wrap(topic, body, envelope),
            qos,
            retain,
            payloads.content_type(topic),
            TELE_EXPIRY_S if topic == "tele" else None,
            {"boot": envelope.boot, "seq": str(envelope.seq), "hist": str(envelope.hist).lower()},
        )
