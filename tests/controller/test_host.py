"""The order in which control begins and ends a run; the journal is real, the instruments are left alone."""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller import host as host_module
from controller import supervise
from controller.config import experiment_from, from_text, station_from
from controller.guard import Action
from controller.host import Host
from controller.journal import AsyncJournal, JournalError
from controller.safety import ActionResult
from controller.sequence import Outcome
from controller.supervise import Supervisor
from drivers.clock import RealClock

FILES = Path(__file__).parent / "config"
RUN = "20260101-120000-cycling"
REAL_ROW = {
    "done": 2, "scans": 1, "origin_um": [0.0, 0.0], "part": [0.001, 100.0], "charge_coulomb": 0.005,
    "throughput_coulomb": 0.006, "charged_s": 500.0, "unmeasured_s": 0.0, "missed_coulomb": 0.0,
}  # fmt: skip


class Quiet(Host):
    """A host that says nothing to any instrument; ``told`` is what it did, in order."""

    told: list[str]
    steps: Callable[[], Awaitable[None]]

    async def _poll_io(self) -> None:
        await self._until_cancelled("watchdog no longer fed")

    async def _watch(self) -> None:
        await self._until_cancelled("guard ended")

    async def _sequence(self) -> None:
        await self.journal.start_run(self.run_id, experiment="x", directory=str(self.run_dir), body={})
        await self.steps()

    async def _until_cancelled(self, what: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append(what)


class Resuming(Quiet):
    """The same with the real way into a run."""

    _sequence = Host._sequence

    async def _watch(self) -> None:
        await asyncio.sleep(0.3)  # a slow reduce: many checkpoints' time
        self.reduction.ready.set()
        await super()._watch()


class Patience(Supervisor):
    """A supervisor that watches a control in this very process."""

    killed = False

    async def _kill_control(self) -> None:
        self.killed = True


async def nothing_to_do() -> None:
    pass


def make(kind: type[Quiet], folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Quiet:
    station = station_from(from_text((FILES / "station.toml").read_text(), "station.toml"))
    experiment = experiment_from(from_text((FILES / "experiment.toml").read_text(), "experiment.toml"))
    options = {"state": folder / "state", "run_dir": folder / RUN, "resume": False, "heartbeat": None, **more}
    (folder / RUN).mkdir()
    host = kind(argparse.Namespace(**options, estimate_s=1.0), station, experiment, RealClock())
    host.told, host.steps = [], nothing_to_do

    async def carry_out(*_: Any) -> list[ActionResult]:
        host.told.append("safe")
        return [ActionResult("io", confirmed=True, seconds=0.0)]

    async def no_poll(_: Any) -> None:
        await asyncio.Event().wait()

    async def no_instruments(_: Host) -> None:
        pass

    monkeypatch.setattr(host_module, "connect", no_instruments)
    monkeypatch.setattr(host_module, "agree", no_instruments)  # a cell that nobody can read is asked about
    monkeypatch.setattr(host_module, "carry_out", carry_out)
    monkeypatch.setattr("controller.heating.Heating.poll", no_poll)
    return host


async def leave_an_open_run(state: Path, station: str) -> None:
    """As a host that was killed in the middle of a charge."""
    async with await AsyncJournal.open(state / "journal.sqlite", station=station) as journal:
        await journal.boot("run")
        await journal.start_run(RUN, experiment="x", directory="d", body={})
        await journal.checkpoint(RUN, "sequence", REAL_ROW)


async def test_a_slow_reduce_at_resume_leaves_the_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "CHECKPOINT_PERIOD_S", 0.02)
    monkeypatch.setattr(host_module, "RESULT_TIMEOUT_S", 0.01)
    host = make(Resuming, tmp_path, monkeypatch, resume=True)
    await leave_an_open_run(tmp_path / "state", host.station.station.name)
    rows: list[dict[str, Any]] = []

    async def steps(sequence: Any) -> Outcome:
        rows.append({"done": sequence._done, "part": sequence.context.carried})
        await asyncio.sleep(0.2)
        row = await host.journal.last_checkpoint(RUN, "sequence")
        assert row is not None
        rows.append(row.body)
        return Outcome(True, "every step is done")

    monkeypatch.setattr("controller.sequence.Sequencer.run", steps)
    await host.run()
    assert rows[0] == {"done": 2, "part": (0.001, 100.0)}
    assert rows[1]["done"] == 2  # written anew since, by the run that goes on
    assert rows[1]["charge_coulomb"] == REAL_ROW["charge_coulomb"]


async def silent_potentiostat(host: Quiet) -> None:
    """A step that is asked to end, and whose instrument does not answer for a while."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.2)
        host.told.append("step ended")


async def test_at_abort_safe_comes_first_and_the_guard_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make(Quiet, tmp_path, monkeypatch)

    async def aborted_on_the_way() -> None:
        asyncio.get_running_loop().call_later(0.1, host.abort, "a test")
        await silent_potentiostat(host)

    host.steps = aborted_on_the_way
    assert await host.run() == 5
    assert host.told[:2] == ["safe", "step ended"]
    assert set(host.told[2:4]) == {"guard ended", "watchdog no longer fed"}
    assert host.told[4:] == ["safe"]  # once more, with nobody left to switch anything on


async def test_a_service_that_fails_makes_safe_first_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make(Quiet, tmp_path, monkeypatch)
    host.steps = lambda: silent_potentiostat(host)

    async def full_disk(_: Any) -> None:
        await asyncio.sleep(0.3)
        raise JournalError(Path("j"), "disk full")

    monkeypatch.setattr(Host, "_keep_checkpoints", full_disk)
    assert await host.run() == 3
    assert host.told[:2] == ["safe", "step ended"]


async def test_a_step_that_misses_its_cancellation_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "STEPS_END_S", 0.05)
    host = make(Quiet, tmp_path, monkeypatch)

    async def deaf_once() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    host.steps = deaf_once
    asyncio.get_running_loop().call_later(0.3, host.abort, "a test")
    assert await asyncio.wait_for(host.run(), 5.0) == 5


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "CONTROL_FROZEN_S", 0.8)
    monkeypatch.setattr(supervise, "HEARTBEAT_S", 0.05)


async def watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, extract: Callable[..., Awaitable[None]]
) -> tuple[int, Patience]:
    """Run a host to its end under the eyes of a supervisor; return its exit code and the supervisor."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    host = make(Quiet, folder, monkeypatch, heartbeat=theirs.detach())
    monkeypatch.setattr("controller.journal.AsyncJournal.extract", extract)
    supervisor = Patience(argparse.Namespace(state=folder / "state", run_dir=folder / RUN))
    control: Any = SimpleNamespace(process=SimpleNamespace(returncode=None))
    beating = asyncio.create_task(supervisor._heartbeat(ours))
    watching = asyncio.create_task(supervisor._watch_frozen(control))
    code = await host.run()
    for task in (beating, watching):
        task.cancel()
    await asyncio.gather(beating, watching, return_exceptions=True)
    ours.close()
    return code, supervisor


@pytest.mark.usefixtures("impatient")
async def test_an_extract_may_take_longer_than_the_supervisor_is_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    async def slow(*_: Any) -> None:
        await asyncio.to_thread(time.sleep, 2.5)
        written.append("extract")

    code, supervisor = await watched(tmp_path, monkeypatch, slow)
    assert code == 0
    assert written == ["extract"]
    assert not supervisor.killed


@pytest.mark.usefixtures("impatient")
async def test_an_end_that_never_comes_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "ENDING_S", 0.2)

    async def too_long(*_: Any) -> None:
        await asyncio.sleep(2.5)

    _, supervisor = await watched(tmp_path, monkeypatch, too_long)
    assert supervisor.killed


async def test_a_trip_that_cannot_be_written_ends_the_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk and a fault in one night: everything goes off, and nothing goes on because of the disk."""
    host = make(Quiet, tmp_path, monkeypatch)

    async def full_disk(_: Any) -> None:
        raise JournalError(Path("j"), "disk full")

    async def trips() -> None:
        host.recorder.trip = full_disk  # type: ignore[method-assign]
        host.guard.interlock_only("test", "something is wrong", Action.OPEN_CIRCUIT)
        await asyncio.Event().wait()

    host.steps = trips
    assert await asyncio.wait_for(host.run(), 60.0) == 4
    assert host.told[0] == "safe"
