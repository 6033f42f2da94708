"""What the station says of itself on MQTT (``describe``), and what it listens to from there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.commands import Command, Gate, Refusal, RemoteCommands, load_keys
from controller.payloads import describe, parameter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controller.config import CellWindow, Experiment, Station
    from controller.journal import AsyncJournal


def description(station: Station, experiment: Experiment, limits: CellWindow, speed: float) -> dict[str, Any]:
    """Return the body of ``describe``: modules with parameters, units and limits, and the data streams."""
    device = {role: getattr(station.roles, role) for role in ("heater", "cell")}
    parameters = {
        "heater": {
            "temperature": parameter(
                "cell holder, Pt100", unit="K", low=limits.temperature_low_k, high=limits.temperature_high_k
            ),
            "output": parameter("heater power as a fraction", unit="1", low=0.0, high=1.0),
        },
        "cell": {
            "voltage": parameter(
                "cell voltage", unit="V", low=limits.voltage_low_v, high=limits.voltage_high_v
            ),
            "current": parameter(
                "cell current, positive when charging", unit="A", low=-limits.current_a, high=limits.current_a
            ),
            "charge": parameter("charge passed since the run began", unit="C"),
        },
        "beam": {
            "current": parameter("beam current in front of the blanker", unit="A"),
            "blanked": parameter("whether the beam is blanked", kind="boolean"),
        },
    }
    names = {"heater": device["heater"], "cell": device["cell"], "beam": station.io_name}
    modules = {
        module: {
            "driver": station.devices[names[module] or ""].driver, "roles": [module],
            "description": f"device {names[module]}", "parameters": told,
        }
        for module, told in parameters.items()
    }  # fmt: skip
    elements = [line.element for line in experiment.analysis.lines]
    streams = [f"{kind}/{element}" for kind in ("map", "profile") for element in elements]
    streams += [f"spectrum/{role}" for role in ("pixe", "pige")] + ["soc"]
    return describe(station.name, modules, limits=asdict(limits), streams=streams, speed=speed)


def remote_commands(
    station: Station, journal: AsyncJournal, handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
) -> RemoteCommands | None:
    """Return the handler of signed remote commands, None when the station has them off.

    Raises:
        KeyFileError: the file of keys cannot be used.
    """
    if not station.remote.enabled or station.remote.keys is None:
        return None
    keys = load_keys(Path(station.remote.keys))
    embedded = station.broker.kind == "embedded"

    async def execute(command: Command) -> str:
        # The verb that was allowed is the one that is done: no argument may stand in for it.
        reply = await handle({**command.args, "do": command.verb, "by": f"{command.client} (remote)"})
        if not reply.get("ok"):
            raise Refusal(str(reply.get("error", "refused")), client=command.client, id_=command.id)
        return str(reply.get("text", "done"))

    gate = Gate(station.name, keys, station.remote.allow, journal, embedded=embedded)
    return RemoteCommands(gate, journal, execute)
