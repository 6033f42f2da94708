"""The impedance sweeps of a run: put together from its journal, tested, fitted, told in plain numbers.

A sweep begins with its program, which was journalled before anything was energised, and has the points that
came after it. One that an interruption broke off is told with what it had, and not reduced: the run has taken
it again. Overloaded points are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from controller.config.steps import CIRCUIT, Impedance, Parallel, Repeat
from controller.offline.run_files import RunFiles
from controller.offline.values import quantity

if TYPE_CHECKING:
    from controller.config.steps import Step
    from edge.impedance import SweepResult
    from edge.impedance_circuits import Circuit

NEAR_S = 60.0  # a temperature counts for a sweep that is no farther away
MODES = {"Eis": "potentiostatic", "Geis": "galvanostatic"}
FINE = 300  # points of a drawn fit

Plain = dict[str, Any]


@dataclass
class RunSweep:
    """One sweep as it was measured."""

    title: str
    circuit: str
    mode: str
    program: Plain  # amplitude, frequencies, points, bias
    wall_s: float
    points: list[Plain] = field(default_factory=list)

    @property
    def good(self) -> list[Plain]:
        """The points that are numbers."""
        return [point for point in self.points if point["valid"] and None not in point["z_ohm"]]

    @property
    def complete(self) -> bool:
        """Whether every frequency was measured."""
        return len(self.points) >= int(self.program["points"])


@dataclass(frozen=True)
class Reduced:
    """A sweep with what came out of it; ``result`` is None when nothing could be made of it."""

    sweep: RunSweep
    told: Plain  # for summary.json
    result: SweepResult | None = None

    @property
    def frequency_hz(self) -> np.ndarray:
        """Of the good points, highest first."""
        return np.array([point["frequency_hz"] for point in self.sweep.good])

    @property
    def z_ohm(self) -> np.ndarray:
        """Of the good points."""
        return np.array([complex(*point["z_ohm"]) for point in self.sweep.good])

    def fitted(self) -> np.ndarray | None:
        """Return the fitted circuit over the frequencies that were measured, to be drawn; None without."""
        if self.result is None or self.result.fit is None:
            return None
        f = np.geomspace(self.frequency_hz.max(), self.frequency_hz.min(), FINE)
        return self.result.fit.circuit.impedance(self.result.fit.values, f)


def sweeps_of(run: RunFiles) -> list[RunSweep]:
    """Return the sweeps of a run in order."""
    told: list[tuple[float, str, Plain]] = []
    for body in run.events("step", "sequence"):
        if body.get("state") == "begun" and body.get("do") == "eis":
            told.append((body["wall_s"], "step", body))
    for body in run.events("cell_event", "cell"):
        if body.get("event") == "program" and body.get("sweep"):
            told.append((body["wall_s"], "program", body))
    if not told:
        return []
    for body in run.events("sample", "cell"):
        if body.get("frequency_hz") is not None:
            told.append((body["wall_s"], "sample", body))
    order = {"step": 0, "program": 1, "sample": 2}
    found: list[RunSweep] = []
    title, circuit = "impedance", CIRCUIT
    for wall_s, kind, body in sorted(told, key=lambda entry: (entry[0], order[entry[1]])):
        if kind == "step":
            title, circuit = str(body["title"]), _circuit_of(run, body["path"])
        elif kind == "program":
            found.append(RunSweep(title, circuit, MODES[body["detail"]], dict(body["sweep"]), wall_s))
        elif found:
            found[-1].points.append(body)
    return found


@lru_cache(maxsize=2)
def reduced(run: RunFiles) -> tuple[Reduced, ...]:
    """Return every sweep of a run with what came out of it; nothing is loaded for a run without."""
    return tuple(_reduced(run, sweep, number) for number, sweep in enumerate(sweeps_of(run), 1))


def _reduced(run: RunFiles, sweep: RunSweep, number: int) -> Reduced:
    good = sweep.good
    told: Plain = {
        "number": number, "step": sweep.title, "mode": sweep.mode, **_state(run, sweep),
        "points": len(good), "points_left_out": len(sweep.points) - len(good),
        "points_planned": int(sweep.program["points"]), "complete": sweep.complete,
        "circuit": sweep.circuit, "kramers_kronig": None, "quantities": {}, "parameters": {}, "why_not": "",
    }  # fmt: skip
    if not sweep.complete:
        told["why_not"] = f"broken off after {len(sweep.points)} of {told['points_planned']} points"
        return Reduced(sweep, told)
    from edge.impedance import ImpedanceRules, reduce_sweep  # scipy: only where there is a sweep
    from edge.impedance_circuits import parse

    try:
        circuit = parse(sweep.circuit)
        frequency_hz = np.array([point["frequency_hz"] for point in good])
        z_ohm = np.array([complex(*point["z_ohm"]) for point in good])
        result = reduce_sweep(frequency_hz, z_ohm, ImpedanceRules(circuit))
    except ValueError as error:
        told["why_not"] = str(error)
        return Reduced(sweep, told)
    test = result.test
    told["kramers_kronig"] = {"passed": test.passed, "rms": test.rms, "reason": test.reason}
    told["why_not"] = result.why_not
    told["parameters"] = _parameters(result)
    told["quantities"] = _named(circuit, told["parameters"])
    return Reduced(sweep, told, result)


def _parameters(result: SweepResult) -> dict[str, Plain]:
    """Return the fitted parameters; one that the sweep does not determine has no numbers, but the reason."""
    if result.fit is None:
        return {}
    found: dict[str, Plain] = {}
    for name, e in result.fit.estimates().items():
        if name in result.unresolved:
            nothing = dict.fromkeys(("value", "sigma_stat", "sigma_sys"))
            found[name] = {"unit": e.unit, **nothing, "flags": [f"not resolved: {result.unresolved[name]}"]}
        else:
            found[name] = quantity(e.value, e.sigma_stat, e.sigma_sys, e.unit)
    return found


def _named(circuit: Circuit, parameters: Mapping[str, Plain]) -> dict[str, Plain]:
    """Return R_s, R_ct and the diffusion element of a circuit by these names.

    R_s is the first resistor in series, R_ct the first one inside a p(...), diffusion the first W, Wo or Ws.
    """
    from edge.impedance_circuits import Element, Parallel, elements_of

    named: dict[str, str] = {}
    for part in circuit.root.parts:
        for element in elements_of(part):
            if element.kind == "R" and isinstance(part, Element):
                named.setdefault("r_s", element.name)
            elif element.kind == "R" and isinstance(part, Parallel):
                named.setdefault("r_ct", element.name)
            elif element.kind in ("W", "Wo", "Ws"):
                named.setdefault("warburg", element.name if element.kind == "W" else f"{element.name}_R")
    return {what: dict(parameters[name]) for what, name in named.items() if name in parameters}


def _state(run: RunFiles, sweep: RunSweep) -> Plain:
    """Return where the cell was: voltage and current of the bias, charge, state of charge, temperature."""
    known = [point for point in sweep.points if point.get("voltage_v") is not None]
    first = known[0] if known else None
    nothing: Plain = dict.fromkeys(
        ("lab_s", "voltage_v", "current_a", "charge_coulomb", "soc", "temperature_k", "lasted_s")
    )
    if first is None:
        return nothing
    sample = run.experiment.sample if run.experiment is not None else None
    charge = float(first["charge_coulomb"])
    return {
        "lab_s": first["lab_s"], "voltage_v": first["voltage_v"], "current_a": first["current_a"],
        "charge_coulomb": charge,
        "soc": None if sample is None else sample.soc + charge / sample.capacity_coulomb,
        "temperature_k": _temperature(run, float(first["lab_s"])),
        "lasted_s": float(sweep.points[-1]["elapsed_s"]),
    }  # fmt: skip


def _temperature(run: RunFiles, lab_s: float) -> float | None:
    readings = (
        (abs(float(b["lab_s"]) - lab_s), b.get("temperature_k")) for b in run.events("sample", "heater")
    )
    away_s, kelvin = min(readings, default=(np.inf, None), key=lambda entry: entry[0])
    return kelvin if away_s <= NEAR_S else None


def _circuit_of(run: RunFiles, path: Sequence[int]) -> str:
    """Return the circuit of the step at a path of the sequence; turns of a repeat stand in it."""
    step = next(_down(run.experiment.steps, list(path)), None) if run.experiment is not None else None
    return step.circuit if isinstance(step, Impedance) else CIRCUIT


def _down(steps: Sequence[Step], path: list[int]) -> Iterator[Step]:
    if not path or not 0 <= path[0] < len(steps):
        return
    step = steps[path[0]]
    if isinstance(step, Repeat):
        yield from _down(step.steps, path[2:])
    elif isinstance(step, Parallel):
        yield from _down(step.steps, path[1:])
    else:
        yield step
