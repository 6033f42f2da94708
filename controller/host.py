"""The control process: instruments from the files, tasks, and everything safe on the way out.

Owns every instrument and every output, is the only writer of the journal, and does nothing that can make it
late: no number crunching, no network client but the instruments.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller import scheduling
from controller.announce import Standing, description
from controller.beamline import Beamline
from controller.clock import BenchError, ScaledClock, Ticker, bench_clock
from controller.closing import close, gaps, leave, say
from controller.config import (
    ConfigErrors,
    Experiment,
    Station,
    check_against,
    effective_limits,
    load_experiment,
    load_station,
    reduce_settings,
)
from controller.cycling import Cycling
from controller.desk import Desk
from controller.devices import Bench
from controller.documents import close_crashed
from controller.estimate import estimate
from controller.exposing import KINDS as EXPOSURE_KINDS
from controller.exposing import Exposing
from controller.exposures_resumed import Resumed, resumed
from controller.guard import Action, Guard, Trip
from controller.heartbeat import beat
from controller.heating import Heating
from controller.host_setup import WALL_FLOOR_S, assemble, connect
from controller.journal import AsyncJournal, JournalError
from controller.line_health import LineHealth
from controller.link_server import LinkServer
from controller.local import LocalServer
from controller.monitors import Monitors
from controller.outlook import Outlook
from controller.paths import StateDir
from controller.questions import Questions
from controller.record import Recorder
from controller.reduction import Reduction
from controller.resume_policy import agree
from controller.resumption import had_of, images_with_a_row, passes_without_a_row, take_up
from controller.rules import guard_rules, interlock_rows
from controller.safety import ActionResult, carry_out
from controller.scanning import PassOutcome, Scanning
from controller.sequence import Outcome, Sequencer
from controller.staging import Staging
from controller.stamps import Stamps
from controller.tracing import begin
from controller.verdict import (
    EXIT_ABORTED,
    EXIT_DONE,
    EXIT_FILES,
    EXIT_GAPS,
    EXIT_GUARD,
    EXIT_INSTRUMENT,
    Stopped,
    verdict,
)
from drivers.clock import Clock, RealClock
from drivers.wire_trace import WireTrace

GUARD_PERIOD_S = 0.1
STATUS_PERIOD_S = 0.25  # wall
CHECKPOINT_PERIOD_S = 2.0  # wall
REDUCE_READY_S = 60.0
RESULT_TIMEOUT_S = 30.0
TIDY_S = 2.0  # for old rows of the journal, at the start and the end of a run
ACTING_TIMEOUT_S = 5.0  # off commands of a trip and their rows in the journal
STEPS_END_S = 15.0  # a little longer than a silent potentiostat is asked to stop; then they are told again
ENDING_S = 120.0  # for the whole end of a run; later the supervisor may take control for dead


class Host:
    """One run, from the files to the safe state."""

    def __init__(
        self, args: argparse.Namespace, station: Station, experiment: Experiment, clock: Clock,
        trace: WireTrace | None = None,
    ) -> None:  # fmt: skip
        self.args = args
        self.station = station
        self.experiment = experiment
        self.clock = clock
        self.trace = trace
        self.state = StateDir(args.state)
        self.run_dir: Path = args.run_dir
        self.run_id = self.run_dir.name
        self.journal: AsyncJournal  # from here on what ``assemble`` makes
        self.local: LocalServer
        self.link: LinkServer
        self.reduction: Reduction
        self.recorder: Recorder
        self.standing: Standing
        self.bench: Bench
        self.health: LineHealth
        self.heating: Heating
        self.cycling: Cycling
        self.staging: Staging
        self.stamps: Stamps
        self.exposing: Exposing
        self.sequence: Sequencer
        self.questions: Questions
        self.scanning: Scanning
        self.beamline: Beamline
        self.monitors: Monitors
        self.outlook: Outlook
        self.products: dict[str, Any] = {"progress": {}, "result": None}
        self.desk = Desk(self)
        self._ended = asyncio.Event()
        self.stop_code: Stopped | None = None
        self._acting: set[asyncio.Task[Any]] = set()
        self.publishing: set[asyncio.Task[None]] = set()
        self._early = ""
        self.begun = False  # the run is in the journal, as new or as taken up again
        self.began_s = clock.now_s()
        self.entered_s = time.monotonic()  # how long it took must not depend on a clock that is set
        self.notes: dict[str, Any] = {}
        self._unwritten: list[tuple[int, PassOutcome, dict[str, Any]]] = []  # passes of an interrupted run
        self._exposed: tuple[Resumed, set[tuple[int, int]]] | None = None  # and its exposures
        self.scheduling: scheduling.Scheduling | None = None  # what the kernel gave, if it was asked
        self.turns = 0  # of the event loop, as its status goes round
        self.all_off = False
        self.underway = asyncio.Event()  # the steps have begun, from the start or from a checkpoint
        self._beating: asyncio.Task[None]
        self.guard = Guard(
            guard_rules(station, experiment, WALL_FLOOR_S * clock.speed), clock, self._on_trip,
            interlocks=interlock_rows(station),
        )  # fmt: skip

    # --- the run ---------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run the experiment; whatever happens, every output is off when this returns."""
        began_wall = time.time()
        await assemble(self)
        # To the very end: whoever writes an extract is not dead. A loop that hangs does not beat.
        self._beating = asyncio.create_task(beat(self))
        try:
            return await self._run(began_wall)
        finally:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def _run(self, began_wall: float) -> int:
        code, outcome = EXIT_DONE, "done"
        failure: Exception | None = None
        try:
            await connect(self)
            await self._work()
        except Exception as error:
            failure = error
        finally:  # outputs before anything that might wait, as the journal of a trip could
            self._limit_ending()
            results = await carry_out(self.bench.outputs, Action.SAFE)
            self.all_off = True
            if self._acting:
                await asyncio.wait(self._acting, timeout=ACTING_TIMEOUT_S)
        if failure is not None:
            stopped = self.stop_code or verdict(failure)  # a trip that just acted is the reason
            code, outcome = stopped.code, stopped.reason
            self.recorder.line(outcome)
            say(outcome)  # into logs/control.log: the journal may be what failed
        confirmed = {"results": [r.as_dict() for r in results]}
        await leave(self.recorder.event("safe", "host", confirmed))
        unconfirmed = [r for r in results if not r.confirmed]
        if unconfirmed and code == EXIT_DONE:
            code = EXIT_INSTRUMENT
            outcome = "; ".join(f"{r.output} did not confirm off: {r.error}" for r in unconfirmed)
        if code == EXIT_DONE and self._early:
            code, outcome = EXIT_GAPS, self._early
        if code == EXIT_DONE and gaps(self):
            code, outcome = EXIT_GAPS, "finished, but with gaps: " + "; ".join(gaps(self))
        await close(self, code, outcome, self.began_s, began_wall)
        return code

    async def _work(self) -> None:
        """All tasks until the sequence has ended or something stops it; guard and watchdog feed go last."""
        scheduling.settle_memory()  # nothing is energised yet: now it may take its time
        self.guard.begin()
        works = [self._watch(), self._status(), self._keep_checkpoints(), self.monitors.poll()]
        works += [self.heating.poll()] if self.bench.heater is not None else []
        works += [self._poll_io()] if self.bench.io is not None else []
        services = [asyncio.create_task(work) for work in works]
        sequence = asyncio.create_task(self._sequence())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({sequence, ended, *services}, return_when=asyncio.FIRST_COMPLETED)
            self._limit_ending()
            await self._stop(sequence)
        finally:
            for task in (sequence, ended, *services):
                task.cancel()
            results = await asyncio.gather(sequence, *services, ended, return_exceptions=True)
        if self.stop_code is not None:
            raise self.stop_code
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            raise ExceptionGroup("the run ended by a failure", failures)

    async def _stop(self, sequence: asyncio.Task[None]) -> None:
        """End the steps. Everything goes off at once, however long a step takes to end in order."""
        if sequence.done() and not sequence.cancelled() and sequence.exception() is None:
            return  # its last act was to make everything safe
        self._stand_down()
        safe = asyncio.create_task(carry_out(self.bench.outputs, Action.SAFE))
        while not sequence.done():
            sequence.cancel()  # again, if need be: what it waited for may have come in the same moment
            await asyncio.wait({sequence}, timeout=STEPS_END_S)
        await safe

    def _limit_ending(self) -> None:
        """From here on beat for ``ENDING_S`` at most: everything is off, and an end that hangs must end."""
        asyncio.get_running_loop().call_later(ENDING_S, self._beating.cancel)

    async def _sequence(self) -> None:
        """Start the run's record, wait for reduce, run the steps, fetch the result."""
        settings = reduce_settings(self.station, self.experiment)
        images = self.experiment.radiography
        run = {
            "k": "run", "run": self.run_id, "dir": str(self.run_dir), "settings": settings,
            "radiography": None if images is None else images.settings(),
        }  # fmt: skip
        self.reduction.send(run)
        try:
            async with asyncio.timeout(REDUCE_READY_S):
                await self.reduction.ready.wait()
        except TimeoutError:
            raise Stopped(EXIT_INSTRUMENT, f"reduce was not ready within {REDUCE_READY_S:g} s") from None
        resumed_from = None
        if self.args.resume:  # it is in the journal, even if it was killed before its first document
            resumed_from = await self._resume()
        else:
            await self.journal.start_run(
                self.run_id, experiment=self.experiment.name, directory=str(self.run_dir),
                body={"station": self.station.name},
            )  # fmt: skip
        self.begun = True
        limits = effective_limits(self.station, self.experiment)
        told = description(self.station, self.experiment, limits, self.clock.speed)
        await self.recorder.event("describe", "host", told, topic="describe", retain=True)
        documents = self.recorder.documents
        await documents.start(self.station, self.experiment, limits, resumed_from=resumed_from)
        await self.recorder.documents.baseline(self.stamps.now())
        for scan, passed, message in self._unwritten:
            self.recorder.scan_pass(scan, passed, message)
        if self._exposed is not None:
            self.exposing.take_up(*self._exposed)
        await self.sequence.checkpoint()  # from here on everything that is spent is found again
        self.underway.set()
        if self.args.resume:
            await agree(self)
        outcome: Outcome = await self.sequence.run()
        self.recorder.line(outcome.text)
        # Nothing stays on while the last counts are reduced, which may take a while on a busy machine.
        self._stand_down()
        results = await carry_out(self.bench.outputs, Action.SAFE)
        await self.recorder.event("safe", "host", {"results": [r.as_dict() for r in results]})
        if not outcome.complete:
            self._early = outcome.text
        if not await self.reduction.finish(RESULT_TIMEOUT_S):
            text = "no final result from reduce: reduce the raw files again"
            self.recorder.gap("reduce", text, self.clock.now_s())

    async def _resume(self) -> str | None:
        """Take up an interrupted run: close its documents, go on from its last checkpoint."""
        if self.run_id not in [run.run for run in await self.journal.open_runs()]:
            raise Stopped(EXIT_FILES, f"{self.run_id} is not an interrupted run of this station")
        uid = await close_crashed(self.journal, self.run_id, "the host ended without closing the run")
        carried = await take_up(self.journal, self.run_id, self.clock.speed, self.station.roles.cell or "")
        if carried is None:
            self.recorder.line("resume: no step of this run was begun, it begins anew")
            return uid
        self.sequence.go_on_from(carried.body)
        self.sequence.context.had = await asyncio.to_thread(had_of, self.run_dir / "raw")
        self._unwritten = await passes_without_a_row(self.journal, self.run_id, self.run_dir / "raw")
        exposed = await asyncio.to_thread(resumed, self.run_dir / "raw")
        self._exposed = exposed, await images_with_a_row(self.journal, self.run_id)
        self.sequence.context.had_images = exposed.had
        self.sequence.context.counted = exposed.counted
        self.recorder.gap("host", carried.text, self.clock.now_s())
        return uid

    # --- tasks -----------------------------------------------------------------------------------------

    async def _poll_io(self) -> None:
        """Poll beam monitor, permit and outputs; feed the watchdog that makes them safe without us."""
        await self.beamline.poll()

    async def _keep_checkpoints(self) -> None:
        """Write every few seconds how far the run is; not before the row of an earlier attempt was read."""
        await self.underway.wait()
        while True:
            await asyncio.sleep(CHECKPOINT_PERIOD_S)
            await self.sequence.checkpoint()

    async def _watch(self) -> None:
        """The guard's own tick."""
        ticker = Ticker(self.clock, max(GUARD_PERIOD_S, WALL_FLOOR_S * self.clock.speed))
        async for _ in ticker:
            self.guard.tick()
            self.recorder.counters["ticks_missed"] = ticker.missed
            self.recorder.counters["ticks"] = ticker.ticks
            self.recorder.counters["worst_tick_late_ms"] = round(1e3 * ticker.worst_late_s)

    async def _status(self) -> None:
        """Tell whoever watches, a few times a second."""
        while True:
            self.turns += 1
            status = self.desk.status()
            self.local.broadcast({"event": "status", **status})
            self.standing.tell(status)
            self.outlook.tell()
            self.health.tell()
            self.recorder.flush_tele()
            await asyncio.sleep(STATUS_PERIOD_S)

    # --- decisions -------------------------------------------------------------------------------------

    def _on_trip(self, trip: Trip) -> None:
        task = asyncio.get_running_loop().create_task(self._act(trip))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _act(self, trip: Trip) -> None:
        """Carry out a trip; outputs first, then the journal, and only then anyone is told."""
        if trip.action is Action.HOLD:
            self.sequence.pause(trip.text)
            results = await carry_out(self.bench.outputs, Action.BLANK)
        else:
            results = await carry_out(self.bench.outputs, trip.action)
        try:
            await self.recorder.trip(trip)
            await self.recorder.actions(trip.id, results)
        finally:  # also when the disk is full: what is not written down has happened all the same
            if trip.latch:
                self.end(EXIT_GUARD, trip.text)

    def end(self, code: int, reason: str) -> None:
        """End the run from outside its sequence; the first reason counts."""
        if self.stop_code is None:
            self.stop_code = Stopped(code, reason)
            self._ended.set()

    def safe(self, by: str) -> asyncio.Task[list[ActionResult]]:
        """Everything off now, whatever the run is doing, and the run ends; the task has the results."""
        self._stand_down()
        task = asyncio.get_running_loop().create_task(carry_out(self.bench.outputs, Action.SAFE))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        self.end(EXIT_ABORTED, f"safe, asked for by {by}")
        return task

    def _stand_down(self) -> None:
        """Everything is being switched off for good: from here on nothing is allowed to be on."""
        self.guard.stand_down()
        self.heating.stand_down()

    def abort(self, by: str) -> None:
        """A person ends the run."""
        self.end(EXIT_ABORTED, f"aborted by {by}")

    def tell(self, text: str) -> None:
        """Note what is wrong with reduce."""
        self.recorder.fault("reduce", text)

    def on_reduce(self, message: dict[str, Any]) -> None:
        """Take a message of the reduce process."""
        kind = message.get("k")
        if kind == "progress":
            self.recorder.post("progress", "reduce", message)
            if message.get("purpose") != "background":  # it measures no layer: what was found stays
                self.products["progress"] = message
                self.outlook.progress(message)
        elif kind == "product":
            self._publish(message)
        elif kind == "pass_checked":
            self.recorder.post("pass_checked", "reduce", message)
            self.outlook.checked(message)
        elif kind in EXPOSURE_KINDS:
            self.exposing.take(message)
        elif kind == "result":
            self.products["result"] = message.get("result")

    def _publish(self, message: dict[str, Any]) -> None:
        """Send a product on its way at once: a map is to be on the broker within 500 ms of its last event."""
        body = {key: value for key, value in message.items() if key != "k"}
        topic = f"data/{message['stream']}"
        task = asyncio.get_running_loop().create_task(
            self.recorder.publish("product", "reduce", body, topic=topic, path=message["path"])
        )
        self.publishing.add(task)
        task.add_done_callback(self.publishing.discard)

    async def tidy(self) -> None:
        """Keep the journal within its limits, while nothing is energised."""
        with contextlib.suppress(JournalError):  # it only saves space
            await self.journal.tidy(TIDY_S)

    async def take_over_supervisor_log(self) -> None:
        """Journal what the supervisor did while there was no control, before anything else."""
        log = self.state.supervisor_log
        if not log.is_file():
            return
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                await self.recorder.event("supervisor", "supervisor", json.loads(line))
        log.unlink()


async def _main(args: argparse.Namespace) -> int:
    try:
        station = load_station(args.station)
        experiment = load_experiment(args.experiment)
        problems = check_against(station, experiment)
    except ConfigErrors as error:
        problems = error.problems
    if problems:
        for problem in problems:
            print(problem.message, file=sys.stderr)
        return EXIT_FILES
    clock: ScaledClock | RealClock = RealClock()
    if station.bench is not None:
        try:
            clock = await bench_clock(station.bench.model_dump())
        except BenchError as error:
            print(error, file=sys.stderr)
            return EXIT_INSTRUMENT
    args.estimate_s = estimate(station, experiment).expected_s
    try:
        trace = begin(args.trace_wire, station, args.station) if args.trace_wire is not None else None
    except OSError as error:
        print(f"--trace-wire {args.trace_wire}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FILES
    host = Host(args, station, experiment, clock, trace)
    if clock.speed == 1.0:  # where time runs faster it would only take the processor from its own bench
        host.scheduling = scheduling.take()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, host.abort, signal.Signals(number).name)
    try:
        return await host.run()
    finally:
        if trace is not None:
            trace.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m controller.host``; the supervisor starts it."""
    parser = argparse.ArgumentParser(prog="controller.host", description=__doc__)
    parser.add_argument("--station", type=Path, required=True)
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--heartbeat", type=int, help="file descriptor of the supervisor's heartbeat")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--trace-wire", type=Path)
    scheduling.keep_large_apart()  # before the heap is what it will be
    return asyncio.run(_main(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
