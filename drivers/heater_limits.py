"""Which set-points and ramps a heater is given at all: one check for instruments and the loop in the host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drivers.errors import OutOfRange


@dataclass(frozen=True)
class HeaterLimits:
    """The limits of the settings of one heater; what is missing is not limited here."""

    device: str  # for messages
    low_k: float = 0.0
    high_k: float = math.inf
    fastest_k_per_s: float = math.inf

    @classmethod
    def of(cls, settings: Mapping[str, Any], device: str) -> HeaterLimits:
        """Take ``temperature_low_k``, ``temperature_high_k``, ``temperature_rate_k_per_s`` from settings."""
        return cls(
            device,
            float(settings.get("temperature_low_k", 0.0)),
            float(settings.get("temperature_high_k", math.inf)),
            float(settings.get("temperature_rate_k_per_s", math.inf)),
        )

    def check_target_k(self, target_k: float) -> None:
        """Let a set-point pass.

        Raises:
            OutOfRange: it is no number, or outside the limits.
        """
        if not (math.isfinite(target_k) and self.low_k <= target_k <= self.high_k):
            raise OutOfRange(
                f"set-point {target_k:g} K is outside the limits {self.low_k:g} to {self.high_k:g} K",
                device=self.device,
            )

    def check_ramp_k_per_min(self, rate_k_per_min: float) -> None:
        """Let a ramp pass; 0 means at once, and is none where the rate is limited.

        Raises:
            OutOfRange: negative, no number, or faster than the limit.
        """
        if not (math.isfinite(rate_k_per_min) and rate_k_per_min >= 0.0):
            raise OutOfRange(f"ramp of {rate_k_per_min} K/min", device=self.device)
        limit = self.fastest_k_per_s * 60.0
        if math.isfinite(limit) and not 0.0 < rate_k_per_min <= limit * (1.0 + 1e-9):
            raise OutOfRange(
                f"ramp of {rate_k_per_min:g} K/min (0: at once) with a limit of {limit:g} K/min",
                device=self.device,
            )
