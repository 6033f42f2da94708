"""One module for each kind of work a step does; ``handler_of`` finds the function that runs a step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from controller.steps import beam, cell, frames, manual, talk, thermal

if TYPE_CHECKING:
    from controller.config.steps import Step
    from controller.steps.context import Context

Handler = Callable[["Context", Any], Awaitable[str]]

HANDLERS: dict[str, Handler] = {
    "heat": thermal.heat,
    "cool": thermal.cool,
    "hold": thermal.hold,
    "ocv": cell.open_circuit,
    "rest": cell.open_circuit,
    "charge": cell.charge,
    "discharge": cell.charge,
    "pulse": cell.pulse,
    "eis": cell.impedance,
    "scan": beam.scan,
    "calibrate": beam.scan,
    "background": beam.background,
    "move": beam.move,
    "expose": frames.expose,
    "manual": manual.manual,
    "message": talk.message,
}


def handler_of(step: Step) -> Handler:
    """Return the coroutine function that runs a step and returns why it ended."""
    return HANDLERS[step.do]


def title_of(step: Step) -> str:
    """Return a short title for people."""
    name = getattr(step, "name", None)
    match step.do:
        case "heat" | "cool":
            text = f"{step.do} to {step.to_k:.1f} K"
        case "scan" | "background" | "calibrate" | "expose":
            text = step.do
        case "charge" | "discharge":
            parts = []
            if step.current_a is not None:
                parts.append(f"{step.current_a * 1e6:.1f} uA")
            if step.voltage_v is not None:
                parts.append(f"{step.voltage_v:.2f} V")
            text = f"{step.do} {' to '.join(parts)}"
        case "ocv":
            text = "open-circuit voltage"
        case _:
            text = step.do
    return f'{text} "{name}"' if name else text
