"""The streams of a run as event-model documents: what thermal, echem, primary, interlock and baseline hold.

``event`` is synchronous for samples (posted with the group commit) so that no poll ever waits for the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from controller.documents import DocumentWriter, data_key

if TYPE_CHECKING:
    from controller.config import CellWindow, Experiment, Station
    from controller.cycling import CellState
    from controller.guard import Trip
    from controller.journal import AsyncJournal
    from controller.scanning import PassOutcome
    from drivers.clock import Clock
    from drivers.roles import CellSample, HeaterReading


class RunStreams:
    """Opens the descriptors of one run and writes into them."""

    def __init__(self, journal: AsyncJournal, run: str, clock: Clock) -> None:
        self._writer = DocumentWriter(journal, run)
        self._clock = clock
        self._open = False
        self._sweeps = False
        self._monitors: dict[str, Any] = {}
        self._stage_axes: list[str] = []
        self._known: dict[str, float | bool | None] = {}  # the newest of each, for events that hold them all

    async def start(
        self, station: Station, experiment: Experiment, limits: CellWindow, *, resumed_from: str | None = None
    ) -> str:
        """Write the start document and every descriptor; return the uid of the start."""
        uid = await self._writer.start(
            experiment=experiment.name, station=station.name, resumed_from=resumed_from,
            sample={"name": experiment.sample.name, "chemistry": experiment.sample.chemistry},
            lab_speed=self._clock.speed,
        )  # fmt: skip
        number = data_key
        stage = station.monitors.get(station.roles.stage or "", {})
        self._stage_axes = [channel for channel in stage if channel != "moving"]
        temperature = number(
            "operando/heater/process_value", "K", precision=1, low=limits.temperature_low_k,
            high=limits.temperature_high_k, object_name="heater",
        )  # fmt: skip
        voltage = number(
            "operando/cell/voltage", "V", precision=4, low=limits.voltage_low_v, high=limits.voltage_high_v,
            object_name="cell",
        )  # fmt: skip
        current = number(
            "operando/cell/current", "A", low=-limits.current_a, high=limits.current_a, object_name="cell"
        )
        charge = number("operando/cell/charge", "C", object_name="cell")
        await self._writer.descriptor(
            "thermal",
            {
                "temperature": temperature,
                "target": number("operando/heater/target", "K", object_name="heater"),
                "output": number("operando/heater/output", "1", object_name="heater"),
            },
        )
        await self._writer.descriptor(
            "echem",
            {
                "voltage": voltage, "current": current, "charge": charge,
                "phase": number("operando/cell/phase", dtype="string", object_name="cell"),
            },
        )  # fmt: skip
        self._sweeps = any(placed.step.do == "eis" for placed in experiment.walk())
        if self._sweeps:
            await self._writer.descriptor(
                "impedance",
                {
                    "frequency": number("operando/cell/frequency", "Hz", object_name="cell"),
                    "z_real": number("operando/cell/impedance_real", "ohm", object_name="cell"),
                    "z_imag": number("operando/cell/impedance_imaginary", "ohm", object_name="cell"),
                    "voltage": voltage, "current": current, "charge": charge,
                    "phase": number("operando/cell/phase", dtype="string", object_name="cell"),
                },
            )  # fmt: skip
        await self._writer.descriptor(
            "primary",
            {
                "scan": number("operando/scan/number", dtype="integer"),
                "pass": number("operando/scan/pass", dtype="integer"),
                "good": number("operando/scan/good", dtype="boolean"),
                "why": number("operando/scan/why", dtype="string"),
                "beam_charge": number("operando/beam/charge", "C"),
                "events_pixe": number("operando/pixe/events", dtype="integer"),
                "events_pige": number("operando/pige/events", dtype="integer"),
                "temperature": temperature, "voltage": voltage, "charge": charge,
                "soc": number("operando/cell/soc_from_charge", "1"),
                **{f"stage_{axis}": number(f"operando/stage/{axis}", "um", object_name="stage")
                   for axis in self._stage_axes},
            },
        )  # fmt: skip
        await self._writer.descriptor(
            "interlock",
            {name: number(f"operando/guard/{name}", dtype="string") for name in ("id", "action", "text")},
        )
        await self._writer.descriptor(
            "baseline", {"temperature": temperature, "voltage": voltage, "charge": charge}
        )
        self._monitors = {
            f"{name}_{channel}": number(
                f"operando/{name}/{channel}", unit or None, dtype="boolean" if unit is None else "number",
                object_name=name,
            )
            for name, channels in station.monitors.items() for channel, unit in channels.items()
        }  # fmt: skip
        if self._monitors:
            await self._writer.descriptor("monitors", self._monitors)
        self._known = dict.fromkeys(self._monitors)
        self._open = True
        return uid

    def thermal(self, reading: HeaterReading, temperature_k: float | None, target_k: float | None) -> None:
        """One poll of the heater."""
        self._post(
            "thermal",
            {"temperature": temperature_k, "target": target_k, "output": reading.output_fraction},
        )

    def echem(self, now: CellState) -> None:
        """One data package of the cell."""
        self._post(
            "echem",
            {
                "voltage": now.voltage_v,
                "current": now.current_a,
                "charge": now.charge_coulomb,
                "phase": now.state,
            },
        )

    def monitor(self, name: str, values: Mapping[str, float | bool | None]) -> None:
        """One poll of a further device; an event holds the newest poll of each of them."""
        told = {f"{name}_{channel}": value for channel, value in values.items()}
        if self._known.keys() & told.keys():
            self._known |= {key: value for key, value in told.items() if key in self._known}
            self._post("monitors", dict(self._known))

    def impedance(self, sample: CellSample, now: CellState) -> None:
        """One point of an impedance sweep, as measured; an invalid one has no numbers."""
        z_ohm = (sample.z_real_ohm, sample.z_imag_ohm) if sample.valid else (None, None)
        if not self._sweeps:
            return
        self._post(
            "impedance",
            {
                "frequency": sample.frequency_hz, "z_real": z_ohm[0], "z_imag": z_ohm[1],
                "voltage": now.voltage_v, "current": now.current_a, "charge": now.charge_coulomb,
                "phase": now.state,
            },
        )  # fmt: skip

    def scan_pass(self, scan: int, outcome: PassOutcome, stamp: dict[str, Any]) -> None:
        """One pass, good or quarantined."""
        self._post(
            "primary",
            {
                "scan": scan, "pass": outcome.n, "good": outcome.good, "why": outcome.why,
                "beam_charge": outcome.charge_coulomb, "events_pixe": outcome.events.get("pixe", 0),
                "events_pige": outcome.events.get("pige", 0), "temperature": stamp.get("temperature_k"),
                "voltage": stamp.get("voltage_v"), "charge": stamp.get("charge_coulomb"),
                "soc": stamp.get("soc"),
                **{f"stage_{axis}": value for axis, value in zip(
                    self._stage_axes, stamp.get("stage_um") or [None] * len(self._stage_axes), strict=False
                )},
            },
        )  # fmt: skip

    async def interlock(self, trip: Trip) -> None:
        """One trip; on disk on return."""
        if self._open:
            data = {"id": trip.id, "action": trip.action.value, "text": trip.text}
            await self._writer.event("interlock", data, lab_s=self._clock.now_s())

    async def baseline(self, stamp: dict[str, Any]) -> None:
        """The state before and after the run."""
        if self._open:
            data = {
                "temperature": stamp["temperature_k"], "voltage": stamp["voltage_v"],
                "charge": stamp["charge_coulomb"],
            }  # fmt: skip
            await self._writer.event("baseline", data, lab_s=self._clock.now_s())

    async def stop(self, exit_status: Literal["success", "abort", "fail"], reason: str) -> None:
        """The stop document; nothing may follow."""
        if self._open:
            self._open = False
            await self._writer.stop(exit_status, reason)

    def _post(self, stream: str, data: dict[str, Any]) -> None:
        if self._open:
            self._writer.post(stream, data, lab_s=self._clock.now_s())
