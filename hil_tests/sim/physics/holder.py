"""Heat in the sealed sample holder: heater plate, cell between the jaws, Pt100 with lag, loss to ambient.

Three temperatures in a linear network with constant coefficients::

    C_plate dT_plate/dt = P - G_joint (T_plate - T_cell) - G_plate (T_plate - T_ambient)
    C_cell  dT_cell/dt  = G_joint (T_plate - T_cell) - G_cell (T_cell - T_ambient) + P_cell
    tau     dT_pt100/dt = T_plate - T_pt100

so one step with constant power is a matrix exponential: exact whatever ``dt_s``. The heat lost to ambient is
integrated along with the temperatures, so that the energy balance closes to rounding.
The numbers describe no particular holder; they give the size and the time constants of a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import expm

Matrix = npt.NDArray[np.float64]

CACHED_STEPS = 16


@dataclass(frozen=True)
class HolderParameters:
    """Heat capacities in J/K, conductances in W/K."""

    plate_j_per_k: float = 60.0
    cell_j_per_k: float = 25.0
    joint_w_per_k: float = 1.2
    plate_loss_w_per_k: float = 0.10
    cell_loss_w_per_k: float = 0.04
    sensor_lag_s: float = 2.0
    sensor_offset_k: float = 0.0
    max_power_w: float = 40.0
    ambient_k: float = 296.0


class Holder:
    """State of the holder; ``set_duty`` is the heater's input, ``process`` lets time pass."""

    def __init__(self, parameters: HolderParameters | None = None, *, start_k: float | None = None) -> None:
        self.parameters = parameters or HolderParameters()
        self.ambient_k = self.parameters.ambient_k
        start = self.ambient_k if start_k is None else start_k
        self._kelvin: Matrix = np.full(3, start)
        self._duty = 0.0
        self.cell_power_w = 0.0  # heat made inside the cell, constant
        self.self_heating_w = 0.0  # the same from a reaction that goes with its temperature
        self.stuck_power_w = 0.0  # heat from a heater that nothing switches off
        self.heater_joule = 0.0
        self.lost_joule = 0.0
        self._steps: dict[float, Matrix] = {}

    @property
    def plate_k(self) -> float:
        """Temperature of the heater plate, K."""
        return float(self._kelvin[0])

    @property
    def cell_k(self) -> float:
        """Temperature of the cell, K."""
        return float(self._kelvin[1])

    @property
    def pt100_k(self) -> float:
        """Temperature the Pt100 reports, K, its offset included."""
        return float(self._kelvin[2]) + self.parameters.sensor_offset_k

    @property
    def power_w(self) -> float:
        """Electrical power that flows now, W."""
        return self._duty * self.parameters.max_power_w + self.stuck_power_w

    @property
    def stored_joule(self) -> float:
        """Heat stored above 0 K, J; only differences mean anything."""
        p = self.parameters
        return p.plate_j_per_k * self.plate_k + p.cell_j_per_k * self.cell_k

    def set_duty(self, fraction: float) -> None:
        """Set the fraction of the full power, clipped to 0..1: the supply cannot give more."""
        self._duty = min(1.0, max(0.0, fraction))

    def process(self, dt_s: float) -> None:
        """Let ``dt_s`` seconds pass with the power as it is. Raises ValueError if it is negative."""
        if dt_s < 0.0:
            raise ValueError(f"dt_s must not be negative, got {dt_s}")
        if dt_s == 0.0:
            return
        inputs = [self.power_w, self.cell_power_w + self.self_heating_w, self.ambient_k]
        before = np.array([*self._kelvin, 0.0, *inputs])
        after = self._step(dt_s) @ before
        self._kelvin = after[:3]
        self.lost_joule += float(after[3])
        self.heater_joule += self.power_w * dt_s

    def _step(self, dt_s: float) -> Matrix:
        step = self._steps.get(dt_s)
        if step is None:
            if len(self._steps) >= CACHED_STEPS:
                self._steps.clear()
            step = np.asarray(expm(self._rates() * dt_s))
            self._steps[dt_s] = step
        return step

    def _rates(self) -> Matrix:
        """Matrix of d/dt (plate, cell, pt100, lost heat, heater power, cell power, ambient)."""
        p = self.parameters
        rates = np.zeros((7, 7))
        rates[0, [0, 1, 4, 6]] = [
            -(p.joint_w_per_k + p.plate_loss_w_per_k),
            p.joint_w_per_k,
            1.0,
            p.plate_loss_w_per_k,
        ]
        rates[0] /= p.plate_j_per_k
        rates[1, [0, 1, 5, 6]] = [
            p.joint_w_per_k,
            -(p.joint_w_per_k + p.cell_loss_w_per_k),
            1.0,
            p.cell_loss_w_per_k,
        ]
        rates[1] /= p.cell_j_per_k
        rates[2, [0, 2]] = [1.0 / p.sensor_lag_s, -1.0 / p.sensor_lag_s]
        rates[3, [0, 1, 6]] = [
            p.plate_loss_w_per_k,
            p.cell_loss_w_per_k,
            -(p.plate_loss_w_per_k + p.cell_loss_w_per_k),
        ]
        return rates
