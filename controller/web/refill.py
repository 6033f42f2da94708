"""Fills history from the station journal, if it is on this machine: at the start, and after a lost broker.

Short reads of a few hundred rows, in a thread, with pauses: the writer of the journal is never held up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.journal_read import JournalReader
from controller.journal_rows import Event, JournalError
from controller.shown import pass_told, soc_by_beam
from controller.web import frames
from controller.web.view import decoded

if TYPE_CHECKING:
    from controller.web.hub import Hub
    from controller.web.view import View

PAGE_ROWS = 400
PAUSE_S = 0.02  # between two pages
LOOK_S = 1.0  # for a journal, or a run, that is not there yet
PRODUCTS = 300  # the newest rows among which the newest of each stream is looked for
MAX_PRODUCT = 4 << 20

log = logging.getLogger("web")


class Refill:
    """Reads what this process has not heard."""

    def __init__(self, journal: Path, view: View, hub: Hub, run_dir: Path | None) -> None:
        self._path = journal
        self._view = view
        self._hub = hub
        self._run_dir = run_dir
        self._run = ""
        self._upto = 0  # rows up to this number were read
        self._asked = asyncio.Event()
        self._asked.set()
        self.filled = 0  # times that it was done

    def wanted(self) -> None:
        """Something may be missing: look as soon as possible."""
        self._asked.set()

    async def run(self) -> None:
        """Fill whenever it is wanted, and when another run is shown, for ever."""
        while True:
            if self._view.run != self._run:
                self._run, self._upto = self._view.run, 0
                self._asked.set()
            if self._asked.is_set() and self._run and self._path.exists():
                self._asked.clear()
                try:
                    await self._fill()
                except (JournalError, OSError) as error:
                    log.warning("history is not filled in: %s", error)
                    self._asked.set()
            await asyncio.sleep(LOOK_S if self._view.run == self._run else 0.05)

    async def _fill(self) -> None:
        run, after = self._run, self._upto
        touched: set[str] = set()
        last = await asyncio.to_thread(self._read, lambda reader: reader.last_seq())
        for kind, take in self._takers().items():
            at = after
            while page := await asyncio.to_thread(self._page, run, kind, at):
                for event in page:
                    if event.seq <= last:
                        take(event, touched)
                at = page[-1].seq
                if at >= last:
                    break
                await asyncio.sleep(PAUSE_S)
        await self._fill_products(run, last)
        self._upto = last
        self.filled += 1
        if touched:
            self._hub.resend_all()
        log.info("history of %s: rows up to %d", run, last)

    def _takers(self) -> dict[str, Callable[[Event, set[str]], None]]:
        return {"tele": self._tele, "progress": self._progress, "pass": self._pass, "log": self._log}

    def _read(self, ask: Callable[[JournalReader], Any]) -> Any:
        with JournalReader.open(self._path) as reader:
            return ask(reader)

    def _page(self, run: str, kind: str, after: int) -> list[Event]:
        page: list[Event] = self._read(lambda reader: reader.events(run, kind, after, PAGE_ROWS))
        return page

    # --- rows ------------------------------------------------------------------------------------------

    def _tele(self, event: Event, touched: set[str]) -> None:
        for name, samples in event.body.get("series", {}).items():
            touched.add(name)
            for t, value in samples:
                self._view.add_sample(name, t, value, None, self._view.unit(name), live=False)

    def _progress(self, event: Event, touched: set[str]) -> None:
        found = soc_by_beam(event.body.get("quantities", {}))
        if found is not None:
            touched.add("soc/beam")
            self._view.add_sample("soc/beam", event.wall_s, found[0], found[1], "1", live=False)

    def _pass(self, event: Event, touched: set[str]) -> None:
        touched.add("passes")
        self._view.add_pass(pass_told(event.body, event.wall_s), live=False)

    def _log(self, event: Event, touched: set[str]) -> None:
        touched.add("events")
        told = {"seq": event.seq, "t": event.wall_s, "kind": event.body.get("kind", "log")}
        self._view.add_event({**told, "text": str(event.body.get("text", ""))}, live=False)

    async def _fill_products(self, run: str, upto: int) -> None:
        """Read the newest product of each stream that this process has not heard."""
        rows = await asyncio.to_thread(
            self._read, lambda reader: reader.latest(run, "product", "reduce", upto, PRODUCTS)
        )
        newest: dict[str, Mapping[str, Any]] = {row.body["stream"]: row.body for row in rows}
        for stream, body in newest.items():
            try:
                content = await asyncio.to_thread(self._product, Path(body["path"]))
                self._view.take_product(stream, {"hist": True, **content})
            except (OSError, frames.FrameError) as error:
                log.warning("product %s: %s", stream, error)

    def _product(self, path: Path) -> dict[str, Any]:
        if not path.exists() and self._run_dir is not None:
            path = self._run_dir / "products" / path.name
        if path.stat().st_size > MAX_PRODUCT:
            raise frames.FrameError(f"above {MAX_PRODUCT} bytes")
        return decoded(path.read_bytes())
