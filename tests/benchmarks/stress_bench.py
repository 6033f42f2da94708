"""The virtual bench with a torrent of events: so many a second from both detectors, whatever the beam does.

A stress of the software, no physics: the events have the energies that the scenario's detectors would see,
but neither places nor dead time. They leave the real twins, in list mode, over UDP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import numpy as np

from hil_tests.bench import Bench, write
from hil_tests.sim.control import ControlSocket
from hil_tests.sim.physics import spectra
from hil_tests.sim.physics.beam import Beam
from hil_tests.sim.physics.components import LITHIUM_LEFT
from hil_tests.sim.physics.photons import Photons, Pulses
from hil_tests.sim.scenario import DETECTORS
from hil_tests.sim.station_file import station_file

POOL = 1 << 20  # energies drawn beforehand


class Torrent:
    """Events at a constant mean rate, with energies of a detector's own spectrum, and the pixel clock.

    Args:
        photons: of the detector; gives the spectrum.
        beam: gives the pixel clock, under the detector's name.
        per_s: events per lab second.
        pulses_per_pass: the lab time of every so many pulses is written down: a pass has ended.
        channels, full_scale_kev: of the processor.
        rng: seeded.
    """

    def __init__(
        self, photons: Photons, beam: Beam, *, per_s: float, pulses_per_pass: int, channels: int,
        full_scale_kev: float, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.ends_s: list[float] = []
        self.events = 0
        self._beam, self._name, self._rng = beam, photons.name, rng
        self._per_s, self._pulses_per_pass = per_s, pulses_per_pass
        self._pulses = 0
        self._now_s = 0.0
        components = photons.components
        prepared = int(np.argmin(np.abs(LITHIUM_LEFT - 1.0)))
        weight = components.on_host[prepared] + components.beam + components.room
        which = rng.choice(weight.size, POOL, p=weight / weight.sum())
        energy_kev = spectra.draw(components.tables, which, rng.random(POOL))
        channel = np.floor(energy_kev * channels / full_scale_kev).astype(np.int64)
        self._pool = np.clip(channel, 1, channels - 1)

    def until(self, now_s: float) -> Pulses:
        """Return the events since the last call."""
        begin_s, self._now_s = self._now_s, now_s
        count = int(self._rng.poisson(self._per_s * (now_s - begin_s)))
        time_s = np.sort(self._rng.uniform(begin_s, now_s, count))
        start = int(self._rng.integers(POOL))
        channel = self._pool[np.arange(start, start + count) % POOL]
        self.events += count
        batches = self._beam.take(self._name)
        edges = np.concatenate([batch.pulses_s for batch in batches]) if batches else np.zeros(0)
        numbers = self._pulses + 1 + np.arange(edges.size)
        self.ends_s += edges[numbers % self._pulses_per_pass == 0].tolist()
        self._pulses += edges.size
        return Pulses(now_s, time_s, np.zeros(count), time_s, edges, channel)


async def serve(args: argparse.Namespace) -> None:
    """Run the bench until standard input closes or SIGTERM."""
    bench = Bench("quickstart", speed=1.0, seed=args.seed)
    torrents = {}
    for number, name in enumerate(DETECTORS):
        twin = bench.twins[name]
        twin.fifo.capacity = args.fifo_words
        twin.source = torrents[name] = Torrent(
            bench.world.photons[name],
            bench.world.beam,
            per_s=args.per_s,
            pulses_per_pass=args.pulses_per_pass,
            channels=int(twin.settings["channels"]),
            full_scale_kev=float(twin.settings["full_scale_kev"]),
            rng=np.random.default_rng([args.seed, number]),
        )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    folder = args.dir.absolute()
    place = await bench.start(folder)
    control = ControlSocket(
        Path(place.socket),
        place.nonce,
        {"hello": lambda _request: {"speed": place.speed, "epoch": place.epoch}},
    )
    await control.start()
    write(folder / "station.toml", station_file(bench.world, place, bench.rack))
    print(json.dumps({"station": str(folder / "station.toml"), "epoch": place.epoch}), flush=True)
    try:
        await bench.run(stopped)
    finally:
        told = {
            **bench.truth(),
            "torrent": {name: {"events": t.events, "pass_ends_s": t.ends_s} for name, t in torrents.items()},
        }
        write(folder / "truth.json", json.dumps(told))
        await control.stop()
        await bench.stop()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.stress_bench", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--per-s", type=float, default=100_000.0)
    parser.add_argument("--pulses-per-pass", type=int, required=True)
    parser.add_argument("--fifo-words", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
