"""More states of a run in which a fault of the catalogue may strike, and stations that differ for it.

The plate is warm at once: the room of the tests' bench has 328 K.
"""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil_tests.harness import Run, World, edited_station, experiment, one_scan, scan_step

if TYPE_CHECKING:
    from hil_tests.fault_going_on import Sign
    from hil_tests.fault_run import Scene
    from hil_tests.fault_settings import Setting, Undo

HEAT = """[[step]]
do = "heat"
to = "{to_k} K"
within = "{within_k} K"
ramp = "15 K/min"
stable = "{stable_s} s"
timeout = "10 min"

"""
REFERENCE = scan_step("as prepared", (8, 12), 10.0, "until = { passes = 1 }")
LONG_S = 900.0
PATIENCE_S = 150.0  # wall seconds until a run is where its fault strikes


def _start(world: World, folder: Path, name: str, steps: str) -> Run:
    path = experiment(folder / f"{name}.toml", REFERENCE + steps)
    return Run.start(folder, path, "--station", str(world.station))


def _until(run: Run, met: Callable[[dict[str, Any]], Any], what: str) -> Run:
    try:
        run.until(met, what, seconds=PATIENCE_S)
    except BaseException:
        run.kill_all()
        raise
    return run


def _heat(to_k: float, stable_s: float, within_k: float = 7.5) -> str:
    """Return a step that heats; with the usual band a plate as warm as the room is there at once."""
    return HEAT.format(to_k=to_k, stable_s=stable_s, within_k=within_k)


def _cell(keys: str) -> str:
    return f'[[step]]\n{keys}\ntimeout = "{LONG_S + 60:g} s"\n\n'


def warming_up(world: World, folder: Path) -> Run:
    """The plate is on its way up: 12 K in less than a minute."""
    run = _start(world, folder, "warming", _heat(340.0, 30.0, 1.5))
    _until(run, lambda status: _number(status) == 2, "a heated plate")
    return _on_plate(run, world)


def warm(world: World, folder: Path) -> Run:
    """The plate has been held at 332 K for a while, and is held there; nothing else is on."""
    hold = f'[[step]]\ndo = "hold"\nduration = "{LONG_S:g} s"\n\n'
    run = _start(world, folder, "warm", _heat(332.0, 20.0, 1.0) + hold)
    return _until(run, lambda status: _number(status) == 3, "the held plate")


def before_heating(world: World, folder: Path) -> Run:
    """Heating is the next step; a scan goes on."""
    scan = scan_step("before", (16, 24), 10.0, "until = { passes = 4 }")
    run = _start(world, folder, "before", scan + _heat(335.0, 5.0))
    return _until(run, lambda status: status["scan"] and _number(status) == 2, "the second scan")


def constant_current(world: World, folder: Path) -> Run:
    """A current is forced through the cell; its voltage is what it is."""
    keys = f'do = "charge"\ncurrent = "5 uA"\nuntil = {{ duration = "{LONG_S:g} s" }}'
    run = _start(world, folder, "cc", _heat(335.0, 1.0) + _cell(keys))
    return _until(run, lambda status: status["cell_state"] == "cc", "a constant current")


def constant_voltage(world: World, folder: Path) -> Run:
    """A voltage is held at the cell, a little above its own: what flows is far below the limit."""
    volt = world.ask("counters")["twins"]["cell"]["voltage_v"] + 0.03
    keys = f'do = "charge"\nvoltage = "{volt:.4f} V"\nuntil = {{ duration = "{LONG_S:g} s" }}'
    run = _start(world, folder, "cv", _heat(335.0, 1.0) + _cell(keys))
    return _until(run, lambda status: status["cell_state"] == "cv", "a held voltage")


def at_rest(world: World, folder: Path) -> Run:
    """The circuit is open and its voltage is watched, on a warm plate."""
    keys = f'[[step]]\ndo = "rest"\nduration = "{LONG_S:g} s"\n\n'
    run = _start(world, folder, "rest", _heat(335.0, 1.0) + keys)
    return _until(run, lambda status: status["cell_state"] == "ocv", "a rest")


def short_charge(world: World, folder: Path) -> Run:
    """A charge whose own script ends it after 60 lab seconds, whoever listens."""
    keys = 'do = "charge"\ncurrent = "5 uA"\nvoltage = "4.0 V"\nuntil = { duration = "60 s" }'
    step = f'[[step]]\n{keys}\ntimeout = "90 s"\n\n'
    run = _start(world, folder, "short", _heat(335.0, 1.0) + step)
    return _until(run, lambda status: status["cell_state"] in ("cc", "cv"), "a charge")


def too_hot_for_lithium(world: World, folder: Path) -> Run:
    """A person asks for 450 K in the experiment file: lithium melts at 453.7 K."""
    path = experiment(folder / "hot.toml", REFERENCE + _heat(450.0, 1.0).replace('"10 min"', '"60 min"'))
    return Run.start(folder, path, "--station", str(world.station))


def _number(status: dict[str, Any]) -> int:
    """Return which step runs, from 1."""
    return int((status["step"] or {}).get("number", 0))


def _on_plate(run: Run, world: World) -> Run:
    try:
        world.until(lambda now: now.relay_closed and now.output_percent > 5.0, "power in the plate", run=run)
    except BaseException:
        run.kill_all()
        raise
    return run


def long_scan(world: World, folder: Path) -> Run:
    """A scan with time for a beam that is away for hours."""
    path = one_scan(folder / "long.toml", passes=60, pixels=(16, 24))
    path.write_text(path.read_text().replace('"5 min"', '"20 h"'))
    run = Run.start(folder, path, "--station", str(world.station))
    return _until(run, lambda status: status["scan"] and status["scan"]["line"] >= 1, "a scan")


STAGES: dict[str, Callable[[World, Path], Run]] = {
    "warming up": warming_up,
    "warm": warm,
    "before heating": before_heating,
    "cc": constant_current,
    "cv": constant_voltage,
    "rest": at_rest,
    "short charge": short_charge,
    "asked for 450 K": too_hot_for_lithium,
    "scanning for hours": long_scan,
}


# --- strikes and checks of its own -------------------------------------------------------------------------


def beam_away(scene: Scene, table: Mapping[str, Any]) -> Sign:
    """The accelerator's beam is away for ``lab_s`` lab seconds."""
    world = scene.world
    world.fault("io", "beam_loss", lost=True)
    away = world.outputs().lab_s

    def back() -> bool:
        if world.outputs().lab_s < away + float(table["lab_s"]):
            return False
        world.fault("io", "beam_loss", lost=False)
        return True

    return back


def only_a_person_reopens(scene: Scene) -> None:
    """Assert that the next run is refused though all is well again: the latch waits for a person."""
    scene.world.mend()
    path = one_scan(scene.folder / "next.toml")
    arguments = (path, "--station", str(scene.world.station))
    latched = [trip for (trip,) in scene.run.rows("SELECT id FROM latches")]
    second = Run.start(scene.folder / "second", *arguments, state=scene.run.state)
    try:
        assert second.ended() == 4, second.tell()
        assert all(trip in second.record["outcome"] for trip in latched), second.record["outcome"]
        assert scene.world.outputs().off
    finally:
        second.kill_all()


STRIKES: dict[str, Callable[[Scene, Mapping[str, Any]], Sign | None]] = {"beam_away": beam_away}
AFTER: dict[str, Callable[[Scene], None]] = {"only a person reopens": only_a_person_reopens}


# --- stations ----------------------------------------------------------------------------------------------


def wide_limits(world: World, folder: Path, things: dict[str, Any], undo: Undo) -> World:
    """A station that allows 473 K: only the chemistry is narrower."""
    from hil_tests.fault_settings import at

    station = edited_station(
        world, folder / "wide.toml", lambda text: text.replace('high = "343 K"', 'high = "473 K"')
    )
    assert "473 K" in station.read_text()
    return at(world, station)


SETTINGS: dict[str, Setting] = {"wide limits": wide_limits}
