"""From the mirror to what is shown: states with the server's verdict, history, passes, events, products."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from importlib.metadata import version as package_version
from typing import Any

import cbor2

from controller.mirror import Heard, Mirror
from controller.payloads import ENVELOPE
from controller.web import frames
from controller.web.history import History

VERSION = package_version("operando")
NEWEST = 500  # passes, and events
KEPT_BYTES = 48 << 20  # of products of earlier passes
HIST_S = 3.0  # after the last late message it is over


class View:
    """What every viewer is told; bounded. Changes are collected until the hub takes them."""

    def __init__(self, mirror: Mirror, wall: Callable[[], float] = time.time) -> None:
        self._mirror = mirror
        self._wall = wall
        self._monotonic = time.monotonic
        self.run = ""
        self.states: dict[str, dict[str, Any]] = {}
        self.history = History()
        self.passes: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()
        self.events: deque[dict[str, Any]] = deque(maxlen=NEWEST)
        self._event_numbers: set[int] = set()
        self.products: OrderedDict[str, bytes] = OrderedDict()  # newest frame of each stream
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._product_order: dict[str, tuple[int, int, bool]] = {}
        self._heard_s: float | None = None
        self._late_s = -math.inf
        self._host: dict[str, Any] = {}
        self._since = wall()
        self.changed: dict[str, Any] = {}  # kind -> what is new since it was last taken
        self.broken_products = 0
        self.ended: dict[str, Any] | None = None  # how the run that is shown has ended, where that is known

    # --- what comes in ---------------------------------------------------------------------------------

    def take(self, heard: Heard) -> None:
        """Take one message of the mirror."""
        first, _, rest = heard.topic.partition("/")
        if not heard.retained and not heard.hist:
            self._heard_s = self._monotonic()
        if heard.hist:
            self._late_s = self._monotonic()
        if first == "state":
            self._take_state(rest, heard)
        elif first == "tele":
            self._take_tele(heard)
        elif first == "data":
            self.take_product(rest, heard.body)
        elif first in ("alarm", "question"):
            self.changed[f"{first}s"] = True
        elif first == "describe":
            self.changed["describe"] = True

    def _take_state(self, name: str, heard: Heard) -> None:
        value, t = heard.body.get("v"), heard.body.get("t")
        if name == "run/id" and isinstance(value, str) and not heard.hist:
            self.begin(value)
        elif name == "scan/last" and isinstance(value, dict):
            self.add_pass(value)
        elif name == "run/said" and isinstance(value, dict):
            self.add_event({"seq": heard.body.get("seq"), "t": t, **value})
        elif name in ("soc/beam", "soc/charge", "soc/z") and isinstance(t, int | float):
            e = heard.body.get("e")
            number = float(value) if isinstance(value, int | float) else None
            self.add_sample(name, float(t), number, e, str(heard.body.get("unit") or ""), live=not heard.hist)

    def _take_tele(self, heard: Heard) -> None:
        series = heard.body.get("series")
        for name, samples in (series if isinstance(series, dict) else {}).items():
            for t, value in samples:
                self.add_sample(name, t, value, None, self.unit(name), live=not heard.hist)

    def begin(self, run: str) -> None:
        """A run is shown; another one than before begins with nothing."""
        if run == self.run:
            return
        if self.run:
            self.history.clear()
            self.passes.clear()
            self.events.clear()
            self._event_numbers.clear()
            self.products.clear()
            self._kept.clear()
            self._product_order.clear()
            self._kept_bytes = 0
            self.ended = None
            self.changed = {"snapshot": True}
        self.run = run

    def add_sample(
        self, name: str, t: float, value: float | None, e: float | None, unit: str, *, live: bool
    ) -> None:
        """Add one sample to the history; a live one is told to the viewers."""
        if self.history.add(name, t, value, e, unit) and live:
            self.changed.setdefault("tele", {}).setdefault(name, []).append(
                [t, value] if e is None else [t, value, e]
            )

    def add_pass(self, told: Mapping[str, Any], *, live: bool = True) -> None:
        """A pass has ended."""
        key = (int(told.get("scan", 0)), int(told.get("n", 0)))
        entry = {**self.passes.get(key, {}), **told}
        if entry == self.passes.get(key):
            return
        self.passes[key] = entry
        while len(self.passes) > NEWEST:
            self.passes.popitem(last=False)
        if live:
            self.changed.setdefault("passes", []).append(entry)

    def add_event(self, event: dict[str, Any], *, live: bool = True) -> None:
        """Something happened; what is known by its number is not told again."""
        number = event.get("seq")
        if not isinstance(number, int) or number in self._event_numbers:
            return
        if self.events and number < int(self.events[0]["seq"]) and len(self.events) == NEWEST:
            return
        ordered = not self.events or number > int(self.events[-1]["seq"])
        self.events.append(event)
        if not ordered:
            kept = sorted(self.events, key=lambda one: int(one["seq"]))
            self.events.clear()
            self.events.extend(kept)
        self._event_numbers = {int(one["seq"]) for one in self.events}
        if live:
            self.changed.setdefault("events", []).append(event)

    def take_product(self, stream: str, body: Mapping[str, Any], *, live: bool = True) -> None:
        """Make the frame of a product, the newest of its stream unless it is a late one."""
        if self.run and body.get("run") not in (None, self.run):
            return
        try:
            made = frames.product(stream, {"t": self._wall(), **body})
        except (frames.FrameError, ValueError, TypeError):
            self.broken_products += 1
            return
        passes = [int(n) for n in body.get("passes") or [0]]
        scan, last, partial = int(body.get("scan") or 0), max(passes), bool(body.get("partial"))
        order = (scan, last, not partial)
        # Of a background there are no lines to see: a spectrum that has some stays.
        pale = body.get("purpose") == "background" and stream.startswith("spectrum/")
        if pale:
            order = (-1, last, not partial)  # whatever shows lines is newer
        if order >= self._product_order.get(stream, (-2, -1, False)):
            self._product_order[stream] = order
            self.products[stream] = made
            if live:
                self.changed.setdefault("products", {})[stream] = made
        if not partial:
            self._keep((stream, scan, last), made)

    def _keep(self, key: tuple[str, int, int], made: bytes) -> None:
        self._kept_bytes += len(made) - len(self._kept.pop(key, b""))
        self._kept[key] = made
        while self._kept_bytes > KEPT_BYTES:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= len(old)

    def product(self, stream: str, scan: int | None = None, last: int | None = None) -> bytes | None:
        """Return a product: the newest, or that of a finished pass while it is kept."""
        if scan is None or last is None:
            return self.products.get(stream)
        return self._kept.get((stream, scan, last))

    def kept(self) -> dict[str, list[list[int]]]:
        """Return which products of finished passes can be asked for: stream -> [scan, last pass]."""
        found: dict[str, list[list[int]]] = {}
        for stream, scan, last in self._kept:
            found.setdefault(stream, []).append([scan, last])
        return found

    # --- what is shown ---------------------------------------------------------------------------------

    def unit(self, name: str) -> str:
        """Return the unit of ``module/parameter`` as the station describes it."""
        module, _, parameter = name.partition("/")
        try:
            return str(self._mirror.describe["modules"][module]["parameters"][parameter]["unit"] or "")
        except (KeyError, TypeError):
            return ""

    def look(self) -> None:
        """Find what has changed by itself: quality, host. Called a few times a second."""
        now: dict[str, dict[str, Any]] = {}
        changed: dict[str, Any] = {}
        for (module, parameter), reading in self._mirror.states.items():
            name = f"{module}/{parameter}"
            if name == "run/said":
                continue
            why = self._mirror.why_stale(module, parameter)
            q = "stale" if why else reading.q
            before = self.states.get(name)
            if before is not None and before["_id"] == (reading.boot, reading.seq, q):
                now[name] = before
                continue
            entry = {
                "v": frames.plain(reading.v), "t": reading.t, "e": reading.e, "q": q, "unit": reading.unit,
                "why": why, "_id": (reading.boot, reading.seq, q),
            }  # fmt: skip
            now[name] = changed[name] = entry
        changed |= {name: None for name in self.states if name not in now}
        self.states = now
        if changed:
            self.changed.setdefault("states", {}).update(changed)
        host = self.host()
        if {**host, "since": 0, "backlog": 0} != {**self._host, "since": 0, "backlog": 0}:
            if host["away"].partition(" for ")[0] != self._host.get("away", "").partition(" for ")[0]:
                self._since = self._wall()
            self._host = self.host()
            self.changed["host"] = True

    def host(self) -> dict[str, Any]:
        """Return how broker and host are."""
        status, away = self._mirror.status, self.away()
        return {
            "broker": self._mirror.connected, "error": self._mirror.last_error,
            "state": str(status.get("state", "")), "away": away, "since": self._since,
            "version": str(status.get("version", "")), "backlog": status.get("backlog", 0),
            "boot": str(status.get("boot", "")), "hist": self._monotonic() - self._late_s < HIST_S,
            "ended": self.ended if away else None,
        }  # fmt: skip

    def away(self) -> str:
        """Return in words why nothing is of the present; empty when it is."""
        away = self._mirror.away()
        silent = away.startswith("the host has been silent")
        return "the host has been silent for too long" if silent else away

    def age_s(self) -> float | None:
        """Return how long ago the host was last heard, seconds; None before the first time."""
        return None if self._heard_s is None else self._monotonic() - self._heard_s

    def alarms(self) -> list[dict[str, Any]]:
        """Return the alarms that hold, oldest first."""
        return [without_envelope(one) for one in sorted(self._mirror.alarms.values(), key=_time)]

    def questions(self) -> list[dict[str, Any]]:
        """Return the questions that wait for an answer."""
        return [without_envelope(one) for one in sorted(self._mirror.questions.values(), key=_time)]

    def snapshot(self) -> dict[str, Any]:
        """Return everything but history and products."""
        return {
            "k": "snapshot", "protocol": 1, "version": VERSION,
            "station": self._mirror.describe.get("station") or self._mirror.station,
            "t": self._wall(), "run": self.run, "host": self.host(),
            "describe": without_envelope(self._mirror.describe),
            "states": shown(self.states), "alarms": self.alarms(), "questions": self.questions(),
            "passes": list(self.passes.values()), "events": list(self.events),
            "series": [name for name, _ in self.history], "streams": list(self.products),
            "kept": self.kept(),
        }  # fmt: skip


def shown(states: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
    """Return states as they go to the page."""
    return {
        name: None if entry is None else {key: value for key, value in entry.items() if key != "_id"}
        for name, entry in states.items()
    }


def without_envelope(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload as control wrote it."""
    return {key: frames.plain(value) for key, value in body.items() if key not in ENVELOPE}


def decoded(payload: bytes) -> dict[str, Any]:
    """Return a product from its file or message. Raises FrameError when it is none."""
    try:
        body = cbor2.loads(payload)
    except (cbor2.CBORDecodeError, ValueError, RecursionError) as error:
        raise frames.FrameError(str(error)) from error
    if not isinstance(body, dict):
        raise frames.FrameError("not a map")
    return body


def _time(one: Mapping[str, Any]) -> float:
    t = one.get("t")
    return float(t) if isinstance(t, int | float) else 0.0
