"""What a run is made of: journal, sockets, instruments and their owners.

``assemble`` builds, and sends nothing to an instrument; ``connect`` identifies and prepares every one of
them, so that all are in their safe state before anything is energised. What happens then ``host`` decides.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from controller.abilities import require
from controller.announce import Standing, remote_commands
from controller.beamline import Beamline
from controller.config import effective_limits
from controller.cycling import ChargeError, Cycling
from controller.devices import build, introduce
from controller.exposing import Exposing
from controller.exposures_resumed import cut_off_rings
from controller.guard import Action, Trip
from controller.heating import Heating
from controller.journal import AsyncJournal
from controller.line_health import LineHealth
from controller.link_server import LinkServer
from controller.local import LocalServer
from controller.monitors import Monitors
from controller.outlook import Outlook
from controller.questions import Questions, withdraw_old
from controller.rawfile import RawWriter
from controller.record import Recorder
from controller.reduction import Reduction
from controller.scanning import Feed, Scanning
from controller.sequence import Sequencer
from controller.staging import Staging
from controller.stamps import Stamps
from controller.verdict import EXIT_GUARD, EXIT_INSTRUMENT, Stopped
from drivers.errors import DriverError
from drivers.registry import driver_origin
from drivers.shared_line import SharedLine

if TYPE_CHECKING:
    from controller.host import Host

WALL_FLOOR_S = 0.02  # no device is polled more often than this in wall time, however fast lab time runs
NO_DEVICE_PERIOD_S = 1.0  # of what the station does not have: nothing is polled
PREPARE_TIMEOUT_S = 20.0


async def assemble(host: Host) -> None:
    """Journal, sockets, devices (nothing is sent to an instrument yet)."""
    host.journal = await AsyncJournal.open(
        host.state.journal, station=host.station.station.name, clock=host.clock.now_s,
        on_error=lambda error: host.end(EXIT_INSTRUMENT, str(error)),
    )  # fmt: skip
    await host.journal.boot("run")
    host.local = LocalServer(host.state.socket("control"), host.desk.handle)
    remote = remote_commands(host.station, host.journal, host.desk.handle)
    host.link = LinkServer(
        host.state.socket("link"), host.journal, on_command=remote,
        on_dropped=remote.dropped if remote else None, on_end=remote.close if remote else None,
    )  # fmt: skip
    host.reduction = Reduction(
        host.state.socket("reduce"), host.on_reduce, host.run_dir / "raw", on_hang=host.tell
    )
    host.recorder = Recorder(host.journal, host.clock, host.run_id, host.local.broadcast)
    host.recorder.periods_s = {
        "heater": period_s(host, host.station.roles.heater), "beam": period_s(host, host.station.io_name),
        **{name: period_s(host, name) for name in host.station.monitors},
    }  # fmt: skip
    host.standing = Standing(host.recorder)
    await host.take_over_supervisor_log()
    await host.tidy()
    for latch in await host.journal.latches():
        host.guard.latched[latch.id] = _trip_of(latch.id, latch.body)
    await withdraw_old(host.journal, host.guard.latched)
    limits = effective_limits(host.station, host.experiment)
    host.bench = build(
        host.station, host.clock, limits=limits, trace=host.trace.of if host.trace is not None else None
    )
    lines = host.bench.lines
    host.health = LineHealth(
        host.recorder,
        {name: line.stats for name, line in lines.items()},
        sharing={name: line.sharing.stats for name, line in lines.items() if isinstance(line, SharedLine)},
    )
    host.heating = Heating(
        host.bench.heater, host.bench.io, host.guard, host.clock, host.recorder,
        period_s=period_s(host, host.station.roles.heater),
    )  # fmt: skip
    host.cycling = Cycling(host.bench.cell, host.guard, host.clock, host.recorder, error=ChargeError())
    host.staging = Staging(
        host.bench.stage, host.bench.io, host.bench.scanner, host.guard, host.clock, host.recorder
    )
    host.stamps = Stamps(host.experiment, host.clock, host.heating, host.cycling, host.staging)
    feeds = {
        role: Feed(role, detector, RawWriter(host.run_dir / "raw", role))
        for role, detector in host.bench.detectors.items()
    }
    host.exposing = Exposing(
        host.bench.frames, host.reduction, host.recorder, host.clock, host.run_dir / "raw",
        host.stamps.now,
    )  # fmt: skip
    host.sequence = Sequencer(host, estimate_s=host.args.estimate_s)
    host.questions = Questions(host.recorder, host.clock, host.sequence.context)
    host.scanning = Scanning(
        host.bench.scanner, host.bench.io, feeds, host.guard, host.clock, host.recorder, host.reduction,
        nominal_current_a=host.station.beam.current_a if host.station.beam else None,
        read_period_s=min(period_s(host, getattr(host.station.roles, role)) for role in (*feeds, "pige")),
        stamp=host.stamps.now, paused=lambda: host.sequence.paused,
    )  # fmt: skip
    host.beamline = Beamline(
        host.bench.io, host.guard, host.clock, host.recorder, host.scanning,
        period_s=period_s(host, host.station.io_name), watchdog_s=_watchdog_s(host),
    )  # fmt: skip
    host.monitors = Monitors(
        host.bench.devices, host.station.monitors,
        {name: period_s(host, name) for name in host.station.monitors}, host.guard, host.clock,
        host.recorder,
    )  # fmt: skip
    host.outlook = Outlook(host, WALL_FLOOR_S * host.clock.speed)
    host.recorder.passed = host.outlook.passed
    if host.args.resume and host.bench.frames:
        await _end_rings(host)
    await asyncio.gather(host.local.start(), host.link.start(), host.reduction.start())


async def _end_rings(host: Host) -> None:
    """End what an interruption has cut off in a ring, before a reduce process could go on with it."""
    run = host.run_id
    if run not in [one.run for one in await host.journal.open_runs()]:
        return  # it is refused, later
    checkpoint = await host.journal.last_checkpoint(run, "sequence")
    seen = dict(checkpoint.body.get("exposing", ())) if checkpoint is not None else {}
    rows = await host.journal.read(lambda reads: list(reads.all_events(run, "hits")))
    cut_off = await asyncio.to_thread(cut_off_rings, host.run_dir / "raw")
    host.exposing.end_rings(cut_off, seen, ((row.body["n"], row.body["path"]) for row in rows))
    await host.reduction.sync()


async def connect(host: Host) -> None:
    """Identify and prepare every instrument: all are in their safe state before anything is energised."""
    for name, device in host.bench.devices.items():
        if host.stop_code is not None:  # aborted meanwhile
            raise host.stop_code
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                for line in host.station.lines_of(name):
                    await host.bench.lines[line].open()
                identity, notes = await introduce(device)
                if device is host.bench.cell:
                    notes += await require(device, host.station, host.experiment)
        except TimeoutError:
            text = f"{name}: not ready within {PREPARE_TIMEOUT_S:g} s"
            raise Stopped(EXIT_INSTRUMENT, text) from None
        except DriverError as error:
            if error.device:
                raise
            raise Stopped(EXIT_INSTRUMENT, f"{name}: {error}") from error  # its line cannot be opened
        host.notes[name] = {
            "identity": asdict(identity), "notes": notes, "t": time.time(),
            "driver": driver_origin(host.station.devices[name].driver),
        }  # fmt: skip
    await host.recorder.event("instruments", "host", host.notes)
    refusal = host.guard.refuses()
    if refusal:
        how = "; ".join(f"operando clear {trip_id}" for trip_id in host.guard.latched)
        raise Stopped(EXIT_GUARD, f"a latch from before holds: {refusal} (when its cause is gone: {how})")


def period_s(host: Host, name: str | None) -> float:
    """Return the polling period of a device in lab seconds, no shorter than the wall floor allows."""
    device = host.station.devices.get(name or "")
    own_s = device.period_s if device is not None else NO_DEVICE_PERIOD_S
    return max(own_s, WALL_FLOOR_S * host.clock.speed)


def _watchdog_s(host: Host) -> float:
    """Return the time-out of the watchdog in the I/O box."""
    box = host.station.devices.get(host.station.io_name or "")
    watchdog = box.settings().get("watchdog") if box is not None else None
    return float((watchdog or {}).get("timeout_s", 1.0))


def _trip_of(trip_id: str, body: dict[str, Any]) -> Trip:
    return Trip(
        trip_id, str(body.get("channel", "")), body.get("value"), body.get("limit"),
        str(body.get("unit", "")),
        Action(body.get("action", "safe")), str(body.get("text", trip_id)), float(body.get("lab_s", 0.0)),
        float(body.get("t", 0.0)), acknowledge=str(body.get("acknowledge", "")),
    )  # fmt: skip
