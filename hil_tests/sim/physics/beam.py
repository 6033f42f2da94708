"""The proton beam: its current with noise and loss, and where it was during which time.

Whoever deflects and blanks the beam (the I/O twin) pushes *stretches*: times during which position, blanking
and shutter did not change, and the times of the pixel-clock pulses. Each detector takes them at its own pace.
The current monitor stands in front of blanker and shutter: it shows the beam whether or not it reaches the
sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hil_tests.sim.physics.stopping import ELEMENTARY_CHARGE_COULOMB

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stretches:
    """What the beam did: arrays of one length, times in lab seconds; ``pulses_s`` has a length of its own.

    ``current_a`` is what the source gave; it reached the sample where ``on_sample`` is true.
    """

    begin_s: Floats
    end_s: Floats
    x_um: Floats
    y_um: Floats
    on_sample: npt.NDArray[np.bool_]
    current_a: Floats
    pulses_s: Floats

    @property
    def until_s(self) -> float:
        """End of the last stretch."""
        return float(self.end_s[-1])


@dataclass(frozen=True)
class BeamParameters:
    """Nominal current; slow wander and fast noise as fractions of it."""

    current_a: float = 24e-12
    wander: float = 0.01
    wander_s: float = 120.0
    monitor_noise: float = 0.005
    monitor_zero_a: float = 2e-14


class Beam:
    """The current now, and the queue of stretches for each reader."""

    def __init__(self, parameters: BeamParameters, rng: np.random.Generator, readers: Sequence[str]) -> None:
        self.parameters = parameters
        self.lost = False
        self.charge_coulomb = 0.0  # onto the sample
        self.on_sample_s = 0.0
        self.longest_stay_s = 0.0  # without a break on one place of the sample
        self.displaced_um = (0.0, 0.0)  # of the beam on the sample, by a stage that carries the sample
        self.moved_on_um = 0.0  # by which the stage moved while the beam was on the sample
        self._stay_s = 0.0
        self._stay_at: tuple[float, float] | None = None
        self._rng = rng
        self._wander = 0.0
        self._queues: dict[str, list[Stretches]] = {name: [] for name in readers}

    @property
    def current_a(self) -> float:
        """Current in front of the blanker."""
        if self.lost:
            return 0.0
        return self.parameters.current_a * max(0.0, 1.0 + self._wander)

    def process(self, dt_s: float) -> None:
        """Let the current wander: an Ornstein-Uhlenbeck process, exact for any ``dt_s``."""
        p = self.parameters
        keep = math.exp(-dt_s / p.wander_s)
        self._wander = keep * self._wander + p.wander * math.sqrt(1.0 - keep**2) * self._rng.standard_normal()

    def monitor_a(self, count: int = 1) -> Floats:
        """Return ``count`` noisy readings of the current monitor."""
        p = self.parameters
        noise = self._rng.standard_normal(count)
        readings: Floats = self.current_a * (1.0 + p.monitor_noise * noise) + p.monitor_zero_a * noise
        return readings

    def push(self, stretches: Stretches) -> None:
        """Hand over what the beam did; called with rising times. Deflections become places on the sample."""
        dx, dy = self.displaced_um
        if dx or dy:
            stretches = replace(stretches, x_um=stretches.x_um + dx, y_um=stretches.y_um + dy)
        on_s = np.where(stretches.on_sample, stretches.end_s - stretches.begin_s, 0.0)
        self.on_sample_s += float(on_s.sum())
        self.charge_coulomb += float((on_s * stretches.current_a).sum())
        self._count_stays(stretches, on_s)
        for queue in self._queues.values():
            queue.append(stretches)

    def _count_stays(self, stretches: Stretches, on_s: Floats) -> None:
        """Follow how long the beam stays on one place; what joins two batches counts as one stay."""
        x, y, on = stretches.x_um, stretches.y_um, stretches.on_sample
        moved = (np.diff(x) != 0.0) | (np.diff(y) != 0.0) | (on[1:] != on[:-1])
        first = np.flatnonzero(np.concatenate(([True], moved)))
        stays_s = np.add.reduceat(on_s, first)
        begin = (float(x[0]), float(y[0]))
        if on[0] and self._stay_at == begin:
            stays_s[0] += self._stay_s
        self.longest_stay_s = max(self.longest_stay_s, float(stays_s.max()))
        self._stay_at = (float(x[-1]), float(y[-1])) if on[-1] else None
        self._stay_s = float(stays_s[-1])

    def displace(self, x_um: float, y_um: float) -> None:
        """The stage stands elsewhere now."""
        if self._stay_at is not None:  # the beam was on when it was last looked at
            self.moved_on_um += math.hypot(x_um - self.displaced_um[0], y_um - self.displaced_um[1])
        self.displaced_um = (x_um, y_um)

    def take(self, reader: str) -> list[Stretches]:
        """Return what ``reader`` has not seen yet."""
        taken, self._queues[reader] = self._queues[reader], []
        return taken

    def protons(self) -> float:
        """Return the protons that reached the sample."""
        return self.charge_coulomb / ELEMENTARY_CHARGE_COULOMB


def joined(batches: Sequence[Stretches]) -> Stretches:
    """Join batches in order."""
    if len(batches) == 1:
        return batches[0]
    return Stretches(
        begin_s=np.concatenate([b.begin_s for b in batches]),
        end_s=np.concatenate([b.end_s for b in batches]),
        x_um=np.concatenate([b.x_um for b in batches]),
        y_um=np.concatenate([b.y_um for b in batches]),
        on_sample=np.concatenate([b.on_sample for b in batches]),
        current_a=np.concatenate([b.current_a for b in batches]),
        pulses_s=np.concatenate([b.pulses_s for b in batches]),
    )
