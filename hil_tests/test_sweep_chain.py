"""Steps, cycling, guard, journal, driver and twin in one process: from the experiment to R_s and R_ct.

Nothing but heater and beam is missing, so that a busy machine is late for nothing. The truth is that of the
twin: its resistances at 333.15 K, its coulombs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.config import experiment_from, from_text, load_experiment, load_station
from controller.config.limits import effective_limits
from controller.cycling import ChargeError, Cycling
from controller.guard import Guard, GuardRules
from controller.journal import AsyncJournal
from controller.offline.run_files import RunFiles
from controller.offline.sweeps import reduced
from controller.record import Recorder
from controller.resumption import take_up
from controller.sequence import Sequencer
from drivers import palmsens_emstat4
from drivers.palmsens_emstat4 import EmStat4
from drivers.ports import open_line
from hil_tests.harness import EXPERIMENTS
from hil_tests.sim.clock import LabClock
from hil_tests.sim.palmsens_emstat4 import EmStatTwin
from hil_tests.sim.physics.cell import Cell, CellParameters

STATION = Path(__file__).parents[1] / "tests" / "controller" / "config" / "station.toml"
SPEED, WARM_K, RUN = 120.0, 333.15, "20260101-120000-impedance"
R_S, R_CT, WARBURG = 2500.0, 2000.0, 1500.0 / math.sqrt(2.0 * 300.0)  # R/sqrt(2 tau), in ohm/sqrt(s)
PULSE_A, PULSE_S, PULSES = 15e-6, 20.0, 3
CHARGED = 15e-6 * 40.0

STEPS = f"""[[step]]
do = "charge"
current = "15 uA"
until = {{ duration = "40 s" }}
timeout = "30 min"

[[step]]
do = "rest"
duration = "10 s"
interval = "2 s"

[[step]]
do = "eis"
name = "at rest"
start = "10 kHz"
stop = "0.1 Hz"
points = 26
circuit = "R0-p(R1,C1)-W2-C3"
timeout = "2 h"

[[step]]
do = "pulse"
name = "titration"
direction = "charge"
current = "15 uA"
on = "{PULSE_S:g} s"
rest = "10 s"
times = {PULSES}

[[step]]
do = "eis"
name = "about a current"
mode = "galvanostatic"
start = "10 kHz"
stop = "0.1 Hz"
points = 26
current_amplitude = "2 uA"
current = "1 uA"
circuit = "R0-p(R1,C1)-W2-C3"
timeout = "2 h"
"""


class Clock(LabClock):
    """The bench's clock, as the host sees it."""

    def wall_timeout_s(self, lab_s: float) -> float:
        """Deadlines in wall seconds; long ones, for nothing here may trip because the machine is busy."""
        return max(lab_s / self.speed, 5.0)


class Chain:
    """A run without heater and beam; a crash leaves the twin as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock(speed=SPEED)
        self.cell = Cell(CellParameters(start_x=0.8), temperature_k=lambda: WARM_K)
        self.twin = EmStatTwin(self.cell, self.clock, {"seed": 3})
        self.station = load_station(STATION)
        head = (EXPERIMENTS / "impedance.toml").read_text().partition("[[step]]")[0]
        (folder / "experiment.toml").write_text(head + STEPS)
        self.experiment = load_experiment(folder / "experiment.toml")
        self.trips: list[Any] = []
        self.device_port = ""

    async def begin(self, *, resume: bool = False) -> Sequencer:
        """Open journal and instrument as the host does; return the sequence, ready to run."""
        self.device_port = self.device_port or await self.twin.start()
        self.line = open_line("cell", {"kind": "serial", "port": self.device_port, "baud": 921600})
        await self.line.open()
        self.driver = EmStat4(self.line, name="cell", clock=self.clock, settings={"model": "es4_hr"})
        self.journal = await AsyncJournal.open(
            self.folder / "journal.sqlite",
            station="bench",
            clock=self.clock.now_s,
            on_error=self.trips.append,
        )
        await self.journal.boot("run")
        limits = effective_limits(self.station, self.experiment)
        rules = GuardRules(
            temperature_low_k=263.0, temperature_high_k=343.0, temperature_rate_k_per_s=1.0,
            voltage_low_v=limits.voltage_low_v, voltage_high_v=limits.voltage_high_v,
            current_a=limits.current_a, charge_coulomb=limits.charge_coulomb,
            period_s={"heater": 1.0, "io": 1.0, "cell": 1.0},
        )  # fmt: skip
        self.guard = Guard(rules, self.clock, self.trips.append)
        self.recorder = Recorder(self.journal, self.clock, RUN, lambda body: None)
        self.cycling = Cycling(self.driver, self.guard, self.clock, self.recorder, error=ChargeError())
        host = SimpleNamespace(
            clock=self.clock, station=self.station, experiment=self.experiment, cycling=self.cycling,
            guard=self.guard, recorder=self.recorder, journal=self.journal, run_id=RUN,
            exposing=SimpleNamespace(received=dict),
        )  # fmt: skip
        sequence = Sequencer(host)  # type: ignore[arg-type]
        await self.driver.prepare()
        if resume:
            await self.recorder.event("instruments", "host", {"cell": {"t": time.time()}})
            carried = await take_up(self.journal, RUN, SPEED, "cell")
            assert carried is not None
            sequence.go_on_from(carried.body)
        else:
            await self.journal.start_run(RUN, experiment="impedance", directory=str(self.folder))
        await self.recorder.documents.start(self.station, self.experiment, limits)
        await sequence.checkpoint()
        return sequence

    async def end(self) -> None:
        """Close everything of the host's."""
        await self.driver.close()
        await self.journal.close()

    async def crash(self, sequence: Sequencer, when: Any) -> None:
        """Run until ``when`` is true of the recorder's samples, then die without a word to the instrument."""
        work = asyncio.ensure_future(sequence.run())
        while not when():
            assert not work.done(), work
            await asyncio.sleep(0.01)
        self.driver.stop = _nothing  # type: ignore[method-assign]  # a dead host stops nothing
        self.recorder.cell_opened = lambda now: None  # type: ignore[method-assign]  # and writes nothing
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await work
        await self.end()


async def _nothing() -> None:
    """What a dead host does."""


@pytest.fixture
async def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(palmsens_emstat4, "PAUSE_AFTER_ERROR_S", 0.005)
    made = Chain(tmp_path)
    yield made
    await made.twin.stop()


def truth_coulomb(chain: Chain) -> float:
    return float(chain.cell.charge.terminals)


def sigma_coulomb(chain: Chain) -> float:
    return chain.cycling.now.charge_sigma_coulomb(chain.cycling.error)


async def test_charge_rest_eis_pulses_geis(chain: Chain) -> None:
    sequence = await chain.begin()
    outcome = await sequence.run()
    assert outcome.complete, outcome.text
    counted, sigma = chain.cycling.now.charge_coulomb, sigma_coulomb(chain)
    await chain.end()
    assert chain.trips == []
    assert counted == pytest.approx(truth_coulomb(chain), abs=4.0 * sigma)
    assert counted > CHARGED + PULSE_A * PULSE_S * PULSES  # and the bias of the second sweep

    run = RunFiles(chain.folder)
    (chain.folder / "record.json").write_text(f'{{"run": "{RUN}"}}')
    eis, geis = reduced(RunFiles(chain.folder))
    assert [one.told["mode"] for one in (eis, geis)] == ["potentiostatic", "galvanostatic"]
    for one in (eis, geis):
        quantities = one.told["quantities"]
        assert one.told["kramers_kronig"]["passed"], one.told["kramers_kronig"]
        assert quantities["r_s"]["value"] == pytest.approx(R_S, rel=0.005)
        assert quantities["r_ct"]["value"] == pytest.approx(R_CT, rel=0.01)
        assert quantities["warburg"]["value"] == pytest.approx(WARBURG, rel=0.15)
        assert one.told["points"] == 26
    assert geis.told["soc"] > eis.told["soc"]
    assert run.journal is not None


async def test_killed_in_a_sweep_and_in_a_pulse_train(chain: Chain) -> None:
    """The script goes on alone until the next host ends it; nothing is done, and nothing counted, twice."""
    sequence = await chain.begin()
    await chain.crash(sequence, lambda: chain.cycling.now.state == "eis" and chain.cycling.now.step_s > 5.0)
    sequence = await chain.begin(resume=True)
    programs: list[str] = []
    started = chain.driver.start

    async def start(program: Any) -> None:
        programs.append(type(program).__name__)
        await started(program)

    chain.driver.start = start  # type: ignore[method-assign]
    await chain.crash(
        sequence, lambda: programs.count("ConstantCurrent") == 2 and chain.cycling.now.step_s > 5.0
    )
    sequence = await chain.begin(resume=True)
    outcome = await sequence.run()
    assert outcome.complete, outcome.text
    counted, sigma = chain.cycling.now.charge_coulomb, sigma_coulomb(chain)
    await chain.end()
    assert chain.trips == []

    # what was counted is what passed, what flowed unwatched included, with an error of its size
    assert counted == pytest.approx(truth_coulomb(chain), abs=4.0 * sigma)
    unwatched = chain.cycling.now.missed_coulomb
    planned = CHARGED + PULSE_A * PULSE_S * PULSES
    bias = 1e-6 * 300.0  # of the second sweep, at the most
    assert counted < planned + bias + unwatched  # another pulse would be 0.3 mC
    (chain.folder / "record.json").write_text(f'{{"run": "{RUN}"}}')
    found = [one.told for one in reduced(RunFiles(chain.folder))]
    assert [one["complete"] for one in found] == [False, True, True]
    assert found[1]["quantities"]["r_s"]["value"] == pytest.approx(R_S, rel=0.005)


def test_the_steps_here_are_those_of_the_published_experiment() -> None:
    """The experiment that a user runs has the same kinds of steps, and reads."""
    experiment = experiment_from(from_text((EXPERIMENTS / "impedance.toml").read_text(), "impedance.toml"))
    kinds = [step.do for step in experiment.steps]
    assert [kind for kind in kinds if kind != "heat"] == ["charge", "rest", "eis", "pulse", "eis", "rest"]
