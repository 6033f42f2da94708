"""What every pass is stamped with: temperature, voltage, charge and SoC, with their errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.config import Experiment, Station
    from controller.cycling import Cycling
    from controller.heating import Heating
    from controller.staging import Staging
    from drivers.clock import Clock


class Stamps:
    """Reads the owners of heater and cell; never keeps a value of its own."""

    def __init__(
        self, experiment: Experiment, clock: Clock, heating: Heating, cycling: Cycling,
        staging: Staging | None = None,
    ) -> None:  # fmt: skip
        self._experiment = experiment
        self._clock = clock
        self._heating = heating
        self._cycling = cycling
        self._staging = staging

    def now(self) -> dict[str, Any]:
        """Return the stamp of this moment; None for what is not known."""
        cell, known = self._cycling.now, self._cycling.present
        voltage_v, current_a = self._cycling.measured()
        soc, soc_sigma = self.soc()
        return {
            "lab_s": self._clock.now_s(), "temperature_k": self._heating.temperature_k(),
            "voltage_v": voltage_v, "current_a": current_a, "state": cell.state if known else None,
            "charge_coulomb": cell.charge_coulomb if known else None,
            "charge_sigma_coulomb": cell.charge_sigma_coulomb(self._cycling.error) if known else None,
            "charged_s": cell.charged_s if known else None, "soc": soc, "soc_sigma": soc_sigma,
            **self._stage(),
        }  # fmt: skip

    def _stage(self) -> dict[str, Any]:
        """Return where the stage stands, in its own coordinates; nothing where there is none."""
        if self._staging is None or not self._staging.present:
            return {}
        at_um = self._staging.at_um
        return {"stage_um": None if at_um is None else list(at_um)}

    def soc(self) -> tuple[float, float] | tuple[None, None]:
        """Return the state of charge by the coulomb count and its error (charge and capacity).

        Both None where the station has no cell: nobody counts the charge.
        """
        sample, cell = self._experiment.sample, self._cycling.now
        if not self._cycling.present:
            return None, None
        change = cell.charge_coulomb / sample.capacity_coulomb
        counted = cell.charge_sigma_coulomb(self._cycling.error) / sample.capacity_coulomb
        leaked = sample.leakage_a * self._clock.now_s() / sample.capacity_coulomb
        return sample.soc + change, math.hypot(counted, change * sample.capacity_error, leaked)

    def charge(self) -> dict[str, Any]:
        """Return the charge passed since the start of the run, for the record."""
        cell = self._cycling.now
        soc, soc_sigma = self.soc()
        if not self._cycling.present:
            return dict.fromkeys(("coulomb", "sigma", "soc", "soc_sigma")) | {
                "uncounted_s": 0.0, "invalid_samples": 0
            }  # fmt: skip
        return {
            "coulomb": cell.charge_coulomb, "sigma": cell.charge_sigma_coulomb(self._cycling.error),
            "uncounted_s": cell.unmeasured_s, "invalid_samples": cell.invalid, "soc": soc,
            "soc_sigma": soc_sigma,
        }  # fmt: skip


def confirmed_by_person(station: Station) -> list[dict[str, Any]]:
    """Return what no register tells and a person confirmed; every report repeats it."""
    found = []
    for name, device in station.devices.items():
        confirmed = getattr(device, "sensor_break", None)
        if confirmed is not None:
            found.append(
                {
                    "device": name, "what": "sensor break", "setting": confirmed.setting,
                    "safe_output": confirmed.safe_output_fraction, "by": confirmed.confirmed_by,
                    "on": str(confirmed.confirmed_on),
                }
            )  # fmt: skip
        wired = getattr(device, "interlock", None)
        if wired is not None:
            found.append(
                {
                    "device": name, "what": "interlock wired to", "setting": wired.wired_to,
                    "by": wired.confirmed_by, "on": str(wired.confirmed_on),
                }
            )  # fmt: skip
    return found


def energy_scales(station: Station) -> dict[str, dict[str, Any]]:
    """Return, by role, how each detector's energy scale was found, where ``operando calibrate`` found it.

    For the record and the report: errors (keV, one sigma) with their correlation, lines, day, source. The
    reduction does not need them: it fits the scale of every pass to lines of that pass itself.
    """
    found = {}
    for role in ("pixe", "pige"):
        scale = getattr(station.device(role), "energy", None)
        measured = getattr(scale, "measured", None)
        if measured is not None:
            found[role] = measured.model_dump(mode="json")
    return found
