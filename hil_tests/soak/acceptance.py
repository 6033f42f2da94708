"""Soak items: the acceptance test at real time, on every instrument of the rack, and on those that fail."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hil_tests.acceptance.report import data_of
from hil_tests.harness import World
from hil_tests.soak.runner import Failed, Item, Workshop

DUMMY = "100 kohm, 0.25 W, 1 %"
RACKS: dict[str, tuple[str, ...]] = {
    "usual": (),
    "keithley-2400": ("cell=keithley_2400",),
    "keithley-2450": ("cell=keithley_2450", "stage=zaber_ascii"),
    "host-pid": ("heater=host_pid",),
}
# What strikes, and a row that must fail then: (device, what).
FAULTS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "contact in series with the dummy": (
        {"target": "cell", "kind": "contact", "ohm": 3000.0},
        ("cell", "resistance from both"),
    ),
    "relay contact stuck open": ({"target": "io", "kind": "relay", "stuck": "open"}, ("heater", "warmer by")),
    "shutter stuck closed": (
        {"target": "io", "kind": "shutter", "stuck": "closed"},
        ("io", "open, read back"),
    ),
    "displaced sensor": (
        {"target": "heater", "kind": "sensor", "state": "displaced", "offset_k": 70.0},
        ("heater", "temperature"),
    ),
    "open sensor": ({"target": "heater", "kind": "sensor", "state": "open"}, ("heater", "valid readings")),
    "dead heater": (
        {"target": "heater", "kind": "stuck_output", "fraction": 0.0},
        ("heater", "warmer by"),
    ),
}


def accept(work: Workshop, world: World, name: str, tests: str = "") -> dict[str, Any]:
    """Accept a bench with everything allowed; return the data of the report."""
    report = work.folder / f"{name.replace(' ', '-')}.html"
    command = [sys.executable, "-m", "pytest", "hil_tests", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += ["--station", str(world.station), "--allow-energise", "--dummy", DUMMY]
    work.run([*command, "--report", str(report), *(["-k", tests] if tests else [])], limit_s=900.0)
    if not report.is_file():
        raise Failed(f"{name}: no report was written")
    return data_of(report.read_text())


def on_a_rack(choices: Sequence[str], work: Workshop) -> str:
    """Every test passes on these instruments, or says why it cannot be done."""
    more = [word for choice in choices for word in ("--with", choice)]
    world = World.start(work.folder / "bench", speed=1.0, seed=7, more=more)
    try:
        world.put("cell.dummy_ohm", 100e3)
        data = accept(work, world, "report")
        off = _off(world)
    finally:
        world.stop()
    failed = [
        f"{r['device']} {r['what']}: {r['value']} {r['reason']}"
        for r in data["rows"]
        if r["verdict"] == "fail"
    ]
    if failed or not off:
        raise Failed("\n".join([*failed, "" if off else "something was left on"]))
    skipped = [f"skipped: {row['reason']}" for row in data["rows"] if row["verdict"] == "skip"]
    passed = sum(row["verdict"] == "pass" for row in data["rows"])
    return "\n".join([f"{data['verdict']}: {passed} values within their limits", *dict.fromkeys(skipped)])


def on_what_fails(work: Workshop) -> str:
    """Each fault makes the report fail by the row that it concerns; everything is off afterwards."""
    told = []
    for name, (fault, (device, what)) in FAULTS.items():
        world = World.start(work.folder / name.replace(" ", "-"), speed=1.0, seed=7)
        try:
            world.put("cell.dummy_ohm", 100e3)
            world.ask("fault", **fault)
            data = accept(work, world, name, "test_heater or test_cell or test_shutter")
            off = _off(world)
        finally:
            world.stop()
        rows = {(row["device"], row["what"]) for row in data["rows"] if row["verdict"] == "fail"}
        if (device, what) not in rows or data["verdict"] != "failed":
            raise Failed(f"{name}: {device} {what} did not fail, but {sorted(rows)}")
        if not off:
            raise Failed(f"{name}: something was left on")
        told.append(f"{name}: {len(rows)} rows failed, {device} {what} among them")
    return "\n".join(told)


def _off(world: World) -> bool:
    """Return whether relay, beam, shutter and cell are off, as the physics sees it."""
    twins = world.ask("counters")["twins"]
    io, cell = twins["io"], twins["cell"]
    return io["blanked"] and not (io["relay_closed"] or io["shutter_open"] or cell["cell_on"])


def items() -> Iterator[tuple[str, Item]]:
    """Yield every item by name."""
    for name, choices in RACKS.items():
        run: Callable[[Workshop], str] = functools.partial(on_a_rack, choices)
        yield f"acceptance-{name}", run
    yield "acceptance-faults", on_what_fails
