"""What the station says of itself on MQTT (``describe``), and what it listens to from there."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller import outlook
from controller.command_keys import load_keys
from controller.commands import Command, Gate, Refusal, RemoteCommands
from controller.config.station_rules import switch_names
from controller.line_health import described
from controller.payloads import describe, parameter, state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from controller.config import CellWindow, Experiment, Station
    from controller.journal import AsyncJournal
    from controller.record import Recorder


def description(station: Station, experiment: Experiment, limits: CellWindow, speed: float) -> dict[str, Any]:
    """Return the body of ``describe``: modules with parameters, units and limits, and the data streams."""
    device = {role: getattr(station.roles, role) for role in ("heater", "cell")}
    parameters = {
        "heater": {
            "temperature": parameter(
                "cell holder, Pt100", unit="K", low=limits.temperature_low_k, high=limits.temperature_high_k
            ),
            "output": parameter("heater power as a fraction", unit="1", low=0.0, high=1.0),
            "target": parameter("what the holder is to have; null without one", unit="K"),
            "problems": parameter("what the controller complains of", kind="string"),
        },
        "cell": {
            "voltage": parameter(
                "cell voltage", unit="V", low=limits.voltage_low_v, high=limits.voltage_high_v
            ),
            "current": parameter(
                "cell current, positive when charging", unit="A", low=-limits.current_a, high=limits.current_a
            ),
            "charge": parameter("charge passed since the run began", unit="C"),
            "phase": parameter("open circuit, ocv, cc, cv, eis or geis", kind="string"),
        },
        "beam": {
            "current": parameter("beam current in front of the blanker", unit="A"),
            "blanked": parameter("whether the beam is blanked", kind="boolean"),
            "permit": parameter("whether the emergency stop is not pressed", kind="boolean"),
            "relay": parameter("whether the heater's relay is closed", kind="boolean"),
            "shutter": parameter("whether the shutter is open; null where there is none", kind="boolean"),
            **{
                name: parameter(f"whether the input {name} says that all is well", kind="boolean")
                for name in sorted(switch_names(station.source.data))
            },
        },
    }
    names = {"heater": device["heater"], "cell": device["cell"], "beam": station.io_name}
    modules = {
        module: {
            "driver": station.devices[name].driver, "roles": [module],
            "description": f"device {name}", "parameters": told,
        }
        for module, told in parameters.items() if (name := names[module]) is not None
    }  # fmt: skip
    used = Counter(getattr(device, "line", "") for device in station.devices.values())
    shared = [line for line in station.lines if used[line] > 1]
    modules |= described({name: line.model_dump() for name, line in station.lines.items()}, shared)
    for name, channels in station.monitors.items():
        modules[name] = {
            "driver": station.devices[name].driver, "roles": ["monitor"], "description": f"device {name}",
            "parameters": {
                channel: parameter(f"{channel} of {name}", kind="boolean")
                if unit is None else parameter(f"{channel} of {name}", unit=unit or "1")
                for channel, unit in channels.items()
            },
        }  # fmt: skip
    modules["run"] = {
        "roles": [], "description": "where the run stands; what remote commands must expect",
        "parameters": {
            "id": parameter("id of the run", kind="string"),
            "state": parameter("starting, running, paused or ended", kind="string"),
            "step": parameter("number of the step, from 1; null between steps", kind="integer"),
            **outlook.RUN,
        },
    }  # fmt: skip
    detectors = tuple(role for role in ("pixe", "pige") if getattr(station.roles, role))
    modules |= outlook.described(detectors)
    streams: list[str] = []
    if experiment.analysis is not None:
        elements = [line.element for line in experiment.analysis.lines]
        streams += [f"{kind}/{element}" for kind in ("map", "profile") for element in elements]
        streams += [f"spectrum/{role}" for role in ("pixe", "pige")] + ["soc"]
    return describe(station.name, modules, limits=asdict(limits), streams=streams, speed=speed)


def standing(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a run stands, as remote commands may expect it: ``run``, ``state``, ``step``.

    Args:
        status: the answer of the desk; ``paused`` of it is a state here, and steps are counted from 1.
    """
    step = status.get("step")
    now = "paused" if status.get("paused") else status.get("state")
    return {"run": status.get("run"), "state": now, "step": step["number"] if step else None}


class Standing:
    """Publishes where the run stands (``state/run/...``), whenever it changes."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._told: dict[str, Any] = {}

    def tell(self, status: Mapping[str, Any]) -> None:
        """Publish what is different from what was last told."""
        for name, value in standing(status).items():
            if name not in self._told or self._told[name] != value:
                topic = f"state/run/{'id' if name == 'run' else name}"
                self._recorder.post("state", "run", state(value), topic=topic, retain=True)
                self._told[name] = value


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
        said = {"do": command.verb, "by": f"{command.client} (remote)", "remote": True}
        reply = await handle({**command.args, **said})
        if not reply.get("ok"):
            raise Refusal(str(reply.get("error", "refused")), client=command.client, id_=command.id)
        return str(reply.get("text", "done"))

    async def present() -> dict[str, Any]:
        return standing(await handle({"do": "status"}))

    gate = Gate(station.name, keys, station.remote.allow, journal, embedded=embedded, present=present)
    return RemoteCommands(gate, journal, execute)
