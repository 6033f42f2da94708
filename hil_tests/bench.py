"""The virtual bench: every instrument of the station as a twin in one process, in lab time.

``python -m hil_tests.bench --dir DIR`` writes ``DIR/station.toml`` when all twins are ready, prints its path
as the first line, and runs until its standard input closes, SIGTERM or Ctrl-C: it never outlives its owner.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hil_tests.sim import scenario
from hil_tests.sim.api import Api
from hil_tests.sim.clock import LabClock
from hil_tests.sim.control import ControlSocket
from hil_tests.sim.labjack_t7 import LabJackT7Twin
from hil_tests.sim.owner import watch_owner
from hil_tests.sim.rack import CHOICES, NONE, Around, fit
from hil_tests.sim.replay import Replay, read_spe
from hil_tests.sim.schedule import FaultSchedule
from hil_tests.sim.station_file import Place, station_file

TICK_WALL_S = 0.01
STALL_WALL_S = 0.1
LONGEST_STEP_S = 1.0  # of lab time: a bench that was held up catches up in steps of this size
LONGEST_SOCKET_PATH = 100
TRUTH_SCHEMA = "operando/bench-truth/1"
BEAM = ("io", *scenario.DETECTORS)  # what sees the sample, in this order
EPILOG = """\
examples:
  python -m hil_tests.bench --dir /tmp/bench --scenario quickstart --speed 60
  operando check /tmp/bench/station.toml        (in another terminal, while it runs)

A fault file is a list of tables:
  [[fault]]
  target = "io"          # heater, cell, io, pixe, pige
  kind = "beam_loss"     # wire faults, unplug, reset ...: see hil_tests/BENCH.md
  at_pulses = 2000       # or at_s, at_temperature_k, at_charge_coulomb; after_s adds lab seconds

A running bench answers on the socket named in [bench] of its station file, one JSON object a line: set a
value, inject a fault, read the truth. Commands, faults, values and a client are in hil_tests/BENCH.md.

The truth file holds atoms per layer, coulombs, photons and the counters of every twin; it is written at the
end, and whenever the socket is asked for it. What follows from them (x, SoC) is not in it.
"""


class Bench:
    """All twins and the physics behind them."""

    def __init__(
        self,
        scenario_name: str,
        *,
        speed: float = 1.0,
        seed: int | None = None,
        factor: float = 1.0,
        replays: Mapping[str, Path] | None = None,
        chosen: Mapping[str, str] | None = None,
    ) -> None:
        self.clock = LabClock(speed=speed)
        self.world = scenario.build(scenario.read(scenario_name), seed=seed, factor=factor)
        world = self.world
        rng = np.random.default_rng([world.seed, 99])
        sources: dict[str, Any] = dict(world.photons)
        for name, path in (replays or {}).items():
            sources[name] = Replay(read_spe(path), rng, beam=world.beam, reader=name)
        self.io = LabJackT7Twin(world.beam, self.clock, {"stall_wall_s": STALL_WALL_S})
        self.rack = fit(Around(world, self.clock, self.io, sources), chosen or {})
        self.twins: dict[str, Any] = {"io": self.io}
        for instrument in self.rack.values():
            self.twins |= instrument.twins
        self.faults = FaultSchedule(
            self.inject,
            {
                "at_s": lambda: self._time_s,
                "at_pulses": lambda: float(self.io.deflector.pulses),
                "at_temperature_k": lambda: world.holder.cell_k,
                "at_charge_coulomb": lambda: world.cell.charge.terminals,
            },
        )
        self.ticks = 0
        self.late_s = 0.0
        self._time_s = 0.0

    async def start(self, folder: Path) -> Place:
        """Open every port; return where they are."""
        ports = {name: await twin.start() for name, twin in self.twins.items()}
        return Place(
            socket=str(_socket_path(folder)),
            nonce=secrets.token_hex(16),
            epoch=self.clock.epoch,
            speed=float(self.clock.speed),
            ports={name: os.path.realpath(p) if p.startswith("/") else p for name, p in ports.items()},
        )

    async def stop(self) -> None:
        """Close every port."""
        for twin in self.twins.values():
            await twin.stop()

    async def run(self, stopped: asyncio.Event) -> None:
        """Let time pass until ``stopped`` is set."""
        while not stopped.is_set():
            now_s = self.clock.now_s()
            self.late_s = max(self.late_s, (now_s - self._time_s) / self.clock.speed - TICK_WALL_S)
            self.io.advance(now_s)  # in one step, so that it sees whether this process was held up
            while self._time_s < now_s:
                self.step(min(now_s, self._time_s + LONGEST_STEP_S))
            await asyncio.sleep(TICK_WALL_S)

    def step(self, now_s: float) -> None:
        """Bring everything to one lab time."""
        world, dt_s = self.world, now_s - self._time_s
        self._time_s = now_s
        for name, twin in self.twins.items():
            if name not in BEAM:
                twin.advance(now_s)
        world.sample.process(dt_s, atoms_out=world.cell.lithium_atoms_out, temperature_k=world.holder.cell_k)
        for name in BEAM:  # these see the sample
            if name in self.twins:
                self.twins[name].advance(now_s)
            elif name in scenario.DETECTORS:
                world.beam.take(name)  # nobody counts these pulses
        self.faults.check(now_s)
        self.ticks += 1

    def inject(self, target: str, fault: Mapping[str, Any]) -> None:
        """Make something go wrong in one twin, or behind it."""
        if target not in self.twins:
            raise ValueError(f"no such target: {target!r}; known: {', '.join(self.twins)}")
        self.twins[target].inject(fault)

    def truth(self) -> dict[str, Any]:
        """Return what is true now."""
        return {
            "schema": TRUTH_SCHEMA,
            "scenario": self.world.name,
            "seed": self.world.seed,
            "speed": self.clock.speed,
            "lab_s": self._time_s,
            **self.world.truth(),
            "twins": self.counters(),
            "faults": self.faults.done,
            "faults_waiting": self.faults.waiting,
            "bench": {"ticks": self.ticks, "worst_late_wall_s": self.late_s, "cpu_s": time.process_time()},
        }

    def counters(self) -> dict[str, Any]:
        """Return what every twin counted, and which of its outputs are on; cheap, unlike the whole truth."""
        return {name: twin.counters() for name, twin in self.twins.items()}


def _socket_path(folder: Path) -> Path:
    path = folder / "bench.sock"
    if len(str(path)) <= LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="operando-")) / "bench.sock"


def write(path: Path, text: str) -> None:
    """Write a file so that nobody sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


async def serve(args: argparse.Namespace) -> None:
    """Run a bench as the command line says."""
    bench = Bench(
        args.scenario, speed=args.speed, seed=args.seed, factor=args.rates, replays=dict(args.replay),
        chosen=dict(args.chosen),
    )  # fmt: skip
    if args.fault is not None:
        bench.faults.load(args.fault, bench.twins)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    args.dir.mkdir(parents=True, exist_ok=True)

    def told_truth() -> dict[str, Any]:
        truth = bench.truth()
        if args.truth is not None:
            write(args.truth, json.dumps(truth, indent=1) + "\n")
        return truth

    place = await bench.start(args.dir.absolute())
    api = Api(bench, epoch=place.epoch, truth=told_truth, stop=stopped.set)
    control = ControlSocket(Path(place.socket), place.nonce, api.commands())
    try:
        await control.start()
        station = args.dir.absolute() / "station.toml"
        write(station, station_file(bench.world, place, bench.rack, page=args.page))
        print(station, flush=True)
        watch_owner(loop, stopped)
        await bench.run(stopped)
    finally:
        told_truth()
        await control.stop()
        await bench.stop()


def _replay(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if name not in scenario.DETECTORS or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not DETECTOR=FILE with one of {scenario.DETECTORS}")
    return name, Path(path)


def _choice(text: str) -> tuple[str, str]:
    role, equals, driver = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROLE=DRIVER")
    return role, driver


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    known = ", ".join(sorted(path.stem for path in scenario.FOLDER.glob("*.toml")))
    result = argparse.ArgumentParser(
        prog="python -m hil_tests.bench",
        description="Virtual bench: heater, cell, beam-line I/O and two photon detectors as twins of real "
        "instruments on pseudo-terminals, TCP and UDP ports of this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--dir", type=Path, required=True, help="folder for station.toml and the socket")
    add("--scenario", default="quickstart", help=f"a file, or one of: {known} (default quickstart)")
    add(
        "--speed", type=float, default=1.0, metavar="N", help="lab seconds per second of the wall (default 1)"
    )
    add("--seed", type=int, metavar="S", help="of all noise (default: the scenario's)")
    add("--fault", type=Path, metavar="FILE", help="what is to go wrong, see below")
    add("--truth", type=Path, metavar="FILE", help="where to write what was true")
    add("--page", action="store_true", help="a [web] table in the station file: a live page on a free port")
    add(
        "--rates",
        type=float,
        default=1.0,
        metavar="X",
        help="multiplies the photon rates: stress, no physics",
    )
    add(
        "--replay", type=_replay, action="append", default=[], metavar="DETECTOR=FILE",
        help="let a detector give the events of an ORTEC .Spe spectrum, in its real time",
    )  # fmt: skip
    rack = "; ".join(f"{role}: {', '.join([*known, NONE])}" for role, known in CHOICES.items())
    add(
        "--with", type=_choice, action="append", default=[], dest="chosen", metavar="ROLE=DRIVER",
        help=f"another instrument in the rack, or none; may be repeated. There are {rack}",
    )  # fmt: skip
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    args = parser().parse_args(arguments)
    if not args.speed >= 1.0:
        print("--speed must be at least 1", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(args))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
