"""Fills history from the station journal, if it is on this machine: at the start, and after a lost broker.

A page that follows the journal itself gets everything but the states from here, as it comes. Short reads of a
few hundred rows, in a thread, with pauses: the writer of the journal is never held up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.journal_read import JournalReader
from controller.journal_rows import Event, JournalError, Run
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

    def __init__(
        self, journal: Path, view: View, hub: Hub, run_dir: Path | None, *, follow: bool = False
    ) -> None:
        """Make one.

        Args:
            journal: of the station.
            view: what is filled in.
            hub: tells the viewers.
            run_dir: folder of the run; None: as the journal says.
            follow: whether what comes after the first filling is the present: nobody else tells it.
        """
        self._path = journal
        self._follow = follow
        self._view = view
        self._hub = hub
        self._run_dir = run_dir
        self._run = ""
        self._upto = 0  # rows up to this number were read
        self._live = False  # what is read now is the present
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
            await self._look_for_the_end()
            if self._asked.is_set() and self._run and self._path.exists():
                self._asked.clear()
                try:
                    await self._fill()
                except (JournalError, OSError) as error:
                    log.warning("history is not filled in: %s", error)
                    self._asked.set()
            await self._pause()

    async def _pause(self) -> None:
        """Wait until there is something to do."""
        if self._view.run != self._run:
            await asyncio.sleep(0.05)
        elif self._follow and not self._asked.is_set():  # asked: there is no journal yet, or no run in it
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_S)
        else:
            await asyncio.sleep(LOOK_S)

    async def _look_for_the_end(self) -> None:
        """Find out how the run that is shown has ended, once the host is away."""
        if not self._view.away() or not self._run:
            self._view.ended = None
        elif self._path.exists():
            try:
                row = await asyncio.to_thread(self._read, lambda reader: reader.run(self._run))
            except (JournalError, OSError):
                return  # it stays what it was
            self._view.ended = None if row is None else ending(row)

    async def _fill(self) -> None:
        run, after = self._run, self._upto
        touched: set[str] = set()
        live = self._live = self._follow and after > 0
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
        await self._fill_products(run, after, last)
        self._upto = last
        self.filled += 1
        if live:
            return
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
                self._view.add_sample(name, t, value, None, self._view.unit(name), live=self._live)

    def _progress(self, event: Event, touched: set[str]) -> None:
        found = soc_by_beam(event.body.get("quantities", {}))
        if found is not None:
            touched.add("soc/beam")
            self._view.add_sample("soc/beam", event.wall_s, found[0], found[1], "1", live=False)

    def _pass(self, event: Event, touched: set[str]) -> None:
        touched.add("passes")
        told = pass_told(event.body, event.wall_s)
        known = (told["scan"], told["n"]) in self._view.passes
        self._view.add_pass(told, live=self._live and not known)

    def _log(self, event: Event, touched: set[str]) -> None:
        touched.add("events")
        told = {"seq": event.seq, "t": event.wall_s, "kind": event.body.get("kind", "log")}
        self._view.add_event({**told, "text": str(event.body.get("text", ""))}, live=self._live)

    async def _fill_products(self, run: str, after: int, upto: int) -> None:
        """Read the newest product of each stream that this process has not heard."""
        late = {} if self._live else {"hist": True}
        rows = await asyncio.to_thread(
            self._read, lambda reader: reader.latest(run, "product", "reduce", upto, PRODUCTS)
        )
        of_stream: dict[str, list[Event]] = {}
        for row in rows:
            if row.seq > after:
                of_stream.setdefault(str(row.body["stream"]), []).append(row)
        for stream, its_rows in of_stream.items():
            for row in reversed(its_rows):
                try:
                    content = await asyncio.to_thread(self._product, Path(row.body["path"]))
                    self._view.take_product(stream, {**late, "t": row.wall_s, **content})
                except (OSError, frames.FrameError) as error:
                    log.warning("product %s: %s", stream, error)
                    break
                if not (stream.startswith("spectrum/") and content.get("purpose") == "background"):
                    break  # of a background there are no lines to see: an older one that has some is shown

    def _product(self, path: Path) -> dict[str, Any]:
        if not path.exists() and self._run_dir is not None:
            path = self._run_dir / "products" / path.name
        if path.stat().st_size > MAX_PRODUCT:
            raise frames.FrameError(f"above {MAX_PRODUCT} bytes")
        return decoded(path.read_bytes())


def ending(run: Run) -> dict[str, Any] | None:
    """Return how a run has ended, as the page is told; None for one that has not."""
    if run.outcome is None:
        return None
    return {
        "run": run.run, "t": run.ended_wall_s, "outcome": run.outcome, "code": run.exit_code,
        "text": run.reason or "", "began": run.started_wall_s,
    }  # fmt: skip
