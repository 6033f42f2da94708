"""The notifications of a station while its host runs: reads, decides what to tell, and sends it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.notices import post
from controller.notices.keep import Keeper
from controller.notices.lane import Lane
from controller.notices.notice import Notice, of_event, plain
from controller.notices.sources import Pulse, Sources, result_line

if TYPE_CHECKING:
    from controller.config.notify import Notify
    from controller.journal_rows import Event
    from controller.paths import StateDir

LOOK_S = 1.0  # between two reads of the journal
SILENT_S = 20.0  # a run under way has a checkpoint every 2 s
STARTING_SILENT_S = 120.0  # before its first one: instruments are prepared, kernels compiled
SUMMARY_S = 120.0  # the end of a run is told with its result, if that comes within this time
LAST_S = 2.0  # to deliver when told to end; the supervisor waits for 3 s
LINGER_S = 900.0  # what is not delivered then is tried for so long by a process of its own


class Watcher:
    """Watches one host.

    Args:
        table: ``[notify]``.
        station: its name.
        state: its state folder.
        run_dir: of the run.
        keeper: locked.
        say: takes one line for the log.
    """

    def __init__(
        self, table: Notify, station: str, state: StateDir, run_dir: Path, keeper: Keeper,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._table, self._run_dir, self._say = table, run_dir, say
        self._keeper = keeper
        cursor, kept = keeper.load()
        self.sources = Sources(state.journal, state.supervisor_log, cursor)
        self.lanes = lanes(table, station, self._save, say)
        for lane in self.lanes:
            lane.take_up(kept.get(lane.name, {}))
        self._end: tuple[Notice, float] | None = None  # of the run, until its result is known
        self.ended = False  # control has said that the run has ended
        self._pulse: Pulse | None = None
        self._grew_s = time.monotonic()
        self._silent = False

    # --- what is new -------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read once, and hand on what is to be told."""
        rows, pulse = self.sources.read()
        found = [notice for row in rows if (notice := self._notice(row)) is not None]
        found += self._silence(pulse)
        self.tell(found)

    def tell(self, notices: Sequence[Notice]) -> None:
        """Hand notices to every receiver, and have them on disk before the cursor."""
        wanted = [one for one in notices if one.kind in self._table.about or one.kind == "test"]
        for lane in self.lanes:
            lane.put(wanted)
        self._save()

    def _notice(self, row: Event) -> Notice | None:
        if row.kind == "run_started":
            self.ended = False
        notice = of_event(row)
        if notice is not None and notice.kind == "ends":
            self.ended = True
            self._end = (notice, time.monotonic())
            return None
        return notice

    def the_end(self, *, now: bool = False) -> None:
        """Tell that the run has ended as soon as its result is there, or now."""
        if self._end is None:
            return
        notice, since_s = self._end
        path = self._run_dir / "summary.json"
        with contextlib.suppress(OSError):
            now = now or path.stat().st_mtime >= notice.t
        if now or time.monotonic() - since_s > SUMMARY_S:
            result = result_line(self._run_dir)
            text = f"{notice.text}. {result}" if result else notice.text
            self._end = None
            self.tell([Notice(notice.id, "ends", True, notice.title, plain(text), notice.t, notice.run)])

    # --- signs of life -----------------------------------------------------------------------------------

    def _silence(self, pulse: Pulse | None) -> list[Notice]:
        """Return a notice when the journal stands still, and one when it grows again."""
        now = time.monotonic()
        if self.ended or (pulse is not None and pulse != self._pulse):
            self._grew_s, self._pulse = now, pulse
            if self._silent and not self.ended:
                self._silent = False
                return [self.of_host("the host is heard again", "The journal grows again.", urgent=False)]
            return []
        under_way = self._pulse is not None and self._pulse.checkpoint_s > 0
        limit_s = SILENT_S if under_way else STARTING_SILENT_S
        if not self._silent and now - self._grew_s > limit_s:
            self._silent = True
            text = f"Nothing has come into the journal for {limit_s:.0f} s. Look at it: operando status."
            return [self.of_host("the host is silent", text)]
        return []

    def well(self) -> bool:
        """Return whether all is well: the journal grows, and the run has not ended."""
        return not self.ended and not self._silent and self._pulse is not None

    def of_host(self, title: str, text: str, *, urgent: bool = True) -> Notice:
        """Return a notice about the host itself."""
        now = time.time()
        return Notice(f"host:{now!r}", "host", urgent, title, text, now, self._run_dir.name)

    # --- work --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for lane in self.lanes:
                tasks.create_task(lane.run())
            if self._table.heartbeat is not None:
                tasks.create_task(self._beat())
            while True:
                self.look()
                self.the_end()
                await asyncio.sleep(LOOK_S)

    async def _beat(self) -> None:
        heartbeat = self._table.heartbeat
        assert heartbeat is not None  # noqa: S101 - asked for above
        last = True
        while True:
            if self.well():
                try:
                    await post.beat(heartbeat)
                    last = True
                except post.PostError as error:
                    if last:
                        self._say(f"heartbeat: {plain(error, 200)}")
                    last = False
            await asyncio.sleep(heartbeat.every_s)

    async def last_words(self) -> None:
        """Told to end: read once more, and try to deliver what waits."""
        self.look()
        self.the_end(now=True)
        if self.ended and self._table.heartbeat is not None and self._table.heartbeat.ended is not None:
            with contextlib.suppress(post.PostError, TimeoutError):
                async with asyncio.timeout(LAST_S):
                    await post.beat(self._table.heartbeat, self._table.heartbeat.ended)
        await self.deliver(LAST_S)

    async def deliver(self, within_s: float) -> bool:
        """Send what waits; return whether all of it got through in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(lane.send() for lane in self.lanes))
        return not self.waiting

    async def linger(self, within_s: float = LINGER_S) -> None:
        """Try to deliver what waits until it is through, or ``within_s`` wall seconds are over."""
        work = [asyncio.create_task(lane.run()) for lane in self.lanes]
        until_s = time.monotonic() + within_s
        try:
            while self.waiting and time.monotonic() < until_s:
                await asyncio.sleep(0.2)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How many notices are not delivered yet."""
        return sum(len(lane.waiting) for lane in self.lanes)

    def _save(self) -> None:
        try:
            self._keeper.save(self.sources.cursor, {lane.name: lane.as_dict() for lane in self.lanes})
        except OSError as error:  # a full disk: people are told all the same
            self._say(f"{self._keeper.path}: {error.strerror or error}")


def lanes(
    table: Notify, station: str, on_change: Callable[[], None], say: Callable[[str], None]
) -> list[Lane]:
    """Return a lane for each receiver of a station, by names that stay the same as long as the file does."""
    ways: dict[str, Any] = {
        f"webhook {n} ({hook.format})": partial(post.webhook, hook)
        for n, hook in enumerate(table.webhooks, 1)
    }
    ways |= {f"mail {n} ({one.host})": partial(post.mail, one) for n, one in enumerate(table.mails, 1)}
    return [
        Lane(name, station, way, quiet_s=table.quiet_s, on_change=on_change, say=say)
        for name, way in ways.items()
    ]


def hand_over(arguments: Sequence[str]) -> None:
    """Start a process that goes on trying: whoever told this one to end does not wait for it."""
    command = [sys.executable, "-m", "controller.notices", *arguments, "--linger"]
    subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd="/",
    )  # fmt: skip
