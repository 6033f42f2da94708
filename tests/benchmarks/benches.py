"""How many benches one machine carries, and how fast: every instrument of each is driven over its wire.

    python -m tests.benchmarks.benches --benches 1 --speed 40 --seconds 60
    python -m tests.benchmarks.benches --benches 20 --speed 1 --seconds 60

Each bench is a process of its own. The load is this project's own drivers in this process: the heater read
four times and the I/O box ten times a lab second, the cell measured once, the beam scanned over a raster
without a break, both detectors in list mode emptied as they fill. Printed are the events per wall second, the
benches' use of the processor, how late the worst bench ever was, and the latency of every exchange.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.clock import bench_clock
from controller.config import load_station
from controller.devices import Bench, build, introduce
from drivers.clock import Clock
from drivers.errors import DriverError
from drivers.roles import BeamScanner, Ocv, Potentiostat, Raster
from hil_tests.harness import ask_socket

DWELL_S = 0.055
RASTER = Raster(nx=64, ny=64, width_um=100.0, height_um=300.0, dwell_s=DWELL_S)
START_S, END_S = 120.0, 30.0


class Load:
    """One bench and what is asked of it."""

    def __init__(self, folder: Path, speed: float) -> None:
        self.folder, self.speed = folder, speed
        self.latencies_s: list[float] = []
        self.errors = 0
        self.words = 0

    async def start(self) -> None:
        """Start the bench and prepare its instruments."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hil_tests.bench", "--dir", str(self.folder), "--speed", str(self.speed),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        path = (await asyncio.wait_for(self.process.stdout.readline(), START_S)).decode().strip()
        self.station = load_station(Path(path))
        assert self.station.bench is not None
        self.place = self.station.bench.model_dump()
        self.clock: Clock = await bench_clock(self.place)
        self.bench: Bench = build(self.station, self.clock)
        for line in self.bench.lines.values():
            await line.open()
        for device in self.bench.devices.values():
            await introduce(device)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask everything until ``stop``."""
        bench, heater, cell, io = self.bench, self.bench.heater, self.bench.cell, self.bench.io
        scanner = self.bench.scanner
        assert heater is not None
        assert cell is not None
        assert io is not None
        assert scanner is not None  # the usual rack has them all
        await io.set_shutter(open_=True)
        for detector in bench.detectors.values():
            await detector.clear()
            await detector.start()
        jobs = [
            self._often(heater.read, 0.25, stop), self._often(io.read, 0.1, stop),
            self._often(io.feed_watchdog, 0.5, stop), self._cell(cell, stop), self._scan(scanner, stop),
            *(self._empty(detector, stop) for detector in bench.detectors.values()),
        ]  # fmt: skip
        await asyncio.gather(*jobs)

    async def _often(self, ask: Any, every_s: float, stop: asyncio.Event) -> None:
        while not stop.is_set():
            due = time.monotonic() + every_s / self.speed
            await self._once(ask)
            await asyncio.sleep(max(due - time.monotonic(), 0.0))

    async def _once(self, ask: Any) -> Any:
        began = time.monotonic()
        try:
            return await ask()
        except DriverError:
            self.errors += 1
            return None
        finally:
            self.latencies_s.append(time.monotonic() - began)

    async def _cell(self, cell: Potentiostat, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(DriverError):
                await cell.start(Ocv(duration_s=1e5, interval_s=1.0))
                while not stop.is_set():
                    await cell.next(5.0)
        await cell.stop()

    async def _scan(self, scanner: BeamScanner, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await scanner.run_lines(RASTER, 0, on_line=lambda _line: None, should_stop=stop.is_set)
            except DriverError:
                self.errors += 1

    async def _empty(self, detector: Any, stop: asyncio.Event) -> None:
        while not stop.is_set():
            chunk = await self._once(detector.read_words)
            if chunk is not None:
                self.words += len(chunk.words) // 4
                if len(chunk.words) >= 1024:
                    continue
            await asyncio.sleep(0.05)

    def truth(self) -> dict[str, Any]:
        """Return what the bench knows of itself."""
        request = {"nonce": self.place["nonce"], "do": "truth"}
        found: dict[str, Any] = ask_socket(self.place["socket"], request)["truth"]
        return found

    async def end(self) -> None:
        """Everything off, the bench ended."""
        with contextlib.suppress(Exception):
            await self.bench.close()
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), END_S)


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """Return what one bench did between two truths."""
    drawn = {
        when: sum(counts["slow"] for counts in told["photons"].values())
        for when, told in (("before", before), ("after", after))
    }
    return {
        "events": drawn["after"] - drawn["before"],
        "cpu_s": after["bench"]["cpu_s"] - before["bench"]["cpu_s"],
        "worst_late_s": after["bench"]["worst_late_wall_s"],
        "lab_s": after["lab_s"] - before["lab_s"],
    }


async def measure(benches: int, speed: float, seconds: float) -> dict[str, Any]:
    """Run so many benches for so long; return the figures."""
    with tempfile.TemporaryDirectory(prefix="benches-") as folder:
        loads = [Load(Path(folder) / str(number), speed) for number in range(benches)]
        stop = asyncio.Event()
        try:
            for load in loads:
                await load.start()
            running = [asyncio.ensure_future(load.run(stop)) for load in loads]
            await asyncio.sleep(5.0)
            before, began, cpu_s = [load.truth() for load in loads], time.monotonic(), time.process_time()
            for load in loads:
                load.latencies_s.clear()
                load.errors = load.words = 0
            await asyncio.sleep(seconds)
            after, wall_s = [load.truth() for load in loads], time.monotonic() - began
            cpu_s = time.process_time() - cpu_s
            stop.set()
            await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), END_S)
        finally:
            for load in loads:
                await load.end()
        did = [difference(a, b) for a, b in zip(before, after, strict=True)]
        latency = sorted(latency for load in loads for latency in load.latencies_s)
        return {
            "benches": benches, "speed": speed, "wall_s": round(wall_s, 1), "processors": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 2),
            "speed_reached": round(min(one["lab_s"] for one in did) / wall_s, 2),
            "events_per_s": round(sum(one["events"] for one in did) / wall_s),
            "words_read_per_s": round(sum(load.words for load in loads) / wall_s),
            "exchanges_per_s": round(len(latency) / wall_s), "errors": sum(load.errors for load in loads),
            "latency_ms": {
                "median": round(1e3 * statistics.median(latency), 1),
                "99 %": round(1e3 * latency[int(0.99 * len(latency))], 1),
                "worst": round(1e3 * latency[-1], 1),
            },
            "cpu_of_a_bench": round(statistics.fmean(one["cpu_s"] for one in did) / wall_s, 3),
            "cpu_of_all_benches": round(sum(one["cpu_s"] for one in did) / wall_s, 2),
            "cpu_of_the_load": round(cpu_s / wall_s, 2),
            "worst_late_ms": round(1e3 * max(one["worst_late_s"] for one in did)),
        }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.benches", description=__doc__)
    parser.add_argument("--benches", type=int, default=20)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args(arguments)
    print(json.dumps(asyncio.run(measure(args.benches, args.speed, args.seconds)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
