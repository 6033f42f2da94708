"""Motion of one stepper axis in lab time: trapezoidal speed, a home sensor, and what can go wrong with it.

Two positions: where the carriage really is, and what the controller counts. They part when somebody pushes
the carriage, when a motor stalls, or when power was lost; homing brings them together again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STEP_S = 0.002  # of the integration, lab time
HOME_FRACTION = 0.25  # of the full speed, towards the sensor
SETTLED = 0.5  # microsteps


@dataclass
class AxisMotion:
    """One axis. Positions in microsteps, speeds in microsteps per second.

    ``true`` is measured from the home sensor, ``counted`` is what the controller believes.
    """

    low: float
    high: float
    max_speed: float
    acceleration: float
    true: float = 0.0
    counted: float = 0.0
    speed: float = 0.0
    target: float | None = None  # of the counted position, None at rest
    homing: bool = False
    stopping: bool = False
    stuck: bool = False  # the controller goes on as if it moved, the carriage does not: nobody notices
    jammed: bool = False  # neither moves, and the controller believes that it is on its way
    stall_at: float | None = None  # true position at which the motor stalls

    @property
    def busy(self) -> bool:
        """Whether the controller says BUSY."""
        return self.homing or self.target is not None or self.stopping

    def go(self, target: float) -> None:
        """Begin to move to a counted position."""
        self.target, self.homing, self.stopping = target, False, False

    def home(self) -> None:
        """Begin to look for the home sensor."""
        self.target, self.homing, self.stopping = None, True, False

    def stop(self) -> None:
        """Slow down and stop."""
        self.stopping = self.stopping or self.busy
        self.target, self.homing = None, False

    def halt(self) -> None:
        """Stop at once, as a stalled motor does."""
        self.target, self.homing, self.stopping, self.speed = None, False, False, 0.0

    def process(self, dt_s: float) -> str | None:
        """Let time pass; return "homed" or "stalled" when that happened meanwhile."""
        happened = None
        while dt_s > 0.0 and self.busy:
            step_s = min(dt_s, STEP_S)
            dt_s -= step_s
            happened = self._step(step_s) or happened
        return happened

    def _step(self, dt_s: float) -> str | None:
        if self.jammed:
            self.speed = 0.0
            return None
        wanted = self._wanted_speed(dt_s)
        change = self.acceleration * dt_s
        self.speed += max(-change, min(change, wanted - self.speed))
        distance = self.speed * dt_s
        if self.target is not None and abs(self.target - self.counted) <= max(SETTLED, abs(distance)):
            distance = self.target - self.counted
            self._shift(distance)
            self.counted = self.target
            self.halt()
            return self._stalled()
        self._shift(distance)
        if self.stopping and self.speed == 0.0:
            self.counted = float(round(self.counted))
            self.halt()
        if self.homing and self.true <= 0.0 and not self.stuck:
            self.true = self.counted = 0.0
            self.halt()
            return "homed"
        return self._stalled()

    def _shift(self, distance: float) -> None:
        self.counted += distance
        if not self.stuck:
            self.true = min(max(self.true + distance, 0.0), self.high * 1.02)

    def _stalled(self) -> str | None:
        if self.stall_at is None or self.true < self.stall_at:
            return None
        self.stall_at = None
        self.halt()
        return "stalled"

    def _wanted_speed(self, dt_s: float) -> float:
        if self.stopping:
            return 0.0
        if self.homing:
            return -HOME_FRACTION * self.max_speed
        if self.target is None:
            return 0.0
        left = self.target - self.counted
        # one step ahead, so that it is slow enough when it arrives
        braking = math.sqrt(2.0 * self.acceleration * max(0.0, abs(left) - abs(self.speed) * dt_s))
        return math.copysign(min(self.max_speed, braking), left)
