"""What each viewer still has to be told. A viewer that does not read costs a bounded amount, and nobody else.

Everything that waits for a viewer has a name, and what comes later under the same name joins or replaces it:
so a queue holds at most one entry of each kind, and of products at most ``QUEUE_BYTES``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

from controller.web import frames
from controller.web.view import NEWEST, View, shown

TURN_S = 0.25  # between two looks at what has changed
BEAT_S = 1.0
SEND_TIMEOUT_S = 30.0  # for one frame; then the viewer is closed
QUEUE_BYTES = 8 << 20
TELE_SAMPLES = 400  # of one series that may wait; then the whole series is sent instead


class Socket(Protocol):
    """What a viewer is reached by."""

    async def send_str(self, data: str) -> None:
        """Send a text frame; returns when the buffer has room again."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""


def text(body: dict[str, Any]) -> str:
    """Return a text frame."""
    return json.dumps(body, separators=(",", ":"), default=str)


class Viewer:
    """One page."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._waiting: OrderedDict[str, Any] = OrderedDict()
        self._product_bytes = 0
        self._late: OrderedDict[str, None] = (
            OrderedDict()
        )  # products that were dropped: sent when there is room
        self._wake = asyncio.Event()
        self.behind = 0  # frames that were replaced or dropped before they were sent
        self.sent = 0
        self.snapshot()

    @property
    def waiting_bytes(self) -> int:
        """Return the bytes of products that wait."""
        return self._product_bytes

    def __len__(self) -> int:
        return len(self._waiting)

    def snapshot(self) -> None:
        """Tell everything anew, in place of what waits."""
        self._waiting.clear()
        self._late.clear()
        self._product_bytes = 0
        self._waiting["snapshot"] = None
        for name, _ in self._view.history:
            self._waiting[f"series/{name}"] = "snapshot"
        for stream in self._view.products:
            self._late[stream] = None
        self._waiting["end"] = None
        self._wake.set()

    def tell(self, kind: str, value: Any) -> None:
        """Add something that changed; ``value`` is shared with the other viewers and never changed."""
        if "snapshot" in self._waiting and kind in ("states", "passes", "events", "host"):
            return  # the snapshot is made when it is sent
        waits = self._waiting.pop(kind, None)
        if waits is not None:
            self.behind += 1
        joined = self._joined(kind, waits, value)
        if joined is not None:
            self._waiting[kind] = joined
        self._wake.set()

    def product(self, stream: str, made: bytes) -> None:
        """Add a product; a newer one replaces one that waits, and what is too much comes later."""
        key = f"product/{stream}"
        old = self._waiting.pop(key, None)
        if old is not None:
            self._product_bytes -= len(old)
            self.behind += 1
        self._late.pop(stream, None)
        if self._product_bytes + len(made) > QUEUE_BYTES and self._product_bytes:
            self._late[stream] = None
            self.behind += 1
        else:
            self._waiting[key] = made
            self._product_bytes += len(made)
        self._wake.set()

    def resend(self, stream: str, scan: int | None, last: int | None) -> None:
        """Add a product that the page has asked for."""
        made = self._view.product(stream, scan, last)
        if made is not None:
            self.product(stream, made)

    def _joined(self, kind: str, waits: Any, value: Any) -> Any:
        """Return what waits and what is new as one; lists are bounded as the page bounds them."""
        if waits is None or kind not in ("states", "tele", "passes", "events"):
            return value
        if kind == "states":
            return {**waits, **value}
        if kind in ("passes", "events"):
            return [*waits, *value][-NEWEST:]
        joined = dict(waits)
        for name, samples in value.items():
            both = [*joined.get(name, []), *samples]
            if len(both) > TELE_SAMPLES:  # too much is missing: the whole series, when it can be sent
                joined.pop(name, None)
                self._waiting[f"series/{name}"] = "refill"
            elif f"series/{name}" not in self._waiting:
                joined[name] = both
        return joined

    async def send_to(self, socket: Socket) -> None:
        """Send what there is to tell, for as long as the connection lasts.

        Raises:
            TimeoutError: the viewer has taken nothing for ``SEND_TIMEOUT_S``.
        """
        while True:
            while (made := self._next()) is not None:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await (socket.send_str(made) if isinstance(made, str) else socket.send_bytes(made))
                self.sent += 1
            self._wake.clear()
            if not self._waiting and not self._late:
                await self._wake.wait()

    def _next(self) -> str | bytes | None:
        """Take the next frame; a product that was put off comes when no other waits, after the snapshot.

        A page that learns of another run by a snapshot forgets all products.
        """
        if self._late and not self._product_bytes and "snapshot" not in self._waiting:
            stream, _ = self._late.popitem(last=False)
            newest = self._view.products.get(stream)
            if newest is not None:
                return newest
        while self._waiting:
            kind, value = self._waiting.popitem(last=False)
            made = self._rendered(kind, value)
            if made is not None:
                return made
        return None

    def _rendered(self, kind: str, value: Any) -> str | bytes | None:
        first, _, name = kind.partition("/")
        if first == "product":
            self._product_bytes -= len(value)
            return bytes(value)
        if first == "series":
            series = self._view.history.series.get(name)
            if series is None:
                return None
            return frames.series(name, series.unit, value, series.columns(), series.error_column())
        if kind == "snapshot":
            return text(self._view.snapshot())
        if kind == "end":
            return text({"k": "end"})
        if kind == "beat":
            return text({**value, "behind": self.behind})
        return value if isinstance(value, str) else text({"k": kind, _FIELD.get(kind, kind): value})


_FIELD = {"tele": "series"}


class Hub:
    """All viewers."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.viewers: set[Viewer] = set()
        self.most = 0

    def join(self) -> Viewer:
        """Return a new viewer, which begins with a snapshot."""
        self.view.look()
        viewer = Viewer(self.view)
        self.viewers.add(viewer)
        self.most = max(self.most, len(self.viewers))
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        self.viewers.discard(viewer)

    def resend_all(self) -> None:
        """Tell everybody everything anew: history was filled in, or another run is shown."""
        for viewer in self.viewers:
            viewer.snapshot()

    def refilled(self, names: list[str]) -> None:
        """Tell everybody the series in which gaps were filled."""
        for viewer in self.viewers:
            for name in names:
                viewer.tell(f"series/{name}", "refill")

    async def run(self) -> None:
        """Look for what has changed and tell it, for ever."""
        beat_s = 0.0
        while True:
            self.turn()
            if time.monotonic() - beat_s >= BEAT_S:
                beat_s = time.monotonic()
                age_s = self.view.age_s()
                beat = {
                    "k": "beat", "t": time.time(), "age_s": None if age_s is None else round(age_s, 2),
                    "viewers": len(self.viewers),
                }  # fmt: skip
                for viewer in self.viewers:
                    viewer.tell("beat", beat)
            await asyncio.sleep(TURN_S)

    def turn(self) -> None:
        """Tell every viewer what has changed since the last turn."""
        self.view.look()
        changed, self.view.changed = self.view.changed, {}
        if changed.pop("snapshot", None):
            self.resend_all()
            return
        for kind, value in self._told(changed):
            for viewer in self.viewers:
                if kind.startswith("product/"):
                    viewer.product(kind.removeprefix("product/"), value)
                else:
                    viewer.tell(kind, value)

    def _told(self, changed: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield what goes to the viewers; the products last, for they are large."""
        products = changed.pop("products", {})
        for kind, value in changed.items():
            if kind == "states":
                yield kind, shown(value)
            elif kind in ("tele", "passes", "events"):
                yield kind, value
            elif kind == "host":
                yield kind, text({"k": "host", "host": self.view.host()})
            elif kind == "alarms":
                yield kind, text({"k": "alarms", "alarms": self.view.alarms()})
            elif kind == "questions":
                yield kind, text({"k": "questions", "questions": self.view.questions()})
            elif kind == "describe":
                yield kind, text({"k": "describe", "describe": self.view.snapshot()["describe"]})
        for stream, made in products.items():
            yield f"product/{stream}", made
