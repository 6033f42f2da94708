"""What a subscriber knows of a station: page, gateways and notifications look at it through this.

A value is shown as good only while it is: ``quality`` says ``stale`` for one that was not renewed in time,
that another start of the host measured, or whose host or broker is gone. What arrived is kept in bounds.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cbor2

from controller.mqtt import BrokerAddress, Message, Mqtt, Received, Session
from controller.topics import prefix

if TYPE_CHECKING:
    from controller.payloads import Scalar

SILENCE_S = 10.0  # nothing live for this long from a host that is said to be ready: it is not
CLOCK_WINDOW_S = 60.0  # the host's clock is compared with ours over this time
MOST_STATES = 5000
MOST_STREAMS = 200
MOST_DATA_BYTES = 64 << 20
MOST_SEEN = 20_000  # numbers of messages that a repeat is known by
QUALITIES = ("good", "uncertain", "bad", "stale")
EVERY_ONE = ("tele", "state/run/said", "state/scan/last")  # of other topics the newest is enough
FOLLOWED = ("status", "describe", "tele", "state/#", "doc/#", "data/#", "alarm/#", "question/#")


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of a parameter as it was last heard.

    Attributes:
        v: the value; None when there is none.
        t: wall seconds of the host at which it was obtained.
        e: its one-sigma uncertainty.
        q: its quality as the host gave it.
        unit: its unit.
        stands_s: seconds after ``t`` for which it stands without being renewed; None: until it changes.
        boot: of which start of the host.
        seq: its number in the journal.
        heard_s: monotonic seconds at which it came.
        late_s: how old it was when it came, by the clocks of both ends.
        session: of which connection to the broker.
    """

    v: Scalar
    t: float
    e: float | None
    q: str
    unit: str
    stands_s: float | None
    boot: str
    seq: int
    heard_s: float
    late_s: float
    session: int


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, as the listener gets it.

    Attributes:
        topic: below the station's prefix.
        body: the decoded object, typed arrays of a product as CBOR tags; empty for a topic that was cleared.
        payload: as it came.
        retained: whether the broker had kept it.
        hist: whether it was delivered late: nothing of the present.
    """

    topic: str
    body: Mapping[str, Any]
    payload: bytes
    retained: bool
    hist: bool


class Mirror:
    """Follows one station over one broker connection after the other. One event loop, no locks."""

    def __init__(
        self,
        load: Callable[[], BrokerAddress],
        station: str,
        listener: Callable[[Heard], None] | None = None,
        *,
        on_connection: Callable[[bool], None] | None = None,
        on_missed: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        longest_s: float = 5.0,
    ) -> None:
        """Make a mirror; ``run`` connects it.

        Args:
            load: where the broker is and how to log in, asked before each connection.
            station: its name, as in the topics.
            listener: called for every message that is no repeat, in order, after the mirror took it in.
            on_connection: told of every connection and every loss.
            on_missed: called when a message names one before it that did not come: it is lost, or late.
            monotonic: clock, for tests.
            wall: clock, for tests.
            longest_s: the longest wait between two attempts to connect.
        """
        self.station = station
        self._prefix = prefix(station) + "/"
        self._listener = listener or (lambda heard: None)
        self._on_connection = on_connection or (lambda connected: None)
        self._on_missed = on_missed or (lambda: None)
        self._newest: dict[str, int] = {}  # of each topic whose every message counts
        self._monotonic, self._wall = monotonic, wall
        self._mqtt = Mqtt(load, longest_s=longest_s, on_change=self._changed)
        self.connected = False
        self.session = 0  # connections so far
        self.status: dict[str, Any] = {}
        self.describe: dict[str, Any] = {}
        self.states: dict[tuple[str, str], Reading] = {}
        self.alarms: dict[str, dict[str, Any]] = {}
        self.questions: dict[str, dict[str, Any]] = {}
        self.data: OrderedDict[str, bytes] = OrderedDict()  # newest of each stream, CBOR
        self._data_bytes = 0
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._live_s: float | None = None  # monotonic, of the last message that was not kept or late
        self._promised: set[tuple[str, str]] = (
            set()
        )  # what is to be renewed: only then silence means something
        self._skew = _Skew()
        self.malformed = self.repeats = self.dropped = 0

    async def run(self) -> None:
        """Connect and follow, for ever; ends only by cancellation."""
        try:
            await self._mqtt.run(self._serve)
        finally:
            self.connected = False

    @property
    def last_error(self) -> str:
        """Why there is no connection; empty while there is one."""
        return "" if self.connected else self._mqtt.last_error

    def value(self, module: str, parameter: str) -> Scalar:
        """Return a value only while it may be shown as the present; None otherwise."""
        good = self.quality(module, parameter) in ("good", "uncertain")
        return self.states[module, parameter].v if good else None

    def quality(self, module: str, parameter: str) -> str:
        """Return ``good``, ``uncertain``, ``bad`` or ``stale``; ``bad`` for what was never heard."""
        reading = self.states.get((module, parameter))
        if reading is None:
            return "bad"
        return "stale" if self.why_stale(module, parameter) else reading.q

    def why_stale(self, module: str, parameter: str) -> str:
        """Return in words why a value is not of the present; empty when it is, or was never heard."""
        reading = self.states.get((module, parameter))
        if reading is None:
            return ""
        if away := self.away():
            return away
        if reading.session != self.session:
            return "not heard since the broker is back"
        if reading.boot != self.status.get("boot"):
            return "from an earlier start of the host"
        if reading.q == "stale":
            return "the host says so"
        if reading.stands_s is not None and (age_s := self.age_s(reading)) > reading.stands_s:
            return f"not renewed for {age_s:.0f} s"
        return ""

    def away(self) -> str:
        """Return in words why nothing at all is of the present; empty when the host is there and talks."""
        if not self.connected:
            return "no connection to the broker"
        state = self.status.get("state")
        if state != "ready":
            return {
                "lost": "the host is lost", "disconnected": "the host has ended", "init": "the host begins",
            }.get(str(state), "the host was not heard of")  # fmt: skip
        gone_s = self._monotonic() - (self._live_s or 0.0)
        if self._promised and gone_s > SILENCE_S:
            return f"the host has been silent for {gone_s:.0f} s"
        return ""

    def age_s(self, reading: Reading) -> float:
        """Return how old a reading is, seconds."""
        return self._monotonic() - reading.heard_s + reading.late_s

    # --- inside ----------------------------------------------------------------------------------------

    def _changed(self, connected: bool, why: str) -> None:
        if not connected and self.connected:
            self.connected = False
            self._on_connection(False)

    async def _serve(self, session: Session) -> None:
        """Follow one connection. What a topic held before is only known again when the broker repeats it."""
        self.session += 1
        self.alarms.clear()
        self.questions.clear()
        self.status = {}
        self._promised.clear()
        self._live_s = self._monotonic()
        self.connected = True
        self._on_connection(True)
        try:
            for pattern in FOLLOWED:
                await session.subscribe(self._prefix + pattern)
            async for message in session.messages():
                self.take(message)
        finally:
            self._changed(False, "")

    def take(self, message: Received | Message) -> None:
        """Take one message in. What is unknown or malformed is counted and has no effect."""
        if not message.topic.startswith(self._prefix):
            self.malformed += 1  # a broker may send what nobody asked for
            return
        topic = message.topic[len(self._prefix) :]
        try:
            self._take(topic, message)
        except (ValueError, KeyError, TypeError, RecursionError, cbor2.CBORDecodeError):
            self.malformed += 1

    def _take(self, topic: str, message: Received | Message) -> None:
        first, _, rest = topic.partition("/")
        decode = cbor2.loads if first == "data" else json.loads
        body = decode(message.payload) if message.payload else {}
        if not isinstance(body, dict):
            raise TypeError(topic)
        hist = bool(body.get("hist"))
        if not message.retain and not hist:
            self._live_s = self._monotonic()
        if first == "status":
            self.status = body
        elif first == "describe":
            self.describe = body
        elif first == "state":
            if not self._take_state(rest, body, retained=message.retain):
                return
        elif first in ("alarm", "question"):
            known = self.alarms if first == "alarm" else self.questions
            _put(known, rest, body)
        elif first not in ("data", "tele", "doc") or self._is_repeat(body):
            return
        elif first == "data":
            self._take_data(rest, message.payload)
        self._listener(Heard(topic, body, message.payload, message.retain, hist))
        if topic in EVERY_ONE:
            self._look_for_a_gap(topic, body)

    def _look_for_a_gap(self, topic: str, body: Mapping[str, Any]) -> None:
        """See whether the message before this one came; the first one of all has nothing before it."""
        seq, before, newest = int(body["seq"]), body.get("prev"), self._newest.get(topic)
        self._newest[topic] = seq if newest is None else max(seq, newest)
        if before is not None and newest is not None and before > newest:
            self._on_missed()

    def _take_state(self, name: str, body: Mapping[str, Any], *, retained: bool) -> bool:
        """Keep a state; return whether it says anything new."""
        module, _, parameter = name.partition("/")
        key = (module, parameter)
        if not body:
            self._promised.discard(key)
            return self.states.pop(key, None) is not None
        now_s, t = self._monotonic(), float(body["t"])
        boot, seq, q = str(body["boot"]), int(body["seq"]), body["q"]
        if q not in QUALITIES or not parameter:
            raise ValueError(name)
        lag_s = self._wall() - t
        if not retained and not body.get("hist"):
            self._skew.add(now_s, lag_s)
        before = self.states.get(key)
        same_boot = before is not None and before.boot == boot
        if before is not None and (
            seq < before.seq
            if same_boot
            else bool(body.get("hist")) and before.boot == self.status.get("boot")
        ):
            return False  # late: a newer one is known
        if before is None and len(self.states) >= MOST_STATES:
            self.dropped += 1
            return False
        late_s = max(0.0, lag_s - self._skew.now(now_s))
        if before is not None and same_boot and seq == before.seq:  # a repeat, of the broker or of a birth
            now_s, late_s = before.heard_s, before.late_s
        stands, e, unit = body.get("stands_s"), body.get("e"), body.get("unit")
        (self._promised.discard if stands is None else self._promised.add)(key)
        self.states[key] = Reading(
            body["v"], t, None if e is None else float(e), str(q), str(unit or ""),
            None if stands is None else float(stands), boot, seq, now_s, late_s, self.session,
        )  # fmt: skip
        repeat = same_boot and before is not None and seq == before.seq and before.session == self.session
        self.repeats += repeat
        return not repeat

    def _take_data(self, stream: str, payload: bytes) -> None:
        """Keep the newest product of each stream, within a number and a size."""
        self._data_bytes += len(payload) - len(self.data.pop(stream, b""))
        self.data[stream] = payload
        while self._data_bytes > MOST_DATA_BYTES or len(self.data) > MOST_STREAMS:
            _, old = self.data.popitem(last=False)
            self._data_bytes -= len(old)
            self.dropped += 1

    def _is_repeat(self, body: Mapping[str, Any]) -> bool:
        """Tell whether this message was taken before, and remember it."""
        key = (str(body["boot"]), int(body["seq"]))
        if key in self._seen:
            self.repeats += 1
            return True
        self._seen[key] = None
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        return False


class _Skew:
    """By how much the host's clock lags behind ours: the smallest delay of what came live.

    Over two windows in turn, so that a clock that is set does not mislead for long. 0 until something came.
    """

    def __init__(self) -> None:
        self._least: list[float] = []  # of the window before, if any, and of this one
        self._began_s = 0.0

    def add(self, now_s: float, lag_s: float) -> None:
        if not self._least:
            self._least, self._began_s = [lag_s], now_s
        elif now_s - self._began_s > CLOCK_WINDOW_S:
            self._least, self._began_s = [self._least[-1], lag_s], now_s
        else:
            self._least[-1] = min(self._least[-1], lag_s)

    def now(self, now_s: float) -> float:
        return min(self._least, default=0.0)


def _put(known: dict[str, dict[str, Any]], id_: str, body: dict[str, Any]) -> None:
    """Keep what holds under its id; an empty message clears it."""
    if body:
        known[id_] = body
    else:
        known.pop(id_, None)


async def settled(mirror: Mirror, seconds: float) -> bool:
    """Wait until the status is known; return whether it is, within some seconds."""
    end_s = asyncio.get_running_loop().time() + seconds
    while not mirror.status and asyncio.get_running_loop().time() < end_s:
        await asyncio.sleep(0.02)
    return bool(mirror.status)
