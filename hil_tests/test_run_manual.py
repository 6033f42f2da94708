"""Whole runs in which others command: a plan, a SECoP client, one that vanishes, a host that dies."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from controller.gateways.bluesky import Host, LimitError
from controller.gateways.hand import Gone, Hand, Refused
from controller.paths import StateDir
from hil_tests.harness import Run, World, edited_station, eventually, experiment, scan_step, warm_scenario

pytestmark = pytest.mark.soak  # minutes of whole runs: python -m hil_tests.soak --only manual

AMBIENT_K = 328.0
STEP = """
[[step]]
do = "manual"
gone = "hold"
silence = "3 s"
timeout = "2 h"
heater = { low = "320 K", high = "340 K", ramp = "15 K/min" }
cell = { low = "2.8 V", high = "4.0 V", current = "15 uA", charge = "50 mC" }
scan = { raster = { pixels = [8, 12], size = ["100 um", "300 um"], dwell = "10 ms" }, passes = 10 }
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    bench = World.start(
        folder, speed=2.0, seed=7, scenario=warm_scenario(folder / "warm.toml", ambient_k=AMBIENT_K)
    )
    yield bench
    bench.stop()


@pytest.fixture
def run(world, tmp_path):
    """A run that has come to its manual step, with a SECoP node that may command."""
    port = free_port()
    table = f"\n[secop]\nport = {port}\nwrite = true\n"
    station = edited_station(world, tmp_path / "station.toml", lambda text: text + table)
    steps = scan_step("as prepared", (8, 12), 10.0, "until = { passes = 1 }") + STEP
    made = Run.start(tmp_path, experiment(tmp_path / "manual.toml", steps), "--station", str(station))
    made.secop_port = port
    try:
        hand = Hand(StateDir(made.state).socket("control"), "a look")

        def there():
            assert made.process.poll() is None, made.tell()
            try:
                return hand.manual()
            except (Refused, Gone):
                return None

        eventually(there, "the manual step", seconds=180.0, tell=made.tell)
        yield made
    finally:
        made.kill_all()


@pytest.fixture
def host(run):
    made = Host(StateDir(run.state).socket("control"))
    yield made
    made.close()


def engine():
    from bluesky import RunEngine

    made = RunEngine({})
    made.waiting_hook = None
    documents = []
    made.subscribe(lambda name, document: documents.append((name, document)))
    return made, documents


def named(documents, kind):
    return [document for name, document in documents if name == kind]


def test_a_plan_heats_reads_scans_and_counts_within_limits(world, run, host):
    from bluesky import plan_stubs as bps
    from bluesky import plans as bp

    made, documents = engine()
    made(bp.count([host.heater, host.charge], num=2))
    (told,) = named(documents, "descriptor")
    assert told["data_keys"]["heater"]["units"] == "K"
    assert told["data_keys"]["heater"]["limits"] == {"control": {"low": 320.0, "high": 340.0}}
    assert told["data_keys"]["cell_charge"]["units"] == "C"
    events = named(documents, "event")
    assert len(events) == 2
    assert events[0]["data"]["heater_sigma"] == 1.0
    assert events[0]["data"]["heater"] == pytest.approx(AMBIENT_K, abs=3.0)

    made(bps.mv(host.heater, 333.0, timeout=240.0))
    status = run.status()
    assert status["target_k"] == 333.0  # the engine has stopped the heater: it holds, and is not off
    assert status["temperature_k"] == pytest.approx(333.0, abs=1.0)
    assert world.outputs().relay_closed

    with pytest.raises(LimitError, match="heat 345 K is refused: the step allows 320 K to 340 K"):
        made(bps.abs_set(host.heater, 345.0))
    assert run.status()["target_k"] == 333.0

    documents.clear()
    made(bp.count([host.scan], num=2))
    assert [event["data"]["scan"] for event in named(documents, "event")] == [1, 2]
    assert len([event for event in run.events("pass") if event["body"].get("good")]) >= 3

    def fly():
        yield from bps.prepare(host.cell, {"do": "charge", "current_a": 10e-6, "duration_s": 20.0}, wait=True)
        yield from bps.kickoff(host.cell, wait=True)
        yield from bps.sleep(1.0)
        yield from bps.trigger_and_read([host.voltage, host.current])
        yield from bps.complete(host.cell, wait=True)

    documents.clear()
    from bluesky.preprocessors import run_wrapper

    made(run_wrapper(fly()))
    (event,) = named(documents, "event")
    assert event["data"]["cell_current"] == pytest.approx(10e-6, rel=0.05)
    assert not world.outputs().cell_on

    host.command("done")
    assert run.ended(seconds=120.0) == 0, run.tell()
    world.stays_off()
    verbs = [row["body"]["verb"] for row in run.events("manual")]
    assert verbs[0] == "take"
    assert {"heat", "hold", "scan", "charge", "done"} <= set(verbs)
    assert {row["body"]["by"] for row in run.events("manual")} == {"Bluesky"}
    assert "345 K is refused" in str(run.events("manual_refused"))


def test_stop_and_abort_of_a_plan_hold_and_open_the_circuit(world, run, host):
    from bluesky import plan_stubs as bps
    from bluesky.preprocessors import run_wrapper
    from bluesky.utils import RunEngineInterrupted

    made, _ = engine()
    begun = world.outputs().lab_s

    def plan():
        yield from bps.checkpoint()
        yield from bps.abs_set(host.heater, 339.0, group="far")
        yield from bps.sleep(3.0)
        yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        made(run_wrapper(plan()))
    made.stop()
    held = eventually(
        lambda: (now := run.status()) and now["target_k"] != 339.0 and now["target_k"], "a hold"
    )
    assert 320.0 <= held < 338.9  # where the ramp was, inside the window; neither off nor at its end
    assert world.outputs().lab_s > begun
    assert world.outputs().relay_closed

    host.cell.prepare({"do": "charge", "current_a": 10e-6})

    def charge():
        yield from bps.kickoff(host.cell, wait=True)
        yield from bps.sleep(1.0)
        yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        made(run_wrapper(charge()))
    made.abort()
    host.cell.stop()
    world.until(lambda outputs: not outputs.cell_on, "the circuit is open", run=run)
    assert run.status()["target_k"] == held


def test_a_host_that_is_killed_in_a_move_fails_the_plan_within_seconds(world, run, host):
    from bluesky import plan_stubs as bps
    from bluesky.utils import FailedStatus

    made, _ = engine()
    killed = []

    def kill_later():
        yield from bps.abs_set(host.heater, 339.0, group="move")
        run.signal("control", signal.SIGKILL)
        killed.append(time.monotonic())
        yield from bps.wait(group="move")

    with pytest.raises((FailedStatus, Gone)):
        made(kill_later())
    assert time.monotonic() - killed[0] < 8.0
    with pytest.raises(Gone):
        host.heater.read()
    world.until(lambda outputs: outputs.off, "everything is off")


def test_a_secop_client_commands_while_the_step_runs_and_only_then(world, run):
    frappy_client = pytest.importorskip("frappy.client")
    client = frappy_client.SecopClient(f"tcp://127.0.0.1:{run.secop_port}", log=None)
    eventually(lambda: _connected(client), "the SECoP node")
    try:
        assert client.getParameter("heater", "value").value == pytest.approx(
            run.status()["temperature_k"], abs=1.0
        )  # the tests before may have heated it
        assert client.setParameter("heater", "target", 333.0).value == pytest.approx(333.0)
        assert run.status()["target_k"] == 333.0
        with pytest.raises(Exception, match="is refused: the step allows"):
            client.setParameter("heater", "target", 341.0)
        assert int(client.getParameter("heater", "status").value[0]) in (100, 300)
        other = Hand(StateDir(run.state).socket("control"), "another")
        with pytest.raises(Refused, match="in the hands of SECoP"):
            other.command("off")
        client.execCommand("manual", "charge", {"current_a": 10e-6})
        world.until(lambda outputs: outputs.cell_on, "the cell is driven", run=run)
    finally:
        client.disconnect()
    world.until(lambda outputs: not outputs.cell_on, "a client that hung up: the circuit is open", run=run)
    assert run.status()["target_k"] is not None  # gone = "hold"
    other.command("done")
    assert run.ended(seconds=120.0) == 0, run.tell()


def _connected(client):
    try:
        client.connect(1)
    except Exception:
        return False
    return "heater" in client.modules


def test_a_client_that_freezes_leaves_what_the_step_declares(world, run):
    hand = Hand(StateDir(run.state).socket("control"), "frozen")
    hand.command("heat", to_k=335.0)
    hand.command("charge", current_a=10e-6)
    world.until(lambda outputs: outputs.cell_on, "the cell is driven", run=run)
    world.until(lambda outputs: not outputs.cell_on, "nobody is in charge: open", run=run, seconds=20.0)
    run.until_line("frozen was not heard for 3 s")
    assert world.outputs().relay_closed
