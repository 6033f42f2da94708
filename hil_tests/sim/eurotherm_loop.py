"""What happens inside the temperature controller: set-point, ramp, sensor, PID. No wire.

The instrument works in degC and per cent. What its manual leaves open is decided here and said so:

* with ``sensor_break = "off"`` status bit 5 stays clear (the manual: "no alarm");
* a broken sensor reads as the upper end of the range, a shorted one as the lower end;
* the controller's cycle is 0.25 s, its heater output continuous;
* when the remote set-point fails (bit 14) it goes on with the local one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

KELVIN_AT_0_C = 273.15
SensorState = Literal["good", "open", "short", "out of range"]
BreakAction = Literal["off", "on", "latching"]
RAMP_UNITS_S = {0: 60.0, 1: 3600.0, 2: 1.0}  # register 531

MANUAL_BIT, SENSOR_BREAK_BIT, LOOP_BREAK_BIT, OUT_OF_RANGE_BIT = 4, 5, 6, 10
RAMPING_BIT, REMOTE_FAILED_BIT = 13, 14


@dataclass
class LoopSettings:
    """Everything that can be set on the instrument, in its own units."""

    range_low_c: float = -50.0
    range_high_c: float = 400.0
    setpoint_low_c: float = 0.0
    setpoint_high_c: float = 200.0
    output_high_percent: float = 100.0
    safe_output_percent: float = 0.0
    sensor_break: BreakAction = "latching"
    proportional_band_c: float = 25.0
    integral_s: float = 120.0
    derivative_s: float = 15.0
    setpoint_1_c: float = 20.0
    setpoint_2_c: float = 20.0
    use_setpoint_2: bool = False
    remote_c: float = 20.0
    remote: bool = False
    remote_timeout_s: float = 0.0  # 0: the remote set-point is never doubted
    rate: float = 0.0  # 0: no ramp
    rate_unit: int = 0
    manual: bool = False
    manual_percent: float = 0.0
    loop_break_s: float = 0.0


@dataclass
class Loop:
    """State of the control loop, advanced in its own cycles by ``cycle``."""

    settings: LoopSettings = field(default_factory=LoopSettings)
    sensor: SensorState = "good"
    measured_c: float = 20.0  # what the input reads
    working_setpoint_c: float = 20.0
    output_percent: float = 0.0
    break_latched: bool = False
    remote_age_s: float = 0.0
    _integral_percent: float = 0.0
    _last_c: float | None = None
    _saturated_s: float = 0.0
    _saturated_at_c: float = 0.0
    _loop_broken: bool = False

    @property
    def broken(self) -> bool:
        """Whether the input sees no sensor."""
        return self.sensor in ("open", "short")

    @property
    def remote_failed(self) -> bool:
        """Whether the remote set-point has not been refreshed for too long."""
        s = self.settings
        return s.remote and 0.0 < s.remote_timeout_s < self.remote_age_s

    @property
    def local_setpoint_c(self) -> float:
        """The selected one of the two local set-points."""
        s = self.settings
        return s.setpoint_2_c if s.use_setpoint_2 else s.setpoint_1_c

    @property
    def target_c(self) -> float:
        """Where the working set-point is going."""
        s = self.settings
        wanted = s.remote_c if s.remote and not self.remote_failed else self.local_setpoint_c
        return min(max(wanted, s.setpoint_low_c), s.setpoint_high_c)

    @property
    def status_word(self) -> int:
        """Register 75."""
        out_of_range = self.sensor == "out of range"
        bits = {
            MANUAL_BIT: self.settings.manual,
            SENSOR_BREAK_BIT: self._break_alarm(),
            LOOP_BREAK_BIT: self._loop_broken,
            OUT_OF_RANGE_BIT: out_of_range,
            RAMPING_BIT: abs(self.working_setpoint_c - self.target_c) > 1e-6,
            REMOTE_FAILED_BIT: self.remote_failed,
        }
        return sum(1 << bit for bit, active in bits.items() if active)

    def acknowledge(self) -> None:
        """Acknowledge all alarms: a latched break goes if the sensor is back."""
        if not self.broken:
            self.break_latched = False
        self._loop_broken = False
        self._saturated_s = 0.0

    def restart(self, pt100_c: float) -> None:
        """Power on: volatile values are gone, the ramp starts at the measured value, the output at 0."""
        self.settings.remote_c = self.local_setpoint_c
        self.settings.manual = False
        self.remote_age_s = 0.0
        self.measured_c = self._read_input(pt100_c)
        self.working_setpoint_c = self.measured_c
        self.output_percent = self._integral_percent = 0.0
        self._last_c = None
        self.break_latched = self._loop_broken = False

    def cycle(self, pt100_c: float, dt_s: float) -> None:
        """Measure, move the working set-point, decide the output."""
        self.measured_c = self._read_input(pt100_c)
        if self.broken and self.settings.sensor_break == "latching":
            self.break_latched = True
        self.remote_age_s += dt_s
        self._ramp(dt_s)
        self.output_percent = self._output(dt_s)
        self._watch_loop(dt_s)

    def _read_input(self, pt100_c: float) -> float:
        s = self.settings
        if self.sensor == "open":
            return s.range_high_c
        if self.sensor == "short":
            return s.range_low_c
        if self.sensor == "out of range":
            return s.range_high_c + 0.06 * (s.range_high_c - s.range_low_c)
        return pt100_c

    def _ramp(self, dt_s: float) -> None:
        s = self.settings
        step = s.rate * dt_s / RAMP_UNITS_S[s.rate_unit]
        distance = self.target_c - self.working_setpoint_c
        if s.rate <= 0.0 or abs(distance) <= step:
            self.working_setpoint_c = self.target_c
        else:
            self.working_setpoint_c += step if distance > 0.0 else -step

    def _output(self, dt_s: float) -> float:
        s = self.settings
        if s.manual:  # a sensor break changes nothing in manual mode
            return min(max(s.manual_percent, 0.0), s.output_high_percent)
        if self.broken or self.break_latched:
            self._integral_percent = 0.0
            self._last_c = None
            if s.sensor_break == "off":
                return s.output_high_percent  # the dangerous one: full heat without a sensor
            return min(max(s.safe_output_percent, 0.0), s.output_high_percent)
        return self._pid(dt_s)

    def _pid(self, dt_s: float) -> float:
        """Positional PID with the derivative on the measurement; the integral stands still while clipped."""
        s = self.settings
        gain = 100.0 / s.proportional_band_c
        error_c = self.working_setpoint_c - self.measured_c
        slope = 0.0 if self._last_c is None else (self.measured_c - self._last_c) / dt_s
        self._last_c = self.measured_c
        free = gain * (error_c - s.derivative_s * slope) + self._integral_percent
        growth = gain * error_c * dt_s / s.integral_s if s.integral_s > 0.0 else 0.0
        if 0.0 < free < s.output_high_percent or free * growth <= 0.0:
            self._integral_percent += growth
            free += growth
        return min(max(free, 0.0), s.output_high_percent)

    def _watch_loop(self, dt_s: float) -> None:
        """Loop break: output at its limit and the measurement does not move by half a band."""
        s = self.settings
        if s.loop_break_s <= 0.0 or not 0.0 < s.output_high_percent <= self.output_percent:
            self._saturated_s = 0.0
            self._saturated_at_c = self.measured_c
            return
        self._saturated_s += dt_s
        if abs(self.measured_c - self._saturated_at_c) >= 0.5 * s.proportional_band_c:
            self._saturated_s = 0.0
            self._saturated_at_c = self.measured_c
        elif self._saturated_s >= s.loop_break_s:
            self._loop_broken = True

    def _break_alarm(self) -> bool:
        if self.settings.sensor_break == "off":
            return False
        return self.broken or self.break_latched
